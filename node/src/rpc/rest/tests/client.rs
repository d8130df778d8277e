//! A plain client of HTTP/1.1 over TLS, which shares nothing with the door.

use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::{HeaderMap, Request, Response};

use crate::dev::Cluster;

/// A caller with a token.
#[derive(Clone)]
pub struct Client {
    pub address: String,
    pub cert_pem: String,
    pub token: String,
    /// A certificate of its own and the key to it, PEM.
    pub own: Option<(String, String)>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The document of a call that went well.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.headers["content-type"], "application/json");
        self.json()
    }
}

impl Client {
    pub fn of(cluster: &Cluster, name: &str) -> Self {
        let node = cluster.node(name);
        Self {
            address: node.rest_address.clone(),
            cert_pem: std::fs::read_to_string(node.config.tls_cert_file()).unwrap(),
            token: std::fs::read_to_string(node.config.token_file()).unwrap().trim().to_owned(),
            own: None,
        }
    }

    pub fn holding(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A request with the token.
    pub fn request(&self, verb: &str, path: &str) -> tonic::codegen::http::request::Builder {
        Request::builder()
            .method(verb)
            .uri(format!("/v1/{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
    }

    /// Sends a request on a connection of its own, and gives back the head.
    pub async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.try_open(request).await.expect("the node answers")
    }

    /// As `open`; `None` if the connection breaks.
    pub async fn try_open(&self, request: Request<Full<Bytes>>) -> Option<Response<Incoming>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.own {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn(connection);
        sender.send_request(request).await.ok()
    }

    /// Sends a request and takes the whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = self.open(request).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Full::default()).unwrap()).await
    }

    pub async fn post(&self, path: &str, document: Value) -> Answer {
        self.post_text(path, &document.to_string()).await
    }

    pub async fn post_text(&self, path: &str, text: &str) -> Answer {
        let request = self.request("POST", path).header("content-type", "application/json");
        self.send(request.body(Full::from(text.to_owned())).unwrap()).await
    }
}

/// A stream as it is read.
pub struct Reading {
    body: Incoming,
    read: String,
}

impl Reading {
    pub fn new(answer: Response<Incoming>) -> Self {
        assert_eq!(answer.status(), 200);
        Self { body: answer.into_body(), read: String::new() }
    }

    /// The next piece up to `end`, which is taken off; `None` at the end of the stream.
    pub async fn next(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((piece, rest)) = self.read.split_once(end) {
                let piece = piece.to_owned();
                self.read = rest.to_owned();
                return Some(piece);
            }
            let frame = self.body.frame().await?.unwrap();
            let data = frame.into_data().unwrap_or_default();
            self.read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next server-sent event: its type, its id, its data.
    pub async fn event(&mut self) -> Option<Event> {
        let text = self.next("\n\n").await?;
        let mut event = Event::default();
        for line in text.lines() {
            match line.split_once(": ").unwrap() {
                ("event", kind) => event.kind = kind.to_owned(),
                ("id", id) => event.id = Some(id.parse().unwrap()),
                ("data", data) => event.data = serde_json::from_str(data).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        Some(event)
    }
}

#[derive(Debug, Default)]
pub struct Event {
    pub kind: String,
    pub id: Option<u64>,
    pub data: Value,
}
