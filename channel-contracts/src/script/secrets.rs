//! The series of per-commitment secrets: made from one seed, kept in 49 slots.
//!
//! The broadcaster reveals one secret for each state it revokes, counting down from
//! 2^48 - 1. Each can be derived from a later one whose index is a prefix of its own, so the
//! receiver keeps at most 49 of them for 2^48 states. A peer whose secrets do not fit together
//! is caught when the parent arrives.
//!
//! Source: BOLT 3, "Per-commitment Secret Requirements" and "Efficient Per-commitment Secret
//! Storage".

use std::fmt;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey, Signing};

use super::keys::{KeyError, PerCommitmentPoint};

/// Bits in an index.
const INDEX_BITS: u8 = 48;

/// Number of a commitment, from 0 upwards: 48 bits.
///
/// The secret of commitment `n` has index `2^48 - 1 - n` ([`CommitmentNumber::index`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitmentNumber(u64);

impl CommitmentNumber {
    /// Number of the first commitment.
    pub const FIRST: Self = Self(0);
    /// Number of the last commitment a channel can have.
    pub const LAST: Self = Self((1 << INDEX_BITS) - 1);

    /// Makes a number, or `None` from 2^48 upwards.
    pub fn new(number: u64) -> Option<Self> {
        (number <= Self::LAST.0).then_some(Self(number))
    }

    /// Makes the number whose secret has `index`, or `None` from 2^48 upwards.
    pub fn from_index(index: u64) -> Option<Self> {
        Some(Self(Self::LAST.0.checked_sub(index)?))
    }

    /// Returns the number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the index of its secret, counting down from 2^48 - 1.
    pub fn index(self) -> u64 {
        Self::LAST.0 - self.0
    }

