//! How many peers without a channel may be connected at a time.
//!
//! LDK refuses inbound connections of such peers once 250 are there, too few for a hub whose
//! batch gathers more users than that: none of them has a channel yet. So strangers are counted
//! here, up to a number of our own, and LDK is told that we connected to them; that is all it
//! uses the direction for.

use std::collections::HashSet;

use bitcoin::secp256k1::PublicKey;
use parking_lot::Mutex;

/// What LDK itself admits.
pub const LDK_STRANGERS_MAX: usize = 250;

/// The strangers that are connected.
pub(super) struct Strangers {
    most: usize,
    connected: Mutex<HashSet<PublicKey>>,
}

impl Strangers {
    /// Admits `most` at a time.
    pub fn new(most: usize) -> Self {
        Self { most, connected: Mutex::default() }
    }

    /// Whether `peer` may connect although it has no channel; `has_channel` tells who has one by
    /// now.
    pub fn admit(&self, peer: PublicKey, has_channel: impl Fn(&PublicKey) -> bool) -> bool {
        let mut connected = self.connected.lock();
        if connected.len() >= self.most {
            connected.retain(|peer| !has_channel(peer));
        }
        let admitted = connected.len() < self.most;
        if admitted {
            connected.insert(peer);
        }
        admitted
    }

    /// Forgets who is gone.
    pub fn gone(&self, peer: &PublicKey) {
        self.connected.lock().remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    fn peer(number: u8) -> PublicKey {
        SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
    }

    #[test]
    fn strangers_are_bounded_and_those_with_a_channel_are_none() {
        let strangers = Strangers::new(2);
        let nobody = |_: &PublicKey| false;
        assert!(strangers.admit(peer(1), nobody) && strangers.admit(peer(2), nobody));
        assert!(!strangers.admit(peer(3), nobody));
        strangers.gone(&peer(1));
        assert!(strangers.admit(peer(3), nobody) && !strangers.admit(peer(4), nobody));
        assert!(strangers.admit(peer(4), |other| *other == peer(2)));
        assert!(!strangers.admit(peer(5), nobody));
        // Who is refused is not counted.
        strangers.gone(&peer(5));
        assert!(!strangers.admit(peer(5), nobody));
    }
}
