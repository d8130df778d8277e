//! The embedded chain behind the seams that a real node is behind too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, FeeRate, Network, OutPoint, Transaction, TxOut, Txid};

use super::EmbeddedChain;
use crate::chain::{
    BlockRef, BroadcastError, Broadcaster, ChainError, ChainSource, FeeSource, TxStatus,
};

/// How long `changed` waits for a block.
const CHANGED_TIMEOUT: Duration = Duration::from_secs(30);

#[async_trait]
impl ChainSource for EmbeddedChain {
    fn network(&self) -> Network {
        Network::Regtest
    }

    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(self.best())
    }

    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        Ok(self.shared.state.lock().ledger.hash_at(height))
    }

    async fn height_of(&self, hash: BlockHash) -> Result<Option<u32>, ChainError> {
        Ok(self.shared.state.lock().ledger.best_height_of(hash))
    }

    async fn block(&self, hash: BlockHash) -> Result<Arc<Block>, ChainError> {
        let state = self.shared.state.lock();
        state.ledger.block(hash).cloned().ok_or(ChainError::UnknownBlock(hash))
    }

    async fn changed(&self, known: BlockHash) {
        let mut tip = self.shared.tip.subscribe();
        let moved = tip.wait_for(|tip| tip.hash != known);
        // Running out of time is an answer too: the caller looks again.
        let _ = tokio::time::timeout(CHANGED_TIMEOUT, moved).await;
    }

    async fn transaction_status(&self, txid: Txid) -> Result<TxStatus, ChainError> {
        let state = self.shared.state.lock();
        if let Some(height) = state.ledger.confirmed_height(txid) {
            let hash = state.ledger.hash_at(height).expect("confirmed below the tip");
            return Ok(TxStatus::Confirmed(BlockRef { height, hash }));
        }
        Ok(if state.mempool.contains(&txid) { TxStatus::Mempool } else { TxStatus::Unknown })
    }

    async fn unspent_output(&self, outpoint: OutPoint) -> Result<Option<TxOut>, ChainError> {
        Ok(self.output(outpoint))
    }

    async fn mempool(&self) -> Result<Vec<Txid>, ChainError> {
        Ok(self.shared.state.lock().mempool.txids())
    }

    async fn mempool_transaction(&self, txid: Txid) -> Result<Option<Transaction>, ChainError> {
        let state = self.shared.state.lock();
        Ok(state.mempool.get(&txid).map(|entry| Transaction::clone(&entry.tx)))
    }
}

#[async_trait]
impl Broadcaster for EmbeddedChain {
    async fn submit(&self, package: &[Transaction]) -> Result<(), BroadcastError> {
        self.accept(package)
    }
}

#[async_trait]
impl FeeSource for EmbeddedChain {
    async fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError> {
        let state = self.shared.state.lock();
        let estimates = &state.estimates;
        let known =
            estimates.range(..=target_blocks).next_back().or_else(|| estimates.iter().next());
        Ok(known.map(|(_, rate)| *rate))
    }

    async fn mempool_minimum(&self) -> Result<FeeRate, ChainError> {
        let feerates = self.shared.state.lock().feerates;
        Ok(feerates.min_relay.max(feerates.mempool_minimum))
    }
}
