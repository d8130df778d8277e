//! Payments: what we send, what we receive, and the one truth about each.
//!
//! `machine.rs` decides, purely; `service.rs` drives it from calls and LDK's events; `record.rs`
//! is what is stored, `request.rs` what callers say. A payment is in flight, then exactly one of succeeded and failed, and only
//! durable records say which.

mod admission;
mod beside;
mod invoices;
mod machine;
mod query;
mod record;
mod request;
mod retries;
mod service;
mod validate;
mod watch;

pub use invoices::{
    CreateInvoice, CreateInvoiceError, CreateOffer, InvoiceFilter, InvoiceRecord, InvoiceState,
    InvoiceView, OfferRecord,
};
pub use machine::{Decision, Effect, Input, Rejection};
pub use query::{PaymentFilter, PaymentPage};
pub use record::{Direction, PaymentKind, PaymentRecord, PaymentState};
pub use request::{HoldError, PayError, PayRequest, PayTarget, PaymentDefaults};
pub use service::{GIVEN_BACK_AT_DEADLINE, GIVEN_BACK_ON_REQUEST, Payments};
pub use watch::PaymentWatch;
