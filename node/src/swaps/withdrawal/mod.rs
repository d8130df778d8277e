//! Withdrawals: a payment of the user that the hub holds, against an output of the hub.
//!
//! `user.rs` and `hub.rs` are the sides.

mod hub;
mod user;

pub(super) use user::ANSWER_BLOCKS;
