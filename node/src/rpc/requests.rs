//! Payment requests and quotes: what callers ask, and what the answers look like.

use std::time::Duration;

use bitcoin::Amount;
use proto::v1;

use super::channels::feerate;
use super::convert::{known, network, within};
use super::payment_requests::{EXPIRY_SECONDS, EXPIRY_SECONDS_MAX, parts_max};
use super::status::{Reason, Refusal};
use crate::journal::millis;
use crate::lightning::{Decoded, DecodedKind, RouteEstimate};
use crate::onchain::SendCost;
use crate::requests::{
    CreateRequest, MadeRequest, Over, Problem, Quote, QuoteAsk, Reading, Source, Warning,
    WarningKind, Way, WayKind,
};

pub(super) fn create_request(
    request: &v1::CreatePaymentRequestRequest,
) -> Result<CreateRequest, Refusal> {
    let expiry = within(
        Reason::ExpiryOutOfRange,
        "expiry_seconds",
        request.expiry_seconds.unwrap_or(EXPIRY_SECONDS),
        1..=EXPIRY_SECONDS_MAX,
    )?;
    Ok(CreateRequest {
        amount_msat: request.amount_msat,
        description: request.description.clone(),
        expiry: Duration::from_secs(expiry.into()),
        on_chain: request.onchain,
        bolt11: request.bolt11,
        bolt12: request.bolt12,
    })
}

/// Writes a payment request of ours.
pub(super) fn payment_request(made: &MadeRequest, description: String) -> v1::PaymentRequest {
    v1::PaymentRequest {
        uri: made.uri.clone(),
        amount_msat: made.amount_msat,
        description,
        address: made.address.clone(),
        bolt11: made.invoice.as_ref().map(|invoice| invoice.invoice.clone()),
        payment_hash: made.invoice.as_ref().map(|invoice| invoice.hash.0.to_vec()),
        bolt12: made.offer.as_ref().map(|offer| offer.decoded.text.clone()),
        created_unix_ms: millis(made.created),
        expires_unix_ms: millis(made.expires),
    }
}

pub(super) fn quote_ask(request: v1::QuoteRequest) -> Result<QuoteAsk, Refusal> {
    let over = match request.over {
        0 => Over::Any,
        value => match known("over", value)? {
            v1::PayOver::Lightning => Over::Lightning,
            v1::PayOver::Onchain => Over::OnChain,
            v1::PayOver::Unspecified => Over::Any,
        },
    };
    Ok(QuoteAsk {
        text: request.text,
        amount_msat: request.amount_msat,
        max_fee_msat: request.max_fee_msat,
        max_parts: request.max_parts.map(parts_max).transpose()?,
        feerate_sat_per_vb: feerate(request.feerate_sat_per_vb)?,
        over,
    })
}

/// Writes what a text offers, seen at `now` by a node whose channels can send `spendable_msat`.
pub(super) fn decoded(
    reading: &Reading,
    spendable_msat: Option<u64>,
    now: Duration,
) -> v1::DecodeResponse {
    let choice = reading.choice(spendable_msat);
    let (chosen, chosen_because) = match choice {
        Some((way, why)) => (Some(way), why),
        None => (None, "none of its ways can be paid by this node".to_owned()),
    };
    let shown = chosen.or(reading.ways.first());
    v1::DecodeResponse {
        decoded: shown.and_then(|way| way_decoded(way, now)),
        source: source(reading).into(),
        ways: reading
            .ways
            .iter()
            .map(|way| way_to_pay(way, chosen.is_some_and(|chosen| std::ptr::eq(chosen, way))))
            .collect(),
        chosen_because,
        amount_msat: reading.amount_sat.map(|sat| sat.saturating_mul(1_000)),
        label: reading.label.clone(),
        message: reading.message.clone(),
        name: reading.name.as_ref().map(|named| named.name.to_string()),
        name_valid_until_unix_ms: reading.name.as_ref().map(|named| millis(named.until)),
    }
}

fn way_to_pay(way: &Way, chosen: bool) -> v1::WayToPay {
    v1::WayToPay {
        kind: way_kind(way.kind).into(),
        text: way.text.clone(),
        chosen,
        problem: way.problem.as_ref().map(ToString::to_string),
    }
}

