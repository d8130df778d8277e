//! HTTP to a node's doors, by clients that share nothing with them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Most of an answer that is read.
const READ_MAX: usize = 4 << 20;

pub type Body = BoxBody<Bytes, Infallible>;

pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body in pieces, of a length nobody knows beforehand.
pub fn pieces(pieces: Vec<Vec<u8>>, pause: Duration) -> Body {
    let stream = futures::stream::unfold(pieces.into_iter(), move |mut pieces| async move {
        let piece = pieces.next()?;
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(piece))), pieces))
    });
    BodyExt::boxed(StreamBody::new(Box::pin(sync(stream))))
}

/// `BoxBody` wants what may be shared; a mutex makes it so.
fn sync<S>(stream: S) -> impl futures::Stream<Item = S::Item> + Send + Sync
where
    S: futures::Stream + Send + 'static,
    S::Item: Send,
{
    let (tell, hear) = tokio::sync::mpsc::channel(1);
    tokio::task::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(item) = futures::StreamExt::next(&mut stream).await {
            if tell.send(item).await.is_err() {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(hear)
}

/// What is known of a node.
#[derive(Clone)]
pub struct Target {
    pub rpc: String,
    pub rest: String,
    pub token: String,
    tls_h1: Arc<ClientConfig>,
    tls_h2: Arc<ClientConfig>,
}

/// What came back of a call.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// Whether it came to its end.
    pub is_whole: bool,
}

impl Target {
    pub fn new(rpc: &str, rest: &str, token: &str, cert_pem: &[u8]) -> Self {
        let tls = |protocol: &str| {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(cert_pem).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            Arc::new(config)
        };
        Self {
            rpc: rpc.to_owned(),
            rest: rest.to_owned(),
            token: token.to_owned(),
            tls_h1: tls("http/1.1"),
            tls_h2: tls("h2"),
        }
    }

    /// A TLS connection, on which anything may be written.
    pub async fn raw(&self, address: &str, is_h2: bool) -> Option<TlsStream<TcpStream>> {
        let tls = if is_h2 { &self.tls_h2 } else { &self.tls_h1 };
        let stream = TcpStream::connect(address).await.ok()?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.ok()
    }

    async fn h2(&self, address: &str) -> Option<http2::SendRequest<Body>> {
        let stream = self.raw(address, true).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn(connection);
        Some(sender)
    }
}

/// One caller's connections, made anew when they break.
pub struct Caller {
    pub target: Target,
    rpc: Option<http2::SendRequest<Body>>,
    rest: Option<http2::SendRequest<Body>>,
}

/// Which door, and by which HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Rpc,
    RestH1,
    RestH2,
}

impl Caller {
    pub fn new(target: Target) -> Self {
        Self { target, rpc: None, rest: None }
    }

    /// Sends a request; `None` if the connection broke.
    pub async fn send(
        &mut self,
        way: Way,
        request: Request<Body>,
        wait: Duration,
    ) -> Option<Answer> {
        match timeout(wait, self.answer(way, request)).await {
            Ok(Some(answer)) => Some(collected(answer, wait).await),
            Ok(None) => None,
            Err(_) => Some(Answer {
                status: StatusCode::REQUEST_TIMEOUT,
                headers: HeaderMap::new(),
                body: Vec::new(),
                trailers: HeaderMap::new(),
                is_whole: false,
            }),
        }
    }

    async fn answer(&mut self, way: Way, request: Request<Body>) -> Option<Response<Incoming>> {
        let (kept, address) = match way {
            Way::Rpc => (&mut self.rpc, &self.target.rpc),
            Way::RestH2 => (&mut self.rest, &self.target.rest),
            Way::RestH1 => {
                let stream = self.target.raw(&self.target.rest, false).await?;
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
                tokio::task::spawn(connection);
                return sender.send_request(request).await.ok();
            }
        };
        if kept.as_ref().is_none_or(http2::SendRequest::is_closed) {
            *kept = self.target.clone().h2(address).await;
        }
        let sender = kept.as_mut()?;
        let answer = match sender.ready().await {
            Ok(()) => sender.send_request(request).await.ok(),
            Err(_) => None,
        };
        if answer.is_none() {
            *kept = None;
        }
        answer
    }
}

async fn collected(answer: Response<Incoming>, wait: Duration) -> Answer {
    let (parts, mut body) = answer.into_parts();
    let mut answer = Answer {
        status: parts.status,
        headers: parts.headers,
        body: Vec::new(),
        trailers: HeaderMap::new(),
        is_whole: false,
    };
    let deadline = tokio::time::Instant::now() + wait;
    while answer.body.len() < READ_MAX {
        match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_) => break,
            Ok(None) => {
                answer.is_whole = true;
                break;
            }
            Ok(Some(Err(_))) => break,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => answer.body.extend_from_slice(&data),
                Err(frame) => answer.trailers = frame.into_trailers().unwrap_or_default(),
            },
        }
    }
    answer
}
