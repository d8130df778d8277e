//! Every `UserConfig` field of LDK with its reason.
//!
//! Fields are named one by one, so that a new one in LDK fails to compile here and gets thought
//! about, rather than a default nobody chose.

use super::strangers::LDK_STRANGERS_MAX;
use lightning::util::config::{
    ChannelConfig, ChannelHandshakeConfig, ChannelHandshakeLimits, MaxDustHTLCExposure, UserConfig,
};

/// What an operator decides about channels. The rest of `UserConfig` is decided here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// Confirmations before a channel opened to us is usable, at least 1.
    pub minimum_depth: u32,
    /// Blocks the counterparty waits for its own money after it closes alone: our time to punish.
    pub to_self_delay: u16,
    /// HTLCs the counterparty may have in flight towards us, 1 to 483.
    pub max_accepted_htlcs: u16,
    /// Share of a channel that may be in flight towards us, 1 to 100 percent.
    pub max_inflight_percent: u8,
    /// Smallest HTLC we take, in msat, at least 1.
    pub htlc_minimum_msat: u64,
    /// Whether to prefer commitments without fee (TRUC and P2A) over anchors.
    pub zero_fee_commitments: bool,
    /// Blocks between an incoming HTLC's expiry and its outgoing one's.
    pub cltv_expiry_delta: u16,
    /// Fee per forwarded payment, in msat.
    pub forwarding_fee_base_msat: u32,
    /// Fee per forwarded amount, in millionths.
    pub forwarding_fee_ppm: u32,
    /// Most that dust HTLCs may lose to miners in a force-close, in sat.
    pub max_dust_exposure_sat: u64,
    /// Peers without a channel that may be connected at a time, at least 250.
    pub strangers_max: usize,
    /// Smallest channel we take from a peer, in sat.
    pub min_inbound_capacity_sat: u64,
    /// Whether peers may open channels to us.
    pub accept_inbound_channels: bool,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        Self {
            minimum_depth: 3,
            to_self_delay: 144,
            max_accepted_htlcs: 483,
            max_inflight_percent: 100,
            htlc_minimum_msat: 1,
            zero_fee_commitments: true,
            cltv_expiry_delta: 72,
            forwarding_fee_base_msat: 1_000,
            forwarding_fee_ppm: 100,
            max_dust_exposure_sat: 150_000,
            strangers_max: LDK_STRANGERS_MAX,
            min_inbound_capacity_sat: 20_000,
            accept_inbound_channels: true,
        }
    }
}

