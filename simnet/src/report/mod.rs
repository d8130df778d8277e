//! What a run leaves, and what is made of it.

pub mod recorder;

pub use recorder::{Outcome, PaymentRecord, Recorder, Sample, Totals};
