//! What a channel looks like to a caller: the record, LDK's view, and what the chain owes.

use bitcoin::Txid;
use proto::v1;

use super::convert::{outpoint, txid_bytes};
use crate::channels::{ChannelRecord, ChannelState, ChannelView};
use crate::lightning::{
    ChannelSnapshot, ClaimKind, Claimable, CloseKind, ForwardingFees, Lightning,
};

/// Writes a channel.
pub(super) fn channel(lightning: &Lightning, view: &ChannelView) -> v1::Channel {
    let claims = claims(lightning, &view.record);
    written(view, &claims)
}

/// Where a channel stands for a caller.
pub(super) fn state(
    lightning: &Lightning,
    record: &ChannelRecord,
    live: Option<&ChannelSnapshot>,
) -> v1::ChannelState {
    state_of(record, live, &claims(lightning, record))
}

/// What the chain owes, once a channel is on its way there.
fn claims(lightning: &Lightning, record: &ChannelRecord) -> Vec<Claimable> {
    match (record.state, record.channel_id) {
        (ChannelState::ForceClosing | ChannelState::Closed, Some(id))
            if record.close_kind != Some(CloseKind::Cooperative) =>
        {
            lightning.claimable(id)
        }
        _ => Vec::new(),
    }
}

fn state_of(
    record: &ChannelRecord,
    live: Option<&ChannelSnapshot>,
    claims: &[Claimable],
) -> v1::ChannelState {
    match record.state {
        ChannelState::Opening => v1::ChannelState::Opening,
        ChannelState::AwaitingConfirmation => v1::ChannelState::AwaitingConfirmation,
        ChannelState::Active => match live {
            // The counterparty asked for the close; there is no record of that before its end.
            Some(live) if live.closing => v1::ChannelState::Closing,
            Some(live) if live.usable => v1::ChannelState::Active,
            _ => v1::ChannelState::Inactive,
        },
        ChannelState::Closing => v1::ChannelState::Closing,
        ChannelState::ForceClosing => v1::ChannelState::ForceClosing,
        ChannelState::Closed if !claims.is_empty() => v1::ChannelState::ForceClosing,
        ChannelState::Closed => v1::ChannelState::Closed,
    }
}

fn written(view: &ChannelView, claims: &[Claimable]) -> v1::Channel {
    let ChannelView { record, live, closing_txid } = view;
    let live = live.as_ref();
    let policy = |fees: ForwardingFees| v1::ForwardingPolicy {
        fee_base_msat: fees.base_msat,
        fee_proportional_millionths: fees.ppm,
        cltv_expiry_delta: fees.cltv_expiry_delta.into(),
    };
    v1::Channel {
        record_id: record.channel.0.to_vec(),
        channel_id: record.channel_id.map(|id| id.0.to_vec()),
        funding_outpoint: record.funding.map(outpoint),
        short_channel_id: live.and_then(|live| live.short_channel_id),
        counterparty_node_id: record.peer.serialize().to_vec(),
        state: state_of(record, live, claims).into(),
        channel_type: channel_type(live).into(),
        funding: if record.batch {
            v1::FundingKind::Batch.into()
        } else {
            v1::FundingKind::OwnTransaction.into()
        },
        opened_by_holder: record.outbound,
        public: record.announced,
        capacity_sat: live.map_or(record.capacity_sat, |live| live.capacity_sat),
        holder_balance_msat: live
            .map_or(record.final_balance_msat.unwrap_or(0), |live| live.local_msat),
        counterparty_balance_msat: live.map_or(0, |live| live.remote_msat),
        spendable_msat: live.filter(|live| live.usable).map_or(0, |live| live.spendable_msat),
        receivable_msat: live.filter(|live| live.usable).map_or(0, |live| live.receivable_msat),
        holder_reserve_sat: live.map_or(0, |live| live.reserve_sat),
        counterparty_reserve_sat: live.map_or(0, |live| live.counterparty_reserve_sat),
        confirmations: live.map_or(0, |live| live.confirmations.0),
        confirmations_required: live.map(|live| live.confirmations.1),
        htlcs_offered: live.map_or(0, |live| live.outbound_htlcs),
        htlcs_received: live.map_or(0, |live| live.inbound_htlcs),
        commitment_feerate_sat_per_kw: live.map_or(0, |live| live.commitment_feerate_sat_per_kw),
        holder_policy: live.map(|live| v1::ForwardingPolicy {
            fee_base_msat: live.fee_base_msat,
            fee_proportional_millionths: live.fee_ppm,
            cltv_expiry_delta: live.cltv_expiry_delta,
        }),
        counterparty_policy: live.and_then(|live| live.counterparty_fees).map(policy),
        closing: closing(record, live, claims, *closing_txid),
        created_unix_ms: record.created_ms,
        state_changed_unix_ms: record.updated_ms,
        monitor_bytes: live.map(|live| live.monitor.bytes),
        splice_txid: live.and_then(|live| live.splice?.txid).map(txid_bytes),
    }
}

