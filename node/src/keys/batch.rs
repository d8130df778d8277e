//! The secrets of batches: tree keys and sweep keys, each derived anew when it is needed.
//!
//! A tree key is used for one attempt at one batch and may be handed over later, so it must say
//! nothing of any other key. Each is an HMAC of its own name under a seed that never leaves this
//! room; names hold the random ids of batches and registrations.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use channel_contracts::batch::{Attempt, BatchId, RegistrationId};
use channel_contracts::musig::TreeSecret;
use channel_contracts::musig::reclaim::SweepSecret;
use zeroize::Zeroizing;

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

    fn secret<T>(
        &self,
        purpose: &[u8],
        id: &[u8; 32],
        attempt: u8,
        take: impl Fn([u8; 32]) -> Option<T>,
    ) -> T {
        let derive = |round: u8| {
            let mut engine = HmacEngine::<sha256::Hash>::new(&*self.0);
            for part in [purpose, id, &[attempt, round]] {
                engine.input(part);
            }
            take(Hmac::from_engine(engine).to_byte_array())
        };
        (0..=u8::MAX).find_map(derive).expect("a key is refused once in 2^127")
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
}
