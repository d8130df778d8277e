//! How a node's doors are reached: the same over all of its restarts.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::process::Process;

/// How long a door may take to be reached.
const DIAL: Duration = Duration::from_secs(10);

/// A node's addresses, and what opens them.
#[derive(Clone)]
pub struct Doors {
    pub rpc: String,
    pub rest: String,
    pub token: String,
    cert_pem: Vec<u8>,
    tls: Arc<ClientConfig>,
}

impl Doors {
    /// Those of a process that has been up once.
    pub fn of(process: &Process) -> Self {
        let cert_pem = std::fs::read(process.dir.join("tls.crt")).unwrap();
        let token = std::fs::read_to_string(process.dir.join("admin.token")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&cert_pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            rpc: process.rpc.clone(),
            rest: process.rest.clone(),
            token: token.trim().to_owned(),
            cert_pem,
            tls: Arc::new(tls),
        }
    }

    /// The same doors at other addresses.
    pub fn at(&self, rpc: &str, rest: &str) -> Self {
        Self { rpc: rpc.to_owned(), rest: rest.to_owned(), ..self.clone() }
    }

    fn endpoint(&self) -> Endpoint {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.cert_pem))
            .domain_name("localhost");
        let endpoint = Channel::from_shared(format!("https://{}", self.rpc)).unwrap();
        endpoint.tls_config(tls).unwrap().connect_timeout(DIAL)
    }

    /// A connection that is made when it is needed, and made again when it broke.
    pub fn lazy(&self) -> Channel {
        self.endpoint().connect_lazy()
    }

    /// One connection; `window` is how much of a stream may be under way unread.
    pub async fn grpc(&self, window: Option<u32>) -> Option<Channel> {
        let endpoint = match window {
            Some(bytes) => self.endpoint().initial_stream_window_size(bytes),
            None => self.endpoint(),
        };
        timeout(DIAL, endpoint.connect()).await.ok()?.ok()
    }

    /// One connection of HTTP/1.1 to REST.
    pub async fn http(&self) -> Option<http1::SendRequest<Full<Bytes>>> {
        let dial = async {
            let stream = TcpStream::connect(&self.rest).await.ok()?;
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
            http1::handshake(TokioIo::new(stream.ok()?)).await.ok()
        };
        let (sender, connection) = timeout(DIAL, dial).await.ok()??;
        tokio::spawn(connection);
        Some(sender)
    }

    /// A `GET` with the token.
    pub fn get(&self, path: &str) -> hyper::http::request::Builder {
        hyper::Request::builder()
            .uri(format!("/v1/{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
    }

    /// A call with the token.
    pub fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token: AsciiMetadataValue = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        request
    }
}

/// Whether a call has no answer of the node: the way to it broke, or it is not up.
pub fn is_lost(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable || std::error::Error::source(status).is_some()
}
