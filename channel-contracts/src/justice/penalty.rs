//! One output that a victim may take: until when, at which weight, and what is left of it.
//!
//! Weights are upper bounds, by at most two bytes for each signature, and cover a pair as if it
//! were alone in its transaction. A combination of pairs is therefore never below the feerate
//! that each of them pays.
//!
//! Source: BOLT 5, "Penalty Transactions Weight Calculation"; BIP 141.

use bitcoin::ecdsa::Signature;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{
    Amount, FeeRate, OutPoint, Script, ScriptBuf, TxOut, VarInt, Weight, Witness, absolute,
};

use super::JusticeError;
use crate::script::{HtlcDirection, HtlcScript, ToLocal};

/// Weight of a transaction without inputs and outputs, with the segwit marker: 42.
const EMPTY_WEIGHT: u64 = 4 * (4 + 4 + 1 + 1) + 2;
/// Weight of an input without its witness: outpoint, empty script, sequence.
const INPUT_WEIGHT: u64 = 4 * (36 + 1 + 4);
/// Longest signature in a witness: 71 bytes of DER with a low S, and the sighash byte.
const SIGNATURE_LEN_MAX: u64 = 72;

/// What an output is that a victim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PenaltyKind {
    /// The cheater's balance.
    ToLocal,
    /// An HTLC, its direction seen from the cheater.
    Htlc(HtlcDirection),
    /// The output of an HTLC-success or HTLC-timeout transaction of the cheater.
    SecondStage,
}

/// The script of an output that a victim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PenaltyContract {
    /// `to_local`, which second-stage outputs have too.
    Delayed(ToLocal),
    /// An HTLC of the commitment.
    Htlc(HtlcScript),
}

/// From when on the cheater itself may take an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheaterTime {
    /// Blocks after the confirmation of the transaction that has the output.
    pub blocks: u16,
    /// Locktime of the cheater's transaction, for HTLCs it offered.
    ///
    /// Without one it needs the preimage of a received HTLC, which it must be assumed to know.
    pub height: Option<absolute::Height>,
}

impl CheaterTime {
    /// Returns the height of the first block that may hold the cheater's transaction, where
    /// that with the output is in block `confirmed`. The penalty is safe in any block before.
    ///
    /// Source: BIP 65 and BIP 68: a locktime is the last block that may *not* hold it.
    pub fn first_block(&self, confirmed: u32) -> u32 {
        let relative = confirmed.saturating_add(self.blocks.into());
        let absolute = self.height.map_or(0, |height| height.to_consensus_u32().saturating_add(1));
        relative.max(absolute)
    }
}

/// One output that a victim may take with the revocation key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Penalty {
    /// What it is.
    pub kind: PenaltyKind,
    /// Where it stands.
    pub outpoint: OutPoint,
    /// Script and value.
    pub output: TxOut,
    /// The script behind the output.
    pub contract: PenaltyContract,
    /// From when on the cheater may take it instead.
    ///
    /// A cheater's spend of an HTLC is not the end: see
    /// [`RevokedState::second_stage`](super::RevokedState::second_stage).
    pub cheater: CheaterTime,
}

impl Penalty {
    /// Returns the key that signs for it.
    pub fn revocation_key(&self) -> PublicKey {
        match &self.contract {
            PenaltyContract::Delayed(to_local) => to_local.revocation_key,
            PenaltyContract::Htlc(htlc) => htlc.keys.revocation,
        }
    }

    /// Returns the witness script.
    pub fn witness_script(&self) -> ScriptBuf {
        match &self.contract {
            PenaltyContract::Delayed(to_local) => to_local.witness_script(),
            PenaltyContract::Htlc(htlc) => htlc.witness_script(),
        }
    }

    /// Returns the witness that takes it.
    pub fn witness(&self, signature: &Signature) -> Witness {
        match &self.contract {
            PenaltyContract::Delayed(to_local) => to_local.penalty_witness(signature),
            PenaltyContract::Htlc(htlc) => htlc.penalty_witness(signature),
        }
    }

