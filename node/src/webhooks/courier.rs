//! How a delivery travels: one POST over a connection to an address that was judged.
//!
//! Redirects are not followed, answers are read only up to a bound, and everything together has
//! one deadline. What is judged, and why, is in `guard.rs`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::guard::{self, Refused};
use super::roots::{self, RootsError};
use super::target::Target;
use crate::runtime::Tasks;

/// Most bytes of an answer's body that are read; the rest is nobody's business.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long the body of an answer may take.
const BODY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may wait for another delivery.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// What is sent.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The delivery's name.
    pub id: String,
    /// When it is sent, in seconds since 1970.
    pub unix_seconds: u64,
    /// The signatures.
    pub signature: String,
    /// The body.
    pub body: Bytes,
}

/// What the receiver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Nothing is sent there.
    #[error("nothing is sent there: {0}")]
    Refused(#[from] Refused),
    /// The name is nobody's.
    #[error("cannot resolve {host}: {source}")]
    Unresolvable {
        /// It.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the network said.
        source: io::Error,
    },
    /// The connection cannot be encrypted, or to somebody else.
    #[error("no TLS with {host}: {source}")]
    Tls {
        /// Who it should be.
        host: String,
        /// What is wrong.
        source: io::Error,
    },
    /// Nobody's certificate can be judged.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The connection broke, or what came is not HTTP.
    #[error("no answer: {0}")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
}

/// Carries deliveries. One for all endpoints.
pub struct Courier {
    allow_private: bool,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    tasks: Tasks,
    /// Read when the first delivery needs it: a node without webhooks needs no certificates.
    tls: OnceCell<TlsConnector>,
}

/// Connections to one endpoint that wait for another delivery.
#[derive(Default)]
pub struct Connections {
    idle: Mutex<Vec<(Sender, Instant)>>,
}

type Sender = SendRequest<Full<Bytes>>;

impl Courier {
    /// Makes a courier whose deliveries may take `timeout` each.
    pub fn new(
        allow_private: bool,
        ca_file: Option<PathBuf>,
        timeout: Duration,
        tasks: Tasks,
    ) -> Self {
        Self { allow_private, ca_file, timeout, tasks, tls: OnceCell::new() }
    }

    /// Delivers `parcel`.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    pub async fn post(
        &self,
        target: &Target,
        connections: &Connections,
        parcel: &Parcel,
    ) -> Result<Answer, PostError> {
        let exchange = self.exchange(target, connections, parcel);
        let (response, sender) = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(done) => done?,
            Err(_) => return Err(PostError::TimedOut(self.timeout)),
        };
        let answer = Answer::of(&response);
        // It is answered, whatever becomes of the rest.
        let keep = connections.keep(response, sender);
        let _kept_or_closed = tokio::time::timeout(BODY_PATIENCE, keep).await;
        Ok(answer)
    }

    async fn exchange(
        &self,
        target: &Target,
        connections: &Connections,
        parcel: &Parcel,
    ) -> Result<(Response<Incoming>, Sender), PostError> {
        // The receiver may have closed it by now; then a fresh one decides.
        if let Some(mut sender) = connections.take()
            && let Ok(response) = sender.send_request(request(target, parcel)).await
        {
            return Ok((response, sender));
        }
        let mut sender = self.connect(target).await?;
        let response = sender.send_request(request(target, parcel)).await?;
        Ok((response, sender))
    }

    async fn connect(&self, target: &Target) -> Result<Sender, PostError> {
        let addresses = resolve(target).await?;
        guard::judge(&addresses, self.allow_private, target.is_https)?;
        // An address that swallows everything must leave time for the others.
        let patience = self.timeout / (addresses.len() as u32).saturating_add(1);
        let stream = dial(target, &addresses, patience).await?;
        if !target.is_https {
            return self.shake_hands(stream).await;
        }
        let wrong = |source| PostError::Tls { host: target.host.clone(), source };
        let name = ServerName::try_from(target.host.clone())
            .map_err(|error| wrong(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = self.tls().await?;
        self.shake_hands(tls.connect(name, stream).await.map_err(wrong)?).await
    }

    async fn tls(&self) -> Result<&TlsConnector, RootsError> {
        let read = || async {
            let ca_file = self.ca_file.clone();
            // Reading some hundred certificates takes a while: not here.
            let read = tokio::task::spawn_blocking(move || roots::connector(ca_file)).await;
            read.unwrap_or_else(|error| Err(RootsError::Interrupted(error.to_string())))
        };
        self.tls.get_or_try_init(read).await
    }

    async fn shake_hands<T>(&self, stream: T) -> Result<Sender, PostError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let stop = self.tasks.stop_signal();
        // It ends when its sender is dropped.
        self.tasks.spawn("webhook connection", async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ended = connection => {}
            }
        });
        Ok(sender)
    }
}

