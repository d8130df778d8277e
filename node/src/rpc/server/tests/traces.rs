//! A payment over two hops, told by three nodes that know nothing of each other's spans, is one
//! trace. The collector here reads with the messages of OpenTelemetry's makers.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use parking_lot::Mutex;
use proto::v1;
use proto::v1::payments_client::PaymentsClient;
use tokio::net::TcpListener;

use super::whole::{invoice_request, pay_request};
use super::whole_figures::{client, until};
use crate::dev::{Cluster, DevChain, NodeOptions};
use crate::lightning::payment_span;
use crate::lightning::types::PaymentHash;
use crate::runtime::Tasks;
use crate::runtime::spans::TraceId;

/// A span, and who told it.
#[derive(Debug, Clone)]
struct Told {
    by: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    name: String,
    kind: SpanKind,
    begun: u64,
    ended: u64,
    failed: bool,
    attributes: BTreeMap<String, String>,
}

/// Takes spans as a collector does, refusing the first requests with a status that asks for
/// another try.
#[derive(Clone, Default)]
struct Collector {
    told: Arc<Mutex<Vec<Told>>>,
    busy: Arc<Mutex<u32>>,
}

impl Collector {
    async fn start(&self, tasks: &Tasks) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (this, own) = (self.clone(), tasks.clone());
        tasks.spawn("collector", async move {
            loop {
                let (stream, _) = tokio::select! {
                    () = own.stopped() => return,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                let this = this.clone();
                own.spawn_apart("collector connection", async move {
                    let service = service_fn(move |request| {
                        let this = this.clone();
                        async move { Ok::<_, Infallible>(this.take(request).await) }
                    });
                    let _over = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        address
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let status = |status| {
            let mut answer = Response::new(Full::new(Bytes::from_static(b"{}")));
            *answer.status_mut() = status;
            answer
        };
        if std::mem::take(&mut *self.busy.lock()) > 0 {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
        assert_eq!(request.headers()["content-type"], "application/json");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let read: ExportTraceServiceRequest = serde_json::from_slice(&body).unwrap();
        for resource in read.resource_spans {
            let of = |key: &str| {
                let attributes = &resource.resource.as_ref().unwrap().attributes;
                let found = attributes.iter().find(|attribute| attribute.key == key);
                text(found.and_then(|found| found.value.as_ref()?.value.clone()))
            };
            assert_eq!(of("service.name"), "tributary");
            assert_eq!(of("service.instance.id").len(), 66);
            let by = of("tributary.alias");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let attributes = span.attributes.iter();
                let attributes = attributes
                    .map(|one| (one.key.clone(), text(one.value.clone().and_then(|v| v.value))));
                self.told.lock().push(Told {
                    by: by.clone(),
                    kind: span.kind(),
                    failed: span.status.is_some_and(|status| status.code() == SpanStatus::Error),
                    links: span.links.into_iter().map(|l| (l.trace_id, l.span_id)).collect(),
                    attributes: attributes.collect(),
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    name: span.name,
                    begun: span.start_time_unix_nano,
                    ended: span.end_time_unix_nano,
                });
            }
        }
        status(StatusCode::OK)
    }

    fn of(&self, trace: TraceId) -> Vec<Told> {
        self.told.lock().iter().filter(|told| told.trace == trace.0).cloned().collect()
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The only span of this name that `by` told.
fn one<'a>(spans: &'a [Told], by: &str, name: &str) -> &'a Told {
    let found: Vec<&Told> =
        spans.iter().filter(|span| span.by == by && span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} of {by} in {spans:#?}");
    found[0]
}

async fn line(collector: &Collector, tasks: &Tasks, dir: &std::path::Path, ppm: u32) -> Cluster {
    let address = collector.start(tasks).await;
    let mut net = Cluster::new(DevChain::embedded(), dir);
    for name in ["ada", "hub", "bob"] {
        let options = NodeOptions {
            configure: Arc::new(move |config| {
                config.traces.endpoint = format!("http://{address}");
                config.traces.sample_ppm = ppm;
            }),
            ..NodeOptions::default()
        };
        net.add(name, options).await.unwrap();
    }
    net.fund(&["ada", "hub"], Amount::from_sat(3_000_000), 2).await.unwrap();
    net.open_channel("ada", "hub", 1_000_000, 0).await.unwrap();
    net.open_channel("hub", "bob", 1_000_000, 0).await.unwrap();
    net
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_over_two_hops_is_one_trace_of_three_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let (collector, tasks) = (Collector::default(), Tasks::new());
    *collector.busy.lock() = 1;
    let net = line(&collector, &tasks, directory.path(), 1_000_000).await;
    let mut payee = PaymentsClient::new(client(net.node("bob")).await);
    let mut payer = PaymentsClient::new(client(net.node("ada")).await);
    let bill = payee.create_invoice(invoice_request("bill", 10_000)).await.unwrap().into_inner();
    let paid = payer.pay(pay_request("pay", &bill)).await.unwrap().into_inner();
    assert_eq!(paid.state(), v1::PaymentState::Succeeded);
    let hash = PaymentHash::from_slice(&bill.payment_hash).unwrap();
    let trace = TraceId::of_payment(&hash.0);

    let names = |by: &'static str| match by {
        "ada" => vec!["Payments/Pay", "durable commit", "htlc offered", "payment", "send"],
        "hub" => vec!["forward", "htlc offered", "htlc received"],
        _ => vec!["claim", "durable commit", "htlc received", "receive"],
    };
    until("all spans of the payment", async || {
        let spans = collector.of(trace);
        ["ada", "hub", "bob"].into_iter().all(|by| {
            let told: BTreeSet<&str> =
                spans.iter().filter(|span| span.by == by).map(|span| &*span.name).collect();
            told.into_iter().eq(names(by))
        })
    })
    .await;
    let spans = collector.of(trace);
    let ids: BTreeSet<&Vec<u8>> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), spans.len(), "each span has an id of its own");

    // From the payer's payment hop by hop to the payee, by ids that nobody told anybody.
    let payment = one(&spans, "ada", "payment");
    let ada = net.node("ada").lightning.node_id();
    assert_eq!(payment.id, payment_span(&ada, hash).0);
    assert!(payment.parent.is_empty() && !payment.failed);
    assert_eq!(payment.attributes["amount_msat"], "10000");
    let mut above = payment;
    for (by, name) in [
        ("ada", "htlc offered"),
        ("hub", "htlc received"),
        ("hub", "htlc offered"),
        ("bob", "htlc received"),
    ] {
        let span = one(&spans, by, name);
        assert_eq!(span.parent, above.id, "{name} of {by}");
        assert!(above.begun <= span.begun, "{name} of {by}");
        let kind = if name == "htlc offered" { SpanKind::Client } else { SpanKind::Server };
        assert_eq!(span.kind, kind);
        assert!(!span.failed && span.begun <= span.ended);
        above = span;
    }
    let forward = one(&spans, "hub", "forward");
    assert_eq!(forward.parent, one(&spans, "hub", "htlc received").id);
    let fee: u64 = forward.attributes["fee_msat"].parse().unwrap();
    assert_eq!(paid.fee_msat, Some(fee));
    assert_eq!(one(&spans, "ada", "send").parent, payment.id);
    assert_eq!(one(&spans, "bob", "claim").parent, one(&spans, "bob", "receive").id);
    let call = one(&spans, "ada", "Payments/Pay");
    assert_eq!((&call.parent, call.kind), (&payment.id, SpanKind::Server));
    let commits = spans.iter().filter(|span| span.by == "ada" && span.name == "durable commit");
    assert_eq!(commits.filter(|span| span.parent == payment.id).count(), 2);

    // A caller's own trace has the call; the payment is linked.
    let bill = payee.create_invoice(invoice_request("other", 10_000)).await.unwrap().into_inner();
    let mut request = tonic::Request::new(pay_request("again", &bill));
    let theirs = "0af7651916cd43dd8448eb211c80319c";
    let header = format!("00-{theirs}-b7ad6b7169203331-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", header);
    payer.pay(request).await.unwrap();
    let mut id = [0; 16];
    hex::decode_to_slice(theirs, &mut id).unwrap();
    until("the call in its caller's trace", async || !collector.of(TraceId(id)).is_empty()).await;
    let calls = collector.of(TraceId(id));
    let call = one(&calls, "ada", "Payments/Pay");
    assert_eq!(hex::encode(&call.parent), "b7ad6b7169203331");
    let hash = PaymentHash::from_slice(&bill.payment_hash).unwrap();
    let linked = (TraceId::of_payment(&hash.0).0.to_vec(), payment_span(&ada, hash).0.to_vec());
    assert_eq!(call.links, [linked]);

    let counts = net.node("ada").observer.parts().spans.counts().unwrap();
    assert!(counts.exported.get() > 0);
    assert_eq!(
        (counts.dropped.get(), counts.refused.get()),
        (0, 0),
        "a busy collector is asked again"
    );
    drop((payer, payee));
    net.shut_down().await;
    tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_tell_the_same_payments() {
    let directory = tempfile::tempdir().unwrap();
    let (collector, tasks) = (Collector::default(), Tasks::new());
    let net = line(&collector, &tasks, directory.path(), 500_000).await;
    let mut payee = PaymentsClient::new(client(net.node("bob")).await);
    let mut payer = PaymentsClient::new(client(net.node("ada")).await);
    for number in 0..24 {
        let bill = invoice_request(&format!("bill {number}"), 1_000);
        let bill = payee.create_invoice(bill).await.unwrap().into_inner();
        payer.pay(pay_request(&format!("pay {number}"), &bill)).await.unwrap();
    }
    // The nodes tell what they have when they stop.
    drop((payer, payee));
    net.shut_down().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let told = collector.told.lock().clone();
    let traces = |by: &str, name: &str| -> BTreeSet<Vec<u8>> {
        let spans = told.iter().filter(|span| span.by == by && span.name == name);
        spans.map(|span| span.trace.clone()).collect()
    };
    let payments = traces("ada", "payment");
    assert!((1..24).contains(&payments.len()), "about a half of them: {}", payments.len());
    assert_eq!(traces("hub", "forward"), payments);
    assert_eq!(traces("bob", "htlc received"), payments);
    tasks.stop().await;
}
