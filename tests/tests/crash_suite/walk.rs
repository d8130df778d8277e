//! From boundary to boundary: a fault at a commit, a power cut, a start, and the checks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bitcoin::Amount;
use node::dev::{Cluster, NodeOptions};
use node::store::{DiskFault, MemoryDisk, PowerCut};
use tests::e2e::{Ledger, NAMES, WAIT, connected};

use crate::errand::Errand;
use crate::{FAULTS, Fault, OPERATIONS, Operation};

const FUNDS_SAT: u64 = 60_000_000;
/// Bob has no coins. A channel whose opener forgot it before it was funded is closed by bob with
/// his commitment, which nobody can ever confirm; his node would spend a coin to bump it, and
/// that coin would be gone for good.
const FUNDED: [&str; 2] = ["alice", "hub"];
pub const CAPACITY_SAT: u64 = 8_000_000;
/// How often a condition is looked at.
pub const LOOK: Duration = Duration::from_millis(2);
/// Nothing more comes of an errand once nobody has written for this long: three times what a
/// write may wait for company.
const QUIET: Duration = Duration::from_millis(60);

/// The line, on disks that fail when told to.
pub struct Line {
    disks: Vec<MemoryDisk>,
    pub ledger: Ledger,
    /// Errands so far.
    number: u64,
}

/// What came of one errand.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The fault happened, and all went on as it should.
    Cut,
    /// The errand ended before the commit.
    NotReached,
}

/// One row of the table.
pub struct Row {
    operation: &'static str,
    node: &'static str,
    /// The last commit that a cut was made at.
    boundaries: u64,
    cuts: u32,
    took: Duration,
}

impl Line {
    pub async fn new(net: &mut Cluster) -> Self {
        let disks: Vec<MemoryDisk> = NAMES.iter().map(|_| MemoryDisk::new()).collect();
        for (name, disk) in NAMES.iter().zip(&disks) {
            let options = NodeOptions { disk: Some(disk.clone()), ..NodeOptions::default() };
            net.add(name, options).await.unwrap();
        }
        net.fund(&FUNDED, Amount::from_sat(FUNDS_SAT), 4).await.unwrap();
        for pair in NAMES.windows(2) {
            net.open_channel(pair[0], pair[1], CAPACITY_SAT, 0).await.unwrap();
        }
        Self { disks, ledger: Ledger::new(CAPACITY_SAT * 1_000), number: 0 }
    }

    pub fn disk(&self, name: &str) -> MemoryDisk {
        self.disks[NAMES.iter().position(|other| *other == name).unwrap()].clone()
    }

    pub async fn errand(&mut self, net: &Cluster, operation: Operation) -> Errand {
        self.number += 1;
        let errand = Errand::new(net, operation, self.number).await;
        let mut nothing_to_do = Errand::Payments(Vec::new());
        self.drive(net, &mut nothing_to_do, || false).await;
        errand
    }

