//! Why a payout is not made, changed or found.

use super::line::FileError;
use super::machine::Rejection;
use super::reconcile::Mismatch;
use crate::journal::{IdempotencyError, PayoutId};
use crate::store::StoreError;
use crate::tokens::SpendingError;

/// Why a call about a payout is refused. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub enum PayoutError {
    /// There is none of this name.
    #[error("there is no payout {0}; see the list of payouts")]
    Unknown(PayoutId),
    /// There is no line of this number.
    #[error("payout {payout} has no line {line}")]
    UnknownLine {
        /// The payout.
        payout: PayoutId,
        /// The number.
        line: u32,
    },
    /// The lines cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are as many as there may be.
    #[error("{max} payouts have not ended, as many as payouts.open_max allows; cancel one")]
    Full {
        /// How many that is.
        max: usize,
    },
    /// The machine's word.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Sums do not agree.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The token does not pay.
    #[error(transparent)]
    Token(#[from] SpendingError),
    /// The key cannot be used.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}
