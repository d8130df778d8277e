//! What an embedded engine must do, and everything around it that engines share.
//!
//! [`Engine`] is the small inside seam that `sled.rs` and `fjall.rs` implement. [`Held`] makes a
//! [`Store`] of one: it owns the lock of the data directory, knows the term, refuses stale
//! writers and all writers after a failure, watches the free space, and turns a panic of an
//! engine into an error. Opening is in `open.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{Batch, Op, Pair, Store, StoreError, Term, Visit};

/// The net writes of one batch by key: a value, or `None` for a delete.
pub(super) type Writes<'a> = BTreeMap<&'a [u8], Option<&'a [u8]>>;

/// Why an engine failed, before the directory and the free space are known.
#[derive(Debug)]
pub(super) enum EngineError {
    /// Input or output failed.
    Io(io::Error),
    /// What was read is not what was written.
    Corrupt(String),
    /// Anything else; the text is the engine's.
    Other(String),
}

/// An ordered map on disk whose batches are atomic and durable.
pub(super) trait Engine: Send + Sync + 'static {
    /// The engine's name, as in the configuration file and in its directory.
    const NAME: &'static str;

    /// Opens the engine in `dir`, which exists; creates what is missing.
    fn open(dir: &Path, tuning: &Tuning) -> Result<Self, EngineError>
    where
        Self: Sized;

    /// Returns the value at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Visits pairs with `from <= key < to` of one consistent state, ascending or else
    /// descending, until `visit` returns false.
    fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        ascending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError>;

    /// Writes `writes` atomically; returns once they are durable against a power cut.
    fn apply(&self, writes: &Writes<'_>) -> Result<(), EngineError>;
}

/// What an engine may be told about memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    pub(super) cache_bytes: u64,
    pub(super) write_buffer_bytes: u64,
}

/// An open engine with its lock, term and failure state: the [`Store`] of production.
pub(super) struct Held<E> {
    // Dropped first: the lock below must outlive the engine's files.
    engine: E,
    _lock: File,
    dir: PathBuf,
    term: Term,
    reserve_bytes: u64,
    /// Serialises commits; holds why the store failed.
    failed: Mutex<Option<String>>,
}

impl<E: Engine> Held<E> {
    /// Takes the next term durably and returns the store.
    pub(super) fn take(
        engine: E,
        lock: File,
        dir: PathBuf,
        reserve_bytes: u64,
    ) -> Result<Self, StoreError> {
        let mut held = Self {
            engine,
            _lock: lock,
            dir,
            term: Term(0),
            reserve_bytes,
            failed: Mutex::new(None),
        };
        held.check_space()?;
        let key = term_key();
        let last = match held.call(|engine| engine.get(&key))? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(bytes.as_slice().try_into().map_err(|_| {
                StoreError::Corrupt(format!("term record has {} bytes, not 8", bytes.len()))
            })?),
        };
        let term = last
            .checked_add(1)
            .ok_or_else(|| StoreError::Corrupt(format!("term {last} has no successor")))?;
        let value = term.to_be_bytes();
        let writes = Writes::from([(key.as_slice(), Some(value.as_slice()))]);
        held.call(|engine| engine.apply(&writes))?;
        held.term = Term(term);
        Ok(held)
    }

    /// Runs `f` on the engine; a panic becomes an error, and a full disk is named as such.
    fn call<T>(&self, f: impl FnOnce(&E) -> Result<T, EngineError>) -> Result<T, StoreError> {
        guarded(&self.dir, || f(&self.engine))
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let available = fs4::available_space(&self.dir)?;
        if available < self.reserve_bytes {
            return Err(StoreError::DiskFull {
                path: self.dir.display().to_string(),
                detail: format!(
                    "{available} bytes are free, {} are kept in reserve",
                    self.reserve_bytes
                ),
            });
        }
        Ok(())
    }

    fn collect(
        &self,
        from: &[u8],
        to: &[u8],
        ascending: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        if limit == 0 || from >= to {
            return Ok(pairs);
        }
        self.call(|engine| {
            engine.range(from, Some(to), ascending, &mut |key, value| {
                pairs.push((key.to_vec(), value.to_vec()));
                pairs.len() < limit
            })
        })?;
        Ok(pairs)
    }
}

