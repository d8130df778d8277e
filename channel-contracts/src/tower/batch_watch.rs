//! A tower's other duty: to publish a batch path before its deadline, for a user who sleeps.
//!
//! A path is public data that can only turn virtual channels into ordinary ones, at the cost of
//! whoever publishes it; so the tower gets it in the open, or sealed under a key that the client
//! keeps until it wants the tower to act.
//!
//! ```text
//! version 1 (1) │ guard height U (4) │ budget in sat (BigSize) │ signed path (the rest)
//! ```
//!
//! Sealed: version 1 (1) │ nonce (12) │ ciphertext and tag, as in [`seal`](super::seal).
//!
//! Source: BATCHES §5.1 and §9.

use std::fmt;

use bitcoin::{Amount, absolute};
use zeroize::Zeroize;

use super::seal::{SealKey, Sealed};
use crate::encoding::{DecodeError, Reader, push_big_size, within};
use crate::tree::path::{PATH_LEN_MAX, PathError, SignedPath, VerifiedPath};

/// Version of the encoding of a watch, open and sealed.
pub const WATCH_VERSION: u8 = 1;

/// Longest encoding of a watch.
pub const WATCH_LEN_MAX: usize = 1 + 4 + 9 + PATH_LEN_MAX;

/// Longest sealed watch.
pub const SEALED_WATCH_LEN_MAX: usize = 1 + 12 + WATCH_LEN_MAX + 16;

/// Domain of the keys of sealed watches.
const WATCH_DOMAIN: &str = "tributary/tower/batch-watch/1";

/// The duty to publish a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchWatch {
    /// The path, with final signatures.
    pub path: SignedPath,
    /// `U`: publish it when the chain is here and the channel is not retired.
    pub guard_height: absolute::Height,
    /// What the tower may spend on fees for it.
    pub budget: Amount,
}

/// A key under which a client seals its watches. Prints as `[redacted]`, erased when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct WatchKey([u8; 32]);

impl WatchKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for WatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchKey([redacted])")
    }
}

impl Drop for WatchKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why a watch cannot be opened or taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchWatchError {
    /// The key is another one, or the bytes were changed.
    #[error("sealed watch of {length} bytes does not open with this key")]
    WrongKey {
        /// Its length.
        length: usize,
    },
    /// The bytes are no watch.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
    /// The path cannot be published.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The path would be published when it is worth nothing.
    #[error("guard height {guard_height} is not below the expiry {expiry} of the batch")]
    TooLate {
        /// `U`, as asked for.
        guard_height: absolute::Height,
        /// `E`.
        expiry: absolute::Height,
    },
}

impl BatchWatch {
    /// Checks that the path can be published and begins before the batch expires.
    ///
    /// The ends are those that the path states. The tower compares the root with the chain.
    ///
    /// # Errors
    ///
    /// [`BatchWatchError::TooLate`] or [`BatchWatchError::Path`].
    pub fn verify(&self) -> Result<VerifiedPath, BatchWatchError> {
        let (guard_height, expiry) = (self.guard_height, self.path.path.leaf.expiry);
        if guard_height >= expiry {
            return Err(BatchWatchError::TooLate { guard_height, expiry });
        }
        Ok(self.path.verify(&self.path.stated_ends()?)?)
    }

    /// Encodes it, in the open: about 1.2 kB for a batch of 256.
    ///
    /// # Panics
    ///
    /// If an output of the path is neither P2WSH nor P2TR; no tree is built with one.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![WATCH_VERSION];
        bytes.extend(self.guard_height.to_consensus_u32().to_be_bytes());
        push_big_size(&mut bytes, self.budget.to_sat());
        bytes.extend(self.path.encode());
        bytes
    }

    /// Decodes it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_length(bytes, WATCH_LEN_MAX)?;
        let mut reader = Reader::new(bytes);
        read_version(&mut reader)?;
        let guard_height = reader.height("guard height")?;
        let budget = reader.amount("budget")?;
        Ok(Self { path: SignedPath::decode(reader.rest())?, guard_height, budget })
    }

    /// Seals it under a key of the client's. The same watch gives the same bytes.
    pub fn seal(&self, key: &WatchKey) -> Vec<u8> {
        let sealed = SealKey::new(WATCH_DOMAIN, &key.0).seal(&[WATCH_VERSION], &self.encode());
        [&[WATCH_VERSION], &sealed.nonce[..], &sealed.ciphertext].concat()
    }

    /// Opens a sealed watch.
    ///
    /// # Errors
    ///
    /// [`BatchWatchError::WrongKey`] or [`BatchWatchError::Bytes`].
    pub fn open(key: &WatchKey, bytes: &[u8]) -> Result<Self, BatchWatchError> {
        check_length(bytes, SEALED_WATCH_LEN_MAX)?;
        let mut reader = Reader::new(bytes);
        read_version(&mut reader)?;
        let sealed = Sealed::read(&mut reader)?;
        let plaintext = SealKey::new(WATCH_DOMAIN, &key.0)
            .open(&[WATCH_VERSION], &sealed)
            .ok_or(BatchWatchError::WrongKey { length: bytes.len() })?;
        Ok(Self::decode(&plaintext)?)
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let version = reader.u8("watch version")?;
    within("watch version", version.into(), WATCH_VERSION.into(), WATCH_VERSION.into())
}

fn check_length(bytes: &[u8], max: usize) -> Result<(), DecodeError> {
    let length = bytes.len();
    if length <= max {
        return Ok(());
    }
    Err(DecodeError::TooLong { field: "batch watch", length, max })
}
