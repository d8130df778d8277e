//! What LDK is asked for channels that a batch funds: each funding output is an output of a leaf,
//! signed before the channel and confirmed virtually.
//!
//! The order is BATCHES §3: open and accept (step 2), compare the funding output with the path
//! (3 to 5), name the outpoint (6). LDK keeps no unfunded channel over a restart, so none of it
//! is ever resumed: after a restart a round begins anew. Nor does it keep one for more than 60 of
//! its ticks: an hour, and as little as a minute on a node that itself pays a thousand times a
//! second (`driver.rs`).

use std::collections::BTreeMap;

use bitcoin::{Network, OutPoint, Transaction, TxOut, absolute};
use channel_contracts::batch::{Deadlines, PendingHtlc};
use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::events::Event;
use lightning::ln::channel_state::InboundHTLCStateDetails;
use lightning::ln::channelmanager::{MIN_FINAL_CLTV_EXPIRY_DELTA, TrustedChannelFeatures};
use lightning::util::config::{ChannelConfigOverrides, ChannelHandshakeConfigUpdate};

use super::build::Parts;
use super::channels::{ChannelCommandError, ForwardingFees, OpenChannel};
use super::room::Lightning;
use super::types::{ChannelId, ChannelRef, NodeId};
use super::withheld::WithheldKind;
use crate::store::Ticket;

/// More than any deadline lies before its batch's expiry, in blocks.
const DEADLINE_RESERVE: u32 = 200;
/// Least confirmations of a root before its channels are used. With one, a reorg of one block
/// closes every channel of the batch (BATCHES §4.3).
const DEPTH_MIN: u32 = 3;
/// As [`DEPTH_MIN`], on mainnet.
const DEPTH_MIN_MAINNET: u32 = 6;

/// A channel before LDK knows its funding outpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfundedChannel {
    /// LDK's id of it until then.
    pub temporary_id: ChannelId,
    /// The counterparty.
    pub peer: NodeId,
    /// What its funding output must be.
    pub funding_output: TxOut,
    /// Confirmations it will ask for: the acceptor's word.
    pub confirmations_required: u32,
}

impl Lightning {
    /// Asks `peer` for a private channel that a batch will fund by a path of at most `levels`
    /// transactions, all of it ours at first, without reserves. What is forwarded over it has
    /// time for the path (BATCHES §5.5). The funding output is known once the peer accepts, when
    /// `FundingNeeded` comes.
    pub fn open_virtual_channel(
        &self,
        channel: ChannelRef,
        peer: NodeId,
        capacity_sat: u64,
        levels: usize,
        fees: Option<ForwardingFees>,
    ) -> Result<ChannelId, ChannelCommandError> {
        let deadlines = Deadlines::new(absolute::Height::MAX, levels).ok();
        let delta = deadlines.map_or(0, |d| d.cltv_expiry_delta_min().0);
        self.open_channel(OpenChannel {
            channel,
            peer,
            capacity_sat,
            push_msat: 0,
            announced: false,
            zero_reserve: true,
            fees,
            cltv_expiry_delta_min: u16::try_from(delta).unwrap_or(u16::MAX),
        })
    }

    /// Accepts a channel that a batch of `peer` will fund, without reserves.
    pub fn accept_virtual_channel(
        &self,
        temporary_id: ChannelId,
        peer: NodeId,
        channel: ChannelRef,
    ) -> Result<(), ChannelCommandError> {
        let manager = &self.parts.manager;
        let configured = manager.get_current_config().channel_handshake_config.minimum_depth;
        let overrides = ChannelConfigOverrides {
            handshake_overrides: Some(ChannelHandshakeConfigUpdate {
                minimum_depth: Some(configured.max(self.virtual_depth_min())),
                announced_channel_max_inbound_htlc_value_in_flight_percentage: None,
                unannounced_channel_max_inbound_htlc_value_in_flight_percentage: None,
                htlc_minimum_msat: None,
                to_self_delay: None,
                max_accepted_htlcs: None,
                channel_reserve_proportional_millionths: None,
            }),
            update_overrides: None,
        };
        manager.accept_inbound_channel_from_trusted_peer(
            &temporary_id.into(),
            &peer,
            channel.to_user(),
            TrustedChannelFeatures::ZeroReserve,
            Some(overrides),
        )?;
        Ok(())
    }

    /// Least `min_final_cltv_expiry_delta` of an invoice: any channel may carry its payment, and
    /// a claim on one of a batch takes its path first (BATCHES §5.5).
    pub(super) fn final_cltv_min(&self) -> u16 {
        let levels = self.parts.confirmations.levels_max();
        let deadlines = Deadlines::new(absolute::Height::MAX, levels).ok();
        let virtual_min = deadlines.map_or(0, |d| d.min_final_cltv_expiry_delta_min().0);
        MIN_FINAL_CLTV_EXPIRY_DELTA.max(u16::try_from(virtual_min).unwrap_or(u16::MAX))
    }

    /// Least confirmations of a root on this network.
    pub fn virtual_depth_min(&self) -> u32 {
        match self.parts.network {
            Network::Bitcoin => DEPTH_MIN_MAINNET,
            _ => DEPTH_MIN,
        }
    }

    /// Returns `channel` while it has no funding outpoint. Either side knows its funding output
    /// once the acceptor has answered.
    pub fn unfunded_channel(&self, channel: ChannelRef) -> Option<UnfundedChannel> {
        let channels = self.parts.manager.list_channels();
        let details = channels.into_iter().find(|details| {
            details.user_channel_id == channel.to_user() && details.funding_txo.is_none()
        })?;
        Some(UnfundedChannel {
            temporary_id: details.channel_id.into(),
            peer: details.counterparty.node_id,
            funding_output: details.get_funding_output()?,
            confirmations_required: details.confirmations_required.unwrap_or(0),
        })
    }

