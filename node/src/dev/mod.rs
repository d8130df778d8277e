//! A private network for people and tests: a regtest chain and a few nodes in one process.
//!
//! `tributary dev`, the end-to-end tests and the benchmarks share it. The nodes are real: own
//! seed, own store on disk, TCP between them. Only the chain is private, either the embedded one
//! or a bitcoind that this room starts and stops. `chain.rs` is that chain, `cluster.rs` the
//! nodes on it, `audit.rs` counts every satoshi.

mod audit;
mod bitcoind;
mod chain;
mod cluster;
mod ports;
mod served;

pub use audit::{Audit, AuditError, OnChain};
pub use bitcoind::find_bitcoind;
pub use chain::{DevChain, DevChainError};
pub use cluster::{Cluster, ClusterError, DevNode, NodeOptions};
pub use ports::free_port;
