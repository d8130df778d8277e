//! The wallet among those who must see every block.

use std::sync::Arc;

use bitcoin::Block;

use super::Wallet;
use super::rivals::RECENT_BLOCKS;
use crate::chain::follower::ChainListener;
use crate::chain::{BlockRef, ChainSource};

impl Wallet {
    /// Looks at the blocks again that the wallet saw last before it stopped, so that what is
    /// broadcast from now on hears what they decided: LDK offers claims anew that lost in one of
    /// them. A block that `chain` cannot give is left out.
    pub async fn look_back(&self, chain: &dyn ChainSource) {
        let mut last = self.positions();
        last.truncate(RECENT_BLOCKS);
        for at in last.into_iter().rev() {
            match chain.block(at.hash).await {
                Ok(block) => self.recall(&block, at.height),
                Err(error) => tracing::debug!(block = %at.hash, %error, "not looked at again"),
            }
        }
    }

    pub(super) fn recall(&self, block: &Arc<Block>, height: u32) {
        self.lock().recent.push(block, height);
    }
}

impl ChainListener for Wallet {
    fn name(&self) -> &str {
        "wallet"
    }

    fn positions(&self) -> Vec<BlockRef> {
        Wallet::positions(self)
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        match Wallet::block_connected(self, block, height) {
            // Nobody waits: a wallet that restarts asks for the block again.
            Ok(_ticket) => {}
            Err(error) => tracing::error!(%error, "the wallet did not take a block"),
        }
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        match Wallet::blocks_disconnected(self, fork_point) {
            Ok(_ticket) => {}
            Err(error) => tracing::error!(%error, "the wallet did not let go of blocks"),
        }
    }
}
