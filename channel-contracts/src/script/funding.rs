//! The funding output: two keys that must both sign.
//!
//! The transaction that pays to it belongs to the wallet or to a batch; what spends it is a
//! [`Commitment`](super::Commitment) or a cooperative close.
//!
//! Source: BOLT 3, "Funding Transaction Output".

use bitcoin::ecdsa::Signature;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_PUSHNUM_2};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Weight, Witness, script};

use super::{signature_bytes, witness};

/// Largest weight of the witness that spends a funding output: 220.
///
/// A standard signature takes at most 71 bytes of DER and one sighash byte.
pub const FUNDING_WITNESS_WEIGHT_MAX: Weight = Weight::from_wu(1 + 1 + 2 * (1 + 72) + 1 + 71);

/// The 2-of-2 of a channel's funding keys.
///
/// ```
/// use bitcoin::secp256k1::{Secp256k1, SecretKey};
/// use channel_contracts::script::FundingScript;
///
/// let secp = Secp256k1::new();
/// let alice = SecretKey::from_slice(&[1; 32])?.public_key(&secp);
/// let bob = SecretKey::from_slice(&[2; 32])?.public_key(&secp);
///
/// // The keys sort themselves, so both sides find the same output.
/// let script = FundingScript::new(alice, bob);
/// assert_eq!(script, FundingScript::new(bob, alice));
/// assert!(script.script_pubkey().is_p2wsh());
/// # Ok::<(), bitcoin::secp256k1::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FundingScript {
    /// In ascending order of their serialisation.
    keys: [PublicKey; 2],
}

/// Why a funding output cannot be spent with the given signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FundingError {
    /// A signature was given for a key that is not part of the funding output.
    #[error(
        "{key} is no funding key of this channel; sign with the keys of its open_channel and accept_channel"
    )]
    ForeignKey {
        /// The key that came with the signature.
        key: PublicKey,
    },
    /// Both signatures were given for one key.
    #[error("both signatures are for {key}; the other funding key must sign too")]
    SameKeyTwice {
        /// The key that came twice.
        key: PublicKey,
    },
}

impl FundingScript {
    /// Makes the script of two funding keys, in whatever order they come.
    pub fn new(one: PublicKey, other: PublicKey) -> Self {
        let mut keys = [one, other];
        keys.sort_by_key(PublicKey::serialize);
        Self { keys }
    }

    /// Returns the funding keys in the order of the script.
    pub fn keys(&self) -> [PublicKey; 2] {
        self.keys
    }

    /// Returns the witness script: 71 bytes.
    pub fn witness_script(&self) -> ScriptBuf {
        script::Builder::new()
            .push_opcode(OP_PUSHNUM_2)
            .push_slice(self.keys[0].serialize())
            .push_slice(self.keys[1].serialize())
            .push_opcode(OP_PUSHNUM_2)
            .push_opcode(OP_CHECKMULTISIG)
            .into_script()
    }

    /// Returns the output script.
    pub fn script_pubkey(&self) -> ScriptBuf {
        self.witness_script().to_p2wsh()
    }

    /// Returns the witness that spends the output, whichever signature comes first.
    ///
    /// # Errors
    ///
    /// [`FundingError`] if a signature's key is foreign, or both are for the same key.
    pub fn witness(
        &self,
        signatures: [(PublicKey, Signature); 2],
    ) -> Result<Witness, FundingError> {
        let keys = self.keys;
        if let Some((key, _)) = signatures.iter().find(|(key, _)| !keys.contains(key)) {
            return Err(FundingError::ForeignKey { key: *key });
        }
        if signatures[0].0 == signatures[1].0 && keys[0] != keys[1] {
            return Err(FundingError::SameKeyTwice { key: signatures[0].0 });
        }
        let [mut first, mut second] =
            signatures.map(|(key, signature)| (key, signature_bytes(&signature)));
        if first.0 != keys[0] {
            std::mem::swap(&mut first, &mut second);
        }
        // The empty item is what OP_CHECKMULTISIG pops in excess (BIP 147: it must be empty).
        Ok(witness(&[&[], &first.1, &second.1], &self.witness_script()))
    }
}
