//! The Tributary node: Lightning channels, wallet, chain, store and gRPC as one library.
//!
//! `Node::start(Config, Environment)` is the way in. Calls go one way:
//! `rpc → services → lightning, wallet, chain → store, keys → runtime`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types))]

pub mod batches;
pub mod chain;
pub mod channels;
pub mod config;
pub mod dev;
pub mod environment;
pub mod journal;
pub mod keys;
pub mod lightning;
pub mod node;
pub mod onchain;
pub mod payments;
pub mod payouts;
pub mod production;
pub mod rpc;
pub mod runtime;
pub mod store;
pub mod swaps;
pub mod tokens;
pub mod tower;
pub mod unroll;
pub mod wallet;
pub mod webhooks;
