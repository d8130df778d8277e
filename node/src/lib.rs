//! The Tributary node: Lightning channels, wallet, chain, store and gRPC as one library.
//!
//! `Node::start(Config, Environment)` is the way in. Calls go one way:
//! `rpc → services → lightning, wallet, chain → store, keys → runtime`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chain;
pub mod environment;
pub mod store;
