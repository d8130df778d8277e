//! What a run leaves, and what is made of it.

pub mod recorder;
pub mod summary;

pub use recorder::{Outcome, PaymentRecord, Recorder, Sample, Totals};
pub use summary::{Identity, Summary};
