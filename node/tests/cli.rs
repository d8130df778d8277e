//! The real `tributary` program against a server that plays a script: what goes over the
//! wire, what is printed, and with which code the program ends.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Output;
use std::sync::{Arc, Mutex};

use node::environment::{OsEntropy, SystemClock};
use node::rpc::auth::{AdminToken, TOKEN_FILE};
use node::rpc::connection::{CONNECTION_FILE, Connection};
use node::rpc::status::{Reason, Refusal};
use node::rpc::tls::{CERT_FILE, TlsFiles, TlsIdentity};
use node::tokens::{Restriction, Role, Token, TokenId};
use proto::v1::node_server::{Node, NodeServer};
use proto::v1::payments_server::{Payments, PaymentsServer};
use proto::v1::webhooks_server::{Webhooks, WebhooksServer};
use proto::v1::*;
use serde_json::{Value, json};
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// What the server was asked to pay, and how many pages it gave.
#[derive(Clone, Default)]
struct Script {
    paid: Arc<Mutex<Vec<PayRequest>>>,
    pages: Arc<Mutex<u32>>,
}

/// Methods that no test of this file calls.
macro_rules! not_in_the_script {
    ($($method:ident: $request:ty => $answer:ty;)*) => {
        $(
            fn $method<'life0, 'async_trait>(
                &'life0 self,
                _: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Answer<$answer>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async { Err(Status::unimplemented("not in the script")) })
            }
        )*
    };
}

#[tonic::async_trait]
impl Node for Script {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<NodeInfo> {
        Ok(Response::new(NodeInfo {
            node_id: vec![2; 33],
            alias: "scripted".to_owned(),
            network: Network::Regtest as i32,
            ..NodeInfo::default()
        }))
    }

    async fn list_peers(&self, request: Request<ListPeersRequest>) -> Answer<ListPeersResponse> {
        // Two peers in each page, five in all.
        *self.pages.lock().unwrap() += 1;
        let request = request.into_inner();
        let start: u8 = request.page_token.map_or(0, |token| token.parse().unwrap());
        let end = (start + 2).min(5);
        Ok(Response::new(ListPeersResponse {
            peers: (start..end)
                .map(|number| Peer { node_id: vec![number; 33], ..Peer::default() })
                .collect(),
            next_page_token: (end < 5).then(|| end.to_string()),
        }))
    }

    async fn stop(&self, _: Request<StopRequest>) -> Answer<StopResponse> {
        let refusal = Refusal::new(Reason::Starting, "the node is starting");
        Err(refusal.with("wait_seconds", 3).into())
    }

    not_in_the_script! {
        connect_peer: ConnectPeerRequest => Peer;
        disconnect_peer: DisconnectPeerRequest => DisconnectPeerResponse;
    }
}

#[tonic::async_trait]
impl Payments for Script {
    type PayStreamStream = Answers<Payment>;
    type WatchPaymentStream = Answers<Payment>;
    type ExportPaymentsStream = Answers<Payment>;
    type ExportInvoicesStream = Answers<Invoice>;

