//! What services may ask of channels, in our own words.

use std::collections::HashSet;

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use lightning::chain::channelmonitor::Balance;
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::ln::script::ShutdownScript;
use lightning::util::config::ChannelConfigUpdate;
use lightning::util::errors::APIError;

use super::balances::balances;
use super::room::Lightning;
use super::splice::{MonitorWeight, PendingSplice, pending_splice, splice_out_max_sat};
use super::types::{ChannelId, ChannelRef, NodeId, PaymentHash};

/// A channel as LDK sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSnapshot {
    /// Our own id of it.
    pub channel: ChannelRef,
    /// LDK's id of it.
    pub channel_id: ChannelId,
    /// The counterparty.
    pub peer: NodeId,
    /// The funding output, once known.
    pub funding: Option<OutPoint>,
    /// The short channel id, once confirmed.
    pub short_channel_id: Option<u64>,
    /// Size of the funding output.
    pub capacity_sat: u64,
    /// Whether we opened it.
    pub outbound: bool,
    /// Whether it is announced.
    pub announced: bool,
    /// Whether both sides sent `channel_ready`.
    pub ready: bool,
    /// Whether it can carry payments now: ready, peer connected.
    pub usable: bool,
    /// Whether a cooperative close is under way.
    pub closing: bool,
    /// Confirmations so far and required.
    pub confirmations: (u32, u32),
    /// What we can send at most in one payment, msat.
    pub spendable_msat: u64,
    /// What we can receive, msat.
    pub receivable_msat: u64,
    /// Our balance, msat, reserve included. What is in flight belongs to nobody.
    pub local_msat: u64,
    /// The counterparty's balance as [`ChannelSnapshot::local_msat`].
    pub remote_msat: u64,
    /// What we must leave untouched, sat.
    pub reserve_sat: u64,
    /// What the counterparty must leave untouched, sat.
    pub counterparty_reserve_sat: u64,
    /// HTLCs in flight towards us.
    pub inbound_htlcs: u32,
    /// HTLCs in flight from us.
    pub outbound_htlcs: u32,
    /// Our fee per payment, msat.
    pub fee_base_msat: u32,
    /// Our fee per amount, millionths.
    pub fee_ppm: u32,
    /// Our CLTV delta, blocks.
    pub cltv_expiry_delta: u32,
    /// What the counterparty asks for forwarding, if it said so.
    pub counterparty_fees: Option<ForwardingFees>,
    /// Feerate of the commitment transaction, sat per 1,000 weight units.
    pub commitment_feerate_sat_per_kw: u32,
    /// The commitment format, in the BOLT's words.
    pub kind: &'static str,
    /// What its monitor weighs.
    pub monitor: MonitorWeight,
    /// A splice of it that is not locked yet. Until then the rest is of the old funding output.
    pub splice: Option<PendingSplice>,
    /// What we can splice out; `None` if the counterparty knows no splices.
    pub splice_out_max_sat: Option<u64>,
}

/// What a node asks for forwarding over a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardingFees {
    /// Part that does not depend on the amount, msat.
    pub base_msat: u32,
    /// Part that does, millionths.
    pub ppm: u32,
    /// Blocks between the expiries of the incoming and outgoing HTLC.
    pub cltv_expiry_delta: u16,
}

/// What stands between us and money of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimKind {
    /// Nothing yet: the channel is open.
    OnClose,
    /// Depth, a relative lock, or the transaction that brings it to the wallet.
    Confirmations,
    /// An HTLC we can claim by its preimage, against the counterparty's timeout.
    HtlcClaim,
    /// The timeout of an HTLC we sent.
    HtlcTimeout,
    /// The preimage of an HTLC sent to us.
    HtlcPreimageUnknown,
    /// The penalty transaction.
    Penalty,
}

/// Money of one channel that the chain owes us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimable {
    /// What stands between.
    pub kind: ClaimKind,
    /// Amount before the fees of claiming it, sat.
    pub amount_sat: u64,
    /// The height at which it becomes ours or can be spent, where known.
    pub height: Option<u32>,
    /// The hash, for an HTLC.
    pub hash: Option<PaymentHash>,
}

