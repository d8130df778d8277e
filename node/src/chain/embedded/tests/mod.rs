//! Tests of the embedded chain, and the cases that a real bitcoind is compared on.

pub(crate) mod bench;
pub(crate) mod cases;
mod chain;
mod mempool;
mod prop;
