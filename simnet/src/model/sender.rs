//! What senders do: find routes, try again, split, give up.

use super::engine::Engine;
use super::events::PartRef;
use super::graph::{EdgeId, Graph};
use super::lanes::Lanes;
use super::payments::Stage;
use super::router::{Ask, FORBIDDEN, Knowledge};
use super::world::World;
use crate::report::{Outcome, PaymentRecord};
use crate::workload::{Intent, micros};

/// Hops that an onion has room for, with what we put into it.
const HOPS_MAX: usize = 20;
/// Blocks that a sender lets its money be locked.
const CLTV_BLOCKS_MAX: u64 = 2_016;
/// Blocks that receivers want for themselves.
pub(super) const FINAL_CLTV_BLOCKS: u64 = 42;

/// A sender's own channels: it knows their balances and which peers are there.
struct Own<'a> {
    lanes: &'a Lanes,
    world: &'a World,
}

impl Knowledge for Own<'_> {
    fn spendable_msat(&self, graph: &Graph, edge: EdgeId) -> u64 {
        let edge = graph.edge(edge);
        if self.world.is_online(edge.target) { self.lanes.spendable_msat(edge.lane) } else { 0 }
    }
}

impl Engine<'_> {
    /// A payment begins.
    pub(super) fn begin(&mut self, intent: Intent) {
        let place = self.payments.begin(intent);
        if self.world.is_online(intent.from) {
            self.send(place, intent.amount_msat, 0);
        } else {
            self.conclude(place, Outcome::SenderAway);
        }
        self.payments.end_if_over(place);
    }

    /// Sends an amount that failed `fails` times before, in one part or more.
    fn send(&mut self, place: u32, amount_msat: u64, fails: u16) {
        let spec = self.scenario.senders;
        let mut open = vec![(amount_msat, fails)];
        while let Some((amount_msat, fails)) = open.pop() {
            let payment = self.payments.payment(place);
            if payment.stage != Stage::Trying {
                return;
            }
            if payment.attempts >= spec.attempts_max {
                return self.conclude(place, Outcome::AttemptsSpent);
            }
            let late = payment.intent.at_us + micros(spec.retry_for_s);
            if payment.attempts > 0 && self.now_us > late {
                return self.conclude(place, Outcome::TimeSpent);
            }
            let halves = amount_msat / 2;
            let parts = payment.parts.len() + open.len() + 2;
            let can_split = parts <= usize::from(spec.parts_max) && halves >= spec.part_min_msat;
            let tired = fails >= spec.split_after && can_split;
            if !tired && self.find_route(place, amount_msat) {
                let payment = self.payments.payment(place);
                payment.attempts += 1;
                payment.hops_max = payment.hops_max.max(self.route.len() as u32);
                let part = self.payments.add(place, &self.route, fails, self.now_us);
                self.offer(part, 0);
            } else if can_split {
                open.push((amount_msat - halves, 0));
                open.push((halves, 0));
            } else {
                return self.conclude(place, Outcome::NoRoute);
            }
        }
    }

    /// Finds a route for an amount of a payment, into `self.route`.
    fn find_route(&mut self, place: u32, amount_msat: u64) -> bool {
        let payment = self.payments.payment(place);
        let intent = payment.intent;
        for (edge, failed_msat) in &payment.failed {
            if amount_msat >= *failed_msat {
                self.router.penalise(*edge, FORBIDDEN);
            }
        }
        if payment.parts.len() > 1 {
            // What the own parts lock is not there for another one.
            for part in &self.payments.payment(place).parts.clone() {
                for hop in self.payments.part_at(*part).hops.iter().skip(1) {
                    let most_msat = self.graph.edge(hop.edge).most_msat;
                    if hop.amount_msat.saturating_add(amount_msat) > most_msat {
                        self.router.penalise(hop.edge, FORBIDDEN);
                    }
                }
            }
        }
        let router = &mut self.router;
        self.memory.penalties(intent.from, amount_msat, self.now_us, |edge, penalty| {
            router.penalise(edge, penalty);
        });
        let ask = Ask { from: intent.from, to: intent.to, amount_msat };
        let own = Own { lanes: &self.lanes, world: &self.world };
        router.find(&self.graph, &ask, &own, &mut self.route) && self.is_acceptable(amount_msat)
    }

    /// Whether the route found is within the sender's limits.
    fn is_acceptable(&self, amount_msat: u64) -> bool {
        let spec = &self.scenario.senders;
        let fee_msat = self.route.first().map_or(0, |hop| hop.amount_msat - amount_msat);
        let share = u128::from(amount_msat) * u128::from(spec.fee_max_ppm) / 1_000_000;
        let fee_max = spec.fee_max_msat.saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
        let delta = |edge| u64::from(self.graph.edge(edge).cltv_expiry_delta);
        let blocks: u64 = self.route.iter().skip(1).map(|hop| delta(hop.edge)).sum();
        fee_msat <= fee_max
            && self.route.len() <= HOPS_MAX
            && blocks + FINAL_CLTV_BLOCKS <= CLTV_BLOCKS_MAX
    }

    /// The sender sees that a part failed.
    pub(super) fn attempt_failed(&mut self, part: PartRef) {
        let Some(found) = self.payments.part(part) else { return };
        let (place, amount_msat, fails) = (found.payment, found.amount_msat, found.fails);
        let blame = found.blame;
        if let Some(blame) = blame {
            // Edges before the one to blame carried their amounts.
            let carried = found.hops.iter().take_while(|hop| hop.edge != blame.edge);
            let carried: Vec<_> = carried.copied().collect();
            let from = self.payments.payment(place).intent.from;
            for hop in carried {
                self.memory.passed(from, hop.edge, hop.amount_msat);
            }
            self.memory.failed(from, blame.edge, blame.amount_msat, self.now_us);
            self.payments.payment(place).failed.push((blame.edge, amount_msat));
        }
        self.payments.end_part(part);
        if self.payments.payment(place).stage == Stage::Trying {
            if self.world.is_online(self.payments.payment(place).intent.from) {
                self.send(place, amount_msat, fails + 1);
            } else {
                self.conclude(place, Outcome::SenderAway);
            }
        }
        self.payments.end_if_over(place);
    }

    /// The sender sees that a part arrived.
    pub(super) fn part_succeeded(&mut self, part: PartRef) {
        let Some(found) = self.payments.part(part) else { return };
        let place = found.payment;
        let hops = std::mem::take(&mut found.hops);
        let from = self.payments.payment(place).intent.from;
        for hop in &hops {
            self.memory.passed(from, hop.edge, hop.amount_msat);
        }
        if let Some(found) = self.payments.part(part) {
            found.hops = hops;
        }
        // The first preimage decides: the others cannot be kept back.
        if self.payments.payment(place).stage == Stage::Settling {
            self.conclude(place, Outcome::Succeeded);
        }
        self.payments.end_part(part);
        self.payments.end_if_over(place);
    }

    /// Records the outcome of a payment.
    pub(super) fn conclude(&mut self, place: u32, outcome: Outcome) {
        let payment = self.payments.payment(place);
        payment.stage = Stage::Done;
        let succeeded = outcome == Outcome::Succeeded;
        let record = PaymentRecord {
            at_us: payment.intent.at_us,
            from: payment.intent.from,
            to: payment.intent.to,
            amount_msat: payment.intent.amount_msat,
            outcome,
            latency_us: self.now_us - payment.intent.at_us,
            fee_msat: if succeeded { payment.fee_msat } else { 0 },
            attempts: payment.attempts.into(),
            parts: if succeeded { payment.arrived } else { 0 },
            hops: payment.hops_max,
        };
        self.recorder.payment(record);
    }
}
