//! The live engine: networks of real nodes on virtual time.
//!
//! Read `engine.rs` first. Each host is the real `Node::start` with simulated seams: `clock.rs`
//! and `rng.rs` for time and randomness, `net.rs` for links, the node's own embedded chain and
//! in-memory disk for the rest. One thread runs everything; when all hosts wait, time jumps to
//! the next timer. `network.rs` makes the network of a scenario, with `joining.rs` users in
//! batches; `traffic.rs` its payments, `faults.rs` what goes wrong, with `exits.rs` users who
//! leave their batches, `miner.rs` the blocks; `checks.rs` says what must hold, with `batches.rs`
//! and `trees.rs` of batches, `htlcs.rs` of HTLCs on chain, `memory.rs` of restarts, `book.rs`
//! which channels there are, and `whereabouts.rs` where money is that is missed.
//!
//! What is simulated: time, randomness, network, disk, chain. What is real: every line of the
//! node and of LDK. One seed gives one transcript, see `transcript.rs` and `machine.rs`, in the
//! first run of a process: tokio's order of waking depends on how many runtimes there were.

mod batches;
mod book;
mod checks;
mod clock;
pub mod engine;
mod exits;
mod faults;
mod hosts;
mod htlcs;
mod joining;
pub mod machine;
mod memory;
mod miner;
mod net;
mod network;
mod rng;
#[cfg(test)]
mod tests;
mod traffic;
mod transcript;
mod trees;
mod whereabouts;

use node::chain::embedded::{BlockError, FundError};
use node::node::StartError;
use node::store::StoreError;

pub use checks::Violation;
pub use engine::{Run, run};

use crate::topology::Node;

/// Why a live run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The program has the system's clock and randomness.
    #[error(
        "this program does not interpose the system's clock and randomness, so a live run would not repeat; use the simnet binary"
    )]
    NotInterposed,
    /// A rule was broken: what simulations are for.
    #[error("a rule is broken {0}")]
    Violated(Violation),
    /// A node does not start.
    #[error("n{host} does not start: {source}")]
    Start {
        /// Which.
        host: Node,
        /// Why.
        source: Box<StartError>,
    },
    /// A node does not run that should.
    #[error("n{host} does not run")]
    Away {
        /// Which.
        host: Node,
    },
    /// A channel does not come about.
    #[error("channel {channel} from n{opener} to n{peer} is not opened: {why}")]
    NotOpened {
        /// Its place in the topology.
        channel: usize,
        /// Who opens it.
        opener: Node,
        /// With whom.
        peer: Node,
        /// Why not.
        why: String,
    },
    /// Something took too long.
    #[error("{what} did not come within {seconds} s of virtual time")]
    Late {
        /// What.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// There is not so much money on regtest.
    #[error(
        "the channels need {needed_sat} sat and a regtest chain gives {has_sat}; make them smaller or fewer"
    )]
    TooRich {
        /// What is needed.
        needed_sat: u64,
        /// What there is.
        has_sat: u64,
    },
    /// The faucet.
    #[error(transparent)]
    Fund(#[from] FundError),
    /// The chain.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread or its runtime.
    #[error("the operating system gives no thread: {0}")]
    Thread(std::io::Error),
}
