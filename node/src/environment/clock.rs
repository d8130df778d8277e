//! Wall-clock time as a seam.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the Unix epoch.
pub type UnixTime = Duration;

/// A source of wall-clock time.
///
/// Only for times that people or protocols see (expiries, records). Waiting is done with
/// tokio's timers.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since the Unix epoch.
    fn now(&self) -> UnixTime;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one door to the wall clock")]
    fn now(&self) -> UnixTime {
        // A clock before 1970 is a broken machine; LDK and invoices treat 0 as "very old".
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