    async fn pay_stream(&self, request: Request<PayRequest>) -> Answer<Answers<Payment>> {
        let request = request.into_inner();
        self.paid.lock().unwrap().push(request.clone());
        let Some(pay_request::Target::Bolt11Invoice(invoice)) = request.target else {
            return Err(Status::invalid_argument("the script knows invoices only"));
        };
        let payment = |state: PaymentState| {
            Ok(Payment {
                payment_id: vec![7; 16],
                amount_msat: request.amount_msat.unwrap_or(1),
                state: state as i32,
                ..Payment::default()
            })
        };
        let states = match invoice.as_str() {
            "ends-well" => vec![payment(PaymentState::InFlight), payment(PaymentState::Succeeded)],
            "ends-badly" => vec![
                payment(PaymentState::InFlight),
                Ok(Payment {
                    failure: Some(PaymentFailure {
                        reason: PaymentFailureReason::NoRoute as i32,
                        text: "open a channel".to_owned(),
                    }),
                    ..payment(PaymentState::Failed)?
                }),
            ],
            "is-lost" => vec![payment(PaymentState::InFlight)],
            _ => {
                let refusal = Refusal::new(Reason::InvoiceExpired, "it expired 60 s ago");
                return Err(refusal.money_may_have_moved(false).into());
            }
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(states))))
    }

    not_in_the_script! {
        create_invoice: CreateInvoiceRequest => Invoice;
        create_offer: CreateOfferRequest => Offer;
        decode: DecodeRequest => DecodeResponse;
        pay: PayRequest => Payment;
        watch_payment: WatchPaymentRequest => Answers<Payment>;
        get_payment: GetPaymentRequest => Payment;
        list_payments: ListPaymentsRequest => ListPaymentsResponse;
        export_payments: ExportPaymentsRequest => Answers<Payment>;
        settle_hold: SettleHoldRequest => Invoice;
        cancel_hold: CancelHoldRequest => Invoice;
        lookup_invoice: LookupInvoiceRequest => Invoice;
        list_invoices: ListInvoicesRequest => ListInvoicesResponse;
        export_invoices: ExportInvoicesRequest => Answers<Invoice>;
        estimate_route: EstimateRouteRequest => EstimateRouteResponse;
    }
}

#[tonic::async_trait]
impl Webhooks for Script {
    async fn create(&self, request: Request<CreateWebhookRequest>) -> Answer<WebhookSecret> {
        let request = request.into_inner();
        let webhook = Webhook {
            endpoint_id: vec![5; 16],
            url: request.url,
            kinds: request.kinds,
            state: WebhookState::Enabled as i32,
            ..Webhook::default()
        };
        Ok(Response::new(WebhookSecret { webhook: Some(webhook), secret: "whsec_c2VjcmV0".into() }))
    }

    async fn update(&self, request: Request<UpdateWebhookRequest>) -> Answer<Webhook> {
        let request = request.into_inner();
        assert_eq!(request.enabled, Some(false));
        Ok(Response::new(Webhook {
            endpoint_id: request.endpoint_id,
            kinds: request.filter.expect("a filter is sent").kinds,
            state: WebhookState::Disabled as i32,
            ..Webhook::default()
        }))
    }

    async fn send_test(&self, _: Request<SendTestRequest>) -> Answer<TestDelivery> {
        let error = Some("status 500".to_owned());
        Ok(Response::new(TestDelivery { http_status: Some(500), error, took_ms: 7 }))
    }

    not_in_the_script! {
        list: ListWebhooksRequest => ListWebhooksResponse;
        get: GetWebhookRequest => Webhook;
        delete: DeleteWebhookRequest => DeleteWebhookResponse;
        rotate_secret: RotateWebhookSecretRequest => WebhookSecret;
        list_dead_letters: ListDeadLettersRequest => ListDeadLettersResponse;
        replay: ReplayWebhookRequest => Webhook;
    }
}

struct Served {
    script: Script,
    directory: tempfile::TempDir,
}

async fn serve() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let token = AdminToken::load_or_create(&path.join(TOKEN_FILE), &OsEntropy).unwrap();
    let files = TlsFiles::within(path);
    let identity = TlsIdentity::load_or_create(&files, &[], &SystemClock).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Connection {
        rpc: listener.local_addr().unwrap().to_string(),
        tls_cert: PathBuf::from(CERT_FILE),
        token_file: PathBuf::from(TOKEN_FILE),
    }
    .write(&path.join(CONNECTION_FILE))
    .unwrap();
    let script = Script::default();
    let expected = format!("Bearer {}", *token.reveal());
    let guard = move |request: Request<()>| {
        let header = request.metadata().get("authorization");
        match header.is_some_and(|header| header == &*expected) {
            true => Ok(request),
            false => Err(Refusal::new(Reason::TokenInvalid, "the token is not this node's").into()),
        }
    };
    let server = Server::builder()
        .tls_config(identity.server_config())
        .unwrap()
        .add_service(InterceptedService::new(NodeServer::new(script.clone()), guard.clone()))
        .add_service(InterceptedService::new(PaymentsServer::new(script.clone()), guard.clone()))
        .add_service(InterceptedService::new(WebhooksServer::new(script.clone()), guard));
    tokio::task::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Served { script, directory }
}