/// Builds LDK's configuration from `policy`.
pub fn user_config(policy: &ChannelPolicy) -> UserConfig {
    UserConfig {
        channel_handshake_config: ChannelHandshakeConfig {
            minimum_depth: policy.minimum_depth,
            our_to_self_delay: policy.to_self_delay,
            // Micropayments are the point; LDK's default is the same 1 msat.
            our_htlc_minimum_msat: policy.htlc_minimum_msat,
            // LDK's 25 % of announced channels throttles a hub that trusts its own watching.
            announced_channel_max_inbound_htlc_value_in_flight_percentage: policy
                .max_inflight_percent,
            unannounced_channel_max_inbound_htlc_value_in_flight_percentage: policy
                .max_inflight_percent,
            // A private channel's funding output stays out of invoices.
            negotiate_scid_privacy: true,
            // Decided per channel when it is opened.
            announce_for_forwarding: false,
            // A thief who has our node cannot redirect a cooperative close.
            commit_upfront_shutdown_pubkey: true,
            // 1 %, the network's custom: what a cheater stakes.
            their_channel_reserve_proportional_millionths: 10_000,
            // The fallback where the peer has no zero-fee commitments.
            negotiate_anchors_zero_fee_htlc_tx: true,
            negotiate_anchor_zero_fee_commitments: policy.zero_fee_commitments,
            // LDK lowers this to 114 on zero-fee commitments, where TRUC limits their size.
            our_max_accepted_htlcs: policy.max_accepted_htlcs,
        },
        channel_handshake_limits: ChannelHandshakeLimits {
            min_funding_satoshis: policy.min_inbound_capacity_sat,
            // A peer that refuses small payments is of no use to micropayments.
            max_htlc_minimum_msat: 1_000_000,
            // A peer may limit its own exposure as it likes.
            min_max_htlc_value_in_flight_msat: 0,
            // The most of our own money a peer may ask us to leave untouched is up to the
            // channel's size, which LDK bounds.
            max_channel_reserve_satoshis: u64::MAX,
            min_max_accepted_htlcs: 0,
            // A day: beyond that a peer wastes our coins.
            max_minimum_depth: 144,
            // Our wallet never double-spends a funding transaction: coins stay reserved.
            trust_own_funding_0conf: true,
            // Peers may open announced or private channels; the operator decides by peer.
            force_announced_channel_preference: false,
            // LDK's maximum: two weeks of our money locked after we close alone.
            their_to_self_delay: 2016,
        },
        channel_config: ChannelConfig {
            forwarding_fee_proportional_millionths: policy.forwarding_fee_ppm,
            forwarding_fee_base_msat: policy.forwarding_fee_base_msat,
            cltv_expiry_delta: policy.cltv_expiry_delta,
            // LDK's multiplier would be 2,500 sat on zero-fee commitments: eight payments of
            // 300 sat. A micropayment node accepts more, and says how much.
            max_dust_htlc_exposure: MaxDustHTLCExposure::FixedLimitMsat(
                policy.max_dust_exposure_sat.saturating_mul(1_000),
            ),
            // What we pay at most above our own feerate rather than close by force, as the opener of
            // a channel that the peer asks to close. LND names one fee and no range, from its own
            // estimate for six blocks; LDK closes by force where that is more than we allow, and a
            // force-close with its sweeps costs some hundred virtual bytes more and days of delay.
            force_close_avoidance_max_fee_satoshis: 20_000,
            // No skimming by upstream peers; a later room for JIT channels decides otherwise.
            accept_underpaying_htlcs: false,
        },
        // Wallets hang on private channels: a hub that does not forward to them is no hub.
        accept_forwards_to_priv_channels: true,
        accept_inbound_channels: policy.accept_inbound_channels,
        // Nothing is intercepted: forwards are LDK's own business.
        htlc_interception_flags: 0,
        // LDK answers and pays BOLT 12 invoices by itself; our record is the payment.
        manually_handle_bolt12_invoices: false,
        // V1 funding only: our wallet funds what it opens.
        enable_dual_funded_channels: false,
        // Async payments are not offered.
        enable_htlc_hold: false,
        hold_outbound_htlcs_at_next_hop: false,
        // A peer may renew the channel's funding, and put in or take out what is its own: LDK
        // checks that ours stays. Channels of a batch (to come) must refuse: their funding is a
        // leaf whose transactions are signed once.
        reject_inbound_splices: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_closes_at_a_hundred_sat_per_vbyte_is_no_reason_for_force() {
        // A closing transaction with two taproot outputs has 174 virtual bytes.
        let most = user_config(&ChannelPolicy::default()).channel_config;
        assert!(most.force_close_avoidance_max_fee_satoshis >= 174 * 100);
    }

    #[test]
    fn hub_limits_are_not_ldk_defaults() {
        let config = user_config(&ChannelPolicy::default());
        let handshake = &config.channel_handshake_config;
        assert_eq!(handshake.our_max_accepted_htlcs, 483);
        assert_eq!(handshake.announced_channel_max_inbound_htlc_value_in_flight_percentage, 100);
        assert_eq!(
            config.channel_config.max_dust_htlc_exposure,
            MaxDustHTLCExposure::FixedLimitMsat(150_000_000)
        );
    }
}
