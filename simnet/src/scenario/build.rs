//! The network of a scenario.

use super::load::{Document, ScenarioError};
use super::{Balances, LinkSpec, Scenario, TermsSpec, TopologySpec, Who};
use crate::random::Random;
use crate::topology::generate::{Terms, hub_and_spoke, lattice, line, scale_free};
use crate::topology::import::import;
use crate::topology::{Network, Node, Topology};
use crate::workload::micros;

/// Streams of randomness under one seed.
const TOPOLOGY: u64 = 1;
const BALANCES: u64 = 2;
const LATENCIES: u64 = 3;

impl From<TermsSpec> for Terms {
    fn from(spec: TermsSpec) -> Self {
        Self {
            capacity_sat: spec.capacity_sat,
            htlc_minimum_msat: spec.htlc_minimum_msat,
            base_msat: spec.base_msat,
            ppm: spec.ppm,
            cltv_expiry_delta: spec.cltv_expiry_delta,
        }
    }
}

impl Scenario {
    /// Makes or reads the network, and refuses what it makes impossible.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`], which names file, line and value.
    pub fn build(&self, document: &Document) -> Result<Topology, ScenarioError> {
        let mut topology = match &self.topology {
            TopologySpec::Line { nodes, channel } => line(*nodes, &(*channel).into()).into(),
            TopologySpec::Lattice { width, height, channel } => {
                lattice(*width, *height, &(*channel).into()).into()
            }
            TopologySpec::ScaleFree { nodes, channels_per_node } => {
                let seed = Random::stream(self.seed, TOPOLOGY).number();
                scale_free(*nodes, *channels_per_node, seed).into()
            }
            TopologySpec::HubAndSpoke { hubs, users, hub_channel, user_channel } => {
                hub_and_spoke(*hubs, *users, &(*hub_channel).into(), &(*user_channel).into())
            }
            TopologySpec::File { format, path } => import(&document.folder().join(path), *format)?,
        };
        self.check_network(&topology).map_err(|what| document.impossible(what))?;
        if topology.first_end_msat.is_empty() {
            topology.first_end_msat =
                first_ends(&topology.network, self.channels.balances, self.seed);
        }
        Ok(topology)
    }
}

/// What the first end of each channel owns at the start, msat.
fn first_ends(network: &Network, balances: Balances, seed: u64) -> Vec<u64> {
    let mut random = Random::stream(seed, BALANCES);
    let first_end = |capacity_msat: u64| match balances {
        Balances::Uniform => random.below(capacity_msat + 1),
        Balances::Even => capacity_msat / 2,
        Balances::First => capacity_msat,
        Balances::Second => 0,
    };
    network.channels.iter().map(|channel| channel.capacity_sat * 1_000).map(first_end).collect()
}

/// What a message takes one way over each of `count` channels, in microseconds.
pub(crate) fn latencies_us(count: usize, links: &LinkSpec, seed: u64) -> Vec<u32> {
    let mut random = Random::stream(seed, LATENCIES);
    let [least, most] = links.latency_ms;
    let draw = |_| micros((least + random.unit() * (most - least)) / 1e3);
    (0..count).map(draw).map(|us| u32::try_from(us).unwrap_or(u32::MAX)).collect()
}

/// The nodes of a set, ascending.
pub(crate) fn members(topology: &Topology, who: Who) -> Vec<Node> {
    match who {
        Who::Connected => topology.network.largest_strong_component(),
        Who::All => (0..topology.network.nodes).collect(),
        Who::Hubs => topology.hubs.clone(),
        Who::Users => topology.users.clone(),
    }
}
