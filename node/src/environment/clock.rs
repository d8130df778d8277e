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

/// Returns year, month and day of a day counted from 1970-01-01, by the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that a leap day ends its year.
pub fn date(days: u64) -> (u64, u64, u64) {
    let from_era_zero = days + 719_468;
    let era = from_era_zero / 146_097;
    let day_of_era = from_era_zero % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}
