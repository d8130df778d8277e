//! What no node survives: disks that lie, and stores that tear a batch. Here the checks must
//! fail, or they could not fail at all.

use std::time::Duration;

use node::dev::Cluster;
use node::store::{DiskFault, PowerCut};
use tests::e2e::{NAMES, connected, embedded, records};

use crate::Operation;
use crate::errand::Errand;
use crate::walk::Line;

/// How long a line may take to be as it was; far above what it needs.
const PATIENCE: Duration = Duration::from_secs(6);
const PAYMENT: Operation = Operation::Pay { amount_msat: 10_000_000 };

/// Runs `scenario` on a line of its own, and returns what made it fail.
fn failure(title: &'static str, scenario: impl AsyncFnOnce(&mut Cluster) + Send) -> Option<String> {
    // A thread, since LDK may panic with locks held: then nothing there can be used any more.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(embedded(title, scenario));
        });
        let panic = run.join().err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"?").to_string()))
    })
}

/// Does what follows every cut, within [`PATIENCE`].
async fn go_on(net: &Cluster, line: &mut Line, mut errand: Errand) {
    let checks = async {
        connected(net).await;
        errand.ask_again();
        line.drive(net, &mut errand, || false).await;
        errand.conclude(net, &mut line.ledger).await;
    };
    if tokio::time::timeout(PATIENCE, checks).await.is_err() {
        let mut states = Vec::new();
        for name in NAMES {
            for record in records(net, name).await {
                states.push(format!("{name} {:?} {:?}", record.state, record.close_reason));
            }
        }
        panic!("the line is not as it was: {}", states.join(", "));
    }
}

/// The disk of `name` says that it keeps what it does not, while a payment goes through.
async fn lie(net: &mut Cluster, name: &str) {
    let mut line = Line::new(net).await;
    let mut errand = line.errand(net, PAYMENT).await;
    let disk = line.disk(name);
    disk.lose_syncs_from(Some(disk.commits() + 1));
    line.drive(net, &mut errand, || false).await;
    net.crash(name).await.unwrap();
    disk.lose_syncs_from(None);
    net.start(name).await.unwrap();
    go_on(net, &mut line, errand).await;
}

/// Of the hub's `k`-th batch of a payment, the first `torn_writes` writes survive.
async fn tear(net: &mut Cluster, k: u64, torn_writes: usize) {
    let mut line = Line::new(net).await;
    let mut errand = line.errand(net, PAYMENT).await;
    let disk = line.disk("hub");
    let commit = disk.commits() + k;
    disk.fault_at(commit, DiskFault::FailSync);
    line.drive(net, &mut errand, || disk.commits() >= commit).await;
    assert!(disk.commits() >= commit, "the payment has no such commit");
    net.node("hub").committer.failed().await;
    disk.cut_power(PowerCut { kept: 0, torn_writes });
    net.crash("hub").await.unwrap();
    net.start("hub").await.unwrap();
    go_on(net, &mut line, errand).await;
}

/// Asserts that a lying disk of each of `names` is noticed.
fn lies(names: &[&'static str]) {
    for &name in names {
        let noticed = failure("a disk that lies", async move |net| lie(net, name).await);
        let noticed = noticed.unwrap_or_else(|| panic!("nobody noticed that {name}'s disk lies"));
        println!("{name}: {noticed}");
    }
}

#[test]
fn a_disk_that_lies_is_noticed() {
    lies(&["hub"]);
}

#[test]
#[ignore = "half a minute: just crash-suite"]
fn every_disk_that_lies_is_noticed() {
    lies(&NAMES);
}

/// Tears the batches at `boundaries` after `writes` of their writes; how many were noticed.
fn torn(boundaries: std::ops::RangeInclusive<u64>, writes: &[usize]) -> usize {
    let mut noticed = 0;
    for k in boundaries {
        for &torn_writes in writes {
            let failure = failure("a torn batch", async move |net| tear(net, k, torn_writes).await);
            noticed += usize::from(failure.is_some());
            let outcome = failure.unwrap_or_else(|| "harmless".to_owned());
            println!("batch {k}, {torn_writes} writes of it: {outcome}");
        }
    }
    noticed
}

#[test]
fn a_torn_batch_is_noticed() {
    assert!(torn(2..=2, &[1]) > 0);
}

#[test]
#[ignore = "some minutes: just crash-suite"]
fn every_torn_batch_is_noticed_or_harmless() {
    assert!(torn(1..=4, &[1, 2, 3, 4, 6, 8]) > 0);
}
