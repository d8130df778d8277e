//! Who can pay whom: the largest strongly connected component.

use super::{Network, Node};

impl Network {
    /// The nodes of the largest set in which everybody can pay everybody over enabled
    /// directions, ascending.
    ///
    /// Source: Tarjan, "Depth-First Search and Linear Graph Algorithms" (1972), without recursion.
    pub fn largest_strong_component(&self) -> Vec<Node> {
        let nodes = self.nodes as usize;
        let mut next: Vec<Vec<Node>> = vec![Vec::new(); nodes];
        for channel in &self.channels {
            for (direction, [from, to]) in
                channel.directions.iter().zip([channel.ends, [channel.ends[1], channel.ends[0]]])
            {
                if direction.enabled {
                    next[from as usize].push(to);
                }
            }
        }
        let mut search = Search {
            order: vec![0; nodes],
            low: vec![0; nodes],
            on_stack: vec![false; nodes],
            stack: Vec::new(),
            visited: 0,
            largest: Vec::new(),
        };
        for root in 0..self.nodes {
            if search.order[root as usize] == 0 {
                search.from(root, &next);
            }
        }
        search.largest.sort_unstable();
        search.largest
    }
}

struct Search {
    order: Vec<u32>,
    low: Vec<u32>,
    on_stack: Vec<bool>,
    stack: Vec<Node>,
    visited: u32,
    largest: Vec<Node>,
}

impl Search {
    fn from(&mut self, root: Node, next: &[Vec<Node>]) {
        let mut calls = vec![(root, 0)];
        self.enter(root);
        while let Some((node, tried)) = calls.last_mut() {
            let here = *node as usize;
            if let Some(other) = next[here].get(*tried).copied() {
                *tried += 1;
                if self.order[other as usize] == 0 {
                    self.enter(other);
                    calls.push((other, 0));
                } else if self.on_stack[other as usize] {
                    self.low[here] = self.low[here].min(self.order[other as usize]);
                }
                continue;
            }
            calls.pop();
            if let Some((parent, _)) = calls.last() {
                let parent = *parent as usize;
                self.low[parent] = self.low[parent].min(self.low[here]);
            }
            if self.low[here] == self.order[here] {
                self.close(here);
            }
        }
    }

    fn enter(&mut self, node: Node) {
        self.visited += 1;
        self.order[node as usize] = self.visited;
        self.low[node as usize] = self.visited;
        self.on_stack[node as usize] = true;
        self.stack.push(node);
    }

    fn close(&mut self, root: usize) {
        let from = self.stack.iter().rposition(|node| *node as usize == root).unwrap_or(0);
        let component = self.stack.split_off(from);
        for node in &component {
            self.on_stack[*node as usize] = false;
        }
        if component.len() > self.largest.len() {
            self.largest = component;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Channel, Direction};
    use super::*;

    fn channel(ends: [Node; 2], enabled: [bool; 2]) -> Channel {
        let direction = |enabled| Direction {
            enabled,
            htlc_minimum_msat: 1,
            htlc_maximum_msat: 1_000_000,
            base_msat: 0,
            ppm: 0,
            cltv_expiry_delta: 6,
        };
        Channel { ends, capacity_sat: 1_000, directions: enabled.map(direction) }
    }

    #[test]
    fn one_way_streets_are_not_part_of_the_strong_component() {
        let channels = vec![
            channel([0, 1], [true, false]),
            channel([1, 2], [true, false]),
            channel([2, 0], [true, false]),
            channel([2, 3], [true, false]),
            channel([4, 5], [true, true]),
            channel([5, 3], [false, false]),
        ];
        let network = Network { nodes: 6, channels };
        assert_eq!(network.largest_strong_component(), [0, 1, 2]);
    }

    #[test]
    fn a_network_without_channels_has_a_component_of_one() {
        let network = Network { nodes: 2, channels: vec![] };
        assert_eq!(network.largest_strong_component().len(), 1);
        let empty = Network { nodes: 0, channels: vec![] };
        assert!(empty.largest_strong_component().is_empty());
    }
}
