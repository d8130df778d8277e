//! What happens to HTLCs, hop by hop.
//!
//! An HTLC is offered when its commitment leaves (`Lanes::commit_us`), and the next node may
//! forward it once it is irrevocably committed: `commitment_signed`, then `revoke_and_ack` and
//! `commitment_signed` back, then `revoke_and_ack`, one and a half round trips (BOLT 2). A
//! preimage is passed on as soon as it is seen, one flight per hop; a failure only once the
//! HTLC is irrevocably removed, one and a half round trips again.

use channel_contracts::tree::cost::{CLAIM_VB, COMMITMENT_VB};

use super::engine::Engine;
use super::events::{Event, PartRef};
use super::graph::Lane;
use super::lanes::Refused;
use super::payments::{Blame, Stage};
use super::sender::FINAL_CLTV_BLOCKS;
use crate::report::Outcome;

/// Receivers give up on a payment whose parts do not come. BOLT 4: at least 60 s.
const PARTS_TIMEOUT_US: u64 = 60_000_000;
/// Flights of a message until what it says is irrevocable on both sides.
const FLIGHTS: u64 = 3;
/// An HTLC's timeout on chain, in vB. BOLT 3: 666 weight with anchors.
const HTLC_TIMEOUT_VB: u64 = 167;

impl Engine<'_> {
    /// The node at the start of a hop offers the HTLC to its peer.
    pub(super) fn offer(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        let at = found.hops[usize::from(hop)];
        let edge = *self.graph.edge(at.edge);
        let totals = &mut self.recorder.totals;
        let refused = if self.lanes.is_closed(edge.lane) {
            totals.failed_closed += 1;
            true
        } else if !self.world.is_online(edge.target) {
            totals.failed_away += 1;
            true
        } else {
            match self.lanes.lock(edge.lane, at.amount_msat) {
                Ok(()) => false,
                Err(Refused::Balance) => {
                    totals.failed_balance += 1;
                    true
                }
                Err(Refused::Slots) => {
                    totals.failed_slots += 1;
                    true
                }
                Err(Refused::Closed) => true,
            }
        };
        if !refused {
            let commit_us = self.lanes.commit_us(edge.lane, self.now_us);
            let known_us = commit_us + FLIGHTS * self.lanes.latency_us(edge.lane);
            self.queue.push(known_us + self.processing_us, Event::Locked { part, hop });
            return;
        }
        found.blame = Some(Blame { edge: at.edge, amount_msat: at.amount_msat });
        match hop.checked_sub(1) {
            Some(before) => self.fail_back(part, before),
            None => self.attempt_failed(part),
        }
    }

    /// An HTLC is irrevocably committed at the end of its hop.
    pub(super) fn locked(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        let is_last = usize::from(hop) + 1 == found.hops.len();
        let node = self.graph.edge(found.hops[usize::from(hop)].edge).target;
        if !self.world.is_online(node) {
            return self.wait_for(node, part, hop, Event::Locked { part, hop });
        }
        if is_last { self.receive(part) } else { self.offer(part, hop + 1) }
    }

    fn receive(&mut self, part: PartRef) {
        let Some(found) = self.payments.part(part) else { return };
        found.held = true;
        let (place, amount_msat, fee_msat) = (found.payment, found.amount_msat, found.fee_msat());
        let payment = self.payments.payment(place);
        payment.arrived_msat += amount_msat;
        payment.fee_msat += fee_msat;
        payment.arrived += 1;
        if payment.arrived_msat == payment.intent.amount_msat && payment.stage == Stage::Trying {
            payment.stage = Stage::Settling;
            let (hold_us, generation) = (payment.intent.hold_us, payment.generation);
            let settle = Event::Settle { payment: place, generation };
            self.queue.push(self.now_us + hold_us, settle);
        } else {
            self.queue.push(self.now_us + PARTS_TIMEOUT_US, Event::Impatient { part });
        }
    }

    /// The receiver takes all parts of a payment.
    pub(super) fn settle(&mut self, place: u32, generation: u32) {
        let payment = self.payments.payment(place);
        if payment.generation != generation || payment.stage != Stage::Settling {
            return;
        }
        let to = payment.intent.to;
        if !self.world.is_online(to) {
            return self.world.wait(to, Event::Settle { payment: place, generation });
        }
        for place in self.payments.payment(place).parts.clone() {
            let found = self.payments.part_at(place);
            let part = PartRef { place, generation: found.generation };
            let last = found.hops.len() - 1;
            if found.held {
                self.fulfil(part, last as u8);
            }
        }
    }

    /// The node at the end of a hop shows the preimage.
    fn fulfil(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        let at = found.hops[usize::from(hop)];
        let lane = self.graph.edge(at.edge).lane;
        let latency_us = self.lanes.latency_us(lane);
        let seen_us = self.now_us + latency_us + self.processing_us;
        self.queue.push(seen_us, Event::Fulfilled { part, hop });
        let removed_us = self.lanes.commit_us(lane ^ 1, self.now_us) + FLIGHTS * latency_us;
        self.queue.push(removed_us, Event::Removed { lane, amount_msat: at.amount_msat });
    }

    /// The preimage reaches the start of a hop.
    pub(super) fn fulfilled(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        let node = self.graph.source(found.hops[usize::from(hop)].edge);
        if !self.world.is_online(node) {
            return self.wait_before(node, part, hop, Event::Fulfilled { part, hop });
        }
        match hop.checked_sub(1) {
            Some(before) => self.fulfil(part, before),
            None => self.part_succeeded(part),
        }
    }

    /// The node at the end of a hop fails the HTLC.
    fn fail_back(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        let lane = self.graph.edge(found.hops[usize::from(hop)].edge).lane;
        let commit_us = self.lanes.commit_us(lane ^ 1, self.now_us);
        let removed_us = commit_us + FLIGHTS * self.lanes.latency_us(lane) + self.processing_us;
        self.queue.push(removed_us, Event::Failed { part, hop });
    }

    /// A failed HTLC is irrevocably removed at the start of its hop.
    pub(super) fn failed(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        let at = found.hops[usize::from(hop)];
        let node = self.graph.source(at.edge);
        if !self.world.is_online(node) {
            return self.wait_before(node, part, hop, Event::Failed { part, hop });
        }
        self.lanes.unlock(self.graph.edge(at.edge).lane, at.amount_msat, false);
        match hop.checked_sub(1) {
            Some(before) => self.fail_back(part, before),
            None => self.attempt_failed(part),
        }
    }

    /// The receiver has waited long enough for the other parts.
    pub(super) fn impatient(&mut self, part: PartRef) {
        let Some(found) = self.payments.part(part) else { return };
        let (place, last) = (found.payment, found.hops.len() - 1);
        let amount_msat = found.amount_msat;
        let fee_msat = found.fee_msat();
        let payment = self.payments.payment(place);
        // Done by success means that all parts were fulfilled.
        let is_fulfilled =
            payment.stage == Stage::Settling || payment.arrived_msat == payment.intent.amount_msat;
        if !is_fulfilled {
            payment.arrived_msat -= amount_msat;
            payment.fee_msat -= fee_msat;
            payment.arrived -= 1;
            self.fail_back(part, last as u8);
        }
    }

    /// An event waits for the node at the end of `hop`: the HTLC of that hop may expire.
    fn wait_for(&mut self, node: u32, part: PartRef, hop: u8, event: Event) {
        self.world.wait(node, event);
        let block_us = self.block_us;
        let graph = &self.graph;
        let Some(found) = self.payments.part(part) else { return };
        found.stuck = Some(hop);
        let after = found.hops.iter().skip(usize::from(hop) + 1);
        let delta = |edge| u64::from(graph.edge(edge).cltv_expiry_delta);
        let blocks = FINAL_CLTV_BLOCKS + after.map(|hop| delta(hop.edge)).sum::<u64>();
        let expiry_us = (found.started_us + blocks * block_us).max(self.now_us);
        self.queue.push(expiry_us, Event::Expiry { part, hop });
    }

    /// An event waits for the node at the start of `hop`: the HTLC before it may expire.
    fn wait_before(&mut self, node: u32, part: PartRef, hop: u8, event: Event) {
        match hop.checked_sub(1) {
            Some(before) => self.wait_for(node, part, before, event),
            None => self.world.wait(node, event),
        }
    }

    /// A node came back and looks at what waited for it: it may have expired meanwhile.
    pub(super) fn resume(&mut self, event: Event) {
        let waiting = match event {
            Event::Locked { part, hop } => Some((part, Some(hop))),
            Event::Fulfilled { part, hop } | Event::Failed { part, hop } => {
                Some((part, hop.checked_sub(1)))
            }
            _ => None,
        };
        if let Some((part, stuck)) = waiting {
            match self.payments.part(part) {
                Some(found) if found.stuck == stuck => found.stuck = None,
                _ => return,
            }
        }
        self.queue.push(self.now_us, event);
    }

    /// An HTLC reaches its expiry while the node at its end is away: its start closes the
    /// channel and takes the amount back on chain.
    pub(super) fn expiry(&mut self, part: PartRef, hop: u8) {
        let Some(found) = self.payments.part(part) else { return };
        if found.stuck != Some(hop) {
            return;
        }
        found.stuck = None;
        let at = found.hops[usize::from(hop)];
        let after = found.hops.get(usize::from(hop) + 1).copied();
        let place = found.payment;
        found.blame = Some(Blame { edge: at.edge, amount_msat: at.amount_msat });
        let lane = self.graph.edge(at.edge).lane;
        self.recorder.totals.expired += 1;
        self.lanes.unlock(lane, at.amount_msat, false);
        self.close(lane);
        self.exits.on_chain(COMMITMENT_VB + HTLC_TIMEOUT_VB + CLAIM_VB, self.feerate());
        // A failure that the absent node never saw is final on its other side too.
        let was_fulfilled = self.payments.payment(place).stage != Stage::Trying;
        if let Some(after) = after
            && !was_fulfilled
            && self.world.drop_failed(part, hop + 1)
        {
            self.lanes.unlock(self.graph.edge(after.edge).lane, after.amount_msat, false);
        }
        if was_fulfilled && self.payments.payment(place).stage == Stage::Settling {
            // The sender has its money back although the receiver was paid: the absent one lost.
            self.conclude(place, Outcome::TimeSpent);
        }
        match hop.checked_sub(1) {
            Some(before) => self.fail_back(part, before),
            None => self.attempt_failed(part),
        }
    }

    /// Closes a channel for payments.
    pub(super) fn close(&mut self, lane: Lane) {
        self.lanes.close(lane);
        for lane in [lane, lane ^ 1] {
            if let Some(edge) = self.graph.edge_of(lane) {
                self.graph.close(lane);
                self.router.close(&self.graph, edge);
            }
        }
    }
}
