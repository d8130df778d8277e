//! Idempotency records: the same key and request gives the same answer, for 30 days.
//!
//! A record is written in the batch of its effect, so a crash leaves both or neither.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};

use super::millis;
use crate::store::{Batch, Committer, StoreError, Table};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Longest key, in bytes.
const KEY_MAX: usize = 128;
/// Records looked at per step of a clean-up.
const PRUNE_STEP: usize = 1_000;

/// A caller's key for one mutation, with the method it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    method: &'static str,
    key: String,
}

impl IdempotencyKey {
    /// Takes a caller's key. Without one (`None` or empty) a call is always a new one.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::KeyTooLong`].
    pub fn new(method: &'static str, key: &str) -> Result<Option<Self>, IdempotencyError> {
        match key.len() {
            0 => Ok(None),
            bytes if bytes > KEY_MAX => Err(IdempotencyError::KeyTooLong { bytes }),
            _ => Ok(Some(Self { method, key: key.to_owned() })),
        }
    }

    /// The node's own key for what it does once for `subject`.
    pub fn own(method: &'static str, subject: impl std::fmt::Display) -> Self {
        Self { method, key: subject.to_string() }
    }

    fn store_key(&self) -> Vec<u8> {
        Table::Idempotency.key(format!("{}/{}", self.method, self.key))
    }
}

/// SHA-256 over a request: tells a repetition from another request under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a request in its debug form, which names every field.
    pub fn of(request: &impl std::fmt::Debug) -> Self {
        Self(sha256::Hash::hash(format!("{request:?}").as_bytes()).to_byte_array())
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The key was used for another request.
    #[error("idempotency key {key:?} was used for a different request; use a new key")]
    Conflict {
        /// The key.
        key: String,
    },
    /// The key is longer than we keep.
    #[error("idempotency key has {bytes} bytes, at most 128 are allowed")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Serialize, Deserialize)]
struct Record {
    at_ms: u64,
    #[serde(with = "serde_bytes")]
    fingerprint: [u8; 32],
    #[serde(with = "serde_bytes")]
    answer: Vec<u8>,
}

/// Reads and writes idempotency records.
#[derive(Clone)]
pub struct Idempotency {
    committer: Committer,
}

impl Idempotency {
    /// Over `committer`'s store.
    pub fn new(committer: Committer) -> Self {
        Self { committer }
    }

    /// Returns the answer recorded for a key of the node's own, if there is one.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn answer(&self, key: &IdempotencyKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.record_of(key)?.map(|record| record.answer))
    }

    fn record_of(&self, key: &IdempotencyKey) -> Result<Option<Record>, StoreError> {
        let bytes = self.committer.get(&key.store_key())?;
        let read = |bytes: Vec<u8>| {
            ciborium::from_reader(&bytes[..])
                .map_err(|error| StoreError::Corrupt(format!("idempotency record: {error}")))
        };
        bytes.map(read).transpose()
    }

    /// Returns the answer recorded for `key`, if the call is a repetition.
    ///
    /// The caller holds a lock of its own from here until the record is enqueued, so that of
    /// concurrent duplicates one is first.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::Conflict`] if the request is another one.
    pub fn recall(
        &self,
        key: Option<&IdempotencyKey>,
        fingerprint: Fingerprint,
        now: Duration,
    ) -> Result<Option<Vec<u8>>, IdempotencyError> {
        let Some(key) = key else { return Ok(None) };
        let Some(record) = self.record_of(key)? else { return Ok(None) };
        if millis(now).saturating_sub(record.at_ms) > millis(KEPT) {
            return Ok(None);
        }
        if record.fingerprint != fingerprint.0 {
            return Err(IdempotencyError::Conflict { key: key.key.clone() });
        }
        Ok(Some(record.answer))
    }

    /// Adds the record of a first call to the batch of its effect.
    pub fn record(
        &self,
        batch: &mut Batch,
        key: Option<&IdempotencyKey>,
        fingerprint: Fingerprint,
        answer: &[u8],
        now: Duration,
    ) {
        let Some(key) = key else { return };
        let record =
            Record { at_ms: millis(now), fingerprint: fingerprint.0, answer: answer.to_vec() };
        let mut value = Vec::new();
        ciborium::into_writer(&record, &mut value).expect("writing to memory cannot fail");
        batch.put(key.store_key(), value);
    }

    /// Forgets what is older than 30 days. Returns how many records went.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn prune(&self, now: Duration) -> Result<usize, StoreError> {
        let (from, to) = Table::Idempotency.range();
        let mut gone = 0;
        self.committer.scan_steps(&from, &to, PRUNE_STEP, |pairs| {
            let mut batch = Batch::default();
            for (key, value) in pairs {
                let old = ciborium::from_reader::<Record, _>(&value[..])
                    .is_ok_and(|r| millis(now).saturating_sub(r.at_ms) > millis(KEPT));
                if old {
                    batch.delete(key);
                }
            }
            gone += batch.ops.len();
            if !batch.is_empty() {
                let _nobody_waits = self.committer.enqueue(batch);
            }
            Ok(())
        })?;
        Ok(gone)
    }
}
