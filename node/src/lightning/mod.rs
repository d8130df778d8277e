//! The LDK room: everything that touches `lightning`, and the only place that does.
//!
//! Services talk to [`Lightning`] in the vocabulary of [`types`] and hear [`LightningEvent`]s.
//! Read `gate.rs` first: it keeps the one rule on which the node's safety rests. `build.rs` is
//! the assembly, `driver.rs` the loop, `persist.rs` what lands in the store.

mod balances;
mod batch_messages;
mod build;
mod chain;
mod channels;
mod closed;
mod coins;
mod connections;
mod driver;
mod events;
mod gate;
mod gossip;
mod htlcs;
mod inputs;
mod justice;
mod logger;
mod messages;
pub mod pathfinding;
mod payments;
mod peers;
mod persist;
mod room;
mod routes;
mod signer;
mod splice;
mod strangers;
mod ticks;
pub mod types;
mod user_config;
mod virtual_channels;
mod withheld;

pub use batch_messages::{BatchArrival, BatchMessages};
pub use build::{Loaded, Materials};
pub use channels::{
    ChannelCommandError, ChannelSnapshot, ClaimKind, Claimable, ForwardingFees, OpenChannel,
    PendingBalance, Spendable,
};
pub use driver::EventHandler;
pub use events::{CloseKind, FailureReason, InboundKind, LightningEvent};
pub use htlcs::{HtlcFigures, HtlcProbe, payment_span};
pub use justice::{JusticeLog, Revealed, RevealedState};
pub use payments::{
    DecodeError, Decoded, DecodedKind, InvoiceDescription, InvoiceError, InvoiceRequest,
    RecentPayment, SendError, SendLimits, decode,
};
pub use peers::PeerBook;
pub use persist::LoadError;
pub use room::{ConnectError, Lightning, PeerInfo};
pub use routes::{Hop, PartRoute, RouteEstimate, RouteQuery, RouteTarget};
pub use splice::{MonitorWeight, PendingSplice, SpliceOut};
pub use strangers::LDK_STRANGERS_MAX;
pub use user_config::ChannelPolicy;
pub use virtual_channels::UnfundedChannel;
pub use withheld::WithheldKind;
