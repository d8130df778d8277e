//! Durable state: one atomic batch, one sync, for everything that became pending together.
//!
//! [`Store`] is the seam to an engine (`sled`, `fjall`, memory with faults). [`Committer`] is
//! the commit cycle above it and the only writer. Keys are flat bytes that start with the name
//! of their table, see [`Table`]. Read `commit.rs` first, then the conformance suite.

mod batch;
pub(crate) mod cbor;
mod commit;
mod deltas;
mod engine;
mod fjall;
mod fjall_journal;
mod memory;
mod open;
mod probe;
mod sled;

#[cfg(test)]
mod commit_tests;
#[cfg(test)]
mod conformance;

pub use batch::{Batch, Op, Table};
pub use commit::{CommitStats, Committer, Gate, Ticket};
pub use deltas::Deltas;
pub use memory::{DiskFault, MemoryDisk, MemoryStore, PowerCut};
pub use open::{EngineKind, FORMAT_VERSION, StoreOptions, UnknownEngine, open};
pub use probe::{CommitFigures, CommitProbe};

/// Which of several writers may write: a later holder of the store fences an earlier one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Term(pub u64);

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Is called with each key and its value; an error ends the visit.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// A durable, ordered key-value store with atomic batches.
///
/// Implementations are safe to share between threads; calls block the calling thread, so async
/// code reaches them through [`Committer`] or a blocking task.
pub trait Store: Send + Sync + 'static {
    /// The engine's name, as in the configuration file.
    fn engine(&self) -> &'static str;

    /// The term of this holder. Opening a store takes a term higher than any before.
    fn term(&self) -> Term;

    /// Returns the value at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns at most `limit` pairs with `from <= key < to` by ascending key.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Returns at most `limit` pairs with `from <= key < to` by descending key.
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Writes `batch` atomically and returns once it is durable.
    ///
    /// After an error the batch is either wholly there or wholly absent after a restart, and
    /// the store refuses further writes: the holder must stop.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Calls `visit` with every pair of one consistent state, by ascending key. Commits may wait
    /// until it is done, so `visit` must not commit.
    fn snapshot(&self, visit: Visit<'_>) -> Result<(), StoreError>;

    /// Bytes the store takes on disk now; 0 for memory.
    fn disk_bytes(&self) -> u64;
}

/// Why the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error(
        "data directory {path} is in use by another node; stop it, or choose another --data-dir"
    )]
    InUse {
        /// The directory.
        path: String,
    },
    /// The store was written by a newer program.
    #[error(
        "store has format version {found}, this program knows up to {known}; upgrade tributary"
    )]
    NewerVersion {
        /// The version on disk.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
    /// The store was written by an older program, from before its layout changed.
    #[error(
        "store has format version {found}, this program reads {known}; close its channels with the version that wrote it, then start anew"
    )]
    OlderVersion {
        /// The version on disk.
        found: u32,
        /// The version this program reads.
        known: u32,
    },
    /// The store on disk belongs to another engine.
    #[error(
        "data directory {path} holds a {found} store, the configuration says {configured}; set store.engine = \"{found}\""
    )]
    OtherEngine {
        /// The directory.
        path: String,
        /// The engine that wrote it.
        found: String,
        /// The engine asked for.
        configured: String,
    },
    /// A later holder has taken the store.
    #[error("store was taken over: this writer has term {ours}, the store has term {current}", ours = ours.0, current = current.0)]
    Fenced {
        /// The term of the refused writer.
        ours: Term,
        /// The term of the present holder.
        current: Term,
    },
    /// The disk is full.
    #[error("disk is full at {path}: {detail}; free space and restart")]
    DiskFull {
        /// The directory.
        path: String,
        /// What the operating system said.
        detail: String,
    },
    /// An earlier write failed, so what is on disk is unknown until a restart.
    #[error("store has failed before and takes no more writes: {0}; restart the node")]
    Failed(String),
    /// Data on disk does not read back as written.
    #[error("store is damaged: {0}")]
    Corrupt(String),
    /// Any other failure of the disk.
    #[error("store input/output failed: {0}")]
    Io(#[from] std::io::Error),
}
