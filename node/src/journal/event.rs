//! The domain events. Names and fields are part of the store's format: add, never rename.

use std::fmt;

use bitcoin::{OutPoint, Txid};
use channel_contracts::batch::{BatchId, HubPhase, RegistrationId, SwapId, UserPhase};
use serde::{Deserialize, Serialize};

use super::notice::{ChainEvent, SecurityEvent, TowerEvent, WalletEvent};
use super::payout::PayoutEvent;
use crate::lightning::types::{ChannelId, ChannelRef, NodeId, PaymentHash, PaymentId, Preimage};
use crate::lightning::{CloseKind, FailureReason};

/// Something that happened and matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainEvent {
    /// To a payment, either way.
    Payment(PaymentEvent),
    /// To an invoice of ours.
    Invoice(InvoiceEvent),
    /// To a channel.
    Channel(ChannelEvent),
    /// To a channel of a batch, or to a batch of this hub.
    Batch(BatchEvent),
    /// To a withdrawal or a deposit.
    Swap(SwapEvent),
    /// To the node itself.
    Node(NodeEvent),
    /// To a webhook endpoint.
    Webhook(WebhookEvent),
    /// To a payout.
    Payout(PayoutEvent),
    /// To a transaction of the wallet.
    Wallet(WalletEvent),
    /// To the chain.
    Chain(ChainEvent),
    /// Between this node and a tower.
    Tower(TowerEvent),
    /// To what keeps it safe.
    Security(SecurityEvent),
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum EventKind {
    Payment,
    Invoice,
    Channel,
    Wallet,
    Chain,
    Tower,
    Node,
    Batch,
    Swap,
    Webhook,
    Payout,
    Security,
}

impl DomainEvent {
    /// What it is about.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Payment(_) => EventKind::Payment,
            Self::Invoice(_) => EventKind::Invoice,
            Self::Channel(_) => EventKind::Channel,
            Self::Batch(_) => EventKind::Batch,
            Self::Swap(_) => EventKind::Swap,
            Self::Node(_) => EventKind::Node,
            Self::Webhook(_) => EventKind::Webhook,
            Self::Payout(_) => EventKind::Payout,
            Self::Wallet(_) => EventKind::Wallet,
            Self::Chain(_) => EventKind::Chain,
            Self::Tower(_) => EventKind::Tower,
            Self::Security(_) => EventKind::Security,
        }
    }
}

/// The name of a webhook endpoint: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId(pub [u8; 16]);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What happens to a webhook endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEvent {
    /// Its name.
    pub endpoint: EndpointId,
    /// What happened.
    pub what: WebhookTrouble,
}

/// Why an endpoint does not have what it is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookTrouble {
    /// It said that it is gone, and gets nothing more until it is enabled again.
    Disabled,
    /// An event was tried for as long as events are tried, and is a dead letter now. The first
    /// since something was delivered.
    GaveUp {
        /// Place of that event in the log.
        sequence: u64,
    },
    /// Events were gone from the log before they could be delivered.
    Missed {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
}

/// What happens to batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchEvent {
    /// A wish of this user for a channel entered a phase.
    Wish {
        /// Its name.
        registration: RegistrationId,
        /// The hub.
        hub: NodeId,
        /// The phase.
        phase: UserPhase,
    },
    /// A batch of this hub entered a phase.
    Hosted {
        /// Its name.
        batch: BatchId,
        /// The phase.
        phase: HubPhase,
    },
}

/// A withdrawal or a deposit entered a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapEvent {
    /// Its name.
    pub swap: SwapId,
    /// The other side.
    pub peer: NodeId,
    /// Which way the money goes, for the user.
    pub kind: SwapKind,
    /// The state.
    pub state: SwapState,
    /// Value of its output, in satoshis.
    pub amount_sat: u64,
}

/// Which way the money of a swap goes, for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapKind {
    /// From a channel to the chain.
    Withdrawal,
    /// From the chain to a channel.
    Deposit,
}

/// Where a swap stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapState {
    /// The hub was asked.
    Asking,
    /// Withdrawal: the user has not paid yet, or the payment is under way.
    Paying,
    /// The output is in no block yet.
    Funding,
    /// It is in a block; once it is buried, the other half is paid.
    Confirmed,
    /// The other half is being paid: withdrawal, the preimage is revealed; deposit, the hub pays.
    Settling,
    /// Its owner spends the output.
    Spending,
    /// The output is taken back.
    Refunding,
    /// Both halves were paid.
    Done,
    /// The output was taken back; the payment was not made, or went back.
    Refunded,
    /// It came to nothing; nothing was paid.
    Failed,
}

impl SwapState {
    /// Whether nothing can change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Refunded | Self::Failed)
    }
}

/// What a payment of ours was asked to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named after the BOLT's terms")]
pub enum PaymentRequestKind {
    /// A BOLT 11 invoice; with `over`, in one hop over that channel.
    Bolt11 {
        invoice: String,
        #[serde(default)]
        over: Option<ChannelRef>,
    },
    /// A BOLT 12 offer.
    Bolt12 { offer: String, payer_note: Option<String> },
    /// Nothing: we choose the preimage.
    Keysend { records: Vec<(u64, Vec<u8>)> },
}

