//! The watchtower, both sides.
//!
//! - `server/`: what a tower promises, how it sees a breach, and how it answers.
//! - `client/`: what this node hands to towers of its choice.
//!
//! What is sealed, signed and spent is in `channel-contracts`, rooms `justice` and `tower`; what
//! a channel reveals as its states are revoked comes from `lightning/justice`. Doors are in `rpc/`; `node/tower.rs` puts a tower together.
//!
//! Source: DESIGN §6; `channel-contracts/docs/watchtower.md`.

pub mod client;
pub mod server;
