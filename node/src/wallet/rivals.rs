//! What confirmed instead of a transaction of ours.
//!
//! BDK keeps only what pays or spends the wallet's own scripts. A fee bump of ours may hang on a
//! commitment transaction that is neither; when the counterparty's commitment confirms instead,
//! BDK alone would wait for the bump for ever and take its coins for spent. So what is broadcast
//! is kept with its parents, and whatever a block spends of the same outputs is kept as well.

use std::collections::VecDeque;
use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, TxUpdate};
use bitcoin::{Block, OutPoint, Transaction, Txid};

/// Blocks that are looked at again when a transaction is broadcast: it may have been made before
/// the block that decides against it was seen.
pub(super) const RECENT_BLOCKS: usize = 6;

/// The last few blocks, oldest first. They are those that the chain source has handed out.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(u32, Arc<Block>)>);

impl Recent {
    /// Takes the next block.
    pub(super) fn push(&mut self, block: &Arc<Block>, height: u32) {
        self.forget_above(height.saturating_sub(1));
        self.0.push_back((height, Arc::clone(block)));
        if self.0.len() > RECENT_BLOCKS {
            self.0.pop_front();
        }
    }

    /// Forgets what is no longer in the chain.
    pub(super) fn forget_above(&mut self, height: u32) {
        self.0.retain(|(at, _)| *at <= height);
    }

    /// Tells `bdk` what these blocks decided.
    pub(super) fn decide(&self, bdk: &mut bdk_wallet::Wallet) {
        for (height, block) in &self.0 {
            confirm_spenders(bdk, block, *height);
        }
    }
}

/// Tells `bdk` of a transaction that is being broadcast, whether it is about the wallet or only
/// the parent of one that is.
pub(super) fn seen(bdk: &mut bdk_wallet::Wallet, transaction: &Transaction, at: u64) {
    let mut update = TxUpdate::default();
    update.txs.push(Arc::new(transaction.clone()));
    update.seen_ats.insert((transaction.compute_txid(), at));
    apply(bdk, update);
}

/// Tells `bdk` which transactions of `block`, already applied, spend what a known one spends: of
/// rivals the confirmed one counts, until a reorg takes its block away.
pub(super) fn confirm_spenders(bdk: &mut bdk_wallet::Wallet, block: &Block, height: u32) {
    let graph = bdk.tx_graph();
    let spenders: Vec<&Transaction> = block
        .txdata
        .iter()
        .filter(|tx| tx.input.iter().any(|i| !graph.outspends(i.previous_output).is_empty()))
        .collect();
    if spenders.is_empty() {
        return;
    }
    let anchor = ConfirmationBlockTime {
        block_id: BlockId { height, hash: block.block_hash() },
        confirmation_time: block.header.time.into(),
    };
    let mut update = TxUpdate::default();
    update.anchors.extend(spenders.iter().map(|tx| (anchor, tx.compute_txid())));
    update.txs.extend(spenders.into_iter().map(|tx| Arc::new(tx.clone())));
    apply(bdk, update);
}

/// The height at which another transaction took a coin of `transaction`, or of one that it needs.
pub(super) fn winner(bdk: &bdk_wallet::Wallet, transaction: &Transaction) -> Option<u32> {
    let (graph, txid) = (bdk.tx_graph(), transaction.compute_txid());
    transaction.input.iter().map(|input| input.previous_output).find_map(|coin| {
        let rivals = graph.outspends(coin).iter().filter(|rival| **rival != txid);
        let won = rivals.copied().find_map(|rival| height_of(bdk, rival));
        won.or_else(|| match height_of(bdk, coin.txid) {
            Some(_) => None,
            None => winner(bdk, &*graph.get_tx(coin.txid)?),
        })
    })
}

/// The transaction that counts in the place of `transaction`.
pub(super) fn in_place_of(bdk: &bdk_wallet::Wallet, transaction: &Transaction) -> Option<Txid> {
    let coins = transaction.input.iter().map(|input| input.previous_output);
    let mut rivals = coins.flat_map(|coin| bdk.tx_graph().outspends(coin)).copied();
    rivals.find(|rival| bdk.get_tx(*rival).is_some())
}

/// The unconfirmed transactions of the wallet that spend one of `outputs`, parents first: directly,
/// or through others that do.
pub(super) fn spenders(bdk: &bdk_wallet::Wallet, outputs: &[OutPoint]) -> Vec<Txid> {
    let graph = bdk.tx_graph();
    let counts =
        |txid: &Txid| bdk.get_tx(*txid).is_some_and(|tx| !tx.chain_position.is_confirmed());
    let (mut found, mut open) = (Vec::new(), outputs.to_vec());
    while let Some(spent) = open.pop() {
        for txid in graph.outspends(spent).iter().filter(|txid| counts(txid)) {
            if found.contains(txid) {
                continue;
            }
            found.push(*txid);
            let outputs = graph.get_tx(*txid).map_or(0, |tx| tx.output.len());
            open.extend((0..).take(outputs).map(|vout| OutPoint::new(*txid, vout)));
        }
    }
    found
}

/// The height of the block of the best chain that has `txid`.
fn height_of(bdk: &bdk_wallet::Wallet, txid: Txid) -> Option<u32> {
    let mut blocks = bdk.tx_graph().get_tx_node(txid)?.anchors.iter().map(|at| at.block_id);
    let chain = bdk.local_chain();
    let known = blocks.find(|id| chain.get(id.height).is_some_and(|at| at.hash() == id.hash))?;
    Some(known.height)
}

fn apply(bdk: &mut bdk_wallet::Wallet, tx_update: TxUpdate<ConfirmationBlockTime>) {
    bdk.apply_update(Update { tx_update, ..Update::default() })
        .expect("an update without blocks cannot fail to connect");
}
