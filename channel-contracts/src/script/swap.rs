//! The on-chain half of a swap: both together at any time, one by preimage, the other by time.
//!
//! Taproot with the MuSig2 key of user and hub and two leaves. *Claim*: `OP_SIZE <32>
//! OP_EQUALVERIFY OP_SHA256 <h> OP_EQUALVERIFY <key> OP_CHECKSIG`, where the size keeps out
//! preimages that a Lightning HTLC would not take. *Refund*: `<T> OP_CHECKLOCKTIMEVERIFY OP_DROP
//! <key> OP_CHECKSIG` for a withdrawal, whose T all withdrawals of a transaction share with the
//! Lightning leg; the same with `OP_CHECKSEQUENCEVERIFY` for a deposit, which is confirmed
//! nobody knows when.
//!
//! Who gets which key, and how the times are ordered, is decided in [`swap`](crate::swap).
//!
//! Source: BATCHES §7; BIP 341, BIP 65, BIP 112.

use bitcoin::hashes::sha256;
use bitcoin::key::TweakedPublicKey;
use bitcoin::opcodes::all::{
    OP_CHECKSIG, OP_CLTV, OP_CSV, OP_DROP, OP_EQUALVERIFY, OP_SHA256, OP_SIZE,
};
use bitcoin::secp256k1::{Parity, PublicKey};
use bitcoin::taproot::{ControlBlock, LeafVersion, TaprootMerkleBranch};
use bitcoin::{
    Amount, ScriptBuf, Sequence, TapLeafHash, TapNodeHash, TxOut, Witness, XOnlyPublicKey,
    absolute, relative, script,
};

use super::htlc::Preimage;
use crate::musig::key::tweak_internal;
use crate::musig::{AggregateError, AggregateKey, SchnorrSignature};

/// From when on the payer may take its money back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum RefundTime {
    /// `T`: blocks above this height may contain the refund. For withdrawals.
    Height(absolute::Height),
    /// Blocks after the confirmation of the output. For deposits.
    Blocks(relative::Height),
}

/// What both sides of a swap agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SwapContract {
    /// SHA-256 of the preimage, the same as of the Lightning leg.
    pub hash: sha256::Hash,
    /// Who takes the output with the preimage. Fresh for each swap.
    pub claimer: PublicKey,
    /// Who takes it back after the time. Fresh for each swap.
    pub refunder: PublicKey,
    /// That time.
    pub refund_time: RefundTime,
}

impl SwapContract {
    /// Returns the script of the claim leaf.
    pub fn claim_script(&self) -> ScriptBuf {
        script::Builder::new()
            .push_opcode(OP_SIZE)
            .push_int(32)
            .push_opcode(OP_EQUALVERIFY)
            .push_opcode(OP_SHA256)
            .push_slice(AsRef::<[u8; 32]>::as_ref(&self.hash))
            .push_opcode(OP_EQUALVERIFY)
            .push_x_only_key(&self.claimer.x_only_public_key().0)
            .push_opcode(OP_CHECKSIG)
            .into_script()
    }

    /// Returns the script of the refund leaf.
    pub fn refund_script(&self) -> ScriptBuf {
        let builder = script::Builder::new();
        let builder = match self.refund_time {
            RefundTime::Height(height) => {
                builder.push_int(i64::from(height.to_consensus_u32())).push_opcode(OP_CLTV)
            }
            RefundTime::Blocks(blocks) => {
                builder.push_int(i64::from(blocks.value())).push_opcode(OP_CSV)
            }
        };
        builder
            .push_opcode(OP_DROP)
            .push_x_only_key(&self.refunder.x_only_public_key().0)
            .push_opcode(OP_CHECKSIG)
            .into_script()
    }

    /// Returns the hash of the claim leaf, which its signature commits to.
    pub fn claim_leaf(&self) -> TapLeafHash {
        TapLeafHash::from_script(&self.claim_script(), LeafVersion::TapScript)
    }

    /// Returns the hash of the refund leaf, which its signature commits to.
    pub fn refund_leaf(&self) -> TapLeafHash {
        TapLeafHash::from_script(&self.refund_script(), LeafVersion::TapScript)
    }

