//! The blob of the open tower protocol: one signed penalty transaction.
//!
//! ChaCha20-Poly1305, key SHA-256 of the commitment's txid in the byte order of transactions,
//! nonce zero, no further data. The plaintext is the transaction in consensus encoding, with
//! witnesses.
//!
//! A client of ours encrypts the pair of `to_local` alone
//! ([`combine`](crate::justice::combine) makes a transaction of it): with an HTLC beside it, a
//! cheater that moves the HTLC on would make all of it invalid.

use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Transaction, Txid};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

/// Why a blob is no penalty transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenPenaltyError {
    /// The txid is another one, or the blob was changed.
    #[error("blob of {length} bytes does not open with {txid}; the client encrypted it wrongly")]
    WrongKey {
        /// The txid it was tried with.
        txid: Txid,
        /// Length of the blob in bytes.
        length: usize,
    },
    /// What is inside is no transaction.
    #[error("blob for {txid} holds no transaction: {reason}")]
    NoTransaction {
        /// The txid that opened it.
        txid: Txid,
        /// What is wrong with it.
        reason: String,
    },
}

/// Encrypts `penalty` for whoever sees the transaction `commitment_txid`.
///
/// Never call it with two transactions for one txid: the nonce is always zero.
pub fn encrypt(commitment_txid: Txid, penalty: &Transaction) -> Vec<u8> {
    cipher(commitment_txid)
        .encrypt(&Nonce::default(), &encode::serialize(penalty)[..])
        .expect("transactions are far below 256 GiB")
}

/// Decrypts the penalty of the commitment `commitment_txid`.
///
/// # Errors
///
/// [`OpenPenaltyError`] if the txid is another one or there is no transaction inside.
pub fn decrypt(commitment_txid: Txid, blob: &[u8]) -> Result<Transaction, OpenPenaltyError> {
    let (txid, length) = (commitment_txid, blob.len());
    let plaintext = cipher(txid)
        .decrypt(&Nonce::default(), blob)
        .map_err(|_| OpenPenaltyError::WrongKey { txid, length })?;
    encode::deserialize(&plaintext)
        .map_err(|error| OpenPenaltyError::NoTransaction { txid, reason: error.to_string() })
}

fn cipher(txid: Txid) -> ChaCha20Poly1305 {
    let key = sha256::Hash::hash(txid.as_byte_array()).to_byte_array();
    ChaCha20Poly1305::new((&key).into())
}
