//! What a run would take, before it takes it.

use std::path::Path;

use crate::bench::machine::available_bytes;
use crate::model::engine::SEARCH_BYTES;
use crate::model::graph::Graph;
use crate::report::{PaymentRecord, Sample};
use crate::scenario::{Engine, Scenario, TopologySpec};
use crate::topology::{Channel, Topology};

/// Share of the free memory that may be used: the rest is for everybody else.
const SHARE: (u64, u64) = (9, 10);
/// Bytes that the model has for each lane beside the graph.
const LANE_BYTES: u64 = 64;
/// Bytes that the model has for each node beside the graph.
const NODE_BYTES: u64 = 128;
/// Bytes of a real node and of a channel of two of them, measured.
const LIVE_NODE_BYTES: u64 = 700_000;
const LIVE_CHANNEL_BYTES: u64 = 300_000;
/// Bytes that a table needs for a payment when results are written, beside its record.
const TABLE_BYTES: u64 = 104;

/// It would not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{jobs} runs at a time would need about {} MB of memory, and {} MB may be used; run fewer at a time \
     (--jobs), make it smaller, or allow more (--memory-limit)",
    needed.div_ceil(1_000_000),
    limit / 1_000_000
)]
pub struct MemoryError {
    /// Runs at a time.
    pub jobs: usize,
    /// Bytes that they need.
    pub needed: u64,
    /// Bytes that they may use.
    pub limit: u64,
}

/// Refuses what does not fit into `limit`, or into what the machine has free.
pub(super) fn check(needed: u64, jobs: usize, limit: Option<u64>) -> Result<(), MemoryError> {
    let free = || available_bytes().map(|free| free / SHARE.1 * SHARE.0);
    match limit.or_else(free) {
        Some(limit) if needed > limit => Err(MemoryError { jobs, needed, limit }),
        _ => Ok(()),
    }
}

/// Bytes of a network of so many nodes and channels in the model, and of searches on it.
fn network_bytes(nodes: u64, channels: u64) -> u64 {
    let topology = channels.saturating_mul(size_of::<Channel>() as u64 + 8);
    let lanes = channels.saturating_mul(2 * LANE_BYTES);
    let clip = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let graph = Graph::bytes(clip(nodes), clip(channels));
    // Searches for all receivers and a few amounts, unless that is more than is kept.
    let searches = nodes.saturating_mul(nodes).saturating_mul(12 * 4).min(SEARCH_BYTES);
    topology
        .saturating_add(lanes)
        .saturating_add(graph)
        .saturating_add(nodes.saturating_mul(NODE_BYTES))
        .saturating_add(searches)
}

/// Bytes of a generated network, before it is there; 0 for one from a file.
pub(super) fn generated_bytes(scenario: &Scenario) -> u64 {
    let (nodes, channels) = match &scenario.topology {
        TopologySpec::Line { nodes, .. } => (u64::from(*nodes), u64::from(*nodes)),
        TopologySpec::Lattice { width, height, .. } => {
            let nodes = u64::from(*width) * u64::from(*height);
            (nodes, nodes * 2)
        }
        TopologySpec::ScaleFree { nodes, channels_per_node } => {
            (u64::from(*nodes), u64::from(*nodes) * u64::from(*channels_per_node))
        }
        TopologySpec::HubAndSpoke { hubs, users, .. } => {
            let (hubs, users) = (u64::from(*hubs), u64::from(*users));
            (hubs + users, hubs * hubs / 2 + users)
        }
        TopologySpec::File { .. } => return 0,
    };
    network_bytes(nodes, channels)
}

/// Bytes that a run on `topology` would take, about.
pub fn needed_bytes(
    engine: Engine,
    scenario: &Scenario,
    topology: &Topology,
    folder: &Path,
) -> u64 {
    let network = &topology.network;
    let payments = crate::workload::expected(scenario, folder).unwrap_or(0);
    let each = size_of::<PaymentRecord>() as u64 + TABLE_BYTES;
    let seconds = scenario.workload.iter().filter_map(|stream| stream.duration_s);
    let seconds = seconds.fold(scenario.measure.until_s, f64::max);
    let samples = (seconds / scenario.measure.sample_s) as u64;
    let network = match engine {
        Engine::Model => network_bytes(network.nodes.into(), network.channels.len() as u64),
        Engine::Live => u64::from(network.nodes)
            .saturating_mul(LIVE_NODE_BYTES)
            .saturating_add((network.channels.len() as u64).saturating_mul(LIVE_CHANNEL_BYTES)),
    };
    network
        .saturating_add(payments.saturating_mul(each))
        .saturating_add(samples.saturating_mul(size_of::<Sample>() as u64 * 2))
}
