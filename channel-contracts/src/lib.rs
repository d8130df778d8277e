//! The rules of Tributary: scripts and contracts of channels and batches.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async. Data goes in, scripts,
//! transactions and decisions come out, so that each rule can be checked against the
//! specification's vectors, against other implementations and against Bitcoin Core's own
//! script interpreter. LDK appears in the tests only, as an oracle.
//!
//! Keys are arguments; secrets pass through [`script::keys`] and [`script::secrets`] and are
//! never stored by anything else. What decides *when* a script is used stays outside.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod script;
