//! Payouts over the interface: made in one message and in many, quoted, accepted, followed,
//! refused, and paid for by tokens.

use futures::TryStreamExt;
use proto::v1;
use proto::v1::create_payout_request::Source;
use proto::v1::payouts_client::PayoutsClient;
use proto::v1::tokens_client::TokensClient;
use tonic::Status;

use super::super::status::explain;
use super::whole::{Api, Signed, invoice_request, pair, reason};

type Client = PayoutsClient<Signed>;

fn csv(key: &str, rows: &[String]) -> v1::CreatePayoutRequest {
    let text = format!("target,amount_msat,reference\n{}\n", rows.join("\n"));
    v1::CreatePayoutRequest {
        idempotency_key: key.into(),
        settings: Some(v1::PayoutSettings { name: "wages".into(), ..Default::default() }),
        source: Some(Source::Csv(text.into_bytes())),
    }
}

async fn invoices(bob: &Api, name: &str, amounts_msat: &[u64]) -> Vec<String> {
    let mut rows = Vec::new();
    for amount_msat in amounts_msat {
        let request = invoice_request(&format!("{name} {amount_msat}"), *amount_msat);
        let invoice = bob.payments().create_invoice(request).await.unwrap().into_inner();
        rows.push(format!("{},,for {amount_msat}", invoice.bolt11));
    }
    rows
}

fn accept(key: &str, made: &v1::Payout) -> v1::AcceptPayoutRequest {
    let quote = made.quote.unwrap();
    v1::AcceptPayoutRequest {
        idempotency_key: key.into(),
        payout_id: made.payout_id.clone(),
        total_msat: quote.total_msat,
        max_fee_msat: quote.max_fee_msat,
        skip_bad_lines: true,
    }
}

