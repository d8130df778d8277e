//! The page of figures: `GET /metrics`, over HTTP.
//!
//! A door of its own, since whoever reads figures knows neither gRPC nor tokens of ours. It is
//! opened where the configuration says; elsewhere than on loopback it should ask for a token.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use futures::StreamExt;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::guests::guests;
use crate::config::{MetricsConfig, SecretError};
use crate::observe::Observer;
use crate::runtime::Tasks;
use crate::runtime::metrics::CONTENT_TYPE as TEXT;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last in all.
const LIFE: Duration = Duration::from_secs(3_600);
/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 16;

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address.
    #[error(
        "cannot serve figures on {address}: {source}; set metrics.listen to a free port, or leave it empty"
    )]
    CannotListen {
        /// It.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The token.
    #[error("metrics.token: {0}")]
    Token(#[from] SecretError),
}

/// Serves the page of `observer` until the stop signal of `tasks`. Returns its address, with its
/// real port; empty if the configuration asks for none.
///
/// # Errors
///
/// See [`MetricsError`].
pub async fn serve(
    config: &MetricsConfig,
    observer: &Arc<Observer>,
    tasks: &Tasks,
) -> Result<String, MetricsError> {
    if config.listen.is_empty() {
        return Ok(String::new());
    }
    let token = config.token.as_ref().map(|reference| reference.resolve()).transpose()?;
    let token = token.map(|token| digest(token.as_bytes()));
    let cannot = |source| MetricsError::CannotListen { address: config.listen.clone(), source };
    let listener = TcpListener::bind(&config.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    if !address.ip().is_loopback() && token.is_none() {
        tracing::warn!(
            %address,
            "figures are served to whoever reaches this address; set metrics.token, or listen on loopback"
        );
    }
    let door = Arc::new(Page { observer: Arc::clone(observer), token });
    let own = tasks.clone();
    tasks.spawn("metrics door", async move {
        let mut guests = pin!(guests(listener, CONNECTIONS_MAX));
        loop {
            let guest = tokio::select! {
                biased;
                () = own.stopped() => return,
                guest = guests.next() => guest,
            };
            let Some(Ok(guest)) = guest else { return };
            let (door, stop) = (Arc::clone(&door), own.clone());
            own.spawn_apart("metrics reader", async move {
                let service = service_fn(move |request| {
                    let door = Arc::clone(&door);
                    async move { Ok::<_, Infallible>(door.answer(&request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(guest), service);
                tokio::select! {
                    biased;
                    () = stop.stopped() => {}
                    _ended = tokio::time::timeout(LIFE, connection) => {}
                }
            });
        }
    });
    Ok(address.to_string())
}

struct Page {
    observer: Arc<Observer>,
    /// The token's digest: of two digests the comparison tells nothing.
    token: Option<[u8; 32]>,
}

impl Page {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "figures are at /metrics\n");
        }
        if request.method() != Method::GET {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        if !self.lets_in(request) {
            let mut answer = plain(StatusCode::UNAUTHORIZED, "bring the token of metrics.token\n");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let mut answer = Response::new(Full::new(Bytes::from(self.observer.page().await)));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        answer
    }

    fn lets_in(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let brought = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let brought = brought.and_then(|value| value.strip_prefix(b"Bearer "));
        brought.is_some_and(|brought| digest(brought).ct_eq(token).into())
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    sha256::Hash::hash(token).to_byte_array()
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer
}