fn way_kind(kind: WayKind) -> v1::WayKind {
    match kind {
        WayKind::Bolt11 => v1::WayKind::Bolt11,
        WayKind::Bolt12 => v1::WayKind::Bolt12,
        WayKind::OnChain => v1::WayKind::Onchain,
        WayKind::Unknown => v1::WayKind::Unknown,
    }
}

fn source(reading: &Reading) -> v1::RequestSource {
    match (reading.source, &reading.name) {
        (_, Some(_)) => v1::RequestSource::Name,
        (Source::Invoice, None) => v1::RequestSource::Invoice,
        (Source::Offer, None) => v1::RequestSource::Offer,
        (Source::Address, None) => v1::RequestSource::Address,
        (Source::Uri, None) => v1::RequestSource::Uri,
    }
}

fn way_decoded(way: &Way, now: Duration) -> Option<v1::decode_response::Decoded> {
    use v1::decode_response::Decoded as D;
    if let Some(decoded) = &way.lightning {
        return Some(lightning(decoded, now));
    }
    if way.kind != WayKind::OnChain || matches!(way.problem, Some(Problem::Unreadable(_))) {
        return None;
    }
    let address =
        v1::DecodedAddress { address: way.text.clone(), on_network: way.problem.is_none() };
    Some(D::Address(address))
}

/// Writes what an invoice or an offer says, seen at `now`.
fn lightning(decoded: &Decoded, now: Duration) -> v1::decode_response::Decoded {
    use v1::decode_response::Decoded as D;
    let expired = decoded.expires.is_some_and(|expires| expires <= now);
    let mut networks = decoded.networks.iter().map(|known| network(*known));
    let paths = u32::try_from(decoded.paths).unwrap_or(u32::MAX);
    let payee = decoded.payee.map(|payee| payee.serialize().to_vec());
    match decoded.kind {
        DecodedKind::Invoice => D::Invoice(v1::DecodedInvoice {
            network: networks.next_back().unwrap_or_default().into(),
            payment_hash: decoded.hash.map(|hash| hash.0.to_vec()).unwrap_or_default(),
            recipient_node_id: payee.unwrap_or_default(),
            amount_msat: decoded.amount_msat,
            description: decoded.description.clone(),
            description_hash: decoded.description_hash.map(|hash| hash.to_vec()),
            created_unix_ms: decoded.created.map(millis).unwrap_or(0),
            expires_unix_ms: decoded.expires.map_or(u64::MAX, millis),
            expired,
            min_final_cltv_expiry_delta: decoded.min_final_cltv_expiry_delta.unwrap_or(0),
            route_hints: paths,
        }),
        DecodedKind::Offer => D::Offer(v1::DecodedOffer {
            offer_id: decoded.offer_id.map(|id| id.to_vec()).unwrap_or_default(),
            networks: networks.map(i32::from).collect(),
            amount_msat: decoded.amount_msat,
            description: decoded.description.clone(),
            issuer: decoded.issuer.clone(),
            issuer_signing_pubkey: payee,
            expires_unix_ms: decoded.expires.map(millis),
            expired,
            blinded_paths: paths,
        }),
    }
}

/// Writes a quote, and the request that pays it.
pub(super) fn quote(quote: &Quote, ask: &QuoteAsk) -> v1::QuoteResponse {
    let decoded = quote.way.lightning.as_ref();
    let named = quote.reading.name.as_ref();
    let ends = [quote.way.expires(), named.map(|named| named.until)];
    v1::QuoteResponse {
        way: Some(way_to_pay(&quote.way, true)),
        source: source(&quote.reading).into(),
        name: named.map(|named| named.name.to_string()),
        label: quote.reading.label.clone(),
        description: quote.reading.about(&quote.way),
        recipient_node_id: decoded
            .and_then(|decoded| decoded.payee)
            .map(|payee| payee.serialize().to_vec()),
        recipient_connected: quote.recipient_connected,
        amount_msat: quote.amount_msat,
        fee_msat: quote.fee_msat,
        max_fee_msat: quote.max_fee_msat,
        route: quote.route.as_ref().map(route_risk),
        chain: quote.chain.as_ref().map(chain_fee),
        request_expires_unix_ms: ends.into_iter().flatten().min().map(millis),
        valid_until_unix_ms: millis(quote.until),
        warnings: quote.warnings.iter().map(warning).collect(),
        pay_with: quote.payable.then(|| pay_with(quote, ask)),
    }
}

