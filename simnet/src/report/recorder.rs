//! What a run leaves: records of payments, and samples of the network. Both engines fill one.

use serde::{Deserialize, Serialize};

use crate::topology::Node;

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It arrived.
    Succeeded,
    /// The sender knew of no way, or of none cheap enough.
    NoRoute,
    /// All attempts failed.
    AttemptsSpent,
    /// The time for attempts was over.
    TimeSpent,
    /// The sender was away.
    SenderAway,
    /// The run ended first.
    Unfinished,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Succeeded,
        Self::NoRoute,
        Self::AttemptsSpent,
        Self::TimeSpent,
        Self::SenderAway,
        Self::Unfinished,
    ];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::NoRoute => "no_route",
            Self::AttemptsSpent => "attempts_spent",
            Self::TimeSpent => "time_spent",
            Self::SenderAway => "sender_away",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A payment, after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaymentRecord {
    /// When it began, in microseconds from the start.
    pub at_us: u64,
    /// Who paid.
    pub from: Node,
    /// Who was paid.
    pub to: Node,
    /// How much.
    pub amount_msat: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// From its beginning to its outcome.
    pub latency_us: u64,
    /// What routing nodes took, msat.
    pub fee_msat: u64,
    /// HTLCs sent.
    pub attempts: u32,
    /// Parts it arrived in.
    pub parts: u32,
    /// Hops of its longest part.
    pub hops: u32,
}

impl PaymentRecord {
    /// Whether it arrived.
    pub fn succeeded(&self) -> bool {
        self.outcome == Outcome::Succeeded
    }
}

/// The network at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// When, in microseconds from the start.
    pub at_us: u64,
    /// Payments under way.
    pub payments_active: u64,
    /// HTLCs in channels.
    pub htlcs: u64,
    /// What they lock, msat.
    pub htlc_msat: u64,
    /// How far channels are from balanced, on average: 0 is even, 1 is all on one side.
    pub imbalance: f64,
    /// What hubs have in batches, old and new together, sat.
    pub capital_locked_sat: u64,
    /// Bytes on chain since the start, vB.
    pub chain_vb: u64,
    /// What they paid since the start, sat.
    pub chain_fee_sat: u64,
    /// What a transaction pays, thousandths of sat/vB.
    pub feerate_msat_per_vb: u64,
    /// Nodes that are there.
    pub nodes_online: u64,
    /// Exits that wait for blocks.
    pub exits_waiting: u64,
}

/// What is counted once for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Events handled; 0 where the engine has none.
    pub events: u64,
    /// HTLCs that failed for want of balance.
    pub failed_balance: u64,
    /// HTLCs that failed for want of a slot.
    pub failed_slots: u64,
    /// HTLCs that failed because a node was away.
    pub failed_away: u64,
    /// HTLCs that failed because a channel was closed.
    pub failed_closed: u64,
    /// HTLCs that expired, each closing its channel.
    pub expired: u64,
    /// Batches opened.
    pub batches_opened: u64,
    /// Batches settled.
    pub batches_settled: u64,
    /// Users that moved to the next batch.
    pub rolled_over: u64,
    /// Exits that reached the chain.
    pub exits_done: u64,
    /// Users who wanted to leave, but whose exit costs more than they had.
    pub exits_not_worth: u64,
    /// Exits that were too late.
    pub exits_late: u64,
    /// What users lost so, sat.
    pub lost_sat: u64,
    /// Old states published.
    pub cheats: u64,
    /// Old states published and punished.
    pub cheats_punished: u64,
}

/// Everything of a run that a report needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recorder {
    /// By the time of their outcome.
    pub payments: Vec<PaymentRecord>,
    /// By time.
    pub samples: Vec<Sample>,
    /// Counts.
    pub totals: Totals,
    /// Nodes of the network.
    pub nodes: u64,
    /// Channels of the network.
    pub channels: u64,
    /// When the last event was, in microseconds from the start.
    pub end_us: u64,
    /// Whether the run was broken off.
    pub partial: bool,
}

impl Recorder {
    /// Adds a payment.
    pub fn payment(&mut self, record: PaymentRecord) {
        self.payments.push(record);
    }

    /// Adds a sample.
    pub fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }
}