/// Money of closed or closing channels that is still on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingBalance {
    /// What comes to us if nothing more happens, sat.
    pub amount_sat: u64,
    /// What it waits for.
    pub waits_for: &'static str,
    /// The height at which it is ours, where that is known.
    pub height: Option<u32>,
}

/// What can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spendable {
    /// Channels that are ready and whose peer is online.
    pub usable: usize,
    /// What they can send together, msat: our balances above the reserves. A channel whose HTLC
    /// slots are all taken counts: it has room again in a moment.
    pub msat: u64,
}

/// Why LDK refused a command on a channel.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChannelCommandError {
    /// There is no such channel, or not in a state for this.
    #[error("channel cannot do this now: {0}")]
    Unavailable(String),
    /// The values make no sense to LDK.
    #[error("channel refused: {0}")]
    Refused(String),
    /// The address given is not the one promised at opening.
    #[error("channel must close to the address fixed when it was opened; leave the address out")]
    FixedShutdownAddress,
}

impl From<APIError> for ChannelCommandError {
    fn from(error: APIError) -> Self {
        match error {
            APIError::ChannelUnavailable { err } => Self::Unavailable(err),
            APIError::MonitorUpdateInProgress => {
                Self::Unavailable("a write is under way; try again".into())
            }
            APIError::IncompatibleShutdownScript { .. } => Self::FixedShutdownAddress,
            APIError::APIMisuseError { err }
            | APIError::InvalidRoute { err }
            | APIError::FeeRateTooHigh { err, .. } => Self::Refused(err),
        }
    }
}

/// What a channel is opened with.
#[derive(Debug, Clone)]
pub struct OpenChannel {
    /// Our id for it.
    pub channel: ChannelRef,
    /// With whom; must be connected.
    pub peer: NodeId,
    /// Size, sat.
    pub capacity_sat: u64,
    /// What the counterparty gets of it at once, msat.
    pub push_msat: u64,
    /// Whether to announce it.
    pub announced: bool,
    /// Whether the counterparty may spend its whole balance, and so risk nothing by cheating.
    pub zero_reserve: bool,
    /// What to ask for forwarding; `None` for the node's setting.
    pub fees: Option<ForwardingFees>,
    /// Least blocks between the expiries of the incoming and outgoing HTLC.
    pub cltv_expiry_delta_min: u16,
}

impl Lightning {
    /// Asks the peer to open a channel. `FundingNeeded` follows if it agrees.
    pub fn open_channel(&self, open: OpenChannel) -> Result<ChannelId, ChannelCommandError> {
        let mut config = self.parts.manager.get_current_config();
        config.channel_handshake_config.announce_for_forwarding = open.announced;
        if open.announced {
            // The two exclude each other: an announced channel has a public scid.
            config.channel_handshake_config.negotiate_scid_privacy = false;
        }
        if let Some(fees) = open.fees {
            config.channel_config.forwarding_fee_base_msat = fees.base_msat;
            config.channel_config.forwarding_fee_proportional_millionths = fees.ppm;
            config.channel_config.cltv_expiry_delta = fees.cltv_expiry_delta;
        }
        let delta = &mut config.channel_config.cltv_expiry_delta;
        *delta = (*delta).max(open.cltv_expiry_delta_min);
        let manager = &self.parts.manager;
        let OpenChannel { peer, capacity_sat, push_msat, .. } = open;
        let user = open.channel.to_user();
        let config = Some(config);
        let id = if open.zero_reserve {
            manager.create_channel_to_trusted_peer_0reserve(
                peer,
                capacity_sat,
                push_msat,
                user,
                None,
                config,
            )
        } else {
            manager.create_channel(peer, capacity_sat, push_msat, user, None, config)
        }?;
        Ok(id.into())
    }

    /// Gives LDK the funding transaction of a channel it asked one for.
    pub fn provide_funding(
        &self,
        temporary_id: ChannelId,
        peer: NodeId,
        transaction: Transaction,
    ) -> Result<(), ChannelCommandError> {
        self.parts.manager.funding_transaction_generated(temporary_id.into(), peer, transaction)?;
        Ok(())
    }

