//! The gRPC door: one file per service, which converts, calls one method, converts back.
//!
//! `server.rs` puts them together. Shared by them: `convert` (ids and keys), `page` (lists and
//! exports), `mutation` (once per key, to the end), `refusals` (every error of a service as a
//! reason), `status` (the reasons), `tls` (the certificate), `connection` and `dev_registry` (how
//! clients find a node). Every call comes by `gate`, which asks `auth` (who calls), `methods` (what is
//! known of the method), `rates` (how often) and `places` (how many). What things
//! look like to a caller is in the `_view` files, what callers ask for payments in
//! `payment_requests`; every message as JSON is `json`. A tower's own doors are `watchtower` and `open_tower`, which anybody may
//! enter while there is room (`guests`); the way to one is `tower_link`. `tonic` and the generated types stay inside
//! this room.

pub mod auth;
mod batch_view;
mod batches;
mod channel_view;
mod channels;
pub mod connection;
mod convert;
pub mod dev_registry;
mod ending;
mod event_view;
mod events;
pub(crate) mod files;
mod gate;
mod guests;
mod hub;
pub mod json;
mod methods;
mod mutation;
mod node;
pub mod open_tower;
mod page;
mod payment_requests;
mod payment_view;
mod payments;
mod payout_view;
mod payouts;
mod places;
mod rates;
mod refusals;
mod server;
pub mod status;
mod swaps;
pub mod tls;
mod tokens;
mod tower;
pub mod tower_link;
mod wallet;
pub mod watchtower;
mod webhook_view;
mod webhooks;

pub use gate::{CallLimits, Gate};
pub use server::{Door, Facts, RpcParts, ServeError, serve};
pub use webhook_view::EventTexts;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
