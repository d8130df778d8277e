//! What the countersignatory owns of a commitment: its own key, never revocable.
//!
//! With `option_static_remotekey` the key is the `payment_basepoint` itself, so the output can
//! be found again from the seed alone, even when every channel state is lost.
//!
//! Source: BOLT 3, "`to_remote` Output".

use bitcoin::ecdsa::Signature;
use bitcoin::opcodes::all::{OP_CHECKSIGVERIFY, OP_CSV};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{CompressedPublicKey, ScriptBuf, Sequence, Witness, script};

use super::{CommitmentFormat, signature_bytes, witness};

/// The countersignatory's plain balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ToRemote {
    /// `remotepubkey`, which is the countersignatory's `payment_basepoint`.
    pub payment_key: PublicKey,
    /// The kind of the commitment transaction.
    pub format: CommitmentFormat,
}

impl ToRemote {
    /// Returns the witness script, or `None` where the output is P2WPKH.
    pub fn witness_script(&self) -> Option<ScriptBuf> {
        self.format.locks_outputs_for_one_block().then(|| {
            script::Builder::new()
                .push_slice(self.payment_key.serialize())
                .push_opcode(OP_CHECKSIGVERIFY)
                .push_int(1)
                .push_opcode(OP_CSV)
                .into_script()
        })
    }

    /// Returns the script that a signature for this output commits to (BIP 143 `scriptCode`).
    pub fn script_code(&self) -> ScriptBuf {
        let key_hash = CompressedPublicKey(self.payment_key).wpubkey_hash();
        self.witness_script().unwrap_or_else(|| ScriptBuf::p2wpkh_script_code(key_hash))
    }

    /// Returns the output script.
    pub fn script_pubkey(&self) -> ScriptBuf {
        match self.witness_script() {
            Some(script) => script.to_p2wsh(),
            None => ScriptBuf::new_p2wpkh(&CompressedPublicKey(self.payment_key).wpubkey_hash()),
        }
    }

    /// Returns the sequence of the input that spends it: one block where anchors are keyed.
    pub fn sequence(&self) -> Sequence {
        match self.format {
            CommitmentFormat::Anchors => Sequence::from_height(1),
            CommitmentFormat::StaticRemoteKey | CommitmentFormat::ZeroFee => {
                Sequence::ENABLE_RBF_NO_LOCKTIME
            }
        }
    }

    /// Returns the witness that spends it.
    pub fn witness(&self, signature: &Signature) -> Witness {
        match self.witness_script() {
            Some(script) => witness(&[&signature_bytes(signature)], &script),
            None => Witness::p2wpkh(signature, &self.payment_key),
        }
    }
}
