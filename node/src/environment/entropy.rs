//! Randomness as a seam.

use rand::TryRngCore;

/// A source of secure randomness.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with unpredictable bytes.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness to give: a node must not go on without.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Entropy {
    /// Returns `N` unpredictable bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    #[allow(clippy::disallowed_types, reason = "the one door to randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::OsRng.try_fill_bytes(bytes).expect("the operating system gives randomness");
    }
}