    /// Accepts a channel a peer wants to open to us.
    pub fn accept_channel(
        &self,
        temporary_id: ChannelId,
        peer: NodeId,
        channel: ChannelRef,
    ) -> Result<(), ChannelCommandError> {
        let id = temporary_id.into();
        self.parts.manager.accept_inbound_channel(&id, &peer, channel.to_user(), None)?;
        Ok(())
    }

    /// Starts a cooperative close, to `script` or else to an address of our wallet.
    pub fn close_channel(
        &self,
        channel_id: ChannelId,
        peer: NodeId,
        script: Option<ScriptBuf>,
        feerate_sat_per_kw: Option<u32>,
    ) -> Result<(), ChannelCommandError> {
        let script = script
            .map(ShutdownScript::try_from)
            .transpose()
            .map_err(|_| ChannelCommandError::Refused("the address is not a segwit one".into()))?;
        self.parts.manager.close_channel_with_feerate_and_script(
            &channel_id.into(),
            &peer,
            feerate_sat_per_kw,
            script,
        )?;
        Ok(())
    }

    /// Ends a channel by publishing our commitment, or drops one that was never funded. `why`
    /// is told to the peer.
    pub fn force_close_channel(
        &self,
        channel_id: ChannelId,
        peer: NodeId,
        why: &str,
    ) -> Result<(), ChannelCommandError> {
        let id = channel_id.into();
        self.parts.manager.force_close_broadcasting_latest_txn(&id, &peer, why.to_owned())?;
        Ok(())
    }

    /// Changes what we charge for forwarding over a channel.
    pub fn update_policy(
        &self,
        channel_id: ChannelId,
        peer: NodeId,
        fee_base_msat: Option<u32>,
        fee_ppm: Option<u32>,
        cltv_expiry_delta: Option<u16>,
    ) -> Result<(), ChannelCommandError> {
        let update = ChannelConfigUpdate {
            forwarding_fee_base_msat: fee_base_msat,
            forwarding_fee_proportional_millionths: fee_ppm,
            cltv_expiry_delta,
            ..ChannelConfigUpdate::default()
        };
        self.parts.manager.update_partial_channel_config(&peer, &[channel_id.into()], &update)?;
        Ok(())
    }

    /// What a channel asks for between the expiries of HTLCs if nobody says otherwise, in blocks.
    pub fn usual_cltv_expiry_delta(&self) -> u16 {
        self.parts.manager.get_current_config().channel_config.cltv_expiry_delta
    }

    /// What all usable channels together can send now.
    pub fn spendable(&self) -> Spendable {
        let channels = self.parts.manager.list_usable_channels();
        Spendable {
            usable: channels.len(),
            msat: channels.iter().map(|channel| channel.outbound_capacity_msat).sum(),
        }
    }

    /// Whether a channel would carry `amount_msat` if HTLCs of ours under way in it had ended.
    pub fn is_full_for(&self, amount_msat: u64) -> bool {
        self.parts.manager.list_usable_channels().iter().any(|channel| {
            channel.outbound_capacity_msat >= amount_msat
                && channel.next_outbound_htlc_limit_msat < amount_msat
                && !channel.pending_outbound_htlcs.is_empty()
        })
    }

    /// The channels as they are now, in no order.
    pub fn channels(&self) -> Vec<ChannelSnapshot> {
        let weights = self.parts.persister.weights();
        let weight = |id: ChannelId| weights.get(&id).copied().unwrap_or_default();
        let channels = self.parts.manager.list_channels();
        channels
            .iter()
            .map(|details| snapshot(details, weight(details.channel_id.into())))
            .collect()
    }

    /// The height at which the first HTLC in flight expires.
    pub fn next_expiry(&self) -> Option<u32> {
        let channels = self.parts.manager.list_channels();
        let expiries = channels.iter().flat_map(|channel| {
            let offered = channel.pending_outbound_htlcs.iter().map(|htlc| htlc.cltv_expiry);
            channel.pending_inbound_htlcs.iter().map(|htlc| htlc.cltv_expiry).chain(offered)
        });
        expiries.min()
    }

