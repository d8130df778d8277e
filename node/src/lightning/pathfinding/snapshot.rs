//! The public network, immutable and small: what a search reads instead of LDK's locked graph.
//!
//! Edges lie in one array, grouped by the node they lead to, as a search from the payee wants
//! them; a second array lists them by the node they leave. Features, addresses and messages stay
//! in LDK's graph: a route that was found is checked against it before it is used.

use std::collections::HashMap;
use std::ops::Range;

use lightning::routing::gossip::{
    ChannelInfo, ChannelUpdateInfo, EffectiveCapacity, NodeId, ReadOnlyNetworkGraph,
};
use lightning::types::features::ChannelFeatures;
use lightning::types::routing::RoutingFees;

use super::hop::{Fee, Hop, HopId, HopKind};

/// Stands for a capacity that nobody has looked up.
const UNKNOWN_CAPACITY: u64 = u64::MAX;

/// One direction of a public channel that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// The channel.
    pub short_channel_id: u64,
    /// Least that may be sent, msat.
    pub htlc_minimum_msat: u64,
    /// Most that may be sent at once, at most the capacity, msat.
    pub htlc_maximum_msat: u64,
    capacity_msat: u64,
    /// The node that forwards.
    pub source: u32,
    /// What it takes.
    pub fee: Fee,
    /// Blocks it wants.
    pub cltv_expiry_delta: u16,
}

impl Edge {
    /// What is known of the most that can be sent.
    pub fn capacity(&self) -> EffectiveCapacity {
        let htlc_maximum_msat = self.htlc_maximum_msat;
        match self.capacity_msat {
            UNKNOWN_CAPACITY => {
                EffectiveCapacity::AdvertisedMaxHTLC { amount_msat: htlc_maximum_msat }
            }
            capacity_msat => EffectiveCapacity::Total { capacity_msat, htlc_maximum_msat },
        }
    }
}

/// An edge as seen from the node it leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    /// Its place in the array of edges.
    pub edge: u32,
    /// The node it leads to.
    pub target: u32,
}

/// The public network at one moment.
pub struct Snapshot {
    serial: u64,
    nodes: Vec<NodeId>,
    places: HashMap<NodeId, u32>,
    takes_parts: Vec<bool>,
    starts: Vec<u32>,
    edges: Vec<Edge>,
    outgoing_starts: Vec<u32>,
    outgoing: Vec<Outgoing>,
    by_channel: Vec<u32>,
    template: Option<Box<ChannelInfo>>,
}

impl Snapshot {
    /// Reads the whole graph in one pass. `serial` tells it from the snapshots before it.
    pub(super) fn take(graph: &ReadOnlyNetworkGraph<'_>, serial: u64) -> Self {
        let mut known: Vec<_> = graph.nodes().unordered_iter().collect();
        known.sort_unstable_by_key(|(id, _)| **id);
        let nodes: Vec<NodeId> = known.iter().map(|(id, _)| **id).collect();
        let places: HashMap<NodeId, u32> =
            (0..).zip(&nodes).map(|(place, id)| (*id, place)).collect();
        let features = |node: usize| known[node].1.announcement_info.as_ref();
        let takes_parts = (0..nodes.len())
            .map(|node| features(node).is_some_and(|info| info.features().supports_basic_mpp()))
            .collect();
        let speaks_unknown: Vec<bool> = (0..nodes.len())
            .map(|node| features(node).is_some_and(|info| info.features().requires_unknown_bits()))
            .collect();

        let mut channels: Vec<_> = graph.channels().unordered_iter().collect();
        channels.sort_unstable_by_key(|(id, _)| **id);
        let template = channels.first().map(|(_, channel)| Box::new(stripped(channel)));
        let mut directed: Vec<(u32, Edge)> = Vec::with_capacity(channels.len() * 2);
        for (id, channel) in channels {
            let (Some(forth), Some(back)) = (&channel.one_to_two, &channel.two_to_one) else {
                continue;
            };
            let ends = (places.get(&channel.node_one), places.get(&channel.node_two));
            let (Some(&one), Some(&two)) = ends else { continue };
            if channel.features.requires_unknown_bits() {
                continue;
            }
            for (source, target, update) in [(one, two, forth), (two, one, back)] {
                if update.enabled && !speaks_unknown[target as usize] {
                    directed.push((target, edge(*id, channel, source, update)));
                }
            }
        }
        Self::arrange(serial, nodes, places, takes_parts, &directed, template)
    }

    fn arrange(
        serial: u64,
        nodes: Vec<NodeId>,
        places: HashMap<NodeId, u32>,
        takes_parts: Vec<bool>,
        directed: &[(u32, Edge)],
        template: Option<Box<ChannelInfo>>,
    ) -> Self {
        let starts = starts(nodes.len(), directed.iter().map(|(target, _)| *target));
        let mut free = starts.clone();
        let mut places_of_edges = Vec::with_capacity(directed.len());
        for (target, _) in directed {
            let place = &mut free[*target as usize];
            places_of_edges.push(*place);
            *place += 1;
        }
        let mut edges: Vec<Edge> = directed.iter().map(|(_, edge)| *edge).collect();
        let outgoing_starts = self::starts(nodes.len(), edges.iter().map(|edge| edge.source));
        let mut free = outgoing_starts.clone();
        let mut outgoing = vec![Outgoing { edge: 0, target: 0 }; directed.len()];
        for ((target, edge), place) in directed.iter().zip(&places_of_edges) {
            edges[*place as usize] = *edge;
            let seat = &mut free[edge.source as usize];
            outgoing[*seat as usize] = Outgoing { edge: *place, target: *target };
            *seat += 1;
        }
        // `directed` was made in the order of channel ids.
        let by_channel = places_of_edges;
        Self {
            serial,
            nodes,
            places,
            takes_parts,
            starts,
            edges,
            outgoing_starts,
            outgoing,
            by_channel,
            template,
        }
    }