fn channel_type(live: Option<&ChannelSnapshot>) -> v1::ChannelType {
    match live.map(|live| live.kind) {
        Some("zero_fee_commitments") => v1::ChannelType::ZeroFeeCommitments,
        Some("anchors_zero_fee_htlc") => v1::ChannelType::AnchorsZeroFeeHtlc,
        Some("static_remotekey") => v1::ChannelType::StaticRemoteKey,
        _ => v1::ChannelType::Unspecified,
    }
}

fn closing(
    record: &ChannelRecord,
    live: Option<&ChannelSnapshot>,
    claims: &[Claimable],
    closing_txid: Option<Txid>,
) -> Option<v1::ClosingInfo> {
    let by_counterparty = live.is_some_and(|live| live.closing);
    let cause = match (record.state, record.close_kind) {
        (_, Some(_)) if record.breached || claims.iter().any(is_penalty) => {
            v1::ClosingCause::Breach
        }
        (_, Some(kind)) => closing_cause(kind, record.close_requested),
        (ChannelState::Closing, None) => v1::ClosingCause::CooperativeByHolder,
        (ChannelState::ForceClosing, None) => v1::ClosingCause::ForcedByHolder,
        (_, None) if by_counterparty => v1::ClosingCause::CooperativeByCounterparty,
        (_, None) => return None,
    };
    Some(v1::ClosingInfo {
        cause: cause.into(),
        detail: record.close_reason.clone().unwrap_or_default(),
        closing_txid: closing_txid.map(txid_bytes),
        balances: claims.iter().map(claimable).collect(),
        started_unix_ms: record.closing_ms.unwrap_or(record.updated_ms),
    })
}

fn is_penalty(claim: &Claimable) -> bool {
    claim.kind == ClaimKind::Penalty
}

/// Why a channel ended, from how LDK says it ended and whether its user asked for it.
pub(super) fn closing_cause(kind: CloseKind, requested: bool) -> v1::ClosingCause {
    match (kind, requested) {
        (CloseKind::NeverOpened, _) => v1::ClosingCause::OpenFailed,
        (CloseKind::Cooperative, true) => v1::ClosingCause::CooperativeByHolder,
        (CloseKind::Cooperative, false) => v1::ClosingCause::CooperativeByCounterparty,
        (CloseKind::ForcedByUs, true) => v1::ClosingCause::ForcedByHolder,
        // What else makes LDK publish our commitment is an HTLC that runs out of time.
        (CloseKind::ForcedByUs, false) => v1::ClosingCause::HtlcDeadline,
        (CloseKind::ForcedByPeer, _) => v1::ClosingCause::ForcedByCounterparty,
        (CloseKind::Error, _) => v1::ClosingCause::ProtocolError,
    }
}

