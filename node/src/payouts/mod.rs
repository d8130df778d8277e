//! Payouts: many payments from one file, checked as a whole, quoted, accepted, and each made once.
//!
//! - `machine.rs`: the life of a payout, purely; read it first. `schedule.rs`: when one that is
//!   repeated has its runs, which are payouts of their own.
//! - `line.rs`, `check.rs`: lines read, and judged. `quote.rs`: what they will cost.
//! - `record.rs`: what the store has. A line names its payment in the batch of the payment's
//!   first record, so that no crash pays it twice.
//! - `service.rs`, `live.rs`: made, accepted, paused, asked for. `worker.rs`, `chain.rs`,
//!   `runs.rs`: one payout's task; lines over channels, on chain, and runs of a schedule.
//! - `reconcile.rs`: what the lines say against what payments and wallet say.

mod chain;
mod check;
mod error;
mod line;
mod live;
mod machine;
mod policy;
mod quote;
mod reconcile;
mod record;
mod runs;
mod schedule;
mod service;
mod worker;

pub use error::PayoutError;
pub use line::{FileError, LineKind, LineReason, Row, Source};
pub use live::PayoutWatch;
pub use machine::Rejection;
pub use policy::PayoutPolicy;
pub use reconcile::{Balance, Mismatch};
pub use record::{LineRecord, LineState, PayoutRecord, PayoutState, Quote, Runs, Settings, Tally};
pub use schedule::{Period, Recurrence};
pub use service::{Ask, Parts, Payouts};