    /// Returns the number of the next commitment, or `None` after the last.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

impl fmt::Display for CommitmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A per-commitment secret. Prints as `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PerCommitmentSecret([u8; 32]);

impl fmt::Debug for PerCommitmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerCommitmentSecret([redacted])")
    }
}

impl PerCommitmentSecret {
    /// Takes a secret as a peer revealed it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Generates the secret of commitment `number` from the channel's `seed`.
    pub fn generate(seed: &[u8; 32], number: CommitmentNumber) -> Self {
        Self(*seed).derive(INDEX_BITS, number.index())
    }

    /// Returns the 32 bytes that go into `revoke_and_ack`.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Returns it as a signing key.
    ///
    /// # Errors
    ///
    /// [`KeyError::InvalidSecret`] if it is zero or not below the order of the group.
    pub fn to_secret_key(self) -> Result<SecretKey, KeyError> {
        SecretKey::from_slice(&self.0).map_err(|_| KeyError::InvalidSecret)
    }

    /// Returns its per-commitment point.
    ///
    /// # Errors
    ///
    /// [`KeyError::InvalidSecret`] if it is zero or not below the order of the group.
    pub fn point<C: Signing>(self, secp: &Secp256k1<C>) -> Result<PerCommitmentPoint, KeyError> {
        Ok(PerCommitmentPoint(self.to_secret_key()?.public_key(secp)))
    }

    /// Walks down from a secret whose index agrees with `index` above the lowest `bits`.
    fn derive(self, bits: u8, index: u64) -> Self {
        let mut value = self.0;
        for bit in (0..bits).rev().filter(|bit| index >> bit & 1 == 1) {
            value[usize::from(bit / 8)] ^= 1 << (bit % 8);
            value = sha256::Hash::hash(&value).to_byte_array();
        }
        Self(value)
    }
}

/// Why a revealed secret is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The secret does not derive one that the peer revealed before.
    #[error(
        "secret of commitment {number} does not derive that of {conflicts_with}; the peer cheats or is broken, close the channel"
    )]
    Inconsistent {
        /// The commitment whose secret was offered.
        number: CommitmentNumber,
        /// An earlier commitment whose secret contradicts it.
        conflicts_with: CommitmentNumber,
    },
    /// Secrets come in order, one for each commitment.
    #[error("secret of commitment {number} came out of order; expected {expected}")]
    OutOfOrder {
        /// The commitment whose secret was offered.
        number: CommitmentNumber,
        /// The commitment that is next.
        expected: CommitmentNumber,
    },
    /// All 2^48 secrets have been revealed.
    #[error("no commitment is left in this channel; open another")]
    Exhausted,
}

/// All secrets that a peer has revealed, in at most 49 slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretStore {
    /// Slot `b` holds the newest secret whose index ends in `b` zero bits.
    slots: [Option<(u64, PerCommitmentSecret)>; INDEX_BITS as usize + 1],
    /// How many secrets have come.
    count: u64,
}

impl Default for SecretStore {
    fn default() -> Self {
        Self { slots: [None; INDEX_BITS as usize + 1], count: 0 }
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore").field("count", &self.count).finish_non_exhaustive()
    }
}

impl SecretStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the commitment whose secret is due next, or `None` if none is left.
    pub fn next_number(&self) -> Option<CommitmentNumber> {
        CommitmentNumber::new(self.count)
    }

    /// Takes the secret of commitment `number`. The store is unchanged on error.
    ///
    /// # Errors
    ///
    /// [`SecretError::OutOfOrder`] unless `number` is [`Self::next_number`];
    /// [`SecretError::Inconsistent`] if it contradicts an earlier secret;
    /// [`SecretError::Exhausted`] after the last.
    pub fn insert(
        &mut self,
        number: CommitmentNumber,
        secret: PerCommitmentSecret,
    ) -> Result<(), SecretError> {
        let expected = self.next_number().ok_or(SecretError::Exhausted)?;
        if number != expected {
            return Err(SecretError::OutOfOrder { number, expected });
        }
        let index = number.index();
        let slot = trailing_zeros(index);
        for (known_index, known) in self.slots[..usize::from(slot)].iter().flatten() {
            if secret.derive(slot, *known_index) != *known {
                let conflicts_with = CommitmentNumber(CommitmentNumber::LAST.0 - known_index);
                return Err(SecretError::Inconsistent { number, conflicts_with });
            }
        }
        self.slots[usize::from(slot)] = Some((index, secret));
        self.count += 1;
        Ok(())
    }

    /// Returns the secret of commitment `number`, or `None` if it has not been revealed.
    pub fn get(&self, number: CommitmentNumber) -> Option<PerCommitmentSecret> {
        let index = number.index();
        (0u8..).zip(&self.slots).find_map(|(bits, slot)| {
            let (known_index, known) = slot.as_ref()?;
            (index >> bits << bits == *known_index).then(|| known.derive(bits, index))
        })
    }
}

/// Counts zero bits at the end of an index, at most 48.
fn trailing_zeros(index: u64) -> u8 {
    (index | 1 << INDEX_BITS).trailing_zeros() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secret = PerCommitmentSecret::from_bytes([7; 32]);
        assert_eq!(format!("{secret:?}"), "PerCommitmentSecret([redacted])");
        let mut store = SecretStore::new();
        let first = PerCommitmentSecret::generate(&[9; 32], CommitmentNumber::FIRST);
        store.insert(CommitmentNumber::FIRST, first).unwrap();
        assert_eq!(format!("{store:?}"), "SecretStore { count: 1, .. }");
    }

    #[test]
    fn a_store_derives_every_secret_it_was_given_and_no_other() {
        let seed = [3; 32];
        let mut store = SecretStore::new();
        let number = |n| CommitmentNumber::new(n).unwrap();
        for n in 0..1000 {
            let secret = PerCommitmentSecret::generate(&seed, number(n));
            store.insert(number(n), secret).unwrap();
            assert_eq!(store.get(number(n + 1)), None);
        }
        for n in 0..1000 {
            let secret = PerCommitmentSecret::generate(&seed, number(n));
            assert_eq!(store.get(number(n)), Some(secret));
        }
        assert!(store.slots.iter().flatten().count() <= 10);
    }

    #[test]
    fn a_repeated_or_skipped_secret_is_refused() {
        let seed = [3; 32];
        let mut store = SecretStore::new();
        let second = CommitmentNumber::new(1).unwrap();
        let expected = CommitmentNumber::FIRST;
        let secret = PerCommitmentSecret::generate(&seed, second);
        let refused = store.insert(second, secret);
        assert_eq!(refused, Err(SecretError::OutOfOrder { number: second, expected }));
        assert_eq!(store, SecretStore::new());
    }

    #[test]
    fn numbers_have_48_bits() {
        assert_eq!(CommitmentNumber::new(1 << 48), None);
        assert_eq!(CommitmentNumber::LAST.next(), None);
        assert_eq!(CommitmentNumber::LAST.index(), 0);
        assert_eq!(CommitmentNumber::from_index(1 << 48), None);
        assert_eq!(CommitmentNumber::from_index(0), Some(CommitmentNumber::LAST));
    }
}
