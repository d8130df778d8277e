//! The crash suite: every commit of a node's life is a place where its disk fails and its power
//! goes.
//!
//! Alice, the hub and bob stand in a line, each on a disk in memory. An operation is run once
//! for each node, each of its commits and each fault: the fault comes with that commit, the node
//! loses power with what the fault leaves, starts again, and the caller repeats what was not
//! answered, under the same key. Then nobody may have closed a channel, payer, payee, LDK and
//! the channels must agree on every payment to the millisatoshi, and no journal may have a gap.
//!
//! `the_sample_survives` does a part of it, drawn by `CRASH_SEED`; `every_boundary_survives` is
//! all of it (`just crash-suite`). Read `errand.rs` for the callers, `walk.rs` for the cuts.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "crash_suite/channel.rs"]
mod channel;
#[path = "crash_suite/controls.rs"]
mod controls;
#[path = "crash_suite/errand.rs"]
mod errand;
#[path = "crash_suite/walk.rs"]
mod walk;

use bitcoin::Amount;
use node::store::DiskFault;
use tests::e2e::{NAMES, connected, embedded};

use walk::{Line, Plan, Row, print};

/// What is done while the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// From the request to a channel that both sides can use.
    Open,
    /// Alice pays bob through the hub.
    Pay { amount_msat: u64 },
    /// She pays several invoices at once.
    Burst { payments: u64, amount_msat: u64 },
    /// Bob holds a payment and takes it.
    Settle,
    /// Bob holds a payment and gives it back.
    Cancel,
    /// The node starts after a power cut while bob holds a payment, which he then takes.
    Restart,
    /// Alice pays the hub, which asked for nothing.
    Keysend,
    /// A channel is closed by agreement.
    Close,
}

const OPERATIONS: [(&str, Operation); 9] = [
    ("open a channel", Operation::Open),
    ("pay 1 sat (dust)", Operation::Pay { amount_msat: 1_000 }),
    ("pay 10,000 sat", Operation::Pay { amount_msat: 10_000_000 }),
    ("pay 8 invoices at once", Operation::Burst { payments: 8, amount_msat: 20_000 }),
    ("settle a held payment", Operation::Settle),
    ("cancel a held payment", Operation::Cancel),
    ("start after a power cut", Operation::Restart),
    ("be paid by keysend", Operation::Keysend),
    ("close a channel", Operation::Close),
];
const HOLD_MSAT: u64 = 5_000_001;
const KEYSEND_MSAT: u64 = 2_000_000;

/// What the disk does at a commit, and how many unsynced batches the power cut leaves.
#[derive(Debug, Clone, Copy)]
struct Fault {
    name: &'static str,
    fault: DiskFault,
    kept: usize,
}

const FAULTS: [Fault; 5] = [
    Fault { name: "write fails", fault: DiskFault::FailWrite, kept: 0 },
    Fault { name: "sync fails, batch lost", fault: DiskFault::FailSync, kept: 0 },
    Fault { name: "sync fails, batch kept", fault: DiskFault::FailSync, kept: 1 },
    Fault { name: "answer fails", fault: DiskFault::FailAnswer, kept: 0 },
    Fault { name: "disk full", fault: DiskFault::Full, kept: 0 },
];

const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_survives() {
    let seed = std::env::var("CRASH_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    println!("CRASH_SEED={seed}");
    let mut plan = Plan::sample(seed);
    let rows = walk_all(&mut plan).await;
    plan.assert_covers(&rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "many minutes: just crash-suite"]
async fn every_boundary_survives() {
    let mut plan = Plan::whole();
    let rows = walk_all(&mut plan).await;
    plan.assert_covers(&rows);
}

/// Bob signed for a channel that its opener forgot before it was funded. When the opener says so,
/// LDK asks bob to bump a commitment that nobody can confirm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_never_funded_costs_no_coins() {
    embedded("a channel never funded", async |net| {
        let mut line = Line::new(net).await;
        net.fund(&["bob"], Amount::from_sat(1_000_000), 1).await.unwrap();
        line.cut(net, Operation::Open, "alice", 3, FAULTS[0]).await;
        net.mine(10).await.unwrap();
        assert_eq!(net.node("bob").wallet.balance().confirmed, Amount::from_sat(1_000_000));
    })
    .await;
}

/// LDK has something to do for a channel that is closed, first thing after a start; not before
/// its monitor is under watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_closed_channel_catches_up() {
    embedded("a long way to the tip", async |net| {
        let mut line = Line::new(net).await;
        let mut errand = line.errand(net, Operation::Close).await;
        line.drive(net, &mut errand, || false).await;
        errand.conclude(net, &mut line.ledger).await;
        net.stop("alice").await.unwrap();
        net.mine(300).await.unwrap();
        net.start("alice").await.unwrap();
        connected(net).await;
    })
    .await;
}

/// Walks every operation at every node, each operation on a line of its own.
async fn walk_all(plan: &mut Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    for (title, operation) in OPERATIONS {
        embedded(title, async |net| {
            let mut line = Line::new(net).await;
            for name in NAMES {
                rows.push(line.walk(net, (title, operation), name, plan).await);
            }
        })
        .await;
    }
    print(&rows);
    rows
}
