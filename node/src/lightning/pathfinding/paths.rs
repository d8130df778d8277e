//! A path that was found: how much it can carry, and what each of its hops is paid.

use super::hop::{Fee, HopId, aggregate};
use super::search::{Step, Used};

/// A hop of a path, with what it is paid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PaidStep {
    /// The hop, its penalty, and its fee.
    pub step: Step,
    /// What the node reached keeps for forwarding further; for the last, what arrives. msat.
    pub fee_msat: u64,
    /// All fees paid after this hop, msat.
    pub next_hops_fee_msat: u64,
}

/// A path, our hop first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PaymentPath {
    /// Its hops; at least one.
    pub steps: Vec<PaidStep>,
}

/// The fees along a path do not fit a number; the place of the hop to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FeesOverflow(pub usize);

impl PaymentPath {
    /// Takes over the steps of a walk.
    pub fn set(&mut self, steps: &[Step]) {
        self.steps.clear();
        let paid = |step: &Step| PaidStep { step: *step, fee_msat: 0, next_hops_fee_msat: 0 };
        self.steps.extend(steps.iter().map(paid));
    }

    /// What arrives, msat.
    pub fn value_msat(&self) -> u64 {
        self.steps.last().map_or(0, |last| last.fee_msat)
    }

    /// All fees, msat.
    pub fn fees_msat(&self) -> u64 {
        let before_last = self.steps.split_last().map_or(&[][..], |(_, before)| before);
        before_last.iter().map(|paid| paid.fee_msat).fold(0, u64::saturating_add)
    }

    /// Fees and penalty, msat.
    pub fn cost_msat(&self) -> u64 {
        let penalty = self.steps.first().map_or(u64::MAX, |first| first.step.path_penalty_msat);
        self.fees_msat().saturating_add(penalty)
    }

    /// Cost per msat that arrives, scaled by 2^64.
    pub fn cost_per_msat(&self) -> u128 {
        match (self.cost_msat(), self.value_msat()) {
            (u64::MAX, _) | (_, 0) => u128::from(u64::MAX),
            (cost, value) => (u128::from(cost) << 64) / u128::from(value),
        }
    }

    /// The sum of the proportional fees, millionths.
    pub fn ppm(&self) -> u64 {
        self.steps.iter().map(|paid| u64::from(paid.step.hop.fee.ppm)).sum()
    }

    /// Whether both go over the same hops.
    pub fn is_same_way(&self, other: &Self) -> bool {
        let way = |path: &Self| -> Vec<_> {
            path.steps.iter().map(|paid| (paid.step.hop.id, paid.step.hop.target)).collect()
        };
        way(self) == way(other)
    }

    /// The ids of its hops, to sort by.
    pub fn ids(&self) -> impl Iterator<Item = HopId> + '_ {
        self.steps.iter().map(|paid| paid.step.hop.id)
    }

    /// Sends `value_msat` and works out all fees anew. Who asks for a higher
    /// `htlc_minimum_msat` than is left gets the difference; what the payee gets too much this
    /// way counts as arrived, and is carried, for a fee, by everybody before. (LDK forgets that
    /// fee; such a path of its fails.) Returns what arrives, msat. `None` on overflow.
    pub fn send(&mut self, value_msat: u64) -> Option<u64> {
        let last = self.steps.len().checked_sub(1)?;
        let mut extra_msat = 0;
        let mut paid_msat: u64 = 0;
        for place in (0..=last).rev() {
            let next_use_fee = self.steps.get(place + 1).map(|next| next.step.hop_use_fee_msat);
            let here = &mut self.steps[place];
            here.next_hops_fee_msat = paid_msat;
            here.step.path_penalty_msat = here.step.path_penalty_msat.saturating_add(extra_msat);
            let mut fee_msat = next_use_fee.unwrap_or(0);
            let mut amount_msat = paid_msat.checked_add(value_msat)?.checked_add(extra_msat)?;
            if let Some(missing) = here.step.hop.htlc_minimum_msat.checked_sub(amount_msat) {
                amount_msat = amount_msat.checked_add(missing)?;
                if place == last {
                    extra_msat = missing;
                } else {
                    paid_msat = paid_msat.checked_add(missing)?;
                    fee_msat = fee_msat.checked_add(missing)?;
                }
            }
            here.fee_msat = if place == last { amount_msat } else { fee_msat };
            if place > 0 {
                here.step.hop_use_fee_msat = here.step.hop.fee.on(amount_msat)?;
                paid_msat = paid_msat.checked_add(here.step.hop_use_fee_msat)?;
            }
        }
        value_msat.checked_add(extra_msat)
    }

    /// The most this path can bring, msat, rounded down.
    pub fn value_max_msat(&self, used: &Used, saturation_shift: u8) -> Result<u64, FeesOverflow> {
        let mut value_max_msat = u64::MAX;
        for (place, paid) in self.steps.iter().enumerate() {
            let hop = &paid.step.hop;
            let used_msat = used.get(&hop.id).copied().unwrap_or(0);
            let most_msat = hop.htlc_maximum_msat(saturation_shift).saturating_sub(used_msat);
            let onward = self.steps[place + 1..].iter().map(|paid| -> Fee { paid.step.hop.fee });
            let (base, ppm) = aggregate(onward).ok_or(FeesOverflow(place + 1))?;
            let after_base = u128::from(most_msat).saturating_sub(u128::from(base));
            let brings = (after_base * 1_000_000 + u128::from(ppm)) / (1_000_000 + u128::from(ppm));
            value_max_msat = value_max_msat.min(u64::try_from(brings).unwrap_or(u64::MAX));
        }
        Ok(value_max_msat)
    }
}
