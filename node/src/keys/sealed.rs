//! The seed at rest: `seed.sealed`, readable only with its password.
//!
//! The password becomes a key by Argon2id, the key seals the seed by XChaCha20-Poly1305 with the
//! whole header as associated data. The file is replaced by write, sync, rename, sync of the
//! directory, so that a crash leaves the old file or the new one.
//!
//! ```text
//! offset  size  meaning                                   (integers big endian)
//!      0     8  magic "TRIBSEED"
//!      8     1  version, 1
//!      9     1  key derivation, 1 = Argon2id version 0x13
//!     10     4  memory, KiB
//!     14     4  iterations
//!     18     4  lanes
//!     22    16  salt
//!     38    24  nonce
//!     62    80  ciphertext of the 64-byte seed, with its tag
//!    142    32  SHA-256 of all before: tells a damaged file from a wrong password
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use bitcoin::hashes::{Hash, sha256};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::phrase::Seed;
use crate::environment::Entropy;

/// The file's name inside the data directory.
pub const SEALED_SEED_FILE: &str = "seed.sealed";

const MAGIC: &[u8; 8] = b"TRIBSEED";
const VERSION: u8 = 1;
const KDF_ARGON2ID: u8 = 1;
const SALT_AT: usize = 22;
const NONCE_AT: usize = 38;
const HEADER_LENGTH: usize = 62;
const SEALED_LENGTH: usize = HEADER_LENGTH + 64 + 16;
const FILE_LENGTH: usize = SEALED_LENGTH + 32;

/// What one guess of the password costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealCost {
    memory_kib: u32,
    iterations: u32,
    lanes: u32,
}

impl Default for SealCost {
    /// 64 MiB, 3 iterations: a few tenths of a second at each start.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, iterations: 3, lanes: 1 }
    }
}

impl SealCost {
    /// Nearly free: for tests and simulations, where the password guards nothing.
    pub fn insecure_for_tests() -> Self {
        Self { memory_kib: 8, iterations: 1, lanes: 1 }
    }

    /// A file must not make its reader spend unbounded memory or time.
    fn is_bounded(self) -> bool {
        (8..=1024 * 1024).contains(&self.memory_kib)
            && (1..=16).contains(&self.iterations)
            && (1..=4).contains(&self.lanes)
            && self.memory_kib >= 8 * self.lanes
    }
}

/// Why the seed cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A seed is never overwritten: it may be the only way to money.
    #[error("{path} already holds a seed; unlock it, or choose another --data-dir")]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// An empty password seals nothing.
    #[error("the password is empty; choose one of at least {minimum} characters")]
    EmptyPassword {
        /// The least number of characters.
        minimum: usize,
    },
    /// The disk refuses.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why the seed cannot be unlocked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// There is no seed yet.
    #[error("no seed at {path}; create one with `tributary init`, or choose another --data-dir")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The password is not the one the seed was sealed with.
    #[error("wrong password for {path}")]
    WrongPassword {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer program.
    #[error("{path} has format version {found}, this program knows {VERSION}; upgrade tributary")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// The file is not what was written.
    #[error("{path} is damaged ({detail}); restore it from a copy, or the seed from its words")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The disk refuses.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Shortest password that is named in the error about an empty one.
const PASSWORD_LENGTH_ADVISED: usize = 12;

/// Returns where the seed of `dir` is.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join(SEALED_SEED_FILE)
}

/// Seals `seed` into a directory that has none yet.
pub(super) fn create(
    dir: &Path,
    seed: &Seed,
    password: &str,
    cost: SealCost,
    entropy: &dyn Entropy,
) -> Result<(), SealError> {
    let path = path_in(dir);
    if path.exists() {
        return Err(SealError::AlreadyExists { path });
    }
    replace(dir, seed, password, cost, entropy)
}

/// Seals `seed` over whatever the directory holds.
pub(super) fn replace(
    dir: &Path,
    seed: &Seed,
    password: &str,
    cost: SealCost,
    entropy: &dyn Entropy,
) -> Result<(), SealError> {
    if password.is_empty() {
        return Err(SealError::EmptyPassword { minimum: PASSWORD_LENGTH_ADVISED });
    }
    let path = path_in(dir);
    let sealed = seal(seed, password, cost, entropy);
    let written = stage(dir, &sealed).and_then(|staged| publish(&staged, dir));
    written.map_err(|source| SealError::Io { path, source })
}