impl Connections {
    /// A connection that looks alive.
    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        idle.retain(|(sender, since)| sender.is_ready() && since.elapsed() < IDLE_MAX);
        idle.pop().map(|(sender, _)| sender)
    }

    /// Lets go of all of them.
    pub fn clear(&self) {
        self.idle.lock().clear();
    }

    /// Reads what there is to read of an answer, and keeps the connection if it is good for
    /// another.
    async fn keep(&self, response: Response<Incoming>, mut sender: Sender) {
        if read_away(response.into_body()).await && sender.ready().await.is_ok() {
            self.idle.lock().push((sender, Instant::now()));
        }
    }
}

impl Answer {
    /// Whether the receiver has taken it.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn of(response: &Response<Incoming>) -> Self {
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        // The other form, a date, is left to our own waits.
        let seconds = header.and_then(|text| text.trim().parse().ok());
        Self { status: response.status().as_u16(), retry_after: seconds.map(Duration::from_secs) }
    }
}

/// The addresses of a host, as it is known now.
async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, PostError> {
    if let Some(address) = target.literal() {
        return Ok(vec![address]);
    }
    let unresolvable = |source| PostError::Unresolvable { host: target.host.clone(), source };
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(unresolvable)?.collect();
    match addresses.is_empty() {
        true => Err(unresolvable(io::Error::new(io::ErrorKind::NotFound, "it has no address"))),
        false => Ok(addresses),
    }
}

/// Connects to the first address that answers, within `patience` for each.
async fn dial(
    target: &Target,
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<TcpStream, PostError> {
    let mut last = PostError::Unresolvable {
        host: target.host.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "it has no address"),
    };
    for address in addresses {
        let dialled = tokio::time::timeout(patience, TcpStream::connect(address)).await;
        match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                // A delivery is a packet or two; waiting for more helps nobody.
                let _slower_at_worst = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(source) => last = PostError::Unreachable { address: *address, source },
        }
    }
    Err(last)
}

fn request(target: &Target, parcel: &Parcel) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(parcel.body.clone()));
    *request.method_mut() = Method::POST;
    // Both were part of a URL that was read.
    if let Ok(path) = target.path.parse() {
        *request.uri_mut() = path;
    }
    let agent = concat!("tributary/", env!("CARGO_PKG_VERSION"));
    let seconds = parcel.unix_seconds.to_string();
    for (name, value) in [
        (HOST.as_str(), target.authority.as_str()),
        (CONTENT_TYPE.as_str(), "application/json"),
        (USER_AGENT.as_str(), agent),
        ("webhook-id", &parcel.id),
        ("webhook-timestamp", &seconds),
        ("webhook-signature", &parcel.signature),
    ] {
        if let (Ok(name), Ok(value)) = (name.parse::<hyper::header::HeaderName>(), value.parse()) {
            request.headers_mut().insert(name, value);
        }
    }
    request
}

/// Reads a body to its end. Says whether there was one within the bound.
async fn read_away(mut body: Incoming) -> bool {
    let mut left = ANSWER_BYTES_MAX;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A receiver by TLS for `localhost` that takes everything, and the authority that says so.
    async fn receiver(tasks: &Tasks) -> (u16, String) {
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn("receiver", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 4_096];
                let _length = stream.read(&mut head).await.unwrap();
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        });
        (port, issuer.pem())
    }

    fn parcel() -> Parcel {
        Parcel { id: "id".into(), unix_seconds: 1, signature: "v1,x".into(), body: Bytes::new() }
    }

    #[tokio::test]
    async fn a_receiver_is_known_by_an_authority_of_the_operators_own() {
        let tasks = Tasks::new();
        let (port, authority) = receiver(&tasks).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, authority).unwrap();
        let url = format!("https://localhost:{port}/");
        let target = Target::parse(&url, true).unwrap();
        let timeout = Duration::from_secs(10);
        let courier = |ca_file| Courier::new(true, ca_file, timeout, tasks.clone());
        let connections = Connections::default();
        let trusting = courier(Some(path.clone()));
        let answer = trusting.post(&target, &connections, &parcel()).await.unwrap();
        assert_eq!(answer, Answer { status: 204, retry_after: None });
        // Another name at the same address is somebody else.
        let other = Target::parse(&format!("https://127.0.0.1:{port}/"), true).unwrap();
        let error = trusting.post(&other, &Connections::default(), &parcel()).await.unwrap_err();
        assert!(matches!(error, PostError::Tls { .. }), "{error}");
        let stranger = courier(None).post(&target, &Connections::default(), &parcel()).await;
        let error = stranger.unwrap_err();
        assert!(matches!(error, PostError::Tls { .. } | PostError::Roots(_)), "{error}");
        // And the name stands for an address that is not public.
        let careful = Courier::new(false, Some(path), timeout, tasks.clone());
        let error = careful.post(&target, &Connections::default(), &parcel()).await.unwrap_err();
        assert!(matches!(error, PostError::Refused(Refused::Address { .. })), "{error}");
    }
}
