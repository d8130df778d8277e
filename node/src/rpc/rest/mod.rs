//! The other door: REST with JSON, server-sent events and grpc-web, for whoever has no gRPC.
//!
//! Nothing is written twice here. A request is translated into the gRPC call it stands for and
//! goes by the same gate to the same handler; its answer is translated back. Which calls there
//! are, the descriptors say.
//!
//! - `POST /v1/{service}/{method}` with the request as JSON, as in `POST /v1/Payments/Pay`; what
//!   only looks may be a `GET` with a query. Every document is that of `rpc/json`.
//! - `GET /v1/openapi.json` describes all of them; it needs no token.
//! - grpc-web, and gRPC itself, by their content types.
//!
//! `catalog` knows the paths, `query` and `call` make the call, `messages` and `answer` its
//! answer, `fault` the errors. `cors` knows the web pages that may call. Here is the door itself:
//! connections, and which way a request goes.

mod answer;
mod call;
mod catalog;
mod cors;
mod fault;
mod messages;
mod query;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Method, Request, Response, StatusCode, Version};
use tonic::service::{LayerExt, Layered, Routes};
use tonic::transport::server::Connected;
use tonic_web::{GrpcWebLayer, GrpcWebService};

use self::answer::Wish;
use self::call::BodyRoom;
use self::catalog::endpoint;
use self::cors::Origins;
use self::fault::Fault;
use super::arrivals::{Arrival, HEAD_TIMEOUT, arrivals};
use super::status::{Reason, Refusal};
use super::tls::{TlsError, TlsIdentity};
use crate::config::RestConfig;
use crate::runtime::Tasks;

/// The description of this door.
const OPENAPI: &str = proto::OPENAPI;
/// Where it is.
const OPENAPI_PATH: &str = "/v1/openapi.json";

/// The content types of grpc-web.
const WEB_KINDS: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

/// How long requests under way have once the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How often an idle connection of HTTP/2 is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Requests under way on one connection of HTTP/2.
const STREAMS_MAX: u32 = 128;
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 32 * 1_024;
/// Longest bodies that are read at once.
const BODIES_MAX: usize = 64;

/// Serves `routes` on `listener` until the stop signal of `tasks`.
///
/// # Errors
///
/// If TLS cannot be set up; nothing is served then.
pub async fn serve(
    routes: Routes,
    listener: TcpListener,
    tls: &TlsIdentity,
    config: &RestConfig,
    tasks: &Tasks,
) -> Result<(), TlsError> {
    let acceptor = TlsAcceptor::from(tls.rustls_config(&[b"h2", b"http/1.1"])?);
    let body_max = config.request_max_kib.saturating_mul(1_024);
    let door = Arc::new(Door {
        web: GrpcWebLayer::new().named_layer(routes.clone()),
        routes,
        origins: Origins::new(&config.allowed_origins),
        room: BodyRoom::new(body_max, BODIES_MAX),
    });
    let mut arriving = arrivals("rest door", listener, acceptor, config.connections_max, tasks);
    let runner = tasks.clone();
    tasks.spawn("rest", async move {
        while let Some(arrival) = arriving.recv().await {
            let (door, stop) = (Arc::clone(&door), runner.clone());
            runner.spawn_apart("rest connection", async move {
                connection(&door, arrival, &stop).await;
            });
        }
    });
    Ok(())
}

/// Serves one connection.
async fn connection(door: &Arc<Door>, arrival: Arrival, stop: &Tasks) {
    let (is_h2, info) = (arrival.is_h2(), arrival.connect_info());
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        let door = Arc::clone(door);
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX * 2)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_MAX as u32)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(HEAD_TIMEOUT);
    // What TLS has agreed on need not be guessed from the first bytes.
    let builder = if is_h2 { builder.http2_only() } else { builder.http1_only() };
    let serving = builder.serve_connection(TokioIo::new(arrival), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        biased;
        () = stop.stopped() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(STOP_TIMEOUT, serving).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a client was cut off: the node stops"),
            }
        }
        ended = serving.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// What all connections share.
struct Door {
    routes: Routes,
    web: Layered<GrpcWebService<Routes>, Routes>,
    origins: Origins,
    room: BodyRoom,
}

impl Door {
    /// Answers one request.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let origin = self.origins.known(request.headers());
        let mut answer = match self.origins.preflight(&request) {
            Some(answer) => answer,
            None => self.route(request).await,
        };
        let headers = answer.headers_mut();
        self.origins.mark(origin, headers);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    /// Brings a request to whom it is for.
    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default();
        if kind.starts_with("application/grpc") {
            let is_post = request.method() == Method::POST;
            let is_h2 = request.version() == Version::HTTP_2;
            if is_post && WEB_KINDS.contains(&kind) {
                let Ok(answer) = self.web.clone().call(request.map(Body::new)).await;
                return answer;
            }
            if is_post && is_h2 && !kind.starts_with("application/grpc-web") {
                let Ok(answer) = self.routes.clone().call(request.map(Body::new)).await;
                return answer;
            }
            let problem = "gRPC needs POST and HTTP/2, grpc-web needs POST";
            return Fault::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem).answer();
        }
        if request.uri().path() == OPENAPI_PATH && request.method() == Method::GET {
            let mut answer = Response::new(full(OPENAPI));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(CONTENT_TYPE, json);
            return answer;
        }
        self.translated(request).await.unwrap_or_else(|fault| fault.answer())
    }

    /// Calls the method that a request's path names.
    async fn translated(&self, request: Request<Incoming>) -> Result<Response<Body>, Fault> {
        let Some(endpoint) = endpoint(request.uri().path()) else {
            return Err(unknown(request.uri().path()).into());
        };
        let wish = Wish::of(request.headers());
        let call = call::grpc(endpoint, request, &self.room)?;
        let Ok(answer) = self.routes.clone().call(call).await;
        answer::http(endpoint, wish, answer).await
    }
}

/// Refuses a path that no method has.
fn unknown(path: &str) -> Refusal {
    Refusal::new(Reason::MethodUnknown, format_args!("there is no {path}"))
        .remedy("see /v1/openapi.json, which lists every path")
        .money_may_have_moved(false)
}

/// A body that is there as a whole.
fn full(text: impl Into<tonic::codegen::Bytes>) -> Body {
    Body::new(Full::new(text.into()).map_err(|never: Infallible| match never {}))
}
