//! What an operator allows and asks of webhooks.

use std::path::PathBuf;
use std::time::Duration;

use super::queue::RetryPolicy;
use crate::config::WebhookConfig;

/// The section `[webhook]` in the words of this room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPolicy {
    /// Whether receivers may be in private networks.
    pub allow_private: bool,
    /// Authorities trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Most endpoints.
    pub endpoints_max: usize,
    /// Deliveries to one endpoint at once.
    pub concurrency: usize,
    /// Events that wait for one endpoint at once; the others wait in the log.
    pub waiting_max: usize,
    /// How long a receiver has for its answer.
    pub timeout: Duration,
    /// When an event is tried again.
    pub retry: RetryPolicy,
    /// Dead letters kept for one endpoint.
    pub dead_letters_max: u64,
    /// How long a secret that was replaced signs as well.
    pub rotation_grace: Duration,
}

impl WebhookPolicy {
    /// Reads the configuration.
    pub fn new(config: &WebhookConfig) -> Self {
        let ca_file = Some(config.ca_file.clone()).filter(|path| !path.as_os_str().is_empty());
        Self {
            allow_private: config.allow_private,
            ca_file,
            endpoints_max: config.endpoints_max,
            concurrency: config.concurrency,
            waiting_max: config.waiting_max,
            timeout: Duration::from_millis(config.timeout_ms),
            retry: RetryPolicy {
                first_ms: config.retry_first_ms,
                longest_ms: config.retry_longest_seconds.saturating_mul(1_000),
                give_up_ms: config.give_up_seconds.saturating_mul(1_000),
            },
            dead_letters_max: config.dead_letters_max,
            rotation_grace: Duration::from_secs(config.rotation_grace_seconds),
        }
    }
}
