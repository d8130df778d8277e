//! HTLC outputs of a commitment transaction, and every witness that spends them directly.
//!
//! The broadcaster spends its HTLCs only through an HTLC transaction, which delays it: see
//! [`htlc_transaction`](super::htlc_transaction). The countersignatory spends them directly.
//!
//! Source: BOLT 3, "Offered HTLC Outputs", "Received HTLC Outputs" and "Trimmed Outputs".

use std::fmt;

use bitcoin::absolute;
use bitcoin::ecdsa::Signature;
use bitcoin::hashes::{Hash, hash160, ripemd160, sha256};
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_CLTV, OP_CSV, OP_DROP, OP_DUP, OP_ELSE, OP_ENDIF, OP_EQUAL,
    OP_EQUALVERIFY, OP_HASH160, OP_IF, OP_NOTIF, OP_SIZE, OP_SWAP,
};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, FeeRate, ScriptBuf, Witness, script};

use super::{CommitmentFormat, signature_bytes, witness};

/// Whether the broadcaster of the commitment pays or is paid.
///
/// The same HTLC is offered in one side's commitment and received in the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HtlcDirection {
    /// The broadcaster pays: it may take the money back after the timeout.
    Offered,
    /// The broadcaster is paid: it may take the money with the preimage.
    Received,
}

/// A payment preimage: 32 bytes. Prints as `[redacted]`, since whoever knows it is paid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Preimage(pub [u8; 32]);

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage([redacted])")
    }
}

impl Preimage {
    /// Returns the payment hash.
    pub fn hash(&self) -> sha256::Hash {
        sha256::Hash::hash(&self.0)
    }
}

/// One HTLC as it stands in a commitment transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Htlc {
    /// Seen from the broadcaster.
    pub direction: HtlcDirection,
    /// The amount, in millisatoshi. The output carries whole satoshis, rounded down.
    pub amount_msat: u64,
    /// SHA-256 of the preimage.
    pub payment_hash: sha256::Hash,
    /// Height from which the payer may take it back.
    pub cltv_expiry: absolute::Height,
}

/// The keys of an HTLC output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HtlcKeys {
    /// `revocationpubkey`.
    pub revocation: PublicKey,
    /// `local_htlcpubkey`.
    pub broadcaster: PublicKey,
    /// `remote_htlcpubkey`.
    pub countersignatory: PublicKey,
}

/// The output of one HTLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HtlcScript {
    /// What is promised.
    pub htlc: Htlc,
    /// To whom.
    pub keys: HtlcKeys,
    /// In which kind of commitment transaction.
    pub format: CommitmentFormat,
}

/// Why a witness for an HTLC cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HtlcError {
    /// That way of spending exists only for HTLCs in the other direction.
    #[error("an HTLC {actual:?} by the broadcaster has no such spending path")]
    WrongDirection {
        /// The direction of this HTLC.
        actual: HtlcDirection,
    },
    /// The preimage does not hash to the payment hash.
    #[error("preimage hashes to {actual}, the HTLC wants {expected}")]
    WrongPreimage {
        /// The HTLC's payment hash.
        expected: sha256::Hash,
        /// The hash of the preimage given.
        actual: sha256::Hash,
    },
    /// The broadcaster receives this HTLC and needs a preimage.
    #[error("payment {0} can only be taken with its preimage")]
    PreimageMissing(sha256::Hash),
}

impl Htlc {
    /// Returns the value of the output: whole satoshis, rounded down.
    pub fn value(&self) -> Amount {
        Amount::from_sat(self.amount_msat / 1000)
    }

    /// Says whether the HTLC is too small to have an output of its own.
    ///
    /// That is so if less than `dust_limit` would remain after the fee of its HTLC transaction.
    pub fn is_trimmed(
        &self,
        format: CommitmentFormat,
        feerate: FeeRate,
        dust_limit: Amount,
    ) -> bool {
        format
            .htlc_fee(self.direction, feerate)
            .and_then(|fee| self.value().checked_sub(fee))
            .is_none_or(|rest| rest < dust_limit)
    }

    /// Checks a preimage against the payment hash.
    ///
    /// # Errors
    ///
    /// [`HtlcError::WrongPreimage`] if it does not fit.
    pub fn check_preimage(&self, preimage: &Preimage) -> Result<(), HtlcError> {
        let (expected, actual) = (self.payment_hash, preimage.hash());
        if actual == expected { Ok(()) } else { Err(HtlcError::WrongPreimage { expected, actual }) }
    }
}

