//! A request over HTTP as the gRPC call it stands for.
//!
//! The call goes by the gate like any other, before its body is read: who is refused has sent
//! nothing that is kept. What the body says is read while the handler waits for its message, so
//! that a mistake in it is that call's own refusal.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use serde_json::Value;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Method, Request, StatusCode, Version};

use super::super::json::read::{self, ReadError};
use super::super::status::{Reason, Refusal};
use super::catalog::Endpoint;
use super::fault::Fault;
use super::messages::framed;
use super::query;

/// How long a body may take to come, and to find memory.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// In what the memory for bodies is counted.
const KIB: usize = 1_024;

/// Until when the caller waits, in milliseconds.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-timeout-ms");
/// The key of a mutation, if its body has none.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The last event a subscriber has.
const LAST_HEADER: HeaderName = HeaderName::from_static("last-event-id");

/// Longest value of those headers that is read.
const HEADER_VALUE_MAX: usize = 256;

/// What bounds the bodies of all requests together.
#[derive(Clone)]
pub(super) struct BodyRoom {
    /// Free memory, in KiB.
    room: Arc<Semaphore>,
    /// Longest body, in bytes.
    body_max: usize,
}

impl BodyRoom {
    /// Room for `bodies` of the greatest length at once.
    pub(super) fn new(body_max: usize, bodies: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(body_max.div_ceil(KIB) * bodies)), body_max }
    }
}

/// What headers say beside the body.
struct Headers {
    idempotency_key: Option<String>,
    last_event_id: Option<u64>,
}

/// Makes the gRPC call of a request.
///
/// # Errors
///
/// If HTTP itself is not used as this endpoint wants it.
pub(super) fn grpc(
    endpoint: &'static Endpoint,
    request: Request<Incoming>,
    room: &BodyRoom,
) -> Result<Request<Body>, Fault> {
    let (parts, incoming) = request.into_parts();
    let headers = Headers::read(endpoint, &parts.headers)?;
    let body = match parts.method {
        Method::POST => {
            if parts.uri.query().is_some() {
                let problem = "a POST has its fields in the body, not in the query";
                return Err(Fault::http(StatusCode::BAD_REQUEST, problem));
            }
            json_only(&parts.headers)?;
            if incoming.size_hint().lower() > room.body_max as u64 {
                return Err(too_large(room.body_max).into());
            }
            let room = room.clone();
            Body::new(StreamBody::new(stream::once(Box::pin(async move {
                let message = posted(endpoint, incoming, &room, headers).await?;
                Ok::<_, Status>(Frame::data(message))
            }))))
        }
        Method::GET if !endpoint.mutates => {
            let query = parts.uri.query().unwrap_or_default();
            let document = query::document(&endpoint.request, query)
                .map_err(|problem| Fault::http(StatusCode::BAD_REQUEST, problem))?;
            let message = encoded(endpoint, document, &headers)?;
            Body::new(StreamBody::new(stream::iter([Ok::<_, Status>(Frame::data(message))])))
        }
        _ => {
            let problem = format_args!("{} is not for {}", parts.method, parts.uri.path());
            let fault = Fault::http(StatusCode::METHOD_NOT_ALLOWED, problem);
            return Err(fault.allowing(endpoint.allowed()));
        }
    };
    let mut call = Request::new(body);
    *call.method_mut() = Method::POST;
    *call.version_mut() = Version::HTTP_2;
    *call.uri_mut() = endpoint.grpc_path.parse().map_err(|_| {
        Refusal::new(Reason::Internal, format_args!("{} is no path", endpoint.grpc_path))
    })?;
    translate(&parts, call.headers_mut())?;
    // Who calls from where: the gate asks.
    *call.extensions_mut() = parts.extensions;
    Ok(call)
}

/// Headers of the gRPC call.
fn translate(parts: &Parts, headers: &mut HeaderMap) -> Result<(), Fault> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(token) = parts.headers.get(AUTHORIZATION) {
        headers.insert(AUTHORIZATION, token.clone());
    }
    if let Some(ms) = number(&parts.headers, &TIMEOUT_HEADER)? {
        let value = HeaderValue::try_from(format!("{ms}m"));
        let value = value.ok().filter(|_| (1..=99_999_999).contains(&ms));
        let Some(value) = value else {
            let problem = "x-timeout-ms must be from 1 to 99999999";
            return Err(Fault::http(StatusCode::BAD_REQUEST, problem));
        };
        headers.insert("grpc-timeout", value);
    }
    Ok(())
}

