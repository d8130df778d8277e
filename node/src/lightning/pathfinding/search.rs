//! One walk over the network from the payee to the payer.
//!
//! Dijkstra's search as LDK does it: a node's label is the cheapest way from it to the payee,
//! cost being fees and penalties per amount that arrives. Where a channel limits the amount, the
//! path goes on with less. With a [`Guide`] the walk is led towards us (A*) and looks at a small
//! part of the network; without one it is LDK's own order. Labels are kept between searches and
//! told apart by a stamp, so that a walk clears nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::guide::Guide;
use super::hop::{Fee, Hop, HopId, NOBODY};
use super::penalties::{Penalties, Score, Usage};
use super::request::{Limits, Question, Terminals};
use super::snapshot::Snapshot;

/// Costs are compared in 1/256 msat, since they are scaled by the amount that arrives.
const COST_BITS: u32 = 8;

/// Liquidity used by paths already chosen, msat.
pub(super) type Used = HashMap<HopId, u64, BuildHasherDefault<HopHasher>>;

/// Hashes ids that we chose ourselves: no need to defend the table.
#[derive(Default)]
pub(super) struct HopHasher(u64);

impl Hasher for HopHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What every edge that leads on from a node asks first. Apart from the label: it stays in cache.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    stamp: u32,
    done: bool,
    /// Scaled; [`u64::MAX`] if there is no way yet.
    cost: u64,
}

/// What is known of the way from a node to the payee.
#[derive(Debug, Clone, Copy)]
struct Label {
    length: u8,
    cltv_delta: u32,
    total_fee_msat: u64,
    path_htlc_minimum_msat: u64,
    path_penalty_msat: u64,
    hop_use_fee_msat: u64,
    contribution_msat: u64,
    hop: Option<Hop>,
}

impl Label {
    const NEW: Self = Self {
        length: 0,
        cltv_delta: 0,
        total_fee_msat: u64::MAX,
        path_htlc_minimum_msat: u64::MAX,
        path_penalty_msat: u64::MAX,
        hop_use_fee_msat: 0,
        contribution_msat: 0,
        hop: None,
    };
}

/// The rest of the path, as a hop that would lead to it sees it.
#[derive(Debug, Clone, Copy)]
struct Rest {
    fee_msat: u64,
    contribution_msat: u64,
    htlc_minimum_msat: u64,
    penalty_msat: u64,
    cltv_delta: u32,
    length: u8,
}

/// A hop of a path that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// The hop.
    pub hop: Hop,
    /// What its source takes for using it, msat; 0 for the payer.
    pub hop_use_fee_msat: u64,
    /// Penalty from here to the payee, msat.
    pub path_penalty_msat: u64,
}

/// Memory of a walk, used again by the next.
#[derive(Default)]
pub(super) struct Scratch {
    heads: Vec<Head>,
    labels: Vec<Label>,
    stamp: u32,
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Nodes that hints or our channels lead to; set for one walk.
    marks: Vec<u8>,
    /// The first nodes around the payer.
    near: Vec<u32>,
}

const OWN: u8 = 1;
const HINT: u8 = 2;

/// What a walk reads.
pub(super) struct Walk<'a, 'p, S> {
    pub question: Question<'a>,
    pub snapshot: &'a Snapshot,
    pub terminals: &'a Terminals,
    pub limits: Limits,
    pub used: &'a Used,
    pub guide: Option<&'a Guide>,
    pub penalties: &'a mut Penalties<'p, S>,
    /// What this walk wants to send, msat.
    pub value_msat: u64,
    pub saturation_shift: u8,
    /// Set if a channel was left out for its `htlc_minimum_msat`, which a higher amount meets.
    pub hit_minimum: bool,
}

impl<S: Score> Walk<'_, '_, S> {
    /// Looks for the cheapest path. Its steps, ours first, go to `path`; returns how much it may
    /// bring, msat, or `None` if there is no path.
    pub fn run(&mut self, scratch: &mut Scratch, path: &mut Vec<Step>) -> Option<u64> {
        scratch.begin(self.terminals);
        for hop in &self.terminals.hints {
            scratch.marks[hop.target as usize] |= HINT;
        }
        for hop in &self.terminals.own {
            scratch.marks[hop.target as usize] |= OWN;
        }
        let found = if self.is_cut_off(scratch) { None } else { self.walk(scratch) };
        for hop in self.terminals.hints.iter().chain(&self.terminals.own) {
            scratch.marks[hop.target as usize] = 0;
        }
        found?;
        let mut node = self.terminals.payer;
        let brings = scratch.labels[node as usize].contribution_msat;
        path.clear();
        while node != self.terminals.payee && node != NOBODY {
            let label = &scratch.labels[node as usize];
            let hop = label.hop?;
            path.push(Step {
                hop,
                hop_use_fee_msat: label.hop_use_fee_msat,
                path_penalty_msat: label.path_penalty_msat,
            });
            node = hop.target;
        }
        Some(brings)
    }

