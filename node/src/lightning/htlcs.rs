//! The life of each HTLC, for figures and spans: offered or received, forwarded, settled or failed.
//!
//! Read from the messages themselves, where they come in (`messages.rs`) and where they are taken
//! from LDK (`gate.rs`): no event of LDK's says when a forward came and when it left. Nothing is
//! decided here, and nothing is noted until it is armed.
//!
//! The two ends of a channel know hash, channel and number of an HTLC. From these both derive one
//! span's id: what one node offers is the parent of what the other received.

use std::collections::HashMap;
use std::time::Duration;

use lightning::ln::msgs::{MessageSendEvent, UpdateAddHTLC};
use lightning::ln::types::ChannelId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::{NodeId, PaymentHash};
use crate::environment::UnixTime;
use crate::runtime::metrics::{Counter, Histogram, Probe, Scale};
use crate::runtime::spans::{Span, SpanId, SpanKind, Spans, TraceId};

/// HTLCs noted at once; a node has few thousands in flight. Those of a channel that goes on chain
/// leave with it.
const NOTED_MAX: usize = 262_144;

/// Which way an HTLC goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Offered,
    Received,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fulfilled,
    Failed,
}

/// Figures of HTLCs.
#[derive(Debug)]
pub struct HtlcFigures {
    /// Offered by us, from the message to its answer: `update_fulfill_htlc`.
    pub offered_fulfilled: Histogram,
    /// Likewise, failed.
    pub offered_failed: Histogram,
    /// Received by us, from the message to our answer.
    pub received_fulfilled: Histogram,
    /// Likewise, failed.
    pub received_failed: Histogram,
    /// From the message that brings an HTLC to the one that takes it on.
    pub forwarded: Histogram,
    /// HTLCs that were not noted, since too many were.
    pub unnoted: Counter,
}

impl Default for HtlcFigures {
    fn default() -> Self {
        let calls = || Histogram::new(Scale::CALLS);
        Self {
            offered_fulfilled: calls(),
            offered_failed: calls(),
            received_fulfilled: calls(),
            received_failed: calls(),
            forwarded: calls(),
            unnoted: Counter::default(),
        }
    }
}

/// The span of the payment with `hash` that `payer` makes.
pub fn payment_span(payer: &NodeId, hash: PaymentHash) -> SpanId {
    SpanId::of(&[b"payment", &payer.serialize(), &hash.0])
}

fn htlc_span(hash: PaymentHash, key: &Key) -> SpanId {
    let way: &[u8] = match key.way {
        Way::Offered => b"htlc offered",
        Way::Received => b"htlc received",
    };
    SpanId::of(&[way, &hash.0, &key.channel.0, &key.number.to_be_bytes()])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    channel: ChannelId,
    number: u64,
    way: Way,
}

struct Noted {
    hash: PaymentHash,
    amount_msat: u64,
    begun: Instant,
    begun_at: UnixTime,
    parent: SpanId,
}

struct Armed {
    figures: HtlcFigures,
    spans: Spans,
    node: NodeId,
    noted: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    open: HashMap<Key, Noted>,
    /// Received and not passed on yet, by hash: mostly one.
    arrived: HashMap<PaymentHash, Vec<Key>>,
}

/// Follows HTLCs once it is armed.
#[derive(Default)]
pub struct HtlcProbe(Probe<Armed>);

impl HtlcProbe {
    /// Follows from now on, and tells `spans` of what belongs to payments they want.
    pub fn arm(&self, node: NodeId, spans: Spans) {
        let (figures, noted) = (HtlcFigures::default(), Mutex::default());
        self.0.arm(Armed { figures, spans, node, noted });
    }

    /// The figures, if it was armed.
    pub fn figures(&self) -> Option<&HtlcFigures> {
        self.0.get().map(|armed| &armed.figures)
    }

    /// HTLCs noted now, and the age of the oldest.
    pub fn noted(&self) -> Option<(usize, Duration)> {
        let book = self.0.get()?.noted.lock();
        let oldest = book.open.values().map(|noted| noted.begun.elapsed()).max();
        Some((book.open.len(), oldest.unwrap_or_default()))
    }

    /// A peer offers an HTLC.
    pub(super) fn received(&self, message: &UpdateAddHTLC) {
        let Some(armed) = self.0.get() else { return };
        let key = Key { channel: message.channel_id, number: message.htlc_id, way: Way::Received };
        let hash = message.payment_hash.into();
        // Whoever offered it derives this id too.
        let parent = htlc_span(hash, &Key { way: Way::Offered, ..key });
        let mut book = armed.noted.lock();
        if armed.note(&mut book, key, hash, message.amount_msat, parent) {
            book.arrived.entry(hash).or_default().push(key);
        }
    }

    /// A peer settles or fails an HTLC of ours.
    pub(super) fn answered(&self, channel: ChannelId, number: u64, end: End) {
        if let Some(armed) = self.0.get() {
            armed.end(&mut armed.noted.lock(), Key { channel, number, way: Way::Offered }, end);
        }
    }

