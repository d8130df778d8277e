//! Section `[rest]`: the API for those without gRPC.

use serde::{Deserialize, Serialize};

use super::InvalidConfig;
use super::validate::within;

/// Section `[rest]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestConfig {
    /// `host:port` of REST, server-sent events and grpc-web; empty serves none.
    pub listen: String,
    /// Origins of the web pages that may call.
    pub allowed_origins: Vec<String>,
    /// Connections at once.
    pub connections_max: usize,
    /// Longest body of a request, KiB.
    pub request_max_kib: usize,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            allowed_origins: Vec::new(),
            connections_max: 1_024,
            request_max_kib: 1_024,
        }
    }
}

impl RestConfig {
    /// Checks the section, beside the address of `[rpc]`, whose token and certificate it uses.
    pub(super) fn validate(&self, rpc_listen: &str) -> Result<(), InvalidConfig> {
        if !self.listen.is_empty() && rpc_listen.is_empty() {
            return Err(InvalidConfig {
                key: "rest.listen",
                value: format!("{:?}", self.listen),
                allowed: "empty while rpc.listen is".into(),
                remedy: "set rpc.listen as well",
            });
        }
        if let Some(wrong) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(InvalidConfig {
                key: "rest.allowed_origins",
                value: format!("{wrong:?}"),
                allowed: "scheme://host or scheme://host:port, in small letters".into(),
                remedy: "for example https://shop.example, without a path; every page is named",
            });
        }
        within(
            "rest.connections_max",
            self.connections_max as u64,
            1..=100_000,
            "each takes a file descriptor and some 50 KiB",
        )?;
        within(
            "rest.request_max_kib",
            self.request_max_kib as u64,
            1..=4_096,
            "64 of the longest may be in memory at once",
        )
    }
}

/// Whether a browser could send this in `Origin`.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:[]".contains(c);
    rest.is_some_and(|host| !host.is_empty() && host.chars().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        for good in ["https://shop.example", "http://localhost:3000", "http://[::1]:80"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["*", "shop.example", "https://", "https://a.example/", "https://A.example", "null"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
