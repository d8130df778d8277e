//! What callers of `tributary.v1.Payments` ask, read and checked field by field.

use std::time::Duration;

use proto::v1;

use super::convert::{exact, known, node_id, payment_hash, within};
use super::payment_view::{read_invoice_state, read_state};
use super::server::RpcParts;
use super::status::{Reason, Refusal};
use crate::lightning::{DecodedKind, InvoiceDescription, RouteTarget};
use crate::payments::{
    CreateInvoice, Direction, InvoiceFilter, PayRequest, PayTarget, PaymentFilter,
};

/// Life of an invoice when nothing is said, in seconds.
pub(super) const EXPIRY_SECONDS: u32 = 3_600;
/// Longest life of an invoice, in seconds: a year.
pub(super) const EXPIRY_SECONDS_MAX: u32 = 31_536_000;
/// Blocks the last HTLC of an invoice may have to leave.
const FINAL_CLTV: std::ops::RangeInclusive<u32> = 18..=2_016;
/// First type of custom records; those below belong to the protocol.
const RECORD_TYPE_MIN: u64 = 65_536;
/// Bytes of custom records that fit in an onion beside its own fields.
const RECORDS_LEN_MAX: usize = 1_000;

pub(super) fn create_invoice(request: v1::CreateInvoiceRequest) -> Result<CreateInvoice, Refusal> {
    use v1::create_invoice_request::About;
    let description = match request.about {
        None => InvoiceDescription::Text(String::new()),
        Some(About::Description(text)) => InvoiceDescription::Text(text),
        Some(About::DescriptionHash(hash)) => {
            let hash = exact(Reason::DescriptionInvalid, "description_hash", &hash)?;
            InvoiceDescription::Hash(hash)
        }
    };
    let expiry = within(
        Reason::ExpiryOutOfRange,
        "expiry_seconds",
        request.expiry_seconds.unwrap_or(EXPIRY_SECONDS),
        1..=EXPIRY_SECONDS_MAX,
    )?;
    let delta = request.min_final_cltv_expiry_delta.map(|blocks| {
        let field = "min_final_cltv_expiry_delta";
        let blocks = within(Reason::CltvOutOfRange, field, blocks, FINAL_CLTV)?;
        Ok::<_, Refusal>(u16::try_from(blocks).expect("the range ends below 65,536"))
    });
    let hash = request.payment_hash.map(|hash| payment_hash("payment_hash", &hash));
    Ok(CreateInvoice {
        amount_msat: request.amount_msat,
        description,
        expiry: Duration::from_secs(expiry.into()),
        min_final_cltv_expiry_delta: delta.transpose()?,
        hash: hash.transpose()?,
    })
}

pub(super) fn pay_request(
    parts: &RpcParts,
    request: v1::PayRequest,
) -> Result<PayRequest, Refusal> {
    use v1::pay_request::Target;
    let target = match request.target {
        None => return Err(Refusal::field("target", "is missing")),
        Some(Target::Bolt11Invoice(text)) => {
            of_kind(parts, "bolt11_invoice", &text, DecodedKind::Invoice)?;
            PayTarget::Request(text)
        }
        Some(Target::Offer(text)) => {
            of_kind(parts, "offer", &text, DecodedKind::Offer)?;
            PayTarget::Request(text)
        }
        Some(Target::Keysend(keysend)) => PayTarget::Keysend {
            payee: node_id("keysend.node_id", &keysend.node_id)?,
            records: custom_records(keysend.custom_records)?,
        },
    };
    if request.payer_note.is_some()
        && !matches!(&target, PayTarget::Request(text) if is_offer(parts, text))
    {
        return Err(Refusal::field("payer_note", "goes with an offer only; leave it out"));
    }
    let timeout = request.timeout_seconds.map(|seconds| {
        let seconds = within(Reason::FieldInvalid, "timeout_seconds", seconds, 1..=3_600)?;
        Ok::<_, Refusal>(Duration::from_secs(seconds.into()))
    });
    Ok(PayRequest {
        target,
        amount_msat: request.amount_msat,
        max_fee_msat: request.max_fee_msat,
        retry_for: timeout.transpose()?,
        max_parts: request.max_parts.map(parts_max).transpose()?,
        payer_note: request.payer_note,
    })
}

pub(super) fn is_offer(parts: &RpcParts, text: &str) -> bool {
    parts.lightning.decode(text).is_ok_and(|read| read.kind == DecodedKind::Offer)
}

/// Refuses an offer where an invoice is expected, and the other way round.
pub(super) fn of_kind(
    parts: &RpcParts,
    field: &'static str,
    text: &str,
    expected: DecodedKind,
) -> Result<(), Refusal> {
    let read = parts.lightning.decode(text)?;
    if read.kind == expected {
        return Ok(());
    }
    let message = format_args!("{field} holds an {:?}", read.kind);
    Err(Refusal::new(Reason::InvoiceInvalid, message).with("field", field))
}

