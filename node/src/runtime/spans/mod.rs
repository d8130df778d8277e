//! Spans: what took how long, and what belongs to what, told to an OpenTelemetry collector.
//!
//! A Lightning message has no room for a trace's id, and peers are strangers. So the ids are
//! derived: a payment's trace from its hash, a hop's span from hash, channel and number of its
//! HTLC, which both ends of the channel know. Nodes of one operator that tell one collector join
//! without a word between them, and whoever knows no hash learns nothing. Which payments are told
//! is decided by the trace's id too, so that all nodes tell the same ones.
//!
//! A span here is made when it is over: it begins with one message and ends with another, on
//! other threads, and no scope of code is as long as it. `export.rs` sends them.

mod export;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use tokio::sync::mpsc;

use super::Tasks;
use super::metrics::Counter;
use crate::environment::{Clock, UnixTime};

pub use export::{Endpoint, EndpointError};

/// Spans that wait for the collector at most; further ones are dropped and counted.
const QUEUE_MAX: usize = 8_192;

/// What every span of one payment, or of one call, has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// One span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// The trace of the payment with this hash: the first 16 bytes of SHA-256 over a label and it.
    pub fn of_payment(hash: &[u8; 32]) -> Self {
        let digest = digest(&[b"tributary payment trace", hash]);
        Self(digest[..16].try_into().expect("a digest has 32 bytes"))
    }

    /// Whether it is told at `ppm` of a million.
    fn is_sampled(self, ppm: u32) -> bool {
        let tail = u64::from_be_bytes(self.0[8..].try_into().expect("half of 16 bytes"));
        // The same for every node: a share of all ids, and a larger share has all of a smaller.
        tail / (u64::MAX / 1_000_000) < u64::from(ppm)
    }
}

impl SpanId {
    /// The span that is known by these words: the first 8 bytes of SHA-256 over a label and them.
    pub fn of(words: &[&[u8]]) -> Self {
        let mut all: Vec<&[u8]> = vec![b"tributary span"];
        all.extend(words);
        Self(digest(&all)[..8].try_into().expect("a digest has 32 bytes"))
    }
}

/// SHA-256 over words, each after its length.
fn digest(words: &[&[u8]]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    for word in words {
        use bitcoin::hashes::HashEngine;
        engine.input(&(word.len() as u64).to_be_bytes());
        engine.input(word);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// Whose part of the work a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// This node's own.
    Internal,
    /// Somebody asked for it.
    Server,
    /// Somebody else is asked.
    Client,
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Number(u64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// Something that took a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it belongs to.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// Within what.
    pub parent: Option<SpanId>,
    /// Other spans it has to do with.
    pub links: Vec<(TraceId, SpanId)>,
    /// What it is.
    pub name: Cow<'static, str>,
    /// Whose part.
    pub kind: SpanKind,
    /// When it began.
    pub begun: UnixTime,
    /// When it ended.
    pub ended: UnixTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl Span {
    /// A span of this node's own without attributes.
    pub fn new(
        (trace, id): (TraceId, SpanId),
        parent: Option<SpanId>,
        name: impl Into<Cow<'static, str>>,
        (begun, ended): (UnixTime, UnixTime),
    ) -> Self {
        Self {
            trace,
            id,
            parent,
            links: Vec::new(),
            name: name.into(),
            kind: SpanKind::Internal,
            begun,
            ended: ended.max(begun),
            attributes: Vec::new(),
            failure: None,
        }
    }

    /// Adds what is known.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }
}

/// Where spans go. Cheap to clone; by default nowhere.
#[derive(Clone, Default)]
pub struct Spans {
    out: Option<Arc<Out>>,
}

struct Out {
    queue: mpsc::Sender<Span>,
    sample_ppm: u32,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    /// The collector has them.
    pub exported: Counter,
    /// The queue was full.
    pub dropped: Counter,
    /// The collector did not take them.
    pub refused: Counter,
}

/// Who tells, and what.
#[derive(Debug, Clone)]
pub struct Teller {
    /// The name of the service.
    pub service: String,
    /// The node's identity, in hexadecimal.
    pub node_id: String,
    /// Its name.
    pub alias: String,
    /// How many of a million traces are told.
    pub sample_ppm: u32,
}

impl Spans {
    /// Tells the collector at `endpoint` until `tasks` stop.
    pub fn start(
        endpoint: Endpoint,
        teller: &Teller,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let out = Arc::new(Out {
            queue,
            sample_ppm: teller.sample_ppm,
            clock,
            counts: Counts::default(),
        });
        let spans = Self { out: Some(Arc::clone(&out)) };
        let exporter = export::Exporter::new(endpoint, teller);
        tasks.spawn("span exporter", exporter.run(waiting, out, tasks.clone()));
        spans
    }

    /// Whether spans of `trace` are told.
    pub fn wants(&self, trace: TraceId) -> bool {
        self.out.as_ref().is_some_and(|out| trace.is_sampled(out.sample_ppm))
    }

    /// Whether any are.
    pub fn is_on(&self) -> bool {
        self.out.is_some()
    }

    /// The time by which spans are dated; zero when they go nowhere.
    pub fn now(&self) -> UnixTime {
        self.out.as_ref().map_or(Duration::ZERO, |out| out.clock.now())
    }

    /// Tells a span. Never waits: one that finds no room is counted and gone.
    pub fn tell(&self, span: Span) {
        if let Some(out) = &self.out
            && out.queue.try_send(span).is_err()
        {
            out.counts.dropped.increment();
        }
    }

    /// What became of those that were told.
    pub fn counts(&self) -> Option<&Counts> {
        self.out.as_ref().map(|out| &out.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_derived_and_differ_by_their_words() {
        let trace = TraceId::of_payment(&[7; 32]);
        assert_eq!(trace, TraceId::of_payment(&[7; 32]));
        assert_ne!(trace, TraceId::of_payment(&[8; 32]));
        assert_ne!(trace.0, [7; 16], "the hash itself is not told");
        assert_eq!(SpanId::of(&[b"a", b"b"]), SpanId::of(&[b"a", b"b"]));
        assert_ne!(SpanId::of(&[b"a", b"b"]), SpanId::of(&[b"ab"]), "words are apart");
    }

    #[test]
    fn a_share_of_traces_is_told_and_a_larger_share_has_it_all() {
        let traces: Vec<TraceId> = (0..10_000_u32)
            .map(|n| {
                let mut hash = [0; 32];
                hash[..4].copy_from_slice(&n.to_be_bytes());
                TraceId::of_payment(&hash)
            })
            .collect();
        let told = |ppm| traces.iter().filter(|trace| trace.is_sampled(ppm)).count();
        assert_eq!((told(0), told(1_000_000)), (0, 10_000));
        let tenth = told(100_000);
        assert!((800..1_200).contains(&tenth), "{tenth}");
        assert!(traces.iter().all(|t| !t.is_sampled(1_000) || t.is_sampled(100_000)));
    }

    #[test]
    fn without_a_collector_nothing_is_wanted() {
        let spans = Spans::default();
        let trace = TraceId([0; 16]);
        assert!(!spans.is_on() && !spans.wants(trace));
        let times = (Duration::ZERO, Duration::ZERO);
        spans.tell(Span::new((trace, SpanId([0; 8])), None, "nothing", times));
        assert!(spans.counts().is_none());
    }
}
