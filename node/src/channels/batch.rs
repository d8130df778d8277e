//! Channels that a batch funds: the records around them, and what the batch service asks for.
//!
//! They are ordinary channels but for their beginning: the funding output is not made by our
//! wallet, so the service that runs the batch says when to go on, and nothing here times out. A
//! channel that a peer opens for a batch is accepted only if it was expected. Neither survives a
//! restart before it is funded: LDK drops it, and its record ends.

use bitcoin::OutPoint;

use super::record::{ChannelRecord, ChannelState};
use super::request::OpenError;
use super::service::Channels;
use crate::journal::ChannelEvent;
use crate::lightning::types::{ChannelId, ChannelRef, NodeId};
use crate::lightning::{ChannelCommandError, CloseKind, ForwardingFees};

/// A channel that a peer is to open to us for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub channel: ChannelRef,
    pub peer: NodeId,
    pub capacity_sat: u64,
}

impl Channels {
    /// Asks `peer`, who must be connected, for a channel that a batch will fund by a path of at
    /// most `levels` transactions.
    /// `Lightning::unfunded_channel` has its funding output once the peer has agreed.
    ///
    /// # Errors
    ///
    /// [`OpenError::Refused`]: the record of the channel says that it never came to be.
    pub fn open_for_batch(
        &self,
        peer: NodeId,
        capacity_sat: u64,
        levels: usize,
        fees: Option<ForwardingFees>,
    ) -> Result<ChannelRef, OpenError> {
        let channel = ChannelRef(self.parts.entropy.bytes());
        self.append(ChannelEvent::OpenRequested {
            channel,
            peer,
            capacity_sat,
            push_msat: 0,
            announced: false,
            feerate_sat_per_vb: None,
            batch: true,
        });
        match self.parts.lightning.open_virtual_channel(channel, peer, capacity_sat, levels, fees) {
            Ok(_until_it_is_funded) => Ok(channel),
            Err(error) => {
                self.never_opened(channel, &error);
                Err(error.into())
            }
        }
    }

    /// Lets `peer` open one channel of exactly `capacity_sat` for a batch, without reserves.
    /// Returns the id of its record, which begins here. That it is expected is kept in memory,
    /// like the registration it belongs to: a restart ends it.
    pub fn expect_for_batch(&self, peer: NodeId, capacity_sat: u64) -> ChannelRef {
        let channel = ChannelRef(self.parts.entropy.bytes());
        self.append(ChannelEvent::InboundAccepted {
            channel,
            peer,
            capacity_sat,
            push_msat: 0,
            announced: false,
            batch: true,
        });
        self.expected.lock().push(Expected { channel, peer, capacity_sat });
        channel
    }

    /// Names the output of a leaf that funds a channel of a batch. To be called once, when the
    /// batch is recorded; `FundingSafe` follows.
    ///
    /// # Errors
    ///
    /// If the channel is not, or no longer, an unfunded one of a batch.
    pub fn fund_from_batch(
        &self,
        channel: ChannelRef,
        funding: OutPoint,
    ) -> Result<(), ChannelCommandError> {
        let gone = || ChannelCommandError::Unavailable("it is not open for a batch".into());
        self.recorded(channel).filter(|record| record.batch && record.outbound).ok_or_else(gone)?;
        let unfunded = self.parts.lightning.unfunded_channel(channel).ok_or_else(gone)?;
        self.append(ChannelEvent::Funded { channel, funding });
        self.parts.lightning.provide_virtual_funding(unfunded.temporary_id, unfunded.peer, funding)
    }

    /// Gives up a channel whose batch came to nothing, or an expectation of one: it never opened.
    /// LDK goes on with one whose commitments exist, and would count its balance; it closes it,
    /// and lets go of it at the next start. Nothing happens if it has been ready for payments.
    pub fn abandon_for_batch(&self, channel: ChannelRef, why: &str) {
        let mut expected = self.expected.lock();
        let before = expected.len();
        expected.retain(|expected| expected.channel != channel);
        let was_expected = expected.len() < before;
        drop(expected);
        let Some(record) = self.recorded(channel).filter(|record| record.batch) else { return };
        if was_expected {
            self.ended_before_funding(&record, why);
        } else if let Some(unfunded) = self.parts.lightning.unfunded_channel(channel) {
            self.give_up(&record, unfunded.temporary_id, why);
        } else {
            self.abandon_funded(&record, why);
        }
    }

    /// Said again, it does what a crash kept from being durable.
    fn abandon_funded(&self, record: &ChannelRecord, why: &str) {
        let lightning = &self.parts.lightning;
        let live = lightning.channels().into_iter().find(|live| live.channel == record.channel);
        let is_new =
            matches!(record.state, ChannelState::Opening | ChannelState::AwaitingConfirmation);
        let was_ready = live.as_ref().is_some_and(|live| live.ready);
        if was_ready || !(is_new || record.state == ChannelState::Closed) {
            return;
        }
        if let Some(live) = &live
            && let Err(error) = lightning.force_close_channel(live.channel_id, record.peer, why)
        {
            tracing::debug!(channel = %record.channel, %error, "channel was gone already");
        }
        if let Some(id) = live.map(|live| live.channel_id).or(record.channel_id) {
            let _durable_with_the_manager = lightning.forget_monitor(id);
        }
        if let Some(funding) = record.funding {
            let _nothing_waits_for_it = lightning.forget_withheld(funding);
        }
        if is_new {
            self.ended_before_funding(record, why);
        }
    }

    /// Closes a channel whose funding output can never be on chain any more, or is about to be
    /// taken back: LDK must not go on honouring its balances. Its commitment is withheld. Nothing
    /// happens if it is closed.
    pub fn close_for_the_books(&self, channel: ChannelRef, why: &str) {
        let record = self.recorded(channel).filter(|record| record.batch);
        let Some(record) = record.filter(|record| record.state != ChannelState::Closed) else {
            return;
        };
        let Some(channel_id) = record.channel_id else { return };
        if record.state != ChannelState::ForceClosing {
            self.append(ChannelEvent::CloseRequested { channel, force: true });
        }
        if let Err(error) = self.parts.lightning.force_close_channel(channel_id, record.peer, why) {
            tracing::debug!(%channel, %error, "channel was gone already");
        }
    }

    /// Takes the expectation that a request of `peer` meets.
    pub(super) fn take_expected(&self, peer: NodeId, capacity_sat: u64) -> Option<ChannelRef> {
        let mut expected = self.expected.lock();
        let met = |e: &Expected| e.peer == peer && e.capacity_sat == capacity_sat;
        let place = expected.iter().position(met)?;
        Some(expected.remove(place).channel)
    }

    /// Accepts a channel that a batch will fund.
    pub(super) fn accept_for_batch(
        &self,
        channel: ChannelRef,
        temporary_id: ChannelId,
        peer: NodeId,
    ) {
        if let Err(error) = self.parts.lightning.accept_virtual_channel(temporary_id, peer, channel)
        {
            tracing::info!(%peer, %error, "channel of a batch was not accepted");
            self.never_opened(channel, &error);
        }
    }

    pub(super) fn never_opened(&self, channel: ChannelRef, error: &ChannelCommandError) {
        self.append(ChannelEvent::Closed {
            channel,
            kind: CloseKind::NeverOpened,
            reason: error.to_string(),
            local_balance_msat: None,
        });
    }
}
