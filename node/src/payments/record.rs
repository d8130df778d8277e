//! The stored state of one payment.

use serde::{Deserialize, Serialize};

use crate::journal::{PaymentEvent, PaymentRequestKind, millis};
use crate::lightning::FailureReason;
use crate::lightning::types::{NodeId, PaymentHash, PaymentId, Preimage};

/// Which way a payment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// We pay.
    Outbound,
    /// We are paid.
    Inbound,
}

/// What a payment was asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentKind {
    /// A BOLT 11 invoice.
    Bolt11,
    /// A BOLT 12 offer.
    Bolt12,
    /// Nothing.
    Keysend,
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Outbound: parts of it may be on their way.
    InFlight,
    /// Inbound: it waits for our word.
    Held,
    /// Inbound: we are taking it.
    Claiming,
    /// It arrived.
    Succeeded,
    /// It did not and cannot any more.
    Failed,
}

impl PaymentState {
    /// Whether nothing can change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A payment as stored. The request text is kept while it may be needed to try again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRecord {
    /// Its id.
    pub id: PaymentId,
    /// Which way.
    pub direction: Direction,
    /// Asked for with what.
    pub kind: PaymentKind,
    /// Where it stands.
    pub state: PaymentState,
    /// Its hash, once known.
    pub hash: Option<PaymentHash>,
    /// The proof of payment, once known.
    pub preimage: Option<Preimage>,
    /// The receiver, where known.
    pub payee: Option<NodeId>,
    /// What the receiver gets, msat.
    pub amount_msat: u64,
    /// What it cost beyond that, msat; 0 until it succeeded.
    pub fee_msat: u64,
    /// In how many parts it arrived; 0 until it succeeded, and where that is not known.
    #[serde(default)]
    pub parts: u32,
    /// The most it may cost, msat.
    pub max_fee_msat: u64,
    /// The most parts it may be split into.
    pub max_parts: u8,
    /// How long failed parts are retried, in seconds.
    pub retry_seconds: u64,
    /// Why it failed.
    pub failure: Option<FailureReason>,
    /// Why we gave it back, in words.
    pub failure_detail: Option<String>,
    /// What it was for.
    pub description: Option<String>,
    /// What was asked to be paid.
    pub request: Option<PaymentRequestKind>,
    /// Inbound: the height by which it must be claimed.
    pub claim_deadline: Option<u32>,
    /// When it was first recorded, ms since the Unix epoch.
    pub created_ms: u64,
    /// When it last changed, ms since the Unix epoch.
    pub updated_ms: u64,
}

impl PaymentRecord {
    fn new(id: PaymentId, direction: Direction, kind: PaymentKind, now_ms: u64) -> Self {
        Self {
            id,
            direction,
            kind,
            state: PaymentState::InFlight,
            hash: None,
            preimage: None,
            payee: None,
            amount_msat: 0,
            fee_msat: 0,
            parts: 0,
            max_fee_msat: 0,
            max_parts: 0,
            retry_seconds: 0,
            failure: None,
            failure_detail: None,
            description: None,
            request: None,
            claim_deadline: None,
            created_ms: now_ms,
            updated_ms: now_ms,
        }
    }

    /// What an outbound payment cost in the end, msat; `None` while that is open.
    pub(super) fn outbound_cost_msat(&self) -> Option<u64> {
        match (self.direction, self.state) {
            (Direction::Outbound, PaymentState::Succeeded) => {
                Some(self.amount_msat.saturating_add(self.fee_msat))
            }
            (Direction::Outbound, PaymentState::Failed) => Some(0),
            _ => None,
        }
    }

    /// The record after `event`, given the record before. Cannot fail: the event happened.
    ///
    /// Returns `None` for an event that is about no single payment.
    pub fn apply(
        before: Option<Self>,
        event: &PaymentEvent,
        now: std::time::Duration,
    ) -> Option<Self> {
        let now_ms = millis(now);
        let mut record = match (before, event) {
            (_, PaymentEvent::Forwarded { .. }) => return None,
            (Some(record), _) => record,
            (None, PaymentEvent::Initiated { id, request, .. }) => {
                let kind = match request {
                    PaymentRequestKind::Bolt11 { .. } => PaymentKind::Bolt11,
                    PaymentRequestKind::Bolt12 { .. } => PaymentKind::Bolt12,
                    PaymentRequestKind::Keysend { .. } => PaymentKind::Keysend,
                };
                Self::new(*id, Direction::Outbound, kind, now_ms)
            }
            (None, PaymentEvent::Claiming { id, keysend: true, .. }) => {
                Self::new(*id, Direction::Inbound, PaymentKind::Keysend, now_ms)
            }
            (
                None,
                PaymentEvent::Held { id, .. }
                | PaymentEvent::Claiming { id, .. }
                | PaymentEvent::Received { id, .. }
                | PaymentEvent::Returned { id, .. },
            ) => Self::new(*id, Direction::Inbound, PaymentKind::Bolt11, now_ms),
            // The outcome of a payment from before this journal began.
            (None, PaymentEvent::Succeeded { id, .. } | PaymentEvent::Failed { id, .. }) => {
                Self::new(*id, Direction::Outbound, PaymentKind::Bolt11, now_ms)
            }
        };
        record.updated_ms = now_ms;
        match event {
            PaymentEvent::Initiated {
                id: _,
                request,
                hash,
                preimage,
                payee,
                amount_msat,
                max_fee_msat,
                max_parts,
                retry_seconds,
                description,
            } => {
                record.state = PaymentState::InFlight;
                record.request = Some(request.clone());
                record.hash = *hash;
                record.preimage = *preimage;
                record.payee = *payee;
                record.amount_msat = *amount_msat;
                record.max_fee_msat = *max_fee_msat;
                record.max_parts = *max_parts;
                record.retry_seconds = *retry_seconds;
                record.description.clone_from(description);
            }
            PaymentEvent::Succeeded { preimage, amount_msat, fee_msat, parts, .. } => {
                record.parts = *parts;
                record.state = PaymentState::Succeeded;
                record.preimage = Some(*preimage);
                record.hash = Some(preimage.hash());
                record.amount_msat = *amount_msat;
                record.fee_msat = *fee_msat;
            }
            PaymentEvent::Failed { reason, .. } => {
                record.state = PaymentState::Failed;
                record.failure = Some(*reason);
            }
            PaymentEvent::Held { hash, amount_msat, claim_deadline, .. } => {
                record.state = PaymentState::Held;
                record.hash = Some(*hash);
                record.amount_msat = *amount_msat;
                record.claim_deadline = *claim_deadline;
            }
            PaymentEvent::Claiming { hash, preimage, amount_msat, .. } => {
                record.state = PaymentState::Claiming;
                record.hash = Some(*hash);
                record.preimage = Some(*preimage);
                record.amount_msat = *amount_msat;
            }
            PaymentEvent::Received { hash, amount_msat, parts, .. } => {
                record.parts = *parts;
                record.state = PaymentState::Succeeded;
                record.hash = Some(*hash);
                record.amount_msat = *amount_msat;
            }
            PaymentEvent::Returned { hash, amount_msat, why, .. } => {
                record.state = PaymentState::Failed;
                record.hash = Some(*hash);
                record.amount_msat = *amount_msat;
                record.failure_detail = Some(why.clone());
            }
            PaymentEvent::Forwarded { .. } => {}
        }
        Some(record)
    }
}
