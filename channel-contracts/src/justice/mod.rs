//! Breach remedies: what a victim, or its watchtower, may take of a revoked commitment.
//!
//! - [`state`]: [`RevokedState`], all that rebuilds the outputs of one revoked commitment.
//! - [`penalty`]: [`Penalty`], one output that may be taken, until when, and what is left of it.
//! - [`pair`]: one input and one output signed together, so that pairs combine freely.
//! - [`encoding`]: the bytes of a state.
//!
//! `to_remote` and the victim's anchor are not here: they are never revocable, the victim takes
//! them with its own keys. Who watches the chain, what it pays, and how a state is kept stays
//! outside; [`tower`](crate::tower) is what one sends to a watchtower.
//!
//! Read first: BOLT 5, "Revoked Transaction Close Handling"; [`script`](crate::script) for roles.

pub mod encoding;
pub mod pair;
pub mod penalty;
pub mod state;

pub use pair::{
    CombineError, FeeRider, PenaltyPair, RevocationSecret, combine, group_by_weight, sign_pair,
};
pub use penalty::{CheaterTime, Penalty, PenaltyContract, PenaltyKind, combined_weight_max};
pub use state::{RevokedHtlc, RevokedKeys, RevokedState, RevokedTerms, RevokedToLocal, StateError};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, FeeRate, OutPoint, TxOut, Txid};

/// Why an output of a revoked commitment cannot be taken, or not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JusticeError {
    /// The state belongs to another commitment.
    #[error("transaction {actual} is not the revoked commitment {expected}")]
    OtherTransaction {
        /// The commitment of the state.
        expected: Txid,
        /// The transaction given.
        actual: Txid,
    },
    /// The commitment has no such output.
    #[error("output {vout} is beyond the {outputs} outputs of the commitment; the state is wrong")]
    MissingOutput {
        /// The index that the state names.
        vout: u16,
        /// How many outputs there are.
        outputs: usize,
    },
    /// An output is not what the keys of the state give.
    #[error("output {vout} is {actual:?}, the state says {expected:?}; the state is wrong")]
    WrongOutput {
        /// Its index.
        vout: u16,
        /// What script and value should be.
        expected: Box<TxOut>,
        /// What they are.
        actual: Box<TxOut>,
    },
    /// The secret is not that of the revocation key.
    #[error("secret belongs to {actual}, the state is revoked by {expected}; derive it again")]
    WrongSecret {
        /// The revocation key of the state.
        expected: Box<PublicKey>,
        /// The key of the secret.
        actual: Box<PublicKey>,
    },
    /// Nothing above dust is left.
    #[error("{outpoint} of {value} leaves no output above dust at {feerate} per kwu; pay less")]
    Dust {
        /// The output that would be taken.
        outpoint: OutPoint,
        /// Its value.
        value: Amount,
        /// The feerate asked for.
        feerate: FeeRate,
    },
    /// A pair spends another output than the penalty's.
    #[error("pair spends {actual}, the penalty takes {expected}")]
    OtherOutput {
        /// The output of the penalty.
        expected: OutPoint,
        /// The output that the pair spends.
        actual: OutPoint,
    },
    /// A signature, or the witness around it, is wrong.
    #[error("signature for {outpoint} is not by {key} over this pair; sign it again")]
    WrongSignature {
        /// The output that would be taken.
        outpoint: OutPoint,
        /// The revocation key.
        key: PublicKey,
    },
}

impl JusticeError {
    /// Refuses a secret whose key is not the revocation key.
    pub(crate) fn check_secret(expected: PublicKey, actual: PublicKey) -> Result<(), Self> {
        if actual == expected {
            return Ok(());
        }
        Err(Self::WrongSecret { expected: Box::new(expected), actual: Box::new(actual) })
    }
}
