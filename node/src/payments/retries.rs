//! Second attempts: a channel that was full a moment ago may have room now.
//!
//! LDK gives up a payment once its only path has failed, also where the failure passes. Until
//! the payment's own time is over it is sent again, a few times, each after twice the wait. An
//! attempt that failed is no outcome: the payment stays in flight, and a restart finds it so.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::LOOK;
use super::machine::Effect;
use super::service::Payments;
use crate::lightning::types::PaymentId;
use crate::runtime::Tasks;

/// The wait before the second attempt; doubles from one to the next
const WAIT: Duration = Duration::from_millis(25);
/// up to this.
const WAIT_MAX: Duration = Duration::from_millis(1_600);
/// Attempts beside the first: the last begins about 6.4 s after the first failed, time enough for
/// a busy hub to end what fills its channels.
const ATTEMPTS_MAX: u32 = 9;

fn wait_before(attempt: u32) -> Duration {
    WAIT.saturating_mul(2_u32.saturating_pow(attempt)).min(WAIT_MAX)
}

/// Payments that wait for their next attempt.
#[derive(Default)]
pub(super) struct Retries {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    attempts: HashMap<PaymentId, u32>,
    due: BTreeSet<(Instant, PaymentId)>,
}

impl Retries {
    /// Plans another attempt of `id`; false if there were enough.
    pub(super) fn plan(&self, id: PaymentId) -> bool {
        let mut state = self.state.lock();
        let attempts = state.attempts.entry(id).or_default();
        if *attempts == ATTEMPTS_MAX {
            state.attempts.remove(&id);
            return false;
        }
        let due = Instant::now() + wait_before(*attempts);
        *attempts += 1;
        state.due.insert((due, id));
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Forgets the attempts of a payment that has its outcome.
    pub(super) fn forget(&self, id: PaymentId) {
        self.state.lock().attempts.remove(&id);
    }

    fn next(&self) -> Option<(Instant, PaymentId)> {
        self.state.lock().due.first().copied()
    }
}

impl Payments {
    /// Makes the planned attempts when they are due, and looks after those in line, until the
    /// node stops.
    pub async fn make_attempts(self: Arc<Self>, tasks: Tasks) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.retries.next();
            let due = async {
                match next {
                    Some((due, _)) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = tasks.stopped() => break,
                () = self.retries.wake.notified() => {}
                _ = look.tick() => {
                    if !self.admission.is_empty() {
                        self.let_leave();
                    }
                }
                () = due => {
                    if let Some(due) = next {
                        self.retries.state.lock().due.remove(&due);
                        self.probe.counts().retries.increment();
                        self.run(Effect::Send(due.1));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_limit_and_end() {
        let retries = Retries::default();
        let id = PaymentId([1; 32]);
        let began = Instant::now();
        for attempt in 0..ATTEMPTS_MAX {
            assert!(retries.plan(id));
            let (due, _) = retries.next().unwrap();
            assert_eq!(due - began, (WAIT * 2_u32.pow(attempt)).min(WAIT_MAX));
            retries.state.lock().due.clear();
        }
        assert!(!retries.plan(id));
        assert!(retries.plan(id), "a later payment begins anew");
    }
}
