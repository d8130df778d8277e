//! What a run said, as one hash: the proof that it repeats.

use bitcoin::hashes::Hash;
use bitcoin::hashes::{HashEngine, sha256};
use parking_lot::Mutex;

use crate::topology::Node;

/// Hashes every message that a link delivered and every block, in their order.
///
/// A message goes in as its time, its ends, its length and its bytes, which are encrypted with
/// keys of both ends: what a node draws at random shows here at once.
pub struct Transcript {
    state: Mutex<State>,
}

struct State {
    engine: sha256::HashEngine,
    messages: u64,
}

/// Kinds of entries.
const MESSAGE: u8 = 1;
const BLOCK: u8 = 2;

impl Default for Transcript {
    fn default() -> Self {
        Self { state: Mutex::new(State { engine: sha256::Hash::engine(), messages: 0 }) }
    }
}

impl Transcript {
    /// Adds a message that was delivered.
    pub fn message(&self, at_us: u64, from: Node, to: Node, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.messages += 1;
        state.engine.input(&[MESSAGE]);
        state.engine.input(&at_us.to_le_bytes());
        state.engine.input(&from.to_le_bytes());
        state.engine.input(&to.to_le_bytes());
        state.engine.input(&(bytes.len() as u64).to_le_bytes());
        state.engine.input(bytes);
    }

    /// Adds a block of the best chain.
    pub fn block(&self, at_us: u64, hash: bitcoin::BlockHash) {
        let mut state = self.state.lock();
        state.engine.input(&[BLOCK]);
        state.engine.input(&at_us.to_le_bytes());
        state.engine.input(hash.as_ref());
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.state.lock().messages
    }

    /// The hash of all there is so far, in hexadecimal.
    pub fn hash(&self) -> String {
        sha256::Hash::from_engine(self.state.lock().engine.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_message_counts() {
        let hash = |at_us, from, to, bytes: &[u8]| {
            let transcript = Transcript::default();
            transcript.message(at_us, from, to, bytes);
            transcript.hash()
        };
        let one = hash(1, 2, 3, b"x");
        assert_eq!(one, hash(1, 2, 3, b"x"));
        for other in [hash(0, 2, 3, b"x"), hash(1, 3, 2, b"x"), hash(1, 2, 3, b"y")] {
            assert_ne!(one, other);
        }
    }
}
