//! Webhooks: the log of events, told over HTTP to endpoints of the operator's choice.
//!
//! Each endpoint has its own place in the log, its own queue and its own task; nothing waits for
//! any of them. An event is delivered at least once, under a name that stays the same; events of
//! one object arrive in order. Wire format: Standard Webhooks 1.0.0.
//!
//! - `queue/`: what is due, in which order, and when again. Pure; read it first.
//! - `object.rs`: which events belong together. `message.rs`, `signature.rs`: what is sent.
//! - `service.rs`: endpoints made, changed, asked for. `endpoint.rs`, `worker.rs`: one endpoint's
//!   state, and its task.
//! - `courier.rs`: how a delivery travels. `target.rs`, `guard.rs`, `roots.rs`: where it may go.
//! - `record.rs`: what the store has.
//!
//! What an event looks like to a caller is written in `rpc/`, behind [`EventWriter`].

mod courier;
mod endpoint;
mod guard;
mod message;
mod object;
mod policy;
mod queue;
mod record;
mod roots;
mod service;
mod signature;
mod target;
mod worker;

pub use endpoint::{EndpointChange, EndpointView, NewEndpoint};
pub use guard::{AddressClass, Refused};
pub use message::{EventWriter, WriteError, Written};
pub use policy::WebhookPolicy;
pub use queue::RetryPolicy;
pub use record::{DeadLetter, EndpointRecord, EndpointState, Progress};
pub use service::{Parts, Replay, TestOutcome, WebhookError, Webhooks};
pub use signature::SigningSecret;
pub use target::UrlError;
