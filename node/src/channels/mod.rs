//! Channels: from the request to open one to the last satoshi home.
//!
//! LDK owns the state machine of a channel; what is ours is the record around it: who asked,
//! with which key, funded by what, ended why. `record.rs` is that record, `service.rs` keeps it
//! in step with LDK's events and the wallet, `renewal.rs` splices channels that grew heavy,
//! `endings.rs` finds the transactions that end channels, `breaches.rs` those that should not have,
//! `batch.rs` keeps channels that a batch
//! funds, and `spending.rs` charges tokens for what is
//! opened.

mod batch;
mod breaches;
mod endings;
mod record;
mod renewal;
mod request;
mod service;
mod spending;
mod view;

pub use endings::Endings;
pub use record::{ChannelRecord, ChannelState, Funded, SpliceRecord};
pub use renewal::RenewalPolicy;
pub use request::{CAPACITY_SAT_MAX, CAPACITY_SAT_MIN, CloseError, OpenError, OpenRequest};
pub use service::{ChannelParts, Channels};
pub use view::{ChannelPage, ChannelView, ChannelWatch};
