//! What a run leaves, and what is made of it.

pub mod html;
pub mod plot;
pub mod recorder;
pub mod series;
pub mod summary;
pub mod table;

pub use recorder::{Outcome, PaymentRecord, Recorder, Sample, Totals};
pub use summary::{Identity, Summary};