/// Opens the seed of `dir`.
pub(super) fn open(dir: &Path, password: &str) -> Result<Seed, UnlockError> {
    let path = path_in(dir);
    match fs::read(&path) {
        Ok(file) => unseal(&path, &file, password),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UnlockError::Missing { path }),
        Err(source) => Err(UnlockError::Io { path, source }),
    }
}

fn seal(seed: &Seed, password: &str, cost: SealCost, entropy: &dyn Entropy) -> Vec<u8> {
    assert!(cost.is_bounded(), "costs are made by SealCost only");
    let mut file = Vec::with_capacity(FILE_LENGTH);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    file.push(KDF_ARGON2ID);
    file.extend_from_slice(&cost.memory_kib.to_be_bytes());
    file.extend_from_slice(&cost.iterations.to_be_bytes());
    file.extend_from_slice(&cost.lanes.to_be_bytes());
    file.extend_from_slice(&entropy.bytes::<16>());
    file.extend_from_slice(&entropy.bytes::<24>());
    let key = stretch(password, &file[SALT_AT..NONCE_AT], cost);
    let sealed = XChaCha20Poly1305::new(Key::from_slice(key.as_slice()))
        .encrypt(
            XNonce::from_slice(&file[NONCE_AT..HEADER_LENGTH]),
            Payload { msg: seed.0.as_ref(), aad: &file },
        )
        .expect("64 bytes are within the cipher's limit");
    file.extend_from_slice(&sealed);
    let sum = sha256::Hash::hash(&file);
    file.extend_from_slice(sum.as_byte_array());
    file
}

fn unseal(path: &Path, file: &[u8], password: &str) -> Result<Seed, UnlockError> {
    let damaged = |detail| UnlockError::Damaged { path: path.to_owned(), detail };
    if file.len() < MAGIC.len() + 1 || !file.starts_with(MAGIC) {
        return Err(damaged("it is not a sealed seed"));
    }
    if file[8] > VERSION {
        return Err(UnlockError::NewerVersion { path: path.to_owned(), found: file[8] });
    }
    if file.len() != FILE_LENGTH {
        return Err(damaged("its length is wrong"));
    }
    if sha256::Hash::hash(&file[..SEALED_LENGTH]).as_byte_array() != &file[SEALED_LENGTH..] {
        return Err(damaged("its checksum is wrong"));
    }
    if file[8] != VERSION || file[9] != KDF_ARGON2ID {
        return Err(damaged("its version or key derivation is unknown"));
    }
    let word = |at: usize| {
        u32::from_be_bytes(file[at..at + 4].try_into().expect("four bytes of a checked length"))
    };
    let cost = SealCost { memory_kib: word(10), iterations: word(14), lanes: word(18) };
    if !cost.is_bounded() {
        return Err(damaged("its cost is out of range"));
    }
    let key = stretch(password, &file[SALT_AT..NONCE_AT], cost);
    let opened = XChaCha20Poly1305::new(Key::from_slice(key.as_slice()))
        .decrypt(
            XNonce::from_slice(&file[NONCE_AT..HEADER_LENGTH]),
            Payload { msg: &file[HEADER_LENGTH..SEALED_LENGTH], aad: &file[..HEADER_LENGTH] },
        )
        .map(Zeroizing::new)
        .map_err(|_| UnlockError::WrongPassword { path: path.to_owned() })?;
    let mut seed = Zeroizing::new([0u8; 64]);
    seed.copy_from_slice(&opened);
    Ok(Seed(seed))
}

fn stretch(password: &str, salt: &[u8], cost: SealCost) -> Zeroizing<[u8; 32]> {
    let params = Params::new(cost.memory_kib, cost.iterations, cost.lanes, Some(32))
        .expect("bounds were checked");
    let mut key = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, key.as_mut())
        .expect("salt and key lengths are fixed");
    key
}

/// Writes and syncs `sealed` beside its final place. A crash from here on loses nothing.
fn stage(dir: &Path, sealed: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let staged = dir.join(format!("{SEALED_SEED_FILE}.new"));
    // What a crashed run left behind would keep its mode and, if longer, its tail.
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&staged)?;
    file.write_all(sealed)?;
    file.sync_all()?;
    Ok(staged)
}

