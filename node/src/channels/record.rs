//! The stored record of one channel.

use std::time::Duration;

use bitcoin::OutPoint;
use serde::{Deserialize, Serialize};

use crate::journal::{ChannelEvent, millis};
use crate::lightning::CloseKind;
use crate::lightning::types::{ChannelId, ChannelRef, NodeId};

/// Where a channel stands in our record. Whether its peer is online is LDK's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// Both sides are talking; there is no funding transaction yet.
    Opening,
    /// The funding transaction waits for confirmations.
    AwaitingConfirmation,
    /// It can carry payments.
    Active,
    /// A cooperative close is under way.
    Closing,
    /// Our commitment is to be published, or is.
    ForceClosing,
    /// It is over; its outputs may still be on their way.
    Closed,
}

/// A signed splice of ours, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpliceRecord {
    /// The funding output it gives the channel.
    pub funding: OutPoint,
    /// The channel's size after it, sat.
    pub capacity_sat: u64,
    /// Its fee, sat, out of the channel.
    pub fee_sat: u64,
}

/// What a channel was between two splices, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funded {
    /// Its funding output.
    pub funding: OutPoint,
    /// Its size, sat.
    pub capacity_sat: u64,
}

/// A channel as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// Our id of it.
    pub channel: ChannelRef,
    /// The counterparty.
    pub peer: NodeId,
    /// Whether we asked for it.
    pub outbound: bool,
    /// Its size, sat.
    pub capacity_sat: u64,
    /// What the opener gave away at once, msat.
    pub push_msat: u64,
    /// Whether it is announced.
    pub announced: bool,
    /// Whether a batch funds it, off the chain, and not a transaction of the opener's wallet.
    #[serde(default)]
    pub batch: bool,
    /// The feerate its opener asked for the funding transaction.
    pub feerate_sat_per_vb: Option<u64>,
    /// Where it stands.
    pub state: ChannelState,
    /// LDK's id, once it is funded.
    pub channel_id: Option<ChannelId>,
    /// Its funding output.
    pub funding: Option<OutPoint>,
    /// A splice of ours that is not locked yet.
    #[serde(default)]
    pub splice: Option<SpliceRecord>,
    /// What it was before each of its splices, first to last: events of that time say so.
    #[serde(default)]
    pub before_splices: Vec<Funded>,
    /// How it ended.
    pub close_kind: Option<CloseKind>,
    /// Whether what its peer published was a revoked state.
    #[serde(default)]
    pub breached: bool,
    /// Why it ended, in words.
    pub close_reason: Option<String>,
    /// Our balance when it ended, msat.
    pub final_balance_msat: Option<u64>,
    /// When its end began, ms since the Unix epoch.
    #[serde(default)]
    pub closing_ms: Option<u64>,
    /// Whether we asked for its end.
    #[serde(default)]
    pub close_requested: bool,
    /// Whether that was written after its end, whose event did not say so.
    #[serde(default)]
    pub asked_after_end: bool,
    /// When it was first recorded, ms since the Unix epoch.
    pub created_ms: u64,
    /// When it last changed, ms since the Unix epoch.
    pub updated_ms: u64,
}

