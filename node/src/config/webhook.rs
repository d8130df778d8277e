//! Section `[webhook]`: events told over HTTP.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::InvalidConfig;
use super::validate::within;

/// Section `[webhook]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Whether receivers may be in private networks, and then without TLS.
    pub allow_private: bool,
    /// Certificate authorities trusted beside the system's, PEM; empty means none.
    pub ca_file: PathBuf,
    /// Most endpoints.
    pub endpoints_max: usize,
    /// Deliveries to one endpoint at once.
    pub concurrency: usize,
    /// Events that wait for one endpoint at once.
    pub waiting_max: usize,
    /// How long a receiver has for its answer, milliseconds.
    pub timeout_ms: u64,
    /// The wait after the first try, milliseconds.
    pub retry_first_ms: u64,
    /// The longest wait between two tries, seconds.
    pub retry_longest_seconds: u64,
    /// How long an event is tried, seconds.
    pub give_up_seconds: u64,
    /// Dead letters kept for one endpoint.
    pub dead_letters_max: u64,
    /// How long a secret that was replaced signs as well, seconds.
    pub rotation_grace_seconds: u64,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            allow_private: false,
            ca_file: PathBuf::new(),
            endpoints_max: 32,
            concurrency: 8,
            waiting_max: 1_000,
            timeout_ms: 15_000,
            retry_first_ms: 5_000,
            retry_longest_seconds: 6 * 3_600,
            give_up_seconds: 3 * 24 * 3_600,
            dead_letters_max: 10_000,
            rotation_grace_seconds: 24 * 3_600,
        }
    }
}

impl WebhookConfig {
    /// Checks the section.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        within(
            "webhook.endpoints_max",
            self.endpoints_max as u64,
            1..=1_000,
            "each has its own place in the log of events",
        )?;
        within(
            "webhook.concurrency",
            self.concurrency as u64,
            1..=100,
            "events of one object are delivered one after the other all the same",
        )?;
        within(
            "webhook.waiting_max",
            self.waiting_max as u64,
            1..=100_000,
            "they are in memory; what comes after them waits in the log",
        )?;
        within("webhook.timeout_ms", self.timeout_ms, 100..=120_000, "15000 is usual")?;
        within(
            "webhook.retry_first_ms",
            self.retry_first_ms,
            1..=3_600_000,
            "it doubles with each try",
        )?;
        within(
            "webhook.retry_longest_seconds",
            self.retry_longest_seconds,
            1..=86_400,
            "a receiver that is back waits at most that long",
        )?;
        within(
            "webhook.give_up_seconds",
            self.give_up_seconds,
            1..=30 * 86_400,
            "then an event is a dead letter, which can be replayed",
        )?;
        within(
            "webhook.dead_letters_max",
            self.dead_letters_max,
            1..=100_000,
            "the oldest are dropped, which is counted",
        )?;
        within(
            "webhook.rotation_grace_seconds",
            self.rotation_grace_seconds,
            0..=30 * 86_400,
            "0 replaces a secret at once",
        )
    }
}
