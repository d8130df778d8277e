//! What the end-to-end scenarios share: a network on either chain, and the few steps that every
//! scenario is made of.
//!
//! A scenario is an `async fn(&mut Cluster)`. [`embedded`] and [`bitcoind`] give it an empty
//! network on a chain of their own and stop both after it. Nothing here sleeps to let time
//! pass: every wait is for a condition, and fails loudly if it does not come.

mod batch;
mod burst;
mod chain;
mod disk;
mod joined;
mod ledger;
mod steps;
mod tree;

use std::sync::Once;
use std::time::{Duration, Instant};

use node::dev::{Cluster, DevChain, find_bitcoind};
use node::runtime::telemetry::{self, LogFormat};
use tokio::sync::Semaphore;

pub use batch::{
    BatchMember, FormedBatch, batch_usable, broadcast, form, form_deep, form_paying, hub_record,
    open_unfunded, signed_leaves, signed_tree, signed_tree_of, slots, tree_stays_off_chain,
};
pub use burst::{Burst, burst};
pub use chain::{
    double_spend, fees_sat, mine_until, mine_until_swept, mine_until_swept_at, output_of,
};
pub use disk::{Disks, Image, copy, start_on_disks, wake};
pub use joined::{
    DEPTH, HUB, batches_in_mempool, clear_end, connect, formed, forming_ended, has_moved, is_left,
    join, mine_heard, moved, newest, next_batch, request, usable, wish, wishes,
};
pub use ledger::{Ledger, NAMES, connected, hub_fee};
pub use steps::{
    channel_balance, conserved, crash, hold, holds, in_time, invoice, invoice_state, line,
    open_request, outcome, paid, pay, pay_request, payments, pays, preimage, received, records,
    settled, told, until, usable_channel, wallet_sat,
};
pub use tree::{Eye, in_mempool, other_spender, path, spender};

/// How long anything may take before it counts as never: far above what a loaded machine needs.
pub const WAIT: Duration = Duration::from_secs(120);

/// Networks that may live at once: each is several nodes with threads and disks of their own.
static NETWORKS: Semaphore = Semaphore::const_new(2);

/// Runs `scenario` on the chain inside this process.
///
/// # Panics
///
/// If the scenario does, or the network cannot be started.
pub async fn embedded(name: &str, scenario: impl AsyncFnOnce(&mut Cluster)) {
    start_logs();
    let _turn = NETWORKS.acquire().await.expect("the semaphore is never closed");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let net = Cluster::new(DevChain::embedded(), dir.path());
    run(name, net, scenario).await;
}

/// Runs `scenario` on a bitcoind of its own, or says that it is skipped if none is found.
///
/// # Panics
///
/// If the scenario does, or the network cannot be started.
pub async fn bitcoind(name: &str, scenario: impl AsyncFnOnce(&mut Cluster)) {
    if find_bitcoind().is_none() {
        println!("skipped: no bitcoind ({name})");
        return;
    }
    start_logs();
    let _turn = NETWORKS.acquire().await.expect("the semaphore is never closed");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let chain = DevChain::bitcoind(None, &dir.path().join("bitcoind"))
        .await
        .expect("the bitcoind that was found runs");
    let net = Cluster::new(chain, dir.path());
    run(name, net, scenario).await;
}

async fn run(name: &str, mut net: Cluster, scenario: impl AsyncFnOnce(&mut Cluster)) {
    let started = Instant::now();
    scenario(&mut net).await;
    println!("{}: {name} took {:.1?}", net.chain.name(), started.elapsed());
    net.shut_down().await;
}

/// Logs go to standard error where `E2E_LOG` asks for them, for example `E2E_LOG=info`.
fn start_logs() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        if let Ok(filter) = std::env::var("E2E_LOG") {
            telemetry::start(&filter, LogFormat::Text);
        }
    });
}
