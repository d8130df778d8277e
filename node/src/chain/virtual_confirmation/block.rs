//! What LDK sees of one block: a function of the block and the records.

use std::collections::{HashMap, HashSet};

use bitcoin::{Block, OutPoint, Transaction, Txid};

use super::batch::VirtualBatch;

/// What a block confirms of batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualBlock {
    /// Leaves and their virtual indices, ascending.
    leaves: Vec<(u32, Transaction)>,
    /// Places in the block of leaves that are given at their virtual index instead.
    repeated: HashSet<usize>,
    /// Roots that are in the block as agreed.
    roots: HashSet<OutPoint>,
    /// Leaves of any record that are in the block themselves.
    real: HashSet<Txid>,
}

impl VirtualBlock {
    /// Finds what `block` confirms of `batches`.
    ///
    /// A batch takes indices that belong to the place of its transaction in the block, so that no
    /// index repeats and both sides of a channel find the same one. A root that is not as agreed,
    /// or is spent in the same block by another than its tree, confirms nothing.
    pub fn new<'a>(block: &Block, batches: impl IntoIterator<Item = &'a VirtualBatch>) -> Self {
        let batches: Vec<&VirtualBatch> = batches.into_iter().collect();
        let mut this = Self::default();
        if batches.is_empty() {
            return this;
        }
        let places: HashMap<Txid, usize> =
            block.txdata.iter().map(Transaction::compute_txid).zip(0..).collect();
        let leaves = batches.iter().flat_map(|batch| batch.leaves());
        this.real = leaves.map(|leaf| leaf.txid()).filter(|id| places.contains_key(id)).collect();

        let mut roots: Vec<(usize, &VirtualBatch)> = batches
            .into_iter()
            .filter_map(|batch| Some((*places.get(&batch.root().txid)?, batch)))
            .filter(|(place, batch)| is_as_agreed(block, *place, batch))
            .collect();
        roots.sort_by_key(|(place, batch)| (*place, batch.root().vout));
        let (mut last, mut before) = (None, 0);
        for (place, batch) in roots {
            if last != Some(place) {
                (last, before) = (Some(place), 0);
            }
            this.add(batch, place, before, &places);
            before += batch.width();
        }
        this
    }

    /// Returns the transactions LDK gets, with their indices, ascending: those of `block`, then
    /// the leaves. A leaf that is in the block itself is given once, at its virtual index.
    pub fn transactions<'a>(&'a self, block: &'a Block) -> Vec<(usize, &'a Transaction)> {
        let own = block.txdata.iter().enumerate();
        let own = own.filter(|(place, _)| !self.repeated.contains(place));
        own.chain(self.leaves.iter().map(|(index, leaf)| (*index as usize, leaf))).collect()
    }

    /// The leaves and their virtual indices, ascending.
    pub fn leaves(&self) -> &[(u32, Transaction)] {
        &self.leaves
    }

    /// Whether the block has `root` as agreed.
    pub fn confirms(&self, root: OutPoint) -> bool {
        self.roots.contains(&root)
    }

    /// Whether the block itself has the leaf `txid`.
    pub fn has_leaf(&self, txid: Txid) -> bool {
        self.real.contains(&txid)
    }

    /// Adds the leaves of `batch`, whose transaction is at `place`, behind `before` indices of
    /// other batches of that transaction: all or none.
    fn add(
        &mut self,
        batch: &VirtualBatch,
        place: usize,
        before: u32,
        places: &HashMap<Txid, usize>,
    ) {
        let root = batch.root();
        let mut leaves = Vec::with_capacity(batch.leaves().len());
        for leaf in batch.leaves() {
            let slot = leaf.slot();
            let Some(index) = slot.virtual_index(place, before) else {
                tracing::error!(%root, place, before, "no virtual index is left; not confirmed");
                return;
            };
            // LDK panics on a leaf that is unsigned or wrong: what was stored is checked again.
            match leaf.transaction(batch.root_output()) {
                Ok(transaction) if transaction.compute_txid() == leaf.txid() => {
                    leaves.push((index, transaction));
                }
                Ok(_) => {
                    tracing::error!(%root, slot = slot.0, "stored path has another leaf");
                    return;
                }
                Err(error) => {
                    tracing::error!(%root, slot = slot.0, %error, "stored path is wrong");
                    return;
                }
            }
        }
        tracing::info!(%root, leaves = leaves.len(), "batch confirmed");
        self.roots.insert(root);
        self.repeated.extend(batch.leaves().iter().filter_map(|leaf| places.get(&leaf.txid())));
        self.leaves.extend(leaves);
    }
}

/// Whether the batch transaction at `place` has the output agreed on and nobody took it at once.
fn is_as_agreed(block: &Block, place: usize, batch: &VirtualBatch) -> bool {
    let root = batch.root();
    let outputs = &block.txdata[place].output;
    let found = usize::try_from(root.vout).ok().and_then(|vout| outputs.get(vout));
    if found != Some(batch.root_output()) {
        tracing::error!(%root, ?found, expected = ?batch.root_output(), "root is another output");
        return false;
    }
    let thief = block.txdata[place + 1..].iter().find(|transaction| {
        transaction.input.iter().any(|input| input.previous_output == root)
            && transaction.compute_txid() != batch.top()
    });
    if let Some(thief) = thief {
        let txid = thief.compute_txid();
        tracing::error!(%root, %txid, "root is spent in its own block by another than its tree");
        return false;
    }
    true
}
