//! The model engine: a discrete-event simulation of payments over channels.
//!
//! Read `engine.rs` first, then `htlc.rs`. Everything is numbers in lists; the same scenario and
//! seed give the same records, byte for byte. One run is one thread; runs are independent.

mod batches;
pub mod engine;
mod events;
mod exits;
pub mod graph;
mod htlc;
mod lanes;
mod memory;
mod payments;
pub mod router;
mod sender;
#[cfg(test)]
mod tests;
mod world;

pub use engine::{Control, Engine};
