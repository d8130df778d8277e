//! What callers ask of payments, and why it may be refused.

use std::time::Duration;

use super::machine::Rejection;
use crate::journal::IdempotencyError;
use crate::lightning::DecodeError;
use crate::lightning::types::{ChannelRef, NodeId, PaymentHash, PaymentId};
use crate::store::StoreError;
use crate::tokens::SpendingError;

/// What to pay, as a caller says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayRequest {
    /// To whom.
    pub target: PayTarget,
    /// What the receiver gets, msat; required where the target names no amount.
    pub amount_msat: Option<u64>,
    /// Most it may cost, msat; `None` for the node's setting.
    pub max_fee_msat: Option<u64>,
    /// How long failed parts are retried; `None` for the node's setting.
    pub retry_for: Option<Duration>,
    /// Most parts; `None` for the node's setting.
    pub max_parts: Option<u8>,
    /// Words to the receiver; offers only.
    pub payer_note: Option<String>,
}

impl PayRequest {
    /// Pays `invoice`, of the counterparty of `channel`, in one hop over it: once, without a fee.
    pub fn over(invoice: String, channel: ChannelRef) -> Self {
        Self {
            target: PayTarget::Over { invoice, channel },
            amount_msat: None,
            max_fee_msat: Some(0),
            retry_for: Some(Duration::ZERO),
            max_parts: Some(1),
            payer_note: None,
        }
    }
}

/// Whom to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayTarget {
    /// A BOLT 11 invoice or a BOLT 12 offer.
    Request(String),
    /// A BOLT 11 invoice of the counterparty of a channel, over that channel alone.
    Over {
        /// The invoice; it names the amount.
        invoice: String,
        /// The channel.
        channel: ChannelRef,
    },
    /// A node that asked for nothing.
    Keysend {
        /// It.
        payee: NodeId,
        /// Records for it: type (65536 and above) and value.
        records: Vec<(u64, Vec<u8>)>,
    },
}

/// Why a payment is refused. Nothing has changed and no money has moved, unless the store failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum PayError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the request is for another network; this node is on {ours}")]
    WrongNetwork { ours: bitcoin::Network },
    #[error("invoice expired {seconds} s ago; ask the receiver for a new one")]
    Expired { seconds: u64 },
    #[error("amount must be at least 1 msat")]
    ZeroAmount,
    #[error("the request names no amount; give one")]
    AmountMissing,
    #[error(
        "the request asks for {asked_msat} msat, {given_msat} msat were given; leave the amount out, or give the same"
    )]
    AmountMismatch { asked_msat: u64, given_msat: u64 },
    #[error("amount {amount_msat} msat is more than all bitcoin; check its unit")]
    AmountTooHigh { amount_msat: u64 },
    #[error(
        "amount {amount_msat} msat is above what the channels can send, {spendable_msat} msat; open or refill a channel"
    )]
    InsufficientBalance { amount_msat: u64, spendable_msat: u64 },
    #[error("no usable channel; open one and wait until it is confirmed and its peer is online")]
    NoUsableChannel,
    #[error("the request pays this node itself")]
    PaysItself,
    #[error("payment hash {hash} was paid before, as payment {id}; an invoice is paid once")]
    AlreadyPaid { hash: PaymentHash, id: PaymentId },
    #[error(transparent)]
    Token(#[from] SpendingError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a held payment cannot be settled or cancelled.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The machine's word.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// There is neither an invoice nor a payment with this hash.
    #[error("no invoice or payment with hash {0}")]
    Unknown(PaymentHash),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The node's settings for payments.
#[derive(Debug, Clone, Copy)]
pub struct PaymentDefaults {
    /// Fee limit: part that does not depend on the amount, msat.
    pub max_fee_base_msat: u64,
    /// Fee limit: part that does, millionths.
    pub max_fee_ppm: u64,
    /// How long failed parts are retried.
    pub retry_for: Duration,
    /// Most parts.
    pub max_parts: u8,
    /// Whether spontaneous payments are taken.
    pub accept_keysend: bool,
}

impl Default for PaymentDefaults {
    fn default() -> Self {
        Self {
            max_fee_base_msat: 5_000,
            max_fee_ppm: 10_000,
            retry_for: Duration::from_secs(30),
            max_parts: 10,
            accept_keysend: true,
        }
    }
}