    /// Money of one channel that the chain owes us: what LDK watches, and what it sweeps.
    pub fn claimable(&self, channel_id: ChannelId) -> Vec<Claimable> {
        let mut claimable: Vec<Claimable> =
            match self.parts.chain_monitor.get_monitor(channel_id.into()) {
                Ok(monitor) if !self.parts.persister.is_dead(&monitor.persistence_key()) => {
                    monitor.get_claimable_balances().iter().map(claim).collect()
                }
                _ => Vec::new(),
            };
        let ours = Some(channel_id.into());
        for output in self.parts.sweeper.tracked_spendable_outputs() {
            use lightning::sign::SpendableOutputDescriptor as D;
            use lightning::util::sweep::OutputSpendStatus as S;
            // Once the sweep is in a block, the wallet counts it.
            if output.channel_id != ours
                || matches!(output.status, S::PendingThresholdConfirmations { .. })
            {
                continue;
            }
            let amount = match &output.descriptor {
                D::StaticOutput { .. } => continue,
                D::DelayedPaymentOutput(o) => o.output.value,
                D::StaticPaymentOutput(o) => o.output.value,
            };
            claimable.push(Claimable {
                kind: ClaimKind::Confirmations,
                amount_sat: amount.to_sat(),
                height: None,
                hash: None,
            });
        }
        claimable
    }

    /// Money of closed channels that LDK still watches or sweeps. That of a closed channel of a
    /// batch waits for the batch to be settled, and is the wallet's then.
    pub fn pending_balances(&self) -> Vec<PendingBalance> {
        let open: HashSet<_> =
            self.parts.manager.list_channels().iter().map(|details| details.channel_id).collect();
        let monitors = self.parts.chain_monitor.list_monitors().into_iter();
        let mut pending: Vec<PendingBalance> = Vec::new();
        for monitor in monitors.filter(|id| !open.contains(id)) {
            let Ok(monitor) = self.parts.chain_monitor.get_monitor(monitor) else { continue };
            if self.parts.persister.is_dead(&monitor.persistence_key()) {
                continue;
            }
            let balances = monitor.get_claimable_balances();
            match self.parts.confirmations.is_taken(monitor.get_funding_txo().txid) {
                None => pending.extend(balances.iter().map(pending_balance)),
                Some(true) => {}
                Some(false) => {
                    let ours = balances.iter().map(pending_balance).filter(|b| b.amount_sat > 0);
                    let waiting = |balance| PendingBalance { waits_for: "its batch", ..balance };
                    pending.extend(ours.map(waiting));
                }
            }
        }
        pending.extend(self.parts.sweeper.tracked_spendable_outputs().iter().filter_map(
            |output| {
                use lightning::util::sweep::OutputSpendStatus as S;
                let amount_sat = match &output.descriptor {
                    lightning::sign::SpendableOutputDescriptor::StaticOutput { .. } => {
                        return None;
                    }
                    lightning::sign::SpendableOutputDescriptor::DelayedPaymentOutput(o) => {
                        o.output.value.to_sat()
                    }
                    lightning::sign::SpendableOutputDescriptor::StaticPaymentOutput(o) => {
                        o.output.value.to_sat()
                    }
                };
                match &output.status {
                    S::PendingInitialBroadcast { .. } | S::PendingFirstConfirmation { .. } => {
                        Some(PendingBalance { amount_sat, waits_for: "sweep", height: None })
                    }
                    // The wallet counts it from here on.
                    S::PendingThresholdConfirmations { .. } => None,
                }
            },
        ));
        pending
    }
}

