//! Deposits: an output of the user, against a payment of the hub.
//!
//! `user.rs` and `hub.rs` are the sides.

mod hub;
mod user;

use channel_contracts::batch::deadlines::ROLLOVER_SECOND_CLTV_MAX;

/// Largest `min_final_cltv_expiry_delta` of a user's invoice: what a deep channel asks for, and
/// what LDK adds.
const FINAL_CLTV_MAX: u32 = ROLLOVER_SECOND_CLTV_MAX + 4;
