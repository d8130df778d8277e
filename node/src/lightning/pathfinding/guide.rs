//! Lower bounds that tell a search where we are: what a path from us costs at least.
//!
//! All our payments start at one node. So the cheapest way from there to every node is worked out
//! once per class of amounts, at the least amount of the class, and kept. A search that comes from
//! the payee adds that bound to what it has already paid and looks only where the sum is small
//! (A*, with a consistent bound: the result is that of the plain search). Both cost and penalty
//! grow with the amount, which makes the bound one.
//!
//! The tree grows no further than it was asked, and follows what the scorer learns: a dearer
//! channel leaves a bound that is still one; a cheaper one is repaired at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hop::htlc_maximum_msat;
use super::journal::Journal;
use super::penalties::{Penalties, Score, Usage};
use super::snapshot::Snapshot;

/// A weight nobody has asked for yet.
const UNASKED: u32 = u32::MAX;
/// A weight that says: cannot carry the least amount of the class.
const TOO_SMALL: u32 = u32::MAX - 1;
/// Greater weights are cut down to this, which keeps them bounds.
const WEIGHT_MAX: u32 = u32::MAX - 2;
/// The bound of a node that the tree has not come to.
const FAR: u64 = u64::MAX;

/// How much a path may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// All of the amount.
    Whole,
    /// All, or no less than one of so many parts.
    Parts(u8),
    /// As parts, or up to three times the amount.
    Provision(u8),
}

/// Which payments a guide is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    /// The least amount, msat. The greatest is at most an eighth more, where
    /// penalties depend on it.
    floor_msat: u64,
    span: Span,
    /// Channels are used up to 1/2^this.
    saturation_shift: u8,
}

impl Class {
    /// The class of `amount_msat`. Where penalties hardly depend on the amount classes are wide,
    /// and at most a thirty-second of the amount where they do.
    pub fn of(amount_msat: u64, span: Span, saturation_shift: u8) -> Self {
        let bits = u64::BITS - amount_msat.leading_zeros();
        let kept = match bits {
            0..=10 => 0,
            11..=17 => 1,
            18..=23 => 2,
            _ => 6,
        };
        let floor_msat = if kept == 0 { 0 } else { amount_msat >> (bits - kept) << (bits - kept) };
        Self { floor_msat, span, saturation_shift }
    }

    /// The least that one path brings, msat.
    fn least_msat(self) -> u64 {
        match self.span {
            Span::Whole => self.floor_msat,
            Span::Parts(parts) | Span::Provision(parts) => {
                self.floor_msat / u64::from(parts.max(1))
            }
        }
    }

    /// The most that one path brings, msat.
    fn most_msat(self) -> u64 {
        // The widest classes, those of the smallest amounts, span one to two.
        match self.span {
            Span::Whole => self.floor_msat,
            Span::Parts(_) if self.floor_msat >> 23 > 0 => self.floor_msat / 8 * 9 + 9,
            Span::Parts(_) => (self.floor_msat * 2).max(2 << 10),
            Span::Provision(_) => self.floor_msat.max(1 << 10).saturating_mul(6),
        }
    }
}

/// Lower bounds for one class of amounts, on one snapshot, from one set of starting points.
pub(super) struct Guide {
    serial: u64,
    class: Class,
    /// Per edge: penalty and fee at the least amount of the class, msat.
    weights: Vec<u32>,
    learnt: u64,
    payer: u32,
    roots: Vec<u32>,
    bounds: Vec<u64>,
    frontier: BinaryHeap<Reverse<(u64, u32)>>,
    /// Bounds up to here are final.
    radius: u64,
}

impl Guide {
    /// An empty guide.
    pub fn new(snapshot: &Snapshot, class: Class) -> Self {
        Self {
            serial: snapshot.serial(),
            class,
            weights: vec![UNASKED; snapshot.edge_count()],
            learnt: 0,
            payer: u32::MAX,
            roots: Vec::new(),
            bounds: Vec::new(),
            frontier: BinaryHeap::new(),
            radius: 0,
        }
    }

