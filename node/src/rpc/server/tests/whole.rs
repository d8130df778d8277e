//! The whole interface against two real nodes on the embedded chain, over loopback and TLS.

use std::time::Duration;

use bitcoin::Amount;
use futures::TryStreamExt;
use proto::v1;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::events_client::EventsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::wallet_client::WalletClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::super::status::explain;
use super::tests::Served;
use super::*;
use crate::config::RpcConfig;
use crate::dev::{Cluster, DevChain, NodeOptions};
use crate::node::Node;

pub(super) type Signed = InterceptedService<Channel, Box<dyn Signer>>;

/// An interceptor that can be named.
pub(super) trait Signer: Send + FnMut(Request<()>) -> Result<Request<()>, Status> {}
impl<S: Send + FnMut(Request<()>) -> Result<Request<()>, Status>> Signer for S {}

/// The parts of a running node, for a server beside its own.
fn parts(node: &Node, stop: CancellationToken) -> RpcParts {
    let config = &node.config;
    RpcParts {
        under_way: UnderWay::default(),
        payments: Arc::clone(&node.payments),
        requests: Arc::clone(&node.requests),
        channels: Arc::clone(&node.channels),
        batches: Arc::clone(&node.batches),
        swaps: Arc::clone(&node.swaps),
        towers: Arc::clone(&node.towers),
        tokens: Arc::clone(&node.tokens),
        webhooks: Arc::clone(&node.webhooks),
        payouts: Arc::clone(&node.payouts),
        lightning: Arc::clone(&node.lightning),
        peers: Arc::clone(&node.peers),
        onchain: Arc::clone(&node.onchain),
        journal: node.journal.clone(),
        committer: node.committer.clone(),
        sync: node.sync.clone(),
        chain: Arc::clone(&node.environment.chain),
        facts: Facts {
            alias: config.alias.clone(),
            network: config.network,
            chain_backend: "embedded",
            listen_addresses: node.listening.clone(),
            announced_addresses: config
                .lightning
                .announce_addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
            started: node.environment.clock.now(),
        },
        observer: Arc::clone(&node.observer),
        clock: Arc::clone(&node.environment.clock),
        stop,
        tasks: node.tasks.clone(),
    }
}

/// One node's interface as its clients see it.
pub(super) struct Api {
    pub served: Served,
    stop: CancellationToken,
    channel: Channel,
}

impl Api {
    pub(super) async fn of(cluster: &Cluster, name: &str) -> Self {
        Self::with(cluster, name, &RpcConfig::default()).await
    }

    pub(super) async fn with(cluster: &Cluster, name: &str, config: &RpcConfig) -> Self {
        let node = cluster.node(name);
        let tokens = Arc::clone(&node.tokens);
        let served = Served::with(node.tasks.clone(), tokens, config).await;
        let stop = CancellationToken::new();
        served.door.open(parts(node, stop.clone()));
        let channel = served.dial().await;
        Self { served, stop, channel }
    }

    pub(super) fn signed(&self) -> Signed {
        InterceptedService::new(self.channel.clone(), Box::new(self.served.signer()))
    }

    /// As the holder of a token.
    pub(super) fn held(&self, text: &str) -> Signed {
        InterceptedService::new(self.channel.clone(), Box::new(Served::bearer(text)))
    }

    pub(super) fn node(&self) -> NodeClient<Signed> {
        NodeClient::new(self.signed())
    }

    pub(super) fn channels(&self) -> ChannelsClient<Signed> {
        ChannelsClient::new(self.signed())
    }

    pub(super) fn payments(&self) -> PaymentsClient<Signed> {
        PaymentsClient::new(self.signed())
    }

    pub(super) fn wallet(&self) -> WalletClient<Signed> {
        WalletClient::new(self.signed())
    }

    pub(super) fn events(&self) -> EventsClient<Signed> {
        EventsClient::new(self.signed())
    }
}

pub(super) fn reason(status: &Status) -> String {
    explain(status).reason.unwrap_or_default()
}

