//! The aggregated key of one node output, public and secret.
//!
//! [`AggregateKey`] is what a session signs for: MuSig2 of all cosigners in ascending order,
//! tweaked with the expiry leaf. [`AggregateSecret`] is the same as a secret, for one who holds
//! every cosigner's: it signs alone and needs no nonce exchange, so that a fee can be bumped any
//! number of times with no nonce at stake.
//!
//! Source: BIP 327, "Key Generation and Aggregation" and "Tweaking".

use std::fmt;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::key::TweakedPublicKey;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{TapNodeHash, TapTweakHash, XOnlyPublicKey};
use secp256k1_musig::musig::KeyAggCache;
use secp256k1_musig::{
    Keypair, Parity, PublicKey as NewerPublicKey, Scalar, SecretKey, XOnlyPublicKey as NewerXOnly,
};

use super::SchnorrSignature;

/// One party's secret of one tree, or of one swap. Prints as `[redacted]` and is erased when dropped.
///
/// Fresh for each attempt and used for nothing else, so that its owner can hand it over.
#[derive(Clone, PartialEq, Eq)]
pub struct TreeSecret(SecretKey);

impl Drop for TreeSecret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl fmt::Debug for TreeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TreeSecret([redacted])")
    }
}

impl TreeSecret {
    /// Takes 32 bytes, or `None` if they are zero or not below the order of the group.
    pub fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        SecretKey::from_secret_bytes(bytes).ok().map(Self)
    }

    /// Returns the 32 bytes that go into `release`.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_secret_bytes()
    }

    /// Returns the public key that its owner registers.
    pub fn public_key(&self) -> PublicKey {
        older(&self.0.public_key())
    }

    /// Signs with the key alone, without a tweak, as the key of a script leaf does.
    pub(crate) fn sign(&self, message: &[u8; 32]) -> SchnorrSignature {
        let keypair = Keypair::from_secret_key(&self.0);
        SchnorrSignature(keypair.sign_schnorr_no_aux_rand(message).to_byte_array())
    }

    pub(super) fn newer(&self) -> &SecretKey {
        &self.0
    }
}

/// Why keys cannot be aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// There is no key.
    #[error("no cosigner; a node needs the hub and at least one user")]
    Empty,
    /// One key came twice.
    #[error("cosigner {key} comes twice; tree keys are fresh, refuse the second")]
    Duplicate {
        /// The key that came twice.
        key: PublicKey,
    },
    /// The keys cancel each other or the tweak out, which needs a hash collision.
    #[error("aggregated key is degenerate; draw fresh tree keys")]
    Degenerate,
    /// The secrets do not make the key that the output commits to.
    #[error("{count} secrets do not make output key {expected}; a secret is missing or foreign")]
    WrongSecrets {
        /// How many secrets were given.
        count: usize,
        /// The key of the output.
        expected: XOnlyPublicKey,
    },
}

/// The key of a node output, ready for a signing session.
///
/// ```
/// use bitcoin::TapNodeHash;
/// use bitcoin::hashes::Hash;
/// use channel_contracts::musig::{AggregateKey, TreeSecret};
///
/// let keys: Vec<_> = [1, 2, 3]
///     .iter()
///     .filter_map(|byte| TreeSecret::from_bytes([*byte; 32]))
///     .map(|secret| secret.public_key())
///     .collect();
/// let root = TapNodeHash::from_byte_array([7; 32]);
/// let key = AggregateKey::new(&keys, root)?;
/// // The order in which the keys are given does not matter.
/// let turned: Vec<_> = keys.into_iter().rev().collect();
/// assert_eq!(AggregateKey::new(&turned, root)?, key);
/// # Ok::<(), channel_contracts::musig::AggregateError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateKey {
    cache: KeyAggCache,
    internal: XOnlyPublicKey,
    output: XOnlyPublicKey,
}