    /// Whether this is the guide for `class` on `snapshot`.
    pub fn serves(&self, snapshot: &Snapshot, class: Class) -> bool {
        self.serial == snapshot.serial() && self.class == class
    }

    /// What the edge adds at least to the cost of a path, msat. [`FAR`] if it cannot carry the
    /// least amount.
    pub fn weight(&self, edge: u32) -> u64 {
        match self.weights[edge as usize] {
            UNASKED => 0,
            TOO_SMALL => FAR,
            weight => u64::from(weight),
        }
    }

    /// Whether all bounds there are have been worked out.
    pub fn is_complete(&self) -> bool {
        self.frontier.is_empty()
    }

    /// What a path from us to `node` costs at least, msat. [`FAR`] if there is none.
    pub fn bound(&self, node: u32) -> u64 {
        match self.bounds.get(node as usize) {
            Some(bound) if *bound <= self.radius => *bound,
            Some(&FAR) if self.is_complete() => FAR,
            Some(_) => self.radius,
            // Not of the public network: no bound but zero.
            None => 0,
        }
    }

    /// Starts from `payer`, or from the `peers` it has channels with if they are given, in
    /// ascending order. Keeps what is known if nothing changed; follows what the scorer learnt.
    pub fn prepare<S: Score + Journal>(
        &mut self,
        start: Start<'_>,
        snapshot: &Snapshot,
        scorer: &S,
        penalties: &mut Penalties<'_, S>,
    ) {
        let roots = start.peers.unwrap_or(&[]);
        let same_start =
            self.payer == start.payer && self.roots == roots && !self.bounds.is_empty();
        let position = scorer.position();
        if self.learnt != position {
            match scorer.learnt_since(self.learnt) {
                Some(learnt) => {
                    for channel in learnt {
                        self.ask_again(channel, snapshot, penalties, same_start);
                    }
                }
                None => {
                    self.weights.fill(UNASKED);
                    self.bounds.clear();
                }
            }
            self.learnt = position;
        }
        if !same_start || self.bounds.is_empty() {
            self.restart(start, snapshot, penalties);
        }
        self.repair(snapshot, penalties);
    }

    fn restart<S: Score>(
        &mut self,
        start: Start<'_>,
        snapshot: &Snapshot,
        penalties: &mut Penalties<'_, S>,
    ) {
        self.payer = start.payer;
        self.roots.clear();
        self.roots.extend_from_slice(start.peers.unwrap_or(&[]));
        self.bounds.clear();
        self.bounds.resize(snapshot.node_count(), FAR);
        self.frontier.clear();
        self.radius = 0;
        if let Some(bound) = self.bounds.get_mut(start.payer as usize) {
            *bound = 0;
            if start.peers.is_none() {
                for out in snapshot.outgoing(start.payer) {
                    // We charge ourselves no fee.
                    if self.ask(out.edge, out.target, snapshot, penalties) != TOO_SMALL {
                        self.reach(out.target, 0);
                    }
                }
            }
        }
        for root in self.roots.clone() {
            self.reach(root, 0);
        }
    }

    fn reach(&mut self, node: u32, bound: u64) {
        if let Some(known) = self.bounds.get_mut(node as usize)
            && bound < *known
        {
            *known = bound;
            self.frontier.push(Reverse((bound, node)));
        }
    }

    /// Grows the tree until `node` has its bound, or there is nothing left to grow.
    pub fn grow_to<S: Score>(
        &mut self,
        node: u32,
        snapshot: &Snapshot,
        penalties: &mut Penalties<'_, S>,
    ) {
        while self.bounds.get(node as usize).is_some_and(|bound| *bound > self.radius) {
            let Some(Reverse((bound, next))) = self.frontier.pop() else { return };
            self.settle(next, bound, snapshot, penalties);
        }
    }

