//! Keys of one commitment transaction, derived from basepoints.
//!
//! A watchtower that knows a transaction id must not be able to guess the keys in it, so every
//! commitment has fresh ones, tweaked by its per-commitment point. The revocation key is
//! blinded: neither side alone can sign for it until the other reveals its secret.
//!
//! The series of per-commitment secrets lives in [`secrets`](super::secrets). Where basepoint
//! secrets come from, and who may use them, is decided outside.
//!
//! Source: BOLT 3, "Key Derivation".

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1, SecretKey, Signing, Verification};

use super::CommitmentFormat;
use super::htlc::HtlcKeys;
use super::to_remote::ToRemote;

/// The public half of a per-commitment secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PerCommitmentPoint(pub PublicKey);

/// One side's basepoints, constant for the life of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Basepoints {
    /// `funding_pubkey`: signs the funding output, owns a keyed anchor.
    pub funding: PublicKey,
    /// `revocation_basepoint`.
    pub revocation: PublicKey,
    /// `payment_basepoint`: used as it is, never tweaked (`option_static_remotekey`).
    pub payment: PublicKey,
    /// `delayed_payment_basepoint`.
    pub delayed_payment: PublicKey,
    /// `htlc_basepoint`.
    pub htlc: PublicKey,
}

/// The basepoints of both sides of one commitment transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitmentParties {
    /// Whose commitment it is.
    pub broadcaster: Basepoints,
    /// Whose signature makes it valid.
    pub countersignatory: Basepoints,
}

/// The keys of one commitment transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitmentKeys {
    /// The broadcaster's funding key, which owns its anchor.
    pub broadcaster_funding: PublicKey,
    /// The countersignatory's funding key, which owns its anchor.
    pub countersignatory_funding: PublicKey,
    /// `revocationpubkey`: signed for by the countersignatory once the state is revoked.
    pub revocation: PublicKey,
    /// `local_delayedpubkey`.
    pub broadcaster_delayed: PublicKey,
    /// `local_htlcpubkey`.
    pub broadcaster_htlc: PublicKey,
    /// `remote_htlcpubkey`.
    pub countersignatory_htlc: PublicKey,
    /// `remotepubkey`.
    pub countersignatory_payment: PublicKey,
}

/// Why a key cannot be derived.
///
/// Both cases need a hash collision; they are errors because a peer chooses the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The result is the point at infinity or the zero scalar.
    #[error(
        "derived key is degenerate; the peer's basepoint or point is unusable, close the channel"
    )]
    Degenerate,
    /// A secret of 32 bytes is not a valid scalar.
    #[error(
        "per-commitment secret is not a valid scalar; the peer sent garbage, close the channel"
    )]
    InvalidSecret,
}

impl CommitmentKeys {
    /// Derives the keys of the commitment at `point`, which is the broadcaster's.
    ///
    /// # Errors
    ///
    /// [`KeyError::Degenerate`] for inputs that cancel each other out.
    pub fn derive<C: Verification>(
        secp: &Secp256k1<C>,
        point: &PerCommitmentPoint,
        parties: &CommitmentParties,
    ) -> Result<Self, KeyError> {
        let CommitmentParties { broadcaster, countersignatory } = parties;
        Ok(Self {
            broadcaster_funding: broadcaster.funding,
            countersignatory_funding: countersignatory.funding,
            revocation: revocation_key(secp, point, &countersignatory.revocation)?,
            broadcaster_delayed: public_key(secp, point, &broadcaster.delayed_payment)?,
            broadcaster_htlc: public_key(secp, point, &broadcaster.htlc)?,
            countersignatory_htlc: public_key(secp, point, &countersignatory.htlc)?,
            countersignatory_payment: countersignatory.payment,
        })
    }

    /// Returns the keys that go into HTLC outputs.
    pub fn htlc_keys(&self) -> HtlcKeys {
        HtlcKeys {
            revocation: self.revocation,
            broadcaster: self.broadcaster_htlc,
            countersignatory: self.countersignatory_htlc,
        }
    }

