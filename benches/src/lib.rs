//! Measurements. Each program in `src/bin` measures one thing and prints JSON.
//!
//! Absolute figures of a shared machine move from hour to hour: compare within one run.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod network;
pub mod process;

use std::time::Duration;

/// Why a measurement could not be made.
pub type Failure = Box<dyn std::error::Error>;

/// The time that `percent` of sorted `times` do not exceed (nearest rank), in ms.
pub fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
