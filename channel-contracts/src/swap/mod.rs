//! Withdrawals and deposits: a payment over Lightning against an output on chain, under one hash.
//!
//! - [`transactions`]: claim, refund and key-path spends of a swap's output.
//! - [`margins`]: how the times of both legs are ordered, and why.
//! - [`withdrawal`]: from channel to chain, the machines of both sides.
//! - [`deposit`]: from chain to channel, the machines of both sides.
//!
//! In both the *user* knows the preimage. So the leg by which the hub pays must be locked after
//! the leg by which it is paid: in a withdrawal the user's payment is held by the hub *before*
//! the hub's output goes into a batch transaction, and in a deposit the user's output is buried
//! before the hub pays. (A hub that funded a withdrawal first would lose it to a user who claims
//! and never pays.)
//!
//! Keys are fresh for each swap. When a swap is settled, the side that has been paid hands its
//! key over, and the other spends by key path alone: the cheapest and most private way, with no
//! nonce exchanged. If it does not, there is the preimage or the time.
//!
//! The machines have the shape of [`batch`](crate::batch): pure decisions, no secret but the
//! preimage, effects that ask the shell.
//!
//! Source: BATCHES §7.

pub mod deposit;
pub mod margins;
pub mod transactions;
pub mod withdrawal;

pub use margins::{DepositTimes, MarginError, WithdrawalTimes};
pub use transactions::{SwapSpend, SwapSpendError};

pub use crate::script::swap::{RefundTime, SwapContract, SwapOutput};
