//! What an operator allows and asks of payouts.

use std::time::Duration;

use crate::config::PayoutConfig;

/// The section `[payouts]` in the words of this room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutPolicy {
    /// Most lines of one payout.
    pub lines_max: usize,
    /// Most payouts that have not ended.
    pub open_max: usize,
    /// Payments under way at once, where a payout does not say.
    pub concurrency: u32,
    /// How long lines are tried, where a payout does not say.
    pub time_limit: Duration,
    /// The wait before a line's second attempt; doubles from one to the next
    pub retry_first: Duration,
    /// up to this.
    pub retry_longest: Duration,
}

impl PayoutPolicy {
    /// Reads the configuration.
    pub fn new(config: &PayoutConfig) -> Self {
        Self {
            lines_max: config.lines_max,
            open_max: config.open_max,
            concurrency: config.concurrency,
            time_limit: Duration::from_secs(config.time_limit_seconds),
            retry_first: Duration::from_millis(config.retry_first_ms),
            retry_longest: Duration::from_secs(config.retry_longest_seconds),
        }
    }

    /// The wait after `attempts` that failed.
    pub(super) fn wait_after(&self, attempts: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        self.retry_first.saturating_mul(doubled).min(self.retry_longest)
    }
}