impl<E: Engine> Store for Held<E> {
    fn engine(&self) -> &'static str {
        E::NAME
    }

    fn term(&self) -> Term {
        self.term
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key.is_empty() {
            return Ok(None);
        }
        self.call(|engine| engine.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.collect(from, to, true, limit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.collect(from, to, false, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut failed = self.failed.lock();
        if let Some(why) = &*failed {
            return Err(StoreError::Failed(why.clone()));
        }
        if batch.term != self.term {
            return Err(StoreError::Fenced { ours: batch.term, current: self.term });
        }
        let writes = net_writes(batch)?;
        if writes.is_empty() {
            return Ok(());
        }
        let result = self.check_space().and_then(|()| self.call(|engine| engine.apply(&writes)));
        if let Err(error) = &result {
            *failed = Some(error.to_string());
        }
        result
    }

    fn snapshot(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        self.call(|engine| {
            engine.range(&[], None, true, &mut |key, value| {
                outcome = visit(key, value);
                outcome.is_ok()
            })
        })?;
        outcome
    }

    fn disk_bytes(&self) -> u64 {
        tree_bytes(&self.dir)
    }
}

/// The key of the term record.
pub(super) fn term_key() -> Vec<u8> {
    super::Table::Meta.key("term")
}

/// Reduces a batch to one write per key, the last one.
///
/// # Errors
///
/// [`StoreError::Io`] for a key that no engine takes: empty, or longer than [`KEY_BYTES_MAX`].
pub(super) fn net_writes(batch: &Batch) -> Result<Writes<'_>, StoreError> {
    let mut writes = Writes::new();
    for op in &batch.ops {
        let (key, value) = match op {
            Op::Put { key, value } => (key, Some(value.as_slice())),
            Op::Delete { key } => (key, None),
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(StoreError::Io(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("key has {} bytes; 1 to {KEY_BYTES_MAX} fit", key.len()),
            )));
        }
        writes.insert(key, value);
    }
    Ok(writes)
}

/// The longest key every engine takes, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 4_096;

/// Below this much free space an engine's failure is put down to the full disk.
const FULL_BELOW_BYTES: u64 = 1024 * 1024;

/// Runs `f`, an access to an engine in `dir`; see [`Held::call`].
pub(super) fn guarded<T>(
    dir: &Path,
    f: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, StoreError> {
    // An engine that panicked keeps its own locks poisoned; the caller stops the node.
    let error = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(panic) => {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            EngineError::Other(format!("engine panicked: {why}"))
        }
    };
    let full = match &error {
        EngineError::Io(error) => {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        EngineError::Corrupt(_) | EngineError::Other(_) => false,
    } || fs4::available_space(dir).is_ok_and(|free| free < FULL_BELOW_BYTES);
    let path = || dir.display().to_string();
    Err(match (full, error) {
        (true, EngineError::Io(error)) => {
            StoreError::DiskFull { path: path(), detail: error.to_string() }
        }
        (true, EngineError::Corrupt(why) | EngineError::Other(why)) => {
            StoreError::DiskFull { path: path(), detail: why }
        }
        (false, EngineError::Io(error)) => StoreError::Io(error),
        (false, EngineError::Corrupt(why)) => {
            StoreError::Corrupt(format!("{why} in {}", dir.display()))
        }
        (false, EngineError::Other(why)) => {
            StoreError::Io(io::Error::other(format!("{why} in {}", dir.display())))
        }
    })
}

/// Bytes allocated on disk below `dir`; what cannot be read counts as nothing.
fn tree_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => tree_bytes(&entry.path()),
            Ok(meta) => allocated_bytes(&meta),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(unix)]
fn allocated_bytes(meta: &std::fs::Metadata) -> u64 {
    // Journals are preallocated with holes: their length says nothing about the disk.
    std::os::unix::fs::MetadataExt::blocks(meta).saturating_mul(512)
}

#[cfg(not(unix))]
fn allocated_bytes(meta: &std::fs::Metadata) -> u64 {
    meta.len()
}
