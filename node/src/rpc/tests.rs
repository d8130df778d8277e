//! A real server behind TLS and token, called by real clients.

use std::net::SocketAddr;

use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::auth::{AdminToken, Authenticator, TOKEN_FILE};
use super::status::explain;
use super::tls::{TlsFiles, TlsIdentity};
use crate::environment::{OsEntropy, SystemClock};

struct Served {
    address: SocketAddr,
    cert_pem: String,
    token: AdminToken,
    _directory: tempfile::TempDir,
}

async fn serve(extra_names: &[String]) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let token = AdminToken::load_or_create(&directory.path().join(TOKEN_FILE), &OsEntropy).unwrap();
    let files = TlsFiles::within(directory.path());
    let identity = TlsIdentity::load_or_create(&files, extra_names, &SystemClock).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let guarded = InterceptedService::new(health, Authenticator::new(token.clone()));
    let server = Server::builder()
        .tls_config(identity.server_config())
        .unwrap()
        .add_service(guarded)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::task::spawn(server);
    Served { address, cert_pem: identity.cert_pem().to_owned(), token, _directory: directory }
}

async fn dial(address: SocketAddr, cert_pem: &str, name: &str) -> Option<Channel> {
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert_pem)).domain_name(name);
    Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .ok()
}

#[tokio::test]
async fn the_token_opens_and_nothing_else_does() {
    let served = serve(&[]).await;
    let channel = dial(served.address, &served.cert_pem, "localhost")
        .await
        .expect("the certificate is good for localhost");
    let mut client = HealthClient::new(channel);
    let request = |header: Option<String>| {
        let mut request = Request::new(HealthCheckRequest::default());
        if let Some(header) = header {
            let value = header.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    };
    let bearer = format!("Bearer {}", *served.token.reveal());
    client.check(request(Some(bearer))).await.unwrap();
    for (header, reason) in
        [(None, "TOKEN_MISSING"), (Some(format!("Bearer {}", "00".repeat(32))), "TOKEN_INVALID")]
    {
        let status = client.check(request(header)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        let explanation = explain(&status);
        assert_eq!(explanation.reason.as_deref(), Some(reason));
        assert!(explanation.remedy.unwrap().contains("admin.token"));
    }
}

#[tokio::test]
async fn the_certificate_is_good_for_its_names_alone() {
    let served = serve(&["hub.example".to_owned()]).await;
    for name in ["localhost", "127.0.0.1", "::1", "hub.example"] {
        assert!(dial(served.address, &served.cert_pem, name).await.is_some(), "{name}");
    }
    assert!(dial(served.address, &served.cert_pem, "other.example").await.is_none());
    let stranger = serve(&[]).await;
    assert!(
        dial(served.address, &stranger.cert_pem, "localhost").await.is_none(),
        "another node's certificate was trusted"
    );
}
