//! Payments in figures: how many, how much, and how long each part of one took.
//!
//! What is only counted is counted always; times and spans are taken once the probe is armed.
//!
//! ```text
//! outbound:  asked ── recorded (durable)
//!            asked ── sent ── outcome heard ── outcome durable
//! inbound:   arrived ── (held) ── claiming ── ours ── durable
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::record::{Direction, PaymentRecord, PaymentState};
use crate::environment::UnixTime;
use crate::lightning::types::{NodeId, PaymentHash, PaymentId};
use crate::lightning::{FailureReason, payment_span};
use crate::runtime::metrics::{Counter, Histogram, Probe, Scale};
use crate::runtime::spans::{Span, SpanId, Spans, TraceId};
use crate::store::{Committer, Ticket};

/// Payments whose times are kept at once.
const TIMED_MAX: usize = 262_144;

/// Counts of payments since the start.
#[derive(Debug, Default)]
pub struct PaymentCounts {
    /// Ours that arrived.
    pub sent: Counter,
    /// What their receivers got, msat.
    pub sent_msat: Counter,
    /// What they cost, msat.
    pub fees_msat: Counter,
    /// Ours that failed, in the order of [`FailureReason::ALL`].
    pub failed: [Counter; FailureReason::ALL.len()],
    /// Others' that we took.
    pub received: Counter,
    /// What we got, msat.
    pub received_msat: Counter,
    /// Others' that we gave back.
    pub returned: Counter,
    /// Others' that we passed on, and whose fee is ours.
    pub forwarded: Counter,
    /// Of these, claimed on chain.
    pub forwarded_on_chain: Counter,
    /// What was passed on, msat.
    pub forwarded_msat: Counter,
    /// What was earned with it, msat.
    pub earned_msat: Counter,
    /// Attempts beside the first.
    pub retries: Counter,
}

/// How long payments took, by phase.
#[derive(Debug)]
pub struct PaymentTimes {
    /// Outbound, from the call until its record is durable.
    pub recorded: Histogram,
    /// Outbound, from the call until LDK has taken it: the line, and the search for a route.
    pub sent: Histogram,
    /// Outbound, from there until its outcome is heard: the network.
    pub network: Histogram,
    /// Outbound, from there until that is durable.
    pub settled: Histogram,
    /// Outbound, all of it.
    pub outbound: Histogram,
    /// Inbound, held until somebody decided.
    pub held: Histogram,
    /// Inbound, from the decision to take it until it is ours.
    pub claimed: Histogram,
    /// Inbound, from its arrival until it is durably ours, or given back.
    pub inbound: Histogram,
}

impl Default for PaymentTimes {
    fn default() -> Self {
        let calls = || Histogram::new(Scale::CALLS);
        Self {
            recorded: calls(),
            sent: calls(),
            network: calls(),
            settled: calls(),
            outbound: calls(),
            held: calls(),
            claimed: calls(),
            inbound: calls(),
        }
    }
}

/// A moment, on both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    dated: UnixTime,
}

/// What is known of a payment under way.
#[derive(Debug, Clone, Copy)]
struct Timed {
    begun: Moment,
    /// Outbound: LDK took it. Inbound: we decided to take it.
    turned: Option<Moment>,
}

struct Armed {
    times: PaymentTimes,
    spans: Spans,
    node: NodeId,
    under_way: Mutex<HashMap<PaymentId, Timed>>,
}

/// Counts payments; measures them once it is armed.
#[derive(Default)]
pub struct PaymentProbe {
    counts: PaymentCounts,
    armed: Probe<Arc<Armed>>,
}

impl PaymentProbe {
    /// Measures from now on, and tells `spans` of what they want.
    pub fn arm(&self, node: NodeId, spans: Spans) {
        let (times, under_way) = (PaymentTimes::default(), Mutex::default());
        self.armed.arm(Arc::new(Armed { times, spans, node, under_way }));
    }

    /// The counts.
    pub fn counts(&self) -> &PaymentCounts {
        &self.counts
    }

    /// The times, if it was armed.
    pub fn times(&self) -> Option<&PaymentTimes> {
        self.armed.get().map(|armed| &armed.times)
    }

    /// LDK has taken a payment of ours.
    pub(super) fn sent(&self, id: PaymentId) {
        let Some(armed) = self.armed.get() else { return };
        let now = armed.now();
        let mut under_way = armed.under_way.lock();
        if let Some(timed) = under_way.get_mut(&id).filter(|timed| timed.turned.is_none()) {
            timed.turned = Some(now);
            armed.times.sent.took(now.at.saturating_duration_since(timed.begun.at));
        }
    }

    /// A payment has a new record, durable with `ticket`.
    pub(super) fn recorded(
        &self,
        before: Option<PaymentState>,
        record: &PaymentRecord,
        ticket: Ticket,
        committer: &Committer,
    ) {
        if record.state.is_final() {
            self.counts.count(record);
        }
        if let Some(armed) = self.armed.get() {
            Arc::clone(armed).recorded(before, record, ticket, committer);
        }
    }
}

impl PaymentCounts {
    fn count(&self, record: &PaymentRecord) {
        match (record.direction, record.state) {
            (Direction::Outbound, PaymentState::Succeeded) => {
                self.sent.increment();
                self.sent_msat.add(record.amount_msat);
                self.fees_msat.add(record.fee_msat);
            }
            (Direction::Outbound, _) => {
                let reason = record.failure.unwrap_or(FailureReason::Unexpected);
                if let Some(at) = FailureReason::ALL.iter().position(|known| *known == reason) {
                    self.failed[at].increment();
                }
            }
            (Direction::Inbound, PaymentState::Succeeded) => {
                self.received.increment();
                self.received_msat.add(record.amount_msat);
            }
            (Direction::Inbound, _) => self.returned.increment(),
        }
    }