impl ChannelRecord {
    /// The record after `event`. Cannot fail: the event happened. `None` for an event about no
    /// channel we have a record of.
    pub fn apply(before: Option<Self>, event: &ChannelEvent, now: Duration) -> Option<Self> {
        let now_ms = millis(now);
        let mut record = match (before, event) {
            (
                None,
                ChannelEvent::OpenRequested {
                    channel,
                    peer,
                    capacity_sat,
                    push_msat,
                    announced,
                    feerate_sat_per_vb,
                    batch,
                },
            ) => Self {
                feerate_sat_per_vb: *feerate_sat_per_vb,
                batch: *batch,
                ..Self::new(*channel, *peer, true, *capacity_sat, *push_msat, *announced, now_ms)
            },
            (
                None,
                ChannelEvent::InboundAccepted {
                    channel,
                    peer,
                    capacity_sat,
                    push_msat,
                    announced,
                    batch,
                },
            ) => Self {
                batch: *batch,
                ..Self::new(*channel, *peer, false, *capacity_sat, *push_msat, *announced, now_ms)
            },
            (before, _) => before?,
        };
        record.updated_ms = now_ms;
        match event {
            ChannelEvent::OpenRequested { .. } | ChannelEvent::InboundAccepted { .. } => {}
            ChannelEvent::Funded { funding, .. } => record.funding = Some(*funding),
            ChannelEvent::Pending { channel_id, funding, .. } => {
                record.state = ChannelState::AwaitingConfirmation;
                record.channel_id = Some(*channel_id);
                record.funding = Some(*funding);
            }
            ChannelEvent::Ready { channel_id, .. } => {
                record.state = ChannelState::Active;
                record.channel_id = Some(*channel_id);
            }
            ChannelEvent::SplicePending { funding, capacity_sat, fee_sat, .. } => {
                let (funding, capacity_sat, fee_sat) = (*funding, *capacity_sat, *fee_sat);
                record.splice = Some(SpliceRecord { funding, capacity_sat, fee_sat });
            }
            ChannelEvent::Spliced { from, funding, capacity_sat, .. } => {
                let before = Funded { funding: *from, capacity_sat: record.capacity_sat };
                record.before_splices.push(before);
                record.funding = Some(*funding);
                record.capacity_sat = *capacity_sat;
                record.splice = None;
            }
            ChannelEvent::CloseRequested { force, .. } => {
                record.closing_ms = record.closing_ms.or(Some(now_ms));
                record.close_requested = true;
                record.asked_after_end = record.close_kind.is_some();
                // Both sides may have closed it before the request was written.
                record.state = match record.state {
                    ChannelState::Closed => ChannelState::Closed,
                    _ if *force => ChannelState::ForceClosing,
                    _ => ChannelState::Closing,
                };
            }
            ChannelEvent::Closed { kind, reason, local_balance_msat, .. } => {
                record.state = ChannelState::Closed;
                record.closing_ms = record.closing_ms.or(Some(now_ms));
                record.close_kind = Some(*kind);
                record.close_reason = Some(reason.clone());
                record.final_balance_msat = *local_balance_msat;
            }
            ChannelEvent::Breached { .. } => record.breached = true,
            ChannelEvent::Sweeping { .. } => {}
        }
        Some(record)
    }

    fn new(
        channel: ChannelRef,
        peer: NodeId,
        outbound: bool,
        capacity_sat: u64,
        push_msat: u64,
        announced: bool,
        now_ms: u64,
    ) -> Self {
        Self {
            channel,
            peer,
            outbound,
            capacity_sat,
            push_msat,
            announced,
            batch: false,
            feerate_sat_per_vb: None,
            state: ChannelState::Opening,
            channel_id: None,
            funding: None,
            splice: None,
            before_splices: Vec::new(),
            close_kind: None,
            breached: false,
            close_reason: None,
            final_balance_msat: None,
            closing_ms: None,
            close_requested: false,
            asked_after_end: false,
            created_ms: now_ms,
            updated_ms: now_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    #[test]
    fn a_close_that_is_over_before_its_request_is_written_stays_over() {
        let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
        let channel = ChannelRef([3; 16]);
        let events = [
            ChannelEvent::OpenRequested {
                channel,
                peer,
                capacity_sat: 70_000,
                push_msat: 0,
                announced: false,
                feerate_sat_per_vb: None,
                batch: false,
            },
            ChannelEvent::Closed {
                channel,
                kind: CloseKind::Cooperative,
                reason: String::new(),
                local_balance_msat: None,
            },
        ];
        let apply =
            |record, event: &ChannelEvent| ChannelRecord::apply(record, event, Duration::ZERO);
        let closed = events.iter().fold(None, apply);
        for force in [false, true] {
            let asked = ChannelEvent::CloseRequested { channel, force };
            let record = apply(closed.clone(), &asked).unwrap();
            assert_eq!(record.state, ChannelState::Closed);
            assert!(record.close_requested, "it was we who asked");
        }
        let open = events[..1].iter().fold(None, apply);
        let asked = ChannelEvent::CloseRequested { channel, force: false };
        assert_eq!(apply(open, &asked).unwrap().state, ChannelState::Closing);
    }
}
