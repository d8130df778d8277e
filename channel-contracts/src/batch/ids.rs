//! Names of batches, attempts, registrations, peers and moments.

use std::fmt;

use bitcoin::secp256k1::PublicKey;

/// Attempts to sign one batch, and tree keys in one registration.
pub const ATTEMPTS_MAX: u8 = 3;

/// A batch: 32 random bytes chosen by the hub.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct BatchId(pub [u8; 32]);

/// One user's wish to join: 32 random bytes chosen by the user, the same when it asks again.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct RegistrationId(pub [u8; 32]);

/// A withdrawal or a deposit: 32 random bytes chosen by the user, the same when it asks again.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct SwapId(pub [u8; 32]);

/// The number of an attempt: 0 to [`ATTEMPTS_MAX`] - 1.
///
/// Keys and nonces are fresh in each. A message of another attempt is stale.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Attempt(u8);

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self(0);

    /// Makes a number, or `None` from [`ATTEMPTS_MAX`] upwards.
    pub fn new(number: u8) -> Option<Self> {
        (number < ATTEMPTS_MAX).then_some(Self(number))
    }

    /// Returns the number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Returns the attempt after this one, if there may be one.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// Returns the tree key of a registration that belongs to this attempt.
    pub fn key_of<T: Copy>(self, keys: &[T; ATTEMPTS_MAX as usize]) -> T {
        keys[usize::from(self.0)]
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node on the other end of a Lightning connection, by its node id.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Peer(pub PublicKey);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A moment by the caller's clock, in milliseconds since any fixed beginning.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the moment so many milliseconds later, or the last one there is.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

macro_rules! hexadecimal {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    )*};
}

hexadecimal!(BatchId, RegistrationId, SwapId);
