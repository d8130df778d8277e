//! Payment requests and quotes over the interface, between two real nodes.

use proto::v1;
use proto::v1::QuoteWarningKind as W;
use proto::v1::quote_response::PayWith;
use tonic::Code;

use super::super::status::explain;
use super::whole::{Api, invoice_request, pair, reason};
use crate::dev::{Cluster, DevChain, NodeOptions};

async fn quote(api: &Api, ask: v1::QuoteRequest) -> v1::QuoteResponse {
    api.payments().quote(ask).await.unwrap().into_inner()
}

fn ask(text: &str) -> v1::QuoteRequest {
    v1::QuoteRequest { text: text.to_owned(), ..v1::QuoteRequest::default() }
}

fn kinds(quote: &v1::QuoteResponse) -> Vec<W> {
    quote.warnings.iter().map(v1::QuoteWarning::kind).collect()
}

fn payment(quote: &v1::QuoteResponse, key: &str) -> v1::PayRequest {
    let Some(PayWith::Payment(payment)) = quote.pay_with.clone() else {
        panic!("{quote:?}");
    };
    let wait = v1::PayWait::Wait.into();
    v1::PayRequest { idempotency_key: key.to_owned(), wait, ..payment }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_made_once_read_priced_and_paid_in_each_of_its_ways() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let create = |key: &str| v1::CreatePaymentRequestRequest {
        idempotency_key: key.to_owned(),
        amount_msat: Some(20_000_000),
        description: "tea & cake".to_owned(),
        ..v1::CreatePaymentRequestRequest::default()
    };
    let mut payments = bob.payments();
    let made = payments.create_payment_request(create("a")).await.unwrap().into_inner();
    let again = payments.create_payment_request(create("a")).await.unwrap().into_inner();
    assert_eq!(made, again, "one key, one request");
    let other = payments.create_payment_request(create("b")).await.unwrap().into_inner();
    assert_ne!(made.address, other.address, "no address is given out twice");
    let changed = v1::CreatePaymentRequestRequest { amount_msat: Some(1), ..create("a") };
    let status = payments.create_payment_request(changed).await.unwrap_err();
    assert_eq!(reason(&status), "IDEMPOTENCY_KEY_REUSED");
    assert!(made.uri.contains("?amount=0.0002&message=tea%20%26%20cake&lightning=lnbcrt"));
    assert!(made.uri.contains("&lno=lno1"), "{}", made.uri);

    let decode = v1::DecodeRequest { text: made.uri.to_uppercase().replace("TEA%20", "tea%20") };
    let read = alice.payments().decode(decode).await.unwrap().into_inner();
    assert_eq!((read.source(), read.amount_msat), (v1::RequestSource::Uri, Some(20_000_000)));
    let ways: Vec<_> = read.ways.iter().map(|way| (way.kind(), way.chosen)).collect();
    let expected =
        [(v1::WayKind::Onchain, false), (v1::WayKind::Bolt11, true), (v1::WayKind::Bolt12, false)];
    assert_eq!(ways, expected);
    let Some(v1::decode_response::Decoded::Invoice(invoice)) = read.decoded else {
        panic!("the invoice is chosen");
    };
    assert_eq!(Some(invoice.payment_hash), made.payment_hash);

    // Over the channel, by the invoice.
    let first = quote(&alice, ask(&made.uri)).await;
    assert_eq!(first.way.as_ref().unwrap().kind(), v1::WayKind::Bolt11);
    assert_eq!((first.amount_msat, first.fee_msat), (20_000_000, Some(0)));
    assert_eq!(first.max_fee_msat, 10_000 + 200_000, "the configured limit");
    assert_eq!(first.description.as_deref(), Some("tea & cake"));
    assert_eq!((first.recipient_connected, kinds(&first)), (Some(true), vec![]));
    let route = first.route.unwrap();
    assert_eq!((route.parts, route.hops_max, route.unjudged_hops), (1, 1, 0));
    assert_eq!(route.success_probability_millionths, 1_000_000, "the channel is our own");
    assert!(route.total_cltv_expiry_delta > 0 && !route.partial);
    assert!(first.valid_until_unix_ms < first.request_expires_unix_ms.unwrap());
    let paid = alice.payments().pay(payment(&first, "first")).await.unwrap().into_inner();
    assert_eq!(paid.state(), v1::PaymentState::Succeeded);
    assert_eq!(paid.payment_hash, made.payment_hash);

    // It asks for one payment: nothing of it is paid a second time, in no other way.
    let over = v1::PayOver::Onchain.into();
    let again = v1::QuoteRequest { over, ..ask(&made.uri) };
    for ask in [ask(&made.uri), again, ask(made.bolt11.as_deref().unwrap())] {
        let told = quote(&alice, ask).await;
        assert_eq!((kinds(&told), told.pay_with), (vec![W::AlreadyPaid], None));
    }

    // The other request: its offer, as it may be paid many times.
    let second = quote(&alice, ask(other.bolt12.as_deref().unwrap())).await;
    assert_eq!(second.way.as_ref().unwrap().kind(), v1::WayKind::Bolt12);
    assert!(kinds(&second).contains(&W::RouteHidden), "{second:?}");
    let paid = alice.payments().pay(payment(&second, "second")).await.unwrap().into_inner();
    assert_eq!((paid.state(), paid.kind()), (v1::PaymentState::Succeeded, v1::PaymentKind::Bolt12));

    // On chain, as it was asked for; and never for more than was told.
    let third = quote(&alice, v1::QuoteRequest { over, ..ask(&other.uri) }).await;
    assert_eq!(third.way.as_ref().unwrap().text, other.address.clone().unwrap());
    let chain = third.chain.unwrap();
    assert_eq!(third.fee_msat, Some(chain.fee_sat * 1_000));
    assert!(chain.feerate_sat_per_kw > 0 && chain.target_blocks == Some(12));
    let Some(PayWith::Send(send)) = third.pay_with.clone() else { panic!("{third:?}") };
    assert_eq!(send.max_fee_sat.map(|sat| sat * 1_000), Some(third.max_fee_msat));
    let dear = v1::SendRequest {
        idempotency_key: "dear".to_owned(),
        max_fee_sat: Some(chain.fee_sat - 1),
        ..send.clone()
    };
    let status = alice.wallet().send(dear).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::FailedPrecondition, "FEE_ABOVE_MAX"));
    assert_eq!(explain(&status).metadata["fee_sat"], chain.fee_sat.to_string());
    let coins = cluster.node("alice").wallet.list_unspent();
    assert!(coins.iter().all(|coin| coin.held_by.is_none()), "a quote holds no coin: {coins:?}");
    let send = v1::SendRequest { idempotency_key: "send".to_owned(), ..send };
    let sent = alice.wallet().send(send).await.unwrap().into_inner();
    assert_eq!(sent.fee_sat, Some(chain.fee_sat));
    // So its invoice is not paid as well.
    let told = quote(&alice, ask(&other.uri)).await;
    assert_eq!((kinds(&told), told.pay_with), (vec![W::AlreadyPaid], None));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_that_cannot_be_paid_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let much = bob.payments().create_invoice(invoice_request("much", 2_000_000_000)).await;
    let much = much.unwrap().into_inner().bolt11;
    let told = quote(&alice, ask(&much)).await;
    assert_eq!((kinds(&told), told.pay_with), (vec![W::AmountAboveSpendable], None));
    assert_eq!(told.fee_msat, None);
    let own = alice.payments().create_invoice(invoice_request("own", 1_000)).await;
    let told = quote(&alice, ask(&own.unwrap().into_inner().bolt11)).await;
    assert_eq!((kinds(&told), told.pay_with), (vec![W::PaysItself], None));
    // Nobody pays less than the least output.
    let new = v1::NewAddressRequest { idempotency_key: "a".into() };
    let address = bob.wallet().new_address(new).await.unwrap().into_inner().address;
    let of = |amount_msat| v1::QuoteRequest { amount_msat: Some(amount_msat), ..ask(&address) };
    for (amount_msat, kind) in [
        (1_001, W::AmountNotOnchain),
        (100_000, W::AmountNotOnchain),
        (100_000_000_000, W::NoCoins),
    ] {
        let told = quote(&alice, of(amount_msat)).await;
        assert_eq!((kinds(&told), told.pay_with), (vec![kind], None), "{amount_msat}");
    }
    let bounded = v1::QuoteRequest { max_fee_msat: Some(1_000), ..of(50_000_000) };
    let told = quote(&alice, bounded).await;
    assert_eq!((kinds(&told), told.pay_with.clone()), (vec![W::FeeAboveLimit], None));
    assert!(told.fee_msat.unwrap() > 1_000);

    let refused = async |ask: v1::QuoteRequest| {
        let status = alice.payments().quote(ask).await.unwrap_err();
        assert_eq!(explain(&status).money_may_have_moved, Some(false));
        reason(&status)
    };
    assert_eq!(refused(ask(&address)).await, "AMOUNT_MISSING");
    assert_eq!(refused(of(0)).await, "AMOUNT_OUT_OF_RANGE");
    let differs = v1::QuoteRequest { amount_msat: Some(1), ..ask(&much) };
    assert_eq!(refused(differs).await, "AMOUNT_MISMATCH");
    let over = v1::PayOver::Onchain.into();
    assert_eq!(refused(v1::QuoteRequest { over, ..ask(&much) }).await, "NOTHING_PAYABLE");
    let mainnet = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";
    let foreign = v1::QuoteRequest { amount_msat: Some(1_000_000), ..ask(mainnet) };
    assert_eq!(refused(foreign).await, "WRONG_NETWORK");
    assert_eq!(refused(ask("bitcoin:?req-a=1")).await, "PAYMENT_REQUEST_INVALID");
    assert_eq!(refused(ask("₿bob@example.com")).await, "NAMES_OFF");

    let create = |amount_msat: Option<u64>, description: &str| v1::CreatePaymentRequestRequest {
        idempotency_key: format!("{amount_msat:?} {description}"),
        amount_msat,
        description: description.to_owned(),
        ..v1::CreatePaymentRequestRequest::default()
    };
    let made = async |create| bob.payments().create_payment_request(create).await;
    // A payment of a millisatoshi has no place on chain, and an offer needs words.
    let small = made(create(Some(1), "")).await.unwrap().into_inner();
    assert!(small.address.is_none() && small.bolt12.is_none() && small.bolt11.is_some());
    let open = made(create(None, "")).await.unwrap().into_inner();
    assert!(open.address.is_some() && open.bolt12.is_some() && !open.uri.contains("amount"));
    let on_chain = v1::CreatePaymentRequestRequest { onchain: Some(true), ..create(Some(2), "") };
    assert_eq!(reason(&made(on_chain).await.unwrap_err()), "AMOUNT_DUST");
    // More than an invoice can say, and less than all bitcoin.
    let vast = made(create(Some(u64::MAX / 10 + 1), "vast")).await.unwrap_err();
    assert_eq!(reason(&vast), "AMOUNT_OUT_OF_RANGE");
    let nothing = v1::CreatePaymentRequestRequest {
        onchain: Some(false),
        bolt11: Some(false),
        bolt12: Some(false),
        ..create(None, "none")
    };
    assert_eq!(reason(&made(nothing).await.unwrap_err()), "FIELD_INVALID");
    let wordless = v1::CreatePaymentRequestRequest { bolt12: Some(true), ..create(Some(3), "") };
    assert_eq!(reason(&made(wordless).await.unwrap_err()), "DESCRIPTION_INVALID");
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_asked_for_at_the_resolver_that_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    let configure = std::sync::Arc::new(|config: &mut crate::config::Config| {
        // Nobody listens on port 1 of the loopback.
        config.dns.resolver = "127.0.0.1:1".to_owned();
    });
    cluster.add("alice", NodeOptions { configure, ..NodeOptions::default() }).await.unwrap();
    let alice = Api::of(&cluster, "alice").await;
    let decode = v1::DecodeRequest { text: "bob@example.com".to_owned() };
    let status = alice.payments().decode(decode).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "RESOLVER_UNREACHABLE"));
    assert_eq!(explain(&status).metadata["resolver"], "127.0.0.1:1");
    cluster.shut_down().await;
}