impl AggregateKey {
    /// Aggregates `cosigners`, given in any order, and commits to the script tree `root`.
    ///
    /// # Errors
    ///
    /// [`AggregateError`] if there is no key, one comes twice, or they cancel out.
    pub fn new(cosigners: &[PublicKey], root: TapNodeHash) -> Result<Self, AggregateError> {
        let mut sorted: Vec<&PublicKey> = cosigners.iter().collect();
        // BIP 327, KeySort: by the bytes of the compressed form.
        sorted.sort_by_cached_key(|key| key.serialize());
        if sorted.is_empty() {
            return Err(AggregateError::Empty);
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(AggregateError::Duplicate { key: *pair[0] });
        }
        let keys: Vec<NewerPublicKey> = sorted.into_iter().map(newer).collect();
        let mut cache = KeyAggCache::new(&keys.iter().collect::<Vec<_>>());
        let internal = older_x_only(&cache.agg_pk());
        cache
            .pubkey_xonly_tweak_add(&tweak(internal, root)?)
            .map_err(|_| AggregateError::Degenerate)?;
        let output = older_x_only(&cache.agg_pk());
        Ok(Self { cache, internal, output })
    }

    /// Returns the key before the script tree is committed to.
    pub fn internal_key(&self) -> XOnlyPublicKey {
        self.internal
    }

    /// Returns the key of the output.
    pub fn output_key(&self) -> TweakedPublicKey {
        TweakedPublicKey::dangerous_assume_tweaked(self.output)
    }

    pub(super) fn cache(&self) -> &KeyAggCache {
        &self.cache
    }
}

/// The secret of a node output, in the hands of one who holds every cosigner's secret. Erased when
/// dropped.
pub struct AggregateSecret(Keypair);

impl Drop for AggregateSecret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl fmt::Debug for AggregateSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AggregateSecret([redacted])")
    }
}

impl AggregateSecret {
    /// Puts the secret of the output with `expected` key together from all cosigners' secrets.
    ///
    /// # Errors
    ///
    /// [`AggregateError::WrongSecrets`] unless they are exactly the cosigners'.
    pub fn new(
        secrets: &[&TreeSecret],
        root: TapNodeHash,
        expected: XOnlyPublicKey,
    ) -> Result<Self, AggregateError> {
        let public: Vec<PublicKey> = secrets.iter().map(|secret| secret.public_key()).collect();
        let key = AggregateKey::new(&public, root)?;
        let mut pairs: Vec<_> =
            public.iter().map(PublicKey::serialize).zip(secrets.iter().copied()).collect();
        pairs.sort_unstable_by_key(|(key, _)| *key);
        let keys: Vec<[u8; 33]> = pairs.iter().map(|(key, _)| *key).collect();
        let secret = pairs
            .iter()
            .map(|(key, secret)| weighted(&keys, key, secret))
            .reduce(|sum, next| sum?.add_tweak(&scalar(&next?)).map_err(degenerate))
            .ok_or(AggregateError::Empty)??;
        let keypair = Keypair::from_secret_key(&secret)
            .add_xonly_tweak(&tweak(key.internal_key(), root)?)
            .map_err(degenerate)?;
        let actual = older_x_only(&keypair.x_only_public_key().0);
        if actual != expected {
            return Err(AggregateError::WrongSecrets { count: secrets.len(), expected });
        }
        Ok(Self(keypair))
    }

    /// Signs a key-path sighash. The same message gives the same signature.
    pub fn sign(&self, message: &[u8; 32]) -> SchnorrSignature {
        SchnorrSignature(self.0.sign_schnorr_no_aux_rand(message).to_byte_array())
    }
}

/// Multiplies a secret by the coefficient of its key among the sorted `keys` (BIP 327, KeyAgg).
fn weighted(
    keys: &[[u8; 33]],
    key: &[u8; 33],
    secret: &TreeSecret,
) -> Result<SecretKey, AggregateError> {
    // BIP 327, KeyAggCoeff: the second distinct key has coefficient 1. Keys are distinct here.
    if keys.get(1) == Some(key) {
        return Ok(*secret.newer());
    }
    let list = tagged("KeyAgg list", &[&keys.concat()]);
    let coefficient = tagged("KeyAgg coefficient", &[&list, key]);
    let coefficient = Scalar::from_be_bytes(coefficient).map_err(|_| AggregateError::Degenerate)?;
    secret.newer().mul_tweak(&coefficient).map_err(degenerate)
}

