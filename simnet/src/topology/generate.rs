//! Networks made of a few numbers and a seed.

use super::{Channel, Direction, Network, Node, Topology};
use crate::random::Random;

/// What all channels of a generated network have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What each is funded with.
    pub capacity_sat: u64,
    /// Least per HTLC, msat. The most is the capacity.
    pub htlc_minimum_msat: u64,
    /// Flat fee, msat.
    pub base_msat: u32,
    /// Proportional fee, millionths.
    pub ppm: u32,
    /// Blocks.
    pub cltv_expiry_delta: u16,
}

impl Terms {
    /// A channel on these terms.
    pub fn channel(&self, ends: [Node; 2]) -> Channel {
        let direction = Direction {
            enabled: true,
            htlc_minimum_msat: self.htlc_minimum_msat,
            htlc_maximum_msat: self.capacity_sat.saturating_mul(1_000),
            base_msat: self.base_msat,
            ppm: self.ppm,
            cltv_expiry_delta: self.cltv_expiry_delta,
        };
        Channel { ends, capacity_sat: self.capacity_sat, directions: [direction; 2] }
    }
}

/// Nodes in a row, each with a channel to the next.
pub fn line(nodes: Node, terms: &Terms) -> Network {
    let channels = (1..nodes).map(|node| terms.channel([node - 1, node])).collect();
    Network { nodes, channels }
}

/// A grid of `width` by `height` nodes, each with a channel to its right and its lower neighbour.
pub fn lattice(width: Node, height: Node, terms: &Terms) -> Network {
    let mut channels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let node = y * width + x;
            if x + 1 < width {
                channels.push(terms.channel([node, node + 1]));
            }
            if y + 1 < height {
                channels.push(terms.channel([node, node + width]));
            }
        }
    }
    Network { nodes: width * height, channels }
}

/// Hubs that all have channels with each other, and users with one channel to a hub each, in
/// turn. `between_hubs` and `to_users` are the terms of the two kinds of channels.
///
/// Hubs come first; a user's channel has its hub as first end.
pub fn hub_and_spoke(hubs: Node, users: Node, between_hubs: &Terms, to_users: &Terms) -> Topology {
    let mut channels = Vec::new();
    for one in 0..hubs {
        channels.extend((one + 1..hubs).map(|other| between_hubs.channel([one, other])));
    }
    let user_channel_start = channels.len();
    channels.extend((0..users).map(|user| to_users.channel([user % hubs.max(1), hubs + user])));
    Topology {
        network: Network { nodes: hubs + users, channels },
        hubs: (0..hubs).collect(),
        users: (hubs..hubs + users).collect(),
        user_channel_start,
        ..Topology::default()
    }
}

/// A scale-free network: each new node opens `per_node` channels to nodes chosen by how many they
/// have. Fees, limits and capacities are drawn around those of the public network.
///
/// Source: Barabási, Albert, "Emergence of Scaling in Random Networks" (1999).
pub fn scale_free(nodes: Node, per_node: u32, seed: u64) -> Network {
    let mut random = Random::new(seed);
    let mut channels = Vec::new();
    // Each channel puts both its ends here: a draw is a draw by degree.
    let mut drawn_by_degree: Vec<Node> = vec![0];
    for node in 1..nodes {
        for _ in 0..per_node.min(node) {
            let peer = random.choose(&drawn_by_degree);
            if peer == node {
                continue;
            }
            channels.push(channel(&mut random, [peer, node]));
            drawn_by_degree.extend([peer, node]);
        }
    }
    Network { nodes, channels }
}

fn channel(random: &mut Random, ends: [Node; 2]) -> Channel {
    const SATS: [u64; 8] =
        [50_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 16_000_000, 100_000_000];
    let capacity_sat = random.choose(&SATS) + random.below(10_000);
    let directions = [(); 2].map(|()| Direction {
        enabled: random.below(10) > 0,
        htlc_minimum_msat: random.choose(&[1, 1, 1_000, 1_000, 1_000, 10_000]),
        htlc_maximum_msat: match random.below(3) {
            0 => capacity_sat * 500,
            _ => capacity_sat * 990,
        },
        base_msat: random.choose(&[0, 0, 1, 100, 1_000, 1_000]),
        ppm: random.choose(&[0, 1, 10, 50, 100, 250, 500, 1_000, 2_500]),
        cltv_expiry_delta: random.choose(&[34, 40, 40, 80, 80, 144]),
    });
    Channel { ends, capacity_sat, directions }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        capacity_sat: 1_000,
        htlc_minimum_msat: 1,
        base_msat: 0,
        ppm: 0,
        cltv_expiry_delta: 40,
    };

    #[test]
    fn one_seed_makes_one_network() {
        assert_eq!(scale_free(100, 3, 7), scale_free(100, 3, 7));
        assert_ne!(scale_free(100, 3, 7), scale_free(100, 3, 8));
    }

    #[test]
    fn a_lattice_has_four_neighbours_inside() {
        let network = lattice(4, 3, &TERMS);
        assert_eq!((network.nodes, network.channels.len()), (12, 3 * 3 + 4 * 2));
        let neighbours = network.channels.iter().filter(|channel| channel.ends.contains(&5));
        assert_eq!(neighbours.count(), 4);
        assert_eq!(network.largest_strong_component().len(), 12);
    }

    #[test]
    fn users_are_spread_over_hubs_in_turn() {
        let topology = hub_and_spoke(3, 7, &TERMS, &TERMS);
        assert_eq!(topology.network.channels.len(), 3 + 7);
        let of_first = topology.network.channels[topology.user_channel_start..]
            .iter()
            .filter(|channel| channel.ends[0] == 0);
        assert_eq!(of_first.count(), 3);
        assert_eq!(topology.network.channels[topology.user_channel_start].ends, [0, 3]);
    }

    #[test]
    fn a_generated_network_holds_together() {
        let network = scale_free(500, 4, 1);
        assert!(network.largest_strong_component().len() > 400);
        assert!(network.channels.iter().all(|c| c.ends[0] != c.ends[1]));
    }
}
