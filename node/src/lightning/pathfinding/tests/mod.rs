//! Known answers on small networks, and random ones against LDK's own router.

mod limits;
mod random;
mod shortcuts;
pub mod world;
