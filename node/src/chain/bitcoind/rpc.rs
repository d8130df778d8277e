//! One endpoint of bitcoind: JSON-RPC over HTTP with kept connections, limits and time-outs.
//!
//! Which endpoint is asked, and what an answer means, is decided in `failover`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The longest answer taken: a full block in hex has 8 MB, a full mempool's ids 20 MB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// bitcoind drops idle connections after 30 seconds; we do so earlier.
const POOL_IDLE: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// bitcoind is still loading.
const RPC_IN_WARMUP: i64 = -28;

/// How an endpoint knows us.
#[derive(Clone)]
pub enum RpcAuth {
    /// The cookie file that bitcoind writes at each start.
    Cookie(PathBuf),
    /// `rpcauth` or `rpcuser` and `rpcpassword`.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
}

impl std::fmt::Debug for RpcAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::UserPassword { user, .. } => f
                .debug_struct("UserPassword")
                .field("user", user)
                .field("password", &"[redacted]")
                .finish(),
        }
    }
}

/// What bitcoind itself says went wrong.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RpcError {
    pub code: i64,
    pub message: String,
}

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// No connection, no answer in time, or not ready.
    Unavailable(String),
    Unauthorized,
    /// An answer that is not JSON-RPC, or too long.
    Garbled(String),
}

/// A connection pool to one bitcoind.
pub(crate) struct Endpoint {
    /// As configured; carries no credentials.
    pub url: String,
    uri: Uri,
    auth: RpcAuth,
    header: Mutex<Option<HeaderValue>>,
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    next_id: AtomicU64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<RpcError>,
}

impl Endpoint {
    /// Prepares an endpoint; connects only when asked.
    ///
    /// # Errors
    ///
    /// A sentence, if `url` is not `http://host:port`.
    pub(crate) fn new(url: &str, auth: RpcAuth, timeout: Duration) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{url}: {e}; give http://host:port"))?;
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        if uri.scheme_str() != Some("http") || authority.contains('@') {
            return Err(format!(
                "{url} is not of the form http://host:port; give credentials apart and use a tunnel for TLS"
            ));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(8)
            .build(connector);
        Ok(Self {
            url: url.to_owned(),
            uri,
            auth,
            header: Mutex::new(None),
            client,
            timeout,
            next_id: AtomicU64::new(0),
        })
    }

    /// Calls a method; the inner `Err` is bitcoind's own refusal.
    pub(crate) async fn call(
        &self,
        method: &str,
        params: &Value,
    ) -> Result<Result<Value, RpcError>, CallError> {
        let mut response = self.send(method, params, false).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // bitcoind was restarted and wrote a new cookie.
            response = self.send(method, params, true).await?;
        }
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(CallError::Unauthorized);
        }
        let body = self.read(response).await?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(CallError::Unavailable("its work queue is full".to_owned()));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| CallError::Garbled(format!("status {status}, {e}")))?;
        match answer.error {
            Some(error) if error.code == RPC_IN_WARMUP => {
                Err(CallError::Unavailable(error.message))
            }
            Some(error) => Ok(Err(error)),
            None => Ok(Ok(answer.result)),
        }
    }

    async fn send(
        &self,
        method: &str,
        params: &Value,
        fresh_credentials: bool,
    ) -> Result<Response<Incoming>, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "1.0", "id": id, "method": method, "params": params });
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.credentials(fresh_credentials).await?)
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|e| CallError::Unavailable(e.to_string()))?;
        match timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
                let detail = format!("{error}{}", cause.unwrap_or_default());
                Err(CallError::Unavailable(detail))
            }
            Err(_) => Err(CallError::Unavailable(format!(
                "no answer to {method} within {} s",
                self.timeout.as_secs()
            ))),
        }
    }

    /// Reads a body piece by piece; each piece must come in time, and all must fit.
    async fn read(&self, response: Response<Incoming>) -> Result<Vec<u8>, CallError> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        loop {
            let frame = match timeout(self.timeout, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(CallError::Unavailable(error.to_string())),
                Ok(None) => return Ok(bytes),
                Err(_) => {
                    return Err(CallError::Unavailable("the answer stopped midway".to_owned()));
                }
            };
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > MAX_ANSWER_BYTES {
                    return Err(CallError::Garbled("the answer is longer than 64 MiB".to_owned()));
                }
                bytes.extend_from_slice(data);
            }
        }
    }

    async fn credentials(&self, fresh: bool) -> Result<HeaderValue, CallError> {
        if !fresh && let Some(header) = self.header.lock().clone() {
            return Ok(header);
        }
        let pair = match &self.auth {
            RpcAuth::Cookie(path) => {
                let cookie = tokio::fs::read_to_string(path).await.map_err(|e| {
                    CallError::Unavailable(format!("cookie file {}: {e}", path.display()))
                })?;
                Zeroizing::new(cookie.trim().to_owned())
            }
            RpcAuth::UserPassword { user, password } => {
                Zeroizing::new(format!("{user}:{}", password.as_str()))
            }
        };
        let basic = format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes()));
        let mut header = HeaderValue::try_from(basic).map_err(|_| CallError::Unauthorized)?;
        header.set_sensitive(true);
        *self.header.lock() = Some(header.clone());
        Ok(header)
    }
}
