//! grpc-web and gRPC by this door, and who is let in by TLS.

use http_body_util::Full;
use hyper::body::Bytes;
use prost::Message;
use proto::v1;
use proto::v1::node_client::NodeClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::Code;
use tonic::codegen::http::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::alone;
use super::client::Client;
use crate::rpc::rest::messages::framed;
use crate::rpc::status::explain;

/// A call by grpc-web, as its bytes.
fn web(client: &Client, kind: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::builder()
        .method("POST")
        .uri("/tributary.v1.Node/ListPeers")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {}", client.token))
        .header("content-type", kind)
        .header("x-grpc-web", "1")
        .body(Full::from(body))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_web_and_grpc_itself_are_spoken_too() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice) = alone(&directory, |_| {}).await;
    let request = v1::ListPeersRequest::default().encode_to_vec();
    let answer =
        alice.send(web(&alice, "application/grpc-web+proto", framed(&request).to_vec())).await;
    assert_eq!(answer.status, 200);
    // One message, empty, and the trailers in a frame of their own.
    let (message, trailers) = answer.body.split_at(5);
    assert_eq!((message, trailers[0]), (&[0, 0, 0, 0, 0][..], 0x80));
    let trailers = String::from_utf8_lossy(&trailers[5..]).to_lowercase();
    assert!(
        trailers.contains("grpc-status:0") || trailers.contains("grpc-status: 0"),
        "{trailers}"
    );

    let wrong =
        alice.send(web(&alice, "application/grpc-web+proto", vec![0, 0, 0, 0, 1, 0xff])).await;
    let told = format!("{:?} {}", wrong.headers, String::from_utf8_lossy(&wrong.body));
    assert!(told.contains("grpc-status") && told.contains("decode"), "{told}");

    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&alice.cert_pem))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", alice.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let status = NodeClient::new(channel).get_info(v1::GetInfoRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(explain(&status).reason.as_deref(), Some("TOKEN_MISSING"));
    drop(cluster);
}

/// An authority, and a client that it vouches for: its certificate and key.
fn authority() -> (String, (String, String)) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(vec!["wallet".to_owned()]).unwrap();
    let client = client.signed_by(&key, &authority).unwrap();
    (authority.as_ref().pem(), (client.pem(), key.serialize_pem()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_asks_for_certificates_asks_here_too() {
    let directory = tempfile::tempdir().unwrap();
    let (authority_pem, known) = authority();
    let (_, stranger) = authority();
    let path = directory.path().join("authority.pem");
    std::fs::write(&path, authority_pem).unwrap();
    let (_cluster, alice) =
        alone(&directory, move |config| config.rpc.client_ca.clone_from(&path)).await;
    for (own, comes_in) in [(None, false), (Some(stranger), false), (Some(known), true)] {
        let client = Client { own, ..alice.clone() };
        let request = client.request("GET", "Node/GetInfo").body(Full::default()).unwrap();
        let answer = client.try_open(request).await;
        assert_eq!(answer.map(|answer| answer.status().as_u16()), comes_in.then_some(200));
    }
}
