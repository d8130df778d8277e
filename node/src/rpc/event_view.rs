//! What an event of the journal looks like to a caller.
//!
//! An event carries what a reader needs to know whether it concerns him; the thing itself is
//! asked for by its id. What never changes in it (which way a payment goes, who the peer of a
//! channel is) is read from its record. An event that `v1` has no message for keeps its place
//! in the log, without a kind, so that sequences have no gaps.

use bitcoin::OutPoint;
use proto::v1;
use proto::v1::event::Kind;

use super::channel_view::closing_cause;
use super::convert::outpoint;
use super::payment_view::{direction, failure_of, given_back, kind};
use super::{batch_view, notice_view, payout_view, swaps};
use crate::channels::{ChannelRecord, Channels, Funded};
use crate::journal::{
    BatchEvent, ChannelEvent, DomainEvent, Entry, EventKind, InvoiceEvent, NodeEvent, PaymentEvent,
    SwapEvent, WebhookEvent, WebhookTrouble,
};
use crate::lightning::CloseKind;
use crate::lightning::types::{PaymentHash, PaymentId};
use crate::payments::{PaymentRecord, Payments};
use crate::store::StoreError;

/// Whether `entry` is of one of `kinds`; empty is any.
pub(super) fn is_kind(entry: &Entry, kinds: &[v1::EventKind]) -> bool {
    kinds.is_empty() || kinds.contains(&written_kind(entry.event.kind()))
}

/// Writes what an event is about.
pub(super) fn written_kind(kind: EventKind) -> v1::EventKind {
    match kind {
        EventKind::Payment => v1::EventKind::Payment,
        EventKind::Invoice => v1::EventKind::Invoice,
        EventKind::Channel => v1::EventKind::Channel,
        EventKind::Wallet => v1::EventKind::Wallet,
        EventKind::Chain => v1::EventKind::Chain,
        EventKind::Tower => v1::EventKind::Tower,
        EventKind::Security => v1::EventKind::Security,
        EventKind::Node => v1::EventKind::Node,
        EventKind::Batch => v1::EventKind::Batch,
        EventKind::Swap => v1::EventKind::Swap,
        EventKind::Webhook => v1::EventKind::Webhook,
        EventKind::Payout => v1::EventKind::Payout,
    }
}

/// Reads what an event is about; `None` for what is about nothing.
pub(super) fn read_kind(kind: v1::EventKind) -> Option<EventKind> {
    Some(match kind {
        v1::EventKind::Unspecified => return None,
        v1::EventKind::Payment => EventKind::Payment,
        v1::EventKind::Invoice => EventKind::Invoice,
        v1::EventKind::Channel => EventKind::Channel,
        v1::EventKind::Wallet => EventKind::Wallet,
        v1::EventKind::Chain => EventKind::Chain,
        v1::EventKind::Tower => EventKind::Tower,
        v1::EventKind::Security => EventKind::Security,
        v1::EventKind::Node => EventKind::Node,
        v1::EventKind::Batch => EventKind::Batch,
        v1::EventKind::Swap => EventKind::Swap,
        v1::EventKind::Webhook => EventKind::Webhook,
        v1::EventKind::Payout => EventKind::Payout,
    })
}

/// Where what never changes is read.
pub(super) struct Records<'a> {
    pub payments: &'a Payments,
    pub channels: &'a Channels,
}