    pub(super) fn forward(&self, amount_msat: u64, fee_msat: u64, on_chain: bool) {
        self.forwarded.increment();
        self.forwarded_on_chain.add(u64::from(on_chain));
        self.forwarded_msat.add(amount_msat);
        self.earned_msat.add(fee_msat);
    }
}

impl Armed {
    fn now(&self) -> Moment {
        Moment { at: Instant::now(), dated: self.spans.now() }
    }

    fn recorded(
        self: Arc<Self>,
        before: Option<PaymentState>,
        record: &PaymentRecord,
        ticket: Ticket,
        committer: &Committer,
    ) {
        let now = self.now();
        let timed = self.follow(before, record, now);
        let Some(timed) = timed else { return };
        let is_outbound = record.direction == Direction::Outbound;
        let is_begun = is_outbound && before.is_none();
        if !is_begun && !record.state.is_final() {
            return;
        }
        let told = record.hash.and_then(|hash| Told::of(&self, record, hash, timed, now));
        let is_final = record.state.is_final();
        committer.when_durable(ticket, move || {
            let durable = self.now();
            let since = |moment: Moment| durable.at.saturating_duration_since(moment.at);
            let times = &self.times;
            match (is_outbound, is_final) {
                (true, false) => times.recorded.took(since(timed.begun)),
                (true, true) => {
                    times.settled.took(since(now));
                    times.outbound.took(since(timed.begun));
                }
                (false, _) => times.inbound.took(since(timed.begun)),
            }
            if let Some(told) = told {
                told.durable(&self.spans, durable.dated);
            }
        });
    }

    /// Keeps the book of payments under way; returns what is known of this one.
    fn follow(
        &self,
        before: Option<PaymentState>,
        record: &PaymentRecord,
        now: Moment,
    ) -> Option<Timed> {
        let id = record.id;
        let mut under_way = self.under_way.lock();
        if before.is_none() && !under_way.contains_key(&id) && under_way.len() < TIMED_MAX {
            let turned = (record.state == PaymentState::Claiming).then_some(now);
            under_way.insert(id, Timed { begun: now, turned });
        }
        let timed = under_way.get_mut(&id)?;
        if before == Some(PaymentState::Held) && record.state != PaymentState::Held {
            self.times.held.took(now.at.saturating_duration_since(timed.begun.at));
            timed.turned = Some(now);
        }
        let timed = *timed;
        if record.state.is_final() {
            under_way.remove(&id);
            if let Some(turned) = timed.turned {
                let took = now.at.saturating_duration_since(turned.at);
                match record.direction {
                    Direction::Outbound => self.times.network.took(took),
                    Direction::Inbound if record.state == PaymentState::Succeeded => {
                        self.times.claimed.took(took);
                    }
                    Direction::Inbound => {}
                }
            }
        }
        Some(timed)
    }
}

/// Spans that are told once a record is durable.
struct Told {
    trace: TraceId,
    /// Of the payment, or of what arrived.
    root: SpanId,
    spans: Vec<Span>,
    /// What became final now, and waits for the disk.
    heard: Option<UnixTime>,
    begun: UnixTime,
    name: &'static str,
    amount_msat: u64,
    fee_msat: u64,
    failure: Option<String>,
    is_first: bool,
}

impl Told {
    fn of(
        armed: &Armed,
        record: &PaymentRecord,
        hash: PaymentHash,
        timed: Timed,
        now: Moment,
    ) -> Option<Self> {
        let trace = TraceId::of_payment(&hash.0);
        if !armed.spans.wants(trace) {
            return None;
        }
        let is_outbound = record.direction == Direction::Outbound;
        let root = match is_outbound {
            true => payment_span(&armed.node, hash),
            false => SpanId::of(&[b"receive", &armed.node.serialize(), &hash.0]),
        };
        let is_final = record.state.is_final();
        let mut spans = Vec::new();
        if let Some(turned) = timed.turned.filter(|_| is_final) {
            let (word, name, times): (&[u8], _, _) = match is_outbound {
                true => (b"send", "send", (timed.begun.dated, turned.dated)),
                false => (b"claim", "claim", (turned.dated, now.dated)),
            };
            let id = SpanId::of(&[word, &root.0]);
            spans.push(Span::new((trace, id), Some(root), name, times));
        }
        Some(Self {
            trace,
            root,
            spans,
            heard: is_final.then_some(now.dated),
            begun: timed.begun.dated,
            name: if is_outbound { "payment" } else { "receive" },
            amount_msat: record.amount_msat,
            fee_msat: record.fee_msat,
            failure: (record.state == PaymentState::Failed).then(|| match record.failure {
                Some(reason) => reason.name().to_owned(),
                None => record.failure_detail.clone().unwrap_or_default(),
            }),
            is_first: !is_final,
        })
    }

    /// Tells them; the record is durable since `durable`.
    fn durable(self, spans: &Spans, durable: Duration) {
        let Self { trace, root, .. } = self;
        let (word, from): (&[u8], _) = match self.heard {
            Some(heard) => (b"outcome commit", heard),
            None => (b"record commit", self.begun),
        };
        let id = SpanId::of(&[word, &root.0]);
        spans.tell(Span::new((trace, id), Some(root), "durable commit", (from, durable)));
        for span in self.spans {
            spans.tell(span);
        }
        if self.is_first {
            return;
        }
        let mut whole = Span::new((trace, root), None, self.name, (self.begun, durable))
            .with("amount_msat", self.amount_msat)
            .with("fee_msat", self.fee_msat);
        whole.failure = self.failure;
        spans.tell(whole);
    }
}
