//! A durable write of 1 KiB through the commit cycle: alone, and among 64 that share syncs.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use node::store::{Batch, Committer, EngineKind, StoreOptions, Table, open};
use tokio::runtime::Runtime;

async fn write(committer: &Committer, number: u64) {
    let mut batch = Batch::default();
    batch.put(Table::Ldk.key(number.to_be_bytes()), vec![number as u8; 1_024]);
    committer.durable(committer.enqueue(batch)).await.unwrap();
}

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("commit");
    for engine in [EngineKind::Fjall, EngineKind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let committer = Committer::new(open(dir.path(), engine, &StoreOptions::default()).unwrap());
        let cycle = committer.run_thread().unwrap();
        let mut number = 0;
        for writers in [1, 64] {
            group.throughput(Throughput::Elements(writers));
            group.bench_function(BenchmarkId::new(engine.to_string(), writers), |bench| {
                bench.iter(|| {
                    number += writers;
                    let writes = (0..writers).map(|writer| write(&committer, number + writer));
                    runtime.block_on(join_all(writes));
                });
            });
        }
        committer.stop();
        cycle.join().unwrap();
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
