//! Virtual confirmation: LDK sees a batch's channels funded in the block of the batch's root.
//!
//! The funding transaction of such a channel, a *leaf*, is signed and stays off the chain. In the
//! block that confirms the batch transaction with the root output that was agreed, LDK gets the
//! leaves of that batch beside the block's own transactions. [`VirtualConfirmations`] keeps the
//! records and answers for each block what LDK is to see; `block.rs` decides it, without state;
//! `batch.rs` is the record; `spends.rs` finds what is taken of a tree.
//!
//! Two rules carry it. The answer depends on the block and the records alone, so whoever replays
//! a block, also after a restart, sees the same. And a record is pending in the store before any
//! block is asked about: what LDK made of a block is never durable without it. That it is there
//! in time is its owner's duty, who adds it before the batch transaction is broadcast (the hub)
//! or before it says `stored` (a user); [`VirtualConfirmations::add`] refuses one that is late.
//!
//! Source: BATCHES §4.

mod batch;
mod block;
mod spends;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid, absolute};
use channel_contracts::batch::Deadlines;
use channel_contracts::tree::SignedPath;
use parking_lot::Mutex;

pub use batch::{SignedLeaf, VirtualBatch, VirtualBatchError, VirtualLeaf};
pub use block::VirtualBlock;
pub use spends::NodeSpend;

use super::{BlockRef, ChainError, ChainSource, TxStatus};
use crate::store::{Batch, Committer, StoreError, Ticket};

/// Why a record is not added. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// LDK has passed the block that it should have seen with the leaves.
    #[error(
        "root {root} was confirmed before the batch was recorded; its channels can never be used"
    )]
    TooLate {
        /// The root.
        root: OutPoint,
    },
    /// Another record has this root, or one of these leaves.
    #[error("another batch with root {root} is recorded and has the same root or leaf")]
    Conflict {
        /// The root of the record that is there.
        root: OutPoint,
    },
    /// The chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A record that must stay: its root is in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("root {root} is confirmed at height {height}; the batch lives and its record stays")]
pub struct ForgetError {
    /// The root.
    pub root: OutPoint,
    /// The height of its block.
    pub height: u32,
}

/// Where a tree transaction, a leaf or one above it, stands on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafPlace {
    /// The block of its batch's root, once one has it: a leaf is confirmed virtually then.
    pub root: Option<BlockRef>,
    /// The block that has the transaction itself, once one does.
    pub leaf: Option<BlockRef>,
}

/// The batches this node takes part in, and what LDK sees of them.
pub struct VirtualConfirmations {
    committer: Committer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches: BTreeMap<OutPoint, VirtualBatch>,
    /// The root of the batch of each tree transaction.
    by_transaction: HashMap<Txid, OutPoint>,
    /// The root of the batch of each node output.
    by_node: HashMap<OutPoint, OutPoint>,
    /// The answer for the last block, so that listeners that take it one after the other see the
    /// same although a record is added between them.
    last: Option<(BlockHash, Arc<VirtualBlock>)>,
    /// Up to where blocks were handed out.
    height: u32,
}

