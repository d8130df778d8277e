//! The unroller: brings the path to a leaf of a batch onto the chain, one level per block.
//!
//! A path is a chain of transactions of version 3 without fees. The network takes one of them
//! only beside a child that pays for both, and only on a confirmed parent: so each level waits
//! for the block of the one before. What is to be published next is found on the chain itself,
//! from the one output above the leaf that is unspent. Levels that others published are skipped
//! that way, channels of one batch share theirs, and a restart or a reorg needs no memory.
//!
//! - `plan.rs`: where a path stands and what to pay, decided without looking at anything.
//! - `paths.rs`: what it is told of paths; a tower has those of others.
//! - `service.rs`: the one task, and what callers ask for.
//! - `record.rs`: what the store has of it: which leaves are wanted, and why.
//!
//! A hub asks for a part of a path too: the transactions down to one above its leaf, named by any
//! output of it. What is said of a leaf holds for that transaction then.
//!
//! Nothing is closed by it: a leaf on chain makes its channel an ordinary one. Commitments that
//! wait for the leaf leave by themselves (`lightning/withheld.rs`).
//!
//! Source: BATCHES §9.1, §9.2 and §9.4.

mod paths;
mod plan;
mod record;
mod service;
#[cfg(test)]
mod tests;

use bitcoin::{Amount, FeeRate, OutPoint, Txid};
use channel_contracts::tree::PathError;

pub(crate) use paths::path_to;
pub use paths::{OwnPaths, Paths, Place};
pub use record::Reason;
pub use service::{Parts, Unroller};

use crate::store::StoreError;

/// Why a leaf is not brought onto the chain.
#[derive(Debug, thiserror::Error)]
pub enum UnrollError {
    /// Nothing is known of it.
    #[error("{funding} funds no channel of a batch that this node has a path of")]
    Unknown {
        /// The funding outpoint.
        funding: OutPoint,
    },
    /// What is stored is not what was verified when it was stored.
    #[error("the stored path to {funding} cannot be published: {source}")]
    Path {
        /// The funding outpoint.
        funding: OutPoint,
        /// What is wrong.
        source: PathError,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A leaf that is brought onto the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnrollView {
    /// The funding output of the channel it is for; for a part of a path, an output of its last
    /// transaction.
    pub funding: OutPoint,
    /// Why.
    pub reason: Reason,
    /// Transactions of the path.
    pub levels: usize,
    /// Where it stands.
    pub state: UnrollState,
}

/// Where a leaf on its way onto the chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnrollState {
    /// It is recorded, and looked at next.
    Wanted,
    /// The batch transaction is in no block.
    AwaitsRoot,
    /// A transaction of the path waits for a block.
    Publishing {
        /// Which, from 0 at the root.
        level: usize,
        /// Its id.
        txid: Txid,
        /// The child of ours that pays for it.
        child: Txid,
        /// What both pay.
        feerate: FeeRate,
    },
    /// There is no confirmed coin to pay for the next transaction, or less may be paid than it
    /// costs. It is tried again at each block.
    NoCoin {
        /// Which, from 0 at the root.
        level: usize,
        /// What a coin must have.
        needed: Amount,
        /// What the largest free coin has, or what may be paid of it.
        largest: Amount,
    },
    /// The leaf is in a block; the record goes once it is buried.
    OnChain {
        /// Blocks that bury it, its own included.
        confirmations: u32,
    },
    /// Something else spent an output of the path: the batch has expired, most likely.
    Lost,
}
