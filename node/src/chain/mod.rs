//! The chain: where blocks come from, where transactions go, and what fees cost.
//!
//! [`ChainSource`], [`Broadcaster`] and [`FeeSource`] are the seams; `embedded` is an in-process
//! regtest and `bitcoind` a real node over RPC. `follower` is the one reader of blocks: it feeds
//! LDK, wallet and services in lockstep and survives reorgs, stalls and lost endpoints.
//! `virtual_confirmation` says what LDK sees of a block beside its own transactions.

pub mod bitcoind;
pub mod broadcast;
pub mod embedded;
pub mod fees;
pub mod follower;
mod positions;
pub mod virtual_confirmation;

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, FeeRate, Network, OutPoint, Transaction, TxOut, Txid};
pub use bitcoind::EndpointHealth;
pub use positions::Positions;

/// Confirmations after which a transaction, or its rival, is final as far as we are concerned.
pub const BURIED_DEPTH: u32 = 6;

/// A block's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct BlockRef {
    /// Height, genesis is 0.
    pub height: u32,
    /// Hash.
    pub hash: BlockHash,
}

/// Where a transaction stands for a chain source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    /// In a block of the best chain.
    Confirmed(BlockRef),
    /// Waiting in the mempool.
    Mempool,
    /// Neither.
    Unknown,
}

/// A source of blocks.
///
/// A backend answers from one best chain, which may change between two calls.
#[async_trait]
pub trait ChainSource: Send + Sync + 'static {
    /// The network this source is on.
    fn network(&self) -> Network;
    /// Returns the tip of the best chain.
    async fn tip(&self) -> Result<BlockRef, ChainError>;
    /// Returns the hash of the best chain's block at `height`, or `None` above the tip.
    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError>;
    /// Returns the height of `hash` if it is in the best chain.
    async fn height_of(&self, hash: BlockHash) -> Result<Option<u32>, ChainError>;
    /// Returns a block by hash, also one that was reorged out while it is known.
    async fn block(&self, hash: BlockHash) -> Result<Arc<Block>, ChainError>;
    /// Waits until the tip differs from `known`, or some time has passed.
    async fn changed(&self, known: BlockHash);
    /// Returns where `txid` stands. May answer `Unknown` for one confirmed long ago.
    async fn transaction_status(&self, txid: Txid) -> Result<TxStatus, ChainError>;
    /// Returns the unspent output at `outpoint` in the best chain, mempool not counted.
    async fn unspent_output(&self, outpoint: OutPoint) -> Result<Option<TxOut>, ChainError>;
    /// Returns the ids of the mempool.
    async fn mempool(&self) -> Result<Vec<Txid>, ChainError>;
    /// Returns a transaction of the mempool.
    async fn mempool_transaction(&self, txid: Txid) -> Result<Option<Transaction>, ChainError>;
    /// Returns how each place it asks does; nothing for a source that asks nobody.
    fn endpoints(&self) -> Vec<EndpointHealth> {
        Vec::new()
    }
}

/// Takes transactions to the network.
#[async_trait]
pub trait Broadcaster: Send + Sync + 'static {
    /// Submits one transaction, or a package of a parent and its child, parents first.
    ///
    /// Submitting what is already known, in mempool or chain, succeeds.
    async fn submit(&self, package: &[Transaction]) -> Result<(), BroadcastError>;
}

/// Estimates feerates.
#[async_trait]
pub trait FeeSource: Send + Sync + 'static {
    /// Returns the feerate to confirm within `target_blocks`, or `None` if unknown.
    async fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError>;
    /// Returns the lowest feerate the mempool takes now.
    async fn mempool_minimum(&self) -> Result<FeeRate, ChainError>;
}

/// Why the chain cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChainError {
    /// No endpoint answers.
    #[error("no chain endpoint answers: {0}; check chain.bitcoind.urls and that bitcoind runs")]
    Unreachable(String),
    /// The endpoint refuses our credentials.
    #[error("bitcoind at {url} refuses our credentials; check cookie file, user and password")]
    Unauthorized {
        /// The endpoint.
        url: String,
    },
    /// The endpoint is on another network.
    #[error("bitcoind at {url} is on {found}, this node is on {expected}; check network and urls")]
    WrongNetwork {
        /// The endpoint.
        url: String,
        /// Its network.
        found: String,
        /// Ours.
        expected: Network,
    },
    /// The block is not known (pruned or never seen).
    #[error("block {0} is not available from the chain source")]
    UnknownBlock(BlockHash),
    /// The endpoint answered with something that is not what the call promises.
    #[error("chain endpoint gave a bad answer to {call}: {detail}")]
    BadAnswer {
        /// The RPC method.
        call: String,
        /// What was wrong.
        detail: String,
    },
}

/// Why a package was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BroadcastError {
    /// Policy or consensus refuses it; the reason is the node's own word (`min relay fee not met`).
    #[error("transaction {txid} was refused: {reason}")]
    Rejected {
        /// The first refused transaction.
        txid: Txid,
        /// The reason given.
        reason: String,
    },
    /// An input is spent or does not exist.
    #[error("transaction {txid} spends a missing or spent output")]
    MissingInputs {
        /// The refused transaction.
        txid: Txid,
    },
    /// The endpoint could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}
