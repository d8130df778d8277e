//! What the wallet writes to the store, and how it reads it back.
//!
//! Each change of the wallet is one record in [`Table::Wallet`], by ascending sequence number:
//! BDK's change set together with our own holds and notes, so that all of one step is atomic.
//! A start merges the records in order and, if they are many, replaces them by one.

use std::collections::BTreeMap;

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::Merge;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

use crate::store::{Batch, Committer, StoreError, Table};

/// First byte of a record. A change of the layout takes the next number.
const FORMAT: u8 = 1;
/// So many records may lie in the store before a start makes them one.
const RECORDS_MAX: usize = 64;

/// For whom a coin is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// A transaction of ours that spends the coin, until it is confirmed or released.
    Transaction(Txid),
    /// A claim of LDK's (its `ClaimId`), or any other purpose with an id of its own.
    Claim([u8; 32]),
}

impl Owner {
    /// The owner with the id `id` within `purpose`: the same after a restart.
    pub fn claim(purpose: &str, id: &[u8]) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(purpose.as_bytes());
        engine.input(id);
        Self::Claim(sha256::Hash::from_engine(engine).to_byte_array())
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owner::Transaction(txid) => write!(f, "transaction {txid}"),
            Owner::Claim(id) => write!(f, "claim {}", hex::encode(id)),
        }
    }
}

/// Why one of our transactions was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// It funds channels or a batch: its txid must never change.
    Funding,
    /// It pays a fixed amount.
    Send,
    /// It pays whatever is left after fees to this script.
    SendAll(ScriptBuf),
    /// It pays for an unconfirmed ancestor.
    Child,
    /// It pays lines of a payout, whose receipts name it: its txid must never change.
    Payout,
    /// It ends a channel by agreement.
    Close,
    /// It pays for a commitment transaction of ours.
    Anchor,
    /// It takes what is ours of a channel that ended by force.
    Sweep,
}

/// One atomic change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// BDK's part.
    pub change: ChangeSet,
    /// Coins newly held, or free again (`None`).
    pub holds: BTreeMap<OutPoint, Option<Owner>>,
    /// Purposes of transactions.
    pub notes: BTreeMap<Txid, Purpose>,
}

impl Record {
    pub fn is_empty(&self) -> bool {
        self.change.is_empty() && self.holds.is_empty() && self.notes.is_empty()
    }

    /// Applies `later` on top.
    pub fn merge(&mut self, later: Record) {
        self.change.merge(later.change);
        self.holds.extend(later.holds);
        self.notes.extend(later.notes);
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        ciborium::into_writer(self, &mut bytes).expect("writing to memory does not fail");
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => ciborium::from_reader(body)
                .map_err(|error| StoreError::Corrupt(format!("wallet record: {error}"))),
            Some((&found, _)) if found > FORMAT => {
                Err(StoreError::NewerVersion { found: found.into(), known: FORMAT.into() })
            }
            _ => Err(StoreError::Corrupt("wallet record without format".into())),
        }
    }
}

/// What the store holds of the wallet.
pub(super) struct Stored {
    /// All records, merged.
    pub record: Record,
    /// The sequence number of the next record.
    pub next_sequence: u64,
    keys: Vec<Vec<u8>>,
}

/// Reads all records, those not yet durable included.
pub(super) fn read(committer: &Committer) -> Result<Stored, StoreError> {
    let pairs = committer.scan_all(Table::Wallet, [])?;
    let mut stored = Stored {
        record: Record::default(),
        next_sequence: 0,
        keys: Vec::with_capacity(pairs.len()),
    };
    for (key, value) in pairs {
        let sequence = Table::Wallet
            .rest(&key)
            .and_then(|rest| rest.try_into().ok())
            .map(u64::from_be_bytes)
            .ok_or_else(|| StoreError::Corrupt("wallet record with a strange key".into()))?;
        stored.record.merge(Record::decode(&value)?);
        stored.next_sequence = sequence + 1;
        stored.keys.push(key);
    }
    stored.record.holds.retain(|_, owner| owner.is_some());
    Ok(stored)
}

/// Returns the batch that writes `record` as number `sequence`.
pub(super) fn append(record: &Record, sequence: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Wallet.key(sequence.to_be_bytes()), record.encode());
    batch
}

impl Stored {
    /// Returns the batch that replaces all records by one, if they are many.
    pub fn compaction(&mut self) -> Option<Batch> {
        if self.keys.len() <= RECORDS_MAX {
            return None;
        }
        let mut batch = Batch::default();
        for key in self.keys.drain(..) {
            batch.delete(key);
        }
        batch.append(append(&self.record, self.next_sequence));
        self.next_sequence += 1;
        Some(batch)
    }
}
