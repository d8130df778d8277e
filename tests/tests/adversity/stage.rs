//! Nodes on disks that can be copied, and batches whose channels are paid.

use bitcoin::{Amount, OutPoint, Transaction};
use node::dev::Cluster;
pub use tests::e2e::{DEPTH, HUB, copy, fees_sat, output_of, start_on_disks as start, wake};
use tests::e2e::{FormedBatch, batch_usable, broadcast, other_spender, until};

pub const CAPACITY_SAT: u64 = 100_000;
/// More blocks than a payment's time lock and the delay of a lone closer together.
pub const MOST_BLOCKS: u32 = 600;

/// Pays `sat` to `name`, in `coins` coins.
pub async fn fund(net: &Cluster, name: &str, sat: u64, coins: u32) {
    net.fund(&[name], Amount::from_sat(sat), coins).await.unwrap();
}

/// Connects `user` to the hub at `address`, for good.
pub async fn connected_at(net: &Cluster, user: &str, address: &str) {
    let (hub, there) = (net.node(HUB), net.node(user));
    let (hub_id, id) = (hub.lightning.node_id(), there.lightning.node_id());
    let _kept = there.peers.remember(hub_id, address, true);
    // One that is lost on the other side alone is noticed, and made again.
    until("a connection", async || {
        let _or_soon = there.lightning.connect(hub_id, address).await;
        there.lightning.is_connected(&hub_id) && hub.lightning.is_connected(&id)
    })
    .await;
}

/// Brings a formed batch to life.
pub async fn live(net: &Cluster, batch: &FormedBatch) {
    broadcast(net, HUB, batch).await;
    net.mine(DEPTH).await.unwrap();
    batch_usable(net, HUB, batch).await;
}

/// Mines the transaction that spends `outpoint`, once the mempool has one.
pub async fn mine_spender(net: &Cluster, outpoint: OutPoint) -> Transaction {
    let found = other_spender(net, outpoint, None).await;
    net.mine(1).await.unwrap();
    let unspent = net.chain.source().unspent_output(outpoint).await.unwrap();
    assert!(unspent.is_none(), "{outpoint} is not spent by the block");
    found
}

pub async fn tip(net: &Cluster) -> u32 {
    net.chain.tip().await.unwrap().height
}

/// Asserts that no node holds a coin for anything.
pub fn no_coin_is_held(net: &Cluster) {
    for dev in net.nodes() {
        assert_eq!(dev.node().wallet.holds(), vec![], "{}", dev.name);
    }
}
