//! What a hub offers and a user accepts.

use bitcoin::FeeRate;
use channel_contracts::batch::hub::HubPolicy;
use channel_contracts::batch::user::UserPolicy;

use crate::chain::fees::FEERATE_CEILING;
use crate::config::BatchConfig;
pub use crate::config::BatchRole;

/// What this node does in batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPolicy {
    /// What it was made from.
    pub config: BatchConfig,
    /// Hub, user, both or neither.
    pub role: BatchRole,
    /// What it offers as a hub.
    pub hub: HubPolicy,
    /// What it accepts as a user.
    pub user: UserPolicy,
    /// Blocks from the confirmation of a batch to its expiry.
    pub life: u32,
    /// The most users whose batches expire within a day.
    pub expiring_max: usize,
    /// What it is worth to the hub to have a satoshi back a whole life before the expiry, in
    /// millionths of it.
    pub early_value_ppm: u32,
    /// Blocks without another release before paths of users who keep their keys are published.
    pub reclaim_patience: u32,
    /// The most that transactions which settle a batch pay.
    pub settle_feerate_max: FeeRate,
}

impl BatchPolicy {
    /// From the configuration.
    pub fn new(config: &BatchConfig) -> Self {
        let sat = bitcoin::Amount::from_sat;
        let step_ms = config.step_seconds * 1_000;
        Self {
            config: config.clone(),
            role: config.role,
            hub: HubPolicy {
                users_max: config.users_max,
                gathering_ms: config.gathering_ms,
                step_ms,
                funding_ms: 3 * step_ms,
                capacity_min: sat(config.capacity_min_sat),
                capacity_max: sat(config.capacity_max_sat),
                fee: sat(config.fee_sat),
            },
            user: UserPolicy {
                // The hub waits for the slowest user at each step.
                step_ms: 6 * step_ms,
                fee_max: sat(config.fee_max_sat),
                life_min: config.life_blocks / 2,
                ..UserPolicy::default()
            },
            life: config.life_blocks,
            expiring_max: config.expiring_users_max,
            early_value_ppm: config.early_value_ppm,
            reclaim_patience: config.reclaim_patience_blocks,
            settle_feerate_max: FeeRate::from_sat_per_vb(config.exit_feerate_max_sat_per_vb)
                .unwrap_or(FEERATE_CEILING),
        }
    }
}
