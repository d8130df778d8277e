//! What goes over the wire: the body of a delivery, and its name.
//!
//! What an event looks like to a caller is not decided here: an [`EventWriter`] writes it, the same
//! one for everybody who is told of events.

use serde::Serialize;
use serde_json::Value;

use crate::environment::date;
use crate::journal::{EndpointId, Entry};
use crate::store::StoreError;

/// An event as callers of the API see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Its type: words with dots between them, such as `payment.succeeded`.
    pub name: String,
    /// The event itself.
    pub event: Value,
}

/// Writes events as callers of the API see them.
pub trait EventWriter: Send + Sync + 'static {
    /// Writes an event; `None` for one that callers are not told of.
    ///
    /// # Errors
    ///
    /// See [`WriteError`].
    fn write(&self, entry: &Entry) -> Result<Option<Written>, WriteError>;
}

/// Why an event cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What it is about cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A mistake of this program.
    #[error("event cannot be written: {0}; report this")]
    Format(String),
}

/// The name of a delivery: the same each time an event is sent to an endpoint, so that a receiver
/// can tell that it has it already.
pub fn message_id(endpoint: EndpointId, sequence: u64) -> String {
    format!("evt_{endpoint}_{sequence}")
}

/// The body of a delivery.
pub fn body(written: &Written, at_ms: u64) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(rename = "type")]
        name: &'a str,
        timestamp: String,
        data: &'a Value,
    }
    let body = Body { name: &written.name, timestamp: utc(at_ms), data: &written.event };
    serde_json::to_vec(&body).expect("a JSON value can be written to memory")
}

/// A time by ISO 8601, in UTC, to the millisecond.
fn utc(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000, unix_ms % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_has_type_timestamp_and_data() {
        let event = json!({"sequence": 7, "node": {"kind": "STARTED"}});
        let written = Written { name: "node.started".into(), event };
        let text = String::from_utf8(body(&written, 1_763_727_485_042)).unwrap();
        let head = r#"{"type":"node.started","timestamp":"2025-11-21T12:18:05.042Z","data":{"#;
        assert!(text.starts_with(head), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["data"]["node"]["kind"], "STARTED");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
        // No time is too late to be written.
        assert!(utc(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn a_name_is_one_endpoints_and_one_events_and_has_no_dot() {
        let id = message_id(EndpointId([0xab; 16]), 42);
        assert_eq!(id, format!("evt_{}_42", "ab".repeat(16)));
        assert!(!id.contains('.'), "the dot ends a name in what is signed");
    }
}
