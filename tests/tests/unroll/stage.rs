//! A hub, its users, and an eye on their tree.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, Transaction, Txid};
use node::chain::TxStatus;
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
use node::unroll::{UnrollState, UnrollView};
pub use tests::e2e::pays;
use tests::e2e::{FormedBatch, WAIT, batch_usable, broadcast, channel_balance, form, slots};

pub const HUB: &str = "hub";
pub const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
const FUNDS_SAT: u64 = 5_000_000;
pub const CAPACITY_SAT: u64 = 300_000;
/// What the hub pays each user at first.
pub const PAID_MSAT: u64 = 100_000_000;
/// What users with coins have, in two of them.
pub const COINS_SAT: u64 = 400_000;
/// Confirmations that a batch needs on regtest.
const DEPTH: u32 = 3;

/// A hub with coins and a live batch of `users` users, who were paid. Those named have coins.
pub async fn batch(net: &mut Cluster, users: usize, with_coins: &[&str]) -> FormedBatch {
    for name in [HUB].iter().chain(&USERS[..users]) {
        let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    if !with_coins.is_empty() {
        net.fund(with_coins, Amount::from_sat(COINS_SAT), 2).await.unwrap();
    }
    let batch = form(net, HUB, &USERS[..users], CAPACITY_SAT).await;
    broadcast(net, HUB, &batch).await;
    net.mine(DEPTH).await.unwrap();
    batch_usable(net, HUB, &batch).await;
    for user in &USERS[..users] {
        pays(net, HUB, user, PAID_MSAT).await;
        assert_eq!(channel_balance(net, user, HUB), PAID_MSAT);
    }
    batch
}

/// The one leaf that `name` brings onto the chain, if it does.
pub fn unroll(net: &Cluster, name: &str) -> Option<UnrollView> {
    let mut unrolls = net.node(name).unroller.unrolls();
    assert!(unrolls.len() <= 1, "{unrolls:?}");
    unrolls.pop()
}

/// Waits until `done` says so of the one leaf that `name` brings onto the chain.
pub async fn unroll_is(net: &Cluster, name: &str, done: impl Fn(&UnrollState) -> bool) {
    let waited = net
        .wait("state of an unroll", WAIT, || unroll(net, name).is_some_and(|u| done(&u.state)))
        .await;
    waited.unwrap_or_else(|error| panic!("{error}: {:?}", unroll(net, name)));
}

/// The transactions that lead to the member of `slot`, from the root.
pub fn path(batch: &FormedBatch, slot: usize) -> Vec<Txid> {
    let tree = batch.signed.tree();
    let slot = slots(batch.members.len()).nth(slot).unwrap();
    let nodes = tree.path_nodes(slot).unwrap();
    nodes.into_iter().map(|node| tree.nodes()[node].transaction.compute_txid()).collect()
}

/// The transactions of a tree and the blocks they are in.
pub struct Eye {
    tree: BTreeMap<Txid, Transaction>,
    /// Height by transaction.
    pub confirmed: BTreeMap<Txid, u32>,
    from: u32,
    read: u32,
}

impl Eye {
    pub async fn on(net: &Cluster, batch: &FormedBatch) -> Self {
        let tree = batch.tree_transactions().into_iter().map(|tx| (tx.compute_txid(), tx));
        let from = net.chain.tip().await.unwrap().height;
        Self { tree: tree.collect(), confirmed: BTreeMap::new(), from, read: from }
    }

    /// Mines until the transactions of `wanted` are in blocks, one block for each level: before
    /// each, the next one of every path is in the mempool, and nothing else of the tree. Returns
    /// how many blocks it took.
    pub async fn unrolled(&mut self, net: &Cluster, wanted: &[Vec<Txid>]) -> u32 {
        let mut blocks = 0;
        loop {
            let next = self.next(wanted);
            if next.is_empty() {
                return blocks;
            }
            for txid in &next {
                in_mempool(net, *txid).await;
            }
            self.only_the_tree_is_published(net, &next).await;
            net.mine(1).await.unwrap();
            blocks += 1;
            self.read(net).await;
            assert!(next.iter().all(|txid| self.confirmed.contains_key(txid)), "{next:?}");
        }
    }

    /// The next transaction of each path that is not in a block as a whole.
    pub fn next(&self, wanted: &[Vec<Txid>]) -> BTreeSet<Txid> {
        let next =
            |path: &Vec<Txid>| path.iter().find(|id| !self.confirmed.contains_key(*id)).copied();
        wanted.iter().filter_map(next).collect()
    }

    /// Reads all blocks again: some were replaced.
    pub async fn read_again(&mut self, net: &Cluster) {
        self.confirmed.clear();
        self.read = self.from;
        self.read(net).await;
    }

    /// Reads the blocks since the last time.
    pub async fn read(&mut self, net: &Cluster) {
        let source = net.chain.source();
        let tip = net.chain.tip().await.unwrap().height;
        for height in self.read + 1..=tip {
            let hash = source.block_hash(height).await.unwrap().unwrap();
            for transaction in &source.block(hash).await.unwrap().txdata {
                let txid = transaction.compute_txid();
                if self.tree.contains_key(&txid) {
                    self.confirmed.insert(txid, height);
                }
            }
        }
        self.read = tip;
    }

    /// Asserts that the mempool has of the tree only `next`, each with one child, and nothing
    /// that spends what is not there: no commitment leaves before its leaf.
    async fn only_the_tree_is_published(&self, net: &Cluster, next: &BTreeSet<Txid>) {
        let source = net.chain.source();
        for txid in source.mempool().await.unwrap() {
            let Some(transaction) = source.mempool_transaction(txid).await.unwrap() else {
                continue;
            };
            let parents = transaction.input.iter().map(|input| input.previous_output.txid);
            let mut parents = parents.filter(|parent| self.tree.contains_key(parent));
            match self.tree.contains_key(&txid) {
                true => assert!(next.contains(&txid), "{txid} is too early"),
                false => assert!(
                    parents.all(|parent| next.contains(&parent)),
                    "{transaction:?} is no child of a level"
                ),
            }
        }
    }
}

/// Waits until the mempool has `txid`.
pub async fn in_mempool(net: &Cluster, txid: Txid) {
    let source = net.chain.source();
    let end = tokio::time::Instant::now() + WAIT;
    while source.transaction_status(txid).await.unwrap() != TxStatus::Mempool {
        assert!(tokio::time::Instant::now() < end, "{txid} is not published: {:?}", views(net));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The transaction of the mempool that spends `outpoint`.
pub async fn spender(net: &Cluster, outpoint: OutPoint) -> Option<Transaction> {
    let source = net.chain.source();
    for txid in source.mempool().await.unwrap() {
        if let Some(found) = source.mempool_transaction(txid).await.unwrap()
            && found.input.iter().any(|input| input.previous_output == outpoint)
        {
            return Some(found);
        }
    }
    None
}

/// Waits until the mempool has another spender of `outpoint` than `known`.
pub async fn other_spender(net: &Cluster, outpoint: OutPoint, known: Option<Txid>) -> Transaction {
    let end = tokio::time::Instant::now() + WAIT;
    loop {
        if let Some(found) = spender(net, outpoint).await
            && Some(found.compute_txid()) != known
        {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "{outpoint} has no new spender: {:?}",
            views(net)
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn views(net: &Cluster) -> Vec<(String, Vec<UnrollView>)> {
    let running = net.nodes().filter_map(|dev| Some((dev.name.clone(), dev.running()?)));
    running.map(|(name, node)| (name, node.unroller.unrolls())).collect()
}
