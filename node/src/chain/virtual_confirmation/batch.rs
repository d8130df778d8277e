//! The record of one batch: its root, and the signed paths to the leaves that are ours to see.
//!
//! A record is made of verified paths only. A hub has every leaf of its tree, a user one. Beside
//! what never changes it says where root and leaves were confirmed: root and path are one value
//! each, so that a block rewrites little.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Transaction, TxOut, Txid, absolute};
use channel_contracts::tree::path::PathEnds;
use channel_contracts::tree::shape::VIRTUAL_INDICES_PER_ROOT;
use channel_contracts::tree::{LeafSlot, PathError, SignedPath, VerifiedPath};
use serde::{Deserialize, Serialize};

use super::block::VirtualBlock;
use super::spends::{self, NodeSpend};
use crate::chain::BlockRef;
use crate::store::{Batch, Committer, StoreError, Table};

/// A channel's path and what it must begin and end with.
#[derive(Debug, Clone)]
pub struct SignedLeaf {
    /// The number of the leaf among those of its tree.
    pub slot: LeafSlot,
    /// The path.
    pub path: SignedPath,
    /// The root output agreed on, and the funding output of the channel as LDK has it.
    pub ends: PathEnds,
}

/// Why paths make no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VirtualBatchError {
    /// There are no paths.
    #[error("a batch without channels has nothing to confirm")]
    Empty,
    /// A path cannot be published, or leads elsewhere. LDK panics on such a leaf.
    #[error("path of leaf {slot}: {source}", slot = slot.0)]
    Path {
        /// Its leaf.
        slot: LeafSlot,
        /// What is wrong.
        source: PathError,
    },
    /// A leaf has no place in a block: its tree has too many.
    #[error(
        "leaf {slot} has no virtual index; a tree may have {VIRTUAL_INDICES_PER_ROOT} leaves",
        slot = slot.0
    )]
    TooWide {
        /// The leaf.
        slot: LeafSlot,
    },
    /// The paths are not of one tree.
    #[error("paths of leaves {one} and {other} are not of one tree", one = one.0, other = other.0)]
    Trees {
        /// The leaf of one path.
        one: LeafSlot,
        /// The leaf of another.
        other: LeafSlot,
    },
}

/// A batch that this node takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualBatch {
    state: BatchState,
    /// By ascending slot.
    leaves: Vec<VirtualLeaf>,
    /// The node outputs above the leaves, and the tree transaction that spends each.
    nodes: BTreeMap<OutPoint, Txid>,
}

/// The value stored under the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BatchState {
    root: OutPoint,
    root_output: TxOut,
    /// The tree transaction at the top: the one that may spend the root.
    top: Txid,
    confirmed: Option<BlockRef>,
    leaves: Vec<LeafState>,
    /// Node outputs that blocks spend.
    #[serde(default)]
    spent: Vec<NodeSpend>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LeafState {
    slot: u16,
    txid: Txid,
    confirmed: Option<BlockRef>,
}

/// A transaction that funds channels and is not on chain, or was not when it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualLeaf {
    state: LeafState,
    path: SignedPath,
    /// The node outputs above it, from the root. Making the transactions of a path anew costs
    /// several tweaks of keys, too much for each block.
    above: Vec<OutPoint>,
}

impl VirtualLeaf {
    /// Makes a leaf and adds what is above it to `nodes`. Nothing is verified: a stored path was,
    /// when it was stored.
    fn under(state: LeafState, path: SignedPath, nodes: &mut BTreeMap<OutPoint, Txid>) -> Self {
        let steps = path.path.transactions().map(|(steps, _)| steps).unwrap_or_default();
        let transactions = steps.iter().map(|step| &step.transaction);
        let spent = |tx: &Transaction| (tx.input[0].previous_output, tx.compute_txid());
        let above: Vec<_> = transactions.map(spent).collect();
        nodes.extend(above.iter().copied());
        let above = above.into_iter().map(|(node, _)| node).collect();
        Self { state, path, above }
    }

    /// Its number among the leaves of its tree.
    pub fn slot(&self) -> LeafSlot {
        LeafSlot(self.state.slot)
    }

    /// Its id.
    pub fn txid(&self) -> Txid {
        self.state.txid
    }

    /// The block that has it on chain, not virtually, once one does.
    pub fn confirmed(&self) -> Option<BlockRef> {
        self.state.confirmed
    }

    /// The path that ends in it.
    pub fn path(&self) -> &SignedPath {
        &self.path
    }

    /// The signed transaction, verified anew against the root it must come from.
    pub(super) fn transaction(&self, root_output: &TxOut) -> Result<Transaction, PathError> {
        let stated = self.path.stated_ends()?;
        let verified =
            self.path.verify(&PathEnds { root_output: root_output.clone(), ..stated })?;
        Ok(verified.leaf_transaction().clone())
    }
}

