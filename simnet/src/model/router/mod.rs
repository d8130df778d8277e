//! Finds the cheapest route for what a sender knows.
//!
//! A sender knows the public network, its own balances, and where its own payments have failed.
//! The cost of a route is the sum of its edges' costs (`cost.rs`) for the amount that arrives,
//! plus the sender's penalties. Fees of fees are left out of the cost, and of nothing else: what
//! a hop is paid is computed from the receiver backwards, to the millisatoshi.
//!
//! Within that the route found is the cheapest, not an approximation. A search from the receiver,
//! over costs that no sender can undercut, is kept and grows from payment to payment
//! (`reverse.rs`). It draws a search from the sender, over the sender's own costs, straight to
//! the receiver; where penalties are in the way, a third search from the receiver over these
//! costs meets the second (`both.rs`).

mod both;
pub mod cost;
mod reverse;

use both::{Both, Costs, Rest};
pub use cost::CostTerms;
use reverse::{Class, Searches};

use crate::model::graph::{EdgeId, Graph};
use crate::topology::Node;

/// A penalty that forbids an edge.
pub const FORBIDDEN: u32 = u32::MAX;

/// Nodes by which a kept search grows for one payment.
///
/// Few: with a search from both ends the kept one need only show the way. Measured on the
/// public network, 8 is as fast as 64 and takes a fraction of the memory.
const GROWTH: usize = 8;

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
    both: Both,
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
            both: Both::new(nodes),
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
        let fits =
            |class: &Class| class.least_msat <= amount_msat && amount_msat <= class.most_msat;
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
        let Some(meeting) = self.both.run(&costs, search, knowledge) else { return false };
        route.clear();
        let mut node = meeting.node;
        while node != ask.from {
            let edge = self.both.forward.via(node);
            route.push(Hop { edge, amount_msat: 0 });
            node = graph.source(edge);
        }
        route.reverse();
        let mut node = meeting.node;
        while node != ask.to {
            let edge = match meeting.rest {
                Rest::Kept => search.next(node),
                Rest::Backward => self.both.backward.via(node),
            };
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

#[cfg(test)]
mod tests;
