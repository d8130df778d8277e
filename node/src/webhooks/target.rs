//! Where an endpoint is: its URL, taken apart.

use std::net::{IpAddr, SocketAddr};

use hyper::Uri;

use super::guard::{self, Refused};

/// Longest URL, in bytes.
const URL_LENGTH_MAX: usize = 2_048;

/// An endpoint's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether it is reached by TLS.
    pub is_https: bool,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as in the URL, for the header `host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// Why a text is no URL that webhooks are sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The form is wrong.
    #[error("url is not of the form https://host/path: {0}")]
    Form(String),
    /// It is longer than we keep.
    #[error("url has {bytes} bytes, at most {URL_LENGTH_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It names a user.
    #[error("url carries credentials; a receiver knows this node by its signature")]
    Credentials,
    /// It is not encrypted.
    #[error(
        "url is not https; plain http is for private addresses, where webhook.allow_private is set"
    )]
    PlainText,
    /// Its address may not be reached.
    #[error(transparent)]
    Address(#[from] Refused),
}

impl Target {
    /// Reads a URL. A name is not resolved here: what it stands for is judged at each connection.
    ///
    /// # Errors
    ///
    /// See [`UrlError`].
    pub fn parse(url: &str, allow_private: bool) -> Result<Self, UrlError> {
        if url.len() > URL_LENGTH_MAX {
            return Err(UrlError::TooLong { bytes: url.len() });
        }
        let uri: Uri = url.parse().map_err(|error| UrlError::Form(format!("{error}")))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if allow_private => false,
            Some("http") => return Err(UrlError::PlainText),
            _ => return Err(UrlError::Form("it begins with no https://".to_owned())),
        };
        let authority = uri.authority().ok_or_else(|| UrlError::Form("it has no host".into()))?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // A port that does not fit is left out by the parser rather than refused.
        let has_port = authority.as_str().len() > host.len();
        let port = match (authority.port_u16(), is_https) {
            (Some(0), _) => return Err(UrlError::Form("port 0 is none".into())),
            (Some(port), _) => port,
            (None, _) if has_port => return Err(UrlError::Form("its port is none".into())),
            (None, true) => 443,
            (None, false) => 80,
        };
        if bare.is_empty() {
            return Err(UrlError::Form("it has no host".into()));
        }
        let target = Self {
            is_https,
            host: bare.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        };
        if let Some(address) = target.literal() {
            guard::judge(&[address], allow_private, is_https)?;
        }
        Ok(target)
    }

    /// Its address, if the host is one and no name.
    pub fn literal(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(address, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::parse("https://shop.example/hooks?from=node", false).unwrap();
        assert_eq!((target.is_https, target.port), (true, 443));
        assert_eq!((&*target.host, &*target.authority), ("shop.example", "shop.example"));
        assert_eq!(target.path, "/hooks?from=node");
        let target = Target::parse("http://[::1]:8080", true).unwrap();
        assert_eq!((&*target.host, target.port, &*target.path), ("::1", 8080, "/"));
        assert_eq!(target.authority, "[::1]:8080");
        assert_eq!(target.literal(), Some("[::1]:8080".parse().unwrap()));
    }

    #[test]
    fn what_is_no_public_https_is_refused() {
        for url in [
            "",
            "/",
            "shop.example",
            "ftp://shop.example/",
            "https://",
            "https:///path",
            "https://user:secret@shop.example/",
            "https://user@shop.example/",
            "http://shop.example/",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://127.0.0.1:1/",
            "https://[::ffff:169.254.169.254]/latest",
            "https://shop.example:0/",
            "https://shop.example:99999/",
            "https://shop.example:/",
            "https://shop example/",
            "https://shop.example/\r\nx: y",
            "javascript:alert(1)",
            "file:///etc/passwd",
        ] {
            assert!(Target::parse(url, false).is_err(), "{url:?}");
        }
        let long = format!("https://shop.example/{}", "a".repeat(URL_LENGTH_MAX));
        assert!(matches!(Target::parse(&long, false), Err(UrlError::TooLong { .. })));
        // What is refused is not repeated: it may be a password.
        let error = Target::parse("https://user:secret@shop.example/", false).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn plain_http_is_for_private_addresses_where_they_are_allowed() {
        assert!(Target::parse("http://127.0.0.1:3000/", true).is_ok());
        assert!(Target::parse("http://8.8.8.8/", true).is_err());
        assert!(Target::parse("https://169.254.169.254/", true).is_err());
        // A name is judged when it is resolved.
        assert!(Target::parse("http://receiver.internal/", true).is_ok());
    }
}
