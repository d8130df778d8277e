//! How payments ended, from the thread that takes events to those that wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failure;

/// What has been heard so far.
#[derive(Default)]
pub(crate) struct Outcomes {
    heard: Mutex<Heard>,
    news: Condvar,
}

/// Keys are payment ids and hashes, hex.
#[derive(Default)]
struct Heard {
    ended: HashMap<String, Value>,
    held: HashMap<String, u64>,
    withdrawn: HashSet<String>,
}

impl Outcomes {
    /// A payment has ended.
    pub(crate) fn ended(&self, id: String, outcome: Value) {
        self.lock().ended.insert(id, outcome);
        self.news.notify_all();
    }

    /// Waits for the end of a payment.
    ///
    /// # Errors
    ///
    /// If it does not come in time.
    pub(crate) fn wait(&self, id: &str, patience: Duration) -> Result<Value, Failure> {
        let deadline = Instant::now() + patience;
        let mut heard = self.lock();
        loop {
            if let Some(outcome) = heard.ended.remove(id) {
                return Ok(outcome);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("payment {id} has no end yet").into());
            }
            let woken = self.news.wait_timeout(heard, left);
            heard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A payment of `amount_msat` to a hold invoice is there. Returns whether the invoice had been
    /// withdrawn.
    pub(crate) fn held(&self, hash: String, amount_msat: u64) -> bool {
        let mut heard = self.lock();
        if heard.withdrawn.contains(&hash) {
            return true;
        }
        heard.held.insert(hash, amount_msat);
        false
    }

    /// What is held for a hash.
    pub(crate) fn held_msat(&self, hash: &str) -> Option<u64> {
        self.lock().held.get(hash).copied()
    }

    /// What is held for `hash` goes back, and so does what comes later. Returns whether anything is
    /// held now.
    pub(crate) fn withdraw(&self, hash: &str) -> bool {
        let mut heard = self.lock();
        heard.withdrawn.insert(hash.to_owned());
        heard.held.remove(hash).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
