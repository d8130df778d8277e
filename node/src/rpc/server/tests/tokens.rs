//! Tokens over the real server: what they open, what they may cost, and how they end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::Amount;
use futures::TryStreamExt;
use proto::v1;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::events_client::EventsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::tokens_client::TokensClient;
use proto::v1::wallet_client::WalletClient;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::super::status::explain;
use super::tests::Served;
use super::whole::{Api, invoice_request, pair, pay_request, reason};
use crate::config::RpcConfig;
use crate::dev::{Cluster, DevChain, NodeOptions};
use crate::journal::IdempotencyKey;
use crate::payments::{Direction, PayRequest, PayTarget, PaymentFilter, PaymentState};
use crate::store::{DiskFault, MemoryDisk, PowerCut};
use crate::tokens::{Account, Restriction, Token};

const DEADLINE: Duration = Duration::from_secs(30);

fn budget(msat: u64) -> v1::TokenRestrictions {
    v1::TokenRestrictions { budget_msat: Some(msat), ..Default::default() }
}

fn role(role: v1::TokenRole) -> v1::TokenRestrictions {
    v1::TokenRestrictions { role: role.into(), ..Default::default() }
}

async fn try_bake(
    api: &Api,
    restrictions: v1::TokenRestrictions,
) -> Result<v1::BakeTokenResponse, Status> {
    static BAKED: AtomicU32 = AtomicU32::new(0);
    let request = v1::BakeTokenRequest {
        idempotency_key: BAKED.fetch_add(1, Ordering::Relaxed).to_string(),
        name: "for a test".into(),
        restrictions: Some(restrictions),
    };
    Ok(TokensClient::new(api.signed()).bake_token(request).await?.into_inner())
}

async fn bake(api: &Api, restrictions: v1::TokenRestrictions) -> String {
    try_bake(api, restrictions).await.unwrap().text
}

async fn listed(api: &Api) -> v1::Token {
    let list = v1::ListTokensRequest::default();
    let tokens = TokensClient::new(api.signed()).list_tokens(list).await.unwrap();
    tokens.into_inner().tokens.remove(0)
}

/// What is spent, reserved and left.
async fn account(api: &Api) -> (u64, u64, u64) {
    let token = listed(api).await;
    let known = |msat: Option<u64>| msat.unwrap();
    (
        known(token.budget_spent_msat),
        known(token.budget_reserved_msat),
        known(token.budget_left_msat),
    )
}

