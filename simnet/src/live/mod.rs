//! The live engine: networks of real nodes on virtual time.
//!
//! Each host is the real `Node::start` with simulated seams: `clock.rs` and `rng.rs` for time and
//! randomness, `net.rs` for links, the node's own embedded chain and in-memory store for the
//! rest. One thread runs everything; when all hosts wait, time jumps to the next timer.
//!
//! What is simulated: time, randomness, network, disk, chain. What is real: every line of the
//! node and of LDK. A run is not yet repeatable to the byte: LDK's hash maps draw their own
//! randomness.

mod clock;
mod net;
mod rng;
pub mod scenario;

pub use clock::SimClock;
pub use net::SimNet;
pub use rng::SimEntropy;
