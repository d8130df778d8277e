//! Suites that drive the node from outside: what they need beyond the node itself.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod e2e;
#[cfg(target_os = "linux")]
pub mod power_cut;
