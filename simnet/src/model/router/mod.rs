//! Finds the cheapest route for what a sender knows.
//!
//! A sender knows the public network, its own balances, and where its own payments have failed.
//! The cost of a route is the sum of its edges' costs (`cost.rs`) for the amount that arrives,
//! plus the sender's penalties. Fees of fees are left out of the cost, and of nothing else: what
//! a hop is paid is computed from the receiver backwards, to the millisatoshi.
//!
//! Within that the route found is the cheapest, not an approximation. Two searches share the
//! work: one from the receiver, over costs that no sender can undercut, is kept and grows from
//! payment to payment (`reverse.rs`); one from the sender, over its own costs, is drawn to the
//! receiver by the first and ends when nothing open can be cheaper than what it has.
//!
//! Source: Hart, Nilsson, Raphael, "A Formal Basis for the Heuristic Determination of Minimum
//! Cost Paths" (1968).

pub mod cost;
mod reverse;

use std::cmp::Reverse as Least;
use std::collections::BinaryHeap;

pub use cost::CostTerms;
use cost::UNUSABLE;
use reverse::{Class, Search, Searches};

use crate::model::graph::{EdgeId, Graph, NO_EDGE};
use crate::topology::Node;

/// A penalty that forbids an edge.
pub const FORBIDDEN: u32 = u32::MAX;

/// Nodes by which a kept search grows for one payment.
const GROWTH: usize = 64;

/// How often a route is sought anew because fees made it too much for one of its edges.
const REPAIRS_MAX: usize = 8;

/// What to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Who pays.
    pub from: Node,
    /// Who is paid.
    pub to: Node,
    /// What arrives, msat.
    pub amount_msat: u64,
}

/// What a sender knows that others do not.
pub trait Knowledge {
    /// What it can send over its own `edge` now, msat.
    fn spendable_msat(&self, graph: &Graph, edge: EdgeId) -> u64;
}

/// A hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Over which edge.
    pub edge: EdgeId,
    /// What is locked on it, msat.
    pub amount_msat: u64,
}

/// Finds routes, and remembers what helps to find the next.
pub struct Router {
    terms: CostTerms,
    classes: Vec<Class>,
    searches: Searches,
    best: Vec<u64>,
    via: Vec<EdgeId>,
    seen: Vec<u32>,
    stamp: u32,
    open: BinaryHeap<Least<(u64, Node)>>,
    penalties: Vec<u32>,
    penalised: Vec<EdgeId>,
}

impl Router {
    /// A router that keeps searches in up to `search_bytes`.
    ///
    /// `usual_amounts_msat` are amounts that come again and again: for them the estimate is
    /// exact. Others are sorted into classes, four to each factor of two.
    pub fn new(
        graph: &Graph,
        terms: CostTerms,
        usual_amounts_msat: &[u64],
        search_bytes: u64,
    ) -> Self {
        let nodes = graph.nodes();
        let classes = usual_amounts_msat
            .iter()
            .map(|amount| Class::new(graph, &terms, *amount, *amount))
            .collect();
        Self {
            terms,
            classes,
            searches: Searches::new(nodes, search_bytes),
            best: vec![0; nodes],
            via: vec![NO_EDGE; nodes],
            seen: vec![0; nodes],
            stamp: 0,
            open: BinaryHeap::new(),
            penalties: vec![0; graph.edges().len()],
            penalised: Vec::new(),
        }
    }

    /// Adds to the cost of `edge` for the next search only; [`FORBIDDEN`] excludes it.
    pub fn penalise(&mut self, edge: EdgeId, penalty_msat: u32) {
        let penalty = &mut self.penalties[edge as usize];
        if *penalty == 0 && penalty_msat > 0 {
            self.penalised.push(edge);
        }
        *penalty = penalty.saturating_add(penalty_msat);
    }

    /// Takes note that an edge is closed in `graph`.
    pub fn close(&mut self, graph: &Graph, edge: EdgeId) {
        for class in &mut self.classes {
            class.close(graph, edge);
        }
    }

    /// Finds the cheapest route and writes it to `route`, from the sender on. Penalties are
    /// forgotten afterwards.
    ///
    /// Returns whether there is one.
    pub fn find(
        &mut self,
        graph: &Graph,
        ask: &Ask,
        knowledge: &impl Knowledge,
        route: &mut Vec<Hop>,
    ) -> bool {
        let class = self.class(graph, ask.amount_msat);
        let mut found = false;
        for _ in 0..REPAIRS_MAX {
            found = self.search(graph, ask, class, knowledge, route);
            if !found {
                break;
            }
            match too_narrow(graph, ask, knowledge, route) {
                None => break,
                Some(edge) => self.penalise(edge, FORBIDDEN),
            }
            found = false;
        }
        for edge in self.penalised.drain(..) {
            self.penalties[edge as usize] = 0;
        }
        found
    }

    fn class(&mut self, graph: &Graph, amount_msat: u64) -> usize {
        let fits = |class: &Class| class.least_msat <= amount_msat && amount_msat <= class.most_msat;
        if let Some(place) = self.classes.iter().position(fits) {
            return place;
        }
        let (least, most) = class_of(amount_msat);
        self.classes.push(Class::new(graph, &self.terms, least, most));
        self.classes.len() - 1
    }

