//! Admission: a payment whose channels are full waits in line instead of failing.
//!
//! A channel carries a limited number of HTLCs at a time (BOLT 2 `max_accepted_htlcs`, 114 where
//! commitments pay no fee). Sending into a full channel costs a search that finds nothing, and
//! sending again by the clock turns load into a storm of such searches. So payments wait in the
//! order they came, and leave when HTLCs of ours have ended: as many as fit, in one commitment.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use super::machine::Input;
use super::service::Payments;
use crate::lightning::types::PaymentId;
use crate::lightning::{FailureReason, SendError};

/// How many payments at the head are tried before the rest goes on waiting: the head may want a
/// full channel while others do not.
const TRIED_MAX: usize = 4;
/// How often the line is looked at although nothing of ours ended: HTLCs of others end too.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The payments in line.
#[derive(Default)]
pub(super) struct Admission {
    waiting: Mutex<VecDeque<PaymentId>>,
    /// Held by the one who lets payments leave.
    leaving: Mutex<()>,
}

impl Admission {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    fn push(&self, id: PaymentId) {
        self.waiting.lock().push_back(id);
    }
}

impl Payments {
    /// How many payments wait for a full channel.
    pub fn waiting_count(&self) -> usize {
        self.admission.len()
    }

    /// Sends `id` now, or puts it in line.
    pub(super) fn admit(&self, id: PaymentId) {
        if !self.admission.is_empty() || !self.try_send(id) {
            self.admission.push(id);
        }
    }

    /// Lets those leave who fit by now.
    pub(super) fn let_leave(&self) {
        let Some(_alone) = self.admission.leaving.try_lock() else {
            return;
        };
        let mut tried = Vec::new();
        while tried.len() < TRIED_MAX {
            let Some(id) = self.admission.waiting.lock().pop_front() else {
                break;
            };
            if !self.has_time(id) {
                self.feed_own(id, Input::SendFailed { reason: FailureReason::RouteNotFound });
            } else if !self.try_send(id) {
                tried.push(id);
            }
        }
        let mut waiting = self.admission.waiting.lock();
        for id in tried.into_iter().rev() {
            waiting.push_front(id);
        }
    }

    /// Sends `id`; false if it has to wait for a full channel. Any other failure is dealt with.
    fn try_send(&self, id: PaymentId) -> bool {
        let Err(error) = self.send(id) else {
            self.probe.sent(id);
            return true;
        };
        if error == SendError::RouteNotFound && self.has_time(id) {
            if self.amount_of(id).is_some_and(|amount| self.lightning.is_full_for(amount)) {
                return false;
            }
            if self.retries.plan(id) {
                return true;
            }
        }
        tracing::info!(%id, %error, "payment did not start");
        let reason = match error {
            SendError::Expired => FailureReason::Expired,
            SendError::RouteNotFound => FailureReason::RouteNotFound,
            // LDK has it from before the restart: its event will come.
            SendError::Duplicate => return true,
            SendError::InvalidAmount | SendError::Refused(_) => FailureReason::Unexpected,
        };
        self.feed_own(id, Input::SendFailed { reason });
        true
    }
}