    /// Lets bounds that became smaller reach the nodes behind them.
    fn repair<S: Score>(&mut self, snapshot: &Snapshot, penalties: &mut Penalties<'_, S>) {
        while let Some(Reverse((bound, node))) = self.frontier.peek().copied()
            && bound < self.radius
        {
            self.frontier.pop();
            self.settle(node, bound, snapshot, penalties);
        }
    }

    fn settle<S: Score>(
        &mut self,
        node: u32,
        bound: u64,
        snapshot: &Snapshot,
        penalties: &mut Penalties<'_, S>,
    ) {
        if bound > self.bounds[node as usize] {
            return;
        }
        self.radius = self.radius.max(bound);
        for out in snapshot.outgoing(node) {
            let mut weight = self.weights[out.edge as usize];
            if weight == UNASKED {
                weight = self.ask(out.edge, out.target, snapshot, penalties);
                self.weights[out.edge as usize] = weight;
            }
            if weight <= WEIGHT_MAX {
                let reached = bound.saturating_add(u64::from(weight));
                let known = &mut self.bounds[out.target as usize];
                if reached < *known {
                    *known = reached;
                    self.frontier.push(Reverse((reached, out.target)));
                }
            }
        }
    }

    fn ask_again<S: Score>(
        &mut self,
        channel: u64,
        snapshot: &Snapshot,
        penalties: &mut Penalties<'_, S>,
        has_tree: bool,
    ) {
        for edge in snapshot.edges_of_channel(channel) {
            let old = self.weights[*edge as usize];
            if old == UNASKED || old == TOO_SMALL {
                continue;
            }
            let target = snapshot.target_of(*edge);
            let new = self.ask(*edge, target, snapshot, penalties);
            self.weights[*edge as usize] = new;
            if !has_tree || new >= old {
                continue;
            }
            let source = snapshot.edge(*edge).source;
            if source != self.payer && self.bounds[source as usize] <= self.radius {
                self.reach(target, self.bounds[source as usize].saturating_add(u64::from(new)));
            }
        }
    }

    /// The least an edge adds to the cost of a path, per amount of the class.
    ///
    /// A path that brings less than the whole counts for more: its cost is scaled up to the whole
    /// amount. Costs grow with the amount, so between two amounts the cost is at least that of
    /// the lesser, scaled by the greater.
    fn ask<S: Score>(
        &self,
        edge: u32,
        target: u32,
        snapshot: &Snapshot,
        penalties: &mut Penalties<'_, S>,
    ) -> u32 {
        let hop = snapshot.hop(edge, target);
        let ends = [snapshot.node(hop.source), snapshot.node(target)];
        let mut cost = |amount_msat| {
            let usage = Usage { amount_msat, used_msat: 0 };
            let penalty = penalties.of_public(ends, &hop, usage);
            penalty.saturating_add(hop.fee.on_saturating(amount_msat))
        };
        let carries_msat = htlc_maximum_msat(hop.capacity, self.class.saturation_shift);
        let least_msat = self.class.least_msat();
        if carries_msat < least_msat {
            return TOO_SMALL;
        }
        let weight = if self.class.span == Span::Whole {
            cost(least_msat)
        } else {
            let mut upper_msat = self.class.most_msat().min(carries_msat).max(least_msat + 1);
            let mut weight = u64::MAX;
            while upper_msat > least_msat {
                let lower_msat = (upper_msat / 4 * 3).max(least_msat);
                let whole_msat = u128::from(self.class.floor_msat);
                let scaled = u128::from(cost(lower_msat)) * whole_msat / u128::from(upper_msat);
                weight = weight.min(u64::try_from(scaled).unwrap_or(u64::MAX));
                upper_msat = lower_msat;
            }
            weight
        };
        u32::try_from(weight).unwrap_or(WEIGHT_MAX).min(WEIGHT_MAX)
    }
}

/// Where payments start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    /// Us.
    pub payer: u32,
    /// The public nodes among our peers, ascending; `None` if the public network's view of our
    /// channels is taken.
    pub peers: Option<&'a [u32]>,
}
