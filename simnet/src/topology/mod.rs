//! Networks to simulate: real ones from files, or generated ones.
//!
//! A network here is plain numbers. `generate.rs` makes one from a seed; `import.rs` knows the
//! file formats, each of which has a file of its own; `component.rs` finds who can pay whom.

pub mod cloth;
mod component;
pub mod generate;
pub mod gossip_store;
pub mod import;
pub mod lnd;
pub mod sim_ln;
pub mod snapshot;

use std::collections::HashMap;

/// A node, by its place.
pub type Node = u32;

/// One direction of a channel, as its source announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Whether it is in use.
    pub enabled: bool,
    /// Least per HTLC, msat.
    pub htlc_minimum_msat: u64,
    /// Most per HTLC, msat.
    pub htlc_maximum_msat: u64,
    /// Flat fee, msat.
    pub base_msat: u32,
    /// Proportional fee, millionths.
    pub ppm: u32,
    /// Blocks.
    pub cltv_expiry_delta: u16,
}

impl Direction {
    /// One that is not in use.
    pub const DISABLED: Self = Self {
        enabled: false,
        htlc_minimum_msat: 0,
        htlc_maximum_msat: 0,
        base_msat: 0,
        ppm: 0,
        cltv_expiry_delta: 0,
    };
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The node that direction 0 starts at, and the other.
    pub ends: [Node; 2],
    /// What it was funded with.
    pub capacity_sat: u64,
    /// From `ends[0]` to `ends[1]`, and back.
    pub directions: [Direction; 2],
}

/// A public network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// How many nodes.
    pub nodes: u32,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// A network and what its source says besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Nodes and channels.
    pub network: Network,
    /// The nodes' names in the source; empty where it has none.
    pub names: Vec<String>,
    /// What the first end of each channel owns at the start, msat; empty if the source is silent.
    pub first_end_msat: Vec<u64>,
    /// Nodes that serve others, where the kind of network has such.
    pub hubs: Vec<Node>,
    /// Nodes that are served; channel `user_channel_start + i` is that of `users[i]`.
    pub users: Vec<Node>,
    /// The first user's channel.
    pub user_channel_start: usize,
}

impl From<Network> for Topology {
    fn from(network: Network) -> Self {
        Self { network, ..Self::default() }
    }
}

/// Numbers nodes in the order in which their names appear.
#[derive(Debug, Default)]
pub(crate) struct Names {
    places: HashMap<String, Node>,
    names: Vec<String>,
}

impl Names {
    /// The place of `name`, a new one if it was not seen before.
    pub(crate) fn place(&mut self, name: &str) -> Node {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = Node::try_from(self.names.len()).unwrap_or(Node::MAX);
        self.places.insert(name.to_owned(), place);
        self.names.push(name.to_owned());
        place
    }

    /// All names, by place.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }
}