impl VirtualConfirmations {
    /// Reads all records.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn load(committer: Committer) -> Result<Self, StoreError> {
        let mut state = State::default();
        for batch in VirtualBatch::load(&committer)? {
            state.insert(batch);
        }
        Ok(Self { committer, state: Mutex::new(state) })
    }

    /// Notes that every listener has come to `tip`: what is confirmed up to there is past.
    pub fn caught_up(&self, tip: BlockRef) {
        self.state.lock().height = tip.height;
    }

    /// Records a batch and returns once that is durable. The same again changes nothing.
    ///
    /// The batch transaction may be broadcast after this, not before. Run it to its end: one that
    /// is dropped midway may leave a record that is late.
    ///
    /// # Errors
    ///
    /// See [`AddError`].
    pub async fn add(&self, batch: VirtualBatch, source: &dyn ChainSource) -> Result<(), AddError> {
        let root = batch.root();
        let (ticket, height) = {
            let mut state = self.state.lock();
            match state.conflict(&batch) {
                Some(known) if known == root && state.batches[&root].is_same(&batch) => {
                    (self.committer.now(), None)
                }
                Some(root) => return Err(AddError::Conflict { root }),
                None => {
                    let mut writes = Batch::default();
                    batch.put_all(&mut writes);
                    // Pending before the next block is asked about: the lock is held.
                    let ticket = self.committer.enqueue(writes);
                    state.insert(batch);
                    (ticket, Some(state.height))
                }
            }
        };
        if let Some(height) = height {
            // Asked after the record is in force: a block is now either below `height`, or will
            // find it.
            let late = is_confirmed_below(source, root, height).await;
            let error = match late {
                Ok(false) => None,
                Ok(true) => Some(AddError::TooLate { root }),
                Err(error) => Some(error.into()),
            };
            if let Some(error) = error
                && let Ok(_nobody_waits) = self.forget(root)
            {
                return Err(error);
            }
        }
        self.committer.durable(ticket).await?;
        Ok(())
    }

    /// Drops the record of a batch that did not come about.
    ///
    /// # Errors
    ///
    /// [`ForgetError`] if its root is in a block.
    pub fn forget(&self, root: OutPoint) -> Result<Ticket, ForgetError> {
        let mut state = self.state.lock();
        let mut writes = Batch::default();
        if let Some(batch) = state.batches.get(&root) {
            if let Some(BlockRef { height, .. }) = batch.confirmed() {
                return Err(ForgetError { root, height });
            }
            batch.delete_all(&mut writes);
            state.remove(root);
        }
        Ok(self.committer.enqueue(writes))
    }

    /// Returns what LDK sees of `block` beside its own transactions.
    ///
    /// To be called by everyone who hands the block to LDK, before LDK has it.
    pub fn connect(&self, block: &Block, height: u32) -> Arc<VirtualBlock> {
        let at = BlockRef { height, hash: block.block_hash() };
        let mut state = self.state.lock();
        if let Some((hash, answer)) = &state.last
            && *hash == at.hash
        {
            return Arc::clone(answer);
        }
        let answer = Arc::new(VirtualBlock::new(block, state.batches.values()));
        let spends = spends::spends_in(block, at, &state.by_node);
        self.write_changed(&mut state, |batch| {
            let spends = spends.get(&batch.root()).map(Vec::as_slice).unwrap_or_default();
            batch.block_connected(at, &answer, spends)
        });
        state.height = state.height.max(height);
        state.last = Some((at.hash, Arc::clone(&answer)));
        answer
    }

    /// Forgets what was confirmed above `fork_point`. Told several times, it changes nothing more.
    pub fn blocks_disconnected(&self, fork_point: BlockRef) {
        let mut state = self.state.lock();
        state.last = None;
        state.height = state.height.min(fork_point.height);
        self.write_changed(&mut state, |batch| batch.blocks_disconnected(fork_point));
    }

    /// Returns the leaves, each with the root of its batch, that can never be on chain any more:
    /// an output above them was taken otherwise, `depth` blocks deep at `best`.
    pub fn dead_leaves(&self, best: u32, depth: u32) -> Vec<(OutPoint, Txid)> {
        let state = self.state.lock();
        let mut dead = Vec::new();
        for batch in state.batches.values().filter(|batch| batch.is_taken_from()) {
            for leaf in batch.leaves() {
                let taken = batch.taken_above(leaf);
                if taken.is_some_and(|spend| spend.confirmations(best) >= depth) {
                    dead.push((batch.root(), leaf.txid()));
                }
            }
        }
        dead
    }

    /// Returns the record of the batch whose root is `root`.
    pub fn get(&self, root: OutPoint) -> Option<VirtualBatch> {
        self.state.lock().batches.get(&root).cloned()
    }

    /// Returns the block that has `root`, once one has.
    pub fn confirmed(&self, root: OutPoint) -> Option<BlockRef> {
        self.state.lock().batches.get(&root)?.confirmed()
    }

    /// Whether a block spends `root`: by its tree transaction, or to take it back.
    pub fn is_root_spent(&self, root: OutPoint) -> bool {
        self.state.lock().batches.get(&root).is_some_and(|batch| batch.spend_of(root).is_some())
    }

    /// Returns all records, by root.
    pub fn batches(&self) -> Vec<VirtualBatch> {
        self.state.lock().batches.values().cloned().collect()
    }

    /// Returns the leaf that must be on chain before `transaction` can be, if it spends one that
    /// is not.
    pub fn waits_for(&self, transaction: &Transaction) -> Option<OutPoint> {
        let state = self.state.lock();
        transaction
            .input
            .iter()
            .map(|input| input.previous_output)
            .find(|spent| state.leaf(spent.txid).is_some_and(|leaf| leaf.confirmed().is_none()))
    }

    /// Whether the transaction of `leaf` is in a block, not virtually.
    pub fn is_on_chain(&self, leaf: OutPoint) -> bool {
        self.state.lock().leaf(leaf.txid).is_some_and(|leaf| leaf.confirmed().is_some())
    }

    /// Returns where the tree transaction `txid` stands, if it is one of a recorded batch.
    pub fn place(&self, txid: Txid) -> Option<LeafPlace> {
        let state = self.state.lock();
        let batch = state.batches.get(state.by_transaction.get(&txid)?)?;
        let leaf = match state.leaf(txid) {
            Some(leaf) => leaf.confirmed(),
            None => batch.confirmed_transaction(txid),
        };
        Some(LeafPlace { root: batch.confirmed(), leaf })
    }

    /// Returns the root of the batch that the tree transaction `txid` belongs to.
    pub fn root_of(&self, txid: Txid) -> Option<OutPoint> {
        self.state.lock().by_transaction.get(&txid).copied()
    }

    /// Whether the leaf `txid` is not on chain, and can never be: an output above it was taken.
    /// `None` if it is no leaf of a recorded batch, or is on chain.
    pub fn is_taken(&self, txid: Txid) -> Option<bool> {
        let state = self.state.lock();
        let batch = state.batches.get(state.by_transaction.get(&txid)?)?;
        let leaf = state.leaf(txid).filter(|leaf| leaf.confirmed().is_none())?;
        Some(batch.taken_above(leaf).is_some())
    }

    /// Returns how many transactions the longest path has whose leaf is not on chain and may have
    /// to be; 0 without batches.
    pub fn levels_max(&self) -> usize {
        let state = self.state.lock();
        let leaves = state.alive().flat_map(VirtualBatch::leaves);
        let off_chain = leaves.filter(|leaf| leaf.confirmed().is_none());
        off_chain.map(|leaf| leaf.path().path.levels.len()).max().unwrap_or(0)
    }

    /// Returns the height at which the next of the batches expires.
    pub fn soonest_expiry(&self) -> Option<absolute::Height> {
        let state = self.state.lock();
        state.alive().filter_map(VirtualBatch::expiry).min()
    }

    /// Returns the deadlines of the leaf `txid` while it is not on chain.
    pub fn deadlines(&self, txid: Txid) -> Option<Deadlines> {
        let state = self.state.lock();
        let leaf = state.leaf(txid).filter(|leaf| leaf.confirmed().is_none())?;
        let path = &leaf.path().path;
        Deadlines::new(path.leaf.expiry, path.levels.len()).ok()
    }

    /// Returns the path that brings the leaf `txid` onto the chain.
    pub fn path_to(&self, txid: Txid) -> Option<SignedPath> {
        Some(self.state.lock().leaf(txid)?.path().clone())
    }

    /// Returns a path that leads through the tree transaction `txid`; one that ends in it if it
    /// is a leaf.
    pub fn path_through(&self, txid: Txid) -> Option<SignedPath> {
        let state = self.state.lock();
        state.batches.get(state.by_transaction.get(&txid)?)?.path_through(txid).cloned()
    }

    fn write_changed(&self, state: &mut State, change: impl Fn(&mut VirtualBatch) -> bool) {
        let mut writes = Batch::default();
        for batch in state.batches.values_mut() {
            if change(batch) {
                batch.put_state(&mut writes);
            }
        }
        if !writes.is_empty() {
            let _before_what_ldk_makes_of_the_block = self.committer.enqueue(writes);
        }
    }
}

