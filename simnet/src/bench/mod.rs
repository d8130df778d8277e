//! How fast the engines are.

#[cfg(feature = "live")]
mod live;
pub mod machine;
mod model;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::stats::Estimate;

#[cfg(feature = "live")]
pub use live::measure_live;
pub use model::measure_model;

use crate::scenario::ScenarioError;

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// A compressed gossip store, for the model; without it a network is generated.
    pub snapshot: Option<PathBuf>,
    /// Nodes of a generated network.
    pub nodes: u32,
    /// Payments.
    pub payments: u64,
    /// Each, msat.
    pub amount_msat: u64,
    /// How many begin each second of virtual time.
    pub per_second: f64,
    /// Decides everything.
    pub seed: u64,
}

/// What one engine did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Nodes of the network, those nobody can pay included.
    pub nodes: u64,
    /// Channels of the network.
    pub channels: u64,
    /// Nodes among whom payments were drawn.
    pub nodes_paying: u64,
    /// Payments.
    pub payments: u64,
    /// Each, msat.
    pub amount_msat: u64,
    /// Payments by second of processor time, user and system, of the run alone.
    pub payments_per_cpu_second: f64,
    /// Processor time of the run, in seconds.
    pub cpu_seconds: f64,
    /// Events by second of processor time; none where the engine has no events.
    pub events_per_cpu_second: Option<f64>,
    /// Most memory the process ever had.
    pub peak_rss_bytes: u64,
    /// Share of payments that arrived, with its 95 % interval.
    pub success_rate: Option<Estimate>,
    /// Half of those that arrived took no longer, ms of virtual time.
    pub latency_p50_ms: Option<Estimate>,
    /// HTLCs sent for a payment; none where the engine does not count them.
    pub attempts: Option<Estimate>,
    /// Processor time of making the network, where that takes any, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_cpu_seconds: Option<f64>,
    /// Of the live engine: the hash of every message that was delivered and every block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript_hash: Option<String>,
    /// The seed.
    pub seed: u64,
}

/// Both engines; none where one was not measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Real nodes.
    pub live: Option<Figures>,
    /// The model.
    pub model: Option<Figures>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no such network, or it cannot be paid over.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The live engine.
    #[cfg(feature = "live")]
    #[error(transparent)]
    Live(#[from] crate::live::LiveError),
}
