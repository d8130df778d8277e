//! The answer to a gRPC call as JSON: one document, server-sent events, or lines (NDJSON).
//!
//! Source: WHATWG HTML, "Server-sent events".

use std::time::Duration;

use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::Response;
use tonic::{Code, Status};

use super::super::json;
use super::super::status::{Reason, Refusal};
use super::catalog::Endpoint;
use super::fault::{self, Fault};
use super::full;
use super::messages::Messages;

/// How often a stream without news says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How a stream is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Events,
    Lines,
}

impl Form {
    /// As the caller accepts it: events, unless it names lines.
    fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let kinds = accepted.flat_map(|value| value.split(','));
        let mut kinds = kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim());
        match kinds.any(|kind| kind.eq_ignore_ascii_case("application/x-ndjson")) {
            true => Self::Lines,
            false => Self::Events,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        })
    }
}

/// How the caller wants a stream, told before its request is given away.
pub(super) struct Wish(Form);

impl Wish {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(Form::of(headers))
    }
}

/// Turns the answer of a gRPC call into that of the HTTP request.
///
/// # Errors
///
/// The refusal, if nothing has been answered yet.
pub(super) async fn http(
    endpoint: &'static Endpoint,
    wish: Wish,
    answer: Response<Body>,
) -> Result<Response<Body>, Fault> {
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
    {
        return Err(status.into());
    }
    let mut messages = Messages::new(answer.into_body());
    if endpoint.streams {
        return Ok(stream_of(endpoint, wish.0, messages));
    }
    let message = messages.next().await?;
    let message = message.ok_or_else(|| Refusal::new(Reason::Internal, "there is no answer"))?;
    let document = document(endpoint, &message)?;
    // The status comes after the message.
    if messages.next().await?.is_some() {
        return Err(Refusal::new(Reason::Internal, "there are two answers").into());
    }
    let mut answer = Response::new(full(document.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

fn document(endpoint: &Endpoint, message: &[u8]) -> Result<Value, Status> {
    let read = json::from_wire(&endpoint.answer, message);
    read.map_err(|error| Refusal::new(Reason::Internal, error).into())
}

/// A stream as its caller reads it.
struct Told {
    endpoint: &'static Endpoint,
    form: Form,
    messages: Messages,
    over: bool,
}

fn stream_of(endpoint: &'static Endpoint, form: Form, messages: Messages) -> Response<Body> {
    let told = Told { endpoint, form, messages, over: false };
    let pieces = stream::unfold(told, |mut told| async move {
        let piece = told.next().await?;
        Some((Ok::<_, Status>(Frame::data(Bytes::from(piece))), told))
    });
    let mut answer = Response::new(Body::new(StreamBody::new(Box::pin(pieces))));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, form.content_type());
    // Proxies that gather what is small would keep an event until the next.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

impl Told {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let Ok(next) = tokio::time::timeout(HEARTBEAT, self.messages.next()).await else {
            return Some(match self.form {
                Form::Events => ": nothing new\n\n".to_owned(),
                Form::Lines => "\n".to_owned(),
            });
        };
        let next = match next {
            Ok(Some(message)) => document(self.endpoint, &message).map(Some),
            Ok(None) => Ok(None),
            Err(status) => Err(status),
        };
        match (next, self.form) {
            (Ok(Some(document)), Form::Events) => Some(match &document["sequence"] {
                Value::Null => format!("data: {document}\n\n"),
                sequence => format!("id: {sequence}\ndata: {document}\n\n"),
            }),
            (Ok(Some(document)), Form::Lines) => Some(format!("{document}\n")),
            (Ok(None), form) => {
                self.over = true;
                // Without it a browser would call again.
                (form == Form::Events).then(|| "event: end\ndata: {}\n\n".to_owned())
            }
            (Err(status), form) => {
                self.over = true;
                let error = fault::body(&status);
                Some(match form {
                    Form::Events => format!("event: error\ndata: {error}\n\n"),
                    Form::Lines => format!("{error}\n"),
                })
            }
        }
    }
}