impl State {
    /// The batches that have not expired, and whose root was not taken.
    fn alive(&self) -> impl Iterator<Item = &VirtualBatch> {
        let height = self.height;
        self.batches.values().filter(move |batch| {
            let expires = batch.expiry().map_or(0, |expiry| expiry.to_consensus_u32());
            expires > height && !batch.is_taken()
        })
    }

    fn insert(&mut self, batch: VirtualBatch) {
        let root = batch.root();
        self.by_transaction.extend(batch.nodes().values().map(|txid| (*txid, root)));
        self.by_node.extend(batch.nodes().keys().map(|node| (*node, root)));
        self.batches.insert(batch.root(), batch);
    }

    fn remove(&mut self, root: OutPoint) {
        self.batches.remove(&root);
        self.by_transaction.retain(|_, of| *of != root);
        self.by_node.retain(|_, of| *of != root);
    }

    /// The root of a record that has the root or a leaf of `batch`.
    fn conflict(&self, batch: &VirtualBatch) -> Option<OutPoint> {
        let root = Some(batch.root()).filter(|root| self.batches.contains_key(root));
        root.or_else(|| {
            batch.leaves().iter().find_map(|leaf| self.by_transaction.get(&leaf.txid())).copied()
        })
    }

    fn leaf(&self, txid: Txid) -> Option<&VirtualLeaf> {
        let batch = self.batches.get(self.by_transaction.get(&txid)?)?;
        batch.leaves().iter().find(|leaf| leaf.txid() == txid)
    }
}

/// Says whether the batch transaction is in a block up to `height`.
async fn is_confirmed_below(
    source: &dyn ChainSource,
    root: OutPoint,
    height: u32,
) -> Result<bool, ChainError> {
    Ok(match source.transaction_status(root.txid).await? {
        TxStatus::Confirmed(at) => at.height <= height,
        TxStatus::Mempool => false,
        // One confirmed long ago may be unknown by its id.
        TxStatus::Unknown => source.unspent_output(root).await?.is_some(),
    })
}