/// The request that pays a quote: of this very recipient, for this amount, within this fee.
fn pay_with(quote: &Quote, ask: &QuoteAsk) -> v1::quote_response::PayWith {
    use v1::pay_request::Target;
    use v1::quote_response::PayWith;
    let text = quote.way.text.clone();
    let target = match quote.way.kind {
        WayKind::OnChain | WayKind::Unknown => {
            let amount_sat = quote.amount_msat / 1_000;
            return PayWith::Send(v1::SendRequest {
                idempotency_key: String::new(),
                address: text,
                amount: Some(v1::send_request::Amount::AmountSat(amount_sat)),
                feerate_sat_per_vb: ask.feerate_sat_per_vb,
                max_fee_sat: Some(Amount::from_sat(quote.max_fee_msat / 1_000).to_sat()),
            });
        }
        WayKind::Bolt12 => Target::Offer(text),
        WayKind::Bolt11 => Target::Bolt11Invoice(text),
    };
    PayWith::Payment(v1::PayRequest {
        target: Some(target),
        amount_msat: Some(quote.amount_msat),
        max_fee_msat: Some(quote.max_fee_msat),
        max_parts: ask.max_parts.map(u32::from),
        ..v1::PayRequest::default()
    })
}

fn route_risk(route: &RouteEstimate) -> v1::RouteRisk {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    v1::RouteRisk {
        success_probability_millionths: route.success_probability_millionths,
        unjudged_hops: route.unjudged_hops,
        parts: count(route.parts.len()),
        hops_max: count(route.parts.iter().map(|part| part.hops.len()).max().unwrap_or(0)),
        total_cltv_expiry_delta: route.total_cltv_expiry_delta,
        partial: route.partial,
    }
}

fn chain_fee(cost: &SendCost) -> v1::ChainFee {
    v1::ChainFee {
        fee_sat: cost.fee.to_sat(),
        feerate_sat_per_kw: cost.feerate.to_sat_per_kwu(),
        target_blocks: cost.target_blocks.map(u32::from),
    }
}