    /// Returns the root of the tree of both leaves.
    pub fn merkle_root(&self) -> TapNodeHash {
        TapNodeHash::from_node_hashes(self.claim_leaf().into(), self.refund_leaf().into())
    }

    /// Returns the output that both sides compute.
    ///
    /// # Errors
    ///
    /// [`AggregateError::Duplicate`] if both keys are the same.
    pub fn output(&self) -> Result<SwapOutput, AggregateError> {
        let root = self.merkle_root();
        let key = AggregateKey::new(&[self.claimer, self.refunder], root)?;
        let (output_key, parity) = tweak_internal(key.internal_key(), root)?;
        Ok(SwapOutput { contract: *self, internal_key: key.internal_key(), output_key, parity })
    }
}

/// The output of a swap and every witness that spends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SwapOutput {
    contract: SwapContract,
    internal_key: XOnlyPublicKey,
    output_key: XOnlyPublicKey,
    parity: Parity,
}

impl SwapOutput {
    /// Returns what it stands for.
    pub fn contract(&self) -> &SwapContract {
        &self.contract
    }

    /// Returns the key of the output.
    pub fn output_key(&self) -> XOnlyPublicKey {
        self.output_key
    }

    /// Returns the output script.
    pub fn script_pubkey(&self) -> ScriptBuf {
        let key = TweakedPublicKey::dangerous_assume_tweaked(self.output_key);
        ScriptBuf::new_p2tr_tweaked(key)
    }

    /// Returns the output.
    pub fn tx_out(&self, value: Amount) -> TxOut {
        TxOut { value, script_pubkey: self.script_pubkey() }
    }

    /// Returns the sequence of the input that refunds it.
    pub fn refund_sequence(&self) -> Sequence {
        match self.contract.refund_time {
            RefundTime::Height(_) => Sequence::ENABLE_RBF_NO_LOCKTIME,
            RefundTime::Blocks(blocks) => Sequence::from_height(blocks.value()),
        }
    }

    /// Returns the locktime of the transaction that refunds it.
    pub fn refund_lock_time(&self) -> absolute::LockTime {
        match self.contract.refund_time {
            RefundTime::Height(height) => height.into(),
            RefundTime::Blocks(_) => absolute::LockTime::ZERO,
        }
    }

    /// Returns the witness by which both together spend it.
    pub fn key_witness(&self, signature: &SchnorrSignature) -> Witness {
        Witness::from_slice(&[signature.0])
    }

    /// Returns the witness by which the claimer takes it.
    pub fn claim_witness(&self, signature: &SchnorrSignature, preimage: &Preimage) -> Witness {
        let mut witness = Witness::new();
        witness.push(signature.0);
        witness.push(preimage.0);
        witness.push(self.contract.claim_script());
        witness.push(self.control_block(self.contract.refund_leaf()).serialize());
        witness
    }

    /// Returns the witness by which the refunder takes it back.
    pub fn refund_witness(&self, signature: &SchnorrSignature) -> Witness {
        let mut witness = Witness::new();
        witness.push(signature.0);
        witness.push(self.contract.refund_script());
        witness.push(self.control_block(self.contract.claim_leaf()).serialize());
        witness
    }

    /// Finds the preimage in a witness that claims this output, as the refunder does on chain.
    /// Wherever it stands: an annex may follow.
    pub fn preimage_in(&self, witness: &Witness) -> Option<Preimage> {
        let preimages = witness.iter().filter_map(|item| Some(Preimage(item.try_into().ok()?)));
        preimages.into_iter().find(|preimage| preimage.hash() == self.contract.hash)
    }

    /// Whether a witness takes this output back by the refund leaf.
    pub fn is_refund(&self, witness: &Witness) -> bool {
        let script = self.contract.refund_script();
        witness.iter().any(|item| item == script.as_bytes())
    }

    /// Proves that the leaf beside `sibling` belongs to the output.
    fn control_block(&self, sibling: TapLeafHash) -> ControlBlock {
        let sibling: TapNodeHash = sibling.into();
        let merkle_branch = TaprootMerkleBranch::try_from(vec![sibling])
            .expect("a branch of one hash is not too long");
        ControlBlock {
            leaf_version: LeafVersion::TapScript,
            output_key_parity: self.parity,
            internal_key: self.internal_key,
            merkle_branch,
        }
    }
}
