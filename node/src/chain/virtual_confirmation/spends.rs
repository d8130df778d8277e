//! Which node outputs of batches were spent on chain, and by what.
//!
//! A node output is spent by its tree transaction, when somebody brings a path onto the chain, or
//! by another: then the hub has taken it back, and no leaf below it can ever be on chain. Both
//! are found in the blocks alone, so that a restart or a reorg needs no memory of who did what.

use std::collections::HashMap;

use bitcoin::{Block, OutPoint, Txid};
use serde::{Deserialize, Serialize};

use crate::chain::BlockRef;

/// A node output that a block spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpend {
    /// The node output.
    pub outpoint: OutPoint,
    /// The transaction that spends it.
    pub by: Txid,
    /// Its block.
    pub at: BlockRef,
}

impl NodeSpend {
    /// Blocks that bury it at `best`, its own included.
    pub fn confirmations(&self, best: u32) -> u32 {
        (best + 1).saturating_sub(self.at.height)
    }
}

/// The spends of `watched` outputs in `block`, by their batch's root.
pub(super) fn spends_in(
    block: &Block,
    at: BlockRef,
    watched: &HashMap<OutPoint, OutPoint>,
) -> HashMap<OutPoint, Vec<NodeSpend>> {
    let mut spends: HashMap<OutPoint, Vec<NodeSpend>> = HashMap::new();
    if watched.is_empty() {
        return spends;
    }
    for transaction in &block.txdata {
        for outpoint in transaction.input.iter().map(|input| input.previous_output) {
            if let Some(root) = watched.get(&outpoint) {
                let spend = NodeSpend { outpoint, by: transaction.compute_txid(), at };
                spends.entry(*root).or_default().push(spend);
            }
        }
    }
    spends
}

/// Takes note of what the block `at` spends; says whether anything changed. What another block of
/// that height spent is forgotten: a reorg that nobody told.
pub(super) fn note(known: &mut Vec<NodeSpend>, at: BlockRef, new: &[NodeSpend]) -> bool {
    let before = known.clone();
    known.retain(|spend| {
        let is_stale = spend.at.height == at.height && spend.at.hash != at.hash;
        !is_stale && new.iter().all(|new| new.outpoint != spend.outpoint)
    });
    known.extend(new);
    known.sort_unstable_by_key(|spend| spend.outpoint);
    *known != before
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;

    fn at(height: u32, fork: u8) -> BlockRef {
        BlockRef { height, hash: BlockHash::from_byte_array([fork; 32]) }
    }

    fn spend(node: u8, by: u8, at: BlockRef) -> NodeSpend {
        let outpoint = OutPoint::new(Txid::from_byte_array([node; 32]), 0);
        NodeSpend { outpoint, by: Txid::from_byte_array([by; 32]), at }
    }

    #[test]
    fn a_spend_is_known_until_its_block_is_replaced() {
        let mut known = vec![];
        let (first, second) = (spend(1, 7, at(700, 1)), spend(2, 8, at(701, 1)));
        assert!(note(&mut known, first.at, &[first]));
        assert!(!note(&mut known, first.at, &[first]), "the same block again");
        assert!(note(&mut known, second.at, &[second]));
        assert_eq!(known, [first, second]);
        // Another block at 701, without it; then one where another transaction spends it.
        assert!(note(&mut known, at(701, 2), &[]));
        assert_eq!(known, [first]);
        let rival = spend(2, 9, at(702, 2));
        assert!(note(&mut known, rival.at, &[rival]));
        assert_eq!(known, [first, rival]);
        assert_eq!((rival.confirmations(702), rival.confirmations(801)), (1, 100));
        assert_eq!(rival.confirmations(600), 0);
    }
}
