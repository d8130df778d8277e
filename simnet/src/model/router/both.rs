//! The search of one payment, from both ends.
//!
//! What is kept of the receiver estimates the way left, from below and consistently. Forward,
//! nodes are taken by what a route through them costs at least; backward, by how much more than
//! the estimate it costs to get from them to the receiver. So the sum of both is a bound for
//! every route that is not known yet, and the search ends when it reaches what is known.
//!
//! Source: Ikeda and others, "A Fast Algorithm for Finding Better Routes by AI Search Techniques"
//! (1994); Hart, Nilsson, Raphael, "A Formal Basis for the Heuristic Determination of Minimum
//! Cost Paths" (1968).

use std::cmp::Reverse as Least;
use std::collections::BinaryHeap;

use super::cost::{CostTerms, UNUSABLE};
use super::reverse::{Class, Search};
use super::{Ask, FORBIDDEN, Knowledge};
use crate::model::graph::{EdgeId, Graph, NO_EDGE};
use crate::topology::Node;

/// The sender's costs.
pub(super) struct Costs<'a> {
    pub graph: &'a Graph,
    pub terms: &'a CostTerms,
    pub class: &'a Class,
    pub penalties: &'a [u32],
    pub ask: &'a Ask,
}

impl Costs<'_> {
    /// The cost of an edge that is not the sender's own, if it can be used.
    fn of(&self, edge: EdgeId) -> Option<u64> {
        let bound = self.class.outgoing[edge as usize];
        let penalty = self.penalties[edge as usize];
        if bound == UNUSABLE || penalty == FORBIDDEN {
            return None;
        }
        let amount = self.ask.amount_msat;
        let cost = if self.class.is_exact() && bound < UNUSABLE - 1 {
            u64::from(bound)
        } else {
            let edge = self.graph.edge(edge);
            edge.takes(amount).then(|| self.terms.of(edge, amount))?
        };
        Some(cost + u64::from(penalty))
    }

    /// The cost of following `search` from a settled `node`; none if that does not work.
    fn along(&self, search: &Search, mut node: Node) -> Option<u64> {
        let mut cost = 0_u64;
        while node != self.ask.to {
            if node == self.ask.from {
                return None;
            }
            let edge = search.next(node);
            cost = cost.saturating_add(self.of(edge)?);
            node = self.graph.target(edge);
        }
        Some(cost)
    }
}

/// How a route goes on from where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Along the kept search.
    Kept,
    /// Along the backward search.
    Backward,
}

/// Where the best route was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meeting {
    pub node: Node,
    pub rest: Rest,
}

/// How a node was reached.
#[derive(Debug, Clone, Copy)]
struct Reached {
    cost: u64,
    via: EdgeId,
    /// The search that it belongs to.
    stamp: u32,
}

/// One end's search; its list is used again and again.
pub(super) struct Side {
    reached: Vec<Reached>,
    stamp: u32,
    open: BinaryHeap<Least<(u64, Node)>>,
}

impl Side {
    fn new(nodes: usize) -> Self {
        let never = Reached { cost: 0, via: NO_EDGE, stamp: 0 };
        Self { reached: vec![never; nodes], stamp: 0, open: BinaryHeap::new() }
    }

    fn begin(&mut self) {
        self.open.clear();
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            for reached in &mut self.reached {
                reached.stamp = 0;
            }
            self.stamp = 1;
        }
    }

    /// The edge by which a node was reached.
    pub fn via(&self, node: Node) -> EdgeId {
        self.reached[node as usize].via
    }

    fn best(&self, node: Node) -> Option<u64> {
        let reached = &self.reached[node as usize];
        (reached.stamp == self.stamp).then_some(reached.cost)
    }

    fn reach(&mut self, node: Node, cost: u64, via: EdgeId) {
        self.reached[node as usize] = Reached { cost, via, stamp: self.stamp };
    }

    /// The least key of what is open; none open, none less.
    fn least(&self) -> u64 {
        self.open.peek().map_or(u64::MAX, |Least((key, _))| *key)
    }
}

/// Both ends.
pub(super) struct Both {
    pub forward: Side,
    pub backward: Side,
    /// The cost of the best route known.
    limit: u64,
    meeting: Option<Meeting>,
}

impl Both {
    pub fn new(nodes: usize) -> Self {
        let side = || Side::new(nodes);
        Self { forward: side(), backward: side(), limit: u64::MAX, meeting: None }
    }

