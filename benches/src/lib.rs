//! Measurements. Each program in `src/bin` measures one thing and prints JSON.
//!
//! Absolute figures of a shared machine move from hour to hour: compare within one run.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod endurance;
pub mod line;
pub mod network;
pub mod page;
pub mod peer;
pub mod plot;
pub mod process;
pub mod raw;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a measurement could not be made.
pub type Failure = Box<dyn std::error::Error>;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Nodes in the line, 2 or 3.
    pub nodes: u8,
    /// Payments under way at a time.
    pub in_flight: u32,
    /// Each payment, in millisatoshi.
    pub amount_msat: u64,
    /// How long.
    #[serde(default)]
    pub seconds: u64,
}

/// What was measured. All nodes together where it is about what they use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// Whose payments.
    pub program: String,
    /// The parameters.
    #[serde(flatten)]
    pub run: Run,
    /// Payments that arrived.
    pub payments: u64,
    /// Payments that failed; those who made them went on.
    pub failed: u64,
    /// Payments that arrived by the time of the whole.
    pub payments_per_second: f64,
    /// From the call to the outcome: what half of the payments do not exceed, ms.
    pub p50_ms: f64,
    /// What 99 % do not exceed, ms.
    pub p99_ms: f64,
    /// Syncs of the disk per payment; none where nothing is stored.
    pub fsyncs_per_payment: Option<f64>,
    /// Bytes that went to the disk, by the kernel's count; none where nothing is stored.
    pub disk_bytes_per_payment: Option<f64>,
    /// User and system time, ms.
    pub cpu_ms_per_payment: f64,
}

/// The time that `percent` of sorted `times` do not exceed (nearest rank), in ms.
pub fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