async fn tributary(directory: &Path, words: &str) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(words.split_whitespace())
        .env_clear()
        .env("HOME", directory)
        .env("XDG_RUNTIME_DIR", directory)
        .env("TRIBUTARY_DATA_DIR", directory)
        .output()
        .await
        .unwrap()
}

impl Served {
    async fn tributary(&self, words: &str) -> Output {
        tributary(self.directory.path(), words).await
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn document(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

#[tokio::test]
async fn info_is_text_for_people_and_json_for_programs() {
    let served = serve().await;
    let plain = served.tributary("info").await;
    assert_eq!(plain.status.code(), Some(0), "{}", text(&plain.stderr));
    assert!(text(&plain.stdout).contains("scripted"));
    assert!(!text(&plain.stdout).contains('\x1b'), "colours in a pipe");
    let json = served.tributary("info --json").await;
    let info = document(&json.stdout);
    assert_eq!(info["node_id"], "02".repeat(33));
    assert_eq!(info["network"], "REGTEST");
    assert_eq!(info["chain"], Value::Null);
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let served = serve().await;
    let all = document(&served.tributary("peers --json").await.stdout);
    assert_eq!(all["peers"].as_array().unwrap().len(), 5);
    assert_eq!(all["next_page_token"], Value::Null);
    assert_eq!(*served.script.pages.lock().unwrap(), 3);
    let some = served.tributary("peers --limit 2").await;
    assert!(text(&some.stderr).contains("raise --limit"));
    assert_eq!(*served.script.pages.lock().unwrap(), 4);
}

#[tokio::test]
async fn a_payment_ends_as_the_node_says() {
    let served = serve().await;
    let good = served.tributary("pay ends-well --amount 5msat --max-fee 0 --json").await;
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let payment = document(&good.stdout);
    assert_eq!(payment["state"], "SUCCEEDED");
    assert_eq!(payment["amount_msat"], 5);

    let bad = served.tributary("pay ends-badly --json").await;
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(document(&bad.stdout)["state"], "FAILED");
    let error = &document(&bad.stderr)["error"];
    assert_eq!(error["reason"], "PAYMENT_FAILED");
    assert_eq!(error["money_may_have_moved"], false);

    let paid = served.script.paid.lock().unwrap();
    assert_eq!(paid[0].max_fee_msat, Some(0));
    assert_eq!(paid[1].max_fee_msat, None);
    assert_ne!(paid[0].idempotency_key, paid[1].idempotency_key);
}

#[tokio::test]
async fn a_webhooks_secret_is_shown_and_a_test_that_fails_is_a_failure() {
    let served = serve().await;
    let made = served.tributary("webhook create https://shop.example/ --kind swap --json").await;
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let made = document(&made.stdout);
    assert_eq!(made["secret"], "whsec_c2VjcmV0");
    assert_eq!(made["webhook"]["kinds"], json!(["SWAP"]));
    let id = made["webhook"]["endpoint_id"].as_str().unwrap().to_owned();
    let plain = served.tributary("webhook create https://shop.example/").await;
    assert!(text(&plain.stdout).contains("secret, shown this once: whsec_c2VjcmV0"));
    let changed = served.tributary(&format!("webhook update {id} --disable --all-kinds")).await;
    assert_eq!(changed.status.code(), Some(0), "{}", text(&changed.stderr));
    assert!(text(&changed.stdout).contains("disabled"));
    let tested = served.tributary(&format!("webhook test {id}")).await;
    assert_eq!(tested.status.code(), Some(1));
    assert!(text(&tested.stdout).contains("status 500 after 7 ms"));
    assert!(text(&tested.stderr).contains("was not taken: status 500"));
}

#[tokio::test]
async fn a_lost_payment_names_the_key_that_was_sent() {
    let served = serve().await;
    let lost = served.tributary("pay is-lost").await;
    assert_eq!(lost.status.code(), Some(3));
    let said = text(&lost.stderr);
    let key = served.script.paid.lock().unwrap()[0].idempotency_key.clone();
    assert!(said.contains(&format!("--idempotency-key {key}")), "{said}");
    assert!(said.contains("money may have moved: yes"), "{said}");
    assert!(lost.stdout.is_empty());

    let again = served.tributary(&format!("pay ends-well --idempotency-key {key}")).await;
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(served.script.paid.lock().unwrap()[1].idempotency_key, key);
}

#[tokio::test]
async fn a_refusal_tells_reason_remedy_and_numbers() {
    let served = serve().await;
    let refused = served.tributary("pay is-old").await;
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("INVOICE_EXPIRED: it expired 60 s ago"), "{said}");
    assert!(said.contains("remedy: ask the recipient"), "{said}");
    assert!(said.contains("money may have moved: no"), "{said}");

    let refused = served.tributary("stop --json").await;
    assert_eq!(refused.status.code(), Some(1));
    let error = &document(&refused.stderr)["error"];
    assert_eq!(error["reason"], "STARTING");
    assert_eq!(error["metadata"], json!({"wait_seconds": "3"}));

    std::fs::write(served.directory.path().join(TOKEN_FILE), format!("{}\n", "00".repeat(32)))
        .unwrap();
    let refused = served.tributary("info").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("TOKEN_INVALID"));
}

#[tokio::test]
async fn what_cannot_be_reached_is_3_and_what_makes_no_sense_is_2() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = tributary(directory.path(), "info").await;
    assert_eq!(nobody.status.code(), Some(3));
    assert!(text(&nobody.stderr).contains("remedy:"));
    let unknown = tributary(directory.path(), "info --node nobody --json").await;
    assert_eq!(unknown.status.code(), Some(3));
    assert_eq!(document(&unknown.stderr)["error"]["reason"], "UNREACHABLE");
    for words in ["pay", "no-such-verb", "wallet send a 1.5msat"] {
        let wrong = tributary(directory.path(), words).await;
        assert_eq!(wrong.status.code(), Some(2), "{words}");
    }
    let id = "02".repeat(33);
    let wrong = tributary(directory.path(), &format!("connect {id}")).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn completions_need_no_node() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = tributary(directory.path(), &format!("completions {shell}")).await;
        assert_eq!(script.status.code(), Some(0));
        assert!(text(&script.stdout).contains("idempotency-key"), "{shell}");
    }
}

