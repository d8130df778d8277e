//! Calls that never reach a handler: what tonic refuses by itself, told with a reason of ours.
//!
//! A refusal of ours always carries details; what has none was made below: a message that cannot
//! be decoded, one that is too long, a method that is not there.

use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};

use super::status::{Reason, Refusal, explain};

/// Gives an answer that refuses without a reason its reason.
pub(super) fn reasoned(method: &str, answer: http::Response<Body>) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(answer.headers()) else {
        return answer;
    };
    if status.code() == Code::Ok || explain(&status).reason.is_some() {
        return answer;
    }
    let text = status.message();
    let refusal = match status.code() {
        Code::Unimplemented if text.is_empty() => unknown(method),
        Code::OutOfRange => Refusal::new(Reason::RequestTooLarge, text),
        _ => Refusal::new(Reason::MessageMalformed, text),
    };
    Status::from(refusal.money_may_have_moved(false)).into_http()
}

/// Refuses a method that is not there.
pub(super) fn unknown(method: &str) -> Refusal {
    let method: String = method.chars().take(100).collect();
    Refusal::new(Reason::MethodUnknown, format_args!("there is no method {method}"))
        .money_may_have_moved(false)
}

/// Answers calls of services that are not there.
pub(super) async fn nowhere(uri: http::Uri) -> http::Response<Body> {
    Status::from(unknown(uri.path().trim_start_matches('/'))).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_reason_gets_one_and_what_has_one_keeps_it() {
        let told = |status: Status| {
            let answer = reasoned("tributary.v1.Payments/Pay", status.into_http());
            let status = Status::from_header_map(answer.headers()).unwrap();
            let said = explain(&status);
            (status.code(), said.reason.unwrap(), said.money_may_have_moved)
        };
        let malformed = "MESSAGE_MALFORMED".to_owned();
        let cases = [
            (Status::internal("cannot decode"), Code::InvalidArgument, malformed.clone()),
            (Status::unimplemented("compressed"), Code::InvalidArgument, malformed),
            (Status::unimplemented(""), Code::Unimplemented, "METHOD_UNKNOWN".to_owned()),
            (Status::out_of_range("long"), Code::OutOfRange, "REQUEST_TOO_LARGE".to_owned()),
        ];
        for (status, code, reason) in cases {
            assert_eq!(told(status), (code, reason, Some(false)));
        }
        let ours = Refusal::new(Reason::Internal, "it is so").money_may_have_moved(true);
        let kept = told(ours.into());
        assert_eq!(kept, (Code::Internal, "INTERNAL".to_owned(), Some(true)));
        let fine = reasoned("a/B", http::Response::new(Body::empty()));
        assert!(!fine.headers().contains_key("grpc-status"));
    }
}