impl VirtualBatch {
    /// Makes the record of the batch that `leaves` belong to, verifying each path. Channels with
    /// one leaf in common each bring their own path to it.
    ///
    /// # Errors
    ///
    /// See [`VirtualBatchError`].
    pub fn new(leaves: Vec<SignedLeaf>) -> Result<Self, VirtualBatchError> {
        let first = leaves.first().ok_or(VirtualBatchError::Empty)?;
        let (one, ends) = (first.slot, first.ends.clone());
        let mut batch: Option<Self> = None;
        for SignedLeaf { slot, path, ends: own } in leaves {
            let other = VirtualBatchError::Trees { one, other: slot };
            if u32::from(slot.0) >= VIRTUAL_INDICES_PER_ROOT {
                return Err(VirtualBatchError::TooWide { slot });
            }
            if (own.root, &own.root_output) != (ends.root, &ends.root_output) {
                return Err(other);
            }
            let verified =
                path.verify(&own).map_err(|source| VirtualBatchError::Path { slot, source })?;
            let (top, txid) = (top(&verified), verified.funding.txid);
            let batch = batch.get_or_insert_with(|| Self {
                state: BatchState {
                    root: ends.root,
                    root_output: ends.root_output.clone(),
                    top,
                    confirmed: None,
                    leaves: vec![],
                    spent: vec![],
                },
                leaves: vec![],
                nodes: BTreeMap::new(),
            });
            let known = batch.leaves.iter().find(|l| l.slot() == slot || l.txid() == txid);
            match known {
                _ if batch.state.top != top => return Err(other),
                Some(leaf) if (leaf.slot(), leaf.txid()) == (slot, txid) => {}
                Some(_) => return Err(other),
                None => {
                    let state = LeafState { slot: slot.0, txid, confirmed: None };
                    batch.leaves.push(VirtualLeaf::under(state, path, &mut batch.nodes));
                }
            }
        }
        let mut batch = batch.expect("there is a first leaf");
        batch.leaves.sort_by_key(VirtualLeaf::slot);
        Ok(batch)
    }

    /// Where the root stands.
    pub fn root(&self) -> OutPoint {
        self.state.root
    }

    /// The output it must be.
    pub fn root_output(&self) -> &TxOut {
        &self.state.root_output
    }

    /// The tree transaction that spends it.
    pub fn top(&self) -> Txid {
        self.state.top
    }

    /// The block that has the root, once one has.
    pub fn confirmed(&self) -> Option<BlockRef> {
        self.state.confirmed
    }

    /// The leaves, by ascending slot.
    pub fn leaves(&self) -> &[VirtualLeaf] {
        &self.leaves
    }

    /// The node outputs above its leaves, and the tree transaction that spends each.
    pub fn nodes(&self) -> &BTreeMap<OutPoint, Txid> {
        &self.nodes
    }

    /// The spend of a node output, once a block has one.
    pub fn spend_of(&self, node: OutPoint) -> Option<NodeSpend> {
        self.state.spent.iter().find(|spend| spend.outpoint == node).copied()
    }

    /// Whether a node output was spent by another than its tree transaction.
    pub(super) fn is_taken_from(&self) -> bool {
        self.state.spent.iter().any(|spend| self.nodes.get(&spend.outpoint) != Some(&spend.by))
    }

    /// The spend of a node output above `leaf` by another than its tree transaction: the leaf
    /// can never be on chain then.
    pub fn taken_above(&self, leaf: &VirtualLeaf) -> Option<NodeSpend> {
        let taken = |spend: &NodeSpend| self.nodes.get(&spend.outpoint) != Some(&spend.by);
        leaf.above.iter().find_map(|node| self.spend_of(*node).filter(taken))
    }

    /// Whether the root output was spent by another than its tree transaction.
    pub fn is_taken(&self) -> bool {
        self.spend_of(self.root()).is_some_and(|spend| spend.by != self.top())
    }

    /// `E`.
    pub fn expiry(&self) -> Option<absolute::Height> {
        Some(self.leaves.first()?.path().path.leaf.expiry)
    }

    /// The block that has `txid`, one of its tree transactions.
    pub(super) fn confirmed_transaction(&self, txid: Txid) -> Option<BlockRef> {
        Some(self.state.spent.iter().find(|spend| spend.by == txid)?.at)
    }

    /// The path of a leaf that leads through `txid`, if possible one that ends there.
    pub(super) fn path_through(&self, txid: Txid) -> Option<&SignedPath> {
        let ends = self.leaves.iter().find(|leaf| leaf.txid() == txid);
        let is_spent_by = |node: &OutPoint| self.nodes.get(node) == Some(&txid);
        let leads = |leaf: &&VirtualLeaf| leaf.above.iter().any(is_spent_by);
        Some(ends.or_else(|| self.leaves.iter().find(leads))?.path())
    }

