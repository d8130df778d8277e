//! Refusals, and their way to and from `google.rpc.Status`. The reasons are in `reasons.rs`.
//!
//! A service's error becomes a [`Refusal`] in `rpc/`, and a [`Refusal`] becomes a
//! `tonic::Status` with one `google.rpc.ErrorInfo`. Clients read it back with [`explain`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use super::reasons::{GENERAL_METADATA, Reason, Retry, code_name};

/// The domain of every reason.
pub const DOMAIN: &str = "tributary";

/// Metadata key of the sentence that says what to do.
pub const REMEDY: &str = "remedy";

/// Metadata key that says whether money may have moved: `true` or `false`.
pub const MONEY_MAY_HAVE_MOVED: &str = "money_may_have_moved";

/// Longest message or metadata value sent, in bytes: all travel in one HTTP/2 header.
const TEXT_LEN_MAX: usize = 1_000;

/// A call that is refused: the reason, the sentence, the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    message: String,
    metadata: BTreeMap<&'static str, String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// Refuses for `reason`; `message` is a lower-case sentence that names the values.
    pub fn new(reason: Reason, message: impl fmt::Display) -> Self {
        Self {
            reason,
            message: shortened(message.to_string()),
            metadata: BTreeMap::from([(REMEDY, reason.remedy().to_owned())]),
            retry_after: None,
        }
    }

    /// Refuses a field that is missing or malformed, named as in the request.
    pub fn field(field: &'static str, problem: impl fmt::Display) -> Self {
        Self::new(Reason::FieldInvalid, format_args!("{field} {problem}")).with("field", field)
    }

    /// Adds a value to the metadata. `key` is snake_case and ends with the unit of a number.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        #[cfg(test)]
        assert!(self.reason.may_carry(key), "{} is not documented to carry {key}", self.reason);
        self.metadata.insert(key, shortened(value.to_string()));
        self
    }

    /// Gives a more exact remedy than the reason's own.
    #[must_use]
    pub fn remedy(self, remedy: impl fmt::Display) -> Self {
        self.with(REMEDY, remedy)
    }

    /// Says whether money may have moved. Every refusal of a call that moves money must.
    #[must_use]
    pub fn money_may_have_moved(self, may: bool) -> Self {
        self.with(MONEY_MAY_HAVE_MOVED, may)
    }

    /// Says after which time the call may be repeated.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self.with("retry_after_ms", after.as_millis())
    }

    /// Returns the reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let metadata: std::collections::HashMap<String, String> =
            refusal.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(refusal.reason.as_str(), DOMAIN, metadata);
        if let Some(after) = refusal.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(refusal.reason.code(), refusal.message, details)
    }
}

/// What a client can tell its user about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The gRPC code.
    pub code: Code,
    /// The reason, if the node gave one; it may be newer than this program.
    pub reason: Option<String>,
    /// The sentence.
    pub message: String,
    /// What to do, if the node said so.
    pub remedy: Option<String>,
    /// Whether money may have moved, if the node said so.
    pub money_may_have_moved: Option<bool>,
    /// Everything else, by key.
    pub metadata: BTreeMap<String, String>,
}

/// Reads what a node said with an error.
pub fn explain(status: &Status) -> Explanation {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let (reason, mut metadata) = match info {
        Some(info) => (Some(info.reason), info.metadata.into_iter().collect()),
        None => (None, BTreeMap::new()),
    };
    Explanation {
        code: status.code(),
        reason,
        message: status.message().to_owned(),
        remedy: metadata.remove(REMEDY),
        money_may_have_moved: metadata
            .remove(MONEY_MAY_HAVE_MOVED)
            .and_then(|text| text.parse().ok()),
        metadata,
    }
}

/// Cuts `text` at a character boundary so that the header stays small.
fn shortened(mut text: String) -> String {
    if text.len() > TEXT_LEN_MAX {
        let mut end = TEXT_LEN_MAX - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_wire() {
        let refusal = Refusal::new(Reason::FundsInsufficient, "need 7 sat, have 5 sat")
            .with("needed_sat", 7)
            .with("available_sat", 5)
            .money_may_have_moved(false);
        let status = Status::from(refusal);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let sent = status.into_http::<()>();
        let received = Status::from_header_map(sent.headers()).expect("a status was sent");
        let explanation = explain(&received);
        assert_eq!(explanation.reason.as_deref(), Some("FUNDS_INSUFFICIENT"));
        assert_eq!(explanation.message, "need 7 sat, have 5 sat");
        assert_eq!(explanation.remedy.as_deref(), Some(Reason::FundsInsufficient.remedy()));
        assert_eq!(explanation.money_may_have_moved, Some(false));
        assert_eq!(explanation.metadata["needed_sat"], "7");
        assert_eq!(explanation.metadata["available_sat"], "5");
    }

    #[test]
    fn a_foreign_error_is_explained_without_a_reason() {
        let explanation = explain(&Status::unavailable("tcp connect error"));
        assert_eq!(explanation.reason, None);
        assert_eq!(explanation.money_may_have_moved, None);
        assert_eq!(explanation.message, "tcp connect error");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let refusal = Refusal::new(Reason::Internal, "ü".repeat(5_000));
        assert!(refusal.message.len() <= TEXT_LEN_MAX);
        assert!(refusal.message.ends_with("ü…"));
    }
}
