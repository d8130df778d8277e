//! The network as the model's engine and router read it: compact, by number.
//!
//! A *lane* is one direction of a channel: `channel * 2 + direction`. An *edge* is a lane that
//! is in use, numbered so that the edges of a node lie side by side.

use crate::topology::{Channel, Network, Node};

/// One direction of a channel: `channel * 2 + direction`.
pub type Lane = u32;

/// A lane in use, by its place among all, sorted by the node it starts at.
pub type EdgeId = u32;

/// No edge.
pub const NO_EDGE: EdgeId = u32::MAX;

/// What the network says about a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The node it ends at.
    pub target: Node,
    /// The lane.
    pub lane: Lane,
    /// Flat fee, msat.
    pub base_msat: u32,
    /// Proportional fee, millionths.
    pub ppm: u32,
    /// Least per HTLC, msat.
    pub least_msat: u64,
    /// Most per HTLC, msat; at most the capacity; 0 once the channel is closed.
    pub most_msat: u64,
    /// The channel's size, msat.
    pub capacity_msat: u64,
    /// Blocks.
    pub cltv_expiry_delta: u16,
}

impl Edge {
    /// The fee for forwarding `amount_msat`. BOLT 7: the proportional part is rounded down.
    pub fn fee_msat(&self, amount_msat: u64) -> u64 {
        let part = u128::from(amount_msat) * u128::from(self.ppm) / 1_000_000;
        u64::from(self.base_msat).saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// Whether it takes an HTLC of `amount_msat`.
    pub fn takes(&self, amount_msat: u64) -> bool {
        self.least_msat <= amount_msat && amount_msat <= self.most_msat
    }
}

/// An edge seen from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// The node it starts at.
    pub source: Node,
    /// The edge.
    pub edge: EdgeId,
}

/// The network, compact.
#[derive(Debug, Clone)]
pub struct Graph {
    outgoing_start: Vec<u32>,
    edges: Vec<Edge>,
    incoming_start: Vec<u32>,
    incoming: Vec<Incoming>,
    edge_of_lane: Vec<EdgeId>,
    sources: Vec<Node>,
    /// The ends of edges once more, close together: searches look at many and use few.
    targets: Vec<Node>,
}

impl Graph {
    /// Takes over all lanes that are in use.
    ///
    /// # Panics
    ///
    /// If a channel ends at a node that is not there, or there are more than 2³¹ channels.
    pub fn new(network: &Network) -> Self {
        let nodes = network.nodes as usize;
        let lanes = u32::try_from(network.channels.len() * 2).expect("fewer than 2^31 channels");
        let used = || (0..lanes).filter(|lane| lane_of(network, *lane).1);
        let (mut outgoing_start, mut incoming_start) = (vec![0; nodes + 1], vec![0; nodes + 1]);
        for lane in used() {
            let (ends, _) = lane_of(network, lane);
            outgoing_start[ends[0] as usize + 1] += 1;
            incoming_start[ends[1] as usize + 1] += 1;
        }
        for node in 0..nodes {
            outgoing_start[node + 1] += outgoing_start[node];
            incoming_start[node + 1] += incoming_start[node];
        }
        let mut next_place = outgoing_start.clone();
        let mut edge_of_lane = vec![NO_EDGE; lanes as usize];
        for lane in used() {
            let place = &mut next_place[lane_of(network, lane).0[0] as usize];
            edge_of_lane[lane as usize] = *place;
            *place += 1;
        }
        let mut lane_of_edge = vec![0; outgoing_start[nodes] as usize];
        for lane in used() {
            lane_of_edge[edge_of_lane[lane as usize] as usize] = lane;
        }
        let edges: Vec<Edge> = lane_of_edge.iter().map(|lane| edge(network, *lane)).collect();
        let sources: Vec<Node> =
            lane_of_edge.iter().map(|lane| lane_of(network, *lane).0[0]).collect();
        let mut next_place = incoming_start.clone();
        let mut incoming = vec![Incoming { source: 0, edge: 0 }; edges.len()];
        for (id, (edge, source)) in (0..).zip(edges.iter().zip(&sources)) {
            let place = &mut next_place[edge.target as usize];
            incoming[*place as usize] = Incoming { source: *source, edge: id };
            *place += 1;
        }
        let targets = edges.iter().map(|edge| edge.target).collect();
        Self { outgoing_start, edges, incoming_start, incoming, edge_of_lane, sources, targets }
    }

    /// How many nodes.
    pub fn nodes(&self) -> usize {
        self.outgoing_start.len() - 1
    }

