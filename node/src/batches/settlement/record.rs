//! What the store has: the keys that users handed over, and the transaction that is under way.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction};
use channel_contracts::batch::{BatchId, Peer};
use channel_contracts::musig::TreeSecret;
use serde::{Deserialize, Serialize};

use crate::batches::Parts;
use crate::batches::record::encode;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

/// A transaction that takes outputs of a batch, durable before it is broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub transaction: Transaction,
    pub fee: Amount,
    pub feerate: FeeRate,
    /// The best block when it was made.
    pub made_at: u32,
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(with = "serde_bytes")]
    transaction: Vec<u8>,
    fee_sat: u64,
    feerate_sat_per_kwu: u64,
    made_at: u32,
}

impl Pending {
    /// The outputs it takes.
    pub fn spends(&self) -> impl Iterator<Item = OutPoint> {
        self.transaction.input.iter().map(|input| input.previous_output)
    }

    /// Writes it in place of the one before.
    pub fn put(&self, batch: BatchId, writes: &mut Batch) {
        let record = Record {
            transaction: serialize(&self.transaction),
            fee_sat: self.fee.to_sat(),
            feerate_sat_per_kwu: self.feerate.to_sat_per_kwu(),
            made_at: self.made_at,
        };
        writes.put(Table::Settlement.key(batch.0), encode(&record));
    }

    /// Writes that none is under way.
    pub fn delete(batch: BatchId, committer: &Committer) -> Ticket {
        let mut writes = Batch::default();
        writes.delete(Table::Settlement.key(batch.0));
        committer.enqueue(writes)
    }

    /// Reads the one of `batch`.
    pub fn get(committer: &Committer, batch: BatchId) -> Result<Option<Self>, StoreError> {
        let corrupt = |detail: String| StoreError::Corrupt(format!("settlement: {detail}"));
        let Some(value) = committer.get(&Table::Settlement.key(batch.0))? else {
            return Ok(None);
        };
        let record: Record =
            ciborium::from_reader(&value[..]).map_err(|error| corrupt(error.to_string()))?;
        Ok(Some(Self {
            transaction: deserialize(&record.transaction)
                .map_err(|error| corrupt(error.to_string()))?,
            fee: Amount::from_sat(record.fee_sat),
            feerate: FeeRate::from_sat_per_kwu(record.feerate_sat_per_kwu),
            made_at: record.made_at,
        }))
    }
}

/// Writes the tree secret that `peer` handed over, sealed.
pub(super) fn put_released(
    parts: &Parts,
    batch: BatchId,
    peer: Peer,
    secret: &TreeSecret,
    writes: &mut Batch,
) {
    let sealed = parts.secrets.seal_released(batch, &peer.0, secret, parts.entropy.bytes());
    writes.put(released_key(batch, peer), sealed);
}

/// Reads the tree secret that `peer` handed over.
///
/// # Errors
///
/// Also if there is none, or it was sealed by another seed: the machine knows that it was stored.
pub(super) fn released(
    parts: &Parts,
    batch: BatchId,
    peer: Peer,
) -> Result<TreeSecret, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("key released by {peer}: {what}"));
    let sealed =
        parts.committer.get(&released_key(batch, peer))?.ok_or_else(|| corrupt("it is missing"))?;
    let opened = parts.secrets.open_released(batch, &peer.0, &sealed);
    opened.ok_or_else(|| corrupt("it does not open with this seed"))
}

fn released_key(batch: BatchId, peer: Peer) -> Vec<u8> {
    Table::ReleasedKey.key([&batch.0[..], &peer.0.serialize()].concat())
}