    /// Follows `errand` until `stop`, or until it is done and everybody is quiet.
    pub async fn drive(&self, net: &Cluster, errand: &mut Errand, stop: impl Fn() -> bool) {
        let commits = || self.disks.iter().map(MemoryDisk::commits).sum::<u64>();
        let deadline = Instant::now() + WAIT;
        let mut last = (commits(), Instant::now());
        while !stop() {
            assert!(Instant::now() < deadline, "an errand does not end");
            let done = errand.advance(net).await;
            if commits() != last.0 || !done {
                last = (commits(), Instant::now());
            } else if last.1.elapsed() > QUIET {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Runs `operation` with `fault` at the `k`-th commit of `name`.
    pub async fn cut(
        &mut self,
        net: &mut Cluster,
        operation: Operation,
        name: &str,
        k: u64,
        fault: Fault,
    ) -> Outcome {
        let disk = self.disk(name);
        let mut errand = self.errand(net, operation).await;
        let restart = operation == Operation::Restart;
        if restart {
            net.crash(name).await.unwrap();
            errand.ask_again();
        }
        let commit = disk.commits() + k;
        disk.fault_at(commit, fault.fault);
        if !restart || net.start(name).await.is_ok() {
            self.reach(net, &mut errand, || disk.commits() >= commit).await;
        }
        disk.clear_faults();
        let outcome = if disk.commits() >= commit {
            self.crash(net, name, fault).await;
            errand.ask_again();
            self.reach(net, &mut errand, || false).await;
            Outcome::Cut
        } else {
            Outcome::NotReached
        };
        errand.conclude(net, &mut self.ledger).await;
        outcome
    }

    /// Connects the line and drives `errand`, until `stop` or its end.
    async fn reach(&self, net: &Cluster, errand: &mut Errand, stop: impl Fn() -> bool) {
        let stopped = async {
            while !stop() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = stopped => return,
            () = connected(net) => {}
        }
        self.drive(net, errand, stop).await;
    }

    /// Cuts the power once the fault has come to the node, and starts it again. A node that did
    /// not even start has told nobody anything.
    async fn crash(&self, net: &mut Cluster, name: &str, fault: Fault) {
        let disk = self.disk(name);
        let mut told = 0;
        if let Some(node) = net.get(name).unwrap().running() {
            let failed = tokio::time::timeout(WAIT, node.committer.failed()).await;
            failed.expect("a failed commit ends the cycle");
            told = node.journal.last_durable();
        }
        disk.cut_power(PowerCut { kept: fault.kept, torn_writes: 0 });
        net.crash(name).await.unwrap();
        if fault.fault == DiskFault::Full {
            assert!(net.start(name).await.is_err(), "a node starts on a full disk");
            disk.set_capacity(None);
        }
        net.start(name).await.unwrap();
        let known = net.node(name).journal.last_durable();
        assert!(known >= told, "{name} told of {told} events and knows {known}");
    }

    /// Walks over every boundary of `operation` at `name`, with each fault that `plan` wants.
    pub async fn walk(
        &mut self,
        net: &mut Cluster,
        (title, operation): (&'static str, Operation),
        name: &'static str,
        plan: &mut Plan,
    ) -> Row {
        let started = Instant::now();
        let mut row = Row { operation: title, node: name, boundaries: 0, cuts: 0, took: QUIET };
        let mut next = plan.first();
        while let Some(k) = next {
            let mut reached = false;
            for fault in plan.faults() {
                let _said_if_it_fails = Place(format!("{title}, {name}, {k}, {}", fault.name));
                let outcome = self.cut(net, operation, name, k, fault).await;
                if outcome == Outcome::Cut {
                    reached = true;
                    plan.used.insert(fault.name);
                    row.cuts += 1;
                    row.boundaries = row.boundaries.max(k);
                }
            }
            next = plan.next(k, reached, row.cuts);
        }
        row.took = started.elapsed();
        println!("{row}");
        row
    }
}

/// Says where a check failed.
struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed at: {}", self.0);
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operation, node, boundaries, cuts, took } = self;
        let seconds = took.as_secs_f64();
        write!(f, "| {operation:<24} | {node:<5} | {boundaries:>10} | {cuts:>4} | {seconds:>7.1} |")
    }
}

/// Prints the table and its sums.
pub fn print(rows: &[Row]) {
    println!("| operation                | node  | boundaries | cuts | seconds |");
    println!("|--------------------------|-------|------------|------|---------|");
    let mut all = Row { operation: "all", node: "", boundaries: 0, cuts: 0, took: Duration::ZERO };
    for row in rows {
        println!("{row}");
        all.boundaries += row.boundaries;
        all.cuts += row.cuts;
        all.took += row.took;
    }
    println!("{all}");
}

/// Which boundaries get which faults.
pub struct Plan {
    /// Of the sample; `None` for every boundary and every fault.
    sample: Option<u64>,
    used: BTreeSet<&'static str>,
}

/// Cuts of a sample per operation and node.
const SAMPLE_CUTS: u32 = 2;

impl Plan {
    pub fn whole() -> Self {
        Self { sample: None, used: BTreeSet::new() }
    }

    pub fn sample(seed: u64) -> Self {
        Self { sample: Some(seed), used: BTreeSet::new() }
    }

    /// A number below `below`, of the seed alone.
    fn draw(&mut self, below: u64) -> u64 {
        let state = self.sample.get_or_insert_default();
        // Knuth's MMIX generator; its low bits are poor.
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    fn first(&mut self) -> Option<u64> {
        Some(if self.sample.is_some() { 1 + self.draw(4) } else { 1 })
    }

    /// The boundary after the `k`-th, which was `reached` or not, after this many `cuts`.
    fn next(&mut self, k: u64, reached: bool, cuts: u32) -> Option<u64> {
        match (self.sample, reached) {
            (None, true) => Some(k + 1),
            (Some(_), true) if cuts < SAMPLE_CUTS => Some(k + 2 + self.draw(3)),
            // So short an operation, or so quiet a node: its first boundary, if it has one.
            (Some(_), false) if cuts == 0 && k > 1 => Some(1),
            _ => None,
        }
    }

    fn faults(&mut self) -> Vec<Fault> {
        if self.sample.is_none() {
            return FAULTS.to_vec();
        }
        let unused = FAULTS.iter().find(|fault| !self.used.contains(fault.name)).copied();
        vec![unused.unwrap_or_else(|| {
            let at = self.draw(FAULTS.len() as u64);
            FAULTS[usize::try_from(at).unwrap()]
        })]
    }

    /// Asserts that nothing was left out.
    pub fn assert_covers(&self, rows: &[Row]) {
        for fault in &FAULTS {
            assert!(self.used.contains(fault.name), "no cut with {}", fault.name);
        }
        for (title, _) in OPERATIONS {
            let cuts: u32 = rows.iter().filter(|r| r.operation == title).map(|r| r.cuts).sum();
            assert!(cuts > 0, "no cut of {title}");
        }
        for name in NAMES {
            let cuts: u32 = rows.iter().filter(|r| r.node == name).map(|r| r.cuts).sum();
            assert!(cuts > 0, "no cut of {name}");
        }
    }
}