    fn search(
        &mut self,
        graph: &Graph,
        ask: &Ask,
        class_place: usize,
        knowledge: &impl Knowledge,
        route: &mut Vec<Hop>,
    ) -> bool {
        let class = &self.classes[class_place];
        let search = self.searches.get(graph.nodes(), ask.to, class_place as u32);
        search.grow(graph, class, GROWTH, ask.from);
        let costs = Costs { graph, terms: &self.terms, class, penalties: &self.penalties, ask };
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.seen.fill(0);
            self.stamp = 1;
        }
        let mut forward = Forward {
            best: &mut self.best,
            via: &mut self.via,
            seen: &mut self.seen,
            stamp: self.stamp,
            open: &mut self.open,
            limit: u64::MAX,
        };
        forward.begin(&costs, search, knowledge);
        let Some(meeting) = forward.run(&costs, search) else { return false };
        route.clear();
        let mut node = meeting;
        while node != ask.from {
            let edge = forward.via[node as usize];
            route.push(Hop { edge, amount_msat: 0 });
            node = graph.source(edge);
        }
        route.reverse();
        let mut node = meeting;
        while node != ask.to {
            let edge = search.next(node);
            route.push(Hop { edge, amount_msat: 0 });
            node = graph.edge(edge).target;
        }
        true
    }
}

/// The class of an amount: four to each factor of two, so that bounds are close.
fn class_of(amount_msat: u64) -> (u64, u64) {
    let width = 1 << amount_msat.max(1).ilog2().saturating_sub(2);
    let least = amount_msat / width * width;
    (least, least + (width - 1))
}

/// Fills in what each hop locks; tells which edge is too narrow for that.
fn too_narrow(
    graph: &Graph,
    ask: &Ask,
    knowledge: &impl Knowledge,
    route: &mut [Hop],
) -> Option<EdgeId> {
    let mut amount_msat = ask.amount_msat;
    for place in (0..route.len()).rev() {
        let edge = graph.edge(route[place].edge);
        route[place].amount_msat = amount_msat;
        if !edge.takes(amount_msat) {
            return Some(route[place].edge);
        }
        if place > 0 {
            amount_msat = amount_msat.saturating_add(edge.fee_msat(amount_msat));
        }
    }
    let first = route.first()?.edge;
    (knowledge.spendable_msat(graph, first) < amount_msat).then_some(first)
}

/// The sender's costs.
struct Costs<'a> {
    graph: &'a Graph,
    terms: &'a CostTerms,
    class: &'a Class,
    penalties: &'a [u32],
    ask: &'a Ask,
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
            node = self.graph.edge(edge).target;
        }
        Some(cost)
    }
}

/// The search from the sender.
struct Forward<'a> {
    best: &'a mut [u64],
    via: &'a mut [EdgeId],
    seen: &'a mut [u32],
    stamp: u32,
    open: &'a mut BinaryHeap<Least<(u64, Node)>>,
    /// The cost of the best route known.
    limit: u64,
}

impl Forward<'_> {
    /// Opens the sender's neighbours: its own hops take no fee.
    fn begin(&mut self, costs: &Costs<'_>, search: &Search, knowledge: &impl Knowledge) {
        self.open.clear();
        self.reach(costs.ask.from, 0, NO_EDGE);
        for edge in costs.graph.outgoing(costs.ask.from) {
            let penalty = costs.penalties[edge as usize];
            let amount = costs.ask.amount_msat;
            if penalty != FORBIDDEN
                && costs.graph.edge(edge).takes(amount)
                && knowledge.spendable_msat(costs.graph, edge) >= amount
            {
                let cost = costs.terms.own_hop() + u64::from(penalty);
                self.open(costs.graph.edge(edge).target, cost, edge, search);
            }
        }
    }

    fn reach(&mut self, node: Node, cost: u64, via: EdgeId) {
        self.best[node as usize] = cost;
        self.via[node as usize] = via;
        self.seen[node as usize] = self.stamp;
    }

    fn open(&mut self, node: Node, cost: u64, via: EdgeId, search: &Search) {
        let rest = search.at_least(node);
        let at_least = cost.saturating_add(u64::from(rest));
        let worse = self.seen[node as usize] == self.stamp && self.best[node as usize] <= cost;
        if !worse && rest != UNUSABLE && at_least < self.limit {
            self.reach(node, cost, via);
            self.open.push(Least((at_least, node)));
        }
    }

    /// Runs until nothing open can be cheaper. Returns the node from which the route follows
    /// the receiver's search.
    fn run(&mut self, costs: &Costs<'_>, search: &Search) -> Option<Node> {
        let mut meeting = None;
        while let Some(Least((at_least, node))) = self.open.pop() {
            if at_least >= self.limit {
                break;
            }
            let cost = self.best[node as usize];
            if at_least > cost.saturating_add(u64::from(search.at_least(node))) {
                // It was reached more cheaply since.
                continue;
            }
            if search.settled(node).is_some()
                && let Some(rest) = costs.along(search, node)
                && cost.saturating_add(rest) < self.limit
            {
                self.limit = cost.saturating_add(rest);
                meeting = Some(node);
                if self.limit == at_least {
                    break;
                }
            }
            for edge in costs.graph.outgoing(node) {
                let target = costs.graph.edge(edge).target;
                let bound = u64::from(costs.class.outgoing[edge as usize]);
                // What cannot help even by the lower bound needs no closer look.
                let hopeless = self.seen[target as usize] == self.stamp
                    && self.best[target as usize] <= cost + bound;
                if !hopeless && let Some(more) = costs.of(edge) {
                    self.open(target, cost.saturating_add(more), edge, search);
                }
            }
        }
        meeting
    }
}

#[cfg(test)]
mod tests;
