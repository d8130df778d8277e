//! What a hub offers.

use bitcoin::{Amount, FeeRate, Weight};

use crate::chain::fees::{FEERATE_CEILING, fee_ceil};
use crate::config::{BatchConfig, BatchRole};

/// An output of taproot, by which a withdrawal is paid.
const OUTPUT_WEIGHT: Weight = Weight::from_wu(43 * 4);
/// An input of taproot by key path, by which a deposit is spent.
const INPUT_WEIGHT: Weight = Weight::from_wu(230);

/// What this node does in withdrawals and deposits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapPolicy {
    /// Hub, user, both or neither.
    pub role: BatchRole,
    /// Least value of an output.
    pub amount_min: Amount,
    /// Most.
    pub amount_max: Amount,
    /// What the hub earns, in millionths of the amount.
    pub fee_ppm: u32,
    /// Blocks for which a paid withdrawal waits for others to share a transaction with.
    pub patience: u32,
    /// The most that transactions which spend outputs of swaps pay.
    pub feerate_max: FeeRate,
}

impl SwapPolicy {
    /// From the configuration.
    pub fn new(config: &BatchConfig) -> Self {
        Self {
            role: config.role,
            amount_min: Amount::from_sat(config.swap_min_sat),
            amount_max: Amount::from_sat(config.swap_max_sat),
            fee_ppm: config.swap_fee_ppm,
            patience: config.swap_patience_blocks,
            feerate_max: FeeRate::from_sat_per_vb(config.exit_feerate_max_sat_per_vb)
                .unwrap_or(FEERATE_CEILING),
        }
    }

    /// Whether the hub swaps so much.
    pub fn takes(&self, amount: Amount) -> bool {
        (self.amount_min..=self.amount_max).contains(&amount)
    }

    /// The hub's fee for a withdrawal, msat: its share of the transaction and what the hub earns.
    pub fn withdrawal_fee_msat(&self, amount: Amount, feerate: FeeRate) -> u64 {
        self.fee_msat(amount, feerate, OUTPUT_WEIGHT)
    }

    /// The same for a deposit.
    pub fn deposit_fee_msat(&self, amount: Amount, feerate: FeeRate) -> u64 {
        self.fee_msat(amount, feerate, INPUT_WEIGHT)
    }

    fn fee_msat(&self, amount: Amount, feerate: FeeRate, weight: Weight) -> u64 {
        let chain = fee_ceil(feerate, weight).unwrap_or(Amount::MAX_MONEY);
        // Millionths of satoshi are thousandths of millisatoshi.
        let earned = amount.to_sat().saturating_mul(self.fee_ppm.into()).div_ceil(1_000);
        chain.to_sat().saturating_mul(1_000).saturating_add(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_is_the_share_of_the_chain_and_what_the_hub_earns() {
        let config = BatchConfig { swap_fee_ppm: 1_000, ..BatchConfig::default() };
        let policy = SwapPolicy::new(&config);
        let feerate = FeeRate::from_sat_per_vb_u32(10);
        let sat = Amount::from_sat;
        assert_eq!(policy.withdrawal_fee_msat(sat(100_000), feerate), 430_000 + 100_000);
        assert_eq!(policy.deposit_fee_msat(sat(100_000), feerate), 575_000 + 100_000);
        assert_eq!(policy.withdrawal_fee_msat(sat(1), feerate), 430_000 + 1);
        let free = SwapPolicy { fee_ppm: 0, ..policy };
        assert_eq!(free.withdrawal_fee_msat(Amount::MAX_MONEY, feerate), 430_000);
        assert!(policy.takes(policy.amount_min) && policy.takes(policy.amount_max));
        assert!(!policy.takes(policy.amount_min - Amount::ONE_SAT));
        assert!(!policy.takes(policy.amount_max + Amount::ONE_SAT));
    }
}
