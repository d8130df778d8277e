//! What the store has: the leaves that are wanted on chain, and why.

use bitcoin::OutPoint;
use bitcoin::consensus::encode::{deserialize, serialize};
use channel_contracts::batch::user::UnrollReason;
use serde::{Deserialize, Serialize};

use crate::store::{Batch, Committer, StoreError, Table};

/// Why a leaf is brought onto the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A caller wants to leave the batch.
    Requested,
    /// The batch's deadline is near (BATCHES §5.1).
    Deadline,
    /// An HTLC may need the chain (BATCHES §5.4).
    Htlc,
    /// A commitment waits for the leaf: one side closes alone.
    Commitment,
    /// The hub takes back what hangs beside it (BATCHES §8.2).
    Reclaim,
}

impl From<UnrollReason> for Reason {
    fn from(reason: UnrollReason) -> Self {
        match reason {
            UnrollReason::Requested => Self::Requested,
            UnrollReason::Deadline => Self::Deadline,
            UnrollReason::Htlc => Self::Htlc,
        }
    }
}

/// The value stored under the funding outpoint.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    reason: Reason,
}

/// Writes that `funding` is wanted.
pub(super) fn put(table: Table, funding: OutPoint, reason: Reason, writes: &mut Batch) {
    let mut value = Vec::new();
    ciborium::into_writer(&Record { reason }, &mut value).expect("writing to memory cannot fail");
    writes.put(key(table, funding), value);
}

/// Writes that it is not.
pub(super) fn delete(table: Table, funding: OutPoint, writes: &mut Batch) {
    writes.delete(key(table, funding));
}

/// Reads what is wanted.
pub(super) fn load(
    table: Table,
    committer: &Committer,
) -> Result<Vec<(OutPoint, Reason)>, StoreError> {
    let corrupt = |detail: String| StoreError::Corrupt(format!("record of an unroll: {detail}"));
    let pairs = committer.scan_all(table, [])?;
    pairs
        .into_iter()
        .map(|(key, value)| {
            let funding = table.rest(&key).unwrap_or_default();
            let funding = deserialize(funding).map_err(|error| corrupt(error.to_string()))?;
            let record: Record =
                ciborium::from_reader(&value[..]).map_err(|error| corrupt(error.to_string()))?;
            Ok((funding, record.reason))
        })
        .collect()
}

fn key(table: Table, funding: OutPoint) -> Vec<u8> {
    table.key(serialize(&funding))
}