/// Writes an event.
pub(super) fn event(records: &Records<'_>, entry: &Entry) -> Result<v1::Event, StoreError> {
    let kind = match &entry.event {
        DomainEvent::Payment(event) => match payment_of(event) {
            Some(id) => {
                let record = records.payments.recorded(id)?;
                payment(event, record.as_ref()).map(Kind::Payment)
            }
            None => None,
        },
        DomainEvent::Invoice(event) => invoice(event).map(Kind::Invoice),
        DomainEvent::Channel(event) => event
            .channel()
            .and_then(|channel| records.channels.recorded(channel))
            .and_then(|record| channel(event, &record))
            .map(Kind::Channel),
        DomainEvent::Batch(event) => Some(Kind::Batch(batch(event))),
        DomainEvent::Swap(event) => Some(Kind::Swap(swap(event))),
        DomainEvent::Node(event) => Some(Kind::Node(node(event))),
        DomainEvent::Webhook(event) => Some(Kind::Webhook(webhook(event))),
        DomainEvent::Payout(event) => Some(Kind::Payout(payout_view::event(event))),
        DomainEvent::Wallet(event) => Some(Kind::Wallet(notice_view::wallet(event))),
        DomainEvent::Chain(event) => Some(Kind::Chain(notice_view::chain(event))),
        DomainEvent::Tower(event) => Some(Kind::Tower(notice_view::tower(event))),
        DomainEvent::Security(event) => Some(Kind::Security(notice_view::security(event))),
    };
    Ok(v1::Event { sequence: entry.sequence, unix_ms: entry.at_ms, kind })
}

/// Which payment an event is about; a forward is about none of ours.
fn payment_of(event: &PaymentEvent) -> Option<PaymentId> {
    match event {
        PaymentEvent::Initiated { id, .. }
        | PaymentEvent::Succeeded { id, .. }
        | PaymentEvent::Failed { id, .. }
        | PaymentEvent::Held { id, .. }
        | PaymentEvent::Claiming { id, .. }
        | PaymentEvent::Received { id, .. }
        | PaymentEvent::Returned { id, .. } => Some(*id),
        PaymentEvent::Forwarded { .. } => None,
    }
}

fn payment(event: &PaymentEvent, record: Option<&PaymentRecord>) -> Option<v1::PaymentEvent> {
    use v1::PaymentState as S;
    let recorded_hash = record.and_then(|record| record.hash);
    let recorded_amount = record.map_or(0, |record| record.amount_msat);
    let (id, hash, state, amount_msat): (_, Option<PaymentHash>, _, _) = match event {
        PaymentEvent::Initiated { id, hash, amount_msat, .. } => {
            (id, *hash, S::InFlight, *amount_msat)
        }
        PaymentEvent::Succeeded { id, preimage, amount_msat, .. } => {
            (id, Some(preimage.hash()), S::Succeeded, *amount_msat)
        }
        PaymentEvent::Failed { id, .. } => (id, recorded_hash, S::Failed, recorded_amount),
        PaymentEvent::Held { id, hash, amount_msat, .. } => {
            (id, Some(*hash), S::Held, *amount_msat)
        }
        PaymentEvent::Claiming { id, hash, amount_msat, .. } => {
            (id, Some(*hash), S::Claiming, *amount_msat)
        }
        PaymentEvent::Received { id, hash, amount_msat, .. } => {
            (id, Some(*hash), S::Succeeded, *amount_msat)
        }
        PaymentEvent::Returned { id, hash, amount_msat, .. } => {
            (id, Some(*hash), S::Failed, *amount_msat)
        }
        PaymentEvent::Forwarded { .. } => return None,
    };
    Some(v1::PaymentEvent {
        payment_id: id.0.to_vec(),
        payment_hash: hash.map(|hash| hash.0.to_vec()),
        direction: record
            .map_or(v1::PaymentDirection::Unspecified, |record| direction(record.direction))
            .into(),
        kind: record.map_or(v1::PaymentKind::Unspecified, |record| kind(record.kind)).into(),
        state: state.into(),
        amount_msat,
        fee_msat: match event {
            PaymentEvent::Succeeded { fee_msat, .. } => Some(*fee_msat),
            _ => None,
        },
        failure: match event {
            PaymentEvent::Failed { reason, .. } => Some(failure_of(*reason)),
            PaymentEvent::Returned { why, .. } => Some(given_back(why)),
            _ => None,
        },
    })
}