    /// LDK gives out messages.
    pub(super) fn leaving(&self, messages: &[MessageSendEvent]) {
        let Some(armed) = self.0.get() else { return };
        let mut book = armed.noted.lock();
        for message in messages {
            let MessageSendEvent::UpdateHTLCs { channel_id: channel, updates, .. } = message else {
                continue;
            };
            let received = |number| Key { channel: *channel, number, way: Way::Received };
            for fulfill in &updates.update_fulfill_htlcs {
                armed.end(&mut book, received(fulfill.htlc_id), End::Fulfilled);
            }
            let failed = updates.update_fail_htlcs.iter().map(|fail| fail.htlc_id);
            let malformed = updates.update_fail_malformed_htlcs.iter().map(|fail| fail.htlc_id);
            for number in failed.chain(malformed) {
                armed.end(&mut book, received(number), End::Failed);
            }
            for add in &updates.update_add_htlcs {
                armed.offer(&mut book, *channel, add);
            }
        }
    }

    /// A channel is over: what it carried is settled on chain.
    pub(super) fn closed(&self, channel: ChannelId) {
        let Some(armed) = self.0.get() else { return };
        let mut book = armed.noted.lock();
        book.open.retain(|key, _| key.channel != channel);
        book.arrived.retain(|_, keys| {
            keys.retain(|key| key.channel != channel);
            !keys.is_empty()
        });
    }
}

impl Armed {
    fn offer(&self, book: &mut Book, channel: ChannelId, add: &UpdateAddHTLC) {
        let key = Key { channel, number: add.htlc_id, way: Way::Offered };
        // LDK says it again after a reconnection.
        if book.open.contains_key(&key) {
            return;
        }
        let hash = add.payment_hash.into();
        let came = book.take_arrived(hash);
        let parent = match came {
            Some(came) => htlc_span(hash, &came),
            None => payment_span(&self.node, hash),
        };
        if let Some(from) = came.and_then(|came| book.open.get(&came)) {
            self.figures.forwarded.since(from.begun);
            let trace = TraceId::of_payment(&hash.0);
            if self.spans.wants(trace) {
                let id = SpanId::of(&[b"forward", &hash.0, &channel.0, &add.htlc_id.to_be_bytes()]);
                let times = (from.begun_at, self.spans.now());
                let span = Span::new((trace, id), Some(parent), "forward", times)
                    .with("fee_msat", from.amount_msat.saturating_sub(add.amount_msat));
                self.spans.tell(span);
            }
        }
        self.note(book, key, hash, add.amount_msat, parent);
    }

    /// Notes an HTLC; false if it is noted already, or one too many.
    fn note(
        &self,
        book: &mut Book,
        key: Key,
        hash: PaymentHash,
        amount_msat: u64,
        parent: SpanId,
    ) -> bool {
        if book.open.len() >= NOTED_MAX {
            self.figures.unnoted.increment();
            return false;
        }
        let begun_at = self.spans.now();
        let noted = Noted { hash, amount_msat, begun: Instant::now(), begun_at, parent };
        match book.open.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(noted);
                true
            }
        }
    }

    fn end(&self, book: &mut Book, key: Key, end: End) {
        let Some(noted) = book.open.remove(&key) else { return };
        if key.way == Way::Received {
            book.forget_arrived(noted.hash, key);
        }
        let figures = &self.figures;
        let histogram = match (key.way, end) {
            (Way::Offered, End::Fulfilled) => &figures.offered_fulfilled,
            (Way::Offered, End::Failed) => &figures.offered_failed,
            (Way::Received, End::Fulfilled) => &figures.received_fulfilled,
            (Way::Received, End::Failed) => &figures.received_failed,
        };
        histogram.since(noted.begun);
        let trace = TraceId::of_payment(&noted.hash.0);
        if !self.spans.wants(trace) {
            return;
        }
        let (name, kind) = match key.way {
            Way::Offered => ("htlc offered", SpanKind::Client),
            Way::Received => ("htlc received", SpanKind::Server),
        };
        let times = (noted.begun_at, self.spans.now());
        let id = htlc_span(noted.hash, &key);
        let mut span = Span::new((trace, id), Some(noted.parent), name, times)
            .with("channel_id", key.channel.to_string())
            .with("htlc_id", key.number)
            .with("amount_msat", noted.amount_msat);
        span.kind = kind;
        span.failure = (end == End::Failed).then(|| "failed".to_owned());
        self.spans.tell(span);
    }
}

impl Book {
    /// The HTLC that one offered with `hash` passes on: the oldest that was not.
    fn take_arrived(&mut self, hash: PaymentHash) -> Option<Key> {
        let keys = self.arrived.get_mut(&hash)?;
        let oldest = (!keys.is_empty()).then(|| keys.remove(0));
        if keys.is_empty() {
            self.arrived.remove(&hash);
        }
        oldest
    }

    fn forget_arrived(&mut self, hash: PaymentHash, key: Key) {
        if let Some(keys) = self.arrived.get_mut(&hash) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.arrived.remove(&hash);
            }
        }
    }
}
