//! Searches from receivers backwards, kept and grown from payment to payment.
//!
//! A search runs over lower bounds of the costs, valid for every sender and every amount of its
//! class. What it has settled is the exact distance under these bounds; for the rest its radius
//! is a bound. Both together are a consistent estimate for the search from the sender.

use std::cmp::Reverse as Least;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::cost::{CostTerms, UNUSABLE};
use crate::model::graph::{EdgeId, Graph, NO_EDGE};
use crate::topology::Node;

/// The costs of all edges for one class of amounts, from below.
pub(super) struct Class {
    pub least_msat: u64,
    pub most_msat: u64,
    /// By edge.
    pub outgoing: Vec<u32>,
    /// In the order of [`Graph::incoming`].
    incoming: Vec<u32>,
}

impl Class {
    pub fn new(graph: &Graph, terms: &CostTerms, least_msat: u64, most_msat: u64) -> Self {
        let bound = |edge| terms.lower_bound(edge, least_msat, most_msat);
        let outgoing: Vec<u32> = graph.edges().iter().map(bound).collect();
        let incoming = graph.incoming().iter().map(|one| outgoing[one.edge as usize]).collect();
        Self { least_msat, most_msat, outgoing, incoming }
    }

    /// Whether its bounds are the costs themselves.
    pub fn is_exact(&self) -> bool {
        self.least_msat == self.most_msat
    }

    pub fn close(&mut self, graph: &Graph, edge: EdgeId) {
        self.outgoing[edge as usize] = UNUSABLE;
        for place in graph.incoming_range(graph.edge(edge).target) {
            if graph.incoming()[place].edge == edge {
                self.incoming[place] = UNUSABLE;
            }
        }
    }
}

/// A search from one receiver backwards.
pub(super) struct Search {
    distance: Vec<u32>,
    next: Vec<EdgeId>,
    open: BinaryHeap<Least<u64>>,
    radius: u32,
    used: bool,
}

impl Search {
    fn new(nodes: usize, receiver: Node) -> Self {
        let mut distance = vec![UNUSABLE; nodes];
        distance[receiver as usize] = 0;
        let open = BinaryHeap::from([Least(u64::from(receiver))]);
        Self { distance, next: vec![NO_EDGE; nodes], open, radius: 0, used: true }
    }

    /// Settles up to `count` more nodes, and stops at `until`.
    pub fn grow(&mut self, graph: &Graph, class: &Class, count: usize, until: Node) {
        let mut settled = 0;
        while settled < count && self.settled(until).is_none() {
            let Some(Least(entry)) = self.open.pop() else {
                self.radius = UNUSABLE;
                self.open = BinaryHeap::new();
                return;
            };
            let (distance, node) = ((entry >> 32) as u32, entry as Node);
            if distance > self.distance[node as usize] {
                continue;
            }
            self.radius = distance;
            settled += 1;
            for place in graph.incoming_range(node) {
                let incoming = graph.incoming()[place];
                let bound = class.incoming[place];
                let through = distance.saturating_add(bound).min(UNUSABLE - 1);
                if bound != UNUSABLE && through < self.distance[incoming.source as usize] {
                    self.distance[incoming.source as usize] = through;
                    self.next[incoming.source as usize] = incoming.edge;
                    self.open.push(Least(u64::from(through) << 32 | u64::from(incoming.source)));
                }
            }
        }
    }

    /// The distance from `node`, if the search has settled it.
    pub fn settled(&self, node: Node) -> Option<u32> {
        let distance = self.distance[node as usize];
        // What is open at the radius itself cannot become nearer: no edge is free.
        (distance <= self.radius && distance != UNUSABLE).then_some(distance)
    }

    /// No route from `node` costs less; [`UNUSABLE`] if there is none.
    pub fn at_least(&self, node: Node) -> u32 {
        self.distance[node as usize].min(self.radius)
    }

    /// The first edge from a settled `node` towards the receiver.
    pub fn next(&self, node: Node) -> EdgeId {
        self.next[node as usize]
    }
}

/// Searches by receiver and class, as many as fit.
pub(super) struct Searches {
    places: HashMap<(Node, u32), usize>,
    searches: Vec<Search>,
    /// In the order in which they may have to go.
    queue: VecDeque<((Node, u32), usize)>,
    count_max: usize,
}

impl Searches {
    /// Keeps as many as fit into `bytes`, at least one.
    pub fn new(nodes: usize, bytes: u64) -> Self {
        let each = (nodes as u64 * SEARCH_BYTES_PER_NODE).max(1);
        let count_max = usize::try_from(bytes / each).unwrap_or(usize::MAX).max(1);
        Self { places: HashMap::new(), searches: Vec::new(), queue: VecDeque::new(), count_max }
    }

    /// The search from `receiver`, a new one if it is not kept.
    pub fn get(&mut self, nodes: usize, receiver: Node, class: u32) -> &mut Search {
        let key = (receiver, class);
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.insert(key, Search::new(nodes, receiver)),
        };
        let search = &mut self.searches[place];
        search.used = true;
        search
    }

    fn insert(&mut self, key: (Node, u32), search: Search) -> usize {
        let mut place = self.searches.len();
        if place < self.count_max {
            self.searches.push(search);
        } else {
            // Second chance: what was used since it was looked at last goes to the back.
            while let Some((old, at)) = self.queue.pop_front() {
                if std::mem::take(&mut self.searches[at].used) {
                    self.queue.push_back((old, at));
                } else {
                    self.places.remove(&old);
                    place = at;
                    break;
                }
            }
            self.searches[place] = search;
        }
        self.places.insert(key, place);
        self.queue.push_back((key, place));
        place
    }
}

/// Distance and next edge, and something for what is open.
const SEARCH_BYTES_PER_NODE: u64 = 12;
