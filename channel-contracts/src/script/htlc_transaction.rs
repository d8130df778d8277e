//! The broadcaster's second stage: HTLC-timeout and HTLC-success transactions.
//!
//! They exist so that an HTLC can be settled in time while its owner still waits for
//! `to_self_delay`, during which a revoked state can be punished.
//!
//! Source: BOLT 3, "HTLC-Timeout and HTLC-Success Transactions".

use bitcoin::ecdsa::Signature;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Witness, absolute};

use super::htlc::{HtlcDirection, HtlcError, HtlcScript, Preimage};
use super::to_local::ToLocal;
use super::{signature_bytes, witness};

/// The transaction by which a broadcaster settles one of its HTLCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HtlcTransaction {
    /// Where the HTLC stands in the commitment transaction.
    pub outpoint: OutPoint,
    /// The output it spends.
    pub script: HtlcScript,
    /// Where the money goes. Its keys are those of the commitment transaction.
    pub to_local: ToLocal,
    /// The channel's feerate. Ignored where HTLC transactions carry no fee.
    pub feerate: FeeRate,
}

/// Why an HTLC transaction cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HtlcTransactionError {
    /// The fee would take the whole HTLC, which should have been trimmed.
    #[error("HTLC of {value} cannot pay its fee at {feerate}; it should have been trimmed")]
    FeeExceedsValue {
        /// The value of the HTLC output.
        value: Amount,
        /// The feerate asked for.
        feerate: FeeRate,
    },
}

impl HtlcTransaction {
    /// Builds the unsigned transaction: one input, one output.
    ///
    /// # Errors
    ///
    /// [`HtlcTransactionError::FeeExceedsValue`] if nothing would be left.
    pub fn unsigned(&self) -> Result<Transaction, HtlcTransactionError> {
        let HtlcScript { htlc, format, .. } = &self.script;
        let value = htlc.value();
        let output_value = format
            .htlc_fee(htlc.direction, self.feerate)
            .and_then(|fee| value.checked_sub(fee))
            .ok_or(HtlcTransactionError::FeeExceedsValue { value, feerate: self.feerate })?;
        let lock_time = match htlc.direction {
            HtlcDirection::Offered => absolute::LockTime::from(htlc.cltv_expiry),
            HtlcDirection::Received => absolute::LockTime::ZERO,
        };
        Ok(Transaction {
            version: format.transaction_version(),
            lock_time,
            input: vec![TxIn {
                previous_output: self.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: format.htlc_sequence(),
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: output_value,
                script_pubkey: self.to_local.script_pubkey(),
            }],
        })
    }

    /// Returns the witness of its input.
    ///
    /// A received HTLC needs the preimage; an offered one takes none.
    ///
    /// # Errors
    ///
    /// [`HtlcError::PreimageMissing`] or [`HtlcError::WrongPreimage`] for a received HTLC;
    /// [`HtlcError::WrongDirection`] if a preimage is given for an offered one.
    pub fn witness(
        &self,
        signatures: &HtlcSignatures,
        preimage: Option<&Preimage>,
    ) -> Result<Witness, HtlcError> {
        let htlc = &self.script.htlc;
        let last: &[u8] = match (htlc.direction, preimage) {
            (HtlcDirection::Offered, None) => &[],
            (HtlcDirection::Received, Some(preimage)) => {
                htlc.check_preimage(preimage)?;
                &preimage.0
            }
            (HtlcDirection::Received, None) => {
                return Err(HtlcError::PreimageMissing(htlc.payment_hash));
            }
            (actual @ HtlcDirection::Offered, Some(_)) => {
                return Err(HtlcError::WrongDirection { actual });
            }
        };
        let countersignatory = signature_bytes(&signatures.countersignatory);
        let broadcaster = signature_bytes(&signatures.broadcaster);
        let items = [&[][..], &countersignatory, &broadcaster, last];
        Ok(witness(&items, &self.script.witness_script()))
    }
}

/// The two signatures of an HTLC transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HtlcSignatures {
    /// With the sighash of [`CommitmentFormat::countersignatory_htlc_sighash`].
    ///
    /// [`CommitmentFormat::countersignatory_htlc_sighash`]: super::CommitmentFormat::countersignatory_htlc_sighash
    pub countersignatory: Signature,
    /// With `SIGHASH_ALL`.
    pub broadcaster: Signature,
}
