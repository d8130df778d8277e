//! The `fjall` engine: one keyspace, each batch synced with `fdatasync` before it is visible.
//!
//! What a power cut leaves of a commit is cleared away before fjall opens, see
//! `fjall_journal.rs`.

use std::path::Path;

use ::fjall::config::{BlockSizePolicy, CompressionPolicy};
use ::fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable,
};

use super::engine::{Engine, EngineError, Tuning, Writes};
use super::fjall_journal;

/// Records repeat their field names and each other's ids: in blocks of this size they compress
/// to about half of what they do in fjall's 4 KiB. A point read decompresses one block.
const BLOCK_BYTES: u32 = 16 * 1_024;
/// Commits a start reads again at most; the rest is in tables by then.
const JOURNALS_MAX_BYTES: u64 = 128 * 1_024 * 1_024;

/// An open fjall database.
pub(super) struct FjallEngine {
    keyspace: Keyspace,
    db: Database,
}

impl Engine for FjallEngine {
    const NAME: &'static str = "fjall";

    fn open(dir: &Path, tuning: &Tuning) -> Result<Self, EngineError> {
        fjall_journal::cut_torn_tail(dir)?;
        let db = Database::builder(dir)
            .cache_size(tuning.cache_bytes)
            // A journal lives for minutes; compressing it costs every commit more than it saves.
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNALS_MAX_BYTES)
            .open()?;
        let keyspace = db.keyspace("tributary", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(tuning.write_buffer_bytes)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                // By default the two upper levels are not compressed, and a node's whole history
                // may live there.
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        })?;
        db.persist(PersistMode::SyncAll)?;
        Ok(Self { keyspace, db })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.keyspace.get(key)?.map(|value| value.to_vec()))
    }

    fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        ascending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError> {
        // A range of the keyspace itself would show batches while they are applied; a snapshot
        // shows whole ones, and commits need not wait for it.
        let snapshot = self.db.snapshot();
        let mut range = match to {
            Some(to) => snapshot.range(&self.keyspace, from..to),
            None => snapshot.range(&self.keyspace, from..),
        };
        let mut next =
            || -> Option<Guard> { if ascending { range.next() } else { range.next_back() } };
        while let Some(guard) = next() {
            let (key, value) = guard.into_inner()?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: &Writes<'_>) -> Result<(), EngineError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(&self.keyspace, *key, *value),
                None => batch.remove(&self.keyspace, *key),
            }
        }
        Ok(batch.commit()?)
    }
}

impl From<::fjall::Error> for EngineError {
    fn from(error: ::fjall::Error) -> Self {
        use ::fjall::Error;
        match error {
            Error::Io(error) => EngineError::Io(error),
            Error::JournalRecovery(_)
            | Error::Decompress(_)
            | Error::InvalidTrailer
            | Error::InvalidTag(_)
            | Error::Unrecoverable => EngineError::Corrupt(error.to_string()),
            other => EngineError::Other(other.to_string()),
        }
    }
}
