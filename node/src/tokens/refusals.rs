//! Calls that were refused because of their token, told of in the journal at most once a minute.

use std::time::Duration;

use parking_lot::Mutex;

use crate::journal::{DomainEvent, Journal, SecurityEvent};
use crate::store::Batch;

/// Least time between two events.
const APART: Duration = Duration::from_secs(60);

/// How many calls were refused since the last event, and when that was.
#[derive(Default)]
pub(super) struct Refusals(Mutex<(u64, Option<Duration>)>);

impl Refusals {
    /// Counts a call that was refused, and tells `journal` if it is time.
    pub fn count(&self, journal: &Journal, why: &str) {
        let now = journal.now();
        let mut state = self.0.lock();
        let (calls, last) = &mut *state;
        *calls += 1;
        if last.is_some_and(|last| now.saturating_sub(last) < APART) {
            return;
        }
        let event = SecurityEvent::AccessRefused { calls: *calls, why: why.to_owned() };
        *state = (0, Some(now));
        let _nobody_waits = journal.append(&[DomainEvent::Security(event)], Batch::default());
    }
}
