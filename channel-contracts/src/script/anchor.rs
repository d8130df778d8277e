//! Anchors: outputs whose only use is to pay a fee for their parent.
//!
//! Keyed anchors (330 sat, one for each side) belong to `option_anchors`; the shared
//! pay-to-anchor output belongs to zero-fee commitments and to the transactions of a batch
//! tree, where anybody may spend it.
//!
//! Source: BOLT 3, "`to_local_anchor` and `to_remote_anchor` Output" and "`shared_anchor`
//! Output"; BIP 433.

use bitcoin::ecdsa::Signature;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CSV, OP_ENDIF, OP_IFDUP, OP_NOTIF};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, ScriptBuf, Sequence, TxOut, Witness, script};

use super::format::{KEYED_ANCHOR_VALUE, SHARED_ANCHOR_VALUE_MAX};
use super::{signature_bytes, witness};

/// Blocks after confirmation from which anybody may sweep a keyed anchor.
pub const KEYED_ANCHOR_PUBLIC_DELAY: u16 = 16;

/// An anchor that one side may spend at once, and anybody after 16 blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyedAnchor {
    /// The owner's funding key.
    pub funding_key: PublicKey,
}

impl KeyedAnchor {
    /// Returns the witness script.
    pub fn witness_script(&self) -> ScriptBuf {
        script::Builder::new()
            .push_slice(self.funding_key.serialize())
            .push_opcode(OP_CHECKSIG)
            .push_opcode(OP_IFDUP)
            .push_opcode(OP_NOTIF)
            .push_int(i64::from(KEYED_ANCHOR_PUBLIC_DELAY))
            .push_opcode(OP_CSV)
            .push_opcode(OP_ENDIF)
            .into_script()
    }

    /// Returns the output: 330 sat.
    pub fn output(&self) -> TxOut {
        TxOut { value: KEYED_ANCHOR_VALUE, script_pubkey: self.witness_script().to_p2wsh() }
    }

    /// Returns the witness by which the owner spends it at any time.
    pub fn owner_witness(&self, signature: &Signature) -> Witness {
        witness(&[&signature_bytes(signature)], &self.witness_script())
    }

    /// Returns the witness by which anybody spends it, with [`Self::public_sequence`].
    pub fn public_witness(&self) -> Witness {
        witness(&[&[]], &self.witness_script())
    }

    /// Returns the sequence that the public witness needs.
    pub fn public_sequence() -> Sequence {
        Sequence::from_height(KEYED_ANCHOR_PUBLIC_DELAY)
    }
}

/// Returns the pay-to-anchor script: `OP_1 <4e73>`, spent by an empty witness.
pub fn pay_to_anchor() -> ScriptBuf {
    script::Builder::new().push_int(1).push_slice([0x4e, 0x73]).into_script()
}

/// Returns the shared anchor of a zero-fee commitment, which takes up what was `trimmed`.
///
/// Its value is at most 240 sat; anything trimmed beyond that becomes fee.
pub fn shared_anchor(trimmed: Amount) -> TxOut {
    TxOut { value: trimmed.min(SHARED_ANCHOR_VALUE_MAX), script_pubkey: pay_to_anchor() }
}