fn invoice(event: &InvoiceEvent) -> Option<v1::InvoiceEvent> {
    use v1::InvoiceState as S;
    let (hash, state, amount_msat, amount_received_msat) = match event {
        InvoiceEvent::Created { hash, amount_msat, .. } => (hash, S::Open, *amount_msat, None),
        InvoiceEvent::Cancelled { hash } => (hash, S::Cancelled, None, None),
        InvoiceEvent::Held { hash, amount_msat } => (hash, S::Held, None, Some(*amount_msat)),
        InvoiceEvent::Settled { hash, amount_msat } => (hash, S::Settled, None, Some(*amount_msat)),
        InvoiceEvent::OfferCreated { .. } => return None,
    };
    Some(v1::InvoiceEvent {
        payment_hash: hash.0.to_vec(),
        state: state.into(),
        amount_msat,
        amount_received_msat,
    })
}

fn channel(event: &ChannelEvent, record: &ChannelRecord) -> Option<v1::ChannelEvent> {
    use v1::ChannelState as S;
    let state = match event {
        ChannelEvent::OpenRequested { .. }
        | ChannelEvent::InboundAccepted { .. }
        | ChannelEvent::Funded { .. } => S::Opening,
        ChannelEvent::Pending { .. } => S::AwaitingConfirmation,
        ChannelEvent::Ready { .. }
        | ChannelEvent::SplicePending { .. }
        | ChannelEvent::Spliced { .. } => S::Active,
        ChannelEvent::CloseRequested { force: true, .. } => S::ForceClosing,
        ChannelEvent::CloseRequested { force: false, .. } => S::Closing,
        ChannelEvent::Closed { kind: CloseKind::NeverOpened | CloseKind::Cooperative, .. } => {
            S::Closed
        }
        // The commitment is on its way to the chain; the balances come back after it.
        ChannelEvent::Closed { .. } | ChannelEvent::Breached { .. } => S::ForceClosing,
        ChannelEvent::Sweeping { .. } => return None,
    };
    let cause = match event {
        ChannelEvent::CloseRequested { force: true, .. } => Some(v1::ClosingCause::ForcedByHolder),
        ChannelEvent::CloseRequested { force: false, .. } => {
            Some(v1::ClosingCause::CooperativeByHolder)
        }
        ChannelEvent::Closed { kind, .. } => {
            let was_asked = record.close_requested && !record.asked_after_end;
            Some(closing_cause(*kind, was_asked))
        }
        ChannelEvent::Breached { .. } => Some(v1::ClosingCause::Breach),
        _ => None,
    };
    let (capacity_sat, funding) = funded(event, record);
    Some(v1::ChannelEvent {
        record_id: record.channel.0.to_vec(),
        counterparty_node_id: record.peer.serialize().to_vec(),
        state: state.into(),
        capacity_sat,
        funding_outpoint: funding.map(outpoint),
        cause: cause.map(Into::into),
        detail: match event {
            ChannelEvent::Closed { reason, .. } => reason.clone(),
            ChannelEvent::SplicePending { funding, .. } => {
                format!("a splice to {funding} awaits its confirmations")
            }
            ChannelEvent::Spliced { from, funding, .. } => {
                format!("renewed by a splice from {from} to {funding}")
            }
            _ => String::new(),
        },
        splice: splice(event),
    })
}

/// Size and funding output at the time of `event`, whatever splices became of them since.
fn funded(event: &ChannelEvent, record: &ChannelRecord) -> (u64, Option<OutPoint>) {
    let splices = &record.before_splices;
    let now = (record.capacity_sat, record.funding);
    let of = |funded: &Funded| (funded.capacity_sat, Some(funded.funding));
    let first = splices.first().map_or(now, of);
    match event {
        ChannelEvent::OpenRequested { capacity_sat, .. }
        | ChannelEvent::InboundAccepted { capacity_sat, .. } => (*capacity_sat, None),
        ChannelEvent::Funded { funding, .. } | ChannelEvent::Pending { funding, .. } => {
            (first.0, Some(*funding))
        }
        ChannelEvent::Ready { .. } => first,
        ChannelEvent::Spliced { funding, capacity_sat, .. } => (*capacity_sat, Some(*funding)),
        ChannelEvent::SplicePending { funding, .. } => {
            let after = splices.iter().skip(1).map(|funded| Some(funded.funding));
            let mut after = after.chain([record.funding]);
            let found = after.position(|after| after == Some(*funding));
            found.and_then(|index| splices.get(index)).map_or(now, of)
        }
        ChannelEvent::CloseRequested { .. }
        | ChannelEvent::Closed { .. }
        | ChannelEvent::Breached { .. }
        | ChannelEvent::Sweeping { .. } => now,
    }
}

