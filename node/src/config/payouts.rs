//! Section `[payouts]`: many payments from one file.

use serde::{Deserialize, Serialize};

use super::InvalidConfig;
use super::validate::within;

/// Section `[payouts]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PayoutConfig {
    /// Most lines of one payout.
    pub lines_max: usize,
    /// Most payouts that have not ended.
    pub open_max: usize,
    /// Payments of one payout under way at once, where it does not say.
    pub concurrency: u32,
    /// How long lines that cannot be paid at once are tried, where a payout does not say, seconds.
    pub time_limit_seconds: u64,
    /// The wait before a line's second attempt, milliseconds.
    pub retry_first_ms: u64,
    /// The longest wait between two attempts, seconds.
    pub retry_longest_seconds: u64,
}

impl Default for PayoutConfig {
    fn default() -> Self {
        Self {
            lines_max: 50_000,
            open_max: 1_000,
            concurrency: 20,
            time_limit_seconds: 3_600,
            retry_first_ms: 1_000,
            retry_longest_seconds: 60,
        }
    }
}

impl PayoutConfig {
    /// Checks the section.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        within(
            "payouts.lines_max",
            self.lines_max as u64,
            1..=200_000,
            "all lines of a payout are written at once; make several payouts of more",
        )?;
        within(
            "payouts.open_max",
            self.open_max as u64,
            1..=100_000,
            "those that have ended do not count",
        )?;
        within(
            "payouts.concurrency",
            u64::from(self.concurrency),
            1..=100,
            "channels are full with some hundred payments",
        )?;
        within(
            "payouts.time_limit_seconds",
            self.time_limit_seconds,
            1..=30 * 86_400,
            "lines that cannot be paid by then are given up, and can be retried",
        )?;
        within(
            "payouts.retry_first_ms",
            self.retry_first_ms,
            1..=3_600_000,
            "it doubles with each attempt",
        )?;
        within(
            "payouts.retry_longest_seconds",
            self.retry_longest_seconds,
            1..=86_400,
            "a receiver that is back waits at most that long",
        )
    }
}