fn degenerate(_: secp256k1_musig::Error) -> AggregateError {
    AggregateError::Degenerate
}

fn scalar(secret: &SecretKey) -> Scalar {
    Scalar::from_be_bytes(secret.to_secret_bytes()).expect("a secret is below the order")
}

fn tweak(internal: XOnlyPublicKey, root: TapNodeHash) -> Result<Scalar, AggregateError> {
    let tweak = TapTweakHash::from_key_and_tweak(internal, Some(root));
    Scalar::from_be_bytes(tweak.to_byte_array()).map_err(|_| AggregateError::Degenerate)
}

/// Tweaks an internal key, and returns the output key with its parity.
pub(crate) fn tweak_internal(
    internal: XOnlyPublicKey,
    root: TapNodeHash,
) -> Result<(XOnlyPublicKey, bitcoin::secp256k1::Parity), AggregateError> {
    let (output, parity) =
        newer_x_only(&internal).add_tweak(&tweak(internal, root)?).map_err(degenerate)?;
    let parity = match parity {
        Parity::Even => bitcoin::secp256k1::Parity::Even,
        Parity::Odd => bitcoin::secp256k1::Parity::Odd,
    };
    Ok((older_x_only(&output), parity))
}

/// Hashes by BIP 340's rule of tags.
pub(super) fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256::Hash::hash(tag.as_bytes());
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_byte_array());
    engine.input(tag.as_byte_array());
    parts.iter().for_each(|part| engine.input(part));
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// Takes a key over to the newer version. The uncompressed form spares a square root for each.
pub(super) fn newer(key: &PublicKey) -> NewerPublicKey {
    NewerPublicKey::from_byte_array_uncompressed(key.serialize_uncompressed())
        .expect("both versions know the same points")
}

pub(super) fn newer_x_only(key: &XOnlyPublicKey) -> NewerXOnly {
    NewerXOnly::from_byte_array(key.serialize()).expect("both versions know the same points")
}

fn older(key: &NewerPublicKey) -> PublicKey {
    PublicKey::from_slice(&key.serialize()).expect("both versions know the same points")
}

fn older_x_only(key: &NewerXOnly) -> XOnlyPublicKey {
    XOnlyPublicKey::from_slice(&key.to_byte_array()).expect("both versions know the same points")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(count: u8) -> Vec<TreeSecret> {
        (1..=count).map(|byte| TreeSecret::from_bytes([byte; 32]).unwrap()).collect()
    }

    #[test]
    fn all_secrets_together_make_the_output_key() {
        let root = TapNodeHash::from_byte_array([9; 32]);
        for count in 1..8 {
            let secrets = secrets(count);
            let public: Vec<_> = secrets.iter().map(TreeSecret::public_key).collect();
            let key = AggregateKey::new(&public, root).unwrap();
            let expected = key.output_key().to_x_only_public_key();
            let all: Vec<_> = secrets.iter().rev().collect();
            let message = [count; 32];
            let signature = AggregateSecret::new(&all, root, expected).unwrap().sign(&message);
            assert!(signature.is_valid(&message, &expected));
            assert!(!signature.is_valid(&[0; 32], &expected));
            if count > 1 {
                let refused = AggregateSecret::new(&all[1..], root, expected).unwrap_err();
                assert!(matches!(refused, AggregateError::WrongSecrets { .. }));
            }
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let key = secrets(1)[0].public_key();
        let root = TapNodeHash::from_byte_array([9; 32]);
        assert_eq!(AggregateKey::new(&[key, key], root), Err(AggregateError::Duplicate { key }));
        assert_eq!(AggregateKey::new(&[], root), Err(AggregateError::Empty));
    }

    #[test]
    fn tweaking_the_internal_key_gives_the_aggregated_output_key() {
        let public: Vec<_> = secrets(3).iter().map(TreeSecret::public_key).collect();
        let root = TapNodeHash::from_byte_array([5; 32]);
        let key = AggregateKey::new(&public, root).unwrap();
        let (output, _) = tweak_internal(key.internal_key(), root).unwrap();
        assert_eq!(output, key.output_key().to_x_only_public_key());
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", secrets(1)[0]), "TreeSecret([redacted])");
    }
}
