//! Transactions that spend a leaf of a batch which is not on chain: held back, not broadcast.
//!
//! LDK closes a virtual channel as any other, by publishing a commitment; no node of the network
//! takes it before its leaf is there. The newest package for each commitment waits here, in
//! memory: LDK offers commitments again at every start and every 30 seconds.
//!
//! A cooperative closing transaction LDK offers once. It is *parked*: durable with the state of
//! LDK that has closed the channel, and here again after a restart, until its channel is
//! forgotten. The channel is retired from then on, and commitments of ours for it are dropped,
//! also when its leaf is on chain: LDK knows of no closing transaction after a restart and offers
//! them, where they would compete with it.
//!
//! Whoever publishes paths asks [`Withheld::leaves`] for which, and why: a commitment wants its
//! leaf on chain, a closing transaction by itself does not (BATCHES §6). Once a block has the
//! leaf, the package leaves with the next cycle of the gate; at a start again, if it is parked.
//!
//! Source: BATCHES §6 and §9.2.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{OutPoint, Transaction, Txid};
use channel_contracts::script::has_commitment_form;
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::ln::types::ChannelId;
use parking_lot::Mutex;

use crate::chain::virtual_confirmation::VirtualConfirmations;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

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
    committer: Committer,
    waiting: Mutex<HashMap<Txid, Waiting>>,
    /// Closing transactions of retired channels, by funding outpoint.
    parked: Mutex<BTreeMap<OutPoint, Transaction>>,
}

struct Waiting {
    leaf: OutPoint,
    kind: WithheldKind,
    /// The package to broadcast; `None` where LDK asks for a child that pays the fee, which is
    /// built when it can leave.
    package: Option<Vec<Transaction>>,
}

impl Waiting {
    fn closing(leaf: OutPoint, transaction: &Transaction) -> Self {
        let package = Some(vec![transaction.clone()]);
        Self { leaf, kind: WithheldKind::Closing, package }
    }
}

impl Withheld {
    /// Holds back what `confirmations` says must wait, and reads what is parked.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn load(
        confirmations: Arc<VirtualConfirmations>,
        committer: Committer,
    ) -> Result<Self, StoreError> {
        let corrupt =
            |detail: String| StoreError::Corrupt(format!("closing transaction: {detail}"));
        let (mut waiting, mut parked) = (HashMap::new(), BTreeMap::new());
        for (key, value) in committer.scan_all(Table::ParkedClosing, [])? {
            let leaf = Table::ParkedClosing.rest(&key).unwrap_or_default();
            let leaf: OutPoint = deserialize(leaf).map_err(|error| corrupt(error.to_string()))?;
            let transaction: Transaction =
                deserialize(&value).map_err(|error| corrupt(error.to_string()))?;
            waiting.insert(transaction.compute_txid(), Waiting::closing(leaf, &transaction));
            parked.insert(leaf, transaction);
        }
        let (waiting, parked) = (Mutex::new(waiting), Mutex::new(parked));
        Ok(Self { confirmations, committer, waiting, parked })
    }

    /// Hears a package at the moment LDK asks for it. Says whether a member spends a leaf that is
    /// not on chain, or the package is one that never leaves.
    ///
    /// A closing transaction is parked here: its write is pending before LDK lets go of the lock
    /// under which it closed the channel, so that no manager without the channel is durable
    /// without it.
    pub fn waits(&self, package: &[Transaction]) -> bool {
        if self.is_dropped(package) {
            return true;
        }
        let waiting = package.iter().find_map(|tx| Some((tx, self.confirmations.waits_for(tx)?)));
        if let Some((transaction, leaf)) = waiting
            && kind_of(transaction) == WithheldKind::Closing
        {
            self.park(leaf, transaction);
        }
        waiting.is_some()
    }

    /// Parks the closing transaction of the channel with the funding output `leaf`.
    pub fn park(&self, leaf: OutPoint, transaction: &Transaction) {
        let known = self.parked.lock().insert(leaf, transaction.clone());
        if known.as_ref() != Some(transaction) {
            let mut writes = Batch::default();
            writes.put(key(leaf), serialize(transaction));
            let _durable_with_the_manager = self.committer.enqueue(writes);
            self.waiting.lock().retain(|_, waiting| waiting.leaf != leaf);
            let txid = transaction.compute_txid();
            tracing::info!(%txid, %leaf, "channel of a batch is retired; its closing is parked");
        }
    }

    /// The closing transaction parked for the funding output `leaf`.
    pub fn parked(&self, leaf: OutPoint) -> Option<Transaction> {
        self.parked.lock().get(&leaf).cloned()
    }

    /// The closing transaction parked for `channel`, by LDK's name of it.
    pub fn parked_of(&self, channel: ChannelId) -> Option<Transaction> {
        let parked = self.parked.lock();
        let (_, transaction) = parked.iter().find(|(funding, _)| {
            let index = u16::try_from(funding.vout).unwrap_or(u16::MAX);
            ChannelId::v1_from_funding_txid(funding.txid.as_ref(), index) == channel
        })?;
        Some(transaction.clone())
    }

    /// The funding outputs that closing transactions are parked for.
    pub fn parked_leaves(&self) -> Vec<OutPoint> {
        self.parked.lock().keys().copied().collect()
    }

    /// Forgets everything about the funding output `leaf`: nothing of it can be on chain any
    /// more, or all of it is buried.
    pub fn forget(&self, leaf: OutPoint) -> Ticket {
        self.waiting.lock().retain(|_, waiting| waiting.leaf != leaf);
        let mut writes = Batch::default();
        if self.parked.lock().remove(&leaf).is_some() {
            writes.delete(key(leaf));
        }
        self.committer.enqueue(writes)
    }

    /// Whether `package` is a commitment of a retired channel.
    fn is_dropped(&self, package: &[Transaction]) -> bool {
        let parked = self.parked.lock();
        !parked.is_empty()
            && package.iter().any(|transaction| {
                let mut spent = transaction.input.iter().map(|input| input.previous_output);
                kind_of(transaction) == WithheldKind::Commitment
                    && spent.any(|spent| parked.contains_key(&spent))
            })
    }

    /// Gives `package` back if it may leave, else keeps it.
    pub fn pass(&self, package: Vec<Transaction>) -> Option<Vec<Transaction>> {
        if self.is_dropped(&package) {
            return None;
        }
        let waiting = |tx: &Transaction| {
            Some((tx.compute_txid(), self.confirmations.waits_for(tx)?, kind_of(tx)))
        };
        let Some((txid, leaf, kind)) = package.iter().find_map(waiting) else {
            return Some(package);
        };
        self.keep(txid, Waiting { leaf, kind, package: Some(package) });
        None
    }

    /// Keeps the commitment that `bump` is about if it must wait; says whether nothing is to be
    /// bumped now.
    pub fn keep_bump(&self, bump: &BumpTransactionEvent) -> bool {
        let BumpTransactionEvent::ChannelClose { commitment_tx, .. } = bump else {
            return false;
        };
        if self.is_dropped(std::slice::from_ref(commitment_tx)) {
            return true;
        }
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

fn key(leaf: OutPoint) -> Vec<u8> {
    Table::ParkedClosing.key(serialize(&leaf))
}

/// What a transaction that spends a funding output is, by its form.
fn kind_of(transaction: &Transaction) -> WithheldKind {
    match has_commitment_form(transaction) {
        true => WithheldKind::Commitment,
        false => WithheldKind::Closing,
    }
}
