//! Making an invoice, durable when it is answered, and reading one.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use node::dev::{Cluster, DevChain, NodeOptions};
use node::lightning::InvoiceDescription;
use node::payments::CreateInvoice;
use tokio::runtime::Runtime;

fn invoice(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    runtime.block_on(net.add("alice", NodeOptions::default())).unwrap();
    let node = net.node("alice");
    let create = || CreateInvoice {
        amount_msat: Some(1_000),
        description: InvoiceDescription::Text("tea".into()),
        expiry: Duration::from_secs(3_600),
        min_final_cltv_expiry_delta: None,
        hash: None,
    };
    let mut group = criterion.benchmark_group("invoice");
    group.bench_function("make", |bench| {
        bench.iter(|| runtime.block_on(node.payments.create_invoice(create(), None)).unwrap());
    });
    let text = runtime.block_on(node.payments.create_invoice(create(), None)).unwrap().invoice;
    group.bench_function("read", |bench| bench.iter(|| node.lightning.decode(&text).unwrap()));
    group.finish();
    runtime.block_on(net.shut_down());
}

criterion_group!(benches, invoice);
criterion_main!(benches);
