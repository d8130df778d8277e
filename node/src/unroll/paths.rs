//! What the unroller is told: paths, where they stand, and who waits for them.

use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, Txid};

use super::{Reason, UnrollError};
use crate::chain::virtual_confirmation::VirtualConfirmations;
use crate::channels::Channels;
use crate::lightning::{CloseKind, Lightning, WithheldKind};

/// Where a tree transaction stands on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whether the root of its batch is in a block.
    pub is_rooted: bool,
    /// The height of the block that has the transaction itself.
    pub leaf: Option<u32>,
}

/// The paths of a node, or of those whom a tower guards.
pub trait Paths: Send + Sync {
    /// The signed transactions from the root down to the one with the output `funding`.
    ///
    /// # Errors
    ///
    /// [`UnrollError::Unknown`] or [`UnrollError::Path`].
    fn path(&self, funding: OutPoint, reason: Reason) -> Result<Vec<Transaction>, UnrollError>;

    /// Where the tree transaction `txid` stands; `None` if its path is wanted by nobody any more.
    fn place(&self, txid: Txid) -> Option<Place>;

    /// The root of the batch that the tree transaction `txid` belongs to.
    fn root_of(&self, txid: Txid) -> Option<OutPoint>;

    /// Funding outputs that commitments wait for.
    fn awaited(&self) -> Vec<OutPoint>;

    /// Whether both sides closed the channel of `funding`, so that a commitment of it means
    /// nothing.
    fn is_closed_together(&self, funding: OutPoint) -> bool;

    /// The most that one transaction of the path to `funding` may cost.
    fn fee_max(&self, funding: OutPoint) -> Amount;
}

/// The paths of this node.
pub struct OwnPaths {
    /// LDK: which commitments wait for a leaf.
    pub lightning: Arc<Lightning>,
    /// Records of channels: which of them ended by agreement.
    pub channels: Arc<Channels>,
    /// The paths.
    pub confirmations: Arc<VirtualConfirmations>,
}

impl Paths for OwnPaths {
    fn path(&self, funding: OutPoint, reason: Reason) -> Result<Vec<Transaction>, UnrollError> {
        path_to(&self.confirmations, funding, reason)
    }

    fn place(&self, txid: Txid) -> Option<Place> {
        let place = self.confirmations.place(txid)?;
        let leaf = place.leaf.map(|block| block.height);
        Some(Place { is_rooted: place.root.is_some(), leaf })
    }

    fn root_of(&self, txid: Txid) -> Option<OutPoint> {
        self.confirmations.root_of(txid)
    }

    fn awaited(&self) -> Vec<OutPoint> {
        let withheld = self.lightning.withheld_leaves().into_iter();
        let commitments = withheld.filter(|(_, kind)| *kind == WithheldKind::Commitment);
        commitments.map(|(funding, _)| funding).collect()
    }

    fn is_closed_together(&self, funding: OutPoint) -> bool {
        let channel = self.channels.by_funding().get(&funding).copied();
        let record = channel.and_then(|channel| self.channels.recorded(channel));
        record.is_some_and(|record| record.close_kind == Some(CloseKind::Cooperative))
    }

    fn fee_max(&self, _funding: OutPoint) -> Amount {
        // The feerate alone bounds what a node pays for itself.
        Amount::MAX_MONEY
    }
}

/// The transactions that lead to the leaf with the output `funding`, verified anew.
pub(crate) fn path_to(
    confirmations: &VirtualConfirmations,
    funding: OutPoint,
    reason: Reason,
) -> Result<Vec<Transaction>, UnrollError> {
    let path = match reason {
        Reason::Reclaim => confirmations.path_through(funding.txid),
        // A leaf of this node, not one that its path only leads through.
        _ => confirmations.path_to(funding.txid),
    };
    let path = path.ok_or(UnrollError::Unknown { funding })?;
    let verified = path
        .stated_ends()
        .and_then(|ends| path.verify(&ends))
        .map_err(|source| UnrollError::Path { funding, source })?;
    let steps = verified.transactions.into_iter();
    let mut transactions: Vec<Transaction> = steps.map(|step| step.transaction).collect();
    let last = transactions.iter().position(|step| step.compute_txid() == funding.txid);
    transactions.truncate(last.map_or(0, |last| last + 1));
    // The last output of a leaf is its anchor.
    let outputs = transactions.last().map_or(0, |leaf| leaf.output.len());
    if funding.vout as usize + 1 >= outputs {
        return Err(UnrollError::Unknown { funding });
    }
    Ok(transactions)
}