fn claimable(claim: &Claimable) -> v1::ClaimableBalance {
    let kind = match claim.kind {
        ClaimKind::OnClose => v1::ClaimableKind::OnClose,
        ClaimKind::Confirmations => v1::ClaimableKind::AwaitingConfirmations,
        ClaimKind::HtlcClaim => v1::ClaimableKind::HtlcClaim,
        ClaimKind::HtlcTimeout => v1::ClaimableKind::HtlcTimeout,
        ClaimKind::HtlcPreimageUnknown => v1::ClaimableKind::HtlcPreimageUnknown,
        ClaimKind::Penalty => v1::ClaimableKind::Penalty,
    };
    v1::ClaimableBalance {
        kind: kind.into(),
        amount_sat: claim.amount_sat,
        claimable_height: claim.height,
        payment_hash: claim.hash.map(|hash| hash.0.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;
    use crate::journal::ChannelEvent;
    use crate::lightning::MonitorWeight;
    use crate::lightning::types::{ChannelId, ChannelRef, PaymentHash};

    fn record(events: &[ChannelEvent]) -> ChannelRecord {
        let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
        let opened = ChannelEvent::OpenRequested {
            channel: ChannelRef([5; 16]),
            peer,
            capacity_sat: 100_000,
            push_msat: 0,
            announced: true,
            feerate_sat_per_vb: None,
            batch: false,
        };
        let mut at = std::time::Duration::ZERO;
        [opened]
            .iter()
            .chain(events)
            .fold(None, |record, event| {
                at += std::time::Duration::from_secs(1);
                ChannelRecord::apply(record, event, at)
            })
            .unwrap()
    }

    fn ready() -> ChannelEvent {
        ChannelEvent::Ready { channel: ChannelRef([5; 16]), channel_id: ChannelId([6; 32]) }
    }

    fn closed(kind: CloseKind) -> ChannelEvent {
        ChannelEvent::Closed {
            channel: ChannelRef([5; 16]),
            kind,
            reason: "because".into(),
            local_balance_msat: Some(7_000),
        }
    }

    fn live(usable: bool, closing: bool) -> ChannelSnapshot {
        let record = record(&[]);
        ChannelSnapshot {
            channel: record.channel,
            channel_id: ChannelId([6; 32]),
            peer: record.peer,
            funding: None,
            short_channel_id: Some(99),
            capacity_sat: 100_000,
            outbound: true,
            announced: true,
            ready: true,
            usable,
            closing,
            confirmations: (2, 3),
            spendable_msat: 10,
            receivable_msat: 20,
            local_msat: 30,
            remote_msat: 40,
            reserve_sat: 50,
            counterparty_reserve_sat: 60,
            inbound_htlcs: 1,
            outbound_htlcs: 2,
            fee_base_msat: 3,
            fee_ppm: 4,
            cltv_expiry_delta: 72,
            counterparty_fees: Some(ForwardingFees { base_msat: 5, ppm: 6, cltv_expiry_delta: 80 }),
            commitment_feerate_sat_per_kw: 253,
            kind: "anchors_zero_fee_htlc",
            monitor: MonitorWeight { bytes: 7, ..MonitorWeight::default() },
            splice: None,
            splice_out_max_sat: Some(8),
        }
    }

    fn penalty() -> Claimable {
        let hash = Some(PaymentHash([1; 32]));
        Claimable { kind: ClaimKind::Penalty, amount_sat: 9, height: Some(10), hash }
    }

    #[test]
    fn a_channel_is_active_only_while_its_peer_is_there() {
        let record = record(&[ready()]);
        let seen = |live: Option<ChannelSnapshot>| state_of(&record, live.as_ref(), &[]);
        assert_eq!(seen(Some(live(true, false))), v1::ChannelState::Active);
        assert_eq!(seen(Some(live(false, false))), v1::ChannelState::Inactive);
        assert_eq!(seen(None), v1::ChannelState::Inactive);
        assert_eq!(seen(Some(live(true, true))), v1::ChannelState::Closing);
    }

    #[test]
    fn a_channel_is_closed_when_nothing_is_left_to_claim() {
        let record = record(&[ready(), closed(CloseKind::ForcedByPeer)]);
        assert_eq!(state_of(&record, None, &[penalty()]), v1::ChannelState::ForceClosing);
        assert_eq!(state_of(&record, None, &[]), v1::ChannelState::Closed);
        let view = ChannelView { record, live: None, closing_txid: None };
        let channel = written(&view, &[penalty()]);
        let closing = channel.closing.unwrap();
        assert_eq!(closing.cause(), v1::ClosingCause::Breach);
        assert_eq!(closing.balances[0].kind(), v1::ClaimableKind::Penalty);
        assert_eq!(closing.balances[0].amount_sat, 9);
        assert_eq!(closing.started_unix_ms, 3_000);
        assert_eq!(channel.holder_balance_msat, 7_000);
    }

    #[test]
    fn every_field_of_a_living_channel_is_written() {
        let live = Some(live(true, false));
        let view = ChannelView { record: record(&[ready()]), live, closing_txid: None };
        let channel = written(&view, &[]);
        assert_eq!(channel.record_id, [5; 16]);
        assert_eq!(channel.channel_id, Some(vec![6; 32]));
        assert_eq!(channel.short_channel_id, Some(99));
        assert_eq!(channel.channel_type(), v1::ChannelType::AnchorsZeroFeeHtlc);
        assert_eq!((channel.spendable_msat, channel.receivable_msat), (10, 20));
        assert_eq!((channel.holder_balance_msat, channel.counterparty_balance_msat), (30, 40));
        assert_eq!((channel.holder_reserve_sat, channel.counterparty_reserve_sat), (50, 60));
        assert_eq!((channel.confirmations, channel.confirmations_required), (2, Some(3)));
        assert_eq!((channel.htlcs_offered, channel.htlcs_received), (2, 1));
        assert_eq!(channel.holder_policy.unwrap().cltv_expiry_delta, 72);
        assert_eq!(channel.counterparty_policy.unwrap().fee_base_msat, 5);
        assert_eq!(channel.closing, None);
        assert_eq!((channel.monitor_bytes, channel.splice_txid), (Some(7), None));
        assert!(channel.public && channel.opened_by_holder);
        assert_eq!((channel.created_unix_ms, channel.state_changed_unix_ms), (1_000, 2_000));
    }

    #[test]
    fn a_cause_says_who_wanted_the_end() {
        use v1::ClosingCause as C;
        let asked = ChannelEvent::CloseRequested { channel: ChannelRef([5; 16]), force: false };
        let cause = |events: &[ChannelEvent]| {
            closing(&record(events), None, &[], None).map(|closing| closing.cause())
        };
        assert_eq!(cause(&[ready()]), None);
        assert_eq!(cause(&[ready(), asked.clone()]), Some(C::CooperativeByHolder));
        let end = |kind| closed(kind);
        assert_eq!(
            cause(&[ready(), asked, end(CloseKind::Cooperative)]),
            Some(C::CooperativeByHolder)
        );
        assert_eq!(
            cause(&[ready(), end(CloseKind::Cooperative)]),
            Some(C::CooperativeByCounterparty)
        );
        assert_eq!(cause(&[ready(), end(CloseKind::ForcedByUs)]), Some(C::HtlcDeadline));
        assert_eq!(cause(&[ready(), end(CloseKind::Error)]), Some(C::ProtocolError));
        assert_eq!(cause(&[end(CloseKind::NeverOpened)]), Some(C::OpenFailed));
    }
}
