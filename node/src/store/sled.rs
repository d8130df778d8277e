//! The `sled` engine: one tree, and a sync of our own after each batch.
//!
//! sled's `flush` ends in `sync_file_range`, which starts write-back but does not flush the
//! drive's cache, and its blob files (large pages) are not synced at all. So after each batch
//! this file syncs sled's log, its new blobs and their directory.
//!
//! That is not enough, and so sled is not the default: after a power cut during a commit the
//! power-cut suite finds stores that do not open and batches that are there in part. On a disk
//! without any space left it hangs when closed; the reserve of `open.rs` keeps it away from
//! there. `tests/README.md` has the figures.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::sled::Mode;
use parking_lot::{Mutex, RwLock};

use super::engine::{Engine, EngineError, Tuning, Writes};

/// An open sled database.
pub(super) struct SledEngine {
    tree: ::sled::Tree,
    db: ::sled::Db,
    files: Mutex<Files>,
    /// Writers exclude scans, so that a scan sees one state: sled's iterators do not.
    view: RwLock<()>,
}

/// Sled's files, for syncing.
struct Files {
    log: File,
    blobs_dir: PathBuf,
    /// Blobs that were durable at the last sync.
    blobs: BTreeSet<OsString>,
}

impl Engine for SledEngine {
    const NAME: &'static str = "sled";

    fn open(dir: &Path, tuning: &Tuning) -> Result<Self, EngineError> {
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(tuning.cache_bytes)
            .mode(Mode::HighThroughput)
            // The commit thread decides when to write; a second writer would only add syncs.
            .flush_every_ms(None);
        let db = open_patiently(&config)?;
        let tree = db.open_tree("tributary")?;
        let mut files = Files {
            log: File::open(dir.join("db"))?,
            blobs_dir: dir.join("blobs"),
            blobs: BTreeSet::new(),
        };
        // Recovery and the new tree write too.
        db.flush()?;
        files.sync()?;
        File::open(dir.join("conf"))?.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { tree, db, files: Mutex::new(files), view: RwLock::new(()) })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.tree.get(key)?.map(|value| value.to_vec()))
    }

    fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        ascending: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError> {
        let _one_state = self.view.read();
        let mut range = match to {
            Some(to) => self.tree.range(from..to),
            None => self.tree.range(from..),
        };
        let mut next = || {
            if ascending { range.next() } else { range.next_back() }
        };
        while let Some(pair) = next() {
            let (key, value) = pair?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: &Writes<'_>) -> Result<(), EngineError> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(*key, *value),
                None => batch.remove(*key),
            }
        }
        {
            let _alone = self.view.write();
            self.tree.apply_batch(batch)?;
        }
        self.db.flush()?;
        self.files.lock().sync()
    }
}

impl Files {
    /// Makes everything sled has written so far durable.
    fn sync(&mut self) -> Result<(), EngineError> {
        let mut blobs = BTreeSet::new();
        for entry in std::fs::read_dir(&self.blobs_dir)? {
            blobs.insert(entry?.file_name());
        }
        let mut any_new = false;
        for blob in blobs.difference(&self.blobs) {
            match File::open(self.blobs_dir.join(blob)) {
                Ok(file) => file.sync_all()?,
                // Sled may have replaced the page meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            any_new = true;
        }
        if any_new {
            File::open(&self.blobs_dir)?.sync_all()?;
        }
        // The log last: it names the blobs.
        self.log.sync_data()?;
        self.blobs = blobs;
        Ok(())
    }
}

/// Opens the database; the file lock of an instance that was just dropped may linger in one of
/// sled's threads, and another process is kept out by our own lock already.
#[allow(clippy::disallowed_methods, reason = "a wait of the real disk, which no simulation has")]
fn open_patiently(config: &::sled::Config) -> Result<::sled::Db, EngineError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match config.open() {
            Err(::sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return Ok(other?),
        }
    }
}

impl From<::sled::Error> for EngineError {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Io(error) => EngineError::Io(error),
            ::sled::Error::Corruption { .. } => EngineError::Corrupt(error.to_string()),
            other => EngineError::Other(other.to_string()),
        }
    }
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        EngineError::Io(error)
    }
}
