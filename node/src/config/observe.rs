//! Sections `[metrics]` and `[traces]`: what the node shows of itself.

use serde::{Deserialize, Serialize};

use super::secret::SecretRef;
use super::text::{self, is_host_and_port};
use super::validate::{InvalidConfig, within};
use crate::runtime::spans::Endpoint;

/// Section `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// `host:port` of the page of figures; empty serves none, and measures nothing.
    pub listen: String,
    /// Reference to a token that whoever asks must bring; `None` asks for none.
    #[serde(with = "text::empty_is_none")]
    pub token: Option<SecretRef>,
    /// Whether each channel has lines of its own.
    pub per_channel: bool,
}

/// Section `[traces]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// Where an OpenTelemetry collector takes traces, `http://host:port`; empty tells nobody.
    pub endpoint: String,
    /// How many of a million payments are told.
    pub sample_ppm: u32,
    /// The name under which the node is told.
    pub service_name: String,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: String::new(), sample_ppm: 10_000, service_name: "tributary".into() }
    }
}

impl MetricsConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        if self.listen.is_empty() || is_host_and_port(&self.listen) {
            return Ok(());
        }
        Err(InvalidConfig {
            key: "metrics.listen",
            value: format!("{:?}", self.listen),
            allowed: "host:port, an IPv6 host in brackets".into(),
            remedy: "for example 127.0.0.1:9464; empty serves no figures",
        })
    }
}

impl TracesConfig {
    /// The collector; `None` if nobody is told.
    pub fn collector(&self) -> Option<Endpoint> {
        self.endpoint.parse().ok()
    }

    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        let refuse = |key, value: &str, allowed: &str, remedy| {
            let (value, allowed) = (format!("{value:?}"), allowed.into());
            Err(InvalidConfig { key, value, allowed, remedy })
        };
        if !self.endpoint.is_empty() && self.endpoint.parse::<Endpoint>().is_err() {
            return refuse(
                "traces.endpoint",
                &self.endpoint,
                "http://host:port, with a path if it is not /v1/traces",
                "a collector takes OTLP over HTTP on port 4318; run one beside the node for TLS",
            );
        }
        if self.service_name.is_empty() || self.service_name.len() > 64 {
            return refuse(
                "traces.service_name",
                &self.service_name,
                "1 to 64 bytes",
                "\"tributary\" is usual",
            );
        }
        within(
            "traces.sample_ppm",
            self.sample_ppm.into(),
            0..=1_000_000,
            "the unit is millionths; 1000000 tells every payment",
        )
    }
}