impl HtlcScript {
    /// Returns the witness script.
    pub fn witness_script(&self) -> ScriptBuf {
        let keys = &self.keys;
        let revocation_hash = hash160::Hash::hash(&keys.revocation.serialize());
        let payment_hash = ripemd160::Hash::hash(self.htlc.payment_hash.as_byte_array());

        let head = script::Builder::new()
            .push_opcode(OP_DUP)
            .push_opcode(OP_HASH160)
            .push_slice(revocation_hash.to_byte_array())
            .push_opcode(OP_EQUAL)
            .push_opcode(OP_IF)
            .push_opcode(OP_CHECKSIG)
            .push_opcode(OP_ELSE)
            .push_slice(keys.countersignatory.serialize())
            .push_opcode(OP_SWAP)
            .push_opcode(OP_SIZE)
            .push_int(32)
            .push_opcode(OP_EQUAL);
        let body = match self.htlc.direction {
            HtlcDirection::Offered => head
                .push_opcode(OP_NOTIF)
                .push_opcode(OP_DROP)
                .push_int(2)
                .push_opcode(OP_SWAP)
                .push_slice(keys.broadcaster.serialize())
                .push_int(2)
                .push_opcode(OP_CHECKMULTISIG)
                .push_opcode(OP_ELSE)
                .push_opcode(OP_HASH160)
                .push_slice(payment_hash.to_byte_array())
                .push_opcode(OP_EQUALVERIFY)
                .push_opcode(OP_CHECKSIG)
                .push_opcode(OP_ENDIF),
            HtlcDirection::Received => head
                .push_opcode(OP_IF)
                .push_opcode(OP_HASH160)
                .push_slice(payment_hash.to_byte_array())
                .push_opcode(OP_EQUALVERIFY)
                .push_int(2)
                .push_opcode(OP_SWAP)
                .push_slice(keys.broadcaster.serialize())
                .push_int(2)
                .push_opcode(OP_CHECKMULTISIG)
                .push_opcode(OP_ELSE)
                .push_opcode(OP_DROP)
                .push_int(i64::from(self.htlc.cltv_expiry.to_consensus_u32()))
                .push_opcode(OP_CLTV)
                .push_opcode(OP_DROP)
                .push_opcode(OP_CHECKSIG)
                .push_opcode(OP_ENDIF),
        };
        let tail = if self.format.locks_outputs_for_one_block() {
            body.push_int(1).push_opcode(OP_CSV).push_opcode(OP_DROP)
        } else {
            body
        };
        tail.push_opcode(OP_ENDIF).into_script()
    }

    /// Returns the output script.
    pub fn script_pubkey(&self) -> ScriptBuf {
        self.witness_script().to_p2wsh()
    }

    /// Returns the witness by which the countersignatory takes an offered HTLC.
    ///
    /// The input needs the sequence of [`CommitmentFormat::htlc_sequence`].
    ///
    /// # Errors
    ///
    /// [`HtlcError`] if the HTLC is received, or the preimage is wrong.
    pub fn claim_witness(
        &self,
        countersignatory: &Signature,
        preimage: &Preimage,
    ) -> Result<Witness, HtlcError> {
        self.require(HtlcDirection::Offered)?;
        self.htlc.check_preimage(preimage)?;
        let signature = signature_bytes(countersignatory);
        Ok(witness(&[&signature, &preimage.0], &self.witness_script()))
    }

    /// Returns the witness by which the countersignatory takes back a received HTLC.
    ///
    /// The transaction needs a locktime of at least `cltv_expiry`, the input the sequence of
    /// [`CommitmentFormat::htlc_sequence`].
    ///
    /// # Errors
    ///
    /// [`HtlcError::WrongDirection`] if the HTLC is offered.
    pub fn timeout_witness(&self, countersignatory: &Signature) -> Result<Witness, HtlcError> {
        self.require(HtlcDirection::Received)?;
        let signature = signature_bytes(countersignatory);
        Ok(witness(&[&signature, &[]], &self.witness_script()))
    }

    /// Returns the witness by which the countersignatory punishes a revoked state.
    pub fn penalty_witness(&self, revocation: &Signature) -> Witness {
        let signature = signature_bytes(revocation);
        let key = self.keys.revocation.serialize();
        witness(&[&signature, &key], &self.witness_script())
    }

    fn require(&self, wanted: HtlcDirection) -> Result<(), HtlcError> {
        let actual = self.htlc.direction;
        if actual == wanted { Ok(()) } else { Err(HtlcError::WrongDirection { actual }) }
    }
}
