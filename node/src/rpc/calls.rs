//! Calls in figures: how many of each method, how they ended, how long they took, and spans.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tonic::Code;
use tonic::codegen::http::HeaderMap;

use super::methods;
use super::places::Places;
use crate::environment::{Entropy, UnixTime};
use crate::lightning::payment_span;
use crate::lightning::types::{NodeId, PaymentHash};
use crate::runtime::metrics::{Exposed, Histogram, Kind, Page, Probe, Scale};
use crate::runtime::spans::{Span, SpanId, SpanKind, Spans, TraceId};

/// gRPC's codes by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The payment that a call is about, which its handler says among the answer's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct About(pub PaymentHash);

/// One method's figures.
struct Cell {
    by_code: [AtomicU64; CODES.len()],
    took: Histogram,
}

struct Armed {
    names: Vec<&'static str>,
    cells: Vec<Cell>,
    spans: Spans,
    entropy: Arc<dyn Entropy>,
    node: NodeId,
}

/// Measures calls once it is armed.
#[derive(Default)]
pub struct Calls {
    armed: Probe<Armed>,
    /// Refusals at the gate, by reason: rare enough for a lock.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    places: RwLock<Option<Arc<Places>>>,
}

impl Calls {
    /// Measures from now on, and tells `spans`.
    pub fn arm(&self, node: NodeId, spans: Spans, entropy: Arc<dyn Entropy>) {
        let names = methods::names();
        let cell = |_: &&str| Cell {
            by_code: [const { AtomicU64::new(0) }; CODES.len()],
            took: Histogram::new(Scale::CALLS),
        };
        let cells = names.iter().map(cell).collect();
        self.armed.arm(Armed { names, cells, spans, entropy, node });
    }

    pub(super) fn look_at(&self, places: &Arc<Places>) {
        *self.places.write() = Some(Arc::clone(places));
    }

    pub(super) fn refused(&self, reason: &'static str) {
        *self.refused.lock().entry(reason).or_default() += 1;
    }

    /// When a call begins, if spans are told.
    pub(super) fn begun_at(&self) -> Option<UnixTime> {
        self.armed.get().filter(|armed| armed.spans.is_on()).map(|armed| armed.spans.now())
    }

    /// A call has its answer; a stream has begun.
    pub(super) fn answered(&self, number: usize, code: Code, took: Duration) {
        let Some(armed) = self.armed.get() else { return };
        if let Some(cell) = armed.cells.get(number) {
            let code = usize::try_from(i32::from(code)).unwrap_or(2).min(CODES.len() - 1);
            cell.by_code[code].fetch_add(1, Ordering::Relaxed);
            cell.took.took(took);
        }
    }

    /// Tells the span of a call, within the caller's trace if it named one.
    pub(super) fn tell(
        &self,
        number: usize,
        code: Code,
        begun: UnixTime,
        caller: Option<Traceparent>,
        about: Option<About>,
    ) {
        let Some(armed) = self.armed.get() else { return };
        let about = about
            .map(|About(hash)| (TraceId::of_payment(&hash.0), payment_span(&armed.node, hash)));
        let (trace, parent) = match (caller, about) {
            (Some(caller), _) if caller.sampled => (caller.trace, Some(caller.parent)),
            (Some(_), _) => return,
            // Beside the payment's own spans: what it is about.
            (None, Some((trace, payment))) if armed.spans.wants(trace) => (trace, Some(payment)),
            (None, Some(_)) => return,
            (None, None) => {
                let trace = TraceId(armed.entropy.bytes());
                if !armed.spans.wants(trace) {
                    return;
                }
                (trace, None)
            }
        };
        let id = SpanId(armed.entropy.bytes());
        let name = armed.names.get(number).copied().unwrap_or("other");
        let times = (begun, armed.spans.now());
        let mut span = Span::new((trace, id), parent, Cow::Borrowed(name), times)
            .with("rpc.system", "grpc")
            .with("rpc.grpc.status_code", u64::try_from(i32::from(code)).unwrap_or(2));
        span.kind = SpanKind::Server;
        span.links = about.into_iter().filter(|(linked, _)| *linked != trace).collect();
        span.failure = (code != Code::Ok).then(|| code.to_string());
        armed.spans.tell(span);
    }
}