async fn invoice(bob: &Api, key: &str, amount_msat: u64) -> v1::Invoice {
    bob.payments().create_invoice(invoice_request(key, amount_msat)).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_clients_spend_a_budget_to_the_last_payment_and_no_further() {
    const CLIENTS: usize = 64;
    const AMOUNT_MSAT: u64 = 10_000;
    const FIT: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    // One msat short of one more.
    let budget_msat = (FIT + 1) * AMOUNT_MSAT - 1;
    let text = bake(&alice, budget(budget_msat)).await;
    let mut calls = Vec::new();
    for client in 0..CLIENTS {
        let invoice = invoice(&bob, &format!("{client}"), AMOUNT_MSAT).await;
        let pay =
            v1::PayRequest { max_fee_msat: Some(0), ..pay_request(&format!("{client}"), &invoice) };
        // Every other one by a narrowed token, each by a connection of its own.
        let token = Token::parse(&text).unwrap();
        let text = match client % 2 {
            0 => token.reveal(),
            _ => {
                let nonce = [client as u8; 8];
                let own = Restriction::Budget { msat: AMOUNT_MSAT, nonce };
                token.narrowed(own).unwrap().reveal()
            }
        };
        let channel = alice.served.dial().await;
        let signer = Served::bearer(&text);
        let mut payments = PaymentsClient::new(InterceptedService::new(channel, Box::new(signer)));
        calls.push(async move { payments.pay(pay).await });
    }
    let answers = futures::future::join_all(calls).await;
    let (mut paid, mut refused) = (0, 0);
    for answer in answers {
        match answer {
            Ok(payment) => {
                let payment = payment.into_inner();
                assert_eq!(payment.state(), v1::PaymentState::Succeeded, "{payment:?}");
                paid += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                let explained = explain(&status);
                assert_eq!(explained.reason.as_deref(), Some("BUDGET_EXHAUSTED"));
                assert_eq!(explained.money_may_have_moved, Some(false));
                assert_eq!(explained.metadata["budget_left_msat"], (AMOUNT_MSAT - 1).to_string());
                refused += 1;
            }
        }
    }
    assert_eq!((paid, refused), (FIT, CLIENTS as u64 - FIT));
    assert_eq!(account(&alice).await, (FIT * AMOUNT_MSAT, 0, AMOUNT_MSAT - 1));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_payment_does_not_cost_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let text = bake(&alice, budget(100_000)).await;
    let mut payments = PaymentsClient::new(alice.held(&text));
    // The node's own fee limit, 10,000 msat and 1 %, is set aside if the call names none.
    let much = invoice(&bob, "much", 95_000).await;
    let status = payments.pay(pay_request("much", &much)).await.unwrap_err();
    assert_eq!(explain(&status).metadata["most_msat"], "105950");
    let some = invoice(&bob, "some", 80_000).await;
    let pay = pay_request("some", &some);
    payments.pay(pay.clone()).await.unwrap();
    assert_eq!(account(&alice).await, (80_000, 0, 20_000));
    // A repetition pays nothing, whatever is left.
    payments.pay(pay).await.unwrap();
    assert_eq!(account(&alice).await, (80_000, 0, 20_000));

    // A payment that waits holds what it may cost, and gives it back when it fails.
    let hash = crate::lightning::types::Preimage([5; 32]).hash().0.to_vec();
    let hold = v1::CreateInvoiceRequest {
        payment_hash: Some(hash.clone()),
        ..invoice_request("hold", 9_000)
    };
    let hold = bob.payments().create_invoice(hold).await.unwrap().into_inner();
    let pay = v1::PayRequest { max_fee_msat: Some(500), ..pay_request("hold", &hold) };
    let mut states = payments.pay_stream(pay).await.unwrap().into_inner();
    assert_eq!(account(&alice).await, (80_000, 9_500, 10_500));
    loop {
        let lookup = v1::LookupInvoiceRequest { payment_hash: hash.clone() };
        let now = bob.payments().lookup_invoice(lookup).await.unwrap().into_inner();
        if now.state() == v1::InvoiceState::Held {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cancel =
        v1::CancelHoldRequest { idempotency_key: "cancel".into(), payment_hash: hash.clone() };
    bob.payments().cancel_hold(cancel).await.unwrap();
    let mut last = v1::PaymentState::Unspecified;
    while let Some(payment) = states.try_next().await.unwrap() {
        last = payment.state();
    }
    assert_eq!(last, v1::PaymentState::Failed);
    assert_eq!(account(&alice).await, (80_000, 0, 20_000));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_what_it_says_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, channel) = pair(&directory).await;
    let look = bake(&alice, role(v1::TokenRole::ReadOnly)).await;
    let info = NodeClient::new(alice.held(&look)).get_info(v1::GetInfoRequest {}).await;
    let own_id = info.unwrap().into_inner().node_id;
    let invoice = invoice(&bob, "tea", 5_000).await;
    let refused = async |text: &str, request: v1::PayRequest| {
        let status = PaymentsClient::new(alice.held(text)).pay(request).await.unwrap_err();
        assert_eq!(explain(&status).money_may_have_moved, Some(false), "{status:?}");
        (status.code(), reason(&status))
    };
    let denied = Code::PermissionDenied;
    let answer = refused(&look, pay_request("a", &invoice)).await;
    assert_eq!(answer, (denied, "METHOD_DENIED".to_owned()));

    // Only payments to certain nodes.
    let to_alice = v1::TokenRestrictions { payee_node_ids: vec![own_id], ..Default::default() };
    let to_alice = bake(&alice, to_alice).await;
    let answer = refused(&to_alice, pay_request("b", &invoice)).await;
    assert_eq!(answer, (denied, "PAYEE_DENIED".to_owned()));
    let send = v1::SendRequest {
        idempotency_key: "send".into(),
        address: alice
            .wallet()
            .new_address(v1::NewAddressRequest { idempotency_key: "a".into() })
            .await
            .unwrap()
            .into_inner()
            .address,
        amount: Some(v1::send_request::Amount::AmountSat(20_000)),
        feerate_sat_per_vb: Some(2),
        max_fee_sat: None,
    };
    let status = WalletClient::new(alice.held(&to_alice)).send(send).await.unwrap_err();
    assert_eq!(reason(&status), "PAYEE_DENIED", "an address is no node");

    // One call may cost so much, fee limit included.
    let per_call = v1::TokenRestrictions { per_call_max_msat: Some(5_999), ..Default::default() };
    let per_call = bake(&alice, per_call).await;
    let pay = v1::PayRequest { max_fee_msat: Some(1_000), ..pay_request("c", &invoice) };
    let answer = refused(&per_call, pay.clone()).await;
    assert_eq!(answer, (denied, "CALL_LIMIT_EXCEEDED".to_owned()));
    let pay = v1::PayRequest { max_fee_msat: Some(999), idempotency_key: "d".into(), ..pay };
    let paid = PaymentsClient::new(alice.held(&per_call)).pay(pay).await.unwrap().into_inner();
    assert_eq!(paid.state(), v1::PaymentState::Succeeded);

    // What nobody can count is not for tokens that count.
    let close = v1::CloseChannelRequest {
        idempotency_key: "close".into(),
        record_id: channel.record_id,
        ..Default::default()
    };
    let closing = ChannelsClient::new(alice.held(&per_call)).close(close).await;
    assert_eq!(reason(&closing.unwrap_err()), "SPENDING_UNBOUNDED");
    let join = v1::OpenChannelRequest {
        idempotency_key: "join".into(),
        node_id: bob.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner().node_id,
        capacity_sat: 100_000,
        funding: v1::FundingKind::Batch.into(),
        ..Default::default()
    };
    let joining = ChannelsClient::new(alice.held(&per_call)).open(join).await;
    assert_eq!(reason(&joining.unwrap_err()), "SPENDING_UNBOUNDED");

    // A restricted token makes no others, an unrestricted one does.
    let request = v1::BakeTokenRequest { idempotency_key: "k".into(), ..Default::default() };
    let admin = bake(&alice, role(v1::TokenRole::Admin)).await;
    let mut tokens = TokensClient::new(alice.held(&admin));
    let made = tokens.bake_token(request.clone()).await.unwrap().into_inner();
    assert!(made.text.starts_with(crate::tokens::PREFIX));
    let narrow = Token::parse(&admin).unwrap().narrowed(Restriction::Expires(u64::MAX)).unwrap();
    let mut tokens = TokensClient::new(alice.held(&narrow.reveal()));
    assert_eq!(reason(&tokens.bake_token(request).await.unwrap_err()), "BAKE_DENIED");

    // From where, and until when.
    let far = v1::TokenRestrictions { sources: vec!["10.0.0.0/8".into()], ..Default::default() };
    let far = bake(&alice, far).await;
    let answer = refused(&far, pay_request("e", &invoice)).await;
    assert_eq!(answer, (denied, "SOURCE_DENIED".to_owned()));
    let near = v1::TokenRestrictions { sources: vec!["127.0.0.1".into()], ..Default::default() };
    let near = bake(&alice, near).await;
    NodeClient::new(alice.held(&near)).get_info(v1::GetInfoRequest {}).await.unwrap();
    let past = v1::TokenRestrictions { expires_unix_seconds: Some(1), ..Default::default() };
    let past = bake(&alice, past).await;
    let answer = refused(&past, pay_request("f", &invoice)).await;
    assert_eq!(answer, (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
    let odd = refused("trbt1_AAAA", pay_request("g", &invoice)).await;
    assert_eq!(odd, (Code::Unauthenticated, "TOKEN_INVALID".to_owned()));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coins_and_channels_are_counted_with_their_fees() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let text = bake(&alice, budget(100_000_000)).await;
    let mut wallet = WalletClient::new(alice.held(&text));
    let new = v1::NewAddressRequest { idempotency_key: "a".into() };
    let address = bob.wallet().new_address(new).await.unwrap().into_inner().address;
    let send = v1::SendRequest {
        idempotency_key: "send".into(),
        address,
        amount: Some(v1::send_request::Amount::AmountSat(30_000)),
        feerate_sat_per_vb: Some(2),
        max_fee_sat: None,
    };
    let sent = wallet.send(send.clone()).await.unwrap().into_inner();
    let fee_sat = sent.fee_sat.unwrap();
    let spent = (30_000 + fee_sat) * 1_000;
    assert_eq!(account(&alice).await, (spent, 0, 100_000_000 - spent));
    wallet.send(send.clone()).await.unwrap();
    assert_eq!(account(&alice).await.0, spent, "a repetition costs nothing");
    let bump = v1::BumpFeeRequest {
        idempotency_key: "bump".into(),
        txid: sent.txid,
        feerate_sat_per_vb: Some(9),
    };
    let bumped = wallet.bump_fee(bump).await.unwrap().into_inner();
    let spent = (30_000 + bumped.fee_sat.unwrap()) * 1_000;
    assert_eq!(account(&alice).await, (spent, 0, 100_000_000 - spent));
    // A refusal holds no coins.
    let before = cluster.node("alice").wallet.balance();
    let much = v1::SendRequest {
        idempotency_key: "much".into(),
        amount: Some(v1::send_request::Amount::AmountSat(90_000)),
        ..send
    };
    let status = wallet.send(much).await.unwrap_err();
    assert_eq!(reason(&status), "BUDGET_EXHAUSTED");
    assert_eq!(cluster.node("alice").wallet.balance(), before);

    // A channel: what is given away, and the fee; more is set aside until the fee is known.
    let info = bob.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let open = v1::OpenChannelRequest {
        idempotency_key: "channel".into(),
        node_id: info.node_id,
        capacity_sat: 200_000,
        push_msat: 12_000_000,
        feerate_sat_per_vb: Some(2),
        ..Default::default()
    };
    let gift = v1::OpenChannelRequest {
        idempotency_key: "gift".into(),
        push_msat: 100_000_000,
        ..open.clone()
    };
    let mut channels = ChannelsClient::new(alice.held(&text));
    assert_eq!(reason(&channels.open(gift).await.unwrap_err()), "BUDGET_EXHAUSTED");
    let channel = channels.open(open).await.unwrap().into_inner();
    let watch = v1::WatchChannelRequest { record_id: channel.record_id };
    let mut states = alice.channels().watch(watch).await.unwrap().into_inner();
    let funded = loop {
        let channel = states.try_next().await.unwrap().unwrap();
        if channel.state() == v1::ChannelState::AwaitingConfirmation {
            break channel;
        }
    };
    let txid = funded.funding_outpoint.unwrap().txid;
    let list = v1::ListTransactionsRequest::default();
    let transactions = alice.wallet().list_transactions(list).await.unwrap().into_inner();
    let funding = transactions.transactions.into_iter().find(|tx| tx.txid == txid).unwrap();
    let spent = spent + 12_000_000 + funding.fee_sat.unwrap() * 1_000;
    assert_eq!(account(&alice).await, (spent, 0, 100_000_000 - spent));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_ends_its_streams_and_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    cluster.add("alice", NodeOptions::default()).await.unwrap();
    let alice = Api::of(&cluster, "alice").await;
    let made = try_bake(&alice, role(v1::TokenRole::Auditor)).await.unwrap();
    let narrow = Token::parse(&made.text).unwrap();
    let narrow = narrow.narrowed(Restriction::Methods(vec!["Events/*".parse().unwrap()]));
    let narrow = narrow.unwrap().reveal().to_string();
    let subscribe = async |text: &str| {
        // Of a kind that does not come: a revocation is an event too.
        let kinds = vec![v1::EventKind::Swap.into()];
        let request = v1::SubscribeRequest { after_sequence: None, kinds };
        EventsClient::new(alice.held(text)).subscribe(request).await
    };
    let mut wide_events = subscribe(&made.text).await.unwrap().into_inner();
    let mut narrow_events = subscribe(&narrow).await.unwrap().into_inner();
    let revoke = async |which| {
        let key = format!("{which:?}").chars().rev().take(60).collect();
        let request = v1::RevokeTokenRequest { idempotency_key: key, which: Some(which) };
        TokensClient::new(alice.signed()).revoke_token(request).await
    };
    use v1::revoke_token_request::Which;
    let ends = async |events: &mut tonic::Streaming<v1::Event>| {
        let end = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                match events.try_next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended without a word"),
                    Err(status) => break status,
                }
            }
        });
        let end = end.await.expect("a stream ends within a second");
        assert_eq!((end.code(), &*reason(&end)), (Code::Unauthenticated, "TOKEN_REVOKED"));
    };
    revoke(Which::Text(narrow.clone())).await.unwrap();
    ends(&mut narrow_events).await;
    let next = tokio::time::timeout(Duration::from_millis(300), wide_events.try_next());
    assert!(next.await.is_err(), "the one it was narrowed from goes on");
    assert_eq!(reason(&subscribe(&narrow).await.unwrap_err()), "TOKEN_REVOKED");
    let id = made.token.unwrap().token_id;
    let revoked = revoke(Which::TokenId(id.clone())).await.unwrap().into_inner();
    assert!(revoked.revoked_unix_ms.is_some());
    assert_eq!(revoke(Which::TokenId(id)).await.unwrap().into_inner(), revoked);
    ends(&mut wide_events).await;
    assert_eq!(reason(&subscribe(&made.text).await.unwrap_err()), "TOKEN_REVOKED");
    let unknown = revoke(Which::TokenId(vec![9; 16])).await.unwrap_err();
    assert_eq!((unknown.code(), &*reason(&unknown)), (Code::NotFound, "TOKEN_UNKNOWN"));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_too_often_is_told_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    cluster.add("alice", NodeOptions::default()).await.unwrap();
    let config =
        RpcConfig { token_calls_per_second: 0, method_calls_per_second: 2, ..RpcConfig::default() };
    let alice = Api::with(&cluster, "alice", &config).await;
    let text = bake(&alice, role(v1::TokenRole::ReadOnly)).await;
    let narrow = Token::parse(&text).unwrap().narrowed(Restriction::PerCall(1)).unwrap().reveal();
    let mut node = NodeClient::new(alice.held(&text));
    let refusal = loop {
        match node.get_info(v1::GetInfoRequest {}).await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refusal), "RATE_LIMITED");
    let wait = refusal.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
    // Narrowing makes no new bucket; other methods and the administrator have theirs.
    let narrowed = NodeClient::new(alice.held(&narrow)).get_info(v1::GetInfoRequest {}).await;
    assert_eq!(reason(&narrowed.unwrap_err()), "RATE_LIMITED");
    node.list_peers(v1::ListPeersRequest::default()).await.unwrap();
    alice.node().get_info(v1::GetInfoRequest {}).await.unwrap();
    tokio::time::sleep(wait).await;
    node.get_info(v1::GetInfoRequest {}).await.unwrap();
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_at_the_callers_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    cluster.add("alice", NodeOptions::default()).await.unwrap();
    let alice = Api::of(&cluster, "alice").await;
    let mut request = Request::new(v1::SubscribeRequest::default());
    request.set_timeout(Duration::from_millis(400));
    let mut events = EventsClient::new(alice.signed()).subscribe(request).await.unwrap();
    let end = tokio::time::timeout(DEADLINE, async {
        loop {
            match events.get_mut().try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => break status,
            }
        }
    });
    let end = end.await.unwrap();
    assert_eq!((end.code(), &*reason(&end)), (Code::DeadlineExceeded, "DEADLINE_PASSED"));
    cluster.shut_down().await;
}

