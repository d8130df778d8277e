//! Nodes on disks that can be copied, and batches whose channels are paid.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction};
use node::config::Config;
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
pub use tests::e2e::{DEPTH, HUB};
use tests::e2e::{FormedBatch, Image, batch_usable, broadcast, other_spender, until};

pub const CAPACITY_SAT: u64 = 100_000;
/// More blocks than a payment's time lock and the delay of a lone closer together.
pub const MOST_BLOCKS: u32 = 600;

/// The disks of the nodes, by name.
pub type Disks = BTreeMap<&'static str, MemoryDisk>;

/// Starts `names` on disks in memory.
pub async fn start(
    net: &mut Cluster,
    names: &[&'static str],
    configure: impl Fn(&mut Config) + Send + Sync + Copy + 'static,
) -> Disks {
    let mut disks = Disks::new();
    for name in names {
        let disk = MemoryDisk::new();
        let options = NodeOptions { disk: Some(disk.clone()), configure: Arc::new(configure) };
        net.add(name, options).await.unwrap();
        disks.insert(name, disk);
    }
    disks
}

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

/// Stops `name` and copies its disk.
pub async fn copy(net: &mut Cluster, disks: &Disks, name: &str) -> Image {
    net.stop(name).await.unwrap();
    Image::of(&disks[name])
}

/// Starts `name`, which is stopped, and waits until it has followed the chain.
pub async fn wake(net: &mut Cluster, name: &str) {
    net.start(name).await.unwrap();
    net.synced().await.unwrap();
}

/// Mines the transaction that spends `outpoint`, once the mempool has one.
pub async fn mine_spender(net: &Cluster, outpoint: OutPoint) -> Transaction {
    let found = other_spender(net, outpoint, None).await;
    net.mine(1).await.unwrap();
    let unspent = net.chain.source().unspent_output(outpoint).await.unwrap();
    assert!(unspent.is_none(), "{outpoint} is not spent by the block");
    found
}

/// Where `transaction` pays exactly `sat`.
pub fn output_of(transaction: &Transaction, sat: u64) -> OutPoint {
    let is_it = |output: &bitcoin::TxOut| output.value == Amount::from_sat(sat);
    let vout = transaction.output.iter().position(is_it);
    let vout = vout.unwrap_or_else(|| panic!("no output of {sat} sat: {transaction:?}"));
    OutPoint { txid: transaction.compute_txid(), vout: u32::try_from(vout).unwrap() }
}

pub async fn tip(net: &Cluster) -> u32 {
    net.chain.tip().await.unwrap().height
}

/// The fees of all transactions so far, satoshi.
pub async fn fees_sat(net: &Cluster) -> u64 {
    net.on_chain().await.unwrap().fees.to_sat()
}

/// Asserts that no node holds a coin for anything.
pub fn no_coin_is_held(net: &Cluster) {
    for dev in net.nodes() {
        assert_eq!(dev.node().wallet.holds(), vec![], "{}", dev.name);
    }
}
