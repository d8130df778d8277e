//! Transactions that spend a leaf of a batch which is not on chain: held back, not broadcast.
//!
//! LDK closes a virtual channel as any other, by publishing a commitment; no node of the network
//! takes it before its leaf is there. The newest package for each commitment waits here, in
//! memory: LDK offers commitments again at every start and every 30 seconds. A cooperative
//! closing transaction it offers once; parking that durably is the business of retirement.
//!
//! Whoever publishes paths asks [`Withheld::leaves`] for which, and why: a commitment wants its
//! leaf on chain, a closing transaction by itself does not (BATCHES §6). Once a block has the
//! leaf, the package leaves with the next cycle of the gate.
//!
//! Source: BATCHES §9.2.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};
use lightning::events::bump_transaction::BumpTransactionEvent;
use parking_lot::Mutex;

use crate::chain::virtual_confirmation::VirtualConfirmations;

/// What waits for a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WithheldKind {
    /// The transaction of a channel that both sides closed together: it is in no hurry, and is
    /// published if somebody puts the leaf on chain.
    Closing,
    /// A commitment: one side closes alone, and the path to the leaf must be published for it.
    Commitment,
}

/// What waits, by the id of the transaction that spends the leaf.
pub(super) struct Withheld {
    confirmations: Arc<VirtualConfirmations>,
    waiting: Mutex<HashMap<Txid, Waiting>>,
}

struct Waiting {
    leaf: OutPoint,
    kind: WithheldKind,
    /// The package to broadcast; `None` where LDK asks for a child that pays the fee, which is
    /// built when it can leave.
    package: Option<Vec<Transaction>>,
}

impl Withheld {
    /// Holds back what `confirmations` says must wait.
    pub fn new(confirmations: Arc<VirtualConfirmations>) -> Self {
        Self { confirmations, waiting: Mutex::default() }
    }

    /// Whether a member of `package` spends a leaf that is not on chain.
    pub fn waits(&self, package: &[Transaction]) -> bool {
        package.iter().any(|transaction| self.confirmations.waits_for(transaction).is_some())
    }

    /// Gives `package` back if it may leave, else keeps it.
    pub fn pass(&self, package: Vec<Transaction>) -> Option<Vec<Transaction>> {
        let waiting = |tx: &Transaction| {
            Some((tx.compute_txid(), self.confirmations.waits_for(tx)?, kind_of(tx)))
        };
        let Some((txid, leaf, kind)) = package.iter().find_map(waiting) else {
            return Some(package);
        };
        self.keep(txid, Waiting { leaf, kind, package: Some(package) });
        None
    }

    /// Keeps the commitment that `bump` is about if it must wait; says whether it does.
    pub fn keep_bump(&self, bump: &BumpTransactionEvent) -> bool {
        let BumpTransactionEvent::ChannelClose { commitment_tx, .. } = bump else {
            return false;
        };
        let Some(leaf) = self.confirmations.waits_for(commitment_tx) else {
            return false;
        };
        let kind = WithheldKind::Commitment;
        self.keep(commitment_tx.compute_txid(), Waiting { leaf, kind, package: None });
        true
    }

    fn keep(&self, txid: Txid, waiting: Waiting) {
        let leaf = waiting.leaf;
        if self.waiting.lock().insert(txid, waiting).is_none() {
            tracing::info!(%txid, %leaf, "transaction waits for its leaf to be on chain");
        }
    }

    /// Takes the packages whose leaf is on chain now.
    pub fn take_due(&self) -> Vec<Vec<Transaction>> {
        self.take(|waiting| waiting.package.is_some()).filter_map(|w| w.package).collect()
    }

    /// Drops the bumps whose leaf is on chain now; says whether there were any, so that LDK is
    /// asked to repeat them.
    pub fn take_due_bumps(&self) -> bool {
        self.take(|waiting| waiting.package.is_none()).count() > 0
    }

    fn take(&self, which: impl Fn(&Waiting) -> bool) -> impl Iterator<Item = Waiting> {
        let mut waiting = self.waiting.lock();
        let due: Vec<Txid> = waiting
            .iter()
            .filter(|(_, w)| which(w) && self.confirmations.is_on_chain(w.leaf))
            .map(|(txid, _)| *txid)
            .collect();
        let due: Vec<Waiting> = due.iter().filter_map(|txid| waiting.remove(txid)).collect();
        due.into_iter()
    }

    /// The leaves that something waits for, as funding outpoints, and what: where a commitment
    /// does, that.
    pub fn leaves(&self) -> BTreeMap<OutPoint, WithheldKind> {
        let mut leaves = BTreeMap::new();
        for Waiting { leaf, kind, .. } in self.waiting.lock().values() {
            let known = leaves.entry(*leaf).or_insert(*kind);
            *known = (*known).max(*kind);
        }
        leaves
    }
}

/// What a transaction that spends a funding output is, by its form.
///
/// BOLT 3, "Commitment Transaction": the upper 8 bits of the locktime are 0x20, those of the
/// sequence 0x80. No closing transaction has both.
fn kind_of(transaction: &Transaction) -> WithheldKind {
    let upper = |bits: u32| bits >> 24;
    let sequence = transaction.input.first().map_or(0, |input| input.sequence.0);
    if upper(transaction.lock_time.to_consensus_u32()) == 0x20 && upper(sequence) == 0x80 {
        WithheldKind::Commitment
    } else {
        WithheldKind::Closing
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Sequence, TxIn, absolute, transaction};

    use super::*;

    #[test]
    fn only_a_commitment_wants_its_leaf_on_chain() {
        let kind = |lock_time: u32, sequence: u32| {
            kind_of(&Transaction {
                version: transaction::Version(3),
                lock_time: absolute::LockTime::from_consensus(lock_time),
                input: vec![TxIn { sequence: Sequence(sequence), ..TxIn::default() }],
                output: vec![],
            })
        };
        assert_eq!(kind(0x2012_3456, 0x8065_4321), WithheldKind::Commitment);
        for (lock_time, sequence) in
            [(0, 0xffff_ffff), (0, 0xffff_fffd), (800_000, 0x8065_4321), (0x2012_3456, 0xffff_fffd)]
        {
            assert_eq!(kind(lock_time, sequence), WithheldKind::Closing);
        }
    }
}
