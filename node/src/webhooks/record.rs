//! What the store has of endpoints.

use serde::{Deserialize, Serialize};

use super::object::Object;
use super::queue::{Changes, Pending, Queue};
use crate::journal::{EndpointId, EventKind};
use crate::store::cbor::{corrupt, decode, encode};
use crate::store::{Batch, Committer, StoreError, Table};

/// An endpoint, as its owner set it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Where it is.
    pub url: String,
    /// What it is for, in the owner's words.
    pub description: String,
    /// What it is told of; everything when empty.
    pub kinds: Vec<EventKind>,
    /// Whether it is told.
    pub state: EndpointState,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// The number of its secret.
    pub secret: u32,
    /// Until when the secret before signs as well, in ms since 1970.
    pub previous_until_ms: Option<u64>,
}

/// Whether an endpoint is told of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It is.
    Enabled,
    /// Its owner does not want it to be.
    Disabled,
    /// It said that it is gone.
    Gone {
        /// When, in ms since 1970.
        at_ms: u64,
    },
}

/// How far an endpoint came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything up to this place in the log is delivered, pending or given up.
    pub read_to: u64,
    /// Events that it has taken.
    pub delivered: u64,
    /// When it took the last one, in ms since 1970.
    pub delivered_ms: Option<u64>,
    /// Events that were gone from the log before it had them.
    pub missed: u64,
    /// Dead letters that are kept.
    pub dead_letters: u64,
    /// Dead letters that were dropped, since more were given up than are kept.
    pub dropped: u64,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its place in the log.
    #[serde(skip)]
    pub sequence: u64,
    /// What it is about.
    pub object: Option<Object>,
    /// How often it was tried.
    pub tries: u32,
    /// Since when it could have been delivered, in ms since 1970.
    pub since_ms: u64,
    /// When it was given up, in ms since 1970.
    pub at_ms: u64,
    /// What went wrong the last time.
    pub last_error: String,
}

impl EndpointRecord {
    pub(super) fn put(&self, id: EndpointId, writes: &mut Batch) {
        writes.put(Table::Webhook.key(id.0), encode(self));
    }
}

impl Progress {
    /// Writes how far it came, and what of its queue has changed.
    pub(super) fn put(&self, id: EndpointId, changes: Changes, writes: &mut Batch) {
        writes.put(Table::WebhookProgress.key(id.0), encode(self));
        for (sequence, pending) in changes.put {
            writes.put(Table::WebhookPending.key(place(id, sequence)), encode(&pending));
        }
        for sequence in changes.delete {
            writes.delete(Table::WebhookPending.key(place(id, sequence)));
        }
    }
}

impl DeadLetter {
    pub(super) fn put(&self, id: EndpointId, writes: &mut Batch) {
        writes.put(Table::WebhookDead.key(place(id, self.sequence)), encode(self));
    }

    pub(super) fn delete(id: EndpointId, sequence: u64, writes: &mut Batch) {
        writes.delete(Table::WebhookDead.key(place(id, sequence)));
    }
}

/// An endpoint as it was stored.
pub(super) struct Stored {
    pub id: EndpointId,
    pub record: EndpointRecord,
    pub progress: Progress,
    pub queue: Queue,
}

/// Reads all endpoints.
pub(super) fn load(committer: &Committer) -> Result<Vec<Stored>, StoreError> {
    let endpoints = committer.scan_all(Table::Webhook, [])?;
    endpoints.iter().map(|(key, value)| load_one(committer, key, value)).collect()
}

fn load_one(committer: &Committer, key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
    let id = Table::Webhook.rest(key).and_then(|rest| rest.try_into().ok()).map(EndpointId);
    let id = id.ok_or_else(|| corrupt(Table::Webhook, &"its id is odd"))?;
    let progress = committer.get(&Table::WebhookProgress.key(id.0))?;
    let progress = progress.ok_or_else(|| corrupt(Table::WebhookProgress, &"it is missing"))?;
    let progress: Progress = decode(Table::WebhookProgress, &progress)?;
    let mut pending = Vec::new();
    for (key, value) in committer.scan_all(Table::WebhookPending, id.0)? {
        let one: Pending = decode(Table::WebhookPending, &value)?;
        pending.push((sequence_of(Table::WebhookPending, &key)?, one));
    }
    let queue = Queue::load(progress.read_to, pending);
    Ok(Stored { id, record: decode(Table::Webhook, value)?, progress, queue })
}

/// Reads at most `limit` dead letters after `after`, oldest first.
pub(super) fn dead_letters(
    committer: &Committer,
    id: EndpointId,
    after: u64,
    limit: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let from = Table::WebhookDead.key(place(id, after.saturating_add(1)));
    let (_, to) = Table::WebhookDead.range_of(id.0);
    let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let mut letter: DeadLetter = decode(Table::WebhookDead, value)?;
        letter.sequence = sequence_of(Table::WebhookDead, key)?;
        Ok(letter)
    };
    committer.scan(&from, &to, limit)?.iter().map(read).collect()
}

/// Deletes everything of an endpoint.
pub(super) fn delete(
    committer: &Committer,
    id: EndpointId,
    writes: &mut Batch,
) -> Result<(), StoreError> {
    for table in [Table::Webhook, Table::WebhookProgress, Table::WebhookPending, Table::WebhookDead]
    {
        for (key, _) in committer.scan_all(table, id.0)? {
            writes.delete(key);
        }
    }
    Ok(())
}

fn place(id: EndpointId, sequence: u64) -> Vec<u8> {
    [&id.0[..], &sequence.to_be_bytes()].concat()
}

fn sequence_of(table: Table, key: &[u8]) -> Result<u64, StoreError> {
    let bytes = table.rest(key).and_then(|rest| rest.get(16..)).and_then(|b| b.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| corrupt(table, &"its place is odd"))
}
