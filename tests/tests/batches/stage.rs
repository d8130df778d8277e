//! A hub and users, and what scenarios do with them.

use bitcoin::Amount;
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::batches::{BatchView, JoinRequest, JoinView};
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
use tests::e2e::WAIT;
pub use tests::e2e::{in_time, pays, until};

pub const HUB: &str = "hub";
pub const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
pub const FUNDS_SAT: u64 = 5_000_000;
pub const CAPACITY_SAT: u64 = 300_000;
/// Confirmations that a batch needs on regtest.
pub const DEPTH: u32 = 3;

pub async fn start(net: &mut Cluster, users: usize) {
    for name in [HUB].iter().chain(&USERS[..users]) {
        let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    for user in &USERS[..users] {
        connect(net, user).await;
    }
}

pub async fn connect(net: &Cluster, user: &str) {
    let hub = net.node(HUB).lightning.node_id();
    let address = net.get(HUB).unwrap().address();
    let there = net.node(user);
    let _kept = there.peers.remember(hub, &address, true);
    there.lightning.connect(hub, &address).await.unwrap();
    let id = there.lightning.node_id();
    net.wait("connection", WAIT, || net.node(HUB).lightning.is_connected(&id)).await.unwrap();
}

pub fn request(net: &Cluster, capacity_sat: u64) -> JoinRequest {
    JoinRequest {
        hub: net.node(HUB).lightning.node_id(),
        capacity: Amount::from_sat(capacity_sat),
        inbound: Amount::ZERO,
    }
}

pub async fn join(net: &Cluster, user: &str) -> JoinView {
    net.node(user).batches.join(&request(net, CAPACITY_SAT), None).await.unwrap()
}

pub async fn wish(net: &Cluster, user: &str) -> JoinView {
    net.node(user).batches.joins().await.pop().unwrap()
}

pub async fn newest(net: &Cluster) -> Option<BatchView> {
    net.node(HUB).batches.batches().await.pop()
}

/// Lets `users` join one batch and brings it to life.
pub async fn formed(net: &mut Cluster, users: &[&str]) {
    for user in users {
        join(net, user).await;
    }
    until("the batch transaction", async || {
        newest(net).await.is_some_and(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    usable(net, users).await;
}

/// Waits until every batch transaction that was handed over is where a block finds it.
pub async fn in_mempool(net: &Cluster) {
    until("the batch transaction in the mempool", async || {
        let mut all = true;
        for batch in net.node(HUB).batches.batches().await {
            if let (HubPhase::Confirming, Some(txid)) = (batch.phase, batch.txid) {
                all &= net.chain.knows(txid).await.unwrap();
            }
        }
        all
    })
    .await;
}

/// Mines until the channels of `users` can be used.
pub async fn usable(net: &mut Cluster, users: &[&str]) {
    in_mempool(net).await;
    net.mine(DEPTH).await.unwrap();
    until("channels that can be used", async || {
        let mut ready = true;
        for user in users {
            let wish = wish(net, user).await;
            let channels = net.node(user).lightning.channels();
            ready &= matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. }))
                && channels.iter().any(|c| {
                    Some(c.channel) == wish.channel && c.usable && c.counterparty_fees.is_some()
                });
        }
        ready && newest(net).await.is_some_and(|b| matches!(b.phase, HubPhase::Live { .. }))
    })
    .await;
}