pub(super) fn invoice_request(key: &str, amount_msat: u64) -> v1::CreateInvoiceRequest {
    v1::CreateInvoiceRequest {
        idempotency_key: key.into(),
        amount_msat: Some(amount_msat),
        ..Default::default()
    }
}

pub(super) fn pay_request(key: &str, invoice: &v1::Invoice) -> v1::PayRequest {
    v1::PayRequest {
        idempotency_key: key.into(),
        target: Some(v1::pay_request::Target::Bolt11Invoice(invoice.bolt11.clone())),
        wait: v1::PayWait::Wait.into(),
        ..Default::default()
    }
}

/// Two funded nodes with a usable channel from alice to bob, opened through the interface.
pub(super) async fn pair(directory: &tempfile::TempDir) -> (Cluster, Api, Api, v1::Channel) {
    pair_with(directory, |_| {}).await
}

/// As `pair`, with such a configuration.
async fn pair_with(
    directory: &tempfile::TempDir,
    configure: fn(&mut crate::config::Config),
) -> (Cluster, Api, Api, v1::Channel) {
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["alice", "bob"] {
        let configure = Arc::new(configure);
        cluster.add(name, NodeOptions { configure, ..NodeOptions::default() }).await.unwrap();
    }
    cluster.fund(&["alice"], Amount::from_sat(5_000_000), 2).await.unwrap();
    let alice = Api::of(&cluster, "alice").await;
    let bob = Api::of(&cluster, "bob").await;
    let info = bob.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let open = v1::OpenChannelRequest {
        idempotency_key: "open".into(),
        node_id: info.node_id,
        address: info.listen_addresses.first().cloned(),
        capacity_sat: 1_000_000,
        ..Default::default()
    };
    let first = alice.channels().open(open.clone()).await.unwrap().into_inner();
    let again = alice.channels().open(open.clone()).await.unwrap().into_inner();
    assert_eq!(first.record_id, again.record_id, "one key, one channel");
    let other = v1::OpenChannelRequest { capacity_sat: 900_000, ..open };
    let status = alice.channels().open(other).await.unwrap_err();
    assert_eq!(reason(&status), "IDEMPOTENCY_KEY_REUSED");

    let watch = v1::WatchChannelRequest { record_id: first.record_id.clone() };
    let mut states = alice.channels().watch(watch).await.unwrap().into_inner();
    let channel = loop {
        let next = tokio::time::timeout(Duration::from_secs(30), states.try_next()).await;
        let channel = next.expect("the channel opens").unwrap().unwrap();
        match channel.state() {
            v1::ChannelState::Active => break channel,
            v1::ChannelState::AwaitingConfirmation => {
                let txid = channel.funding_outpoint.as_ref().unwrap().txid.clone();
                let txid = super::super::convert::txid("txid", &txid).unwrap();
                while !cluster.chain.knows(txid).await.unwrap() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                cluster.mine(6).await.unwrap();
            }
            _ => {}
        }
    };
    // Each side learns of the other's readiness by itself.
    loop {
        let list = v1::ListChannelsRequest::default();
        let channels = bob.channels().list(list).await.unwrap().into_inner().channels;
        if channels.iter().any(|channel| channel.state() == v1::ChannelState::Active) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (cluster, alice, bob, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_asked_for_made_once_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, channel) = pair(&directory).await;
    assert_eq!(channel.capacity_sat, 1_000_000);
    assert!(channel.spendable_msat > 900_000_000);

    let create = invoice_request("invoice", 50_000);
    let invoice = bob.payments().create_invoice(create.clone()).await.unwrap().into_inner();
    let again = bob.payments().create_invoice(create).await.unwrap().into_inner();
    assert_eq!(invoice.bolt11, again.bolt11, "one key, one invoice");
    assert_eq!(invoice.state(), v1::InvoiceState::Open);

    let decode = v1::DecodeRequest { text: invoice.bolt11.clone() };
    let decoded = alice.payments().decode(decode).await.unwrap().into_inner().decoded;
    let Some(v1::decode_response::Decoded::Invoice(decoded)) = decoded else {
        panic!("an invoice");
    };
    assert_eq!(decoded.payment_hash, invoice.payment_hash);
    assert_eq!(decoded.network(), v1::Network::Regtest);
    let estimate = v1::EstimateRouteRequest {
        target: Some(v1::estimate_route_request::Target::Bolt11Invoice(invoice.bolt11.clone())),
        ..Default::default()
    };
    let route = alice.payments().estimate_route(estimate).await.unwrap().into_inner();
    assert_eq!((route.amount_msat, route.fee_msat, route.parts.len()), (50_000, 0, 1));

    let pay = pay_request("pay", &invoice);
    let paid = alice.payments().pay(pay.clone()).await.unwrap().into_inner();
    assert_eq!(paid.state(), v1::PaymentState::Succeeded);
    assert_eq!((paid.amount_msat, paid.fee_msat), (50_000, Some(0)));
    let again = alice.payments().pay(pay).await.unwrap().into_inner();
    assert_eq!(again.payment_id, paid.payment_id, "one key, one payment");
    let other = alice.payments().pay(pay_request("other", &invoice)).await.unwrap_err();
    assert_eq!((other.code(), &*reason(&other)), (Code::AlreadyExists, "INVOICE_ALREADY_PAID"));

    let watch = v1::WatchPaymentRequest { payment_id: paid.payment_id.clone() };
    let states = alice.payments().watch_payment(watch).await.unwrap().into_inner();
    let states: Vec<v1::Payment> = states.try_collect().await.unwrap();
    assert_eq!(states, std::slice::from_ref(&paid), "the final state ends the stream");

    let settled = loop {
        let lookup = v1::LookupInvoiceRequest { payment_hash: invoice.payment_hash.clone() };
        let now = bob.payments().lookup_invoice(lookup).await.unwrap().into_inner();
        if now.state() == v1::InvoiceState::Settled {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(settled.preimage, paid.preimage);
    assert_eq!(settled.amount_received_msat, Some(50_000));
    assert_eq!(settled.payment_hash, paid.payment_hash.clone().unwrap());

    let filter = v1::PaymentFilter {
        payment_hash: paid.payment_hash.clone(),
        direction: Some(v1::PaymentDirection::Inbound.into()),
        ..Default::default()
    };
    let list = v1::ListPaymentsRequest { filter: Some(filter), ..Default::default() };
    let listed = bob.payments().list_payments(list).await.unwrap().into_inner();
    assert_eq!(listed.payments.len(), 1);
    assert_eq!(Some(listed.payments[0].payment_id.clone()), settled.payment_id);

    let subscribe = v1::SubscribeRequest {
        after_sequence: Some(0),
        kinds: vec![v1::EventKind::Payment.into()],
    };
    let mut events = alice.events().subscribe(subscribe).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.last() != Some(&v1::PaymentState::Succeeded) {
        let event = events.try_next().await.unwrap().unwrap();
        let Some(v1::event::Kind::Payment(event)) = event.kind else { panic!("a payment") };
        assert_eq!(event.payment_id, paid.payment_id);
        seen.push(event.state());
    }
    assert_eq!(seen, [v1::PaymentState::InFlight, v1::PaymentState::Succeeded]);
    let ahead = v1::SubscribeRequest { after_sequence: Some(1 << 40), ..Default::default() };
    let status = alice.events().subscribe(ahead).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::OutOfRange, "EVENTS_AHEAD"));

    let info = alice.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.network(), v1::Network::Regtest);
    assert_eq!(info.channels.unwrap().active, 1);
    let chain = info.chain.unwrap();
    assert!(chain.synced && chain.block_time_unix_seconds > 0, "{chain:?}");
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_turn_pages_and_logs_have_no_gaps() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, _alice, bob, _) = pair(&directory).await;
    for number in 0..5 {
        let create = invoice_request(&format!("invoice {number}"), 1_000 + number);
        bob.payments().create_invoice(create).await.unwrap();
    }
    let mut amounts = Vec::new();
    let mut page_token = None;
    loop {
        let list = v1::ListInvoicesRequest { page_size: Some(2), page_token, filter: None };
        let page = bob.payments().list_invoices(list).await.unwrap().into_inner();
        assert!(page.invoices.len() <= 2);
        amounts.extend(page.invoices.into_iter().filter_map(|invoice| invoice.amount_msat));
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    amounts.sort_unstable();
    assert_eq!(amounts, [1_000, 1_001, 1_002, 1_003, 1_004]);
    let export = v1::ExportInvoicesRequest { filter: None };
    let all = bob.payments().export_invoices(export).await.unwrap().into_inner();
    assert_eq!(all.try_collect::<Vec<_>>().await.unwrap().len(), 5);

    let mut sequences = Vec::new();
    let mut page_token = None;
    loop {
        let list = v1::ListEventsRequest { page_size: Some(3), page_token, ..Default::default() };
        let page = bob.events().list(list).await.unwrap().into_inner();
        sequences.extend(page.events.iter().map(|event| event.sequence));
        assert_eq!(page.oldest_sequence, Some(1));
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    let expected: Vec<u64> = (1..=sequences.len() as u64).collect();
    assert_eq!(sequences, expected);
    let odd = v1::ListInvoicesRequest { page_token: Some("AA".into()), ..Default::default() };
    let status = bob.payments().list_invoices(odd).await.unwrap_err();
    assert_eq!(reason(&status), "PAGE_TOKEN_INVALID");
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_payment_waits_for_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, _) = pair(&directory).await;
    let preimage = crate::lightning::types::Preimage([5; 32]);
    let hash = preimage.hash().0.to_vec();
    let create = v1::CreateInvoiceRequest {
        payment_hash: Some(hash.clone()),
        ..invoice_request("hold", 70_000)
    };
    let invoice = bob.payments().create_invoice(create).await.unwrap().into_inner();
    assert!(invoice.hold);
    let early =
        v1::SettleHoldRequest { idempotency_key: "early".into(), preimage: preimage.0.to_vec() };
    let status = bob.payments().settle_hold(early).await.unwrap_err();
    assert_eq!(reason(&status), "INVOICE_STATE", "nothing is held yet");

    let stream = alice.payments().pay_stream(pay_request("pay", &invoice)).await.unwrap();
    let mut states = stream.into_inner();
    let first = states.try_next().await.unwrap().unwrap();
    assert_eq!(first.state(), v1::PaymentState::InFlight);
    loop {
        let lookup = v1::LookupInvoiceRequest { payment_hash: hash.clone() };
        let now = bob.payments().lookup_invoice(lookup).await.unwrap().into_inner();
        if now.state() == v1::InvoiceState::Held {
            assert!(now.claim_deadline_height.is_some() && now.preimage.is_none());
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A caller who hangs up does not stop the payment.
    drop(states);
    let settle =
        v1::SettleHoldRequest { idempotency_key: "settle".into(), preimage: preimage.0.to_vec() };
    bob.payments().settle_hold(settle.clone()).await.unwrap();
    bob.payments().settle_hold(settle).await.unwrap();
    let watch = v1::WatchPaymentRequest { payment_id: first.payment_id };
    let states = alice.payments().watch_payment(watch).await.unwrap().into_inner();
    let states: Vec<v1::Payment> = states.try_collect().await.unwrap();
    let last = states.last().unwrap();
    assert_eq!(last.state(), v1::PaymentState::Succeeded);
    assert_eq!(last.preimage, Some(preimage.0.to_vec()));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coins_are_sent_once_per_key_and_sped_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["alice", "bob"] {
        cluster.add(name, NodeOptions::default()).await.unwrap();
    }
    cluster.fund(&["alice"], Amount::from_sat(1_000_000), 2).await.unwrap();
    let alice = Api::of(&cluster, "alice").await;
    let bob = Api::of(&cluster, "bob").await;
    let new = |key: &str| v1::NewAddressRequest { idempotency_key: key.into() };
    let address = bob.wallet().new_address(new("a")).await.unwrap().into_inner().address;
    let again = bob.wallet().new_address(new("a")).await.unwrap().into_inner().address;
    let other = bob.wallet().new_address(new("b")).await.unwrap().into_inner().address;
    assert_eq!(address, again);
    assert_ne!(address, other);

    let send = v1::SendRequest {
        idempotency_key: "send".into(),
        address: address.clone(),
        amount: Some(v1::send_request::Amount::AmountSat(250_000)),
        feerate_sat_per_vb: Some(2),
        max_fee_sat: None,
    };
    let sent = alice.wallet().send(send.clone()).await.unwrap().into_inner();
    let twice = alice.wallet().send(send.clone()).await.unwrap().into_inner();
    assert_eq!(sent.txid, twice.txid, "one key, one transaction");
    assert_eq!(sent.purpose(), v1::TransactionPurpose::Send);
    assert_eq!(sent.spent_sat - sent.received_sat, 250_000 + sent.fee_sat.unwrap());
    let odd = v1::SendRequest { address: other, ..send.clone() };
    let status = alice.wallet().send(odd).await.unwrap_err();
    assert_eq!(reason(&status), "IDEMPOTENCY_KEY_REUSED");
    let much = v1::SendRequest {
        idempotency_key: "much".into(),
        amount: Some(v1::send_request::Amount::AmountSat(9_000_000)),
        ..send.clone()
    };
    let status = alice.wallet().send(much).await.unwrap_err();
    assert_eq!(reason(&status), "FUNDS_INSUFFICIENT");
    assert_eq!(explain(&status).money_may_have_moved, Some(false));

    let bump = v1::BumpFeeRequest {
        idempotency_key: "bump".into(),
        txid: sent.txid.clone(),
        feerate_sat_per_vb: Some(9),
    };
    let bumped = alice.wallet().bump_fee(bump.clone()).await.unwrap().into_inner();
    let twice = alice.wallet().bump_fee(bump).await.unwrap().into_inner();
    assert_eq!(bumped.txid, twice.txid);
    assert_ne!(bumped.txid, sent.txid);
    assert!(bumped.fee_sat > sent.fee_sat);
    let again = alice.wallet().send(send).await.unwrap().into_inner();
    assert_eq!((&again.txid, &again.raw), (&sent.txid, &sent.raw), "the answer of the first call");
    assert_eq!(again.replaced_by_txid.as_ref(), Some(&bumped.txid));
    let txid = super::super::convert::txid("txid", &bumped.txid).unwrap();
    while !cluster.chain.knows(txid).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.mine(1).await.unwrap();
    let balance = bob.wallet().get_balance(v1::GetBalanceRequest {}).await.unwrap().into_inner();
    assert_eq!(balance.confirmed_sat, 250_000);
    let export = v1::ExportTransactionsRequest {};
    let all = alice.wallet().export_transactions(export).await.unwrap().into_inner();
    let all: Vec<v1::WalletTransaction> = all.try_collect().await.unwrap();
    assert!(all.iter().any(|tx| tx.txid == bumped.txid && tx.confirmations == 1));
    assert!(all.iter().all(|tx| tx.txid != sent.txid), "what was replaced is gone");
    let mut coins = 0;
    let mut page_token = None;
    loop {
        let list = v1::ListUnspentRequest { page_size: Some(1), page_token };
        let page = alice.wallet().list_unspent(list).await.unwrap().into_inner();
        coins += page.unspent.len();
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    let unspent = cluster.node("alice").wallet.list_unspent();
    assert_eq!(coins, unspent.len());
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_come_and_go_and_a_stop_is_asked_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["alice", "bob"] {
        cluster.add(name, NodeOptions::default()).await.unwrap();
    }
    let alice = Api::of(&cluster, "alice").await;
    let bob = cluster.node("bob");
    let node_id = bob.lightning.node_id().serialize().to_vec();
    let connect = v1::ConnectPeerRequest {
        idempotency_key: "connect".into(),
        node_id: node_id.clone(),
        address: bob.listening[0].clone(),
        keep: false,
    };
    let peer = alice.node().connect_peer(connect).await.unwrap().into_inner();
    assert!(peer.connected && !peer.inbound && !peer.keep);
    let list = v1::ListPeersRequest::default();
    let peers = alice.node().list_peers(list).await.unwrap().into_inner().peers;
    assert_eq!(peers.len(), 1);
    let gone = |key: &str| v1::DisconnectPeerRequest {
        idempotency_key: key.into(),
        node_id: node_id.clone(),
    };
    alice.node().disconnect_peer(gone("gone")).await.unwrap();
    loop {
        let list = v1::ListPeersRequest::default();
        if alice.node().list_peers(list).await.unwrap().into_inner().peers.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = alice.node().disconnect_peer(gone("again")).await.unwrap_err();
    assert_eq!(reason(&status), "PEER_UNKNOWN");
    let nobody = v1::ConnectPeerRequest {
        idempotency_key: "nobody".into(),
        node_id,
        address: "127.0.0.1:1".into(),
        keep: false,
    };
    let status = alice.node().connect_peer(nobody).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "PEER_UNREACHABLE"));

    let stop = v1::StopRequest { idempotency_key: "stop".into() };
    alice.node().stop(stop).await.unwrap();
    assert!(alice.stop.is_cancelled());
    // A stream that is open when the node stops ends with a reason.
    let subscribe = v1::SubscribeRequest::default();
    let mut events = alice.events().subscribe(subscribe).await.unwrap().into_inner();
    cluster.stop("alice").await.unwrap();
    let end = loop {
        match events.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!((end.code(), &*reason(&end)), (Code::Unavailable, "STOPPING"));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_payments_are_begun_than_may_be_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let one = |config: &mut crate::config::Config| config.limits.payments_in_flight_max = 1;
    let (cluster, alice, bob, _) = pair_with(&directory, one).await;
    let hash = crate::lightning::types::Preimage([6; 32]).hash().0.to_vec();
    let hold = v1::CreateInvoiceRequest {
        payment_hash: Some(hash.clone()),
        ..invoice_request("hold", 9_000)
    };
    let hold = bob.payments().create_invoice(hold).await.unwrap().into_inner();
    let first = pay_request("first", &hold);
    let mut states = alice.payments().pay_stream(first.clone()).await.unwrap().into_inner();
    let begun = states.try_next().await.unwrap().unwrap();

    let invoice = bob.payments().create_invoice(invoice_request("next", 1_000)).await;
    let next = pay_request("next", &invoice.unwrap().into_inner());
    let status = alice.payments().pay(next.clone()).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::ResourceExhausted, "TOO_MANY_IN_FLIGHT"));
    let told = explain(&status);
    assert_eq!(told.metadata["payments_in_flight_max"], "1");
    assert_eq!(told.money_may_have_moved, Some(false));
    // What repeats the first begins nothing.
    let again = v1::PayRequest { wait: v1::PayWait::ReturnAtOnce.into(), ..first };
    let again = alice.payments().pay(again).await.unwrap().into_inner();
    assert_eq!(again.payment_id, begun.payment_id);

    let cancel = v1::CancelHoldRequest { idempotency_key: "cancel".into(), payment_hash: hash };
    while bob.payments().cancel_hold(cancel.clone()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    while states.try_next().await.unwrap().is_some() {}
    let paid = alice.payments().pay(next).await.unwrap().into_inner();
    assert_eq!(paid.state(), v1::PaymentState::Succeeded);
    cluster.shut_down().await;
}
