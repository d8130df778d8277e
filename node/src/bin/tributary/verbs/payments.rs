//! `pay`, `payment`, `payments`, `estimate`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use node::environment::{Clock, SystemClock};
use proto::v1::quote_response::PayWith;
use proto::v1::{
    CustomRecord, EstimateRouteRequest, EstimateRouteResponse, GetPaymentRequest, Keysend,
    ListPaymentsRequest, ListPaymentsResponse, PayRequest, PayWait, Payment, PaymentDirection,
    PaymentFilter, PaymentState, QuoteRequest, SendRequest, WatchPaymentRequest,
    estimate_route_request, pay_request,
};
use tonic::Status;
use tonic::codec::Streaming;

use super::{money, note_cut, pages, requests};
use crate::amount::sat_from_msat;
use crate::args::{EstimateArgs, PayArgs, PaymentArgs, PaymentStateArg, PaymentsArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::table::{payment_state, words};
use crate::output::text::{Card, short};
use crate::output::{Output, table, text};
use crate::parse::NodeId;

/// How long a payment may take before a spinner shows.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes a payment and follows it. Somebody at a terminal sees a quote first and is asked.
pub async fn pay(client: &Client, out: Output, args: PayArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let wait = !args.no_wait;
    let request = match asking(&args, requests::can_ask() && !out.is_json())? {
        None => request(args, key.clone()),
        Some((ask, asks)) => {
            let quote = requests::agreed(client, &ask, asks).await?;
            match quote.pay_with {
                Some(PayWith::Payment(payment)) => completed(payment, args, key.clone()),
                Some(PayWith::Send(send)) => {
                    let send = SendRequest { idempotency_key: key.clone(), ..send };
                    let tx = money(client.wallet().send(send).await, &key)?;
                    return out.answer(&tx, text::transaction);
                }
                None => unreachable!("what was agreed can be paid"),
            }
        }
    };
    if !wait {
        let payment = money(client.payments().pay(request).await, &key)?;
        return out.answer(&payment, text::payment);
    }
    let states = money(client.payments().pay_stream(request).await, &key)?;
    let payment = follow(states, out, |status| CliError::of_money_call(status, &key)).await?;
    out.answer(&payment, text::payment)?;
    outcome(&payment)
}

/// What quote to ask for first, if one is needed, and whether to ask the user about it.
///
/// A script that pays an invoice or an offer needs none. Everything else has to be read by the
/// node; without somebody to ask, that takes a word before.
fn asking(args: &PayArgs, can_ask: bool) -> Result<Option<(QuoteRequest, bool)>, CliError> {
    let Some(text) = &args.target else { return Ok(None) };
    let asks = can_ask && !args.yes;
    let plain = !args.over.is_given() && !needs_reading(text);
    if plain && !asks {
        return Ok(None);
    }
    if !asks && !args.yes {
        return Err(CliError::Usage(
            "nobody can be asked here; look at it with `tributary quote`, then pay with --yes"
                .to_owned(),
        ));
    }
    let ask = QuoteRequest {
        text: text.clone(),
        amount_msat: args.amount.map(|amount| amount.0),
        max_fee_msat: args.max_fee.map(|fee| fee.0),
        max_parts: args.max_parts,
        feerate_sat_per_vb: None,
        over: args.over.code(),
    };
    Ok(Some((ask, asks)))
}

/// Whether a text is neither an invoice nor an offer.
fn needs_reading(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let scripted = ["bitcoin:", "bc1", "tb1", "bcrt1", "₿"];
    let base58 = text.starts_with(['1', '2', '3', 'm', 'n']) && (26..=35).contains(&text.len());
    scripted.iter().any(|start| text.starts_with(start)) || text.contains('@') || base58
}

/// What pays a quote, with the user's further words.
fn completed(payment: PayRequest, args: PayArgs, key: String) -> PayRequest {
    PayRequest {
        idempotency_key: key,
        timeout_seconds: args.timeout,
        wait: PayWait::ReturnAtOnce as i32,
        payer_note: args.note,
        ..payment
    }
}

fn request(args: PayArgs, key: String) -> PayRequest {
    let target = match (args.keysend, args.target) {
        (Some(node_id), _) => {
            let records = args.record.into_iter();
            pay_request::Target::Keysend(Keysend {
                node_id: node_id.into(),
                custom_records: records
                    .map(|(r#type, value)| CustomRecord { r#type, value })
                    .collect(),
            })
        }
        (None, target) => {
            let text = target.expect("clap asks for a target where there is no keysend");
            match is_offer(&text) {
                true => pay_request::Target::Offer(text),
                false => pay_request::Target::Bolt11Invoice(text),
            }
        }
    };
    PayRequest {
        idempotency_key: key,
        target: Some(target),
        amount_msat: args.amount.map(|amount| amount.0),
        max_fee_msat: args.max_fee.map(|fee| fee.0),
        timeout_seconds: args.timeout,
        max_parts: args.max_parts,
        wait: PayWait::ReturnAtOnce as i32,
        payer_note: args.note,
    }
}

/// Whether a text is a BOLT 12 offer: those begin with `lno1`.
fn is_offer(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_prefix("lightning:").unwrap_or(&text);
    text.starts_with("lno1")
}

/// Shows one payment, or follows it to its end.
pub async fn one(client: &Client, out: Output, args: &PaymentArgs) -> Result<(), CliError> {
    let payment_id: Vec<u8> = args.payment_id.into();
    if !args.wait {
        let request = GetPaymentRequest { payment_id };
        let payment = client.payments().get_payment(request).await?;
        return out.answer(&payment.into_inner(), text::payment);
    }
    let request = WatchPaymentRequest { payment_id };
    let states = client.payments().watch_payment(request).await?.into_inner();
    let payment = follow(states, out, |status| CliError::from(status.clone())).await?;
    out.answer(&payment, text::payment)?;
    outcome(&payment)
}

/// Waits for the end of a payment, with a spinner where it takes long.
async fn follow(
    mut states: Streaming<Payment>,
    out: Output,
    lost: impl Fn(&Status) -> CliError,
) -> Result<Payment, CliError> {
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    let mut spinner: Option<ProgressBar> = None;
    let mut last: Option<Payment> = None;
    let ended = loop {
        tokio::select! {
            biased;
            stop = tokio::signal::ctrl_c() => {
                stop?;
                break Err(interrupted(last.as_ref()));
            }
            state = states.message() => match state {
                Ok(Some(payment)) => {
                    if let Some(spinner) = &spinner {
                        spinner.set_message(progress(&payment));
                    }
                    if matches!(payment.state(), PaymentState::Succeeded | PaymentState::Failed) {
                        break Ok(payment);
                    }
                    last = Some(payment);
                }
                Ok(None) => {
                    break Err(lost(&Status::unavailable("the node ended the answer")));
                }
                Err(status) => break Err(lost(&status)),
            },
            () = &mut patience, if spinner.is_none() && !out.is_json() => {
                // Draws on standard error, and only where that is a terminal.
                let bar = ProgressBar::new_spinner().with_style(
                    ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                        .expect("the template is correct"),
                );
                bar.set_message(last.as_ref().map(progress).unwrap_or_default());
                bar.enable_steady_tick(Duration::from_millis(120));
                spinner = Some(bar);
            }
        }
    };
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    ended
}

fn progress(payment: &Payment) -> String {
    let (state, _) = payment_state(payment.state());
    let amount = sat_from_msat(payment.amount_msat);
    match payment.parts {
        0 | 1 => format!("{amount} sat {state}"),
        parts => format!("{amount} sat {state} in {parts} parts"),
    }
}

fn interrupted(last: Option<&Payment>) -> CliError {
    CliError::Interrupted {
        message: "stopped waiting; the payment goes on".to_owned(),
        remedy: match last {
            Some(payment) => format!(
                "see its end with `tributary payment {} --wait`",
                hex::encode(&payment.payment_id)
            ),
            None => "see `tributary payments --last 5m`".to_owned(),
        },
    }
}

/// A failed payment is a failed command.
fn outcome(payment: &Payment) -> Result<(), CliError> {
    if payment.state() != PaymentState::Failed {
        return Ok(());
    }
    let (reason, text) = match &payment.failure {
        Some(failure) => (
            words(failure.reason().as_str_name(), "PAYMENT_FAILURE_REASON_"),
            failure.text.as_str(),
        ),
        None => ("no reason given".to_owned(), ""),
    };
    let text = table::shortened(text, 700);
    Err(CliError::PaymentFailed(
        format!("the payment failed: {reason}. {text}").trim_end().to_owned(),
    ))
}

/// Lists payments.
pub async fn list(client: &Client, out: Output, args: &PaymentsArgs) -> Result<(), CliError> {
    let now_ms = u64::try_from(SystemClock.now().as_millis()).unwrap_or(u64::MAX);
    let filter = filter(args, now_ms);
    let (payments, next_page_token) = pages(args.list.limit, |size, token| {
        let mut service = client.payments();
        let request = ListPaymentsRequest {
            filter: Some(filter.clone()),
            page_size: Some(size),
            page_token: token,
        };
        async move {
            let page = service.list_payments(request).await?.into_inner();
            Ok((page.payments, page.next_page_token))
        }
    })
    .await?;
    let response = ListPaymentsResponse { payments, next_page_token };
    out.answer(&response, |r| table::payments(&r.payments))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

fn filter(args: &PaymentsArgs, now_ms: u64) -> PaymentFilter {
    let direction = match (args.inbound, args.outbound) {
        (true, _) => Some(PaymentDirection::Inbound as i32),
        (_, true) => Some(PaymentDirection::Outbound as i32),
        _ => None,
    };
    PaymentFilter {
        direction,
        states: args.state.iter().map(|state| state.code()).collect(),
        created_from_unix_ms: args
            .last
            .map(|seconds| now_ms.saturating_sub(seconds.saturating_mul(1_000))),
        created_before_unix_ms: None,
        payment_hash: args.hash.map(Vec::from),
    }
}

impl PaymentStateArg {
    fn code(self) -> i32 {
        let state = match self {
            Self::InFlight => PaymentState::InFlight,
            Self::Held => PaymentState::Held,
            Self::Claiming => PaymentState::Claiming,
            Self::Succeeded => PaymentState::Succeeded,
            Self::Failed => PaymentState::Failed,
        };
        state as i32
    }
}

/// Finds a route without paying.
pub async fn estimate(client: &Client, out: Output, args: EstimateArgs) -> Result<(), CliError> {
    let target = match args.target.parse::<NodeId>() {
        Ok(node_id) => estimate_route_request::Target::NodeId(node_id.into()),
        Err(_) => estimate_route_request::Target::Bolt11Invoice(args.target),
    };
    let request = EstimateRouteRequest {
        target: Some(target),
        amount_msat: args.amount.map(|amount| amount.0),
        max_fee_msat: args.max_fee.map(|fee| fee.0),
        max_parts: args.max_parts,
    };
    let route = client.payments().estimate_route(request).await?;
    out.answer(&route.into_inner(), route_text)
}

fn route_text(route: &EstimateRouteResponse) -> String {
    let mut card = Card::default();
    card.line("amount", format!("{} sat", sat_from_msat(route.amount_msat)))
        .line("fee", format!("{} sat", sat_from_msat(route.fee_msat)))
        .line("locked at most", format!("{} blocks", route.total_cltv_expiry_delta));
    for part in &route.parts {
        let hops: Vec<_> = part.hops.iter().map(|hop| short(&hop.node_id)).collect();
        card.line("part", format!("{} sat: {}", sat_from_msat(part.amount_msat), hops.join(" → ")));
    }
    card.finish()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proto::v1::{PaymentFailure, PaymentFailureReason};

    use super::*;
    use crate::args::{Cli, Verb};

    fn parsed(words: &str) -> Verb {
        let words = ["tributary"].into_iter().chain(words.split(' '));
        Cli::try_parse_from(words).unwrap().verb
    }

    fn pay_request(words: &str) -> PayRequest {
        match parsed(words) {
            Verb::Pay(args) => {
                let key = args.mutation.key();
                request(args, key)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_target_is_told_by_its_text() {
        use pay_request::Target;
        let target = |words: &str| pay_request(words).target.unwrap();
        assert_eq!(target("pay lnbcrt1abc"), Target::Bolt11Invoice("lnbcrt1abc".to_owned()));
        assert_eq!(target("pay LNO1ABC"), Target::Offer("LNO1ABC".to_owned()));
        assert!(matches!(target("pay lightning:lno1abc"), Target::Offer(_)));
        let id = "02".repeat(33);
        let request = pay_request(&format!(
            "pay --keysend {id} --amount 5msat --record 65537=c0 --idempotency-key k"
        ));
        assert_eq!(request.amount_msat, Some(5));
        assert_eq!(request.idempotency_key, "k");
        let Some(Target::Keysend(keysend)) = request.target else {
            panic!("no keysend");
        };
        assert_eq!(keysend.node_id, vec![2; 33]);
        assert_eq!(keysend.custom_records[0].r#type, 65_537);
    }

    #[test]
    fn a_quote_comes_first_where_somebody_can_be_asked_or_must_say_yes() {
        let asked = |words: &str, can_ask| match parsed(words) {
            Verb::Pay(args) => asking(&args, can_ask).map(|asked| asked.map(|(_, asks)| asks)),
            other => panic!("{other:?}"),
        };
        for plain in ["pay lnbcrt1abc", "pay LIGHTNING:LNO1ABC", "pay ends-well"] {
            assert!(matches!(asked(plain, false), Ok(None)), "scripts go on as ever: {plain}");
            assert!(matches!(asked(plain, true), Ok(Some(true))), "{plain}");
            assert!(matches!(asked(&format!("{plain} --yes"), true), Ok(None)), "{plain}");
        }
        for read in [
            "pay bitcoin:bcrt1q",
            "pay ₿a@b.c --amount 1",
            "pay BCRT1Q --amount 1",
            "pay 175tWpb8K1S7NmH4Zx6rewF9WQrcZv245W --amount 1",
            "pay lnbcrt1abc --lightning",
        ] {
            assert!(matches!(asked(read, false), Err(CliError::Usage(_))), "{read}");
            assert!(matches!(asked(&format!("{read} --yes"), false), Ok(Some(false))), "{read}");
            assert!(matches!(asked(read, true), Ok(Some(true))), "{read}");
        }
        let id = "02".repeat(33);
        let keysend = format!("pay --keysend {id} --amount 5msat");
        assert!(matches!(asked(&keysend, true), Ok(None)));
    }

    #[test]
    fn absent_limits_stay_absent() {
        let request = pay_request("pay lnbcrt1abc");
        assert_eq!(request.amount_msat, None);
        assert_eq!(request.max_fee_msat, None);
        assert_eq!(request.timeout_seconds, None);
        // Zero is a value: no fee at all.
        let request = pay_request("pay lnbcrt1abc --max-fee 0");
        assert_eq!(request.max_fee_msat, Some(0));
    }

    #[test]
    fn the_filter_is_what_was_asked_for() {
        let Verb::Payments(args) = parsed("payments --inbound --state held --last 2m") else {
            panic!("not payments");
        };
        let filter = filter(&args, 1_000_000);
        assert_eq!(filter.direction, Some(PaymentDirection::Inbound as i32));
        assert_eq!(filter.states, [PaymentState::Held as i32]);
        assert_eq!(filter.created_from_unix_ms, Some(880_000));
    }

    #[test]
    fn a_failed_payment_is_a_failed_command() {
        let mut payment = Payment { state: PaymentState::Succeeded as i32, ..Payment::default() };
        outcome(&payment).unwrap();
        payment.state = PaymentState::Failed as i32;
        payment.failure = Some(PaymentFailure {
            reason: PaymentFailureReason::NoRoute as i32,
            text: "raise --max-fee".to_owned(),
        });
        let error = outcome(&payment).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(format!("{error:?}").contains("no route. raise --max-fee"));
    }
}