#[tokio::test]
async fn a_token_is_narrowed_without_a_node_and_goes_over_the_wire() {
    let served = serve().await;
    let directory = served.directory.path();
    let secret = [1; 32];
    let baked = Token::bake(&secret, TokenId([2; 16]), Vec::new()).unwrap();
    std::fs::write(directory.join("wide"), &*baked.reveal()).unwrap();
    let words = "token narrow wide --role payer --budget 5sat";
    let words = words.replace("wide", directory.join("wide").to_str().unwrap());
    let narrow = tributary(directory, &words).await;
    assert_eq!(narrow.status.code(), Some(0), "{}", text(&narrow.stderr));
    let token = Token::parse(text(&narrow.stdout)).unwrap();
    assert!(token.links(&secret).is_some(), "the chain holds");
    assert_eq!(token.restrictions()[0], Restriction::Role(Role::Payer));
    assert!(matches!(token.restrictions()[1], Restriction::Budget { msat: 5_000, .. }));
    // Two of one size count apart.
    let again = tributary(directory, &words).await;
    assert_ne!(narrow.stdout, again.stdout);

    let file = directory.join("narrow");
    std::fs::write(&file, &narrow.stdout).unwrap();
    let shown = tributary(directory, &format!("token inspect {} --json", file.display())).await;
    let shown = document(&shown.stdout);
    assert_eq!(shown["token_id"], "02".repeat(16));
    assert_eq!(shown["restrictions"][1], json!({"kind": "budget", "value": "5 sat"}));
    let nothing = tributary(directory, &format!("token narrow {}", file.display())).await;
    assert_eq!(nothing.status.code(), Some(2));
    // It is sent in the place of the administrator's; this server knows that one alone.
    let info = tributary(directory, &format!("info --token-file {}", file.display())).await;
    assert!(text(&info.stderr).contains("TOKEN_INVALID"), "{}", text(&info.stderr));
}
