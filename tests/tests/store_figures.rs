//! What each store engine costs: durable commits per second, disk, time to open.
//!
//! `cargo test --release -p tests --test store_figures -- --ignored --nocapture`, on the disk that
//! `TMPDIR` names; a directory in memory says nothing about syncs.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use node::store::{Batch, Committer, EngineKind, Store, StoreOptions, Table, open};

const VALUE_BYTES: usize = 1024;
const KEYS: u64 = 1_000;

#[test]
#[ignore = "minutes; prints figures"]
fn figures() {
    for engine in EngineKind::ALL {
        for waiting in [1, 8, 64] {
            commits_per_second(engine, waiting);
        }
        overwrites(engine, 100_000);
    }
}

/// Durable writes of 1 KiB with `waiting` tasks that each await one before the next.
fn commits_per_second(engine: EngineKind, waiting: u64) {
    let dir = tempfile::tempdir().unwrap();
    let committer = Committer::new(open(dir.path(), engine, &StoreOptions::default()).unwrap());
    let thread = committer.run_thread().unwrap();
    let took = Duration::from_secs(5);
    let until = Instant::now() + took;
    let waits = Arc::new(AtomicU64::new(0));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let tasks: Vec<_> = (0..waiting)
            .map(|task| {
                let committer = committer.clone();
                let waits = Arc::clone(&waits);
                tokio::spawn(async move {
                    let mut number = 0_u64;
                    while Instant::now() < until {
                        let mut batch = Batch::default();
                        let key = task.wrapping_mul(7_919) + number * 64 + task;
                        batch.put(key_of(key), value_of(key));
                        let ticket = committer.enqueue(batch);
                        let began = Instant::now();
                        committer.durable(ticket).await.unwrap();
                        let wait = began.elapsed().as_micros().try_into().unwrap();
                        waits.fetch_add(wait, Ordering::Relaxed);
                        number += 1;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let stats = committer.stats();
    committer.stop();
    thread.join().unwrap();
    println!(
        "{engine}: {waiting} waiting: {} durable writes/s, {} us mean, {:.3} syncs per write",
        stats.ops / took.as_secs(),
        waits.load(Ordering::Relaxed) / stats.ops.max(1),
        stats.batches as f64 / stats.ops.max(1) as f64
    );
}

/// `count` commits of one write each over the same keys; then the disk, and the time to open.
fn overwrites(engine: EngineKind, count: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), engine, &StoreOptions::default()).unwrap();
    let began = Instant::now();
    for number in 0..count {
        let mut batch = Batch { term: store.term(), ..Batch::default() };
        batch.put(key_of(number % KEYS), value_of(number));
        store.commit(&batch).unwrap();
    }
    let wrote = began.elapsed();
    let before = store.disk_bytes();
    let began = Instant::now();
    drop(store);
    let closed = began.elapsed();
    let began = Instant::now();
    let store: Arc<dyn Store> = open(dir.path(), engine, &StoreOptions::default()).unwrap();
    let opened = began.elapsed();
    let (from, to) = Table::Monitor.range();
    assert_eq!(store.scan(&from, &to, usize::MAX).unwrap().len() as u64, KEYS);
    println!(
        "{engine}: {count} overwriting commits in {wrote:.1?}; live data {} KiB; on disk {} KiB, \
         after opening {} KiB; closed in {closed:.1?}, opened in {opened:.1?}",
        KEYS * VALUE_BYTES as u64 / 1024,
        before / 1024,
        store.disk_bytes() / 1024
    );
}

fn key_of(number: u64) -> Vec<u8> {
    Table::Monitor.key((number % KEYS).to_be_bytes())
}

/// Bytes that do not compress.
fn value_of(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(VALUE_BYTES)
    .collect()
}