/// Puts the staged file in its place.
fn publish(staged: &Path, dir: &Path) -> io::Result<()> {
    fs::rename(staged, path_in(dir))?;
    // The rename itself lives in the directory.
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::OsEntropy;

    fn seed(byte: u8) -> Seed {
        Seed(Zeroizing::new([byte; 64]))
    }

    fn sealed(byte: u8) -> Vec<u8> {
        let cost = SealCost::insecure_for_tests();
        seal(&seed(byte), "correct horse", cost, &OsEntropy)
    }

    #[test]
    fn round_trip_and_wrong_password() {
        let file = sealed(7);
        let path = Path::new("seed.sealed");
        assert_eq!(unseal(path, &file, "correct horse").unwrap(), seed(7));
        assert!(matches!(
            unseal(path, &file, "correct hors"),
            Err(UnlockError::WrongPassword { .. })
        ));
        assert!(!file.windows(8).any(|window| window == [7; 8]), "seed is in the clear");
    }

    #[test]
    fn default_cost_is_what_the_documentation_says() {
        let cost = SealCost::default();
        assert_eq!((cost.memory_kib, cost.iterations, cost.lanes), (65_536, 3, 1));
        assert!(cost.is_bounded());
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let file = sealed(7);
        let path = Path::new("seed.sealed");
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x01;
            assert!(
                unseal(path, &changed, "correct horse").is_err(),
                "byte {at} is not covered by the checksum"
            );
        }
        for length in 0..file.len() {
            assert!(unseal(path, &file[..length], "correct horse").is_err());
        }
    }

    #[test]
    fn every_changed_byte_is_refused_even_with_a_corrected_checksum() {
        let file = sealed(7);
        let path = Path::new("seed.sealed");
        for at in 0..SEALED_LENGTH {
            for mask in [0x01, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= mask;
                let sum = sha256::Hash::hash(&changed[..SEALED_LENGTH]);
                changed[SEALED_LENGTH..].copy_from_slice(sum.as_byte_array());
                assert!(
                    unseal(path, &changed, "correct horse").is_err(),
                    "byte {at} is not authenticated"
                );
            }
        }
    }

    #[test]
    fn newer_version_says_upgrade() {
        let mut file = sealed(7);
        file[8] = 2;
        assert!(matches!(
            unseal(Path::new("s"), &file, "correct horse"),
            Err(UnlockError::NewerVersion { found: 2, .. })
        ));
    }

    #[test]
    fn seed_is_never_overwritten_by_create() {
        let dir = tempfile::tempdir().unwrap();
        let cost = SealCost::insecure_for_tests();
        create(dir.path(), &seed(1), "one", cost, &OsEntropy).unwrap();
        assert!(matches!(
            create(dir.path(), &seed(2), "two", cost, &OsEntropy),
            Err(SealError::AlreadyExists { .. })
        ));
        assert_eq!(open(dir.path(), "one").unwrap(), seed(1));
        assert!(matches!(
            replace(dir.path(), &seed(2), "", cost, &OsEntropy),
            Err(SealError::EmptyPassword { .. })
        ));
    }

    #[test]
    fn crash_between_write_and_rename_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let cost = SealCost::insecure_for_tests();
        create(dir.path(), &seed(1), "old", cost, &OsEntropy).unwrap();

        // The crash: the new file is written and synced, and nothing more happens.
        let staged = stage(dir.path(), &sealed(2)).unwrap();
        assert_eq!(open(dir.path(), "old").unwrap(), seed(1));

        // A torn rest of an earlier run does not stand in the way of the next one.
        fs::write(&staged, vec![0xff; 4096]).unwrap();
        replace(dir.path(), &seed(1), "new", cost, &OsEntropy).unwrap();
        assert_eq!(open(dir.path(), "new").unwrap(), seed(1));
        assert!(!staged.exists());
        assert_eq!(fs::metadata(path_in(dir.path())).unwrap().len(), FILE_LENGTH as u64);
    }

    #[cfg(unix)]
    #[test]
    fn file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let cost = SealCost::insecure_for_tests();
        create(dir.path(), &seed(1), "one", cost, &OsEntropy).unwrap();
        let mode = fs::metadata(path_in(dir.path())).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn missing_seed_names_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path(), "any").unwrap_err();
        assert!(error.to_string().contains("tributary init"), "{error}");
    }
}
