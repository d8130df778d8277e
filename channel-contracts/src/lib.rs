//! The rules of Tributary: scripts and contracts of channels and batches.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async. Data goes in, scripts,
//! transactions and decisions come out, so that each rule can be checked against the
//! specification's vectors, against other implementations and against Bitcoin Core's own
//! script interpreter. LDK appears in the tests only, as an oracle.
//!
//! - [`script`]: outputs and their witnesses, and the transactions of one channel.
//! - [`tree`]: the transactions of a batch, one user's path through them, and what an exit costs.
//! - [`musig`]: signing a tree together, from both sides; what released keys can take.
//! - [`batch`]: the messages and machines by which a batch forms, lives and ends.
//! - [`swap`]: withdrawals and deposits, a payment against an output under one hash.
//! - [`justice`]: breach remedies, what a revoked state lets its victim take.
//! - [`tower`]: what a client leaves with a watchtower, and what both sign for it.
//!
//! Keys are arguments; secrets pass through [`script::keys`], [`script::secrets`], [`musig`] and
//! [`justice`], and are never stored by anything else but the trusted remedies of [`tower`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub(crate) mod encoding;
pub mod justice;
pub mod musig;
pub mod script;
pub mod swap;
pub mod tower;
pub mod tree;

pub use encoding::DecodeError;
