//! The life of each HTLC, for figures and spans: offered or received, forwarded, settled or failed.
//!
//! Read from the messages themselves, where they come in (`messages.rs`) and where they are taken
//! from LDK (`gate.rs`): no event of LDK's says when a forward came and when it left. Nothing is
//! decided here, and nothing is noted until it is armed.
//!
//! The two ends of a channel know hash, channel and number of an HTLC. From these both derive one
//! span's id: what one node offers is the parent of what the other received.

use std::collections::{HashMap, HashSet};
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
    /// With whom.
    peer: NodeId,
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
    /// Channels that are known to be their senders'.
    channels: HashSet<(NodeId, ChannelId)>,
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

    /// A peer offers an HTLC. Noted only if `is_its_channel` says so, which is asked once for each
    /// channel: a stranger must not fill the book.
    pub(super) fn received(
        &self,
        peer: NodeId,
        message: &UpdateAddHTLC,
        is_its_channel: impl FnOnce() -> bool,
    ) {
        let Some(armed) = self.0.get() else { return };
        let pair = (peer, message.channel_id);
        if !armed.noted.lock().channels.contains(&pair) {
            if !is_its_channel() {
                return;
            }
            armed.noted.lock().channels.insert(pair);
        }
        let key = Key { channel: message.channel_id, number: message.htlc_id, way: Way::Received };
        let hash = message.payment_hash.into();
        // Whoever offered it derives this id too.
        let parent = htlc_span(hash, &Key { way: Way::Offered, ..key });
        let mut book = armed.noted.lock();
        if armed.note(&mut book, key, peer, hash, message.amount_msat, parent) {
            book.arrived.entry(hash).or_default().push(key);
        }
    }

    /// A peer settles or fails an HTLC of ours.
    pub(super) fn answered(&self, peer: NodeId, channel: ChannelId, number: u64, end: End) {
        let Some(armed) = self.0.get() else { return };
        let key = Key { channel, number, way: Way::Offered };
        let mut book = armed.noted.lock();
        // LDK refuses an answer of somebody else's.
        if book.open.get(&key).is_some_and(|noted| noted.peer == peer) {
            armed.end(&mut book, key, end);
        }
    }

    /// LDK gives out messages.
    pub(super) fn leaving(&self, messages: &[MessageSendEvent]) {
        let Some(armed) = self.0.get() else { return };
        let mut book = armed.noted.lock();
        for message in messages {
            let MessageSendEvent::UpdateHTLCs { node_id, channel_id: channel, updates } = message
            else {
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
                armed.offer(&mut book, *node_id, *channel, add);
            }
        }
    }

    /// A channel is over: what it carried is settled on chain.
    pub(super) fn closed(&self, channel: ChannelId) {
        let Some(armed) = self.0.get() else { return };
        let mut book = armed.noted.lock();
        book.channels.retain(|(_, known)| *known != channel);
        book.open.retain(|key, _| key.channel != channel);
        book.arrived.retain(|_, keys| {
            keys.retain(|key| key.channel != channel);
            !keys.is_empty()
        });
    }
}

impl Armed {
    fn offer(&self, book: &mut Book, peer: NodeId, channel: ChannelId, add: &UpdateAddHTLC) {
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
        self.note(book, key, peer, hash, add.amount_msat, parent);
    }

    /// Notes an HTLC; false if it is noted already, or one too many.
    fn note(
        &self,
        book: &mut Book,
        key: Key,
        peer: NodeId,
        hash: PaymentHash,
        amount_msat: u64,
        parent: SpanId,
    ) -> bool {
        if book.open.len() >= NOTED_MAX {
            self.figures.unnoted.increment();
            return false;
        }
        let begun_at = self.spans.now();
        let noted = Noted { peer, hash, amount_msat, begun: Instant::now(), begun_at, parent };
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

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning::ln::msgs::OnionPacket;

    use super::*;

    fn node(number: u8) -> NodeId {
        SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
    }

    fn add(channel: u8, number: u64) -> UpdateAddHTLC {
        UpdateAddHTLC {
            channel_id: ChannelId([channel; 32]),
            htlc_id: number,
            amount_msat: 1_000,
            payment_hash: PaymentHash([7; 32]).into(),
            cltv_expiry: 500,
            skimmed_fee_msat: None,
            onion_routing_packet: OnionPacket {
                version: 0,
                public_key: Ok(node(9)),
                hop_data: [0; 20 * 65],
                hmac: [0; 32],
            },
            blinding_point: None,
            hold_htlc: None,
            accountable: None,
        }
    }

    fn noted(probe: &HtlcProbe) -> usize {
        probe.noted().map_or(0, |(count, _)| count)
    }

    #[test]
    fn only_the_peer_of_a_channel_is_believed() {
        let probe = HtlcProbe::default();
        probe.received(node(1), &add(1, 0), || panic!("nobody measures"));
        probe.arm(node(3), Spans::default());
        probe.received(node(2), &add(1, 0), || false);
        assert_eq!(noted(&probe), 0, "a stranger's");
        probe.received(node(1), &add(1, 0), || true);
        probe.received(node(1), &add(1, 1), || panic!("it is known by now"));
        probe.received(node(1), &add(1, 1), || panic!("it is known by now"));
        probe.received(node(2), &add(1, 2), || false);
        assert_eq!(noted(&probe), 2, "said twice is one");
        let armed = probe.0.get().unwrap();
        armed.offer(&mut armed.noted.lock(), node(2), ChannelId([2; 32]), &add(2, 0));
        assert_eq!(probe.figures().unwrap().forwarded.count(), 1);
        probe.answered(node(1), ChannelId([2; 32]), 0, End::Fulfilled);
        assert_eq!(probe.figures().unwrap().offered_fulfilled.count(), 0, "another's word");
        probe.answered(node(2), ChannelId([2; 32]), 0, End::Fulfilled);
        assert_eq!(probe.figures().unwrap().offered_fulfilled.count(), 1);
        probe.closed(ChannelId([1; 32]));
        assert_eq!(noted(&probe), 0, "what a channel carried goes with it");
        assert!(armed.noted.lock().channels.is_empty());
    }
}
