//! What the store has of rollovers.

use std::collections::BTreeMap;

use channel_contracts::batch::{BatchId, RegistrationId};
use serde::{Deserialize, Serialize};

use super::Rollovers;
use crate::batches::record::{encode, load_all};
use crate::lightning::types::{NodeId, PaymentHash};
use crate::store::{Batch, Committer, StoreError, Table};

/// A user's rollover, by the wish that is left.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct RolloverRecord {
    /// The swap under way.
    pub swap: Option<Swap>,
    /// What was paid for the new place, msat.
    #[serde(default)]
    pub paid_msat: u64,
}

/// One swap of a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Swap {
    /// The hash of both legs.
    pub hash: PaymentHash,
    /// What arrives, msat.
    pub amount_msat: u64,
    /// What the new place may cost on top, msat.
    #[serde(default)]
    pub fee_max_msat: u64,
    /// What it costs by the hub's invoice, msat.
    #[serde(default)]
    pub fee_msat: u64,
    /// The invoice of leg 2, ours.
    pub ours: String,
    /// The invoice of leg 1, the hub's, once it is known and found right: what is paid from then
    /// on.
    pub hubs: Option<String>,
}

/// A rollover with what is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Rollover {
    pub record: RolloverRecord,
    /// The best block at which something failed: it is tried again at the next.
    pub failed_at: Option<u32>,
    /// The best block at which the hub was asked.
    pub asked_at: Option<u32>,
}

/// A hub's side of one swap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Leg {
    /// The user.
    pub user: NodeId,
    /// The batch that is left.
    pub batch: BatchId,
    /// The newer batch.
    pub successor: BatchId,
    /// The invoice of leg 2, the user's.
    pub theirs: String,
    /// Its `min_final_cltv_expiry_delta`.
    pub cltv: u32,
    /// What leg 1 pays for the place in the newer batch, msat.
    #[serde(default)]
    pub fee_msat: u64,
}

impl RolloverRecord {
    pub fn put(&self, wish: RegistrationId, writes: &mut Batch) {
        writes.put(Table::Rollover.key(wish.0), encode(self));
    }

    pub fn delete(wish: RegistrationId, writes: &mut Batch) {
        writes.delete(Table::Rollover.key(wish.0));
    }
}

impl Leg {
    pub fn put(&self, hash: PaymentHash, writes: &mut Batch) {
        writes.put(Table::RolloverLeg.key(hash), encode(self));
    }

    pub fn delete(hash: PaymentHash, writes: &mut Batch) {
        writes.delete(Table::RolloverLeg.key(hash));
    }
}

/// Notes what users have paid for their places in `batch`, msat.
pub(super) fn put_paid(batch: BatchId, paid: &BTreeMap<NodeId, u64>, writes: &mut Batch) {
    writes.put(Table::PlacePaid.key(batch.0), encode(paid));
}

/// Reads what was on the move.
///
/// # Errors
///
/// If the store cannot be read.
pub(in crate::batches) fn load(committer: &Committer) -> Result<Rollovers, StoreError> {
    let mut rollovers = Rollovers::default();
    for (wish, record) in load_all::<RolloverRecord>(committer, Table::Rollover)? {
        let rollover = Rollover { record, ..Rollover::default() };
        rollovers.user.insert(RegistrationId(wish), rollover);
    }
    for (hash, leg) in load_all::<Leg>(committer, Table::RolloverLeg)? {
        rollovers.hub.insert(PaymentHash(hash), leg);
    }
    for (batch, paid) in load_all(committer, Table::PlacePaid)? {
        rollovers.paid.insert(BatchId(batch), paid);
    }
    Ok(rollovers)
}
