//! The transactions of a tree on their way onto the chain, as the chain and its mempool have them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::{OutPoint, Transaction, Txid};
use node::chain::TxStatus;
use node::dev::Cluster;
use node::unroll::UnrollView;

use super::{FormedBatch, WAIT, slots};

/// The transactions that lead to the member of `slot`, from the root.
///
/// # Panics
///
/// If there is no such member.
pub fn path(batch: &FormedBatch, slot: usize) -> Vec<Txid> {
    let tree = batch.signed.tree();
    let slot = slots(batch.members.len()).nth(slot).expect("there are so many members");
    let nodes = tree.path_nodes(slot).expect("a slot of the tree");
    nodes.into_iter().map(|node| tree.nodes()[node].transaction.compute_txid()).collect()
}

/// The transactions of a tree and the blocks they are in.
#[derive(Debug)]
pub struct Eye {
    tree: BTreeMap<Txid, Transaction>,
    /// Height by transaction.
    pub confirmed: BTreeMap<Txid, u32>,
    from: u32,
    read: u32,
}

impl Eye {
    /// Looks at the tree of `batch` from the next block on.
    ///
    /// # Panics
    ///
    /// If the chain does not answer.
    pub async fn on(net: &Cluster, batch: &FormedBatch) -> Self {
        let tree = batch.tree_transactions().into_iter().map(|tx| (tx.compute_txid(), tx));
        let from = net.chain.tip().await.expect("the chain answers").height;
        Self { tree: tree.collect(), confirmed: BTreeMap::new(), from, read: from }
    }

    /// Mines until the transactions of `wanted` are in blocks, one block for each level: before
    /// each, the next one of every path is in the mempool, and nothing else of the tree. Returns
    /// how many blocks it took.
    ///
    /// # Panics
    ///
    /// If anything else happens.
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
            net.mine(1).await.expect("blocks are mined and followed");
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
    ///
    /// # Panics
    ///
    /// If the chain does not answer.
    pub async fn read_again(&mut self, net: &Cluster) {
        self.confirmed.clear();
        self.read = self.from;
        self.read(net).await;
    }

    /// Reads the blocks since the last time.
    ///
    /// # Panics
    ///
    /// If the chain does not answer.
    pub async fn read(&mut self, net: &Cluster) {
        let source = net.chain.source();
        let tip = net.chain.tip().await.expect("the chain answers").height;
        for height in self.read + 1..=tip {
            let hash = source
                .block_hash(height)
                .await
                .expect("the chain answers")
                .expect("a block of the chain");
            for transaction in &source.block(hash).await.expect("the chain answers").txdata {
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
        for txid in source.mempool().await.expect("the chain answers") {
            let Some(transaction) =
                source.mempool_transaction(txid).await.expect("the chain answers")
            else {
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
///
/// # Panics
///
/// If it is not there in time.
pub async fn in_mempool(net: &Cluster, txid: Txid) {
    let source = net.chain.source();
    let end = tokio::time::Instant::now() + WAIT;
    while source.transaction_status(txid).await.expect("the chain answers") != TxStatus::Mempool {
        assert!(tokio::time::Instant::now() < end, "{txid} is not published: {:?}", views(net));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The transaction of the mempool that spends `outpoint`.
///
/// # Panics
///
/// If the chain does not answer.
pub async fn spender(net: &Cluster, outpoint: OutPoint) -> Option<Transaction> {
    let source = net.chain.source();
    for txid in source.mempool().await.expect("the chain answers") {
        if let Some(found) = source.mempool_transaction(txid).await.expect("the chain answers")
            && found.input.iter().any(|input| input.previous_output == outpoint)
        {
            return Some(found);
        }
    }
    None
}

/// Waits until the mempool has another spender of `outpoint` than `known`.
///
/// # Panics
///
/// If there is none in time.
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn views(net: &Cluster) -> Vec<(String, Vec<UnrollView>)> {
    let running = net.nodes().filter_map(|dev| Some((dev.name.clone(), dev.running()?)));
    running.map(|(name, node)| (name, node.unroller.unrolls())).collect()
}
