//! The last blocks that a listener has seen, as it stores them.

use bitcoin::Block;
use serde::{Deserialize, Serialize};

use super::BlockRef;

/// Blocks kept to find the fork point of a reorg.
const KEPT: usize = 144;

/// The last block seen, then its ancestors, newest first. Empty for a listener without a past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(Vec<BlockRef>);

impl Positions {
    /// The blocks, newest first.
    pub fn blocks(&self) -> Vec<BlockRef> {
        self.0.clone()
    }

    /// Takes the block after the last one.
    pub fn connect(&mut self, block: &Block, height: u32) {
        self.0.insert(0, BlockRef { height, hash: block.block_hash() });
        self.0.truncate(KEPT);
    }

    /// Forgets all blocks above `fork_point`, which stays.
    pub fn disconnect(&mut self, fork_point: BlockRef) {
        self.0.retain(|block| block.height <= fork_point.height);
        if self.0.is_empty() {
            self.0.push(fork_point);
        }
    }
}
