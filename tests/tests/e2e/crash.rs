//! Power cuts under load, on either chain: what was not durable is gone, and nobody was told of
//! it. The crash suite cuts at every commit of one thing at a time.

use bitcoin::Amount;
use node::dev::{Cluster, NodeOptions};
use node::store::{DiskFault, MemoryDisk};
use tests::e2e::{Ledger, NAMES, WAIT, burst, connected, conserved};

/// Which node loses power, how many commits after the start of a burst, and what its last
/// commit comes to: nothing at all, a write without its sync, or a sync that nobody heard of.
const CUTS: [(&str, u64, DiskFault); 6] = [
    ("hub", 1, DiskFault::FailWrite),
    ("hub", 8, DiskFault::FailSync),
    ("hub", 14, DiskFault::FailAnswer),
    ("bob", 6, DiskFault::FailWrite),
    ("alice", 8, DiskFault::FailSync),
    ("alice", 12, DiskFault::FailAnswer),
];

const CAPACITY_SAT: u64 = 1_000_000;

pub async fn no_payment_is_lost_or_doubled_by_a_power_cut(net: &mut Cluster) {
    let disks: Vec<MemoryDisk> = NAMES.iter().map(|_| MemoryDisk::new()).collect();
    for (name, disk) in NAMES.iter().zip(&disks) {
        let options = NodeOptions { disk: Some(disk.clone()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
    }
    net.fund(&NAMES, Amount::from_sat(4_000_000), 2).await.unwrap();
    for pair in NAMES.windows(2) {
        net.open_channel(pair[0], pair[1], CAPACITY_SAT, 0).await.unwrap();
    }
    let mut ledger = Ledger::new(CAPACITY_SAT * 1_000);
    for (name, after, fault) in CUTS {
        let disk = &disks[NAMES.iter().position(|other| *other == name).unwrap()];
        let burst = burst(net, "alice", "bob", 120).await;
        let commit = disk.commits() + after;
        disk.fault_at(commit, fault);
        net.wait("power cut", WAIT, || disk.commits() >= commit).await.unwrap();
        let started = if name == "alice" {
            net.crash(name).await.unwrap();
            let started = burst.abandoned().await;
            net.start(name).await.unwrap();
            started
        } else {
            net.crash(name).await.unwrap();
            net.start(name).await.unwrap();
            burst.finished().await
        };
        connected(net).await;
        println!("  {name} lost power at commit {commit} ({fault:?})");
        ledger.check(net, &started).await;
    }
    conserved(net).await;
}