/// What happens to payments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named after the BOLT's terms")]
pub enum PaymentEvent {
    /// We are going to pay.
    Initiated {
        id: PaymentId,
        request: PaymentRequestKind,
        hash: Option<PaymentHash>,
        preimage: Option<Preimage>,
        payee: Option<NodeId>,
        amount_msat: u64,
        max_fee_msat: u64,
        max_parts: u8,
        retry_seconds: u64,
        description: Option<String>,
    },
    /// The receiver has it; the preimage proves it.
    Succeeded {
        id: PaymentId,
        preimage: Preimage,
        amount_msat: u64,
        fee_msat: u64,
        #[serde(default)]
        parts: u32,
    },
    /// No part of it can arrive any more.
    Failed { id: PaymentId, reason: FailureReason },
    /// Somebody's payment waits for our word: a hold invoice.
    Held { id: PaymentId, hash: PaymentHash, amount_msat: u64, claim_deadline: Option<u32> },
    /// We are taking a payment: from here it is ours or an on-chain claim makes it so.
    Claiming {
        id: PaymentId,
        hash: PaymentHash,
        preimage: Preimage,
        amount_msat: u64,
        keysend: bool,
    },
    /// The payment is ours.
    Received {
        id: PaymentId,
        hash: PaymentHash,
        amount_msat: u64,
        #[serde(default)]
        parts: u32,
    },
    /// We gave a payment back.
    Returned { id: PaymentId, hash: PaymentHash, amount_msat: u64, why: String },
    /// We forwarded a payment.
    Forwarded { fee_msat: u64, amount_msat: u64, claimed_on_chain: bool },
}

/// What happens to invoices and offers of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named after the BOLT's terms")]
pub enum InvoiceEvent {
    /// It was made.
    Created {
        hash: PaymentHash,
        invoice: String,
        amount_msat: Option<u64>,
        description: String,
        expires_ms: u64,
        hold: bool,
    },
    /// It will not be taken any more.
    Cancelled { hash: PaymentHash },
    /// It is paid, and the payment waits for our word.
    Held { hash: PaymentHash, amount_msat: u64 },
    /// It is paid, and the money is ours.
    Settled { hash: PaymentHash, amount_msat: u64 },
    /// An offer was made.
    OfferCreated { offer: String, amount_msat: Option<u64>, description: Option<String> },
}

/// What happens to channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named after the BOLT's terms")]
pub enum ChannelEvent {
    /// We asked a peer for one.
    OpenRequested {
        channel: ChannelRef,
        peer: NodeId,
        capacity_sat: u64,
        push_msat: u64,
        announced: bool,
        feerate_sat_per_vb: Option<u64>,
        /// Whether a batch is to fund it.
        #[serde(default)]
        batch: bool,
    },
    /// A peer asked us and we agreed.
    InboundAccepted {
        channel: ChannelRef,
        peer: NodeId,
        capacity_sat: u64,
        push_msat: u64,
        announced: bool,
        /// Whether a batch is to fund it.
        #[serde(default)]
        batch: bool,
    },
    /// Its funding output is made; the transaction is broadcast once both commitments exist.
    Funded { channel: ChannelRef, funding: OutPoint },
    /// Both commitments exist.
    Pending { channel: ChannelRef, channel_id: ChannelId, funding: OutPoint },
    /// It can carry payments.
    Ready { channel: ChannelRef, channel_id: ChannelId },
    /// A splice is signed: its transaction will give the channel a new funding output. Of the
    /// capacity that goes, `fee_sat` goes to miners and the rest to our wallet.
    SplicePending { channel: ChannelRef, funding: OutPoint, capacity_sat: u64, fee_sat: u64 },
    /// A splice is locked: the channel has the new funding output. The fee is known if we asked
    /// for the splice.
    Spliced {
        channel: ChannelRef,
        from: OutPoint,
        funding: OutPoint,
        capacity_sat: u64,
        fee_sat: Option<u64>,
    },
    /// We want it closed.
    CloseRequested { channel: ChannelRef, force: bool },
    /// It is over.
    Closed { channel: ChannelRef, kind: CloseKind, reason: String, local_balance_msat: Option<u64> },
    /// What its peer published is a revoked state.
    Breached { channel: ChannelRef, txid: Txid },
    /// Its outputs are on their way to the wallet.
    Sweeping { channel_id: Option<ChannelId>, outputs: u32, value_sat: u64 },
}

impl ChannelEvent {
    /// The channel it is about; `None` for coins that need not be of one.
    pub fn channel(&self) -> Option<ChannelRef> {
        match self {
            Self::OpenRequested { channel, .. }
            | Self::InboundAccepted { channel, .. }
            | Self::Funded { channel, .. }
            | Self::Pending { channel, .. }
            | Self::Ready { channel, .. }
            | Self::SplicePending { channel, .. }
            | Self::Spliced { channel, .. }
            | Self::CloseRequested { channel, .. }
            | Self::Breached { channel, .. }
            | Self::Closed { channel, .. } => Some(*channel),
            Self::Sweeping { .. } => None,
        }
    }
}

/// What happens to the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields say it")]
pub enum NodeEvent {
    /// It is up.
    Started { version: String, height: u32 },
    /// It stops on request.
    Stopping,
    /// The coins for force-closes fell short.
    AnchorReserveShort { missing_sat: u64 },
    /// They are whole again.
    AnchorReserveWhole,
}
