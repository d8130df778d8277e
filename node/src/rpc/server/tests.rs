//! The server without a node behind it: TLS, tokens, the door, health, reflection.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use futures::StreamExt;
use proto::v1;
use proto::v1::events_client::EventsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::super::auth::{AdminToken, Authenticator, TOKEN_FILE};
use super::super::gate::CallLimits;
use super::super::status::explain;
use super::super::testing;
use super::super::tls::{TlsFiles, TlsIdentity};
use super::*;
use crate::chain::BlockRef;
use crate::config::RpcConfig;
use crate::environment::{OsEntropy, SystemClock};

/// A server on loopback and what a client needs.
pub(super) struct Served {
    pub door: Door,
    pub tasks: Tasks,
    address: SocketAddr,
    cert_pem: String,
    token: AdminToken,
    _directory: tempfile::TempDir,
}

impl Served {
    pub async fn start(tasks: Tasks) -> Self {
        Self::with(tasks, testing::tokens(), &RpcConfig::default()).await
    }

    pub async fn with(tasks: Tasks, tokens: Arc<Tokens>, config: &RpcConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKEN_FILE);
        let token = AdminToken::load_or_create(&path, &OsEntropy).unwrap();
        let files = TlsFiles::within(directory.path());
        let identity = TlsIdentity::load_or_create(&files, &[], &SystemClock).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new();
        let authenticator = Authenticator::new(token.clone(), tokens);
        let gate = Gate::new(authenticator, CallLimits::new(config));
        serve(door.clone(), listener, &identity, &gate, &tasks).await.unwrap();
        let cert_pem = identity.cert_pem().to_owned();
        Self { door, tasks, address, cert_pem, token, _directory: directory }
    }

    pub async fn dial(&self) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.cert_pem))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// Puts the administrator's token on every call.
    pub fn signer(&self) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        Self::bearer(&self.token.reveal())
    }

    /// Puts a token on every call.
    pub fn bearer(
        text: &str,
    ) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
        let header: MetadataValue<_> = format!("Bearer {text}").parse().unwrap();
        move |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", header.clone());
            Ok(request)
        }
    }
}

fn reason(status: &Status) -> Option<String> {
    explain(status).reason
}

fn block(height: u32) -> Option<BlockRef> {
    Some(BlockRef { height, hash: BlockHash::all_zeros() })
}

#[test]
fn new_risk_waits_for_the_tip() {
    let current = SyncState { tip: block(7), synced: block(7), ..SyncState::default() };
    assert!(not_synced(&current).is_none());
    for behind in [
        SyncState::default(),
        SyncState { synced: block(6), ..current.clone() },
        SyncState { stalled_since: Some(Duration::ZERO), ..current.clone() },
        SyncState { last_error: Some("gone".into()), ..current.clone() },
    ] {
        let refusal = not_synced(&behind).unwrap();
        assert_eq!(refusal.reason(), Reason::ChainNotSynced, "{refusal}");
    }
}

#[tokio::test]
async fn a_call_without_the_token_is_not_let_in() {
    let served = Served::start(Tasks::new()).await;
    let channel = served.dial().await;
    let bare = NodeClient::new(channel.clone()).get_info(v1::GetInfoRequest {}).await;
    let status = bare.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(reason(&status).as_deref(), Some("TOKEN_MISSING"));

    let wrong = |mut request: Request<()>| {
        let header = format!("Bearer {}", "0".repeat(64));
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        Ok(request)
    };
    let mut payments = PaymentsClient::with_interceptor(channel.clone(), wrong);
    let status = payments.pay(v1::PayRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(reason(&status).as_deref(), Some("TOKEN_INVALID"));
    let mut events = EventsClient::with_interceptor(channel, wrong);
    let status = events.subscribe(v1::SubscribeRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_node_that_starts_or_stops_says_so() {
    let served = Served::start(Tasks::new()).await;
    let channel = served.dial().await;
    let mut node = NodeClient::with_interceptor(channel.clone(), served.signer());
    let status = node.get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status).as_deref(), Some("STARTING"));
    assert_eq!(explain(&status).money_may_have_moved, Some(false));
    served.door.close();
    let status = node.get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_eq!(reason(&status).as_deref(), Some("STOPPING"));
}

#[tokio::test]
async fn health_needs_no_token_and_tells_when_the_node_is_up() {
    let served = Served::start(Tasks::new()).await;
    let mut health = HealthClient::new(served.dial().await);
    for service in ["", "tributary.v1.Payments"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing);
    }
    let odd = HealthCheckRequest { service: "tributary.v1.Nothing".to_owned() };
    assert_eq!(health.check(odd).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_needs_the_token_and_lists_every_service() {
    let served = Served::start(Tasks::new()).await;
    let channel = served.dial().await;
    let ask = || {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        futures::stream::iter([request])
    };
    let bare = ServerReflectionClient::new(channel.clone()).server_reflection_info(ask()).await;
    assert_eq!(bare.unwrap_err().code(), Code::Unauthenticated);
    let mut reflection = ServerReflectionClient::with_interceptor(channel, served.signer());
    let mut answers = reflection.server_reflection_info(ask()).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("not a list: {answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| &*service.name).collect();
    for service in ["Node", "Channels", "Batches", "Payments", "Wallet", "Tokens", "Events"] {
        let name = format!("tributary.v1.{service}");
        assert!(names.contains(&&*name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn the_server_ends_with_the_node() {
    let served = Served::start(Tasks::new()).await;
    let channel = served.dial().await;
    let mut node = NodeClient::with_interceptor(channel, served.signer());
    assert!(node.get_info(v1::GetInfoRequest {}).await.is_err());
    let stopped = tokio::time::timeout(Duration::from_secs(5), served.tasks.stop()).await;
    assert!(stopped.is_ok(), "an idle connection keeps the server");
    assert!(tokio::net::TcpStream::connect(served.address).await.is_err());
}
