//! Sealed blobs: what only the revoked transaction itself opens.
//!
//! ChaCha20-Poly1305 under SHA-256 of a domain and the txid. No randomness: the nonce is a keyed
//! hash of the plaintext (as in SIV), so that two plaintexts under one txid never share a nonce,
//! and the same plaintext gives the same blob. Version and mode are authenticated with it.
//!
//! ```text
//! version 1 (1) │ mode: 0 blind, 1 trusted (1) │ nonce (12) │ ciphertext and tag (16 more)
//! ```
//!
//! A tower knows half of the txid, the locator; 128 bits of the key are left to guess.
//!
//! Source: RFC 8439; RFC 5297 for the idea of a synthetic nonce.

use bitcoin::Txid;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use zeroize::Zeroizing;

use crate::encoding::{DecodeError, Reader, within};

/// Version of the format of a blob.
pub const BLOB_VERSION: u8 = 1;

/// Bytes that a blob has beyond its plaintext: header, nonce, tag.
pub const BLOB_OVERHEAD: usize = 2 + NONCE_LEN + TAG_LEN;

/// Longest blob, 64 KiB.
pub const BLOB_LEN_MAX: usize = 64 * 1024;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// What a tower is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Presigned pairs only.
    Blind,
    /// The revocation secret of each state.
    Trusted,
}

/// Why a blob stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The transaction is another one, or the blob was changed.
    #[error("blob of {length} bytes does not open with {txid}; the client sealed it wrongly")]
    WrongKey {
        /// The txid it was tried with.
        txid: Txid,
        /// Length of the blob in bytes.
        length: usize,
    },
}

/// A sealed remedy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealedBlob {
    mode: Mode,
    sealed: Sealed,
}

impl SealedBlob {
    /// Seals `plaintext` for whoever sees the transaction `txid`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLong`] if the blob would exceed [`BLOB_LEN_MAX`].
    pub fn seal(txid: Txid, mode: Mode, plaintext: &[u8]) -> Result<Self, DecodeError> {
        let length = plaintext.len().saturating_add(BLOB_OVERHEAD);
        check_length(length)?;
        let sealed = SealKey::new(BLOB_DOMAIN, txid.as_byte_array()).seal(&header(mode), plaintext);
        Ok(Self { mode, sealed })
    }

    /// Opens it with the transaction `txid`.
    ///
    /// # Errors
    ///
    /// [`OpenError::WrongKey`] if the txid is another one, or anything was changed.
    pub fn open(&self, txid: Txid) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        SealKey::new(BLOB_DOMAIN, txid.as_byte_array())
            .open(&header(self.mode), &self.sealed)
            .ok_or(OpenError::WrongKey { txid, length: self.len() })
    }

    /// Returns the mode, which the tower sees.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the length of its encoding in bytes.
    #[allow(clippy::len_without_is_empty, reason = "no blob is empty")]
    pub fn len(&self) -> usize {
        2 + NONCE_LEN + self.sealed.ciphertext.len()
    }

    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        [&header(self.mode)[..], &self.sealed.nonce, &self.sealed.ciphertext].concat()
    }

    /// Decodes a blob, which takes all `bytes`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_length(bytes.len())?;
        let mut reader = Reader::new(bytes);
        let version = reader.u8("blob version")?;
        within("blob version", version.into(), BLOB_VERSION.into(), BLOB_VERSION.into())?;
        let mode = match reader.u8("blob mode")? {
            0 => Mode::Blind,
            1 => Mode::Trusted,
            value => {
                let (field, value) = ("blob mode", value.into());
                return Err(DecodeError::OutOfRange { field, value, min: 0, max: 1 });
            }
        };
        Ok(Self { mode, sealed: Sealed::read(&mut reader)? })
    }
}

fn header(mode: Mode) -> [u8; 2] {
    [BLOB_VERSION, u8::from(mode == Mode::Trusted)]
}

fn check_length(length: usize) -> Result<(), DecodeError> {
    if length <= BLOB_LEN_MAX {
        return Ok(());
    }
    Err(DecodeError::TooLong { field: "sealed blob", length, max: BLOB_LEN_MAX })
}

/// Nonce and ciphertext with its tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Sealed {
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) ciphertext: Vec<u8>,
}

impl Sealed {
    /// Reads all that is left.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let nonce = reader.array("nonce")?;
        let mut tag = reader.clone();
        tag.take("tag", TAG_LEN)?;
        Ok(Self { nonce, ciphertext: reader.rest().to_vec() })
    }
}

/// Domain of the keys of remedies.
const BLOB_DOMAIN: &str = "tributary/tower/blob/1";

/// A cipher and the key of its synthetic nonces.
pub(super) struct SealKey {
    cipher: ChaCha20Poly1305,
    nonce_key: Zeroizing<[u8; 32]>,
}

impl SealKey {
    /// Derives both from `material`, for one purpose.
    pub(super) fn new(domain: &str, material: &[u8; 32]) -> Self {
        let derive = |purpose: &str| {
            let mut engine = sha256::Hash::engine();
            engine.input(domain.as_bytes());
            engine.input(purpose.as_bytes());
            engine.input(material);
            Zeroizing::new(sha256::Hash::from_engine(engine).to_byte_array())
        };
        let cipher = ChaCha20Poly1305::new((&*derive("/key/")).into());
        Self { cipher, nonce_key: derive("/nonce/") }
    }

    pub(super) fn seal(&self, header: &[u8], plaintext: &[u8]) -> Sealed {
        let mut engine = HmacEngine::<sha256::Hash>::new(&*self.nonce_key);
        // The header has a fixed length in each domain, so the two cannot be confused.
        engine.input(header);
        engine.input(plaintext);
        let hash = Hmac::from_engine(engine).to_byte_array();
        let nonce: [u8; NONCE_LEN] = *hash.first_chunk().expect("12 of 32 bytes");
        let payload = Payload { msg: plaintext, aad: header };
        let ciphertext = self
            .cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .expect("plaintexts are far below 256 GiB");
        Sealed { nonce, ciphertext }
    }

    pub(super) fn open(&self, header: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: &sealed.ciphertext, aad: header };
        self.cipher.decrypt(Nonce::from_slice(&sealed.nonce), payload).ok().map(Zeroizing::new)
    }
}
