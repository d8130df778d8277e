//! Measurements. Each program in `src/bin` measures one thing and prints JSON.
//!
//! Absolute figures of a shared machine move from hour to hour: compare within one run.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod breach;
pub mod endurance;
pub mod line;
pub mod network;
pub mod page;
pub mod peer;
pub mod plot;
pub mod process;
pub mod raw;
pub mod towered;

use std::path::Path;
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

/// What was measured in one run: our nodes, LDK alone, and the peer.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Our nodes.
    #[serde(flatten)]
    pub ours: Figures,
    /// Whether balances agree with the payments to the millisatoshi.
    pub conserved: bool,
    /// Our payments per second by those of LDK alone.
    pub ratio_to_raw_ldk: f64,
    /// Our payments per second by the peer's.
    pub ratio_to_peer: Option<f64>,
    /// LDK alone.
    pub raw_ldk: Figures,
    /// The peer, if it was measured.
    pub peer: Option<Figures>,
    /// Why the peer has no figures although it was asked.
    pub peer_failed: Option<String>,
}

impl Comparison {
    /// Measures the others beside `ours`: the same `run` on LDK alone, and on the program `peer`.
    /// A peer that fails leaves a gap, and the reason.
    ///
    /// # Errors
    ///
    /// If LDK alone fails.
    pub fn measure(
        ours: Figures,
        conserved: bool,
        run: &Run,
        peer: Option<&Path>,
    ) -> Result<Self, Failure> {
        let raw_ldk = raw::measure(run)?;
        let (peer, peer_failed) = match peer.map(|program| peer::measure(program, run)) {
            None => (None, None),
            Some(Ok(figures)) => (Some(figures), None),
            Some(Err(failure)) => (None, Some(failure.to_string())),
        };
        Ok(Self {
            conserved,
            ratio_to_raw_ldk: ours.ratio_to(&raw_ldk),
            ratio_to_peer: peer.as_ref().map(|peer| ours.ratio_to(peer)),
            ours,
            raw_ldk,
            peer,
            peer_failed,
        })
    }

    /// Everybody's figures, ours first.
    pub fn all(&self) -> impl Iterator<Item = &Figures> {
        [Some(&self.ours), Some(&self.raw_ldk), self.peer.as_ref()].into_iter().flatten()
    }
}

impl Figures {
    /// These payments per second by those of `other`.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        self.payments_per_second / other.payments_per_second
    }
}

/// The time that `percent` of sorted `times` do not exceed (nearest rank), in ms.
pub fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
