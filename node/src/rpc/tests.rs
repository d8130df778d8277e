//! A real server behind TLS and token, called by real clients.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::auth::{AdminToken, TOKEN_FILE};
use super::gate::Guarded;
use super::status::explain;
use super::testing;
use super::tls::{TlsFiles, TlsIdentity};
use crate::environment::{OsEntropy, SystemClock};

struct Served {
    address: SocketAddr,
    cert_pem: String,
    token: AdminToken,
    _directory: tempfile::TempDir,
}

async fn serve(extra_names: &[String]) -> Served {
    serve_for(extra_names, None).await
}

async fn serve_for(extra_names: &[String], client_ca_pem: Option<&str>) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let token = AdminToken::load_or_create(&directory.path().join(TOKEN_FILE), &OsEntropy).unwrap();
    let files = TlsFiles::within(directory.path());
    let client_ca = client_ca_pem.map(|pem| {
        let path = directory.path().join("client-ca.pem");
        std::fs::write(&path, pem).unwrap();
        path
    });
    let identity = TlsIdentity::load_or_create(&files, extra_names, &SystemClock).unwrap();
    let identity = identity.asking_for(client_ca.as_deref()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let guarded = Guarded::new(health, &testing::gate(token.clone(), testing::tokens()));
    let server = Server::builder()
        .tls_config(identity.server_config())
        .unwrap()
        .add_service(guarded)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::task::spawn(server);
    Served { address, cert_pem: identity.cert_pem().to_owned(), token, _directory: directory }
}

async fn dial(address: SocketAddr, cert_pem: &str, name: &str) -> Option<Channel> {
    dial_as(address, cert_pem, name, None).await
}

async fn dial_as(
    address: SocketAddr,
    cert_pem: &str,
    name: &str,
    own: Option<Identity>,
) -> Option<Channel> {
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(cert_pem)).domain_name(name);
    let tls = match own {
        Some(own) => tls.identity(own),
        None => tls,
    };
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

/// An authority, and a client that it vouches for.
fn authority() -> (String, Identity) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(vec!["wallet".to_owned()]).unwrap();
    let client = client.signed_by(&key, &authority).unwrap();
    (authority.as_ref().pem(), Identity::from_pem(client.pem(), key.serialize_pem()))
}

#[tokio::test]
async fn a_node_that_asks_for_certificates_lets_in_those_its_authority_signed() {
    let (authority_pem, client) = authority();
    let (_, stranger) = authority();
    let served = serve_for(&[], Some(&authority_pem)).await;
    let opens = async |own: Option<Identity>, token: Option<String>| {
        let channel = dial_as(served.address, &served.cert_pem, "localhost", own).await?;
        let mut request = Request::new(HealthCheckRequest::default());
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        // With TLS 1.3 a client learns only now that its certificate was refused.
        match HealthClient::new(channel).check(request).await {
            Ok(_) => Some("in".to_owned()),
            Err(status) => explain(&status).reason,
        }
    };
    let bearer = || Some(format!("Bearer {}", *served.token.reveal()));
    assert_eq!(opens(Some(client.clone()), bearer()).await.as_deref(), Some("in"));
    assert_eq!(opens(None, bearer()).await, None);
    assert_eq!(opens(Some(stranger), bearer()).await, None);
    // The token is asked for on top.
    assert_eq!(opens(Some(client), None).await.as_deref(), Some("TOKEN_MISSING"));
}

#[test]
fn a_file_without_an_authority_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles::within(directory.path());
    let identity = || TlsIdentity::load_or_create(&files, &[], &SystemClock).unwrap();
    let path = directory.path().join("ca.pem");
    let error = identity().asking_for(Some(&path)).unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
    std::fs::write(&path, "nothing").unwrap();
    let error = identity().asking_for(Some(&path)).unwrap_err();
    assert!(error.to_string().contains("rpc.client_ca"), "{error}");
}
