//! A hub, users who joined its batch by the protocol, and what they do in it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, OutPoint, Transaction, Txid};
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::batches::{BatchView, JoinRequest, JoinView, SettlementView};
use node::chain::TxStatus;
use node::channels::ChannelState;
use node::config::Config;
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
use tests::e2e::WAIT;
pub use tests::e2e::{crash, mine_heard, pays, until};

pub const HUB: &str = "hub";
pub const USERS: [&str; 11] =
    ["ada", "ben", "cid", "dot", "eve", "fay", "gus", "hal", "ida", "jon", "kim"];
const FUNDS_SAT: u64 = 6_000_000;
pub const CAPACITY_SAT: u64 = 300_000;
/// Confirmations that a batch needs on regtest.
const DEPTH: u32 = 3;

/// Blocks for which the hub waits for further keys.
pub const PATIENCE: u32 = 3;

/// Starts a hub with coins and a live batch of `users`.
pub async fn batch(
    net: &mut Cluster,
    users: &[&str],
    configure: impl Fn(&mut Config) + Send + Sync + Copy + 'static,
) {
    for name in [HUB].iter().chain(users) {
        let configure = move |config: &mut Config| {
            config.batch.early_value_ppm = 1_000_000;
            config.batch.reclaim_patience_blocks = PATIENCE;
            configure(config);
        };
        let disk = Some(MemoryDisk::new());
        net.add(name, NodeOptions { disk, configure: Arc::new(configure) }).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    for user in users {
        connect(net, user).await;
    }
    for user in users {
        let hub = net.node(HUB).lightning.node_id();
        let capacity = Amount::from_sat(CAPACITY_SAT);
        let request = JoinRequest { hub, capacity, inbound: Amount::ZERO };
        net.node(user).batches.join(&request, None).await.unwrap();
    }
    until("the batch transaction", async || {
        let batches = net.node(HUB).batches.batches().await;
        let Some(txid) = batches.first().and_then(|batch| batch.txid) else { return false };
        batches[0].phase == HubPhase::Confirming && net.chain.knows(txid).await.unwrap()
    })
    .await;
    net.mine(DEPTH).await.unwrap();
    for user in users {
        usable(net, user).await;
    }
    until("a live batch", async || matches!(hub_batch(net).await.phase, HubPhase::Live { .. }))
        .await;
    assert_eq!(hub_batch(net).await.users.len(), users.len());
}

pub async fn connect(net: &Cluster, user: &str) {
    let hub = net.node(HUB).lightning.node_id();
    let address = net.get(HUB).unwrap().address();
    let there = net.node(user);
    let _kept = there.peers.remember(hub, &address, true);
    let _or_already_so = there.lightning.connect(hub, &address).await;
    let id = there.lightning.node_id();
    net.wait("connection", WAIT, || {
        net.node(HUB).lightning.is_connected(&id) && there.lightning.is_connected(&hub)
    })
    .await
    .unwrap();
}

/// Waits until the channel of `user` can be used on both sides.
pub async fn usable(net: &Cluster, user: &str) {
    let funding = wish(net, user).await.funding.unwrap();
    net.wait("usable channel", WAIT, || {
        [HUB, user].iter().all(|name| {
            let channels = net.node(name).lightning.channels();
            let mut own = channels.iter().filter(|c| c.funding == Some(funding));
            own.any(|c| c.usable && c.counterparty_fees.is_some())
        })
    })
    .await
    .unwrap();
}

pub async fn wish(net: &Cluster, user: &str) -> JoinView {
    net.node(user).batches.joins().await.pop().unwrap()
}

pub async fn hub_batch(net: &Cluster) -> BatchView {
    net.node(HUB).batches.batches().await.pop().unwrap()
}

pub async fn settlement(net: &Cluster) -> SettlementView {
    let batch = hub_batch(net).await.batch;
    net.node(HUB).batches.settlement(batch).await.unwrap()
}

/// `user` and hub close together; both know it when this returns.
pub async fn close(net: &Cluster, user: &str) {
    let channel = wish(net, user).await.channel.unwrap();
    net.node(user).channels.close(channel, false, None, None).await.unwrap();
    retired(net, user).await;
}

pub async fn retired(net: &Cluster, user: &str) {
    let id = net.node(user).lightning.node_id();
    until("a retired channel on both sides", async || {
        wish(net, user).await.state == UserPhase::Leaf(LeafState::Retired)
            && settlement(net).await.retired.contains(&id)
    })
    .await;
}

/// Waits until the hub has the keys of exactly `users`.
pub async fn released(net: &Cluster, users: &[&str]) {
    let mut ids: Vec<_> = users.iter().map(|user| net.node(user).lightning.node_id()).collect();
    ids.sort();
    until("released keys", async || {
        let mut released = settlement(net).await.released;
        released.sort();
        released == ids
    })
    .await;
}

/// The transaction of the mempool that spends `outpoint`, once there is one.
pub async fn spender(net: &Cluster, outpoint: OutPoint) -> Transaction {
    let source = net.chain.source();
    let end = tokio::time::Instant::now() + WAIT;
    loop {
        for txid in source.mempool().await.unwrap() {
            if let Some(found) = source.mempool_transaction(txid).await.unwrap()
                && found.input.iter().any(|input| input.previous_output == outpoint)
            {
                return found;
            }
        }
        assert!(tokio::time::Instant::now() < end, "nothing spends {outpoint}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn is_confirmed(net: &Cluster, txid: Txid) -> bool {
    let status = net.chain.source().transaction_status(txid).await.unwrap();
    matches!(status, TxStatus::Confirmed(_))
}

/// Mines until the hub's batch is settled.
pub async fn mine_until_settled(net: &Cluster, most: u32) {
    for _ in 0..most {
        if settlement(net).await.phase == HubPhase::Settled {
            return;
        }
        mine_heard(net, 1).await;
    }
    panic!("the batch is not settled: {:?}", settlement(net).await);
}

/// Whether LDK at `name` still watches the channel that `user` has or had with the hub.
pub async fn is_watched(net: &Cluster, name: &str, user: &str) -> bool {
    let funding = wish(net, user).await.funding.unwrap();
    let node = net.node(name);
    let channel = node.channels.by_funding()[&funding];
    let record = node.channels.recorded(channel).unwrap();
    node.lightning.has_monitor(record.channel_id.unwrap())
}

/// Whether `name` brings nothing onto the chain.
pub fn is_quiet(net: &Cluster, name: &str) -> bool {
    net.node(name).unroller.unrolls().is_empty()
}

pub fn is_closed(net: &Cluster, name: &str, funding: OutPoint) -> bool {
    let node = net.node(name);
    let channel = node.channels.by_funding()[&funding];
    node.channels.recorded(channel).unwrap().state == ChannelState::Closed
}
