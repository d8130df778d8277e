//! What the store has of batches: how each machine began and what happened to it since.
//!
//! A machine is brought back by replaying its events. Beside a hub's events lies its signed tree:
//! the batch transaction and the tree's signatures, from which every path is made again.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Transaction, absolute};
use channel_contracts::batch::hub::HubPolicy;
use channel_contracts::batch::user::{UserPolicy, UserRequest};
use channel_contracts::batch::{
    Attempt, BatchId, HubBatch, HubEvent, RegistrationId, Timestamp, UserBatch, UserEvent,
};
use channel_contracts::musig::SchnorrSignature;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::lightning::types::{ChannelRef, NodeId};
use crate::store::cbor::{corrupt, decode};
pub(super) use crate::store::cbor::{encode, load_all};
use crate::store::{Batch, Committer, StoreError, Table};

/// How a hub's batch began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HubBegun {
    pub policy: HubPolicy,
    pub expiry: absolute::Height,
    pub at: Timestamp,
}

/// How a user's wish began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UserBegun {
    pub hub: NodeId,
    /// The wish whose channel rolls over into this one's.
    #[serde(default)]
    pub follows: Option<RegistrationId>,
    /// The record of the channel.
    #[serde(default)]
    pub channel: Option<ChannelRef>,
    pub request: UserRequest,
    pub policy: UserPolicy,
    pub at: Timestamp,
}

/// A hub's tree with all its signatures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredTree {
    pub attempt: Attempt,
    #[serde(with = "serde_bytes")]
    transaction: Vec<u8>,
    /// 64 bytes each, in the tree's order.
    #[serde(with = "serde_bytes")]
    signatures: Vec<u8>,
}

impl StoredTree {
    pub fn new(
        attempt: Attempt,
        transaction: &Transaction,
        signatures: &[SchnorrSignature],
    ) -> Self {
        let signatures = signatures.iter().flat_map(|signature| signature.0).collect();
        Self { attempt, transaction: serialize(transaction), signatures }
    }

    pub fn transaction(&self) -> Result<Transaction, StoreError> {
        deserialize(&self.transaction).map_err(|error| corrupt(Table::HubTree, &error))
    }

    pub fn signatures(&self) -> Vec<SchnorrSignature> {
        let (signatures, _rest) = self.signatures.as_chunks();
        signatures.iter().copied().map(SchnorrSignature).collect()
    }

    pub fn put(&self, batch: BatchId, writes: &mut Batch) {
        writes.put(Table::HubTree.key(batch.0), encode(self));
    }

    pub fn get(committer: &Committer, batch: BatchId) -> Result<Option<Self>, StoreError> {
        let value = committer.get(&Table::HubTree.key(batch.0))?;
        value.map(|value| decode(Table::HubTree, &value)).transpose()
    }
}

/// The stored events of one machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventLog {
    table: Table,
    id: [u8; 32],
    next: u32,
}

impl EventLog {
    /// Writes how the machine of `batch` began.
    pub fn begin_hub(batch: BatchId, begun: &HubBegun, writes: &mut Batch) -> Self {
        writes.put(Table::HubBatch.key(batch.0), encode(begun));
        Self { table: Table::HubBatchEvent, id: batch.0, next: 0 }
    }

    /// Writes how the machine of `registration` began.
    pub fn begin_user(registration: RegistrationId, begun: &UserBegun, writes: &mut Batch) -> Self {
        writes.put(Table::UserBatch.key(registration.0), encode(begun));
        Self { table: Table::UserBatchEvent, id: registration.0, next: 0 }
    }

    /// Writes `events` behind those before.
    pub fn append<E: Serialize>(&mut self, events: &[E], writes: &mut Batch) {
        for event in events {
            writes.put(self.key(self.next), encode(event));
            self.next += 1;
        }
    }

    /// The writes that remove it and how its machine began.
    pub fn erase(&self) -> Batch {
        let mut writes = Batch::default();
        let begun = match self.table {
            Table::UserBatchEvent => Table::UserBatch,
            _ => Table::HubBatch,
        };
        writes.delete(begun.key(self.id));
        for number in 0..self.next {
            writes.delete(self.key(number));
        }
        writes
    }

    fn key(&self, number: u32) -> Vec<u8> {
        self.table.key([&self.id[..], &number.to_be_bytes()].concat())
    }

    fn read<E: DeserializeOwned>(
        committer: &Committer,
        table: Table,
        id: [u8; 32],
    ) -> Result<(Self, Vec<E>), StoreError> {
        let pairs = committer.scan_all(table, id)?;
        let events =
            pairs.iter().map(|(_, value)| decode(table, value)).collect::<Result<Vec<E>, _>>()?;
        let next = u32::try_from(events.len()).map_err(|error| corrupt(table, &error))?;
        Ok((Self { table, id, next }, events))
    }
}

/// Reads a hub's batches, as their events left them.
pub(super) fn load_hub(committer: &Committer) -> Result<Vec<(HubBatch, EventLog)>, StoreError> {
    let mut batches = Vec::new();
    for (id, begun) in load_all::<HubBegun>(committer, Table::HubBatch)? {
        let mut machine = HubBatch::open(BatchId(id), begun.policy, begun.expiry, begun.at);
        let (log, events) = EventLog::read::<HubEvent>(committer, Table::HubBatchEvent, id)?;
        events.into_iter().for_each(|event| machine.apply(event));
        batches.push((machine, log));
    }
    Ok(batches)
}

/// Reads a user's wishes, as their events left them, each with how it began.
pub(super) fn load_user(
    committer: &Committer,
) -> Result<Vec<(UserBegun, UserBatch, EventLog)>, StoreError> {
    let mut wishes = Vec::new();
    for (id, begun) in load_all::<UserBegun>(committer, Table::UserBatch)? {
        let (mut machine, _sent_before) =
            UserBatch::register(begun.request.clone(), begun.policy.clone(), begun.at);
        let (log, events) = EventLog::read::<UserEvent>(committer, Table::UserBatchEvent, id)?;
        events.into_iter().for_each(|event| machine.apply(event));
        wishes.push((begun, machine, log));
    }
    Ok(wishes)
}
