//! Deliveries in figures.

use crate::runtime::metrics::{Counter, Histogram, Probe, Scale};

/// Deliveries since the start, over all endpoints.
#[derive(Debug, Default)]
pub struct DeliveryFigures {
    /// The receiver has it.
    pub delivered: Counter,
    /// A try failed; it is tried again, or a dead letter now.
    pub failed: Counter,
    /// Of these, the last try: it is a dead letter.
    pub given_up: Counter,
    /// It was gone from the log.
    pub missed: Counter,
    /// The receiver wants nothing more: the endpoint is disabled.
    pub gone: Counter,
    /// How long tries took, once somebody asks.
    pub took: Probe<Histogram>,
}

impl DeliveryFigures {
    /// Measures from now on.
    pub fn arm(&self) {
        self.took.arm(Histogram::new(Scale::CALLS));
    }
}
