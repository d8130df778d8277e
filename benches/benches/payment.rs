//! One payment after the other between nodes of one process: TCP, Noise and durable stores as in
//! earnest, no gRPC. `payments` measures whole processes.
#![allow(missing_docs, clippy::unwrap_used)]

use bitcoin::Amount;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use node::dev::{Cluster, DevChain, NodeOptions};
use node::payments::{PayRequest, PayTarget, PaymentState};
use tokio::runtime::Runtime;

const NAMES: [&str; 2] = ["alice", "bob"];

async fn line(net: &mut Cluster) {
    for name in NAMES {
        net.add(name, NodeOptions::default()).await.unwrap();
    }
    net.fund(&NAMES, Amount::from_sat(40_000_000), 2).await.unwrap();
    for pair in NAMES.windows(2) {
        net.open_channel(pair[0], pair[1], 16_000_000, 0).await.unwrap();
    }
}

async fn pay(net: &Cluster, payee: &str, amount_msat: u64) {
    let request = PayRequest {
        target: PayTarget::Keysend { payee: net.node(payee).lightning.node_id(), records: vec![] },
        amount_msat: Some(amount_msat),
        max_fee_msat: None,
        retry_for: None,
        max_parts: None,
        payer_note: None,
    };
    let mut watch = net.node(NAMES[0]).payments.pay(&request, None).unwrap();
    assert_eq!(watch.outcome().await.unwrap().state, PaymentState::Succeeded);
}

fn payment(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    runtime.block_on(line(&mut net));
    let mut group = criterion.benchmark_group("payment to a neighbour");
    group.sample_size(20);
    for (name, amount_msat) in [("1 sat", 1_000), ("10,000 sat", 10_000_000)] {
        group.bench_function(BenchmarkId::from_parameter(name), |bench| {
            bench.iter(|| runtime.block_on(pay(&net, NAMES[1], amount_msat)));
        });
    }
    group.finish();
    runtime.block_on(net.shut_down());
}

criterion_group!(benches, payment);
criterion_main!(benches);