    /// Which snapshot this is.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// How many nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many usable directions of channels.
    pub fn edge_count(&self) -> usize {
        self.edges.len()
    }

    /// Memory it holds, about, bytes.
    pub fn memory_bytes(&self) -> usize {
        fn held<T>(list: &Vec<T>) -> usize {
            list.capacity() * size_of::<T>()
        }
        // hashbrown: one byte of control per slot, slots in powers of two, 7/8 full at most.
        let slots = (self.places.capacity() * 8 / 7).next_power_of_two();
        held(&self.nodes)
            + held(&self.takes_parts)
            + held(&self.starts)
            + held(&self.edges)
            + held(&self.outgoing_starts)
            + held(&self.outgoing)
            + held(&self.by_channel)
            + slots * (size_of::<(NodeId, u32)>() + 1)
    }

    /// The place of a node.
    pub(super) fn place(&self, id: &NodeId) -> Option<u32> {
        self.places.get(id).copied()
    }

    /// The node at `place`, which must be one of this snapshot.
    pub(super) fn node(&self, place: u32) -> &NodeId {
        &self.nodes[place as usize]
    }

    /// Whether the node's announcement says that it takes payments in parts.
    pub(super) fn takes_parts(&self, place: u32) -> bool {
        self.takes_parts[place as usize]
    }

    /// The edges that lead to `place`.
    pub(super) fn incoming(&self, place: u32) -> Range<u32> {
        self.starts[place as usize]..self.starts[place as usize + 1]
    }

    /// The edges that leave `place`.
    pub(super) fn outgoing(&self, place: u32) -> &[Outgoing] {
        let place = place as usize;
        let range = self.outgoing_starts[place] as usize..self.outgoing_starts[place + 1] as usize;
        &self.outgoing[range]
    }

    /// An edge of this snapshot.
    pub(super) fn edge(&self, edge: u32) -> &Edge {
        &self.edges[edge as usize]
    }

    /// The edge as a hop to `target`, which it must lead to.
    pub(super) fn hop(&self, place: u32, target: u32) -> Hop {
        let edge = self.edge(place);
        let lesser = self.node(edge.source) < self.node(target);
        Hop {
            kind: HopKind::Public(place),
            id: HopId::Channel(edge.short_channel_id, lesser),
            source: edge.source,
            target,
            fee: edge.fee,
            cltv_expiry_delta: u32::from(edge.cltv_expiry_delta),
            htlc_minimum_msat: edge.htlc_minimum_msat,
            capacity: edge.capacity(),
        }
    }

    /// Both directions of a channel, as far as they are here: at most two edges.
    pub(super) fn edges_of_channel(&self, short_channel_id: u64) -> &[u32] {
        let id = |edge: &u32| self.edges[*edge as usize].short_channel_id;
        let from = self.by_channel.partition_point(|edge| id(edge) < short_channel_id);
        let length =
            self.by_channel[from..].iter().take_while(|e| id(e) == short_channel_id).count();
        &self.by_channel[from..from + length]
    }

    /// The node an edge leads to.
    pub(super) fn target_of(&self, edge: u32) -> u32 {
        let above = self.starts.partition_point(|start| *start <= edge);
        u32::try_from(above.saturating_sub(1)).unwrap_or(NOWHERE)
    }

    /// A channel to write hops into when LDK's scorer is asked; `None` if there is no channel.
    pub(super) fn template(&self) -> Option<&ChannelInfo> {
        self.template.as_deref()
    }

    /// Whether a search on `other` would see the same.
    pub(super) fn is_same_network(&self, other: &Self) -> bool {
        self.nodes == other.nodes
            && self.takes_parts == other.takes_parts
            && self.starts == other.starts
            && self.edges == other.edges
    }
}

const NOWHERE: u32 = u32::MAX;

/// Where each node's group begins, with one entry more than there are nodes.
fn starts(nodes: usize, keys: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut starts = vec![0_u32; nodes + 1];
    for key in keys {
        starts[key as usize + 1] += 1;
    }
    for node in 0..nodes {
        starts[node + 1] += starts[node];
    }
    starts
}

fn edge(
    short_channel_id: u64,
    channel: &ChannelInfo,
    source: u32,
    update: &ChannelUpdateInfo,
) -> Edge {
    let capacity_msat =
        channel.capacity_sats.map_or(UNKNOWN_CAPACITY, |sats| sats.saturating_mul(1_000));
    Edge {
        short_channel_id,
        htlc_minimum_msat: update.htlc_minimum_msat,
        htlc_maximum_msat: update.htlc_maximum_msat.min(capacity_msat),
        capacity_msat,
        source,
        fee: Fee { base_msat: update.fees.base_msat, ppm: update.fees.proportional_millionths },
        cltv_expiry_delta: update.cltv_expiry_delta,
    }
}

/// A channel without its messages. Only LDK can make one from nothing, so one is copied.
fn stripped(channel: &ChannelInfo) -> ChannelInfo {
    let mut channel = channel.clone();
    channel.features = ChannelFeatures::empty();
    channel.announcement_message = None;
    let direction = || {
        Some(ChannelUpdateInfo {
            htlc_minimum_msat: 0,
            htlc_maximum_msat: 0,
            fees: RoutingFees { base_msat: 0, proportional_millionths: 0 },
            last_update: 0,
            cltv_expiry_delta: 0,
            enabled: true,
            last_update_message: None,
        })
    };
    channel.one_to_two = direction();
    channel.two_to_one = direction();
    channel
}