    /// Searches. Returns where the cheapest route was found.
    pub fn run(
        &mut self,
        costs: &Costs<'_>,
        search: &Search,
        knowledge: &impl Knowledge,
    ) -> Option<Meeting> {
        self.limit = u64::MAX;
        self.meeting = None;
        self.backward.begin();
        self.backward.reach(costs.ask.to, 0, NO_EDGE);
        self.open_neighbours(costs, search, knowledge);
        // Mostly nothing is in the way of what is kept.
        if self.forward.least() < u64::MAX && self.step_forward(costs, search, 0) {
            self.backward.open.push(Least((0, costs.ask.to)));
            loop {
                let (ahead, behind) = (self.forward.least(), self.backward.least());
                if ahead.saturating_add(behind) >= self.limit || ahead == u64::MAX {
                    break;
                }
                if behind == u64::MAX {
                    // Whoever can reach the receiver is known; no more routes than found.
                    break;
                }
                let goes_on = if self.forward.open.len() <= self.backward.open.len() {
                    self.step_forward(costs, search, behind)
                } else {
                    self.step_backward(costs, search, ahead);
                    true
                };
                if !goes_on {
                    break;
                }
            }
        }
        self.meeting
    }

    /// Opens the sender's neighbours: its own hops take no fee.
    fn open_neighbours(&mut self, costs: &Costs<'_>, search: &Search, knowledge: &impl Knowledge) {
        self.forward.begin();
        self.forward.reach(costs.ask.from, 0, NO_EDGE);
        for edge in costs.graph.outgoing(costs.ask.from) {
            let penalty = costs.penalties[edge as usize];
            let amount = costs.ask.amount_msat;
            if penalty != FORBIDDEN
                && costs.graph.edge(edge).takes(amount)
                && knowledge.spendable_msat(costs.graph, edge) >= amount
            {
                let cost = costs.terms.own_hop() + u64::from(penalty);
                self.open_forward(costs.graph.target(edge), cost, edge, search, 0);
            }
        }
    }

    fn meet(&mut self, node: Node, cost: u64, rest: Rest) {
        if cost < self.limit {
            self.limit = cost;
            self.meeting = Some(Meeting { node, rest });
        }
    }

    fn open_forward(&mut self, node: Node, cost: u64, via: EdgeId, search: &Search, behind: u64) {
        if self.forward.best(node).is_some_and(|best| best <= cost) {
            return;
        }
        let rest = search.at_least(node);
        let at_least = cost.saturating_add(u64::from(rest));
        if rest == UNUSABLE || at_least.saturating_add(behind) >= self.limit {
            return;
        }
        self.forward.reach(node, cost, via);
        self.forward.open.push(Least((at_least, node)));
        if let Some(rest) = self.backward.best(node) {
            self.meet(node, cost.saturating_add(rest), Rest::Backward);
        }
    }

    /// Takes one node from the sender's side. Returns false once the best route is known.
    fn step_forward(&mut self, costs: &Costs<'_>, search: &Search, behind: u64) -> bool {
        let Some(Least((at_least, node))) = self.forward.open.pop() else { return true };
        let cost = self.forward.reached[node as usize].cost;
        if at_least > cost.saturating_add(u64::from(search.at_least(node))) {
            // It was reached more cheaply since.
            return true;
        }
        if search.settled(node).is_some()
            && let Some(rest) = costs.along(search, node)
        {
            self.meet(node, cost.saturating_add(rest), Rest::Kept);
            if self.limit <= at_least {
                return false;
            }
        }
        for edge in costs.graph.outgoing(node) {
            let target = costs.graph.target(edge);
            let bound = u64::from(costs.class.outgoing[edge as usize]);
            // What cannot help even by the lower bound needs no closer look.
            let hopeless = self.forward.best(target).is_some_and(|best| best <= cost + bound);
            if !hopeless && let Some(more) = costs.of(edge) {
                self.open_forward(target, cost.saturating_add(more), edge, search, behind);
            }
        }
        true
    }

    /// Takes one node from the receiver's side.
    fn step_backward(&mut self, costs: &Costs<'_>, search: &Search, ahead: u64) {
        let Some(Least((more, node))) = self.backward.open.pop() else { return };
        let cost = self.backward.reached[node as usize].cost;
        if more > cost.saturating_sub(u64::from(search.at_least(node))) {
            return;
        }
        for place in costs.graph.incoming_range(node) {
            let incoming = costs.graph.incoming()[place];
            let source = incoming.source;
            // The sender's own hops are opened from its side.
            if source == costs.ask.from {
                continue;
            }
            let Some(step) = costs.of(incoming.edge) else { continue };
            let through = cost.saturating_add(step);
            if self.backward.best(source).is_some_and(|best| best <= through) {
                continue;
            }
            let more = through.saturating_sub(u64::from(search.at_least(source)));
            if more.saturating_add(ahead) >= self.limit {
                continue;
            }
            self.backward.reach(source, through, incoming.edge);
            self.backward.open.push(Least((more, source)));
            if let Some(before) = self.forward.best(source) {
                self.meet(source, before.saturating_add(through), Rest::Backward);
            }
        }
    }
}
