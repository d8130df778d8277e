//! Opening a channel, from the request until both sides may use it, on the embedded chain.
#![allow(missing_docs, clippy::unwrap_used)]

use bitcoin::Amount;
use criterion::{Criterion, criterion_group, criterion_main};
use node::dev::{Cluster, DevChain, NodeOptions};
use tokio::runtime::Runtime;

fn open(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    runtime.block_on(async {
        for name in ["alice", "bob"] {
            net.add(name, NodeOptions::default()).await.unwrap();
        }
        net.fund(&["alice", "bob"], Amount::from_sat(50_000_000), 4).await.unwrap();
    });
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    group.bench_function("a channel, with its blocks", |bench| {
        bench.iter(|| runtime.block_on(net.open_channel("alice", "bob", 100_000, 0)).unwrap());
    });
    group.finish();
    runtime.block_on(net.shut_down());
}

criterion_group!(benches, open);
criterion_main!(benches);