impl Headers {
    fn read(endpoint: &Endpoint, headers: &HeaderMap) -> Result<Self, Fault> {
        let idempotency_key = text(headers, &KEY_HEADER)?.filter(|_| endpoint.mutates);
        let last_event_id = match endpoint.resumes() {
            true => number(headers, &LAST_HEADER)?,
            false => None,
        };
        Ok(Self { idempotency_key: idempotency_key.map(str::to_owned), last_event_id })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let value = value.to_str().ok().filter(|value| value.len() <= HEADER_VALUE_MAX);
    match value.filter(|_| values.next().is_none()) {
        Some(value) => Ok(Some(value)),
        None => {
            let problem = format_args!(
                "the header {name} must come once, with at most {HEADER_VALUE_MAX} printable characters"
            );
            Err(Fault::http(StatusCode::BAD_REQUEST, problem))
        }
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Fault> {
    let Some(text) = text(headers, name)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().ok().filter(|_| digits) {
        Some(number) => Ok(Some(number)),
        None => {
            let problem = format_args!("the header {name} must be a whole number");
            Err(Fault::http(StatusCode::BAD_REQUEST, problem))
        }
    }
}

/// Refuses a body that says it is something else. Browsers may send other types unasked.
fn json_only(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = value.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let problem = "the body must be application/json";
    Err(Fault::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem))
}

fn too_large(body_max: usize) -> Refusal {
    let message = format_args!("the body is longer than {body_max} bytes");
    Refusal::new(Reason::RequestTooLarge, message)
        .with("length_max", body_max)
        .money_may_have_moved(false)
}

/// Reads a body and makes it a message.
async fn posted(
    endpoint: &Endpoint,
    incoming: Incoming,
    room: &BodyRoom,
    headers: Headers,
) -> Result<Bytes, Status> {
    let late = || {
        let message = format_args!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
        Refusal::new(Reason::DeadlinePassed, message).money_may_have_moved(false)
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, collect(incoming, room));
    let (body, held) = read.await.map_err(|_| late())??;
    let document = match body.is_empty() {
        true => Value::Object(serde_json::Map::new()),
        false => read::parse(&body).map_err(Refusal::from)?,
    };
    drop(body);
    let message = encoded(endpoint, document, &headers)?;
    drop(held);
    Ok(message)
}

/// Collects a body, and says how much memory it holds.
async fn collect<'a>(
    mut incoming: Incoming,
    room: &'a BodyRoom,
) -> Result<(Vec<u8>, tokio::sync::SemaphorePermit<'a>), Refusal> {
    let length = incoming.size_hint().upper().unwrap_or(u64::MAX).min(room.body_max as u64);
    let wanted = u32::try_from((length as usize).div_ceil(KIB)).unwrap_or(u32::MAX);
    let held = room.room.acquire_many(wanted).await;
    let held = held.map_err(|_| Refusal::new(Reason::Stopping, "the node is stopping"))?;
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::new(Reason::HttpRequestInvalid, format_args!("the body broke off: {error}"))
                .money_may_have_moved(false)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if body.len() + data.len() > room.body_max {
            return Err(too_large(room.body_max));
        }
        body.extend_from_slice(&data);
    }
    Ok((body, held))
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let refusal = match &error {
            ReadError::Syntax(_) => Refusal::new(Reason::JsonInvalid, &error),
            ReadError::Field { path, .. } => {
                Refusal::new(Reason::FieldInvalid, &error).with("field", path)
            }
        };
        refusal.money_may_have_moved(false)
    }
}

/// Encodes a document, with what headers add to it.
fn encoded(endpoint: &Endpoint, mut document: Value, headers: &Headers) -> Result<Bytes, Refusal> {
    if let (Some(key), Some(map)) = (&headers.idempotency_key, document.as_object_mut()) {
        match map.get("idempotency_key").filter(|given| !given.is_null()) {
            None => {
                map.insert("idempotency_key".to_owned(), key.as_str().into());
            }
            Some(given) if given == key => {}
            Some(_) => {
                let problem = "differs from the header Idempotency-Key; give one of them";
                return Err(Refusal::field("idempotency_key", problem).money_may_have_moved(false));
            }
        }
    }
    // A browser repeats its first URL with the last event it had: that is the newer one.
    if let (Some(last), Some(map)) = (headers.last_event_id, document.as_object_mut()) {
        map.insert("after_sequence".to_owned(), last.into());
    }
    Ok(framed(&read::to_wire(&endpoint.request, &document)?))
}
