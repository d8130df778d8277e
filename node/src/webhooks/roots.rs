//! Who is trusted to say who a receiver is: the system's authorities, and one's own.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Why no receiver's certificate can be judged.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// There are no authorities.
    #[error(
        "the system has no certificate authorities{detail}; install them (ca-certificates), or set webhook.ca_file"
    )]
    None {
        /// What went wrong when they were looked for.
        detail: String,
    },
    /// The operator's own cannot be read.
    #[error("webhook.ca_file {path} cannot be used: {detail}")]
    Own {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// rustls has no TLS version in common with itself.
    #[error("TLS cannot be set up: {0}; report this")]
    Setup(#[from] rustls::Error),
    /// The node stopped meanwhile.
    #[error("reading the certificate authorities was interrupted: {0}")]
    Interrupted(String),
}

/// Trusts the system's authorities and those in `ca_file`. Blocks for some milliseconds.
///
/// # Errors
///
/// See [`RootsError`].
pub fn connector(ca_file: Option<PathBuf>) -> Result<TlsConnector, RootsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // A system has some that rustls does not read; the others count.
    let (_read, _unread) = roots.add_parsable_certificates(found.certs);
    if let Some(path) = ca_file {
        let wrong = |detail: String| RootsError::Own { path: path.clone(), detail };
        let own = CertificateDer::pem_file_iter(&path).map_err(|error| wrong(error.to_string()))?;
        let before = roots.len();
        for certificate in own {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(wrong("it holds no certificate".to_owned()));
        }
    }
    if roots.is_empty() {
        let detail = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(RootsError::None { detail });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("own.pem");
        let missing = connector(Some(path.clone())).err().unwrap().to_string();
        assert!(missing.contains("own.pem"), "{missing}");
        std::fs::write(&path, "no certificate\n").unwrap();
        let empty = connector(Some(path)).err().unwrap().to_string();
        assert!(empty.contains("webhook.ca_file") && empty.contains("no certificate"), "{empty}");
    }
}
