//! An error as JSON, and which HTTP status it has.
//!
//! The document is `google.rpc.Status` as JSON under the key `error`, with what a program asks
//! for first beside it: `status`, `reason`, `remedy`, `money_may_have_moved`, `retry_after_ms`.

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::codegen::http::{Response, StatusCode};
use tonic::{Code, Status};

use super::super::status::{DOMAIN, Reason, Refusal, explain};
use super::full;

/// An error on its way out.
pub(super) struct Fault {
    status: Status,
    http: StatusCode,
    allow: Option<&'static str>,
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let http = http_status(&status);
        Self { status, http, allow: None }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Status::from(refusal).into()
    }
}

impl Fault {
    /// A request that HTTP has a status for.
    pub(super) fn http(http: StatusCode, message: impl std::fmt::Display) -> Self {
        let refusal = Refusal::new(Reason::HttpRequestInvalid, message).money_may_have_moved(false);
        Self { http, ..refusal.into() }
    }

    /// A path that takes other methods.
    pub(super) fn allowing(self, allow: &'static str) -> Self {
        Self { allow: Some(allow), ..self }
    }

    /// The answer to a call that has given none yet.
    pub(super) fn answer(&self) -> Response<Body> {
        let mut answer = Response::new(full(body(&self.status).to_string()));
        *answer.status_mut() = self.http;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.http == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(ms) = retry_after_ms(&self.status) {
            // Whole seconds, and never sooner than said.
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

/// The document.
pub(super) fn body(status: &Status) -> Value {
    let said = explain(status);
    let retry_after_ms = retry_after_ms(status);
    let mut details = Vec::new();
    if let Some(reason) = &said.reason {
        let mut metadata = said.metadata.clone();
        metadata.extend(said.remedy.clone().map(|remedy| ("remedy".to_owned(), remedy)));
        let money = said.money_may_have_moved;
        metadata.extend(money.map(|may| ("money_may_have_moved".to_owned(), may.to_string())));
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": DOMAIN,
            "metadata": metadata,
        }));
    }
    if let Some(ms) = retry_after_ms {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}.{:03}s", ms / 1_000, ms % 1_000),
        }));
    }
    json!({
        "error": {
            "code": i32::from(said.code),
            "status": code_name(said.code),
            "message": said.message,
            "reason": said.reason,
            "remedy": said.remedy,
            "money_may_have_moved": said.money_may_have_moved,
            "retry_after_ms": retry_after_ms,
            "details": details,
        }
    })
}

fn retry_after_ms(status: &Status) -> Option<u64> {
    explain(status).metadata.get("retry_after_ms")?.parse().ok()
}

/// The HTTP status of a code, as `google.rpc.Code` maps them; of a reason, where HTTP has a better.
fn http_status(status: &Status) -> StatusCode {
    let reason = explain(status).reason;
    if reason.as_deref() == Some(Reason::MethodUnknown.as_str()) {
        return StatusCode::NOT_FOUND;
    }
    if reason.as_deref() == Some(Reason::RequestTooLarge.as_str()) {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // 499 is what servers write of clients that went; the client does not read it.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The name of a code in `google.rpc.Code`.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_error_has_status_details_and_what_programs_ask_for() {
        let refusal = Refusal::new(Reason::RateLimited, "the token calls too often")
            .with("method", "tributary.v1.Payments/Pay")
            .retry_after(Duration::from_millis(1_001))
            .money_may_have_moved(false);
        let fault = Fault::from(refusal);
        let answer = fault.answer();
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()[RETRY_AFTER], "2", "never sooner than said");
        let error = &body(&fault.status)["error"];
        assert_eq!(error["code"], 8);
        assert_eq!(error["status"], "RESOURCE_EXHAUSTED");
        assert_eq!(error["reason"], "RATE_LIMITED");
        assert_eq!(error["money_may_have_moved"], false);
        assert_eq!(error["retry_after_ms"], 1_001);
        assert_eq!(error["details"][0]["metadata"]["method"], "tributary.v1.Payments/Pay");
        assert_eq!(error["details"][0]["metadata"]["money_may_have_moved"], "false");
        assert_eq!(error["details"][1]["retryDelay"], "1.001s");
    }

    #[test]
    fn every_reason_has_a_status_of_the_client_or_the_server() {
        for reason in Reason::ALL {
            let answer = Fault::from(Refusal::new(*reason, "it is so")).answer();
            let is_ours = reason.code() == Code::Internal || reason.code() == Code::Unavailable;
            let server = answer.status().is_server_error();
            let deadline = reason.code() == Code::DeadlineExceeded;
            assert_eq!(server, is_ours || deadline, "{reason}");
            assert!(server || answer.status().is_client_error(), "{reason}");
        }
        let missing = Fault::from(Refusal::new(Reason::TokenMissing, "no token")).answer();
        assert_eq!(
            (missing.status(), &missing.headers()[WWW_AUTHENTICATE]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("Bearer"))
        );
        let wrong = Fault::http(StatusCode::METHOD_NOT_ALLOWED, "no").allowing("POST").answer();
        assert_eq!(
            (wrong.status().as_u16(), &wrong.headers()[ALLOW]),
            (405, &HeaderValue::from_static("POST"))
        );
    }
}