    /// How many virtual indices it takes.
    pub(super) fn width(&self) -> u32 {
        self.leaves.last().map_or(0, |leaf| u32::from(leaf.slot().0) + 1)
    }

    /// Whether `other` says the same, confirmations aside.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let key = |leaf: &VirtualLeaf| (leaf.slot(), leaf.txid());
        self.root() == other.root()
            && self.root_output() == other.root_output()
            && self.leaves.iter().map(key).eq(other.leaves.iter().map(key))
    }

    /// Takes note of what `at` confirms; says whether that is new.
    pub(super) fn block_connected(
        &mut self,
        at: BlockRef,
        block: &VirtualBlock,
        spends: &[NodeSpend],
    ) -> bool {
        let root = self.root();
        let mut changed = settle(&mut self.state.confirmed, at, block.confirms(root));
        changed |= spends::note(&mut self.state.spent, at, spends);
        for leaf in &mut self.leaves {
            changed |= settle(&mut leaf.state.confirmed, at, block.has_leaf(leaf.state.txid));
        }
        changed
    }

    /// Forgets what was confirmed above `fork_point`; says whether anything was.
    pub(super) fn blocks_disconnected(&mut self, fork_point: BlockRef) -> bool {
        let confirmed = self.leaves.iter_mut().map(|leaf| &mut leaf.state.confirmed);
        let mut changed = false;
        for confirmed in confirmed.chain([&mut self.state.confirmed]) {
            if confirmed.is_some_and(|at| at.height > fork_point.height) {
                *confirmed = None;
                changed = true;
            }
        }
        let known = self.state.spent.len();
        self.state.spent.retain(|spend| spend.at.height <= fork_point.height);
        changed | (self.state.spent.len() != known)
    }

    /// Writes what changes with blocks.
    pub(super) fn put_state(&self, writes: &mut Batch) {
        let leaves = self.leaves.iter().map(|leaf| leaf.state.clone()).collect();
        let state = BatchState { leaves, ..self.state.clone() };
        let mut value = Vec::with_capacity(256);
        ciborium::into_writer(&state, &mut value).expect("writing to memory cannot fail");
        writes.put(Table::VirtualBatch.key(key(self.root())), value);
    }

    /// Writes all of it.
    pub(super) fn put_all(&self, writes: &mut Batch) {
        self.put_state(writes);
        for leaf in &self.leaves {
            writes.put(path_key(self.root(), leaf.state.slot), leaf.path.encode());
        }
    }

    /// Removes all of it.
    pub(super) fn delete_all(&self, writes: &mut Batch) {
        writes.delete(Table::VirtualBatch.key(key(self.root())));
        for leaf in &self.leaves {
            writes.delete(path_key(self.root(), leaf.state.slot));
        }
    }

    /// Reads every record.
    pub(super) fn load(committer: &Committer) -> Result<Vec<Self>, StoreError> {
        let values = committer.scan_all(Table::VirtualBatch, [])?;
        values.into_iter().map(|(_, value)| Self::read(committer, &value)).collect()
    }

    fn read(committer: &Committer, value: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |detail: String| StoreError::Corrupt(format!("virtual batch: {detail}"));
        let mut state: BatchState =
            ciborium::from_reader(value).map_err(|error| corrupt(error.to_string()))?;
        let mut leaves = Vec::with_capacity(state.leaves.len());
        let mut nodes = BTreeMap::new();
        for leaf in std::mem::take(&mut state.leaves) {
            let path = committer
                .get(&path_key(state.root, leaf.slot))?
                .ok_or_else(|| corrupt(format!("path of leaf {} is missing", leaf.slot)))?;
            let path = SignedPath::decode(&path).map_err(|error| corrupt(error.to_string()))?;
            leaves.push(VirtualLeaf::under(leaf, path, &mut nodes));
        }
        Ok(Self { state, leaves, nodes })
    }
}

/// Where something is confirmed after the block `at`, which `has` it or not; says whether that
/// changed.
fn settle(confirmed: &mut Option<BlockRef>, at: BlockRef, has: bool) -> bool {
    let before = *confirmed;
    if has {
        *confirmed = Some(at);
    } else if before.is_some_and(|old| old.height == at.height && old.hash != at.hash) {
        // A reorg that nobody told: LDK's own state from before it was lost in a crash.
        *confirmed = None;
    }
    *confirmed != before
}

fn top(path: &VerifiedPath) -> Txid {
    path.transactions[0].transaction.compute_txid()
}

fn key(root: OutPoint) -> Vec<u8> {
    bitcoin::consensus::serialize(&root)
}

fn path_key(root: OutPoint, slot: u16) -> Vec<u8> {
    let mut rest = key(root);
    rest.extend(slot.to_be_bytes());
    Table::VirtualPath.key(rest)
}
