//! One sealed remedy, as a client hands it to a tower.
//!
//! ```text
//! version 1 (1) │ channel tag (16) │ sequence (BigSize) │ locator (16) │ blob (the rest)
//! ```

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Message, PublicKey};

use super::locator::{ChannelTag, Locator};
use super::receipt::message_hash;
use super::seal::{BLOB_LEN_MAX, SealedBlob};
use crate::encoding::{DecodeError, Reader, push_big_size, within};

/// Version of the encoding of an appointment.
pub const APPOINTMENT_VERSION: u8 = 1;

/// Longest encoding of an appointment.
pub const APPOINTMENT_LEN_MAX: usize = 1 + 16 + 9 + 16 + BLOB_LEN_MAX;

/// Domain of what a client signs.
const APPOINTMENT_DOMAIN: &str = "tributary/tower/appointment/1";

/// One sealed remedy under the locator of the commitment it punishes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Appointment {
    /// Which channel, in a name that only the client understands.
    pub channel: ChannelTag,
    /// Ascends by one for each revoked state of the channel, so that a gap is seen and a
    /// repetition is recognised.
    pub sequence: u64,
    /// By what the breach is recognised.
    pub locator: Locator,
    /// What to do then.
    pub blob: SealedBlob,
}

impl Appointment {
    /// Returns what the client signs when it hands this to the tower with key `tower`, so that
    /// the tower can show what it was asked, and another tower cannot claim it.
    pub fn message_hash(&self, tower: &PublicKey) -> Message {
        let mut bytes = tower.serialize().to_vec();
        bytes.extend(self.encode());
        message_hash(APPOINTMENT_DOMAIN, &bytes)
    }

    /// Returns SHA-256 of the blob, which stands for it in a receipt.
    pub fn blob_hash(&self) -> sha256::Hash {
        sha256::Hash::hash(&self.blob.encode())
    }

    /// Encodes it: 386 bytes for a blind remedy without HTLCs at three fee levels.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![APPOINTMENT_VERSION];
        bytes.extend(self.channel.0);
        push_big_size(&mut bytes, self.sequence);
        bytes.extend(self.locator.0);
        bytes.extend(self.blob.encode());
        bytes
    }

    /// Decodes it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let length = bytes.len();
        if length > APPOINTMENT_LEN_MAX {
            let field = "appointment";
            return Err(DecodeError::TooLong { field, length, max: APPOINTMENT_LEN_MAX });
        }
        let mut reader = Reader::new(bytes);
        let (version, only) = (reader.u8("appointment version")?, u64::from(APPOINTMENT_VERSION));
        within("appointment version", version.into(), only, only)?;
        Ok(Self {
            channel: ChannelTag(reader.array("channel tag")?),
            sequence: reader.big_size("sequence")?,
            locator: Locator(reader.array("locator")?),
            blob: SealedBlob::decode(reader.rest())?,
        })
    }
}
