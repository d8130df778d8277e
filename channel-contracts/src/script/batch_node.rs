//! The node output of a batch tree: all below it together at any time, the hub alone from E.
//!
//! Taproot with the MuSig2 key of the hub and all users below as internal key, and one leaf:
//! `<E> OP_CHECKLOCKTIMEVERIFY OP_DROP <S> OP_CHECKSIG`. The root of a batch and every inner
//! output of its tree have this form. How the key is aggregated and signed for lives in
//! [`musig`](crate::musig); which outputs there are, in [`tree`](crate::tree).
//!
//! Source: BATCHES §2; BIP 341; BIP 65.

use bitcoin::hashes::Hash;
use bitcoin::key::TweakedPublicKey;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CLTV, OP_DROP};
use bitcoin::secp256k1::Parity;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::taproot::{ControlBlock, LeafVersion, TaprootMerkleBranch};
use bitcoin::{
    Amount, ScriptBuf, Sequence, TapLeafHash, TapNodeHash, TapSighashType, Transaction, TxOut,
    Weight, Witness, XOnlyPublicKey, absolute, script,
};

use crate::musig::key::tweak_internal;
use crate::musig::{AggregateError, SchnorrSignature};

/// Weight of a key-path witness: count, length, 64 bytes.
pub const KEY_PATH_WITNESS_WEIGHT: Weight = Weight::from_wu(1 + 1 + 64);

/// The leaf by which the hub takes a node output back from its expiry on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExpiryLeaf {
    /// `E`: the sweep's locktime. Blocks above this height may contain it, none up to it.
    pub expiry: absolute::Height,
    /// `S`: the hub's sweep key.
    pub sweep_key: XOnlyPublicKey,
}

impl ExpiryLeaf {
    /// Returns the script.
    pub fn script(&self) -> ScriptBuf {
        script::Builder::new()
            .push_int(i64::from(self.expiry.to_consensus_u32()))
            .push_opcode(OP_CLTV)
            .push_opcode(OP_DROP)
            .push_x_only_key(&self.sweep_key)
            .push_opcode(OP_CHECKSIG)
            .into_script()
    }

    /// Returns the hash that a script-path signature commits to.
    pub fn leaf_hash(&self) -> TapLeafHash {
        TapLeafHash::from_script(&self.script(), LeafVersion::TapScript)
    }

    /// Returns the root of the script tree, which has this one leaf.
    pub fn merkle_root(&self) -> TapNodeHash {
        self.leaf_hash().into()
    }

    /// Returns the locktime that a sweep needs.
    pub fn lock_time(&self) -> absolute::LockTime {
        self.expiry.into()
    }

    /// Returns the sequence that a sweep needs: any but the final one.
    pub fn sequence(&self) -> Sequence {
        Sequence::ENABLE_RBF_NO_LOCKTIME
    }
}

/// One node output: its key, its leaf, and every witness that spends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchNode {
    leaf: ExpiryLeaf,
    internal_key: XOnlyPublicKey,
    output_key: XOnlyPublicKey,
    parity: Parity,
}

impl BatchNode {
    /// Makes the node whose cosigners aggregate to `internal_key`.
    ///
    /// # Errors
    ///
    /// [`AggregateError::Degenerate`] if key and tweak cancel out, which needs a collision.
    pub fn new(internal_key: XOnlyPublicKey, leaf: ExpiryLeaf) -> Result<Self, AggregateError> {
        let (output_key, parity) = tweak_internal(internal_key, leaf.merkle_root())?;
        Ok(Self { leaf, internal_key, output_key, parity })
    }

    /// Returns the leaf.
    pub fn leaf(&self) -> &ExpiryLeaf {
        &self.leaf
    }

    /// Returns the MuSig2 key before the leaf is committed to.
    pub fn internal_key(&self) -> XOnlyPublicKey {
        self.internal_key
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
    pub fn output(&self, value: Amount) -> TxOut {
        TxOut { value, script_pubkey: self.script_pubkey() }
    }

    /// Returns what proves that the leaf belongs to the output.
    pub fn control_block(&self) -> ControlBlock {
        ControlBlock {
            leaf_version: LeafVersion::TapScript,
            output_key_parity: self.parity,
            internal_key: self.internal_key,
            merkle_branch: TaprootMerkleBranch::default(),
        }
    }

    /// Returns the witness by which all cosigners together spend it.
    pub fn key_witness(&self, signature: &SchnorrSignature) -> Witness {
        Witness::from_slice(&[signature.0])
    }

    /// Returns the witness by which the hub sweeps it, with [`ExpiryLeaf::lock_time`].
    pub fn expiry_witness(&self, signature: &SchnorrSignature) -> Witness {
        let mut witness = Witness::new();
        witness.push(signature.0);
        witness.push(self.leaf.script());
        witness.push(self.control_block().serialize());
        witness
    }

    /// Returns the weight of the witness that sweeps it.
    pub fn expiry_witness_weight(&self) -> Weight {
        let witness = self.expiry_witness(&SchnorrSignature([0; 64]));
        Weight::from_wu(witness.size() as u64)
    }
}

/// Returns what a key-path signature of `input` signs: everything, by the default type.
///
/// # Panics
///
/// Unless `spent` has one output for each input of the transaction.
pub fn key_path_message(transaction: &Transaction, input: usize, spent: &[TxOut]) -> [u8; 32] {
    SighashCache::new(transaction)
        .taproot_key_spend_signature_hash(input, &Prevouts::All(spent), TapSighashType::Default)
        .expect("one spent output for each input")
        .to_byte_array()
}

/// Returns what a script-path signature of `input` for `leaf` signs.
///
/// # Panics
///
/// Unless `spent` has one output for each input of the transaction.
pub fn script_path_message(
    transaction: &Transaction,
    input: usize,
    spent: &[TxOut],
    leaf: TapLeafHash,
) -> [u8; 32] {
    let sighash_type = TapSighashType::Default;
    SighashCache::new(transaction)
        .taproot_script_spend_signature_hash(input, &Prevouts::All(spent), leaf, sighash_type)
        .expect("one spent output for each input")
        .to_byte_array()
}