fn snapshot(details: &ChannelDetails, monitor: MonitorWeight) -> ChannelSnapshot {
    let (local_msat, remote_msat) = balances(details);
    let kind = match &details.channel_type {
        Some(features) if features.supports_anchor_zero_fee_commitments() => "zero_fee_commitments",
        Some(features) if features.supports_anchors_zero_fee_htlc_tx() => "anchors_zero_fee_htlc",
        Some(_) => "static_remotekey",
        None => "negotiating",
    };
    let (fee_base_msat, fee_ppm, cltv_expiry_delta) = details.config.map_or((0, 0, 0), |config| {
        (
            config.forwarding_fee_base_msat,
            config.forwarding_fee_proportional_millionths,
            u32::from(config.cltv_expiry_delta),
        )
    });
    ChannelSnapshot {
        channel: ChannelRef::from_user(details.user_channel_id),
        channel_id: details.channel_id.into(),
        peer: details.counterparty.node_id,
        funding: details.funding_txo.map(|outpoint| outpoint.into_bitcoin_outpoint()),
        short_channel_id: details.short_channel_id,
        capacity_sat: details.channel_value_satoshis,
        outbound: details.is_outbound,
        announced: details.is_announced,
        ready: details.is_channel_ready,
        usable: details.is_usable,
        closing: !matches!(
            details.channel_shutdown_state,
            None | Some(ChannelShutdownState::NotShuttingDown)
        ),
        confirmations: (
            details.confirmations.unwrap_or(0),
            details.confirmations_required.unwrap_or(0),
        ),
        spendable_msat: details.next_outbound_htlc_limit_msat,
        receivable_msat: details.inbound_capacity_msat,
        local_msat,
        remote_msat,
        reserve_sat: details.unspendable_punishment_reserve.unwrap_or(0),
        counterparty_reserve_sat: details.counterparty.unspendable_punishment_reserve,
        inbound_htlcs: u32::try_from(details.pending_inbound_htlcs.len()).unwrap_or(u32::MAX),
        outbound_htlcs: u32::try_from(details.pending_outbound_htlcs.len()).unwrap_or(u32::MAX),
        fee_base_msat,
        fee_ppm,
        cltv_expiry_delta,
        counterparty_fees: details.counterparty.forwarding_info.as_ref().map(|info| {
            ForwardingFees {
                base_msat: info.fee_base_msat,
                ppm: info.fee_proportional_millionths,
                cltv_expiry_delta: info.cltv_expiry_delta,
            }
        }),
        commitment_feerate_sat_per_kw: details.feerate_sat_per_1000_weight.unwrap_or(0),
        kind,
        monitor,
        splice: pending_splice(details),
        splice_out_max_sat: splice_out_max_sat(details),
    }
}

fn claim(balance: &Balance) -> Claimable {
    let (kind, height, hash, amount_sat) = match balance {
        Balance::ClaimableOnChannelClose { .. } => {
            (ClaimKind::OnClose, None, None, balance.claimable_amount_satoshis())
        }
        Balance::ClaimableAwaitingConfirmations {
            amount_satoshis, confirmation_height, ..
        } => (ClaimKind::Confirmations, Some(*confirmation_height), None, *amount_satoshis),
        Balance::ContentiousClaimable { amount_satoshis, timeout_height, payment_hash, .. } => {
            (ClaimKind::HtlcClaim, Some(*timeout_height), Some(*payment_hash), *amount_satoshis)
        }
        Balance::MaybeTimeoutClaimableHTLC {
            amount_satoshis,
            claimable_height,
            payment_hash,
            ..
        } => {
            (ClaimKind::HtlcTimeout, Some(*claimable_height), Some(*payment_hash), *amount_satoshis)
        }
        Balance::MaybePreimageClaimableHTLC { amount_satoshis, expiry_height, payment_hash } => (
            ClaimKind::HtlcPreimageUnknown,
            Some(*expiry_height),
            Some(*payment_hash),
            *amount_satoshis,
        ),
        Balance::CounterpartyRevokedOutputClaimable { amount_satoshis } => {
            (ClaimKind::Penalty, None, None, *amount_satoshis)
        }
    };
    Claimable { kind, amount_sat, height, hash: hash.map(Into::into) }
}

fn pending_balance(balance: &Balance) -> PendingBalance {
    let (waits_for, height) = match balance {
        Balance::ClaimableOnChannelClose { .. } => ("commitment", None),
        Balance::ClaimableAwaitingConfirmations { confirmation_height, .. } => {
            ("confirmations", Some(*confirmation_height))
        }
        Balance::ContentiousClaimable { timeout_height, .. } => {
            ("claim before timeout", Some(*timeout_height))
        }
        Balance::MaybeTimeoutClaimableHTLC { claimable_height, .. } => {
            ("timeout", Some(*claimable_height))
        }
        Balance::MaybePreimageClaimableHTLC { expiry_height, .. } => {
            ("preimage", Some(*expiry_height))
        }
        Balance::CounterpartyRevokedOutputClaimable { .. } => ("penalty", None),
    };
    PendingBalance { amount_sat: balance.claimable_amount_satoshis(), waits_for, height }
}
