//! The outside world as one struct: everything a node touches that is not computation.
//!
//! Production and the simulation network give two implementations of each seam; a further
//! trait needs two real implementations and its conformance suite. Nothing else in `node`
//! reads a clock, draws randomness, opens a socket or talks to a chain directly.

mod clock;
mod entropy;
mod links;

use std::sync::Arc;
use std::time::Duration;

pub use clock::{Clock, SystemClock, UnixTime, date};
pub use entropy::{Entropy, OsEntropy};
pub use links::{BoxedLink, Link, LinkError, LinkListener, Links, TcpLinks};

use crate::chain::{Broadcaster, ChainSource, FeeSource};
use crate::store::Store;

/// The seams of a node, chosen once at start.
#[derive(Clone)]
pub struct Environment {
    /// Wall-clock time. Waiting uses tokio's timers, which a simulation pauses and advances.
    pub clock: Arc<dyn Clock>,
    /// Secure randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Blocks and the mempool.
    pub chain: Arc<dyn ChainSource>,
    /// The way transactions leave.
    pub broadcaster: Arc<dyn Broadcaster>,
    /// Feerate estimates.
    pub fees: Arc<dyn FeeSource>,
    /// The durable key-value store.
    pub store: Arc<dyn Store>,
    /// Byte streams to and from peers.
    pub links: Arc<dyn Links>,
    /// Where the commit cycle runs.
    pub committing: Committing,
}

/// Where the commit cycle runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Committing {
    /// On a thread of its own, which a disk may block.
    #[default]
    Thread,
    /// As a task among the others: for a store in memory, and one thread for everything.
    Inline {
        /// How long a batch takes, as on a disk: what comes meanwhile shares it.
        takes: Duration,
    },
}
