//! JSON over plain HTTP on loopback: bitcoind's RPC interface and LND's REST interface.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use crate::wait::Failure;

/// Longer than any call may take: a payment ends with its channel, some hundred blocks later.
const PATIENCE: Duration = Duration::from_secs(600);

/// The first line of a stream comes at once, or something is wrong.
const FIRST_PATIENCE: Duration = Duration::from_secs(90);

/// A server that speaks JSON.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
    authorization: Option<String>,
}

impl Http {
    /// A client of `server`, with the value of the authorization header if it wants one.
    pub fn new(server: SocketAddr, authorization: Option<String>) -> Self {
        // Servers that are killed, or tire of idle clients, leave dead connections behind.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { client, server, authorization }
    }

    /// Where the server is.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Calls and returns the whole answer; an answer of several lines as an array.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, refuses, or answers no JSON.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let failed = |error: Failure| -> Failure { format!("{method} {path}: {error}").into() };
        let (status, text) = timeout(PATIENCE, async {
            let response = self.send(method.clone(), path, body).await?;
            let status = response.status();
            let bytes = response.into_body().collect().await?.to_bytes();
            Ok::<_, Failure>((status, String::from_utf8_lossy(&bytes).into_owned()))
        })
        .await
        .map_err(|_| failed("no answer in time".into()))?
        .map_err(failed)?;
        parsed(status, &text).map_err(failed)
    }

    /// Calls a method that answers with a stream, returns its first line and hangs up.
    ///
    /// # Errors
    ///
    /// As [`Http::call`].
    pub async fn first(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let failed = |error: Failure| -> Failure { format!("{method} {path}: {error}").into() };
        let (status, text) = timeout(FIRST_PATIENCE, async {
            let response = self.send(method.clone(), path, None).await?;
            let status = response.status();
            let mut body = response.into_body();
            let mut text = String::new();
            while let Some(frame) = body.frame().await {
                if let Some(data) = frame?.data_ref() {
                    text.push_str(&String::from_utf8_lossy(data));
                }
                if text.contains('\n') {
                    break;
                }
            }
            Ok::<_, Failure>((status, text))
        })
        .await
        .map_err(|_| failed("no answer in time".into()))?
        .map_err(failed)?;
        parsed(status, text.lines().next().unwrap_or_default()).map_err(failed)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.server))
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let bytes = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        Ok(self.client.request(request.body(Full::new(bytes))?).await?)
    }
}

/// What the server said; a refusal in the server's words is an error.
fn parsed(status: StatusCode, text: &str) -> Result<Value, Failure> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>();
    let value = match lines.len() {
        0 => Value::Null,
        1 => serde_json::from_str(lines.remove(0))?,
        _ => serde_json::from_str(text).or_else(|_| {
            lines
                .into_iter()
                .map(serde_json::from_str)
                .collect::<Result<Vec<Value>, _>>()
                .map(Value::Array)
        })?,
    };
    // bitcoind answers a refused call with 500 and says in the body why.
    if !status.is_success() && value["error"].is_null() {
        return Err(format!("{status}: {text}").into());
    }
    Ok(value)
}