fn warning(warning: &Warning) -> v1::QuoteWarning {
    use v1::QuoteWarningKind as W;
    let kind = match warning.kind {
        WarningKind::AmountAboveSpendable => W::AmountAboveSpendable,
        WarningKind::NoRoute => W::NoRoute,
        WarningKind::FeeAboveLimit => W::FeeAboveLimit,
        WarningKind::AlreadyPaid => W::AlreadyPaid,
        WarningKind::PaysItself => W::PaysItself,
        WarningKind::AmountNotOnChain => W::AmountNotOnchain,
        WarningKind::NoCoins => W::NoCoins,
        WarningKind::OtherWayLeft => W::OtherWayLeft,
        WarningKind::ExpiresSoon => W::ExpiresSoon,
        WarningKind::RouteHidden => W::RouteHidden,
        WarningKind::RouteUnlikely => W::RouteUnlikely,
        WarningKind::LockedLong => W::LockedLong,
        WarningKind::FeeHigh => W::FeeHigh,
        WarningKind::RecipientUnknown => W::RecipientUnknown,
    };
    v1::QuoteWarning { kind: kind.into(), text: warning.text.clone() }
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;

    use super::*;

    const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    fn reading(text: &str) -> Reading {
        Reading::of(text, Network::Regtest, Duration::ZERO).unwrap()
    }

    fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Reason {
        result.unwrap_err().reason()
    }

    #[test]
    fn asks_are_read_by_field() {
        let odd = v1::QuoteRequest { over: 9, ..v1::QuoteRequest::default() };
        assert_eq!(reason(quote_ask(odd)), Reason::FieldInvalid);
        let odd = v1::QuoteRequest { feerate_sat_per_vb: Some(0), ..v1::QuoteRequest::default() };
        assert_eq!(reason(quote_ask(odd)), Reason::FeerateOutOfRange);
        let odd = v1::QuoteRequest { max_parts: Some(0), ..v1::QuoteRequest::default() };
        assert_eq!(reason(quote_ask(odd)), Reason::FieldInvalid);
        let over = v1::PayOver::Onchain.into();
        let ask = quote_ask(v1::QuoteRequest { over, ..v1::QuoteRequest::default() }).unwrap();
        assert_eq!(ask.over, Over::OnChain);
        let create = v1::CreatePaymentRequestRequest::default;
        assert_eq!(create_request(&create()).unwrap().expiry, Duration::from_secs(3_600));
        let odd = v1::CreatePaymentRequestRequest { expiry_seconds: Some(0), ..create() };
        assert_eq!(reason(create_request(&odd)), Reason::ExpiryOutOfRange);
    }

    #[test]
    fn everything_found_is_told_and_the_chosen_one_marked() {
        let text = format!("bitcoin:{ADDRESS}?amount=0.1&label=a&message=b&lightning=lnbcrt1x");
        let written = decoded(&reading(&text), Some(0), Duration::ZERO);
        assert_eq!(written.source(), v1::RequestSource::Uri);
        assert_eq!(written.amount_msat, Some(10_000_000_000));
        assert_eq!((written.label.as_deref(), written.message.as_deref()), (Some("a"), Some("b")));
        let told: Vec<_> = written
            .ways
            .iter()
            .map(|way| (way.kind(), way.chosen, way.problem.is_some()))
            .collect();
        let expected = [(v1::WayKind::Onchain, true, false), (v1::WayKind::Bolt11, false, true)];
        assert_eq!(told, expected);
        let Some(v1::decode_response::Decoded::Address(address)) = written.decoded else {
            panic!("an address");
        };
        assert!(address.on_network && address.address == ADDRESS);
        // Nothing in it is of use, and it is told all the same.
        let foreign = reading("bitcoin:?bc=bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq");
        let written = decoded(&foreign, None, Duration::ZERO);
        assert!(!written.ways[0].chosen && written.ways[0].problem.is_some());
        let Some(v1::decode_response::Decoded::Address(address)) = written.decoded else {
            panic!("an address");
        };
        assert!(!address.on_network);
    }

    #[test]
    fn what_pays_a_quote_has_its_recipient_amount_and_bound() {
        let reading = reading(&format!("bitcoin:{ADDRESS}?amount=0.1"));
        let ask = QuoteAsk {
            text: String::new(),
            amount_msat: None,
            max_fee_msat: None,
            max_parts: Some(3),
            feerate_sat_per_vb: Some(7),
            over: Over::Any,
        };
        let mut made = Quote {
            way: reading.ways[0].clone(),
            reading,
            amount_msat: 10_000_000_000,
            fee_msat: Some(1_000_000),
            max_fee_msat: 1_500_000,
            route: None,
            chain: None,
            recipient_connected: None,
            until: Duration::from_secs(9),
            payable: true,
            warnings: vec![Warning { kind: WarningKind::FeeHigh, text: "x".to_owned() }],
        };
        let written = quote(&made, &ask);
        let Some(v1::quote_response::PayWith::Send(send)) = written.pay_with else {
            panic!("coins are sent");
        };
        assert_eq!((&*send.address, send.feerate_sat_per_vb), (ADDRESS, Some(7)));
        assert_eq!(send.amount, Some(v1::send_request::Amount::AmountSat(10_000_000)));
        assert_eq!(send.max_fee_sat, Some(1_500));
        assert_eq!(written.warnings[0].kind(), v1::QuoteWarningKind::FeeHigh);
        made.way.kind = WayKind::Bolt12;
        made.way.text = "lno1".to_owned();
        let Some(v1::quote_response::PayWith::Payment(pay)) = quote(&made, &ask).pay_with else {
            panic!("a payment");
        };
        assert_eq!(pay.target, Some(v1::pay_request::Target::Offer("lno1".to_owned())));
        assert_eq!((pay.amount_msat, pay.max_fee_msat), (Some(10_000_000_000), Some(1_500_000)));
        assert_eq!((pay.max_parts, &*pay.idempotency_key), (Some(3), ""));
        made.payable = false;
        assert_eq!(quote(&made, &ask).pay_with, None);
    }
}
