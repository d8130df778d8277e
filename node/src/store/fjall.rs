//! The `fjall` engine: two keyspaces, each batch synced with `fdatasync` before it is visible.
//!
//! What a node works with, above all monitor updates, is written and soon removed again; what it
//! remembers of payments is written once and stays. Each kind has its keyspace, or every merge
//! of fresh updates would rewrite the history too. A batch is atomic over both, and readers see
//! one ordered map.
//!
//! What a power cut leaves of a commit is cleared away before fjall opens, see
//! `fjall_journal.rs`.

use std::path::Path;

use ::fjall::config::{BlockSizePolicy, CompressionPolicy};
use ::fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable,
    Snapshot,
};

use super::batch::Table;
use super::engine::{Engine, EngineError, Tuning, Writes};
use super::fjall_journal;

/// Records repeat their field names and each other's ids: in blocks of this size they compress
/// to about half of what they do in fjall's 4 KiB. A point read decompresses one block.
const BLOCK_BYTES: u32 = 16 * 1_024;
/// Commits a start reads again at most; the rest is in tables by then.
const JOURNALS_MAX_BYTES: u64 = 128 * 1_024 * 1_024;
/// Flushes and merges. With two, one waits for the other in a busy loop.
const WORKERS: usize = 1;

/// An open fjall database.
pub(super) struct FjallEngine {
    /// What the node works with.
    present: Keyspace,
    /// What it remembers.
    history: Keyspace,
    db: Database,
}

impl FjallEngine {
    fn keyspace_of(&self, key: &[u8]) -> &Keyspace {
        if is_history(key) { &self.history } else { &self.present }
    }
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
            .worker_threads(WORKERS)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(tuning.write_buffer_bytes)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                // By default the two upper levels are not compressed, and a node's whole history
                // may live there.
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        };
        let present = db.keyspace("present", options)?;
        let history = db.keyspace("history", options)?;
        db.persist(PersistMode::SyncAll)?;
        Ok(Self { present, history, db })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.keyspace_of(key).get(key)?.map(|value| value.to_vec()))
    }

    fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        ascending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError> {
        // A range of a keyspace itself would show batches while they are applied; a snapshot
        // shows whole ones, and commits need not wait for it.
        let snapshot = self.db.snapshot();
        let pairs = |keyspace| Pairs::new(&snapshot, keyspace, from, to, ascending);
        let mut sources = if in_one_table(from, to) {
            vec![pairs(self.keyspace_of(from))?]
        } else {
            vec![pairs(&self.present)?, pairs(&self.history)?]
        };
        loop {
            let heads = sources.iter_mut().filter(|source| source.head.is_some());
            let first = |source: &&mut Pairs<'_>| source.head.as_ref().map(|(key, _)| key.clone());
            let next = if ascending { heads.min_by_key(first) } else { heads.max_by_key(first) };
            let Some((key, value)) =
                next.and_then(|source| source.take().transpose()).transpose()?
            else {
                return Ok(());
            };
            if !visit(&key, &value) {
                return Ok(());
            }
        }
    }

    fn apply(&self, writes: &Writes<'_>) -> Result<(), EngineError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(self.keyspace_of(key), *key, *value),
                None => batch.remove(self.keyspace_of(key), *key),
            }
        }
        Ok(batch.commit()?)
    }
}

/// Whether `key` belongs to a table of history. Keys of no table count as present.
fn is_history(key: &[u8]) -> bool {
    let name = key.split(|byte| *byte == b'/').next().unwrap_or_default();
    Table::HISTORY.iter().any(|table| table.name().as_bytes() == name)
}

/// Whether all keys from `from` up to `to` are in one table.
fn in_one_table(from: &[u8], to: Option<&[u8]>) -> bool {
    let Some(separator) = from.iter().position(|byte| *byte == b'/') else {
        return false;
    };
    let mut end = from[..separator].to_vec();
    end.push(b'/' + 1);
    to.is_some_and(|to| to <= &end[..])
}

type Pair = (::fjall::UserKey, ::fjall::UserValue);

/// The pairs of one keyspace in a range, the next one looked at.
struct Pairs<'a> {
    guards: Box<dyn Iterator<Item = Guard> + 'a>,
    head: Option<Pair>,
}

impl<'a> Pairs<'a> {
    fn new(
        snapshot: &'a Snapshot,
        keyspace: &'a Keyspace,
        from: &'a [u8],
        to: Option<&'a [u8]>,
        ascending: bool,
    ) -> Result<Self, EngineError> {
        let range = match to {
            Some(to) => snapshot.range(keyspace, from..to),
            None => snapshot.range(keyspace, from..),
        };
        let guards: Box<dyn Iterator<Item = Guard>> =
            if ascending { Box::new(range) } else { Box::new(range.rev()) };
        let mut pairs = Self { guards, head: None };
        pairs.take()?;
        Ok(pairs)
    }

    /// Takes the next pair and looks at the one behind it.
    fn take(&mut self) -> Result<Option<Pair>, EngineError> {
        let next = self.guards.next().map(Guard::into_inner).transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
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
