//! What callers ask of channels, and why it may be refused.

use crate::journal::IdempotencyError;
use crate::lightning::types::{ChannelRef, NodeId};
use crate::lightning::{ChannelCommandError, ConnectError, ForwardingFees};
use crate::store::StoreError;
use crate::tokens::SpendingError;

use super::record::ChannelState;

/// Smallest channel we open: below, an exit costs more than it is worth.
pub const CAPACITY_SAT_MIN: u64 = 20_000;
/// Largest channel: all bitcoin there will be.
pub const CAPACITY_SAT_MAX: u64 = 21_000_000 * 100_000_000;
/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// With whom.
    pub peer: NodeId,
    /// Where it lives (`host:port`), unless it is connected or known.
    pub address: Option<String>,
    /// Size, sat.
    pub capacity_sat: u64,
    /// What the counterparty gets of it at once, msat.
    pub push_msat: u64,
    /// Whether to announce it.
    pub announced: bool,
    /// Feerate of the funding transaction; `None` for the estimate.
    pub feerate_sat_per_vb: Option<u64>,
    /// Whether the counterparty may spend its whole balance, and so risk nothing by cheating.
    pub zero_reserve: bool,
    /// What to ask for forwarding; `None` for the node's setting.
    pub fees: Option<ForwardingFees>,
}

/// Why a channel is not opened. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum OpenError {
    #[error(
        "capacity {capacity_sat} sat is out of range, {CAPACITY_SAT_MIN} to {CAPACITY_SAT_MAX} sat"
    )]
    CapacityOutOfRange { capacity_sat: u64 },
    #[error("push of {push_msat} msat is more than the capacity, {capacity_sat} sat")]
    PushExceedsCapacity { push_msat: u64, capacity_sat: u64 },
    #[error("feerate {sat_per_vb} sat/vB is out of range, 1 to 10000")]
    FeerateOutOfRange { sat_per_vb: u64 },
    #[error(
        "capacity {capacity_sat} sat and about {fee_sat} sat of fee are above the spendable wallet balance, {spendable_sat} sat ({reserved_sat} sat are kept to bump force-closes); deposit more or open a smaller channel"
    )]
    InsufficientFunds { capacity_sat: u64, fee_sat: u64, spendable_sat: u64, reserved_sat: u64 },
    #[error("no address is known for node {peer}; give one as host:port")]
    AddressUnknown { peer: NodeId },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("a channel with node {peer} is being opened, {channel}; wait for it or close it")]
    InProgress { peer: NodeId, channel: ChannelRef },
    #[error(transparent)]
    Token(#[from] SpendingError),
    #[error("chain is not synced to its tip; wait, or check the chain endpoint")]
    ChainNotSynced,
    #[error(transparent)]
    Refused(#[from] ChannelCommandError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a channel is not closed, or its policy not changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum CloseError {
    #[error("no channel {0}")]
    Unknown(ChannelRef),
    #[error("channel is {state:?} and cannot do this")]
    WrongState { state: ChannelState },
    #[error(
        "peer {peer} is offline; wait for it, or close by force (our money is then locked for some days)"
    )]
    PeerOffline { peer: NodeId },
    #[error(transparent)]
    Refused(#[from] ChannelCommandError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
