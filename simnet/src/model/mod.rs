//! The model engine.

pub mod graph;
pub mod router;
