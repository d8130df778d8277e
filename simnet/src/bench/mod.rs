//! How fast the engines are.

pub mod machine;
mod model;

use serde::{Deserialize, Serialize};

use crate::scenario::ScenarioError;
use crate::stats::Estimate;

pub use model::{Options, measure_model};

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
    /// HTLCs sent for a payment.
    pub attempts: Option<Estimate>,
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
pub type BenchError = ScenarioError;