    /// Returns the HTLCs of `channel` that may need the chain one day.
    pub fn pending_htlcs(&self, channel: ChannelRef) -> Vec<PendingHtlc> {
        let channels = self.parts.manager.list_channels();
        let details = channels.into_iter().find(|d| d.user_channel_id == channel.to_user());
        let Some(details) = details else { return vec![] };
        let peer_reachable = self.is_connected(&details.counterparty.node_id);
        let expiry = |height| absolute::Height::from_consensus(height).ok();
        let inbound = details.pending_inbound_htlcs.iter().filter_map(|htlc| {
            // We have claimed it, and the counterparty has not let go of it yet.
            let claimable =
                htlc.state == Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFulfill);
            let cltv_expiry = expiry(htlc.cltv_expiry)?;
            Some(PendingHtlc { cltv_expiry, claimable, peer_reachable })
        });
        let outbound = details.pending_outbound_htlcs.iter().filter_map(|htlc| {
            let cltv_expiry = expiry(htlc.cltv_expiry)?;
            Some(PendingHtlc { cltv_expiry, claimable: false, peer_reachable })
        });
        inbound.chain(outbound).collect()
    }

    /// Tells LDK which output of a leaf funds a channel, once per channel. `FundingSafe` follows
    /// when both sides hold commitments. LDK checks nothing of the outpoint: the path must have
    /// been verified, and the batch recorded.
    ///
    /// LDK drops unfunded channels at a restart, so a caller never has to repeat this after one.
    pub fn provide_virtual_funding(
        &self,
        temporary_id: ChannelId,
        peer: NodeId,
        funding: OutPoint,
    ) -> Result<(), ChannelCommandError> {
        let index = u16::try_from(funding.vout).map_err(|_| {
            ChannelCommandError::Refused(format!("{funding} is beyond 65,535 outputs"))
        })?;
        let funding = LdkOutPoint { txid: funding.txid, index };
        self.parts.manager.unsafe_manual_funding_transaction_generated(
            temporary_id.into(),
            peer,
            funding,
        )?;
        Ok(())
    }

    /// Whether a payment that waits to be claimed came over a channel of a batch and could not be
    /// claimed on chain before that batch's deadline (BATCHES §5.3): it is not taken.
    pub(super) fn outlives_its_batch(parts: &Parts, event: &Event) -> bool {
        let Event::PaymentClaimable {
            claim_deadline: Some(deadline), receiving_channel_ids, ..
        } = event
        else {
            return false;
        };
        let expires = deadline.saturating_add(HTLC_FAIL_BACK_BUFFER);
        let Some(soonest) = parts.confirmations.soonest_expiry() else { return false };
        if expires.saturating_add(DEADLINE_RESERVE) < soonest.to_consensus_u32() {
            return false;
        }
        let Ok(expires) = absolute::Height::from_consensus(expires) else { return true };
        let channels = parts.manager.list_channels();
        let over = channels.iter().filter(|details| {
            receiving_channel_ids.iter().any(|(id, _)| *id == details.channel_id)
        });
        over.filter_map(|details| parts.confirmations.deadlines(details.funding_txo?.txid))
            .any(|deadlines| !deadlines.may_hold(expires))
    }

    /// The funding outpoints, outputs of leaves, that transactions of LDK wait for, and what
    /// waits. Where a commitment does, somebody has to publish the path to the leaf; a closing
    /// transaction alone asks for nothing.
    pub fn withheld_leaves(&self) -> BTreeMap<OutPoint, WithheldKind> {
        self.parts.gate.withheld.leaves()
    }

    /// The closing transaction of the retired channel with the funding output `funding`, parked
    /// until somebody puts that on chain.
    pub fn parked_closing(&self, funding: OutPoint) -> Option<Transaction> {
        self.parts.gate.withheld.parked(funding)
    }

    /// The funding outputs that closing transactions are parked for.
    pub fn parked_fundings(&self) -> Vec<OutPoint> {
        self.parts.gate.withheld.parked_leaves()
    }

    /// Forgets what waits for `funding`: it can never be on chain any more, or what spends it is
    /// buried.
    pub fn forget_withheld(&self, funding: OutPoint) -> Ticket {
        self.parts.gate.withheld.forget(funding)
    }

    /// How many HTLCs of a closed channel LDK still watches.
    pub fn watched_htlcs(&self, channel_id: ChannelId) -> usize {
        self.claimable(channel_id).iter().filter(|claim| claim.hash.is_some()).count()
    }

    /// Lets go of the monitor of a channel that is closed and whose funding output can never be on
    /// chain any more: the next start leaves it out. The mark is durable with the ticket. `None`
    /// while the channel is open or has HTLCs, or if there is no such monitor.
    pub fn forget_monitor(&self, channel_id: ChannelId) -> Option<Ticket> {
        let parts = &self.parts;
        let is_open =
            parts.manager.list_channels().iter().any(|open| open.channel_id == channel_id.into());
        if is_open || self.watched_htlcs(channel_id) > 0 {
            return None;
        }
        let monitor = parts.chain_monitor.get_monitor(channel_id.into()).ok()?;
        Some(parts.persister.mark_dead(&monitor.persistence_key()))
    }

    /// Whether LDK still watches the chain for `channel_id`.
    pub fn has_monitor(&self, channel_id: ChannelId) -> bool {
        self.parts.chain_monitor.get_monitor(channel_id.into()).is_ok()
    }
}
