//! Which web pages may call: those of the configured origins, and no other.
//!
//! Whoever calls needs the token in any case; a page of another origin cannot even ask.
//!
//! Source: WHATWG Fetch, "CORS protocol".

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use tonic::body::Body;
use tonic::codegen::http::{Method, Request, Response, StatusCode};

use super::fault::Fault;

/// What a page may send.
const MAY_SEND: &str = "authorization, content-type, accept, idempotency-key, last-event-id, \
                        x-timeout-ms, grpc-timeout, x-grpc-web, x-user-agent, connect-protocol-version";
/// What a page may read.
const MAY_READ: &str = "grpc-status, grpc-message, grpc-status-details-bin, retry-after, allow";
/// How long a browser remembers, in seconds.
const REMEMBERED: &str = "3600";

/// The origins.
#[derive(Debug, Clone)]
pub(super) struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Takes the configured ones, such as `https://shop.example`.
    pub(super) fn new(origins: &[String]) -> Self {
        Self(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
    }

    /// The origin of a request, if it is one of them.
    pub(super) fn known(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.0.iter().find(|known| *known == origin).cloned()
    }

    /// Answers a browser's question beforehand; `None` if the request is none.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let headers = request.headers();
        if request.method() != Method::OPTIONS
            || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        if self.known(headers).is_none() {
            let problem = "this origin is not among rest.allowed_origins";
            return Some(Fault::http(StatusCode::FORBIDDEN, problem).answer());
        }
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(MAY_SEND));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED));
        Some(answer)
    }

    /// Says to the browser that the page may read the answer.
    pub(super) fn mark(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(MAY_READ));
        }
    }
}
