//! Blocks that turn out not to be.

use bitcoin::Amount;
use node::channels::ChannelState;
use node::dev::{Cluster, NodeOptions};
use node::lightning::types::ChannelRef;
use tests::e2e::{
    NAMES, channel_balance, connected, conserved, invoice, line, open_request, paid, settled,
};

const CAPACITY_SAT: u64 = 500_000;

/// Asks for a channel from alice to bob and returns once its funding is in the mempool.
async fn ask(net: &Cluster) -> ChannelRef {
    let bob = net.node("bob").lightning.node_id();
    let address = net.get("bob").unwrap().address();
    let channels = &net.node("alice").channels;
    let request = open_request(bob, Some(address), CAPACITY_SAT);
    let channel = channels.request_open(request, None).await.unwrap().record.channel;
    net.wait_channel("alice", channel, "funded channel", |view| {
        view.record.state == ChannelState::AwaitingConfirmation
    })
    .await
    .unwrap();
    let funding = channels.get(channel).unwrap().record.funding.unwrap().txid;
    while !net.chain.knows(funding).await.unwrap() {
        tokio::task::yield_now().await;
    }
    channel
}

async fn reorg(net: &Cluster, depth: u32) {
    net.chain.reorg(depth).await.unwrap();
    net.synced().await.unwrap();
}

/// Asserts that the channel carries a payment of `amount_msat` and neighbours agree.
async fn carries(net: &Cluster, from: &str, to: &str, amount_msat: u64) {
    let bill = invoice(net, to, Some(amount_msat)).await;
    paid(net, from, &bill.invoice, None).await;
    settled(net).await;
}

pub async fn a_channel_being_opened_survives(net: &mut Cluster) {
    for name in ["alice", "bob"] {
        net.add(name, NodeOptions::default()).await.unwrap();
    }
    net.fund(&["alice"], Amount::from_sat(2_000_000), 3).await.unwrap();
    // The funding transaction is one or two blocks deep, loses them, and confirms again.
    for depth in [1, 2] {
        let channel = ask(net).await;
        net.mine(depth).await.unwrap();
        let view = net.node("alice").channels.get(channel).unwrap();
        assert_eq!(view.live.unwrap().confirmations.0, depth);
        reorg(net, depth).await;
        let view = net.node("alice").channels.get(channel).unwrap();
        let deep = view.live.unwrap().confirmations.0;
        assert!(deep <= depth + 1, "{deep} confirmations in {} new blocks", depth + 1);
        net.mine(3).await.unwrap();
        net.wait_channel("alice", channel, "active channel", |view| {
            view.record.state == ChannelState::Active
                && view.live.as_ref().is_some_and(|live| live.usable)
        })
        .await
        .unwrap();
        let paid_before = channel_balance(net, "bob", "alice");
        carries(net, "alice", "bob", 10_000_000).await;
        assert_eq!(channel_balance(net, "bob", "alice"), paid_before + 10_000_000);
    }
    for name in ["alice", "bob"] {
        let records = crate::open::records(net, name).await;
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| record.state == ChannelState::Active), "{records:?}");
    }
    conserved(net).await;
}

pub async fn an_active_channel_survives(net: &mut Cluster) {
    line(net, &NAMES, 2_000_000, CAPACITY_SAT).await;
    carries(net, "alice", "bob", 1_000_000).await;
    // The younger channel is three blocks deep: it stays in the chain, then hardly.
    for depth in [1, 2] {
        reorg(net, depth).await;
        carries(net, "alice", "bob", 1_000_000).await;
    }
    assert_eq!(channel_balance(net, "bob", "hub"), 3_000_000);
    all_active(net).await;
    conserved(net).await;
}

pub async fn a_reorg_while_a_node_is_down_is_followed_at_its_start(net: &mut Cluster) {
    line(net, &NAMES, 2_000_000, CAPACITY_SAT).await;
    for name in ["bob", "hub"] {
        net.stop(name).await.unwrap();
        reorg(net, 2).await;
        net.mine(1).await.unwrap();
        net.start(name).await.unwrap();
        net.synced().await.unwrap();
        connected(net).await;
        carries(net, "alice", "bob", 2_000_000).await;
    }
    assert_eq!(channel_balance(net, "bob", "hub"), 4_000_000);
    all_active(net).await;
    conserved(net).await;
}

async fn all_active(net: &Cluster) {
    for name in NAMES {
        let records = crate::open::records(net, name).await;
        assert!(records.iter().all(|record| record.state == ChannelState::Active), "{records:?}");
    }
}
