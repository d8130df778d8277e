//! Spans on their way to a collector: OTLP over HTTP, as JSON.
//!
//! Source: OpenTelemetry Protocol 1, "OTLP/HTTP" and "JSON Protobuf Encoding". Written here
//! rather than by the OpenTelemetry crates: their spans follow scopes of code, take ids by chance
//! and belong to a process, where ours end with messages, have derived ids and belong to a node;
//! and what is left of them is one JSON document, for which everything is at hand.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Out, Span, SpanKind, Teller, Value};
use crate::environment::UnixTime;
use crate::runtime::Tasks;

/// Spans in one request at most.
const BATCH_MAX: usize = 512;
/// How long spans wait for others to share a request with.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector has for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last spans have when the node stops.
const LAST: Duration = Duration::from_secs(2);
/// Waits before the second try and the third.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Answers after which a try makes sense (OTLP/HTTP, "Retryable Response Codes").
const RETRYABLE: [u16; 4] = [429, 502, 503, 504];
/// Most bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;
/// Where traces go by default (OTLP/HTTP, "Default Port" and "Request").
const PATH: &str = "/v1/traces";

/// Where a collector takes traces: `http://host:port`, with a path where it is not `/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    path: String,
}

/// A text that names no collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form http://host:port")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || host.contains('@') || port == 0 || path.contains([' ', '?', '#']) {
            return Err(wrong());
        }
        let path = if path.trim_end_matches('/').is_empty() { PATH } else { path };
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Why the collector does not have a batch.
#[derive(Debug)]
struct Failure {
    why: String,
    again: bool,
}

/// Sends batches.
pub(super) struct Exporter {
    endpoint: Endpoint,
    resource: Json,
}

impl Exporter {
    pub(super) fn new(endpoint: Endpoint, teller: &Teller) -> Self {
        let resource = json!({ "attributes": [
            attribute("service.name", &teller.service.clone().into()),
            attribute("service.instance.id", &teller.node_id.clone().into()),
            attribute("service.version", &env!("CARGO_PKG_VERSION").into()),
            attribute("tributary.alias", &teller.alias.clone().into()),
        ] });
        Self { endpoint, resource }
    }

    /// Sends what comes in until `tasks` stop, and then what is left.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Span>, out: Arc<Out>, tasks: Tasks) {
        let mut is_failing = false;
        loop {
            let first = tokio::select! {
                biased;
                () = tasks.stopped() => break,
                first = queue.recv() => first,
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH_MAX && !tasks.is_stopped() {
                match timeout_at(until, queue.recv()).await {
                    Ok(Some(span)) => batch.push(span),
                    Ok(None) | Err(_) => break,
                }
            }
            let sent = tokio::select! {
                biased;
                sent = self.send_patiently(&batch) => sent,
                () = tasks.stopped() => timeout(LAST, self.send(&batch)).await.unwrap_or_else(|_| {
                    Err(Failure { why: "the node stops".into(), again: false })
                }),
            };
            is_failing = self.note(&out, batch.len(), sent, is_failing);
        }
        let mut last = Vec::new();
        while let Ok(span) = queue.try_recv() {
            last.push(span);
        }
        if !last.is_empty() && !is_failing {
            let sent = timeout(LAST, self.send(&last))
                .await
                .unwrap_or_else(|_| Err(Failure { why: "the node stops".into(), again: false }));
            self.note(&out, last.len(), sent, is_failing);
        }
    }

    /// Counts what became of a batch; tells the log when it begins to fail, and when it is over.
    fn note(&self, out: &Out, spans: usize, sent: Result<(), Failure>, was: bool) -> bool {
        let spans = spans as u64;
        match sent {
            Ok(()) => {
                out.counts.exported.add(spans);
                if was {
                    tracing::info!(endpoint = %self.endpoint, "the collector takes spans again");
                }
                false
            }
            Err(Failure { why, .. }) => {
                out.counts.refused.add(spans);
                match was {
                    false => {
                        tracing::warn!(endpoint = %self.endpoint, why, spans, "spans are lost")
                    }
                    true => {
                        tracing::debug!(endpoint = %self.endpoint, why, spans, "spans are lost")
                    }
                }
                true
            }
        }
    }

    async fn send_patiently(&self, batch: &[Span]) -> Result<(), Failure> {
        for wait in RETRIES {
            match self.send(batch).await {
                Err(failure) if failure.again => tokio::time::sleep(wait).await,
                done => return done,
            }
        }
        self.send(batch).await
    }

