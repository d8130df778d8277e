//! Channels: from the request to open one to the last satoshi home.
//!
//! LDK owns the state machine of a channel; what is ours is the record around it: who asked,
//! with which key, funded by what, ended why. `record.rs` is that record, `service.rs` keeps it
//! in step with LDK's events and the wallet, `batch.rs` does so for channels that a batch funds.

mod batch;
mod record;
mod request;
mod service;
mod view;

pub use record::{ChannelRecord, ChannelState};
pub use request::{CAPACITY_SAT_MAX, CAPACITY_SAT_MIN, CloseError, OpenError, OpenRequest};
pub use service::{ChannelParts, Channels};
pub use view::{ChannelPage, ChannelView, ChannelWatch};
