//! Names: by what a tower recognises a breach, and by what a client's channels are told apart.
//!
//! Neither says which channel is meant. The locator is half of a transaction id that nobody has
//! seen before the breach; the tag is a keyed hash that only the client can compute.

use std::fmt;

use bitcoin::Txid;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};

/// Domain of [`ChannelTag::derive`].
const CHANNEL_TAG_DOMAIN: &[u8] = b"tributary/tower/channel/1";

/// First half of the txid of a revoked commitment, by which a tower recognises it.
///
/// Bytes in the order in which transactions carry the txid, reversed against how it is printed;
/// the open tower protocol takes the same half. The other half stays secret: it is part of what
/// opens the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locator(pub [u8; 16]);

impl Locator {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// Returns the locator of a commitment.
    pub fn of(commitment_txid: Txid) -> Self {
        Self(first_half(commitment_txid.to_byte_array()))
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Opaque name of a client's channel at one tower.
///
/// Lets the client delete what it left for a closed channel, without the tower learning which
/// channel that is. It does let the tower count the states of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelTag(pub [u8; 16]);

impl ChannelTag {
    /// Derives the tag of a channel from a secret of the client, one for each tower, so that
    /// towers cannot compare notes.
    pub fn derive(tower_secret: &[u8; 32], channel_id: &[u8; 32]) -> Self {
        let mut engine = HmacEngine::<sha256::Hash>::new(tower_secret);
        engine.input(CHANNEL_TAG_DOMAIN);
        engine.input(channel_id);
        Self(first_half(Hmac::from_engine(engine).to_byte_array()))
    }
}

impl fmt::Display for ChannelTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// First 16 of 32 bytes.
fn first_half(bytes: [u8; 32]) -> [u8; 16] {
    *bytes.first_chunk().expect("32 bytes have a first half")
}
