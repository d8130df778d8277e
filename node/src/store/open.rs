//! The door to a store on disk: lock, format, engine, term.
//!
//! A data directory holds `store.lock`, taken for the life of the store, and `store/`, in it the
//! header and the engine's own directory. `store/` comes into being by one rename after all in it
//! is synced, so a power cut during the first start leaves either a whole store or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use fs4::fs_std::FileExt;
use serde::{Deserialize, Serialize};

use super::engine::{Engine, Held, Tuning, guarded};
use super::fjall::FjallEngine;
use super::sled::SledEngine;
use super::{Store, StoreError};

/// The engines a store on disk can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EngineKind {
    /// `sled` 0.34.
    Sled,
    /// `fjall` 3.
    #[default]
    Fjall,
}

impl EngineKind {
    /// All engines, the default first.
    pub const ALL: [EngineKind; 2] = [EngineKind::Fjall, EngineKind::Sled];

    /// The engine's name, as in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Sled => SledEngine::NAME,
            EngineKind::Fjall => FjallEngine::NAME,
        }
    }
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is of no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store engine {0:?} does not exist; use \"fjall\" or \"sled\"")]
pub struct UnknownEngine(pub String);

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        EngineKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// How much memory and disk a store may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages read, in bytes.
    pub cache_bytes: u64,
    /// Memory for writes before `fjall` makes a table of them, in bytes, at least 1 MiB.
    pub write_buffer_bytes: u64,
    /// Disk space in bytes that is never used: commits are refused before it is touched, so that
    /// the engine can finish its work in the background and open again.
    pub reserve_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            write_buffer_bytes: 32 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Opens the store in `data_dir`, which is created if absent, and takes the next term.
///
/// # Errors
///
/// [`StoreError::InUse`] while another holder lives, [`StoreError::NewerVersion`],
/// [`StoreError::OlderVersion`] and [`StoreError::OtherEngine`] if the header says so, [`StoreError::DiskFull`] below the reserve,
/// [`StoreError::Corrupt`] if header or data do not read, else [`StoreError::Io`].
pub fn open(
    data_dir: &Path,
    engine: EngineKind,
    options: &StoreOptions,
) -> Result<Arc<dyn Store>, StoreError> {
    match engine {
        EngineKind::Sled => open_engine::<SledEngine>(data_dir, options),
        EngineKind::Fjall => open_engine::<FjallEngine>(data_dir, options),
    }
}

fn open_engine<E: Engine>(
    data_dir: &Path,
    options: &StoreOptions,
) -> Result<Arc<dyn Store>, StoreError> {
    let tuning = Tuning {
        cache_bytes: options.cache_bytes,
        write_buffer_bytes: options.write_buffer_bytes.max(1024 * 1024),
    };
    create_dir_durably(data_dir).map_err(|error| at(data_dir, error))?;
    let lock = lock(data_dir)?;
    let store_dir = data_dir.join(STORE_DIR);
    if !store_dir.try_exists()? {
        create::<E>(data_dir, &tuning)?;
    }
    Header::read(&store_dir)?.check(data_dir, E::NAME)?;
    let engine_dir = store_dir.join(E::NAME);
    let engine = guarded(&engine_dir, || E::open(&engine_dir, &tuning))?;
    let held = Held::take(engine, lock, engine_dir, options.reserve_bytes)?;
    Ok(Arc::new(held))
}

/// Makes `store/` whole or not at all.
fn create<E: Engine>(data_dir: &Path, tuning: &Tuning) -> Result<(), StoreError> {
    let draft = data_dir.join(DRAFT_DIR);
    if draft.try_exists()? {
        // A power cut during an earlier first start. Nothing in it was ever acknowledged.
        fs::remove_dir_all(&draft)?;
    }
    let engine_dir = draft.join(E::NAME);
    let fill = || -> io::Result<()> {
        fs::create_dir_all(&engine_dir)?;
        let header = Header { format_version: FORMAT_VERSION, engine: E::NAME.to_owned() };
        let mut file = File::create_new(draft.join(HEADER_FILE))?;
        file.write_all(&serde_json::to_vec(&header)?)
    };
    fill().map_err(|error| at(data_dir, error))?;
    drop(guarded(&engine_dir, || E::open(&engine_dir, tuning))?);
    let publish = || -> io::Result<()> {
        sync_tree(&draft)?;
        fs::rename(&draft, data_dir.join(STORE_DIR))?;
        sync_dir(data_dir)
    };
    publish().map_err(|error| at(data_dir, error))
}

/// What a store says about itself before its engine is opened.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format_version: u32,
    engine: String,
}

impl Header {
    fn read(store_dir: &Path) -> Result<Self, StoreError> {
        let path = store_dir.join(HEADER_FILE);
        let damaged = |why: String| {
            StoreError::Corrupt(format!(
                "header {} does not read ({why}); restore it from a backup",
                path.display()
            ))
        };
        let bytes = fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
    }

    fn check(&self, data_dir: &Path, configured: &str) -> Result<(), StoreError> {
        if self.format_version > FORMAT_VERSION {
            return Err(StoreError::NewerVersion {
                found: self.format_version,
                known: FORMAT_VERSION,
            });
        }
        if self.format_version < FORMAT_VERSION {
            return Err(StoreError::OlderVersion {
                found: self.format_version,
                known: FORMAT_VERSION,
            });
        }
        if self.engine != configured {
            return Err(StoreError::OtherEngine {
                path: data_dir.display().to_string(),
                found: self.engine.clone(),
                configured: configured.to_owned(),
            });
        }
        Ok(())
    }
}

fn lock(data_dir: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join(LOCK_FILE))
        .map_err(|error| at(data_dir, error))?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(StoreError::InUse { path: data_dir.display().to_string() }),
        Err(error) => Err(at(data_dir, error)),
    }
}

/// Names the directory in an error of the operating system.
fn at(path: &Path, error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::StorageFull {
        return StoreError::DiskFull {
            path: path.display().to_string(),
            detail: error.to_string(),
        };
    }
    StoreError::Io(io::Error::new(error.kind(), format!("{error} at {}", path.display())))
}

/// Creates `dir` with its missing parents; each new entry is synced in its parent.
fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_path_buf(),
        None => return fs::create_dir(dir),
    };
    create_dir_durably(&parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(&parent),
    }
}

/// Syncs every file and directory below `dir`, and `dir`.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    // Other systems have no handle for a directory's entries.
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// The layout this program reads and writes. 2: fjall keeps history in a keyspace of its own.
pub const FORMAT_VERSION: u32 = 2;

const LOCK_FILE: &str = "store.lock";
const STORE_DIR: &str = "store";
const DRAFT_DIR: &str = "store.draft";
const HEADER_FILE: &str = "header.json";
