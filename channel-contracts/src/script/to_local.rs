//! What a broadcaster owns: delayed for itself, at once for the peer it cheated.
//!
//! The same script guards `to_local` of a commitment transaction and the output of an HTLC
//! transaction.
//!
//! Source: BOLT 3, "`to_local` Output" and "HTLC-Timeout and HTLC-Success Transactions".

use bitcoin::ecdsa::Signature;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CSV, OP_DROP, OP_ELSE, OP_ENDIF, OP_IF};
use bitcoin::relative;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Sequence, Witness, script};

use super::{signature_bytes, witness};

/// The revocable, delayed output of a broadcaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ToLocal {
    /// `revocationpubkey`: the countersignatory signs for it once the state is revoked.
    pub revocation_key: PublicKey,
    /// `local_delayedpubkey`: the broadcaster's.
    pub delayed_key: PublicKey,
    /// `to_self_delay`, in blocks after confirmation.
    pub to_self_delay: relative::Height,
}

impl ToLocal {
    /// Returns the witness script.
    pub fn witness_script(&self) -> ScriptBuf {
        script::Builder::new()
            .push_opcode(OP_IF)
            .push_slice(self.revocation_key.serialize())
            .push_opcode(OP_ELSE)
            .push_int(i64::from(self.to_self_delay.value()))
            .push_opcode(OP_CSV)
            .push_opcode(OP_DROP)
            .push_slice(self.delayed_key.serialize())
            .push_opcode(OP_ENDIF)
            .push_opcode(OP_CHECKSIG)
            .into_script()
    }

    /// Returns the output script.
    pub fn script_pubkey(&self) -> ScriptBuf {
        self.witness_script().to_p2wsh()
    }

    /// Returns the sequence of the input by which the broadcaster collects.
    pub fn delayed_sequence(&self) -> Sequence {
        Sequence::from_height(self.to_self_delay.value())
    }

    /// Returns the witness by which the broadcaster collects after the delay.
    pub fn delayed_witness(&self, delayed: &Signature) -> Witness {
        witness(&[&signature_bytes(delayed), &[]], &self.witness_script())
    }

    /// Returns the witness by which the countersignatory punishes a revoked state.
    pub fn penalty_witness(&self, revocation: &Signature) -> Witness {
        // Exactly 1, as policy (MINIMALIF) demands.
        witness(&[&signature_bytes(revocation), &[1]], &self.witness_script())
    }
}
