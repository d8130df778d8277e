//! The gRPC door: one file per service, which converts, calls one method, converts back.
//!
//! `server.rs` puts them together. Shared by them: `convert` (ids and keys), `page` (lists and
//! exports), `mutation` (once per key, to the end), `refusals` (every error of a service as a
//! reason), `reasons` (the registry of them), `status` (their way over the wire), `tls` (the
//! certificate), `connection` and `dev_registry` (how clients find a node). Every call comes by
//! `gate`, which asks `auth` (who calls), `methods` (what is known of the method), `rates` (how
//! often) and `places` (how many); what is refused before a handler sees it gets its reason in
//! `unreached`. Both doors take connections by `arrivals`, which bounds them, and gives up who never
//! begins or takes nothing (`stall`). What things look like to a caller is in the `_view` files, what callers ask for
//! payments in `payment_requests` and `requests`; every message as JSON is `json`. `rest` is the
//! door for those without gRPC. A tower's own doors are `watchtower` and `open_tower`, which
//! anybody may enter while there is room (`guests`); the way to one is `tower_link`. `metrics` is
//! read by Prometheus. `tonic` and the generated types stay inside
//! this room.

mod arrivals;
pub mod auth;
mod batch_view;
mod batches;
pub mod calls;
mod channel_view;
mod channels;
pub mod connection;
mod convert;
pub mod dev_registry;
pub mod doctor;
mod ending;
mod event_view;
mod events;
pub(crate) mod files;
mod gate;
mod guests;
mod hub;
pub mod json;
mod methods;
pub mod metrics;
mod mutation;
mod node;
mod notice_view;
pub mod open_tower;
mod page;
mod payment_requests;
mod payment_view;
mod payments;
mod payout_view;
mod payouts;
mod places;
mod rates;
mod reasons;
mod refusals;
mod request_refusals;
mod requests;
pub mod rest;
mod server;
mod stall;
pub mod status;
mod swaps;
pub mod tls;
mod tokens;
mod tower;
pub mod tower_link;
mod unreached;
mod wallet;
pub mod watchtower;
mod webhook_view;
mod webhooks;

pub use gate::{CallLimits, Gate};
pub use mutation::UnderWay;
pub use server::{Door, Facts, RpcParts, ServeError, serve};
pub use webhook_view::EventTexts;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
