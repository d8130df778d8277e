//! The three kinds of commitment transaction, and what differs between them.
//!
//! Every `if anchors` of BOLT 3 is a method here, so that the script files ask a question
//! instead of repeating the rule.

use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Amount, FeeRate, Sequence, Weight, transaction};

use super::htlc::HtlcDirection;

/// How the commitment transactions of a channel are built.
///
/// Source: BOLT 3; BOLT 9, channel types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitmentFormat {
    /// `option_static_remotekey` alone: fees are chosen in advance, no anchors.
    StaticRemoteKey,
    /// `option_anchors`: two keyed anchors, HTLC transactions without a fee of their own.
    Anchors,
    /// `zero_fee_commitments`: version 3, no fee at all, one pay-to-anchor output.
    ZeroFee,
}

/// Value of each keyed anchor.
///
/// Source: BOLT 3, "`to_local_anchor` and `to_remote_anchor` Output".
pub const KEYED_ANCHOR_VALUE: Amount = Amount::from_sat(330);

/// Largest value of a pay-to-anchor output of a zero-fee commitment.
///
/// Source: BOLT 3, "`shared_anchor` Output".
pub const SHARED_ANCHOR_VALUE_MAX: Amount = Amount::from_sat(240);

/// Weight that one HTLC output adds to a commitment transaction.
pub const HTLC_OUTPUT_WEIGHT: Weight = Weight::from_wu(172);

impl CommitmentFormat {
    /// Returns the version of commitment and HTLC transactions: 3 (TRUC) without fees, else 2.
    pub fn transaction_version(self) -> transaction::Version {
        match self {
            Self::StaticRemoteKey | Self::Anchors => transaction::Version::TWO,
            Self::ZeroFee => transaction::Version::non_standard(3),
        }
    }

    /// Says whether outputs of the commitment are locked for one block after confirmation.
    ///
    /// With keyed anchors only the anchors may be spent at once, or else a third party could
    /// pin the commitment transaction.
    pub fn locks_outputs_for_one_block(self) -> bool {
        self == Self::Anchors
    }

    /// Returns the sequence of an HTLC transaction's input.
    pub fn htlc_sequence(self) -> Sequence {
        match self {
            Self::Anchors => Sequence::from_height(1),
            Self::StaticRemoteKey | Self::ZeroFee => Sequence::ZERO,
        }
    }

    /// Returns how the countersignatory signs HTLC transactions.
    ///
    /// Where they carry no fee the broadcaster adds inputs and outputs later.
    pub fn countersignatory_htlc_sighash(self) -> EcdsaSighashType {
        match self {
            Self::StaticRemoteKey => EcdsaSighashType::All,
            Self::Anchors | Self::ZeroFee => EcdsaSighashType::SinglePlusAnyoneCanPay,
        }
    }

    /// Returns the expected weight of a commitment transaction with `htlc_outputs` HTLCs.
    ///
    /// Source: BOLT 3, "Fee Calculation".
    pub fn commitment_weight(self, htlc_outputs: usize) -> Weight {
        let base = match self {
            Self::StaticRemoteKey => 724,
            Self::Anchors | Self::ZeroFee => 1124,
        };
        // At most 966 HTLCs exist in a channel, so this is far from overflowing.
        Weight::from_wu(base + HTLC_OUTPUT_WEIGHT.to_wu() * htlc_outputs as u64)
    }

    /// Returns the base fee of a commitment transaction, rounded down.
    pub fn commitment_fee(self, feerate: FeeRate, htlc_outputs: usize) -> Option<Amount> {
        match self {
            Self::StaticRemoteKey | Self::Anchors => {
                fee_floor(feerate, self.commitment_weight(htlc_outputs))
            }
            Self::ZeroFee => Some(Amount::ZERO),
        }
    }

    /// Returns the fee of an HTLC transaction, rounded down; zero where it carries none.
    pub fn htlc_fee(self, direction: HtlcDirection, feerate: FeeRate) -> Option<Amount> {
        let weight = match (self, direction) {
            (Self::Anchors | Self::ZeroFee, _) => return Some(Amount::ZERO),
            (Self::StaticRemoteKey, HtlcDirection::Offered) => Weight::from_wu(663),
            (Self::StaticRemoteKey, HtlcDirection::Received) => Weight::from_wu(703),
        };
        fee_floor(feerate, weight)
    }

    /// Returns what the opener pays for anchors beside the fee.
    pub fn anchors_cost(self) -> Amount {
        match self {
            Self::Anchors => Amount::from_sat(2 * KEYED_ANCHOR_VALUE.to_sat()),
            Self::StaticRemoteKey | Self::ZeroFee => Amount::ZERO,
        }
    }
}

/// Multiplies, then rounds down to whole satoshis. `None` on overflow.
fn fee_floor(feerate: FeeRate, weight: Weight) -> Option<Amount> {
    let millis = feerate.to_sat_per_kwu().checked_mul(weight.to_wu())?;
    Some(Amount::from_sat(millis / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of BOLT 3, "Fee Calculation".
    #[test]
    fn fees_follow_the_worked_example() {
        let feerate = FeeRate::from_sat_per_kwu(5000);
        let format = CommitmentFormat::StaticRemoteKey;
        let sat = |sat| Some(Amount::from_sat(sat));
        assert_eq!(format.htlc_fee(HtlcDirection::Offered, feerate), sat(3315));
        assert_eq!(format.htlc_fee(HtlcDirection::Received, feerate), sat(3515));
        assert_eq!(format.commitment_fee(feerate, 2), sat(5340));
    }

    #[test]
    fn an_absurd_feerate_is_refused_rather_than_wrapped() {
        let format = CommitmentFormat::Anchors;
        assert_eq!(format.commitment_fee(FeeRate::MAX, 1), None);
        assert_eq!(CommitmentFormat::ZeroFee.commitment_fee(FeeRate::MAX, 1), Some(Amount::ZERO));
    }
}
