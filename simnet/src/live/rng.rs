//! Randomness from a seed.

use node::environment::Entropy;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Entropy of one host: a stream of its own under the scenario's seed.
pub struct SimEntropy {
    rng: Mutex<StdRng>,
}

impl SimEntropy {
    /// The stream numbered `host` under `seed`.
    pub fn new(seed: u64, host: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&host.to_le_bytes());
        Self { rng: Mutex::new(StdRng::from_seed(bytes)) }
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_draw_different_streams_and_seeds_repeat() {
        let draw = |seed, host| (&SimEntropy::new(seed, host) as &dyn Entropy).bytes::<32>();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}
