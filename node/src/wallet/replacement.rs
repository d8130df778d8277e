//! When a transaction that one side makes alone is replaced, and what it pays.
//!
//! What takes outputs of a batch or of a swap back is no funding: its id may change. It is made
//! anew, with a higher fee, until it is confirmed. Pure.

use bitcoin::{Amount, FeeRate, Weight};

/// Blocks for which a transaction that nobody contests may wait at one feerate.
const PATIENCE: u32 = 6;

/// What a replacement pays on top for its own relay, sat/vB: the default of Bitcoin Core.
const INCREMENTAL_SAT_PER_VB: u64 = 1;

/// A transaction that takes outputs and is in no block yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnderWay {
    /// What it pays.
    pub feerate: FeeRate,
    /// Its fee.
    pub fee: Amount,
    /// The best block when it was made.
    pub made_at: u32,
    /// Whether this process has broadcast it.
    pub broadcast: bool,
    /// Whether it takes what is to be taken, and nothing else.
    pub fits: bool,
}

/// What may be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// The estimate.
    pub wanted: FeeRate,
    /// The most.
    pub most: FeeRate,
    /// Somebody else may spend the outputs too.
    pub contested: bool,
}

/// What to do about the transaction that takes outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it is under way.
    Keep,
    /// Broadcast what an earlier process made.
    Repeat,
    /// Make one that pays this.
    Make(FeeRate),
}

/// Says what to do at the block `best`.
///
/// One that does not confirm is replaced by one that pays a quarter more or the estimate,
/// whichever is more: at each block where it is contested, else after [`PATIENCE`] blocks.
pub(crate) fn step(known: Option<UnderWay>, best: u32, rates: Rates) -> Step {
    let capped = |feerate: FeeRate| feerate.min(rates.most);
    let Some(known) = known else {
        return Step::Make(capped(rates.wanted));
    };
    if !known.fits {
        return Step::Make(capped(known.feerate.max(rates.wanted)));
    }
    let patience = if rates.contested { 1 } else { PATIENCE };
    let raised = capped(raised_by_a_quarter(known.feerate).max(rates.wanted));
    if best >= known.made_at.saturating_add(patience) && raised > known.feerate {
        return Step::Make(raised);
    }
    if known.broadcast { Step::Keep } else { Step::Repeat }
}

fn raised_by_a_quarter(feerate: FeeRate) -> FeeRate {
    let sat_per_kwu = feerate.to_sat_per_kwu();
    FeeRate::from_sat_per_kwu(sat_per_kwu.saturating_add(sat_per_kwu.div_ceil(4)))
}

/// The fee of a transaction of `weight` at `feerate`; where it replaces one, enough that the
/// network takes it (BIP 125, rule 4). Rounded up.
pub(crate) fn fee_ceil(feerate: FeeRate, weight: Weight, replaced: Option<Amount>) -> Amount {
    let own = feerate.fee_wu(weight).unwrap_or(Amount::MAX_MONEY);
    let relay = Amount::from_sat(INCREMENTAL_SAT_PER_VB * weight.to_vbytes_ceil());
    replaced.map_or(own, |replaced| own.max(replaced + relay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_replaced_when_it_no_longer_fits_or_does_not_confirm() {
        let rate = FeeRate::from_sat_per_kwu;
        let under_way = |feerate, made_at, broadcast, fits| {
            let fee = Amount::from_sat(1_000);
            Some(UnderWay { feerate: rate(feerate), fee, made_at, broadcast, fits })
        };
        let make = |feerate| Step::Make(rate(feerate));
        #[rustfmt::skip]
        let table = [
            // What is under way at 700, the estimate, whether it is contested. The most is 100,000.
            (None, 1_000, false, make(1_000)),
            (None, 400_000, true, make(100_000)),
            (under_way(1_000, 700, true, true), 9_000, true, Step::Keep),
            (under_way(1_000, 700, false, true), 1_000, true, Step::Repeat),
            (under_way(1_000, 695, true, true), 9_000, false, Step::Keep),
            (under_way(1_000, 694, true, true), 900, false, make(1_250)),
            (under_way(1_000, 694, false, true), 9_000, false, make(9_000)),
            (under_way(1_000, 699, true, true), 900, true, make(1_250)),
            (under_way(1_000, 701, true, true), 9_000, true, Step::Keep),
            (under_way(100_000, 600, true, true), 9_000, true, Step::Keep),
            (under_way(100_000, 600, false, true), 9_000, true, Step::Repeat),
            (under_way(1_000, 700, true, false), 900, false, make(1_000)),
            (under_way(1_000, 700, true, false), 2_000, false, make(2_000)),
        ];
        for (row, (known, wanted, contested, expected)) in table.into_iter().enumerate() {
            let rates = Rates { wanted: rate(wanted), most: rate(100_000), contested };
            assert_eq!(step(known, 700, rates), expected, "row {row}");
        }
    }

    #[test]
    fn a_replacement_pays_for_its_own_relay() {
        let weight = Weight::from_wu(443);
        let sat = Amount::from_sat;
        let rate = FeeRate::from_sat_per_kwu;
        for (feerate, replaced, fee) in [
            (250, None, 111),
            (253, None, 113),
            (250, Some(111), 222),
            (1_000, Some(111), 443),
            (1_000, Some(443), 554),
        ] {
            assert_eq!(fee_ceil(rate(feerate), weight, replaced.map(sat)), sat(fee));
        }
    }
}
