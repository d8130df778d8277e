//! Payment requests, quotes and reasons, as text.

use anstyle::AnsiColor;
use node::rpc::status::{Reason, code_name};
use proto::v1::{PaymentRequest, QuoteResponse, QuoteWarningKind, RouteRisk, WayKind, WayToPay};

use super::styled;
use super::table::{shortened, words};
use super::text::{Card, msats, utc};

/// Longest text of others shown, in characters.
const TEXT_MAX: usize = 300;
/// Minutes between two blocks.
const BLOCK_MINUTES: u64 = 10;

/// A payment request; the code stands last and alone, to be copied.
pub fn made(request: &PaymentRequest) -> String {
    let mut card = Card::default();
    card.line("amount", request.amount_msat.map_or("any".to_owned(), msats))
        .maybe("about", Some(&request.description).filter(|text| !text.is_empty()))
        .maybe("address", request.address.as_ref())
        .maybe("invoice", request.payment_hash.as_ref().map(hex::encode))
        .maybe("offer", request.bolt12.as_ref().map(|_| "yes"))
        .line("expires", utc(request.expires_unix_ms));
    format!("{}\n\n{}", card.finish(), request.uri)
}

/// The name of a way.
pub fn way(kind: WayKind) -> &'static str {
    match kind {
        WayKind::Bolt11 => "BOLT 11 invoice, over channels",
        WayKind::Bolt12 => "BOLT 12 offer, over channels",
        WayKind::Onchain => "Bitcoin address, on chain",
        WayKind::Unknown | WayKind::Unspecified => "a way that is not known",
    }
}

/// Lines of what a text offers.
pub fn ways(card: &mut Card, ways: &[WayToPay]) {
    for found in ways {
        let what = way(found.kind());
        let text = shortened(&found.text, 40);
        let state = match (&found.problem, found.chosen) {
            (Some(problem), _) => format!("{what}: {problem}"),
            (None, true) => format!("{what}, chosen: {text}"),
            (None, false) => format!("{what}: {text}"),
        };
        card.line("offers", state);
    }
}

/// A quote.
pub fn quote(quote: &QuoteResponse) -> String {
    let mut card = Card::default();
    let quoted = |text: &String| shortened(text, TEXT_MAX);
    let chosen = quote.way.as_ref();
    card.maybe("name", quote.name.as_ref())
        .maybe("who", quote.label.as_ref().map(quoted))
        .maybe("about", quote.description.as_ref().map(quoted))
        .maybe("by", chosen.map(|found| way(found.kind())))
        .maybe("recipient", quote.recipient_node_id.as_ref().map(hex::encode));
    if let Some(address) = chosen.filter(|found| found.kind() == WayKind::Onchain) {
        card.line("to", &address.text);
    }
    card.line("amount", msats(quote.amount_msat))
        .line("fee now", quote.fee_msat.map_or("not known yet".to_owned(), msats))
        .line("fee at most", msats(quote.max_fee_msat));
    if let Some(route) = &quote.route {
        card.line("route", route_line(route)).line("stuck at most", stuck(route));
    }
    if let Some(chain) = &quote.chain {
        // 250 sat per 1,000 weight units are 1 sat per virtual byte.
        let rate = format!(
            "{}.{:02} sat/vB",
            chain.feerate_sat_per_kw / 250,
            chain.feerate_sat_per_kw % 250 * 100 / 250
        );
        let within = chain.target_blocks.map(|blocks| format!(", within {blocks} blocks"));
        card.line("feerate", format!("{rate}{}", within.unwrap_or_default()));
    }
    card.maybe("request expires", quote.request_expires_unix_ms.map(utc))
        .line("quote counts until", utc(quote.valid_until_unix_ms));
    for warning in &quote.warnings {
        let blocks = (warning.kind as u32) <= QuoteWarningKind::NoCoins as u32;
        let colour = if blocks { AnsiColor::Red } else { AnsiColor::Yellow };
        let kind = words(warning.kind().as_str_name(), "QUOTE_WARNING_KIND_");
        let text = shortened(&warning.text, TEXT_MAX);
        card.line("note", styled(colour.on_default(), &format!("{kind}: {text}")));
    }
    if quote.pay_with.is_none() {
        card.line("result", styled(AnsiColor::Red.on_default(), "it cannot be paid so"));
    }
    card.finish()
}

fn route_line(route: &RouteRisk) -> String {
    let percent = route.success_probability_millionths / 10_000;
    let count = |number: u32, one: &str| match number {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    };
    let mut line = format!(
        "{}, at most {}, first try succeeds with {percent} %",
        count(route.parts, "part"),
        count(route.hops_max, "hop"),
    );
    if route.unjudged_hops > 0 {
        line.push_str(&format!(" (but for {} nobody knows)", count(route.unjudged_hops, "hop")));
    }
    if route.partial {
        line.push_str(", the rest is hidden");
    }
    line
}

fn stuck(route: &RouteRisk) -> String {
    let blocks = u64::from(route.total_cltv_expiry_delta);
    let hours = blocks * BLOCK_MINUTES / 60;
    match hours {
        0..48 => format!("{blocks} blocks, some {hours} h"),
        _ => format!("{blocks} blocks, some {} days", hours / 24),
    }
}

/// A reason.
pub fn reason(reason: Reason) -> String {
    let mut card = Card::default();
    card.line("reason", reason.as_str())
        .line("code", code_name(reason.code()))
        .line("cause", reason.cause())
        .line("remedy", reason.remedy())
        .line("repeat", reason.retry().as_str());
    if !reason.metadata().is_empty() {
        card.line("metadata", reason.metadata().join(", "));
    }
    card.finish()
}

/// All reasons, one on each line.
pub fn reasons() -> String {
    let mut card = Card::default();
    for reason in Reason::ALL {
        card.line(reason.as_str(), reason.cause());
    }
    card.finish()
}

#[cfg(test)]
mod tests {
    use proto::v1::{ChainFee, QuoteWarning};

    use super::*;

    #[test]
    fn a_quote_tells_what_matters() {
        let warn = |kind: QuoteWarningKind, text: &str| QuoteWarning {
            kind: kind as i32,
            text: text.to_owned(),
        };
        let route = RouteRisk {
            success_probability_millionths: 873_000,
            unjudged_hops: 1,
            parts: 2,
            hops_max: 3,
            total_cltv_expiry_delta: 450,
            partial: true,
        };
        let mut shown = QuoteResponse {
            name: Some("₿matt@mattcorallo.com".to_owned()),
            way: Some(WayToPay { kind: WayKind::Bolt12 as i32, ..WayToPay::default() }),
            amount_msat: 1_000_500,
            fee_msat: None,
            max_fee_msat: 20_000,
            route: Some(route),
            warnings: vec![warn(QuoteWarningKind::NoRoute, "none")],
            ..QuoteResponse::default()
        };
        let text = anstream::adapter::strip_str(&quote(&shown)).to_string();
        for part in [
            "₿matt@mattcorallo.com",
            "1,000.500 sat",
            "not known yet",
            "20 sat",
            "2 parts, at most 3 hops, first try succeeds with 87 % (but for 1 hop nobody knows), the rest is hidden",
            "450 blocks, some 3 days",
            "no route: none",
            "it cannot be paid so",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        shown.chain =
            Some(ChainFee { fee_sat: 1, feerate_sat_per_kw: 563, target_blocks: Some(12) });
        let text = anstream::adapter::strip_str(&quote(&shown)).to_string();
        assert!(text.contains("2.25 sat/vB, within 12 blocks"), "{text}");
    }
}
