//! The wallet among those who must see every block.

use std::sync::Arc;

use bitcoin::Block;

use super::Wallet;
use crate::chain::BlockRef;
use crate::chain::follower::ChainListener;

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