    /// All edges.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// One edge.
    pub fn edge(&self, edge: EdgeId) -> &Edge {
        &self.edges[edge as usize]
    }

    /// The node an edge starts at.
    pub fn source(&self, edge: EdgeId) -> Node {
        self.sources[edge as usize]
    }

    /// The node an edge ends at.
    pub fn target(&self, edge: EdgeId) -> Node {
        self.targets[edge as usize]
    }

    /// The edge of a lane, if it is in use.
    pub fn edge_of(&self, lane: Lane) -> Option<EdgeId> {
        self.edge_of_lane.get(lane as usize).copied().filter(|edge| *edge != NO_EDGE)
    }

    /// The edges that start at a node.
    pub fn outgoing(&self, node: Node) -> std::ops::Range<EdgeId> {
        self.outgoing_start[node as usize]..self.outgoing_start[node as usize + 1]
    }

    /// Where the edges that end at a node lie in [`Graph::incoming`].
    pub fn incoming_range(&self, node: Node) -> std::ops::Range<usize> {
        let node = node as usize;
        self.incoming_start[node] as usize..self.incoming_start[node + 1] as usize
    }

    /// All edges, sorted by the node they end at.
    pub fn incoming(&self) -> &[Incoming] {
        &self.incoming
    }

    /// Closes a lane: it takes nothing any more.
    pub fn close(&mut self, lane: Lane) {
        if let Some(edge) = self.edge_of(lane) {
            self.edges[edge as usize].most_msat = 0;
        }
    }

    /// Bytes it takes.
    pub fn bytes(nodes: usize, channels: usize) -> u64 {
        let lanes = channels as u64 * 2;
        let edge = size_of::<Edge>() + size_of::<Incoming>() + size_of::<EdgeId>() * 3;
        lanes * edge as u64 + nodes as u64 * 8
    }
}

fn lane_of(network: &Network, lane: Lane) -> ([Node; 2], bool) {
    let (channel, side) = side_of(network, lane);
    let ends = [channel.ends[side], channel.ends[1 - side]];
    (ends, channel.directions[side].enabled && ends[0] != ends[1])
}

fn side_of(network: &Network, lane: Lane) -> (&Channel, usize) {
    (&network.channels[lane as usize / 2], lane as usize % 2)
}

fn edge(network: &Network, lane: Lane) -> Edge {
    let (channel, side) = side_of(network, lane);
    let direction = &channel.directions[side];
    let capacity_msat = channel.capacity_sat.saturating_mul(1_000);
    Edge {
        target: channel.ends[1 - side],
        lane,
        base_msat: direction.base_msat,
        ppm: direction.ppm,
        // BOLT 2: an HTLC of nothing is not allowed.
        least_msat: direction.htlc_minimum_msat.max(1),
        most_msat: direction.htlc_maximum_msat.min(capacity_msat),
        capacity_msat,
        cltv_expiry_delta: direction.cltv_expiry_delta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::generate::scale_free;

    #[test]
    fn every_enabled_lane_is_an_edge_of_its_node() {
        let network = scale_free(60, 3, 4);
        let graph = Graph::new(&network);
        let mut seen = 0;
        for node in 0..network.nodes {
            for edge in graph.outgoing(node) {
                let (ends, enabled) = lane_of(&network, graph.edge(edge).lane);
                assert!(enabled);
                assert_eq!(ends, [node, graph.edge(edge).target]);
                assert_eq!(graph.edge_of(graph.edge(edge).lane), Some(edge));
                assert_eq!(graph.source(edge), node);
                seen += 1;
            }
            for incoming in &graph.incoming()[graph.incoming_range(node)] {
                assert_eq!(graph.edge(incoming.edge).target, node);
                assert_eq!(graph.source(incoming.edge), incoming.source);
            }
        }
        let enabled = |channel: &Channel| channel.directions.iter().filter(|d| d.enabled).count();
        assert_eq!(seen, network.channels.iter().map(enabled).sum::<usize>());
        assert_eq!(seen, graph.incoming().len());
    }

    #[test]
    fn fees_are_rounded_down() {
        let mut network = scale_free(2, 1, 1);
        network.channels[0].directions[0] = crate::topology::Direction {
            enabled: true,
            base_msat: 1_000,
            ppm: 10,
            ..network.channels[0].directions[0]
        };
        let graph = Graph::new(&network);
        let edge = graph.edge(graph.edge_of(0).unwrap());
        assert_eq!(edge.fee_msat(199_999), 1_001);
        assert_eq!(edge.fee_msat(0), 1_000);
        assert_eq!(edge.fee_msat(u64::MAX), 1_000 + u64::MAX / 100_000);
    }
}