fn splice(event: &ChannelEvent) -> Option<v1::ChannelSplice> {
    match event {
        ChannelEvent::SplicePending { funding, capacity_sat, fee_sat, .. } => {
            Some(v1::ChannelSplice {
                previous: None,
                funding: Some(outpoint(*funding)),
                capacity_sat: *capacity_sat,
                fee_sat: Some(*fee_sat),
                locked: false,
            })
        }
        ChannelEvent::Spliced { from, funding, capacity_sat, fee_sat, .. } => {
            Some(v1::ChannelSplice {
                previous: Some(outpoint(*from)),
                funding: Some(outpoint(*funding)),
                capacity_sat: *capacity_sat,
                fee_sat: *fee_sat,
                locked: true,
            })
        }
        _ => None,
    }
}

fn batch(event: &BatchEvent) -> v1::BatchEvent {
    use v1::batch_event::Subject;
    let subject = match event {
        BatchEvent::Wish { registration, hub, phase } => Subject::Wish(v1::WishEvent {
            registration_id: registration.0.to_vec(),
            hub_node_id: hub.serialize().to_vec(),
            state: batch_view::state(*phase).into(),
            detail: batch_view::detail(*phase),
        }),
        BatchEvent::Hosted { batch, phase } => {
            let (state, detail) = batch_view::hosted_state(*phase);
            let batch_id = batch.0.to_vec();
            Subject::Hosted(v1::HostedBatchEvent { batch_id, state: state.into(), detail })
        }
    };
    v1::BatchEvent { subject: Some(subject) }
}

fn swap(event: &SwapEvent) -> v1::SwapEvent {
    v1::SwapEvent {
        swap_id: event.swap.0.to_vec(),
        counterparty_node_id: event.peer.serialize().to_vec(),
        kind: swaps::kind(event.kind).into(),
        state: swaps::state(event.state).into(),
        amount_sat: event.amount_sat,
    }
}

fn node(event: &NodeEvent) -> v1::NodeEvent {
    let (kind, detail) = match event {
        NodeEvent::Started { version, height } => {
            (v1::NodeEventKind::Started, format!("version {version} at block height {height}"))
        }
        NodeEvent::Stopping => (v1::NodeEventKind::Stopping, String::new()),
        NodeEvent::AnchorReserveShort { missing_sat } => (
            v1::NodeEventKind::AnchorReserveShort,
            format!("{missing_sat} sat are missing; pay as much to an address of the wallet"),
        ),
        NodeEvent::AnchorReserveWhole => (v1::NodeEventKind::AnchorReserveWhole, String::new()),
    };
    v1::NodeEvent { kind: kind.into(), detail }
}

