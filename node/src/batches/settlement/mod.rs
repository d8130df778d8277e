//! How a batch ends: channels are retired, keys handed over, outputs taken back, channels
//! forgotten.
//!
//! ```text
//! channel closed by both ──► leaf retired ──► user's key released ──► hub reclaims by key path
//!                                                        E reached ──► hub sweeps by script leaf
//!                                    an ancestor of the leaf taken ──► 100 blocks ──► forgotten
//! ```
//!
//! The machines of both roles decide; here is what they ask for, and what they must be told:
//!
//! - `plan.rs`: what is to be taken of a tree, when, and for how much. Pure.
//! - `hub.rs`: keys that users handed over, and the transaction that takes outputs back.
//! - `user.rs`: when a user hands its key over.
//! - `watch.rs`: what blocks and records of channels say to machines, and which channels are dead.
//! - `record.rs`: what the store has.
//!
//! Closing transactions of retired channels are parked, and leave by themselves when their leaf
//! is on chain, in `lightning/withheld.rs`; paths are published by `unroll/`; what was spent of a
//! tree is recorded in `chain/virtual_confirmation/`.
//!
//! Source: BATCHES §6 "Retired" and §8.

mod hub;
mod plan;
mod record;
#[cfg(test)]
mod tests;
mod user;
mod watch;

pub(super) use hub::Settling;
pub use user::ReleaseError;
pub use watch::SettlementView;