impl Exposed for Calls {
    fn expose(&self, page: &mut Page) {
        let Some(armed) = self.armed.get() else { return };
        let used = || {
            let cells = armed.names.iter().zip(&armed.cells);
            cells.filter(|(_, cell)| cell.took.count() > 0)
        };
        let help = "Calls of the API by method and gRPC code.";
        let mut family = page.family("tributary_rpc_calls_total", Kind::Counter, help);
        for (method, cell) in used() {
            for (code, count) in CODES.iter().zip(&cell.by_code) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    family.sample(&[("method", method), ("code", code)], count);
                }
            }
        }
        let help = "From a call to its answer; for a stream, to its beginning.";
        let mut family = page.family("tributary_rpc_seconds", Kind::Histogram, help);
        for (method, cell) in used() {
            family.histogram(&[("method", method)], &cell.took);
        }
        let help = "Calls that were refused before their handler, by reason.";
        let mut family = page.family("tributary_rpc_refused_total", Kind::Counter, help);
        // From the start, so that the first of them is a change.
        let mut refused = BTreeMap::from([("OVERLOADED", 0), ("RATE_LIMITED", 0)]);
        refused.extend(self.refused.lock().iter().map(|(reason, count)| (*reason, *count)));
        for (reason, count) in refused {
            family.sample(&[("reason", reason)], count);
        }
        if let Some(places) = &*self.places.read() {
            let (at_work, waiting) = places.taken();
            page.gauge("tributary_rpc_calls_at_work", "Calls at work now.", at_work);
            page.gauge("tributary_rpc_calls_waiting", "Calls that wait for a place.", waiting);
        }
    }
}

/// A caller's trace, as it named it.
///
/// Source: W3C Trace Context, "traceparent Header".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traceparent {
    trace: TraceId,
    parent: SpanId,
    sampled: bool,
}

impl Traceparent {
    /// Reads the header; none if it is absent or malformed.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get("traceparent")?.to_str().ok()?;
        let mut fields = text.split('-');
        let (version, trace) = (fields.next()?, fields.next()?);
        let (parent, flags) = (fields.next()?, fields.next()?);
        // A later version may have more fields; this one has not.
        let is_whole = match version {
            "00" => fields.next().is_none(),
            "ff" => false,
            later => later.len() == 2,
        };
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let (mut trace_id, mut span_id, mut flag) = ([0; 16], [0; 8], [0; 1]);
        hex::decode_to_slice(trace, &mut trace_id).ok()?;
        hex::decode_to_slice(parent, &mut span_id).ok()?;
        hex::decode_to_slice(flags, &mut flag).ok()?;
        let is_named = trace_id != [0; 16] && span_id != [0; 8];
        (is_whole && lower && is_named).then_some(Self {
            trace: TraceId(trace_id),
            parent: SpanId(span_id),
            sampled: flag[0] & 1 == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::OsEntropy;

    #[test]
    fn a_callers_trace_is_read_as_the_standard_says() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            Traceparent::read(&headers)
        };
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = "b7ad6b7169203331";
        let found = read(&format!("00-{trace}-{parent}-01")).unwrap();
        assert_eq!(hex::encode(found.trace.0), trace);
        assert_eq!(hex::encode(found.parent.0), parent);
        assert!(found.sampled);
        assert!(!read(&format!("00-{trace}-{parent}-00")).unwrap().sampled);
        assert!(read(&format!("cc-{trace}-{parent}-01-more")).is_some(), "a later version");
        for wrong in [
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}-01-more"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-{parent}"),
            "nonsense".to_owned(),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_method_has_a_place_of_its_own() {
        let names = methods::names();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len());
        let pay = methods::method("tributary.v1.Payments/Pay").number;
        assert_eq!(names[pay], "Payments/Pay");
        assert_eq!(names[methods::method("grpc.reflection.v1.X/Y").number], "other");
    }

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let calls = Calls::default();
        let pay = methods::method("tributary.v1.Payments/Pay").number;
        calls.answered(pay, Code::Ok, Duration::from_millis(3));
        let node = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        calls.arm(node.parse().unwrap(), Spans::default(), Arc::new(OsEntropy));
        calls.answered(pay, Code::Ok, Duration::from_millis(3));
        calls.answered(pay, Code::Unavailable, Duration::from_millis(3));
        calls.refused("RATE_LIMITED");
        let mut page = Page::default();
        calls.expose(&mut page);
        let text = page.text();
        for line in [
            "tributary_rpc_calls_total{method=\"Payments/Pay\",code=\"OK\"} 1",
            "tributary_rpc_calls_total{method=\"Payments/Pay\",code=\"UNAVAILABLE\"} 1",
            "tributary_rpc_seconds_count{method=\"Payments/Pay\"} 2",
            "tributary_rpc_refused_total{reason=\"OVERLOADED\"} 0",
            "tributary_rpc_refused_total{reason=\"RATE_LIMITED\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("other"), "what is not used is not told");
    }
}
