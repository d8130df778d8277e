//! The secrets of batches and swaps: keys and preimages, each derived anew when it is needed.
//!
//! A tree key is used for one attempt at one batch and may be handed over later, so it must say
//! nothing of any other key. Each is an HMAC of its own name under a seed that never leaves this
//! room; names hold the random ids of batches and registrations.
//!
//! The secrets that users hand over are not ours to derive: they lie in the store, sealed with a
//! key that is derived in the same way.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use channel_contracts::batch::{Attempt, BatchId, RegistrationId, SwapId};
use channel_contracts::musig::TreeSecret;
use channel_contracts::musig::reclaim::SweepSecret;
use channel_contracts::script::Preimage;
use zeroize::Zeroizing;

/// Bytes of the nonce before a sealed secret.
const NONCE_LENGTH: usize = 24;

/// Derives the secrets of batches.
#[derive(Clone)]
pub struct BatchSecrets(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for BatchSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchSecrets([redacted])")
    }
}

impl BatchSecrets {
    pub(super) fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(seed)
    }

    /// A user's tree key for one attempt of one registration.
    pub fn user_tree(&self, registration: RegistrationId, attempt: Attempt) -> TreeSecret {
        self.secret(b"user tree", &registration.0, attempt.get(), TreeSecret::from_bytes)
    }

    /// The hub's tree key for one attempt of one batch.
    pub fn hub_tree(&self, batch: BatchId, attempt: Attempt) -> TreeSecret {
        self.secret(b"hub tree", &batch.0, attempt.get(), TreeSecret::from_bytes)
    }

    /// The key that takes back what is left of a batch when it has expired.
    pub fn sweep(&self, batch: BatchId) -> SweepSecret {
        self.secret(b"sweep", &batch.0, 0, SweepSecret::from_bytes)
    }

    /// The user's key of a swap.
    pub fn user_swap(&self, swap: SwapId) -> TreeSecret {
        self.secret(b"user swap", &swap.0, 0, TreeSecret::from_bytes)
    }

    /// The hub's key of a swap under `hash`. The user chooses the name of the swap, and is handed
    /// the key in the end: another hash has another key.
    pub fn hub_swap(&self, swap: SwapId, hash: &[u8; 32]) -> TreeSecret {
        let both = sha256::Hash::hash(&[swap.0, *hash].concat()).to_byte_array();
        self.secret(b"hub swap", &both, 0, TreeSecret::from_bytes)
    }

    /// The preimage of a swap, which the user knows.
    pub fn swap_preimage(&self, swap: SwapId) -> Preimage {
        Preimage(self.derive(b"swap preimage", &swap.0, [0, 0]))
    }

    /// Seals the tree secret that `user` handed over for `batch`, to be kept in the store.
    /// `nonce` is drawn for it: it goes before what is sealed.
    pub fn seal_released(
        &self,
        batch: BatchId,
        user: &PublicKey,
        secret: &TreeSecret,
        nonce: [u8; NONCE_LENGTH],
    ) -> Vec<u8> {
        let secret = Zeroizing::new(secret.to_bytes());
        let sealed = self
            .released_cipher(batch)
            .encrypt(
                XNonce::from_slice(&nonce),
                Payload { msg: secret.as_ref(), aad: &user.serialize() },
            )
            .expect("32 bytes are within the cipher's limit");
        [&nonce[..], &sealed].concat()
    }

    /// Opens what [`BatchSecrets::seal_released`] made for the same batch and user; `None` if it
    /// is anything else.
    pub fn open_released(
        &self,
        batch: BatchId,
        user: &PublicKey,
        sealed: &[u8],
    ) -> Option<TreeSecret> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LENGTH)?;
        let payload = Payload { msg: sealed, aad: &user.serialize() };
        let opened = self.released_cipher(batch).decrypt(XNonce::from_slice(nonce), payload);
        let opened = Zeroizing::new(opened.ok()?);
        TreeSecret::from_bytes(opened.as_slice().try_into().ok()?)
    }

    fn released_cipher(&self, batch: BatchId) -> XChaCha20Poly1305 {
        let key = Zeroizing::new(self.derive(b"released", &batch.0, [0, 0]));
        XChaCha20Poly1305::new(Key::from_slice(key.as_slice()))
    }

    fn secret<T>(
        &self,
        purpose: &[u8],
        id: &[u8; 32],
        attempt: u8,
        take: impl Fn([u8; 32]) -> Option<T>,
    ) -> T {
        (0..=u8::MAX)
            .find_map(|round| take(self.derive(purpose, id, [attempt, round])))
            .expect("a key is refused once in 2^127")
    }

    fn derive(&self, purpose: &[u8], id: &[u8; 32], numbers: [u8; 2]) -> [u8; 32] {
        let mut engine = HmacEngine::<sha256::Hash>::new(&*self.0);
        for part in [purpose, id, &numbers] {
            engine.input(part);
        }
        Hmac::from_engine(engine).to_byte_array()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_is_its_own_and_comes_back() {
        let secrets = BatchSecrets::new(Zeroizing::new([5; 32]));
        let (second, third) = (Attempt::new(1).unwrap(), Attempt::new(2).unwrap());
        let all = [
            secrets.user_tree(RegistrationId([1; 32]), Attempt::FIRST),
            secrets.user_tree(RegistrationId([1; 32]), second),
            secrets.user_tree(RegistrationId([1; 32]), third),
            secrets.user_tree(RegistrationId([2; 32]), Attempt::FIRST),
            secrets.hub_tree(BatchId([1; 32]), Attempt::FIRST),
            secrets.hub_tree(BatchId([1; 32]), second),
        ];
        let keys: std::collections::BTreeSet<_> = all.iter().map(|s| s.to_bytes()).collect();
        assert_eq!(keys.len(), all.len());
        let again = secrets.user_tree(RegistrationId([1; 32]), second);
        assert_eq!(again.to_bytes(), all[1].to_bytes());
        let other = BatchSecrets::new(Zeroizing::new([6; 32]));
        assert_ne!(other.hub_tree(BatchId([1; 32]), Attempt::FIRST).to_bytes(), all[4].to_bytes());
    }

    #[test]
    fn a_released_secret_opens_for_its_batch_and_user_alone() {
        let secrets = BatchSecrets::new(Zeroizing::new([5; 32]));
        let secret = TreeSecret::from_bytes([9; 32]).unwrap();
        let user = |byte| TreeSecret::from_bytes([byte; 32]).unwrap().public_key();
        let (batch, ada) = (BatchId([1; 32]), user(1));
        let sealed = secrets.seal_released(batch, &ada, &secret, [7; NONCE_LENGTH]);
        assert!(!sealed.windows(32).any(|bytes| bytes == secret.to_bytes()), "it is in the clear");
        assert!(secrets.open_released(batch, &ada, &sealed) == Some(secret));
        assert_eq!(secrets.open_released(BatchId([2; 32]), &ada, &sealed), None);
        assert_eq!(secrets.open_released(batch, &user(2), &sealed), None);
        for damaged in [&sealed[1..], &sealed[..sealed.len() - 1], &[], &[0; 80]] {
            assert_eq!(secrets.open_released(batch, &ada, damaged), None);
        }
        let other = BatchSecrets::new(Zeroizing::new([6; 32]));
        assert_eq!(other.open_released(batch, &ada, &sealed), None);
    }
}