    /// Returns the countersignatory's plain output.
    pub fn to_remote(&self, format: CommitmentFormat) -> ToRemote {
        ToRemote { payment_key: self.countersignatory_payment, format }
    }
}

/// Derives `basepoint + SHA256(point || basepoint) * G`.
///
/// Used for delayed payment and HTLC keys.
///
/// # Errors
///
/// [`KeyError::Degenerate`] if the sum is the point at infinity.
pub fn public_key<C: Verification>(
    secp: &Secp256k1<C>,
    point: &PerCommitmentPoint,
    basepoint: &PublicKey,
) -> Result<PublicKey, KeyError> {
    let tweak = hash_of_keys(&point.0, basepoint)?;
    basepoint.add_exp_tweak(secp, &tweak).map_err(|_| KeyError::Degenerate)
}

/// Derives the secret key that belongs to [`public_key`].
///
/// # Errors
///
/// [`KeyError::Degenerate`] if the sum is zero.
pub fn secret_key<C: Signing>(
    secp: &Secp256k1<C>,
    point: &PerCommitmentPoint,
    basepoint_secret: &SecretKey,
) -> Result<SecretKey, KeyError> {
    let tweak = hash_of_keys(&point.0, &basepoint_secret.public_key(secp))?;
    basepoint_secret.add_tweak(&tweak).map_err(|_| KeyError::Degenerate)
}

/// Derives `revocationpubkey` from the countersignatory's `revocation_basepoint` and the
/// broadcaster's per-commitment point.
///
/// # Errors
///
/// [`KeyError::Degenerate`] if the two halves cancel out.
pub fn revocation_key<C: Verification>(
    secp: &Secp256k1<C>,
    point: &PerCommitmentPoint,
    revocation_basepoint: &PublicKey,
) -> Result<PublicKey, KeyError> {
    let degenerate = |_| KeyError::Degenerate;
    let base_half = revocation_basepoint
        .mul_tweak(secp, &hash_of_keys(revocation_basepoint, &point.0)?)
        .map_err(degenerate)?;
    let point_half = point
        .0
        .mul_tweak(secp, &hash_of_keys(&point.0, revocation_basepoint)?)
        .map_err(degenerate)?;
    base_half.combine(&point_half).map_err(degenerate)
}

/// Derives the secret key that belongs to [`revocation_key`], once the broadcaster has revealed
/// `per_commitment_secret`.
///
/// # Errors
///
/// [`KeyError::Degenerate`] if the two halves cancel out.
pub fn revocation_secret<C: Signing>(
    secp: &Secp256k1<C>,
    secrets: &RevocationSecrets,
) -> Result<SecretKey, KeyError> {
    let base = secrets.revocation_basepoint_secret.public_key(secp);
    let point = secrets.per_commitment_secret.public_key(secp);
    let degenerate = |_| KeyError::Degenerate;
    let base_half = secrets
        .revocation_basepoint_secret
        .mul_tweak(&hash_of_keys(&base, &point)?)
        .map_err(degenerate)?;
    let point_half = secrets
        .per_commitment_secret
        .mul_tweak(&hash_of_keys(&point, &base)?)
        .map_err(degenerate)?;
    base_half.add_tweak(&Scalar::from(point_half)).map_err(degenerate)
}

/// The two secrets that together sign for a revocation key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationSecrets {
    /// The countersignatory's own.
    pub revocation_basepoint_secret: SecretKey,
    /// The broadcaster's, revealed when it revoked the state.
    pub per_commitment_secret: SecretKey,
}

/// Hashes two keys, in this order, into a scalar.
fn hash_of_keys(first: &PublicKey, second: &PublicKey) -> Result<Scalar, KeyError> {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    let hash = sha256::Hash::from_engine(engine).to_byte_array();
    Scalar::from_be_bytes(hash).map_err(|_| KeyError::Degenerate)
}