/// Follows a payout to its end.
async fn ended(ours: &mut Client, made: &v1::Payout) -> v1::Payout {
    let request = v1::WatchPayoutRequest { payout_id: made.payout_id.clone() };
    let states = ours.watch(request).await.unwrap().into_inner();
    let all: Vec<v1::Payout> =
        tokio::time::timeout(std::time::Duration::from_secs(60), states.try_collect())
            .await
            .expect("a payout ends")
            .unwrap();
    all.last().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payout_is_made_quoted_accepted_followed_and_balanced() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let mut ours: Client = PayoutsClient::new(alice.signed());
    let mut rows = invoices(&bob, "a", &[1_000, 2_000, 3_000]).await;
    rows.insert(1, rows[0].clone());
    let made = ours.create(csv("one", &rows)).await.unwrap().into_inner();
    assert_eq!(ours.create(csv("one", &rows)).await.unwrap().into_inner(), made);
    let quote = made.quote.unwrap();
    assert_eq!((quote.good_lines, quote.bad_lines, quote.total_msat), (3, 1, 6_000));
    assert!(quote.covered && quote.earliest_expiry_unix_ms.is_some());
    assert_eq!(made.state(), v1::PayoutState::Quoted);
    let other = ours.create(csv("one", &rows[1..])).await.unwrap_err();
    assert_eq!(reason(&other), "IDEMPOTENCY_KEY_REUSED");
    let bad = v1::ListPayoutLinesRequest {
        payout_id: made.payout_id.clone(),
        states: vec![v1::PayoutLineState::Bad.into()],
        ..Default::default()
    };
    let bad = ours.list_lines(bad).await.unwrap().into_inner().lines;
    assert_eq!((bad.len(), bad[0].number, bad[0].file_line), (1, 2, Some(3)));
    assert_eq!(bad[0].reason(), v1::PayoutLineReason::Duplicate);

    let right = accept("accept", &made);
    for (request, why) in [
        (v1::AcceptPayoutRequest { total_msat: 6_001, ..right.clone() }, "PAYOUT_QUOTE"),
        (v1::AcceptPayoutRequest { max_fee_msat: 0, ..right.clone() }, "PAYOUT_QUOTE"),
        (v1::AcceptPayoutRequest { skip_bad_lines: false, ..right.clone() }, "PAYOUT_BAD_LINES"),
        (v1::AcceptPayoutRequest { payout_id: vec![7; 16], ..right.clone() }, "PAYOUT_UNKNOWN"),
        (v1::AcceptPayoutRequest { payout_id: vec![7], ..right.clone() }, "FIELD_INVALID"),
    ] {
        let status = ours.accept(request).await.unwrap_err();
        assert_eq!(reason(&status), why);
        assert_ne!(explain(&status).money_may_have_moved, Some(true));
    }
    ours.accept(right).await.unwrap();
    let end = ended(&mut ours, &made).await;
    assert_eq!(end.state(), v1::PayoutState::Completed);
    let progress = end.progress.unwrap();
    assert_eq!((progress.done_lines, progress.done_msat, progress.fee_msat), (3, 6_000, 0));
    let again = ours.accept(accept("late", &made)).await.unwrap_err();
    assert_eq!(reason(&again), "PAYOUT_STATE");

    let request = v1::GetReconciliationRequest { payout_id: made.payout_id.clone() };
    let sums = ours.get_reconciliation(request).await.unwrap().into_inner();
    assert_eq!((sums.lines, sums.payments, sums.lightning_msat), (4, 3, 6_000));
    let request =
        v1::ExportPayoutLinesRequest { payout_id: made.payout_id.clone(), states: Vec::new() };
    let lines = ours.export_lines(request).await.unwrap().into_inner();
    let lines: Vec<v1::PayoutLine> = lines.try_collect().await.unwrap();
    assert_eq!(lines.len(), 4);
    let receipts = lines.iter().filter(|line| line.preimage.is_some());
    assert_eq!(receipts.count(), 3);
    // A page at a time, each with one line.
    let mut numbers = Vec::new();
    let mut page_token = None;
    loop {
        let request = v1::ListPayoutLinesRequest {
            payout_id: made.payout_id.clone(),
            page_size: Some(1),
            page_token,
            ..Default::default()
        };
        let page = ours.list_lines(request).await.unwrap().into_inner();
        numbers.extend(page.lines.into_iter().map(|line| line.number));
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    assert_eq!(numbers, [1, 2, 3, 4]);
    let listed = ours.list(v1::ListPayoutsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.payouts, [end]);
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_come_in_a_stream_and_a_broken_one_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let mut ours: Client = PayoutsClient::new(alice.signed());
    let rows = invoices(&bob, "s", &[1_000, 2_000]).await;
    let whole = csv("stream", &rows);
    let Some(Source::Csv(file)) = whole.source.clone() else { unreachable!("it is a file") };
    let piece = |bytes: &[u8]| v1::CreatePayoutRequest {
        source: Some(Source::Csv(bytes.to_vec())),
        ..Default::default()
    };
    let pieces = |cut: usize| {
        let first = v1::CreatePayoutRequest {
            source: Some(Source::Csv(file[..cut].to_vec())),
            ..whole.clone()
        };
        vec![first, piece(&file[cut..])]
    };
    let made = ours.create_stream(tokio_stream::iter(pieces(40))).await.unwrap().into_inner();
    assert_eq!(made.quote.unwrap().good_lines, 2);
    // Cut elsewhere, or in one message: the same file under the same key.
    let again = ours.create_stream(tokio_stream::iter(pieces(7))).await.unwrap().into_inner();
    assert_eq!(again, made);
    assert_eq!(ours.create(whole.clone()).await.unwrap().into_inner(), made);

    let line = |target: &str| v1::PayoutLineInput {
        target: target.into(),
        amount_msat: Some(5_000),
        ..Default::default()
    };
    let lines = |key: &str, targets: &[&str]| v1::CreatePayoutRequest {
        idempotency_key: key.into(),
        settings: (!key.is_empty()).then(Default::default),
        source: Some(Source::Lines(v1::PayoutLineInputs {
            lines: targets.iter().map(|target| line(target)).collect(),
        })),
    };
    let bob_id = bob.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().node_id;
    let bob_id = hex::encode(bob_id);
    let messages = vec![lines("lines", &[&bob_id, "x"]), lines("", &[&bob_id])];
    let mixed = ours.create_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let quote = mixed.quote.unwrap();
    assert_eq!((quote.good_lines, quote.bad_lines), (2, 1));

    let settings = |change: fn(&mut v1::PayoutSettings)| {
        let mut settings = v1::PayoutSettings::default();
        change(&mut settings);
        v1::CreatePayoutRequest { settings: Some(settings), ..csv("bad", &rows) }
    };
    let monthly = |budget_msat| v1::PayoutRecurrence {
        period: v1::PayoutPeriod::Monthly.into(),
        budget_msat,
        ..Default::default()
    };
    let mut without_budget = settings(|_| {});
    without_budget.settings.as_mut().unwrap().recurrence = Some(monthly(0));
    for (messages, why) in [
        (vec![], "FIELD_INVALID"),
        (vec![lines("", &["x"])], "IDEMPOTENCY_KEY_MISSING"),
        (vec![lines("k", &["x"]), lines("k", &["x"])], "FIELD_INVALID"),
        (vec![lines("k", &["x"]), piece(b"target\n")], "FIELD_INVALID"),
        (vec![lines("k", &[])], "PAYOUT_FILE_INVALID"),
        (vec![csv("k", &[])], "PAYOUT_FILE_INVALID"),
        (
            vec![v1::CreatePayoutRequest {
                source: Some(Source::Csv(b"to,amount\na,1\n".to_vec())),
                ..csv("k", &[])
            }],
            "PAYOUT_FILE_INVALID",
        ),
        (vec![settings(|s| s.concurrency = Some(101))], "FIELD_INVALID"),
        (vec![settings(|s| s.time_limit_seconds = Some(0))], "FIELD_INVALID"),
        (vec![settings(|s| s.feerate_sat_per_vb = Some(0))], "FEERATE_OUT_OF_RANGE"),
        (vec![settings(|s| s.name = "x".repeat(257))], "FIELD_INVALID"),
        (vec![without_budget], "FIELD_INVALID"),
    ] {
        let status = ours.create_stream(tokio_stream::iter(messages)).await.unwrap_err();
        assert_eq!(reason(&status), why, "{status:?}");
    }
    let listed = ours.list(v1::ListPayoutsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.payouts.len(), 2, "what was refused made nothing");
    cluster.shut_down().await;
}

async fn bake(
    api: &Api,
    key: &str,
    restrictions: v1::TokenRestrictions,
) -> Result<v1::BakeTokenResponse, Status> {
    let request = v1::BakeTokenRequest {
        idempotency_key: key.into(),
        name: key.into(),
        restrictions: Some(restrictions),
    };
    Ok(TokensClient::new(api.signed()).bake_token(request).await?.into_inner())
}

/// What is spent and reserved of the budget of the token with this name.
async fn account(api: &Api, name: &str) -> (u64, u64) {
    let list = v1::ListTokensRequest::default();
    let tokens = TokensClient::new(api.signed()).list_tokens(list).await.unwrap().into_inner();
    let token = tokens.tokens.into_iter().find(|token| token.name == name).unwrap();
    (token.budget_spent_msat.unwrap(), token.budget_reserved_msat.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_sets_aside_all_of_a_payout_and_gets_back_what_it_did_not_cost() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let payer = v1::TokenRestrictions {
        role: v1::TokenRole::Payer.into(),
        budget_msat: Some(100_000),
        per_call_max_msat: Some(30_000),
        ..Default::default()
    };
    let token = bake(&alice, "payer", payer).await.unwrap().text;
    let mut theirs: Client = PayoutsClient::new(alice.held(&token));
    let held = v1::TokenRestrictions {
        role: v1::TokenRole::Payer.into(),
        payee_node_ids: vec![
            alice.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().node_id,
        ],
        ..Default::default()
    };
    let stranger = bake(&alice, "stranger", held).await.unwrap().text;
    let operator =
        v1::TokenRestrictions { role: v1::TokenRole::Operator.into(), ..Default::default() };
    let operator = bake(&alice, "operator", operator).await.unwrap().text;

    // One line above what one call may cost; then more than is left.
    let large = invoices(&bob, "large", &[29_000]).await;
    let made = theirs.create(csv("large", &large)).await.unwrap().into_inner();
    let status = theirs.accept(accept("large", &made)).await.unwrap_err();
    assert_eq!(reason(&status), "CALL_LIMIT_EXCEEDED");
    let many = invoices(&bob, "many", &[14_000, 14_001, 14_002, 14_003, 14_004]).await;
    let made = theirs.create(csv("many", &many)).await.unwrap().into_inner();
    let status = theirs.accept(accept("many", &made)).await.unwrap_err();
    assert_eq!(reason(&status), "BUDGET_EXHAUSTED");
    assert_eq!(account(&alice, "payer").await, (0, 0));
    let mut other: Client = PayoutsClient::new(alice.held(&stranger));
    let status = other.accept(accept("not theirs", &made)).await.unwrap_err();
    assert_eq!(reason(&status), "PAYEE_DENIED");
    let mut runs: Client = PayoutsClient::new(alice.held(&operator));
    let status = runs.accept(accept("no payer", &made)).await.unwrap_err();
    assert_eq!(reason(&status), "METHOD_DENIED");
    let status = theirs.list(v1::ListPayoutsRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), "METHOD_DENIED", "a payer sees what it made alone");

    // The rest of the budget, and what is set aside while it runs.
    let fitting = invoices(&bob, "fitting", &[10_000, 10_001]).await;
    let request = v1::CreatePayoutRequest {
        settings: Some(v1::PayoutSettings { max_line_fee_msat: Some(5_000), ..Default::default() }),
        ..csv("fitting", &fitting)
    };
    let made = theirs.create(request).await.unwrap().into_inner();
    assert_eq!(made.quote.unwrap().max_fee_msat, 10_000);
    let first = theirs.accept(accept("fitting", &made)).await.unwrap().into_inner();
    assert_eq!(theirs.accept(accept("fitting", &made)).await.unwrap().into_inner(), first);
    let end = ended(&mut theirs, &made).await;
    assert_eq!(end.progress.unwrap().done_msat, 20_001);
    assert_eq!(account(&alice, "payer").await, (20_001, 0), "what it did not cost came back");
    // What cannot be reached is set aside, and comes back with the end.
    let request = v1::CreatePayoutRequest {
        settings: Some(v1::PayoutSettings {
            not_before_unix_ms: Some(u64::MAX / 2),
            max_line_fee_msat: Some(1_000),
            ..Default::default()
        }),
        ..csv("later", &invoices(&bob, "later", &[20_000]).await)
    };
    let made = theirs.create(request).await.unwrap().into_inner();
    theirs.accept(accept("later", &made)).await.unwrap();
    assert_eq!(account(&alice, "payer").await, (20_001, 21_000));
    let cancel = v1::CancelPayoutRequest {
        idempotency_key: "cancel".into(),
        payout_id: made.payout_id.clone(),
    };
    let cancelled = theirs.cancel(cancel).await.unwrap().into_inner();
    assert_eq!(cancelled.state(), v1::PayoutState::Cancelled);
    assert_eq!(account(&alice, "payer").await, (20_001, 0));
    cluster.shut_down().await;
}