    /// Whether so little is left around the payer that no path can begin there. A walk comes from
    /// the other side, and would look at everything else first.
    fn is_cut_off(&self, scratch: &mut Scratch) -> bool {
        const NODES_MAX: usize = 48;
        let left = |hop: &Hop| {
            let used_msat = self.used.get(&hop.id).copied().unwrap_or(0);
            let most_msat = hop.htlc_maximum_msat(self.saturation_shift);
            most_msat.saturating_sub(used_msat) >= self.limits.contribution_min_msat
        };
        let payer = self.terminals.payer;
        let near = &mut scratch.near;
        near.clear();
        near.push(payer);
        for hop in self.terminals.own.iter().filter(|hop| left(hop)) {
            if !near.contains(&hop.target) {
                near.push(hop.target);
            }
            if near.len() > NODES_MAX {
                return false;
            }
        }
        let ends = self.terminals.hints.iter().chain(&self.terminals.blinded);
        let ends = ends.map(|hop| hop.source).chain([self.terminals.payee]);
        let overrides_own = self.question.first_hops.is_some();
        let mut place = 0;
        while let Some(node) = near.get(place).copied() {
            place += 1;
            if ends.clone().any(|end| end == node) {
                return false;
            }
            if !self.terminals.is_public(node) || (node == payer && overrides_own) {
                continue;
            }
            for out in self.snapshot.outgoing(node) {
                if !near.contains(&out.target) && left(&self.snapshot.hop(out.edge, out.target)) {
                    near.push(out.target);
                    if near.len() > NODES_MAX {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn walk(&mut self, scratch: &mut Scratch) -> Option<()> {
        let start = Rest {
            fee_msat: 0,
            contribution_msat: self.value_msat,
            htlc_minimum_msat: 0,
            penalty_msat: 0,
            cltv_delta: 0,
            length: 0,
        };
        if self.terminals.payee == NOBODY {
            for place in 0..self.terminals.blinded.len() {
                let hop = self.terminals.blinded[place];
                self.consider(scratch, &hop, start);
            }
        } else {
            scratch.head(self.terminals.payee).done = true;
            self.expand(scratch, self.terminals.payee, start);
        }
        while let Some(Reverse((_, _, node))) = scratch.heap.pop() {
            if node == self.terminals.payer {
                return Some(());
            }
            let head = scratch.head(node);
            if head.done {
                continue;
            }
            head.done = true;
            let label = &scratch.labels[node as usize];
            let rest = Rest {
                fee_msat: label.total_fee_msat,
                contribution_msat: label.contribution_msat,
                htlc_minimum_msat: label.path_htlc_minimum_msat,
                penalty_msat: label.path_penalty_msat,
                cltv_delta: label.cltv_delta,
                length: label.length,
            };
            self.expand(scratch, node, rest);
        }
        None
    }

    /// Looks at every hop that leads to `node`.
    fn expand(&mut self, scratch: &mut Scratch, node: u32, rest: Rest) {
        let marks = scratch.marks[node as usize];
        if marks & HINT != 0 {
            for place in 0..self.terminals.hints.len() {
                let hop = self.terminals.hints[place];
                if hop.target == node {
                    self.consider(scratch, &hop, rest);
                }
            }
        }
        if marks & OWN != 0 {
            let terminals = self.terminals;
            for hop in terminals.own_to(node) {
                self.consider(scratch, hop, rest);
            }
        }
        if !self.terminals.is_public(node) {
            return;
        }
        let overrides_own = self.question.first_hops.is_some();
        let so_far = rest.fee_msat.saturating_add(rest.penalty_msat);
        let so_far = self.cost(so_far, rest.contribution_msat);
        for edge in self.snapshot.incoming(node) {
            let source = self.snapshot.edge(edge).source;
            if overrides_own && source == self.terminals.payer {
                continue;
            }
            if self.is_hopeless(scratch, edge, source, so_far) {
                continue;
            }
            let hop = self.snapshot.hop(edge, node);
            self.consider(scratch, &hop, rest);
        }
    }

    /// Whether the edge cannot be part of a better path, whatever the scorer says of it.
    /// `so_far` is the scaled cost of the rest of the path.
    fn is_hopeless(&self, scratch: &mut Scratch, edge: u32, source: u32, so_far: u64) -> bool {
        let payer = self.terminals.payer;
        let head = *scratch.head(source);
        if head.done {
            return true;
        }
        let Some(guide) = self.guide else { return false };
        if source == payer {
            return false;
        }
        let weight = guide.weight(edge);
        if weight == u64::MAX {
            return true;
        }
        let least = so_far.saturating_add(scaled(weight));
        if least >= head.cost {
            return true;
        }
        let bound = guide.bound(source);
        bound == u64::MAX || least.saturating_add(scaled(bound)) >= scratch.head(payer).cost
    }

    /// Gives `hop.source` a new label if going over `hop` is cheaper than what it knows.
    fn consider(&mut self, scratch: &mut Scratch, hop: &Hop, rest: Rest) {
        if hop.source == hop.target {
            return;
        }
        let most_msat = hop.htlc_maximum_msat(self.saturation_shift);
        let Some(available_msat) = most_msat.checked_sub(rest.fee_msat) else { return };
        let used_msat =
            if self.used.is_empty() { 0 } else { self.used.get(&hop.id).copied().unwrap_or(0) };
        let contribution_msat =
            available_msat.saturating_sub(used_msat).min(rest.contribution_msat);
        let length = rest.length + u8::from(!hop.is_blinded());
        let cltv_delta = rest.cltv_delta.saturating_add(hop.cltv_expiry_delta);
        if contribution_msat < self.limits.contribution_min_msat
            || length > self.limits.length_max
            || cltv_delta > self.limits.cltv_max
            || self.question.has_failed_before(hop.id)
        {
            return;
        }
        let amount_msat = contribution_msat + rest.fee_msat;
        let minima = [hop.htlc_minimum_msat, rest.htlc_minimum_msat];
        let missed = minima.iter().filter(|minimum| amount_msat < **minimum);
        if missed.clone().count() > 0 {
            let recommended_msat = self.limits.recommended_msat;
            self.hit_minimum |= missed.into_iter().any(|minimum| recommended_msat >= *minimum);
            return;
        }
        let head = scratch.head(hop.source);
        if head.done {
            return;
        }
        let fee = if hop.source == self.terminals.payer { Fee::NONE } else { hop.fee };
        let minimum_msat = hop.htlc_minimum_msat.max(rest.htlc_minimum_msat);
        let path_htlc_minimum_msat = fee.on_saturating(minimum_msat).saturating_add(minimum_msat);
        let hop_use_fee_msat = fee.on_saturating(amount_msat);
        let total_fee_msat = rest.fee_msat.saturating_add(hop_use_fee_msat);
        if total_fee_msat > self.limits.fee_max_msat {
            return;
        }
        let old_cost = head.cost;
        let least = total_fee_msat.max(path_htlc_minimum_msat).saturating_add(rest.penalty_msat);
        if self.cost(least, contribution_msat) >= old_cost {
            return;
        }
        let ends = [
            self.terminals.node(self.snapshot, hop.source),
            if hop.target == NOBODY {
                self.terminals.node(self.snapshot, self.terminals.payer)
            } else {
                self.terminals.node(self.snapshot, hop.target)
            },
        ];
        let usage = Usage { amount_msat, used_msat };
        let penalty_msat = self.penalties.of(self.question.payment, ends, hop, usage);
        let path_penalty_msat = rest.penalty_msat.saturating_add(penalty_msat);
        let fees_msat = total_fee_msat.max(path_htlc_minimum_msat);
        let cost = self.cost(fees_msat.saturating_add(path_penalty_msat), contribution_msat);
        if cost >= old_cost {
            return;
        }
        // Never more than the whole path will cost: what it costs now, and what we know it will.
        let key = match self.guide {
            Some(guide) if hop.source != self.terminals.payer => {
                let bound = guide.bound(hop.source);
                if bound == u64::MAX {
                    return;
                }
                let so_far = total_fee_msat.saturating_add(path_penalty_msat);
                self.cost(so_far, contribution_msat).saturating_add(scaled(bound)).max(cost)
            }
            _ => cost,
        };
        scratch.head(hop.source).cost = cost;
        scratch.labels[hop.source as usize] = Label {
            length,
            cltv_delta,
            total_fee_msat,
            path_htlc_minimum_msat,
            path_penalty_msat,
            hop_use_fee_msat,
            contribution_msat,
            hop: Some(*hop),
        };
        scratch.heap.push(Reverse((key, u32::from(length), hop.source)));
    }

    /// Scales what a path costs to the value of the walk; [`u64::MAX`] if it is beyond measure.
    fn cost(&self, msat: u64, contribution_msat: u64) -> u64 {
        if msat == u64::MAX {
            return u64::MAX;
        }
        if contribution_msat == self.value_msat {
            return scaled(msat);
        }
        let wide = (u128::from(msat) << COST_BITS) * u128::from(self.value_msat);
        // `contribution_min_msat` is never zero.
        u64::try_from(wide / u128::from(contribution_msat.max(1))).unwrap_or(u64::MAX - 1)
    }
}

fn scaled(msat: u64) -> u64 {
    if msat >> (u64::BITS - COST_BITS) == 0 { msat << COST_BITS } else { u64::MAX - 1 }
}

impl Scratch {
    fn begin(&mut self, terminals: &Terminals) {
        let nodes = terminals.node_count();
        if self.labels.len() < nodes {
            self.heads.resize(nodes, Head::default());
            self.labels.resize(nodes, Label::NEW);
            self.marks.resize(nodes, 0);
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.heads.fill(Head::default());
            self.stamp = 1;
        }
        self.heap.clear();
    }

    fn head(&mut self, node: u32) -> &mut Head {
        let stamp = self.stamp;
        let head = &mut self.heads[node as usize];
        if head.stamp != stamp {
            *head = Head { stamp, done: false, cost: u64::MAX };
        }
        head
    }
}
