//! A hub, users with channels of one batch, and what swaps come to.

use std::sync::Arc;

use bitcoin::Amount;
use channel_contracts::batch::SwapId;
use node::config::Config;
use node::dev::{Cluster, NodeOptions};
use node::store::{DiskFault, MemoryDisk};
use node::swaps::{DepositRequest, SwapError, SwapState, SwapView, WithdrawRequest};
pub use tests::e2e::HUB;
use tests::e2e::{connect, formed, in_time, pays, until};

pub const USERS: [&str; 3] = ["ada", "ben", "cid"];
pub const SWAP_SAT: u64 = 60_000;
const FUNDS_SAT: u64 = 5_000_000;
pub const CAPACITY_SAT: u64 = 300_000;
const BALANCE_MSAT: u64 = 150_000_000;
/// What a power cut may come to.
pub const FAULTS: [DiskFault; 3] =
    [DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer];
/// Every so many commits of a node are tried.
const CUT_EVERY: u64 = 5;
/// Cuts of one node; each takes a swap.
const CUTS_MAX: u64 = 5;

/// Starts a hub and `users`, who have a balance each in channels of one batch. Withdrawals wait
/// one block for others.
pub async fn start(net: &mut Cluster, users: &[&'static str]) -> Vec<MemoryDisk> {
    start_with(net, users, 1).await
}

/// As [`start`]; withdrawals wait for `patience` blocks.
pub async fn start_with(
    net: &mut Cluster,
    users: &[&'static str],
    patience: u32,
) -> Vec<MemoryDisk> {
    let mut disks = Vec::new();
    for name in [HUB].iter().chain(users) {
        let disk = MemoryDisk::new();
        let configure = Arc::new(move |config: &mut Config| {
            config.batch.swap_patience_blocks = patience;
        });
        net.add(name, NodeOptions { disk: Some(disk.clone()), configure }).await.unwrap();
        disks.push(disk);
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 4).await.unwrap();
    for user in users {
        connect(net, user).await;
    }
    formed(net, users, CAPACITY_SAT).await;
    for user in users {
        pays(net, HUB, user, BALANCE_MSAT).await;
    }
    disks
}

pub async fn withdraw(net: &Cluster, user: &str, sat: u64) -> SwapId {
    let amount = Amount::from_sat(sat);
    let request = WithdrawRequest { amount, destination: None, max_fee: None, channel: None };
    net.node(user).swaps.withdraw(&request, None).await.unwrap().id
}

pub async fn deposit(net: &Cluster, user: &str, sat: u64) -> SwapId {
    let amount = Amount::from_sat(sat);
    let request = DepositRequest { amount, max_fee: None, feerate: None, channel: None };
    net.node(user).swaps.deposit(&request, None).await.unwrap().id
}

pub async fn swap(net: &Cluster, name: &str, id: SwapId) -> SwapView {
    net.node(name).swaps.get(id).await.unwrap()
}

/// Waits until the swap stands like that for `name`.
pub async fn stands(net: &Cluster, name: &str, id: SwapId, states: &[SwapState]) {
    let mut is_so = async || {
        let view = net.node(name).swaps.get(id).await;
        view.is_some_and(|view| states.contains(&view.state))
    };
    if !in_time(&mut is_so).await {
        panic!("{name} is not at {states:?}: {:#?}", net.node(name).swaps.list().await);
    }
}

/// Mines until both sides are at an end, each block once what it asks for is broadcast.
pub async fn ended(net: &Cluster, user: &str, id: SwapId, most: u32) {
    for _ in 0..most {
        let mut both_final = true;
        for name in [HUB, user] {
            let view = net.node(name).swaps.get(id).await;
            both_final &= view.is_some_and(|view| view.state.is_final());
        }
        if both_final {
            return;
        }
        settle_down().await;
        net.mine(1).await.unwrap();
    }
    for name in [HUB, user] {
        println!("{name}: {:#?}", net.node(name).swaps.get(id).await);
    }
    panic!("{most} blocks are not enough");
}

/// Lets both sides say and broadcast what a block asks for.
pub async fn settle_down() {
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
}

/// Waits until the transaction that carries the output of `id` is where a block finds it.
pub async fn carried(net: &Cluster, name: &str, id: SwapId) {
    until("the transaction with the output", async || {
        let view = net.node(name).swaps.get(id).await;
        match view.and_then(|view| view.carrier) {
            Some(txid) => net.chain.knows(txid).await.unwrap(),
            None => false,
        }
    })
    .await;
}

/// Waits until the transaction of `name` that spends the output of `id` is where a block finds it.
pub async fn spent(net: &Cluster, name: &str, id: SwapId) {
    until("the transaction that spends the output", async || {
        let view = net.node(name).swaps.get(id).await;
        match view.and_then(|view| view.spend) {
            Some(txid) => net.chain.knows(txid).await.unwrap(),
            None => false,
        }
    })
    .await;
}

/// Cuts the power of the hub, then of ada, at commits of swaps that `ask` begins by number: each
/// is brought to its end all the same.
pub async fn power_cuts(
    net: &mut Cluster,
    disks: &[MemoryDisk],
    ask: impl AsyncFn(&Cluster, u64) -> Result<SwapView, SwapError>,
) {
    for (name, disk) in [HUB, "ada"].iter().zip(disks) {
        let mut cuts = 0;
        for cut in 0..CUTS_MAX {
            let fault = FAULTS[(cut % 3) as usize];
            let cut_at = disk.commits() + 1 + cut * CUT_EVERY;
            let before = ids(net).await;
            disk.fault_at(cut_at, fault);
            let asked = ask(net, cut).await;
            for _ in 0..12 {
                if disk.commits() >= cut_at {
                    break;
                }
                settle_down().await;
                net.mine(1).await.unwrap();
            }
            let was_cut = disk.commits() >= cut_at;
            disk.clear_faults();
            if was_cut {
                println!("  {name} lost power {} commits in ({fault:?})", cut * CUT_EVERY);
                net.crash(name).await.unwrap();
                net.start(name).await.unwrap();
                connect(net, "ada").await;
                cuts += 1;
            }
            // What was cut off before it was recorded is asked for again.
            let known = ids(net).await.into_iter().find(|id| !before.contains(id));
            let id = match (asked, known) {
                (_, Some(known)) => known,
                (Ok(lost), None) => panic!("{lost:?} was answered and is gone"),
                (Err(_), None) => again(net, &ask, cut).await,
            };
            ended(net, "ada", id, 100).await;
            for side in [HUB, "ada"] {
                stands(net, side, id, &[SwapState::Done]).await;
            }
            if !was_cut {
                break;
            }
        }
        assert!(cuts > 0, "{name} was never cut");
    }
}

/// Asks until the channel is usable again after a crash.
async fn again(
    net: &Cluster,
    ask: &impl AsyncFn(&Cluster, u64) -> Result<SwapView, SwapError>,
    number: u64,
) -> SwapId {
    let mut asked = ask(net, number).await;
    in_time(&mut async || {
        if asked.is_err() {
            asked = ask(net, number).await;
        }
        asked.is_ok()
    })
    .await;
    match asked {
        Ok(view) => view.id,
        Err(error) => panic!("{error}: {:#?}", net.node("ada").lightning.channels()),
    }
}

async fn ids(net: &Cluster) -> Vec<SwapId> {
    net.node("ada").swaps.list().await.into_iter().map(|swap| swap.id).collect()
}