    /// Returns the largest weight of its input, witness included.
    pub fn input_weight_max(&self) -> Weight {
        let key = match &self.contract {
            PenaltyContract::Delayed(_) => 1,
            PenaltyContract::Htlc(_) => 33,
        };
        let script = self.witness_script().len();
        let witness = 1 + (1 + SIGNATURE_LEN_MAX) + (1 + key) + prefixed(script);
        Weight::from_wu(INPUT_WEIGHT + witness)
    }

    /// Returns the largest weight of a transaction that takes it alone and pays to
    /// `sweep_script`.
    pub fn weight_max(&self, sweep_script: &Script) -> Weight {
        // Three terms far below 2^63.
        Weight::from_wu(EMPTY_WEIGHT) + self.input_weight_max() + output_weight(sweep_script)
    }

    /// Returns the fee that this penalty alone pays at `feerate`, rounded up.
    ///
    /// `None` if it does not fit into an amount.
    pub fn fee_ceil(&self, sweep_script: &Script, feerate: FeeRate) -> Option<Amount> {
        fee_ceil(feerate, self.weight_max(sweep_script))
    }

    /// Returns what is left of it for `sweep_script` at `feerate`.
    ///
    /// Both sides compute the same output, so that a signature alone stands for a pair.
    ///
    /// # Errors
    ///
    /// [`JusticeError::Dust`] if nothing above dust is left.
    pub fn sweep_output(
        &self,
        sweep_script: &Script,
        feerate: FeeRate,
    ) -> Result<TxOut, JusticeError> {
        let value = self.output.value;
        self.fee_ceil(sweep_script, feerate)
            .and_then(|fee| value.checked_sub(fee))
            .filter(|rest| *rest >= sweep_script.minimal_non_dust())
            .map(|rest| TxOut { value: rest, script_pubkey: sweep_script.to_owned() })
            .ok_or(JusticeError::Dust { outpoint: self.outpoint, value, feerate })
    }
}

/// Returns the largest weight of one transaction that takes all `penalties`, with one output to
/// `sweep_script` for each. What a [`FeeRider`](super::FeeRider) adds comes on top.
pub fn combined_weight_max(penalties: &[Penalty], sweep_script: &Script) -> Weight {
    let pairs = penalties.iter().map(|penalty| penalty.input_weight_max().to_wu());
    let outputs = output_weight(sweep_script).to_wu() * penalties.len() as u64;
    let counts = 2 * 4 * (prefix(penalties.len()) - 1);
    Weight::from_wu(EMPTY_WEIGHT + pairs.sum::<u64>() + outputs + counts)
}

/// Returns the weight of an output that pays to `script_pubkey`.
fn output_weight(script_pubkey: &Script) -> Weight {
    Weight::from_wu(4 * (8 + prefixed(script_pubkey.len())))
}

/// Length of a compact size that says `count`.
fn prefix(count: usize) -> u64 {
    VarInt::from(count).size() as u64
}

/// Length of `len` bytes behind their compact size.
fn prefixed(len: usize) -> u64 {
    prefix(len) + len as u64
}

/// Multiplies, then rounds up to whole satoshis. `None` on overflow.
pub fn fee_ceil(feerate: FeeRate, weight: Weight) -> Option<Amount> {
    let millis = feerate.to_sat_per_kwu().checked_mul(weight.to_wu())?;
    Some(Amount::from_sat(millis.div_ceil(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_round_up_and_never_wrap() {
        let fee =
            |sat_per_kwu, wu| fee_ceil(FeeRate::from_sat_per_kwu(sat_per_kwu), Weight::from_wu(wu));
        assert_eq!(fee(1_000, 484), Some(Amount::from_sat(484)));
        assert_eq!(fee(253, 484), Some(Amount::from_sat(123)));
        assert_eq!(fee(u64::MAX, 2), None);
    }

    #[test]
    fn a_locktime_is_the_last_block_without_the_cheater() {
        let height = Some(absolute::Height::from_consensus(700).unwrap());
        assert_eq!(CheaterTime { blocks: 144, height: None }.first_block(600), 744);
        assert_eq!(CheaterTime { blocks: 0, height: None }.first_block(600), 600);
        assert_eq!(CheaterTime { blocks: 1, height }.first_block(600), 701);
        assert_eq!(CheaterTime { blocks: 1, height }.first_block(700), 701);
        assert_eq!(CheaterTime { blocks: 1, height }.first_block(900), 901);
    }
}
