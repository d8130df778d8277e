//! What happened to the wallet's transactions, told in the batch that makes it so.

use std::collections::BTreeMap;

use bdk_wallet::{ChangeSet, WalletTx};
use bitcoin::{Amount, Txid};

use super::coins::confirmed_in;
use super::{Inner, rivals};
use crate::chain::BlockRef;
use crate::store::{Batch, Committer, Ticket};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// To a transaction of the wallet.
    Transaction {
        /// Its id.
        txid: Txid,
        /// What.
        what: Happened,
        /// Sum of our coins it spends.
        sent: Amount,
        /// Sum of its outputs that are ours.
        received: Amount,
    },
    /// The blocks above this one left the chain.
    Disconnected(BlockRef),
}

/// What happened to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happened {
    /// This wallet made it.
    Made,
    /// It was seen outside a block.
    Seen,
    /// A block at this height has it.
    Confirmed(u32),
    /// Its block left the chain.
    Unconfirmed,
    /// It counts no more: another one spends what it spent.
    Replaced,
}

/// Writes what the wallet stores, together with what it tells of it.
pub trait Book: Send + Sync {
    /// Enqueues `writes` and a record of `news`, all or nothing.
    fn write(&self, news: &[News], writes: Batch) -> Ticket;
}

/// A store alone remembers no news.
impl Book for Committer {
    fn write(&self, _news: &[News], writes: Batch) -> Ticket {
        self.enqueue(writes)
    }
}

/// What was told of each transaction last: the height of its block, or that it is in none.
pub(super) type Told = BTreeMap<Txid, Option<u32>>;

impl Inner {
    /// What counts now: nothing more is to be told of it.
    pub(super) fn told_now(&self) -> Told {
        self.bdk.transactions().map(|tx| (tx.tx_node.txid, height(&tx))).collect()
    }

    /// What `change` made of the transactions, compared to what was told of them.
    pub(super) fn compare(&mut self, change: &ChangeSet) -> Vec<News> {
        if change.tx_graph == Default::default() && change.local_chain == Default::default() {
            return Vec::new();
        }
        let mut news = Vec::new();
        let mut now = Told::new();
        for tx in self.bdk.transactions() {
            let (txid, at) = (tx.tx_node.txid, height(&tx));
            now.insert(txid, at);
            let before = self.told.get(&txid);
            if before == Some(&at) {
                continue;
            }
            let (sent, received) = self.bdk.sent_and_received(&tx.tx_node.tx);
            let is_made = self.notes.contains_key(&txid) || sent > Amount::ZERO;
            let what = match (before, at) {
                (_, Some(height)) => Happened::Confirmed(height),
                (Some(_), None) => Happened::Unconfirmed,
                (None, None) if is_made => Happened::Made,
                (None, None) => Happened::Seen,
            };
            news.push(News::Transaction { txid, what, sent, received });
        }
        for (txid, before) in &self.told {
            let Some(tx) = self.bdk.tx_graph().get_tx(*txid) else { continue };
            if now.contains_key(txid) {
                continue;
            }
            let what = match rivals::in_place_of(&self.bdk, &tx) {
                // Its block is gone, and nobody has broadcast it.
                None if before.is_some() => Happened::Unconfirmed,
                _ => Happened::Replaced,
            };
            let (sent, received) = self.bdk.sent_and_received(&tx);
            news.push(News::Transaction { txid: *txid, what, sent, received });
        }
        self.told = now;
        news
    }
}

fn height(tx: &WalletTx<'_>) -> Option<u32> {
    confirmed_in(&tx.chain_position).map(|block| block.height)
}
