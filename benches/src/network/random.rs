//! Numbers from a seed, and networks made of them.

use super::{Channel, Direction, Network, Node};

/// SplitMix64: small, seeded, the same on every machine.
///
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// One of `items`, which must not be empty.
    pub fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or(0)]
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

    #[test]
    fn one_seed_makes_one_network() {
        assert_eq!(scale_free(100, 3, 7), scale_free(100, 3, 7));
        assert_ne!(scale_free(100, 3, 7), scale_free(100, 3, 8));
    }

    #[test]
    fn a_generated_network_holds_together() {
        let network = scale_free(500, 4, 1);
        assert!(network.largest_strong_component().len() > 400);
        assert!(network.channels.iter().all(|c| c.ends[0] != c.ends[1]));
    }
}