/// The disk of the payer fails and its power goes at each commit of a payment: whatever is left,
/// the budget is short by what the payments cost and what those under way may cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_commit_leaves_the_budget_as_the_payments() {
    const BUDGET_MSAT: u64 = 1_000_000_000;
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    let disk = MemoryDisk::new();
    let options = NodeOptions { disk: Some(disk.clone()), ..NodeOptions::default() };
    cluster.add("alice", options).await.unwrap();
    cluster.add("bob", NodeOptions::default()).await.unwrap();
    cluster.fund(&["alice"], Amount::from_sat(5_000_000), 2).await.unwrap();
    cluster.open_channel("alice", "bob", 2_000_000, 0).await.unwrap();
    let budget = vec![Restriction::Budget { msat: BUDGET_MSAT, nonce: [0; 8] }];
    let baked = cluster.node("alice").tokens.bake("wallet", budget, None).await.unwrap();
    let text = baked.token.reveal();
    let mut cuts = 0;
    for (number, fault) in
        (0_u64..).zip([DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer].repeat(3))
    {
        let commit = number / 3 + 1;
        let create = crate::payments::CreateInvoice {
            amount_msat: Some(10_000 + number),
            description: crate::lightning::InvoiceDescription::Text(String::new()),
            expiry: Duration::from_secs(3_600),
            min_final_cltv_expiry_delta: None,
            hash: None,
        };
        let invoice = cluster.node("bob").payments.create_invoice(create, None).await.unwrap();
        let request = PayRequest {
            target: PayTarget::Request(invoice.invoice),
            amount_msat: None,
            max_fee_msat: Some(100),
            retry_for: None,
            max_parts: None,
            payer_note: None,
        };
        let key = IdempotencyKey::new("Pay", &format!("{number}")).unwrap();
        let pay = |cluster: &Cluster| {
            let alice = cluster.node("alice");
            let holder = alice.tokens.check(&text, None).unwrap();
            alice.payments.pay_from(&request, key.as_ref(), holder.purse())
        };
        wait_until(async || {
            // The peer comes back after each start.
            cluster.node("alice").lightning.spendable().usable > 0
        })
        .await;
        disk.fault_at(disk.commits() + commit, fault);
        if let Ok(mut watch) = pay(&cluster) {
            // A node whose disk has failed learns of no outcome any more.
            tokio::select! {
                _ = watch.outcome() => {}
                _ = cluster.node("alice").committer.failed() => {}
                () = tokio::time::sleep(DEADLINE) => panic!("neither an outcome nor a fault"),
            }
        }
        let reached = tokio::time::timeout(
            Duration::from_millis(500),
            cluster.node("alice").committer.failed(),
        );
        cuts += u32::from(reached.await.is_ok());
        disk.clear_faults();
        disk.cut_power(PowerCut { kept: (number % 2) as usize, torn_writes: 0 });
        cluster.crash("alice").await.unwrap();
        cluster.start("alice").await.unwrap();
        check(&cluster, baked.view.id, BUDGET_MSAT).await;
        // The caller who heard nothing asks again, and pays once.
        wait_until(async || {
            let usable = cluster.node("alice").lightning.spendable().usable > 0;
            usable && pay(&cluster).is_ok()
        })
        .await;
        let record = pay(&cluster).unwrap().outcome().await.unwrap();
        assert!(record.state.is_final());
        check(&cluster, baked.view.id, BUDGET_MSAT).await;
    }
    assert!(cuts >= 3, "only {cuts} faults came while a payment was under way");
    cluster.shut_down().await;
}

async fn wait_until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it happens in time");
}

/// Compares the account with the payments. Both change while it looks, a few times at most.
async fn check(cluster: &Cluster, id: crate::tokens::TokenId, budget_msat: u64) {
    let alice = cluster.node("alice");
    let filter = PaymentFilter { direction: Some(Direction::Outbound), ..Default::default() };
    for looks_left in (0..20).rev() {
        let page = alice.payments.list(&filter, None, 1_000).await.unwrap();
        let (budget, account) = alice.tokens.get(id).unwrap().unwrap().budget.unwrap();
        let mut expected = Account::default();
        for payment in &page.payments {
            match payment.state {
                PaymentState::Succeeded => {
                    expected.spent_msat += payment.amount_msat + payment.fee_msat;
                }
                PaymentState::Failed => {}
                _ => expected.reserved_msat += payment.amount_msat + payment.max_fee_msat,
            }
        }
        assert_eq!(budget, budget_msat);
        if account == expected {
            return;
        }
        assert!(looks_left > 0, "{account:?} and not {expected:?}: {:?}", page.payments);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
