//! Payments under way and their parts; places are used again.

use super::events::PartRef;
use super::graph::EdgeId;
use super::router::Hop;
use crate::workload::Intent;

/// How far a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The sender tries.
    Trying,
    /// Everything has arrived.
    Settling,
    /// Its outcome is recorded; parts may be left over.
    Done,
}

/// A payment under way.
#[derive(Debug, Clone)]
pub(super) struct Payment {
    pub intent: Intent,
    pub stage: Stage,
    pub generation: u32,
    pub attempts: u16,
    pub arrived_msat: u64,
    pub fee_msat: u64,
    pub hops_max: u32,
    /// Parts that are not over.
    pub parts: Vec<u32>,
    /// Parts that arrived.
    pub arrived: u32,
    /// Edges that failed, and for what amount.
    pub failed: Vec<(EdgeId, u64)>,
}

/// Why and where a part failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blame {
    pub edge: EdgeId,
    pub amount_msat: u64,
}

/// An HTLC chain under way.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub payment: u32,
    pub generation: u32,
    pub amount_msat: u64,
    pub hops: Vec<Hop>,
    pub started_us: u64,
    /// How often this amount failed before.
    pub fails: u16,
    /// Whether the receiver holds it.
    pub held: bool,
    /// The hop whose HTLC waits for a node that is away.
    pub stuck: Option<u8>,
    pub blame: Option<Blame>,
}

impl Part {
    pub fn fee_msat(&self) -> u64 {
        self.hops.first().map_or(0, |hop| hop.amount_msat - self.amount_msat)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Payments {
    payments: Vec<Payment>,
    free_payments: Vec<u32>,
    parts: Vec<Part>,
    free_parts: Vec<u32>,
    active: usize,
}

impl Payments {
    pub fn begin(&mut self, intent: Intent) -> u32 {
        self.active += 1;
        if let Some(place) = self.free_payments.pop() {
            let payment = &mut self.payments[place as usize];
            let (mut parts, mut failed) =
                (std::mem::take(&mut payment.parts), std::mem::take(&mut payment.failed));
            parts.clear();
            failed.clear();
            *payment = Payment { parts, failed, ..fresh(intent, payment.generation + 1) };
            return place;
        }
        self.payments.push(fresh(intent, 0));
        (self.payments.len() - 1) as u32
    }

    pub fn payment(&mut self, place: u32) -> &mut Payment {
        &mut self.payments[place as usize]
    }

    pub fn part(&mut self, part: PartRef) -> Option<&mut Part> {
        self.parts.get_mut(part.place as usize).filter(|found| found.generation == part.generation)
    }

    pub fn part_at(&self, place: u32) -> &Part {
        &self.parts[place as usize]
    }

    /// Adds a part that takes `route`.
    pub fn add(&mut self, payment: u32, route: &[Hop], fails: u16, now_us: u64) -> PartRef {
        let amount_msat = route.last().map_or(0, |hop| hop.amount_msat);
        let place = self.free_parts.pop().unwrap_or_else(|| {
            self.parts.push(Part {
                payment,
                generation: 0,
                amount_msat,
                hops: Vec::new(),
                started_us: now_us,
                fails,
                held: false,
                stuck: None,
                blame: None,
            });
            (self.parts.len() - 1) as u32
        });
        let part = &mut self.parts[place as usize];
        let mut hops = std::mem::take(&mut part.hops);
        hops.clear();
        hops.extend_from_slice(route);
        *part = Part {
            payment,
            generation: part.generation,
            amount_msat,
            hops,
            started_us: now_us,
            fails,
            held: false,
            stuck: None,
            blame: None,
        };
        let generation = part.generation;
        self.payments[payment as usize].parts.push(place);
        PartRef { place, generation }
    }

    /// A part is over.
    pub fn end_part(&mut self, part: PartRef) {
        let found = &mut self.parts[part.place as usize];
        found.generation += 1;
        let payment = &mut self.payments[found.payment as usize];
        payment.parts.retain(|place| *place != part.place);
        self.free_parts.push(part.place);
    }

    /// Lets go of a payment that is done and has no parts left.
    pub fn end_if_over(&mut self, place: u32) {
        let payment = &self.payments[place as usize];
        if payment.stage == Stage::Done && payment.parts.is_empty() {
            self.free_payments.push(place);
            self.active -= 1;
            // Nothing refers to this generation any more.
            self.payments[place as usize].generation += 1;
        }
    }

    /// Payments under way, or with parts left over.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Payments without an outcome.
    pub fn undecided(&self) -> impl Iterator<Item = &Payment> {
        let mut free = vec![false; self.payments.len()];
        for place in &self.free_payments {
            free[*place as usize] = true;
        }
        let over = move |place: &usize| free[*place];
        self.payments
            .iter()
            .enumerate()
            .filter(move |(place, payment)| !over(place) && payment.stage != Stage::Done)
            .map(|(_, payment)| payment)
    }
}

fn fresh(intent: Intent, generation: u32) -> Payment {
    Payment {
        intent,
        stage: Stage::Trying,
        generation,
        attempts: 0,
        arrived_msat: 0,
        fee_msat: 0,
        hops_max: 0,
        parts: Vec::new(),
        arrived: 0,
        failed: Vec::new(),
    }
}
