//! Signatures that name their key, as Lightning nodes make them over messages.
//!
//! A recoverable ECDSA signature over the double SHA-256 of `Lightning Signed Message:` and the
//! message, as 65 bytes (31 plus the recovery id, then r and s) in zbase32: 104 characters.
//! LND, Core Lightning and LDK make the same.
//!
//! Source: LND `signmessage`; Phil Zimmermann et al., "human-oriented base-32 encoding".

use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey, Signing, Verification};

/// Characters of a signature.
pub const SIGNATURE_LEN: usize = 104;

const PREFIX: &[u8] = b"Lightning Signed Message:";
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
/// First byte of a signature: that of a compact key in Bitcoin's signed messages.
const FIRST_BYTE: i32 = 31;
const BYTES: usize = 65;

/// Why a signature names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It has another length.
    #[error("signature has {length} characters, expected {SIGNATURE_LEN}")]
    Length {
        /// Its length, in bytes.
        length: usize,
    },
    /// A character is not of the alphabet.
    #[error("byte {position} of the signature is not of the zbase32 alphabet")]
    Character {
        /// Where it stands, from 0.
        position: usize,
    },
    /// The bytes are no signature that recovers to a key.
    #[error("signature recovers to no key; it is not over this message")]
    Invalid,
}

/// Signs `message`, deterministically (RFC 6979).
pub fn sign<C: Signing>(secp: &Secp256k1<C>, message: &[u8], secret: &SecretKey) -> String {
    let signature = secp.sign_ecdsa_recoverable(&digest(message), secret);
    let (id, compact) = signature.serialize_compact();
    let mut bytes = [0; BYTES];
    bytes[0] = u8::try_from(FIRST_BYTE + id.to_i32()).expect("recovery ids are 0 to 3");
    bytes[1..].copy_from_slice(&compact);
    encode(&bytes)
}

/// Returns the key that signed `message`.
///
/// # Errors
///
/// [`SignatureError`] if `signature` is none. A signature over another message recovers to
/// another key: compare it with the one expected.
pub fn recover<C: Verification>(
    secp: &Secp256k1<C>,
    message: &[u8],
    signature: &str,
) -> Result<PublicKey, SignatureError> {
    let bytes = decode(signature)?;
    let invalid = |_| SignatureError::Invalid;
    let id = RecoveryId::from_i32(i32::from(bytes[0]) - FIRST_BYTE).map_err(invalid)?;
    let signature = RecoverableSignature::from_compact(&bytes[1..], id).map_err(invalid)?;
    secp.recover_ecdsa(&digest(message), &signature).map_err(invalid)
}

/// Tells whether `key` signed `message`.
pub fn verify<C: Verification>(
    secp: &Secp256k1<C>,
    message: &[u8],
    signature: &str,
    key: &PublicKey,
) -> bool {
    recover(secp, message, signature) == Ok(*key)
}

fn digest(message: &[u8]) -> Message {
    let mut engine = sha256d::Hash::engine();
    engine.input(PREFIX);
    engine.input(message);
    Message::from_digest(sha256d::Hash::from_engine(engine).to_byte_array())
}

/// Writes five bits a character, first bits first: 65 bytes are 104 characters exactly.
fn encode(bytes: &[u8; BYTES]) -> String {
    let bit = |index: usize| bytes[index / 8] >> (7 - index % 8) & 1;
    let character = |index: usize| {
        let value = (0..5).fold(0, |value, offset| value << 1 | bit(5 * index + offset));
        char::from(ALPHABET[usize::from(value)])
    };
    (0..SIGNATURE_LEN).map(character).collect()
}

fn decode(text: &str) -> Result<[u8; BYTES], SignatureError> {
    if text.len() != SIGNATURE_LEN {
        return Err(SignatureError::Length { length: text.len() });
    }
    let mut bytes = [0; BYTES];
    for (position, character) in text.bytes().enumerate() {
        let value = ALPHABET
            .iter()
            .position(|known| *known == character)
            .ok_or(SignatureError::Character { position })?;
        for offset in (0..5).filter(|offset| value >> (4 - offset) & 1 == 1) {
            let index = 5 * position + offset;
            bytes[index / 8] |= 1 << (7 - index % 8);
        }
    }
    Ok(bytes)
}