fn webhook(event: &WebhookEvent) -> v1::WebhookEvent {
    use v1::WebhookEventKind as K;
    let (kind, first_sequence, last_sequence) = match &event.what {
        WebhookTrouble::Disabled => (K::Disabled, None, None),
        WebhookTrouble::GaveUp { sequence } => (K::GaveUp, Some(*sequence), None),
        WebhookTrouble::Missed { first, last } => (K::Missed, Some(*first), Some(*last)),
    };
    let endpoint_id = event.endpoint.0.to_vec();
    v1::WebhookEvent { endpoint_id, kind: kind.into(), first_sequence, last_sequence }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bitcoin::Txid;
    use bitcoin::hashes::Hash;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;
    use crate::journal::PaymentRequestKind;
    use crate::lightning::FailureReason;
    use crate::lightning::types::{ChannelId, ChannelRef, Preimage};

    const ID: PaymentId = PaymentId([1; 32]);
    const PREIMAGE: Preimage = Preimage([2; 32]);
    const CHANNEL: ChannelRef = ChannelRef([3; 16]);

    fn initiated() -> PaymentEvent {
        PaymentEvent::Initiated {
            id: ID,
            request: PaymentRequestKind::Bolt11 { invoice: "lnbcrt1".into(), over: None },
            hash: Some(PREIMAGE.hash()),
            preimage: None,
            payee: None,
            amount_msat: 500,
            max_fee_msat: 10,
            max_parts: 1,
            retry_seconds: 30,
            description: None,
        }
    }

    fn entry(event: DomainEvent) -> Entry {
        Entry { sequence: 4, at_ms: 5, event }
    }

    #[test]
    fn a_payment_event_says_what_the_event_says_and_not_what_came_later() {
        let success = PaymentEvent::Succeeded {
            id: ID,
            preimage: PREIMAGE,
            amount_msat: 500,
            fee_msat: 2,
            parts: 1,
        };
        let record = PaymentRecord::apply(None, &initiated(), Duration::ZERO);
        let record = PaymentRecord::apply(record, &success, Duration::ZERO).unwrap();
        let begun = payment(&initiated(), Some(&record)).unwrap();
        assert_eq!(begun.state(), v1::PaymentState::InFlight);
        assert_eq!((begun.amount_msat, begun.fee_msat), (500, None));
        assert_eq!(begun.direction(), v1::PaymentDirection::Outbound);
        assert_eq!(begun.kind(), v1::PaymentKind::Bolt11);
        let done = payment(&success, Some(&record)).unwrap();
        assert_eq!(done.state(), v1::PaymentState::Succeeded);
        assert_eq!(done.fee_msat, Some(2));
        assert_eq!(done.payment_hash, Some(PREIMAGE.hash().0.to_vec()));
    }

    #[test]
    fn a_failed_payment_event_carries_amount_and_reason() {
        let record = PaymentRecord::apply(None, &initiated(), Duration::ZERO).unwrap();
        let failed = PaymentEvent::Failed { id: ID, reason: FailureReason::Expired };
        let written = payment(&failed, Some(&record)).unwrap();
        assert_eq!(written.amount_msat, 500);
        let failure = written.failure.unwrap();
        assert_eq!(failure.reason(), v1::PaymentFailureReason::Expired);
    }

    #[test]
    fn what_has_no_message_has_no_kind() {
        let forward =
            PaymentEvent::Forwarded { fee_msat: 1, amount_msat: 2, claimed_on_chain: false };
        assert_eq!(payment_of(&forward), None);
        assert_eq!(payment(&forward, None), None);
        let offer = InvoiceEvent::OfferCreated {
            offer: "lno1".into(),
            amount_msat: None,
            description: None,
        };
        assert_eq!(invoice(&offer), None);
        let sweep = ChannelEvent::Sweeping { channel_id: None, outputs: 1, value_sat: 2 };
        assert_eq!(sweep.channel(), None);
    }

    #[test]
    fn kinds_choose_events() {
        let stopping = entry(DomainEvent::Node(NodeEvent::Stopping));
        assert!(is_kind(&stopping, &[]));
        assert!(is_kind(&stopping, &[v1::EventKind::Payment, v1::EventKind::Node]));
        assert!(!is_kind(&stopping, &[v1::EventKind::Payment]));
        let paid = entry(DomainEvent::Payment(initiated()));
        assert!(is_kind(&paid, &[v1::EventKind::Payment]));
        for kind in (1..).map_while(|number| v1::EventKind::try_from(number).ok()) {
            assert_eq!(read_kind(kind).map(written_kind), Some(kind));
        }
    }

    #[test]
    fn a_channel_event_names_peer_state_and_cause() {
        let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
        let asked = ChannelEvent::OpenRequested {
            channel: CHANNEL,
            peer,
            capacity_sat: 70_000,
            push_msat: 0,
            announced: false,
            feerate_sat_per_vb: None,
            batch: false,
        };
        let txid: bitcoin::Txid =
            "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b".parse().unwrap();
        let funding = bitcoin::OutPoint { txid, vout: 1 };
        let channel_id = ChannelId([4; 32]);
        let pending = ChannelEvent::Pending { channel: CHANNEL, channel_id, funding };
        let ended = ChannelEvent::Closed {
            channel: CHANNEL,
            kind: CloseKind::ForcedByPeer,
            reason: "because".into(),
            local_balance_msat: None,
        };
        let record = [&asked, &pending, &ended]
            .into_iter()
            .fold(None, |record, event| ChannelRecord::apply(record, event, Duration::ZERO));
        let record = record.unwrap();
        let first = channel(&asked, &record).unwrap();
        assert_eq!(first.state(), v1::ChannelState::Opening);
        assert_eq!((first.funding_outpoint, first.capacity_sat), (None, 70_000));
        assert_eq!(first.counterparty_node_id, peer.serialize());
        let second = channel(&pending, &record).unwrap();
        assert_eq!(second.state(), v1::ChannelState::AwaitingConfirmation);
        assert_eq!(hex::encode(second.funding_outpoint.unwrap().txid), txid.to_string());
        let last = channel(&ended, &record).unwrap();
        assert_eq!(last.state(), v1::ChannelState::ForceClosing);
        assert_eq!(last.cause(), v1::ClosingCause::ForcedByCounterparty);
        assert_eq!(last.detail, "because");
    }
    /// A webhook is told again, a subscriber reads again: one sequence, one text.
    #[test]
    fn what_a_splice_changes_does_not_change_events_before_it() {
        let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
        let channel_id = ChannelId([4; 32]);
        let output = |vout| bitcoin::OutPoint { txid: Txid::all_zeros(), vout };
        let pending = |vout, capacity_sat| ChannelEvent::SplicePending {
            channel: CHANNEL,
            funding: output(vout),
            capacity_sat,
            fee_sat: 100,
        };
        let spliced = |vout, capacity_sat| ChannelEvent::Spliced {
            channel: CHANNEL,
            from: output(vout - 1),
            funding: output(vout),
            capacity_sat,
            fee_sat: None,
        };
        let closed = ChannelEvent::Closed {
            channel: CHANNEL,
            kind: CloseKind::Cooperative,
            reason: String::new(),
            local_balance_msat: None,
        };
        let events = [
            ChannelEvent::OpenRequested {
                channel: CHANNEL,
                peer,
                capacity_sat: 9_000,
                push_msat: 0,
                announced: false,
                feerate_sat_per_vb: None,
                batch: false,
            },
            ChannelEvent::Funded { channel: CHANNEL, funding: output(1) },
            ChannelEvent::Pending { channel: CHANNEL, channel_id, funding: output(1) },
            ChannelEvent::Ready { channel: CHANNEL, channel_id },
            pending(2, 8_900),
            spliced(2, 8_900),
            pending(3, 8_800),
            spliced(3, 8_800),
            closed,
            // Written after what the counterparty has done already.
            ChannelEvent::CloseRequested { channel: CHANNEL, force: false },
        ];
        let mut record = None;
        let mut told = Vec::new();
        for event in &events {
            record = ChannelRecord::apply(record, event, Duration::ZERO);
            told.push(channel(event, record.as_ref().unwrap()).unwrap());
        }
        let record = record.unwrap();
        for (event, told) in events.iter().zip(&told) {
            assert_eq!(&channel(event, &record).unwrap(), told, "{event:?}");
        }
        let sizes: Vec<u64> = told.iter().map(|told| told.capacity_sat).collect();
        let size = |count, sat| std::iter::repeat_n(sat, count);
        let expected = size(5, 9_000).chain(size(2, 8_900)).chain(size(3, 8_800));
        assert_eq!(sizes, expected.collect::<Vec<u64>>());
    }
}
