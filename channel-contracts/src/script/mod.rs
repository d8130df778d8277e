//! Scripts and transactions of one channel, as BOLT 3 defines them, and outputs of batches.
//!
//! Each output has one type that knows its script and every witness that spends it:
//! [`FundingScript`], [`ToLocal`], [`ToRemote`], [`HtlcScript`] and [`KeyedAnchor`].
//! [`Commitment`] puts them together into the commitment transaction; [`keys`] and
//! [`secrets`] derive what goes into them. Signing, broadcasting and remembering stay
//! outside. Ours are [`BatchNode`], the output of a batch
//! tree, and [`swap`].
//!
//! Roles: the **broadcaster** owns a commitment transaction and is delayed by it; the
//! **countersignatory** is its peer, who may punish it once it is revoked. BOLT 3 calls them
//! local and remote.
//!
//! Read first: BOLT 3, "Transactions".

pub mod anchor;
pub mod batch_node;
pub mod closing;
pub mod commitment;
pub mod format;
pub mod funding;
pub mod htlc;
pub mod htlc_transaction;
pub mod keys;
pub mod secrets;
pub mod swap;
pub mod to_local;
pub mod to_remote;

pub use anchor::KeyedAnchor;
pub use batch_node::{BatchNode, ExpiryLeaf};
pub use closing::{ClosingError, has_commitment_form, verify_closing};
pub use commitment::{BuiltCommitment, Commitment, CommitmentError, ObscureFactor, Side};
pub use format::CommitmentFormat;
pub use funding::{FundingError, FundingScript};
pub use htlc::{Htlc, HtlcDirection, HtlcError, HtlcKeys, HtlcScript, Preimage};
pub use htlc_transaction::{HtlcSignatures, HtlcTransaction, HtlcTransactionError};
pub use keys::{
    Basepoints, CommitmentKeys, CommitmentParties, KeyError, PerCommitmentPoint, RevocationSecrets,
};
pub use secrets::{CommitmentNumber, PerCommitmentSecret, SecretError, SecretStore};
pub use to_local::ToLocal;
pub use to_remote::ToRemote;

use bitcoin::Witness;
use bitcoin::ecdsa::Signature;
use bitcoin::script::Script;

/// Makes a witness of `items` followed by the script they satisfy.
pub(crate) fn witness(items: &[&[u8]], script: &Script) -> Witness {
    let mut witness = Witness::new();
    for item in items {
        witness.push(item);
    }
    witness.push(script.as_bytes());
    witness
}

/// Serialises a signature with its sighash byte, as a witness carries it.
pub(crate) fn signature_bytes(signature: &Signature) -> Vec<u8> {
    signature.serialize().to_vec()
}
