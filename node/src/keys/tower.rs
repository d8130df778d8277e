//! The secrets of towers: a node's name at each of its towers, and a tower's own.
//!
//! A node is somebody else at each tower, and so are its channels: two towers cannot tell that
//! they guard the same node.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::{PublicKey, SecretKey};
use zeroize::Zeroizing;

/// Derives the secrets of towers.
#[derive(Clone)]
pub struct TowerSecrets(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for TowerSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TowerSecrets([redacted])")
    }
}

impl TowerSecrets {
    pub(super) fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(seed)
    }

    /// What this node signs with at `tower`.
    pub fn client(&self, tower: &PublicKey) -> SecretKey {
        self.key(b"client", &tower.serialize())
    }

    /// What the names of channels at `tower` are derived from.
    pub fn tags(&self, tower: &PublicKey) -> [u8; 32] {
        self.derive(b"tags", &tower.serialize(), 0)
    }

    /// What this node signs with as a tower.
    pub fn identity(&self) -> SecretKey {
        self.key(b"identity", &[])
    }

    fn key(&self, purpose: &[u8], name: &[u8]) -> SecretKey {
        (0..=u8::MAX)
            .find_map(|round| SecretKey::from_slice(&self.derive(purpose, name, round)).ok())
            .expect("a key is refused once in 2^127")
    }

    fn derive(&self, purpose: &[u8], name: &[u8], round: u8) -> [u8; 32] {
        let mut engine = HmacEngine::<sha256::Hash>::new(&*self.0);
        for part in [purpose, b"/", name, &[round]] {
            engine.input(part);
        }
        Hmac::from_engine(engine).to_byte_array()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::Secp256k1;

    use super::*;

    #[test]
    fn a_node_is_somebody_else_at_each_tower() {
        let secrets = TowerSecrets::new(Zeroizing::new([5; 32]));
        let secp = Secp256k1::signing_only();
        let tower = |byte| SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&secp);
        let keys = [secrets.client(&tower(1)), secrets.client(&tower(2)), secrets.identity()];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        assert_ne!(secrets.tags(&tower(1)), secrets.tags(&tower(2)));
        assert_eq!(secrets.client(&tower(1)), keys[0], "it comes back");
    }
}
