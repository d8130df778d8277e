//! What payments, invoices, offers and routes look like to a caller.

use proto::v1;

use crate::journal::{PaymentRequestKind, millis};
use crate::lightning::{FailureReason, RouteEstimate};
use crate::payments::{
    Direction, GIVEN_BACK_AT_DEADLINE, InvoiceState, InvoiceView, OfferRecord, PaymentKind,
    PaymentRecord, PaymentState,
};

/// Writes a payment.
pub(super) fn payment(record: &PaymentRecord) -> v1::Payment {
    let outbound = record.direction == Direction::Outbound;
    let succeeded = record.state == PaymentState::Succeeded;
    v1::Payment {
        payment_id: record.id.0.to_vec(),
        payment_hash: record.hash.map(|hash| hash.0.to_vec()),
        // The preimage of a keysend is ours from the start, and proves nothing before the end.
        preimage: record
            .preimage
            .filter(|_| succeeded || !outbound)
            .map(|preimage| preimage.0.to_vec()),
        direction: direction(record.direction).into(),
        kind: kind(record.kind).into(),
        state: state(record.state).into(),
        amount_msat: record.amount_msat,
        fee_msat: (outbound && succeeded).then_some(record.fee_msat),
        failure: failure(record),
        parts: record.parts,
        description: record.description.clone(),
        recipient_node_id: record.payee.map(|payee| payee.serialize().to_vec()),
        payment_request: record.request.as_ref().and_then(|request| match request {
            PaymentRequestKind::Bolt11 { invoice, .. } => Some(invoice.clone()),
            PaymentRequestKind::Bolt12 { offer, .. } => Some(offer.clone()),
            PaymentRequestKind::Keysend { .. } => None,
        }),
        claim_deadline_height: record.claim_deadline.filter(|_| record.state == PaymentState::Held),
        custom_records: match &record.request {
            Some(PaymentRequestKind::Keysend { records }) => records
                .iter()
                .map(|(r#type, value)| v1::CustomRecord { r#type: *r#type, value: value.clone() })
                .collect(),
            _ => Vec::new(),
        },
        created_unix_ms: record.created_ms,
        resolved_unix_ms: record.state.is_final().then_some(record.updated_ms),
    }
}

/// Writes which way a payment goes.
pub(super) fn direction(direction: Direction) -> v1::PaymentDirection {
    match direction {
        Direction::Inbound => v1::PaymentDirection::Inbound,
        Direction::Outbound => v1::PaymentDirection::Outbound,
    }
}

/// Writes what asked for a payment.
pub(super) fn kind(kind: PaymentKind) -> v1::PaymentKind {
    match kind {
        PaymentKind::Bolt11 => v1::PaymentKind::Bolt11,
        PaymentKind::Bolt12 => v1::PaymentKind::Bolt12,
        PaymentKind::Keysend => v1::PaymentKind::Keysend,
    }
}

/// Writes where a payment stands.
pub(super) fn state(state: PaymentState) -> v1::PaymentState {
    match state {
        PaymentState::InFlight => v1::PaymentState::InFlight,
        PaymentState::Held => v1::PaymentState::Held,
        PaymentState::Claiming => v1::PaymentState::Claiming,
        PaymentState::Succeeded => v1::PaymentState::Succeeded,
        PaymentState::Failed => v1::PaymentState::Failed,
    }
}

/// Reads where a payment stands.
pub(super) fn read_state(state: v1::PaymentState) -> Option<PaymentState> {
    match state {
        v1::PaymentState::Unspecified => None,
        v1::PaymentState::InFlight => Some(PaymentState::InFlight),
        v1::PaymentState::Held => Some(PaymentState::Held),
        v1::PaymentState::Claiming => Some(PaymentState::Claiming),
        v1::PaymentState::Succeeded => Some(PaymentState::Succeeded),
        v1::PaymentState::Failed => Some(PaymentState::Failed),
    }
}

fn failure(record: &PaymentRecord) -> Option<v1::PaymentFailure> {
    if record.state != PaymentState::Failed {
        return None;
    }
    Some(match (record.failure, &record.failure_detail) {
        (Some(reason), _) => failure_of(reason),
        (None, detail) => given_back(detail.as_deref().unwrap_or_default()),
    })
}

/// Writes why an inbound payment was given back.
pub(super) fn given_back(why: &str) -> v1::PaymentFailure {
    let reason = match why {
        GIVEN_BACK_AT_DEADLINE => v1::PaymentFailureReason::ClaimDeadline,
        _ => v1::PaymentFailureReason::HoldCancelled,
    };
    v1::PaymentFailure { reason: reason.into(), text: why.to_owned() }
}

/// Writes why an outbound payment failed.
pub(super) fn failure_of(reason: FailureReason) -> v1::PaymentFailure {
    use v1::PaymentFailureReason as R;
    let (reason, text) = match reason {
        FailureReason::RecipientRejected => {
            (R::RecipientRefused, "the recipient refused it; ask for a new invoice")
        }
        FailureReason::Abandoned => (R::Internal, "it was abandoned by this node"),
        FailureReason::RetriesExhausted => (
            R::RetriesExhausted,
            "every route found was tried in the time given; pay again, or give more time or fee",
        ),
        FailureReason::Expired => (R::Expired, "it expired meanwhile; ask for a new one"),
        FailureReason::RouteNotFound => (
            R::NoRoute,
            "no route carries this amount within the fee limit; raise max_fee_msat, pay less, \
             or open a channel towards the recipient",
        ),
        FailureReason::UnknownFeatures => (
            R::UnknownFeatures,
            "the recipient needs a feature this node does not know; upgrade the node",
        ),
        FailureReason::InvoiceRequestExpired => {
            (R::InvoiceRequestFailed, "the offer's issuer did not answer in time; pay again later")
        }
        FailureReason::InvoiceRequestRejected => (
            R::InvoiceRequestFailed,
            "the offer's issuer refused to give an invoice; ask for a new offer",
        ),
        FailureReason::NeverSent => (R::NotSent, "the node stopped before it was sent; pay again"),
        FailureReason::Unexpected => (R::Internal, "the node made an error; see its log"),
    };
    v1::PaymentFailure { reason: reason.into(), text: text.to_owned() }
}

/// Writes an invoice.
pub(super) fn invoice(view: &InvoiceView) -> v1::Invoice {
    let InvoiceView { record, payment, state } = view;
    let payment = payment.as_ref();
    let paid = payment.filter(|payment| payment.state != PaymentState::Failed);
    v1::Invoice {
        payment_hash: record.hash.0.to_vec(),
        bolt11: record.invoice.clone(),
        amount_msat: record.amount_msat,
        amount_received_msat: paid.map(|payment| payment.amount_msat),
        description: record.description_hash.is_none().then(|| record.description.clone()),
        description_hash: record.description_hash.map(|hash| hash.to_vec()),
        state: invoice_state(*state).into(),
        hold: record.hold,
        preimage: payment
            .filter(|payment| payment.state == PaymentState::Succeeded)
            .and_then(|payment| payment.preimage)
            .map(|preimage| preimage.0.to_vec()),
        payment_id: payment.map(|payment| payment.id.0.to_vec()),
        min_final_cltv_expiry_delta: record.min_final_cltv_expiry_delta,
        claim_deadline_height: payment
            .filter(|payment| payment.state == PaymentState::Held)
            .and_then(|payment| payment.claim_deadline),
        created_unix_ms: record.created_ms,
        expires_unix_ms: record.expires_ms,
        resolved_unix_ms: match state {
            InvoiceState::Open | InvoiceState::Accepted => None,
            InvoiceState::Settled => payment.map(|payment| payment.updated_ms),
            InvoiceState::Cancelled => record.cancelled_ms,
            InvoiceState::Expired => Some(record.expires_ms),
        },
    }
}

/// Writes where an invoice stands.
pub(super) fn invoice_state(state: InvoiceState) -> v1::InvoiceState {
    match state {
        InvoiceState::Open => v1::InvoiceState::Open,
        InvoiceState::Accepted => v1::InvoiceState::Held,
        InvoiceState::Settled => v1::InvoiceState::Settled,
        InvoiceState::Cancelled => v1::InvoiceState::Cancelled,
        InvoiceState::Expired => v1::InvoiceState::Expired,
    }
}

/// Reads where an invoice stands.
pub(super) fn read_invoice_state(state: v1::InvoiceState) -> Option<InvoiceState> {
    match state {
        v1::InvoiceState::Unspecified => None,
        v1::InvoiceState::Open => Some(InvoiceState::Open),
        v1::InvoiceState::Held => Some(InvoiceState::Accepted),
        v1::InvoiceState::Settled => Some(InvoiceState::Settled),
        v1::InvoiceState::Cancelled => Some(InvoiceState::Cancelled),
        v1::InvoiceState::Expired => Some(InvoiceState::Expired),
    }
}

/// Writes an offer of ours.
pub(super) fn offer(record: &OfferRecord) -> v1::Offer {
    let decoded = &record.decoded;
    v1::Offer {
        offer_id: decoded.offer_id.map(|id| id.to_vec()).unwrap_or_default(),
        bolt12: decoded.text.clone(),
        amount_msat: decoded.amount_msat,
        description: decoded.description.clone(),
        expires_unix_ms: decoded.expires.map(millis),
        created_unix_ms: record.created_ms,
    }
}

/// Writes a route.
pub(super) fn route(estimate: &RouteEstimate) -> v1::EstimateRouteResponse {
    v1::EstimateRouteResponse {
        amount_msat: estimate.amount_msat,
        fee_msat: estimate.fee_msat,
        total_cltv_expiry_delta: estimate.total_cltv_expiry_delta,
        success_probability_millionths: estimate.success_probability_millionths,
        parts: estimate
            .parts
            .iter()
            .map(|part| v1::RoutePart {
                amount_msat: part.amount_msat,
                fee_msat: part.fee_msat,
                hops: part
                    .hops
                    .iter()
                    .map(|hop| v1::RouteHop {
                        node_id: hop.node_id.serialize().to_vec(),
                        short_channel_id: hop.short_channel_id,
                        fee_msat: hop.fee_msat,
                        cltv_expiry_delta: hop.cltv_expiry_delta,
                    })
                    .collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::PaymentEvent;
    use crate::lightning::types::{PaymentHash, PaymentId, Preimage};
    use crate::payments::{GIVEN_BACK_ON_REQUEST, InvoiceRecord};

    const ID: PaymentId = PaymentId([1; 32]);
    const PREIMAGE: Preimage = Preimage([2; 32]);

    fn record(events: &[PaymentEvent]) -> PaymentRecord {
        let mut at = Duration::ZERO;
        events
            .iter()
            .fold(None, |record, event| {
                at += Duration::from_secs(1);
                PaymentRecord::apply(record, event, at)
            })
            .unwrap()
    }

    fn keysend() -> PaymentEvent {
        PaymentEvent::Initiated {
            id: ID,
            request: PaymentRequestKind::Keysend { records: vec![(65_537, vec![3])] },
            hash: Some(PREIMAGE.hash()),
            preimage: Some(PREIMAGE),
            payee: None,
            amount_msat: 500,
            max_fee_msat: 10,
            max_parts: 1,
            retry_seconds: 30,
            description: None,
        }
    }

    fn held() -> PaymentEvent {
        PaymentEvent::Held {
            id: PREIMAGE.hash().inbound_id(),
            hash: PREIMAGE.hash(),
            amount_msat: 500,
            claim_deadline: Some(144),
        }
    }

    #[test]
    fn a_preimage_is_shown_as_proof_only() {
        let under_way = payment(&record(&[keysend()]));
        assert_eq!(under_way.state(), v1::PaymentState::InFlight);
        assert_eq!((&under_way.preimage, under_way.fee_msat), (&None, None));
        assert_eq!(under_way.resolved_unix_ms, None);
        assert_eq!(under_way.custom_records[0].r#type, 65_537);
        let done = PaymentEvent::Succeeded {
            id: ID,
            preimage: PREIMAGE,
            amount_msat: 500,
            fee_msat: 0,
            parts: 1,
        };
        let done = payment(&record(&[keysend(), done]));
        assert_eq!(done.state(), v1::PaymentState::Succeeded);
        assert_eq!(done.preimage, Some(vec![2; 32]));
        assert_eq!(done.fee_msat, Some(0), "a fee of zero is known");
        assert_eq!((done.created_unix_ms, done.resolved_unix_ms), (1_000, Some(2_000)));
        assert_eq!(done.direction(), v1::PaymentDirection::Outbound);
        assert_eq!(done.kind(), v1::PaymentKind::Keysend);
    }

    #[test]
    fn a_failed_payment_says_why() {
        use v1::PaymentFailureReason as R;
        for (reason, expected) in [
            (FailureReason::RecipientRejected, R::RecipientRefused),
            (FailureReason::Abandoned, R::Internal),
            (FailureReason::RetriesExhausted, R::RetriesExhausted),
            (FailureReason::Expired, R::Expired),
            (FailureReason::RouteNotFound, R::NoRoute),
            (FailureReason::UnknownFeatures, R::UnknownFeatures),
            (FailureReason::InvoiceRequestExpired, R::InvoiceRequestFailed),
            (FailureReason::InvoiceRequestRejected, R::InvoiceRequestFailed),
            (FailureReason::NeverSent, R::NotSent),
            (FailureReason::Unexpected, R::Internal),
        ] {
            let failed = PaymentEvent::Failed { id: ID, reason };
            let failure = payment(&record(&[keysend(), failed])).failure.unwrap();
            assert_eq!(failure.reason(), expected);
            assert!(!failure.text.is_empty());
        }
    }

    #[test]
    fn a_payment_given_back_says_whether_anybody_asked() {
        use v1::PaymentFailureReason as R;
        for (why, expected) in
            [(GIVEN_BACK_ON_REQUEST, R::HoldCancelled), (GIVEN_BACK_AT_DEADLINE, R::ClaimDeadline)]
        {
            let id = PREIMAGE.hash().inbound_id();
            let hash = PREIMAGE.hash();
            let back = PaymentEvent::Returned { id, hash, amount_msat: 500, why: why.to_owned() };
            let given = payment(&record(&[held(), back]));
            assert_eq!(given.failure.unwrap().reason(), expected);
            assert_eq!(given.claim_deadline_height, None);
        }
    }

    fn view(payment: Option<PaymentRecord>, state: InvoiceState) -> InvoiceView {
        let record = InvoiceRecord {
            hash: PREIMAGE.hash(),
            invoice: "lnbcrt1".into(),
            amount_msat: Some(500),
            description: "tea".into(),
            created_ms: 1,
            expires_ms: 9,
            hold: true,
            cancelled: state == InvoiceState::Cancelled,
            cancelled_ms: Some(5),
            description_hash: None,
            min_final_cltv_expiry_delta: 24,
        };
        InvoiceView { record, payment, state }
    }

    #[test]
    fn an_invoice_shows_what_its_payment_did() {
        let open = invoice(&view(None, InvoiceState::Open));
        assert_eq!(open.state(), v1::InvoiceState::Open);
        assert_eq!((open.amount_received_msat, open.payment_id), (None, None));
        assert_eq!(open.description.as_deref(), Some("tea"));
        let held_invoice = invoice(&view(Some(record(&[held()])), InvoiceState::Accepted));
        assert_eq!(held_invoice.state(), v1::InvoiceState::Held);
        assert_eq!(held_invoice.amount_received_msat, Some(500));
        assert_eq!(held_invoice.claim_deadline_height, Some(144));
        assert_eq!(held_invoice.preimage, None);
        let hash: PaymentHash = PREIMAGE.hash();
        let claiming = PaymentEvent::Claiming {
            id: hash.inbound_id(),
            hash,
            preimage: PREIMAGE,
            amount_msat: 500,
            keysend: false,
        };
        let received =
            PaymentEvent::Received { id: hash.inbound_id(), hash, amount_msat: 500, parts: 1 };
        let paid = record(&[held(), claiming, received]);
        let settled = invoice(&view(Some(paid), InvoiceState::Settled));
        assert_eq!(settled.preimage, Some(vec![2; 32]));
        assert_eq!(settled.resolved_unix_ms, Some(3_000));
        let resolved = |state| invoice(&view(None, state)).resolved_unix_ms;
        assert_eq!(resolved(InvoiceState::Cancelled), Some(5));
        assert_eq!(resolved(InvoiceState::Expired), Some(9));
    }

    #[test]
    fn states_read_back_as_written() {
        use PaymentState as P;
        for known in [P::InFlight, P::Held, P::Claiming, P::Succeeded, P::Failed] {
            assert_eq!(read_state(state(known)), Some(known));
        }
        use InvoiceState as I;
        for known in [I::Open, I::Accepted, I::Settled, I::Cancelled, I::Expired] {
            assert_eq!(read_invoice_state(invoice_state(known)), Some(known));
        }
    }
}
