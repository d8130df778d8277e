//! The configuration in the words of the rooms that it is for.

use std::time::Duration;

use bitcoin::{FeeRate, Network};

use crate::chain::fees::FEERATE_CEILING;
use crate::channels::RenewalPolicy;
use crate::config::{BatchRole, Config};
use crate::lightning::{ChannelPolicy, LDK_STRANGERS_MAX};
use crate::payments::PaymentDefaults;

/// When a tip counts as stalled; regtest has blocks only when somebody asks for them.
pub(super) fn stall_after(config: &Config) -> Option<Duration> {
    (config.network != Network::Regtest)
        .then(|| Duration::from_secs(config.chain.stall_warning_seconds))
}

/// What channels are like.
pub(super) fn policy(config: &Config) -> ChannelPolicy {
    let lightning = &config.lightning;
    ChannelPolicy {
        minimum_depth: lightning.minimum_depth,
        to_self_delay: lightning.to_self_delay,
        max_accepted_htlcs: lightning.max_accepted_htlcs,
        max_inflight_percent: lightning.max_inflight_percent,
        zero_fee_commitments: lightning.zero_fee_commitments,
        cltv_expiry_delta: lightning.cltv_expiry_delta,
        forwarding_fee_base_msat: lightning.forwarding_fee_base_msat,
        forwarding_fee_ppm: lightning.forwarding_fee_ppm,
        strangers_max: LDK_STRANGERS_MAX + users_expected(config),
        min_inbound_capacity_sat: lightning.inbound_channel_min_sat,
        accept_inbound_channels: lightning.accept_inbound_channels,
        ..ChannelPolicy::default()
    }
}

/// Users that may come to join a batch, none of whom has a channel yet.
fn users_expected(config: &Config) -> usize {
    let is_hub = matches!(config.batch.role, BatchRole::Hub | BatchRole::Both);
    if is_hub { config.batch.users_max } else { 0 }
}

/// When a channel is renewed.
pub(super) fn renewal(config: &Config) -> RenewalPolicy {
    let sat_per_vb = config.lightning.renew_feerate_max_sat_per_vb;
    RenewalPolicy {
        monitor_bytes_max: config.lightning.renew_monitor_kib.saturating_mul(1_024),
        feerate_max: FeeRate::from_sat_per_vb(sat_per_vb).unwrap_or(FEERATE_CEILING),
    }
}

/// The most that an exit pays for each transaction of its path.
pub(super) fn exit_feerate_max(config: &Config) -> FeeRate {
    let sat_per_vb = config.batch.exit_feerate_max_sat_per_vb;
    FeeRate::from_sat_per_vb(sat_per_vb).unwrap_or(FEERATE_CEILING)
}

/// What a payment may do if its request does not say.
pub(super) fn payment_defaults(config: &Config) -> PaymentDefaults {
    PaymentDefaults {
        max_fee_base_msat: config.limits.payment_fee_base_msat,
        max_fee_ppm: u64::from(config.limits.payment_fee_ppm),
        retry_for: Duration::from_secs(config.limits.payment_timeout_seconds),
        max_parts: config.limits.payment_parts_max,
        accept_keysend: true,
        open_max: usize::try_from(config.limits.payments_in_flight_max).unwrap_or(usize::MAX),
    }
}
