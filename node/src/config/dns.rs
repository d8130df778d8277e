//! Section `[dns]`: names of payees.

use serde::{Deserialize, Serialize};

use super::InvalidConfig;
use super::text::is_host_and_port;

/// Section `[dns]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// Who is asked for names, `host:port`, over TCP; empty: nobody.
    pub resolver: String,
}

impl DnsConfig {
    /// Checks the section.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        if self.resolver.is_empty() || is_host_and_port(&self.resolver) {
            return Ok(());
        }
        Err(InvalidConfig {
            key: "dns.resolver",
            value: format!("{:?}", self.resolver),
            allowed: "host:port of a resolver that speaks DNS over TCP, or nothing".into(),
            remedy: "53 is the usual port; an IPv6 address stands in brackets",
        })
    }
}
