//! What tower and client sign, so that each can show later what the other agreed to.
//!
//! Every kind of message has its own domain: what is signed is `SHA-256(SHA-256(domain) ||
//! SHA-256(domain) || bytes)`, a tagged hash, with ECDSA under a node-id style key. A client that
//! was cheated although its tower slept shows the [`AppointmentReceipt`] beside the breach.
//!
//! The request by which a client hands over an appointment is signed too:
//! [`Appointment::message_hash`](super::Appointment::message_hash).
//!
//! Source: BIP 340 for tagged hashes.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey, Signing, Verification};
use bitcoin::{Amount, absolute};

use super::appointment::Appointment;
use super::locator::{ChannelTag, Locator};
use crate::encoding::push_big_size;

const REGISTRATION_DOMAIN: &str = "tributary/tower/registration-receipt/1";
const APPOINTMENT_DOMAIN: &str = "tributary/tower/appointment-receipt/1";

/// Why a receipt proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The signature is not by the tower over this receipt.
    #[error("receipt is not signed by {tower}; do not count on this tower")]
    WrongSignature {
        /// The tower named in it.
        tower: PublicKey,
    },
    /// The receipt is for something else.
    #[error("receipt is for {actual} number {sequence}, not for {expected}; do not count on it")]
    OtherAppointment {
        /// The locator of the appointment.
        expected: Locator,
        /// The locator in the receipt.
        actual: Locator,
        /// The sequence in the receipt.
        sequence: u64,
    },
}

/// What a tower promises to a client: to keep so many appointments, until then.
///
/// Bytes: tower (33), client (33), appointments (BigSize), expiry (4), budget in sat (BigSize).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegistrationReceipt {
    /// The tower's key.
    pub tower: PublicKey,
    /// The client's key.
    pub client: PublicKey,
    /// Most appointments it keeps.
    pub appointments_max: u64,
    /// Last block for which the registration counts.
    pub expiry: absolute::Height,
    /// What it adds to the fee of one breach at most; zero if nothing.
    pub fee_budget: Amount,
}

/// What a tower has taken on: this blob, under this locator, from this block on.
///
/// Bytes: tower (33), client (33), channel tag (16), sequence (BigSize), locator (16), SHA-256
/// of the blob (32), height (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppointmentReceipt {
    /// The tower's key.
    pub tower: PublicKey,
    /// The client's key.
    pub client: PublicKey,
    /// The channel, in the client's name for it.
    pub channel: ChannelTag,
    /// The number of the appointment.
    pub sequence: u64,
    /// The locator it watches for.
    pub locator: Locator,
    /// SHA-256 of the blob.
    pub blob_hash: sha256::Hash,
    /// Best block when it was taken; the tower watches all blocks above.
    pub height: absolute::Height,
}

impl RegistrationReceipt {
    /// Returns the bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.tower.serialize().to_vec();
        bytes.extend(self.client.serialize());
        push_big_size(&mut bytes, self.appointments_max);
        bytes.extend(self.expiry.to_consensus_u32().to_be_bytes());
        push_big_size(&mut bytes, self.fee_budget.to_sat());
        bytes
    }

    /// Returns what the tower signs.
    pub fn message_hash(&self) -> Message {
        message_hash(REGISTRATION_DOMAIN, &self.encode())
    }

    /// Signs it with the tower's secret.
    pub fn sign<C: Signing>(&self, secp: &Secp256k1<C>, tower: &SecretKey) -> Signature {
        secp.sign_ecdsa(&self.message_hash(), tower)
    }

    /// Checks the tower's signature.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::WrongSignature`].
    pub fn verify<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        signature: &Signature,
    ) -> Result<(), ReceiptError> {
        verify(secp, self.message_hash(), signature, self.tower)
    }
}

impl AppointmentReceipt {
    /// Makes the receipt of an appointment that `tower` took from `client` at `height`.
    pub fn of(
        appointment: &Appointment,
        tower: PublicKey,
        client: PublicKey,
        height: absolute::Height,
    ) -> Self {
        let Appointment { channel, sequence, locator, .. } = *appointment;
        let blob_hash = appointment.blob_hash();
        Self { tower, client, channel, sequence, locator, blob_hash, height }
    }

    /// Returns the bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.tower.serialize().to_vec();
        bytes.extend(self.client.serialize());
        bytes.extend(self.channel.0);
        push_big_size(&mut bytes, self.sequence);
        bytes.extend(self.locator.0);
        bytes.extend(self.blob_hash.to_byte_array());
        bytes.extend(self.height.to_consensus_u32().to_be_bytes());
        bytes
    }

    /// Returns what the tower signs.
    pub fn message_hash(&self) -> Message {
        message_hash(APPOINTMENT_DOMAIN, &self.encode())
    }

    /// Signs it with the tower's secret.
    pub fn sign<C: Signing>(&self, secp: &Secp256k1<C>, tower: &SecretKey) -> Signature {
        secp.sign_ecdsa(&self.message_hash(), tower)
    }

    /// Checks that it is for `appointment`, and the tower's signature.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] naming what is not so.
    pub fn verify<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        signature: &Signature,
        appointment: &Appointment,
    ) -> Result<(), ReceiptError> {
        if *self != Self::of(appointment, self.tower, self.client, self.height) {
            let (expected, actual) = (appointment.locator, self.locator);
            return Err(ReceiptError::OtherAppointment {
                expected,
                actual,
                sequence: self.sequence,
            });
        }
        verify(secp, self.message_hash(), signature, self.tower)
    }
}

/// Returns the tagged hash of `bytes` in `domain`, to be signed.
pub fn message_hash(domain: &str, bytes: &[u8]) -> Message {
    let tag = sha256::Hash::hash(domain.as_bytes());
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_byte_array());
    engine.input(tag.as_byte_array());
    engine.input(bytes);
    Message::from_digest(sha256::Hash::from_engine(engine).to_byte_array())
}

fn verify<C: Verification>(
    secp: &Secp256k1<C>,
    message: Message,
    signature: &Signature,
    tower: PublicKey,
) -> Result<(), ReceiptError> {
    let valid = secp.verify_ecdsa(&message, signature, &tower).is_ok();
    if valid { Ok(()) } else { Err(ReceiptError::WrongSignature { tower }) }
}
