//! How many parts each payment under way is in.
//!
//! LDK says of a part that it failed, and of a payment that it arrived; that there is a part, only
//! the router hears. What was sent before a restart is not known after it.

use std::collections::HashMap;

use lightning::ln::channelmanager::PaymentId;
use parking_lot::Mutex;

/// Parts of payments that have no outcome yet.
#[derive(Default)]
pub struct PartsInFlight(Mutex<HashMap<PaymentId, u32>>);

impl PartsInFlight {
    /// A route of `parts` paths was given for the payment, or for what is missing of it.
    pub(super) fn routed(&self, payment: PaymentId, parts: usize) {
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        let mut known = self.0.lock();
        let count = known.entry(payment).or_default();
        *count = count.saturating_add(parts);
    }

    /// A part came back.
    pub fn failed(&self, payment: PaymentId) {
        if let Some(count) = self.0.lock().get_mut(&payment) {
            *count = count.saturating_sub(1);
        }
    }

    /// The payment has its outcome. Returns in how many parts it was then, if that is known.
    pub fn end(&self, payment: PaymentId) -> Option<u32> {
        self.0.lock().remove(&payment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_and_was_sent_again_counts_once() {
        let parts = PartsInFlight::default();
        let [paid, other] = [PaymentId([1; 32]), PaymentId([2; 32])];
        parts.routed(paid, 3);
        parts.routed(other, 1);
        parts.failed(paid);
        parts.routed(paid, 2);
        assert_eq!(parts.end(paid), Some(4));
        assert_eq!(parts.end(paid), None);
        parts.failed(paid);
        assert_eq!(parts.end(other), Some(1));
        assert!(parts.0.lock().is_empty());
    }
}
