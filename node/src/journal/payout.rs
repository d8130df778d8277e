//! What happens to payouts. Names and fields are part of the store's format, as in `event.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a payout: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PayoutId(pub [u8; 16]);

impl fmt::Display for PayoutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PayoutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What happens to a payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutEvent {
    /// Its name.
    pub payout: PayoutId,
    /// What happened.
    pub what: PayoutStep,
}

/// A step of a payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields say it")]
pub enum PayoutStep {
    /// It was checked and quoted; as a run of a schedule, it is being paid as well.
    Created { good_lines: u32, bad_lines: u32, total_msat: u64 },
    /// Somebody agreed to the quote.
    Accepted { total_msat: u64, max_fee_msat: u64 },
    /// Its time has come.
    Started,
    /// No further line is begun.
    Paused,
    /// It goes on.
    Resumed,
    /// Lines that failed are paid anew.
    Retried { lines: u32 },
    /// A line is given up.
    LineFailed { line: u32 },
    /// Times of a schedule went by while it could not run.
    RunsMissed { runs: u32 },
    /// Every line has its end; of a schedule, every run.
    Completed { paid_msat: u64, fee_msat: u64, failed_lines: u32 },
    /// What was not paid by then will not be.
    Cancelled { paid_msat: u64, fee_msat: u64 },
}
