//! The exact bytes that user and tower of the open tower protocol sign.
//!
//! All go through [`signature::sign`](super::signature::sign). Integers are big endian.

use bitcoin::secp256k1::PublicKey;

use crate::tower::Locator;

/// What a user signs to ask for its subscription.
pub const SUBSCRIPTION_INFO: &[u8] = b"get subscription info";

/// What a user signs to hand over an appointment: locator, blob, `to_self_delay`.
///
/// `to_self_delay` in blocks; towers do not use it.
pub fn add_appointment(locator: Locator, encrypted_blob: &[u8], to_self_delay: u32) -> Vec<u8> {
    [&locator.0[..], encrypted_blob, &to_self_delay.to_be_bytes()].concat()
}

/// What a user signs to ask for an appointment: text with the locator in hexadecimal.
pub fn get_appointment(locator: Locator) -> Vec<u8> {
    format!("get appointment {locator}").into_bytes()
}

/// What a tower signs for an appointment: the user's signature as text, then the block height
/// from which it watches.
pub fn appointment_receipt(user_signature: &str, start_block: u32) -> Vec<u8> {
    [user_signature.as_bytes(), &start_block.to_be_bytes()].concat()
}

/// A user's subscription, as a tower promises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// The user's key.
    pub user: PublicKey,
    /// Slots that are free. An appointment takes one for each 2,048 bytes of its blob.
    pub available_slots: u32,
    /// First block for which it counts.
    pub start: u32,
    /// Height from which it no longer counts.
    pub expiry: u32,
}

impl Subscription {
    /// Returns what the tower signs: key, slots, start, expiry; 45 bytes.
    pub fn receipt(&self) -> Vec<u8> {
        let numbers = [self.available_slots, self.start, self.expiry];
        let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
        self.user.serialize().into_iter().chain(numbers).collect()
    }
}
