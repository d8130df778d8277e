//! Secret nonces: made from a seed, used once, never shown.
//!
//! A nonce that signs twice gives the secret key away, so it is a value that moves: signing
//! takes it, nothing clones it, nothing serialises it, `Debug` prints `[redacted]`. A restart
//! loses it, and the attempt with it; that is intended.
//!
//! The seed is the shell's randomness. Each nonce mixes it with the secret key, the aggregated
//! key, the message and its place, as BIP 327's NonceGen advises, so that a weak seed alone does
//! not repeat a nonce for another message.
//!
//! Source: BIP 327, "Nonce Generation".

use std::fmt;

use secp256k1_musig::Keypair;
use secp256k1_musig::musig::{
    PartialSignature, PublicNonce, SecretNonce, Session, SessionSecretRand, new_nonce_pair,
};
use zeroize::Zeroizing;

use super::key::{AggregateKey, TreeSecret, tagged};

/// 32 fresh uniformly random bytes for one session of one signer. Prints as `[redacted]`.
///
/// It is moved into the session. Whoever makes two seeds from the same bytes breaks the rule
/// this type stands for.
pub struct NonceSeed(Zeroizing<[u8; 32]>);

impl NonceSeed {
    /// Takes random bytes that nothing else has used or will use.
    pub fn from_fresh_randomness(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for NonceSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSeed([redacted])")
    }
}

/// The secret half of one nonce. It can sign one message with one key, once.
pub(super) struct OneTimeNonce(SecretNonce);

impl fmt::Debug for OneTimeNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeNonce([redacted])")
    }
}

impl OneTimeNonce {
    /// Makes the nonce at `place` (a level, or the index of a node) of the session of `seed`.
    pub(super) fn new(
        seed: &NonceSeed,
        place: u32,
        secret: &TreeSecret,
        key: &AggregateKey,
        message: &[u8; 32],
    ) -> (Self, PublicNonce) {
        let place = place.to_be_bytes();
        let random = tagged("tributary/tree-nonce", &[seed.0.as_slice(), &place]);
        let (nonce, public) = new_nonce_pair(
            SessionSecretRand::assume_uniformly_random(random),
            Some(key.cache()),
            Some(*secret.newer()),
            secret.newer().public_key(),
            Some(message),
            None,
        );
        (Self(nonce), public)
    }

    /// Signs, and is gone. `secret` is the one it was made for.
    pub(super) fn sign(
        self,
        secret: &TreeSecret,
        key: &AggregateKey,
        session: &Session,
    ) -> PartialSignature {
        session.partial_sign(self.0, &Keypair::from_secret_key(secret.newer()), key.cache())
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::TapNodeHash;
    use bitcoin::hashes::Hash;

    use super::*;

    fn nonce(seed: u8, place: u32, secret: u8, message: u8) -> PublicNonce {
        let secret = TreeSecret::from_bytes([secret; 32]).unwrap();
        let other = TreeSecret::from_bytes([99; 32]).unwrap();
        let root = TapNodeHash::from_byte_array([1; 32]);
        let key = AggregateKey::new(&[secret.public_key(), other.public_key()], root).unwrap();
        let seed = NonceSeed::from_fresh_randomness([seed; 32]);
        OneTimeNonce::new(&seed, place, &secret, &key, &[message; 32]).1
    }

    #[test]
    fn a_nonce_depends_on_seed_place_key_and_message() {
        let all = [
            nonce(1, 0, 2, 3),
            nonce(2, 0, 2, 3),
            nonce(1, 1, 2, 3),
            nonce(1, 0, 3, 3),
            nonce(1, 0, 2, 4),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a.serialize() != b.serialize()));
        }
    }

    #[test]
    fn neither_seed_nor_nonce_is_printed() {
        let seed = NonceSeed::from_fresh_randomness([7; 32]);
        assert_eq!(format!("{seed:?}"), "NonceSeed([redacted])");
        let secret = TreeSecret::from_bytes([2; 32]).unwrap();
        let root = TapNodeHash::from_byte_array([1; 32]);
        let key = AggregateKey::new(&[secret.public_key()], root).unwrap();
        let (nonce, _) = OneTimeNonce::new(&seed, 0, &secret, &key, &[1; 32]);
        assert_eq!(format!("{nonce:?}"), "OneTimeNonce([redacted])");
    }
}
