//! Simulated payment channel networks.
//!
//! Two engines run one scenario: `live`, real nodes on virtual time, and `model`, a fast
//! discrete-event simulation. Both take their network from `topology`, their payments from
//! `workload`, and put what happened into `report`'s recorder.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// `interpose.rs` names this crate as the binary does.
#[cfg(all(test, feature = "live"))]
extern crate self as simnet;

pub mod bench;
#[cfg(feature = "live")]
pub mod hunt;
#[cfg(all(test, feature = "live"))]
#[allow(dead_code, reason = "a test's own symbols are kept")]
mod interpose;
#[cfg(feature = "live")]
pub mod live;
pub mod model;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
pub mod stats;
pub mod topology;
pub mod workload;