    async fn send(&self, batch: &[Span]) -> Result<(), Failure> {
        let body = self.body(batch).to_string();
        match timeout(PATIENCE, self.post(body)).await {
            Ok(sent) => sent,
            Err(_) => Err(Failure {
                why: format!("no answer within {} s", PATIENCE.as_secs()),
                again: true,
            }),
        }
    }

    async fn post(&self, body: String) -> Result<(), Failure> {
        let broken = |why: &dyn fmt::Display| Failure { why: why.to_string(), again: true };
        let stream = TcpStream::connect(&self.endpoint.authority).await.map_err(|e| broken(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.endpoint.path)
            .header(HOST, &self.endpoint.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("tributary/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Failure { why: e.to_string(), again: false })?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
            let status = response.status().as_u16();
            let text = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let text = text.map(|body| body.to_bytes()).unwrap_or_default();
            if (200..300).contains(&status) {
                return Ok(());
            }
            let text: String = String::from_utf8_lossy(&text).chars().take(200).collect();
            let again = RETRYABLE.contains(&status);
            Err(Failure { why: format!("status {status}: {text}"), again })
        };
        // One request, one connection: a collector is near, and a second's spans share it.
        tokio::pin!(exchange, connection);
        let mut is_over = false;
        loop {
            tokio::select! {
                biased;
                done = &mut exchange => return done,
                // An answer may have come with the connection's end.
                _ended = &mut connection, if !is_over => is_over = true,
            }
        }
    }

    /// An `ExportTraceServiceRequest`.
    fn body(&self, batch: &[Span]) -> Json {
        let spans: Vec<Json> = batch.iter().map(span).collect();
        json!({ "resourceSpans": [{
            "resource": self.resource,
            "scopeSpans": [{
                "scope": { "name": "tributary", "version": env!("CARGO_PKG_VERSION") },
                "spans": spans,
            }],
        }] })
    }
}

/// One span. Ids are in hexadecimal, numbers of 64 bits are text.
fn span(span: &Span) -> Json {
    let attributes: Vec<Json> =
        span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let links: Vec<Json> = span
        .links
        .iter()
        .map(|(trace, id)| json!({ "traceId": hex::encode(trace.0), "spanId": hex::encode(id.0) }))
        .collect();
    let mut told = json!({
        "traceId": hex::encode(span.trace.0),
        "spanId": hex::encode(span.id.0),
        "name": span.name,
        "kind": match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        "startTimeUnixNano": nanos(span.begun),
        "endTimeUnixNano": nanos(span.ended),
        "attributes": attributes,
        "links": links,
        "status": match &span.failure {
            None => json!({ "code": 1 }),
            Some(why) => json!({ "code": 2, "message": why }),
        },
    });
    if let Some(parent) = span.parent {
        told["parentSpanId"] = json!(hex::encode(parent.0));
    }
    told
}

fn nanos(time: UnixTime) -> String {
    time.as_nanos().to_string()
}

fn attribute(key: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": key, "value": value })
}

#[cfg(test)]
mod tests {
    use super::super::{SpanId, TraceId};
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(read("http://localhost:4318").unwrap(), "http://localhost:4318/v1/traces");
        assert_eq!(read("http://[::1]:4318/").unwrap(), "http://[::1]:4318/v1/traces");
        assert_eq!(read("http://h:1/otlp/v1/traces").unwrap(), "http://h:1/otlp/v1/traces");
        for wrong in
            ["", "localhost:4318", "https://h:1", "http://h", "http://u:p@h:1", "http://h:0"]
        {
            assert_eq!(read(wrong).unwrap_err().0, wrong);
        }
    }

    #[test]
    fn a_span_is_told_as_the_protocol_says() {
        let times = (Duration::from_secs(1), Duration::from_nanos(1_000_000_005));
        let ids = (TraceId([0xab; 16]), SpanId([1; 8]));
        let mut told = Span::new(ids, Some(SpanId([2; 8])), "htlc", times).with("amount_msat", 7);
        told.kind = SpanKind::Client;
        told.links.push((TraceId([3; 16]), SpanId([4; 8])));
        told.failure = Some("no".into());
        assert_eq!(
            span(&told),
            json!({
                "traceId": "ab".repeat(16),
                "spanId": "0101010101010101",
                "parentSpanId": "0202020202020202",
                "name": "htlc",
                "kind": 3,
                "startTimeUnixNano": "1000000000",
                "endTimeUnixNano": "1000000005",
                "attributes": [{ "key": "amount_msat", "value": { "intValue": "7" } }],
                "links": [{ "traceId": "03".repeat(16), "spanId": "0404040404040404" }],
                "status": { "code": 2, "message": "no" },
            })
        );
    }
}
