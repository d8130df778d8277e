//! The mathematics of a batch: its tree, everybody's signatures, and one user's check.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../channel-contracts/tests/common/batch.rs"]
#[allow(dead_code)]
mod common;

use channel_contracts::tree::UserSlot;
use common::Batch;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const RADIX: u8 = 4;

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.sample_size(10);
    for users in [64, 256] {
        let batch = Batch::new(users, RADIX);
        group.bench_function(BenchmarkId::new("build the tree", users), |bench| {
            bench.iter(|| batch.tree());
        });
        group.bench_function(BenchmarkId::new("sign, all parties", users), |bench| {
            bench.iter(|| batch.sign());
        });
        let signed = batch.sign();
        let slot = UserSlot(0);
        let proposal = signed.tree().proposal(slot).unwrap();
        let terms = batch.terms_of(signed.tree(), slot);
        group.bench_function(BenchmarkId::new("a user checks its proposal", users), |bench| {
            bench.iter(|| proposal.verify(&terms).unwrap());
        });
        let path = signed.path(slot).unwrap();
        let ends = path.stated_ends().unwrap();
        group.bench_function(BenchmarkId::new("verify a path", users), |bench| {
            bench.iter(|| path.verify(&ends).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, batch);
criterion_main!(benches);
