//! What a sender holds against an edge, in millisatoshi.

use crate::model::graph::Edge;

/// An edge that cannot be used.
pub const UNUSABLE: u32 = u32::MAX;

/// Steps in which the share of a channel that a payment takes is measured.
const STEPS: usize = 1_024;

/// How a sender weighs what routes differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostTerms {
    hop_msat: u64,
    risk_per_billion_and_block: u64,
    /// The price of uncertainty, by the share of the capacity that a payment takes.
    uncertainty_msat: Vec<u32>,
}

impl CostTerms {
    /// Weighs each hop with `hop_msat` (at least 1), each block that money may be locked with
    /// `risk_per_billion_and_block` of the amount, and the chance that a channel has not enough
    /// on its side with `liquidity_msat` for each factor of ten.
    ///
    /// The chance is that of an even balance: an amount `a` passes a channel of capacity `c` with
    /// probability `1 - a / (c + 1)`.
    pub fn new(hop_msat: u64, risk_per_billion_and_block: u64, liquidity_msat: u64) -> Self {
        let price = |step: usize| {
            let fails = step as f64 / STEPS as f64;
            let price = -libm::log10(1.0 - fails) * liquidity_msat as f64;
            price.min(f64::from(UNUSABLE - 1)) as u32
        };
        Self {
            hop_msat: hop_msat.max(1),
            risk_per_billion_and_block,
            uncertainty_msat: (0..STEPS).map(price).collect(),
        }
    }

    /// What a hop of the sender's own costs: it takes no fee and knows its balance.
    pub fn own_hop(&self) -> u64 {
        self.hop_msat
    }

    /// The cost of `edge` for `amount_msat`, which it must take; never 0, grows with the amount.
    pub fn of(&self, edge: &Edge, amount_msat: u64) -> u64 {
        let risk = u128::from(amount_msat)
            * u128::from(edge.cltv_expiry_delta)
            * u128::from(self.risk_per_billion_and_block)
            / 1_000_000_000;
        let share = u128::from(amount_msat) * STEPS as u128 / (u128::from(edge.capacity_msat) + 1);
        let share = usize::try_from(share).unwrap_or(STEPS - 1).min(STEPS - 1);
        self.hop_msat
            .saturating_add(edge.fee_msat(amount_msat))
            .saturating_add(u64::try_from(risk).unwrap_or(u64::MAX))
            .saturating_add(u64::from(self.uncertainty_msat[share]))
    }

    /// A lower bound of the cost for any amount in `least_msat..=most_msat`, below [`UNUSABLE`]
    /// if the edge may take one of them.
    pub(super) fn lower_bound(&self, edge: &Edge, least_msat: u64, most_msat: u64) -> u32 {
        if edge.most_msat < least_msat || edge.least_msat > most_msat {
            return UNUSABLE;
        }
        u32::try_from(self.of(edge, least_msat)).unwrap_or(UNUSABLE).min(UNUSABLE - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Edge {
        Edge {
            target: 0,
            lane: 0,
            base_msat: 1_000,
            ppm: 100,
            least_msat: 1,
            most_msat: 1_000_000_000,
            capacity_msat: 1_000_000_000,
            cltv_expiry_delta: 40,
        }
    }

    #[test]
    fn the_cost_is_fee_risk_and_uncertainty() {
        let amount = 500_000_000;
        let plain = CostTerms::new(1, 0, 0).of(&edge(), amount);
        assert_eq!(plain, 1 + 1_000 + 50_000);
        assert_eq!(CostTerms::new(1, 15, 0).of(&edge(), amount) - plain, 300);
        // Half of the channel: log10 of 2, in steps of the capacity.
        let uncertain = CostTerms::new(1, 0, 1_000_000).of(&edge(), amount) - plain;
        assert!((300_000..=301_030).contains(&uncertain), "{uncertain}");
    }

    #[test]
    fn the_cost_grows_with_the_amount() {
        let terms = CostTerms::new(500, 15, 30_000);
        let amounts = (0..1_000).map(|step| step * 1_000_000 + 1);
        let costs: Vec<u64> = amounts.map(|amount| terms.of(&edge(), amount)).collect();
        assert!(costs.is_sorted());
    }
}