pub(super) fn parts_max(parts: u32) -> Result<u8, Refusal> {
    let parts = within(Reason::FieldInvalid, "max_parts", parts, 1..=100)?;
    Ok(u8::try_from(parts).expect("the range ends below 256"))
}

pub(super) fn custom_records(
    records: Vec<v1::CustomRecord>,
) -> Result<Vec<(u64, Vec<u8>)>, Refusal> {
    let refuse =
        |message: std::fmt::Arguments<'_>| Refusal::new(Reason::CustomRecordInvalid, message);
    let mut read: Vec<(u64, Vec<u8>)> =
        records.into_iter().map(|record| (record.r#type, record.value)).collect();
    // The onion wants them by ascending type.
    read.sort_by_key(|(r#type, _)| *r#type);
    if let Some((low, _)) = read.first().filter(|(r#type, _)| *r#type < RECORD_TYPE_MIN) {
        let message = format_args!("custom record type {low} is below {RECORD_TYPE_MIN}");
        return Err(refuse(message).with("type", low));
    }
    if let Some(pair) = read.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let twice = pair[0].0;
        let message = format_args!("custom record type {twice} is there twice");
        return Err(refuse(message).with("type", twice));
    }
    let length: usize = read.iter().map(|(_, value)| value.len()).sum();
    if length > RECORDS_LEN_MAX {
        let message =
            format_args!("custom records have {length} bytes, at most {RECORDS_LEN_MAX} fit");
        return Err(refuse(message).with("length_bytes", length));
    }
    Ok(read)
}

pub(super) fn route_target(
    parts: &RpcParts,
    target: Option<v1::estimate_route_request::Target>,
) -> Result<(RouteTarget, Option<u64>), Refusal> {
    use v1::estimate_route_request::Target;
    match target {
        None => Err(Refusal::field("target", "is missing")),
        Some(Target::NodeId(bytes)) => {
            let id = node_id("node_id", &bytes)?;
            if id == parts.lightning.node_id() {
                let message = "the recipient is this node itself";
                return Err(Refusal::new(Reason::PaymentToSelf, message));
            }
            Ok((RouteTarget::Node(id), None))
        }
        Some(Target::Bolt11Invoice(text)) => {
            of_kind(parts, "bolt11_invoice", &text, DecodedKind::Invoice)?;
            let read = parts.lightning.decode(&text)?;
            if !read.on_our_network {
                let network = parts.facts.network;
                let message = format_args!("the invoice is not on {network}");
                return Err(Refusal::new(Reason::WrongNetwork, message).with("network", network));
            }
            Ok((RouteTarget::Invoice(text), read.amount_msat))
        }
    }
}

/// The amount to pay: what is given, or what the target names.
pub(super) fn amount(given: Option<u64>, asked: Option<u64>) -> Result<u64, Refusal> {
    match (given, asked) {
        (Some(0), _) => {
            let message = "amount_msat must be at least 1";
            Err(Refusal::new(Reason::AmountOutOfRange, message).with("amount_msat", 0))
        }
        (Some(given), Some(asked)) if given != asked => {
            let message = format_args!("the invoice asks for {asked} msat, {given} were given");
            Err(Refusal::new(Reason::AmountMismatch, message)
                .with("asked_msat", asked)
                .with("given_msat", given))
        }
        (Some(amount), _) | (None, Some(amount)) => Ok(amount),
        (None, None) => {
            Err(Refusal::new(Reason::AmountMissing, "the target names no amount; give one"))
        }
    }
}

pub(super) fn payment_filter(filter: Option<v1::PaymentFilter>) -> Result<PaymentFilter, Refusal> {
    let Some(filter) = filter else {
        return Ok(PaymentFilter::default());
    };
    let direction = filter.direction.map(|value| match known("direction", value)? {
        v1::PaymentDirection::Inbound => Ok(Direction::Inbound),
        v1::PaymentDirection::Outbound => Ok(Direction::Outbound),
        v1::PaymentDirection::Unspecified => Err(Refusal::field("direction", "is unspecified")),
    });
    let states = filter.states.into_iter().map(|value| {
        read_state(known("states", value)?)
            .ok_or_else(|| Refusal::field("states", "holds an unspecified one"))
    });
    let hash = filter.payment_hash.map(|hash| payment_hash("payment_hash", &hash));
    Ok(PaymentFilter {
        direction: direction.transpose()?,
        states: states.collect::<Result<_, _>>()?,
        from_ms: filter.created_from_unix_ms,
        before_ms: filter.created_before_unix_ms,
        hash: hash.transpose()?,
    })
}

pub(super) fn invoice_filter(filter: Option<v1::InvoiceFilter>) -> Result<InvoiceFilter, Refusal> {
    let Some(filter) = filter else {
        return Ok(InvoiceFilter::default());
    };
    let states = filter.states.into_iter().map(|value| {
        read_invoice_state(known("states", value)?)
            .ok_or_else(|| Refusal::field("states", "holds an unspecified one"))
    });
    Ok(InvoiceFilter {
        states: states.collect::<Result<_, _>>()?,
        from_ms: filter.created_from_unix_ms,
        before_ms: filter.created_before_unix_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lightning::types::PaymentHash;

    fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Reason {
        result.unwrap_err().reason()
    }

    #[test]
    fn a_request_for_an_invoice_is_read_with_its_defaults() {
        let read = create_invoice(v1::CreateInvoiceRequest::default()).unwrap();
        assert_eq!(read.amount_msat, None);
        assert_eq!(read.expiry, Duration::from_secs(3_600));
        assert_eq!(read.description, InvoiceDescription::Text(String::new()));
        assert_eq!(read.hash, None);
        let request = v1::CreateInvoiceRequest {
            amount_msat: Some(5),
            about: Some(v1::create_invoice_request::About::DescriptionHash(vec![4; 32])),
            expiry_seconds: Some(60),
            min_final_cltv_expiry_delta: Some(40),
            payment_hash: Some(vec![9; 32]),
            ..Default::default()
        };
        let read = create_invoice(request).unwrap();
        assert_eq!(read.amount_msat, Some(5));
        assert_eq!(read.description, InvoiceDescription::Hash([4; 32]));
        assert_eq!(read.min_final_cltv_expiry_delta, Some(40));
        assert_eq!(read.hash, Some(PaymentHash([9; 32])));
    }

    #[test]
    fn a_request_for_an_invoice_is_refused_by_field() {
        let request = v1::CreateInvoiceRequest::default;
        for seconds in [0, EXPIRY_SECONDS_MAX + 1] {
            let odd = v1::CreateInvoiceRequest { expiry_seconds: Some(seconds), ..request() };
            assert_eq!(reason(create_invoice(odd)), Reason::ExpiryOutOfRange);
        }
        let hash = Some(v1::create_invoice_request::About::DescriptionHash(vec![4; 31]));
        let odd = v1::CreateInvoiceRequest { about: hash, ..request() };
        assert_eq!(reason(create_invoice(odd)), Reason::DescriptionInvalid);
        let odd = v1::CreateInvoiceRequest { payment_hash: Some(vec![]), ..request() };
        assert_eq!(reason(create_invoice(odd)), Reason::HashInvalid);
        let odd = v1::CreateInvoiceRequest { min_final_cltv_expiry_delta: Some(17), ..request() };
        assert_eq!(reason(create_invoice(odd)), Reason::CltvOutOfRange);
    }

    #[test]
    fn custom_records_are_sorted_unique_and_fit() {
        let record = |r#type, length| v1::CustomRecord { r#type, value: vec![1; length] };
        let read = custom_records(vec![record(65_540, 1), record(65_536, 2)]).unwrap();
        assert_eq!(read[0].0, 65_536);
        for odd in [
            vec![record(65_535, 1)],
            vec![record(70_000, 1), record(70_000, 2)],
            vec![record(70_000, 600), record(70_001, 401)],
        ] {
            assert_eq!(reason(custom_records(odd)), Reason::CustomRecordInvalid);
        }
    }

    #[test]
    fn an_amount_is_given_or_named_and_both_agree() {
        assert_eq!(amount(Some(5), None), Ok(5));
        assert_eq!(amount(None, Some(6)), Ok(6));
        assert_eq!(amount(Some(6), Some(6)), Ok(6));
        assert_eq!(reason(amount(Some(7), Some(6))), Reason::AmountMismatch);
        assert_eq!(reason(amount(None, None)), Reason::AmountMissing);
        assert_eq!(reason(amount(Some(0), None)), Reason::AmountOutOfRange);
        assert_eq!(reason(parts_max(0)), Reason::FieldInvalid);
        assert_eq!(parts_max(100), Ok(100));
    }

    #[test]
    fn filters_are_read_and_checked() {
        let filter = v1::PaymentFilter {
            direction: Some(v1::PaymentDirection::Inbound.into()),
            states: vec![v1::PaymentState::Held.into()],
            created_from_unix_ms: Some(1),
            created_before_unix_ms: Some(2),
            payment_hash: Some(vec![3; 32]),
        };
        let read = payment_filter(Some(filter)).unwrap();
        assert_eq!(read.direction, Some(Direction::Inbound));
        assert_eq!(read.states, [crate::payments::PaymentState::Held]);
        assert_eq!((read.from_ms, read.before_ms), (Some(1), Some(2)));
        assert_eq!(read.hash, Some(PaymentHash([3; 32])));
        let odd = v1::PaymentFilter { states: vec![0], ..Default::default() };
        assert_eq!(reason(payment_filter(Some(odd))), Reason::FieldInvalid);
        let odd = v1::InvoiceFilter { states: vec![9], ..Default::default() };
        assert_eq!(reason(invoice_filter(Some(odd))), Reason::FieldInvalid);
    }
}
