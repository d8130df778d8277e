//! What hub and user say to each other while a batch forms, and when it ends.
//!
//! ```text
//! user                                     hub
//!  │ register ──────────────────────────────► │  accepted / declined
//!  │ ◄────────────────────────────── propose  │
//!  │ nonces (or refuse) ────────────────────► │
//!  │ ◄───────────────────────────────── sign  │  aggregated nonces
//!  │ partial ───────────────────────────────► │
//!  │ ◄─────────────────────────────── signed  │
//!  │ stored ────────────────────────────────► │  dropped, at any step
//!  │ release ───────────────────────────────► │  long after
//! ```
//!
//! Rollover, in the second half of a batch's life, once the user is in a newer one (§6):
//!
//! ```text
//!  │ roll ──────────────────────────────────► │  invoice of leg 2
//!  │ ◄──────────────────── rolling / stay     │  invoice of leg 1, which the hub holds
//! ```
//!
//! A channel that both sides have closed, and one of them does not know it, at `channel_reestablish`
//! (§6, "Retired"): `closed` shows the closing transaction, either way.
//!
//! Withdrawals and deposits (§7):
//!
//! ```text
//!  │ withdraw ──────────────────────────────► │  withdrawing (invoice, held) / refused
//!  │ reveal, once the output is buried ─────► │  hand over, once the payment is claimed
//!  │ deposit ───────────────────────────────► │  depositing / refused
//!  │ deposited (invoice) ───────────────────► │  pays once the output is buried
//!  │ hand over, once the payment is claimed ► │
//! ```
//!
//! All travel on the peers' own Lightning connection as custom messages of odd type, so that a
//! node without batches ignores them. Each names its batch and attempt, and saying it again
//! means nothing new. Encoding lives in [`wire`](super::wire).
//!
//! `register` carries one tree key for each possible attempt, so that a re-shaped tree has fresh
//! keys without another round.
//!
//! Source: BATCHES §3, §6, §7 and §8.1.

use bitcoin::hashes::sha256;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, absolute, relative};

use super::ids::{ATTEMPTS_MAX, Attempt, BatchId, RegistrationId, SwapId};
use crate::musig::{AggregatedNonce, PartialSignature, PublicNonce, SchnorrSignature, TreeSecret};
use crate::script::Preimage;
use crate::tree::{PathError, Proposal, ProposalError};

/// A message of the batch protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// User to hub: asks for a channel in the next batch.
    Register(Box<Register>),
    /// Hub to user: it has a place.
    Accepted(Accepted),
    /// Hub to user: it has none.
    Declined(Declined),
    /// Hub to user: its path, unsigned.
    Propose(Box<Propose>),
    /// User to hub: it does not sign that.
    Refuse(Refuse),
    /// User to hub: one nonce for each level.
    Nonces(Nonces),
    /// Hub to user: the aggregated nonce of each level.
    Sign(Sign),
    /// User to hub: one partial signature for each level.
    Partial(Partial),
    /// Hub to user: the final signature of each level.
    Signed(Signed),
    /// User to hub: the path is on its disk.
    Stored(Stored),
    /// Hub to user: it is left out, or the batch is over.
    Dropped(Dropped),
    /// User to hub: the secret of a retired, empty channel.
    Release(Release),
    /// User to hub: wants to move its balance to its channel in a newer batch.
    Roll(Roll),
    /// Hub to user: is ready to.
    Rolling(Rolling),
    /// Hub to user: is not.
    Stay(Stay),
    /// Either way: the closing transaction of a channel that the other side takes for open.
    Closed(Closed),
    /// User to hub: wants to be paid on chain.
    Withdraw(Withdraw),
    /// Hub to user: what it has to pay for that.
    Withdrawing(Withdrawing),
    /// User to hub: wants to pay on chain and be paid over its channel.
    Deposit(Deposit),
    /// Hub to user: what it gets for that.
    Depositing(Depositing),
    /// User to hub: how to be paid for a deposit.
    Deposited(Deposited),
    /// Hub to user: neither.
    Refused(Refused),
    /// User to hub: the preimage of a withdrawal.
    Reveal(Reveal),
    /// Whoever was paid to the other: the key of a swap.
    HandOver(HandOver),
}

/// Asks for a channel in the next batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Names the wish; the same when it is sent again.
    pub registration: RegistrationId,
    /// Capacity of the channel.
    pub capacity: Amount,
    /// How much of it the user wants to be able to receive at once. At most the capacity.
    pub inbound: Amount,
    /// The user's tree key of each attempt, all different and used for nothing else.
    pub tree_keys: [PublicKey; ATTEMPTS_MAX as usize],
}

/// Says that the hub has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The wish.
    pub registration: RegistrationId,
    /// The batch.
    pub batch: BatchId,
    /// What the hub asks for the place.
    pub fee: Amount,
    /// `E`, which the proposal must keep.
    pub expiry: absolute::Height,
    /// Until the batch closes, in milliseconds.
    pub closes_in_ms: u32,
}

/// Says that the hub has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declined {
    /// The wish.
    pub registration: RegistrationId,
    /// Why.
    pub reason: DeclineReason,
}

/// Offers a path to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propose {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// The root output, whose place is in the path.
    pub root_output: TxOut,
    /// Everything else.
    pub proposal: Proposal,
}

/// Refuses to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// Why.
    pub reason: RefuseReason,
}

/// One nonce of the user for each level of its path, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// 1 to 11 nonces.
    pub nonces: Vec<PublicNonce>,
}

/// The aggregated nonce of each level of the user's path, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// 1 to 11 aggregated nonces.
    pub aggregated: Vec<AggregatedNonce>,
}

/// One partial signature of the user for each level of its path, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// 1 to 11 partial signatures.
    pub partials: Vec<PartialSignature>,
}

/// The final signature of each level of the user's path, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// 1 to 11 signatures.
    pub signatures: Vec<SchnorrSignature>,
}

/// Says that the signed path is verified and durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
}

/// Says that the user is left out, or that the batch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: Attempt,
    /// Why.
    pub reason: DropReason,
}

/// Hands the tree secret of a retired channel over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The batch.
    pub batch: BatchId,
    /// The attempt that went on chain, to whose key the secret belongs.
    pub attempt: Attempt,
    /// The secret.
    pub secret: TreeSecret,
}

/// Asks to move a balance from the channel in one batch to that in a newer one: the user pays
/// the hub over the old channel, the hub the user over the new one, both under one hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// The batch to leave.
    pub batch: BatchId,
    /// The newer batch.
    pub successor: BatchId,
    /// BOLT 11: what the hub is to pay over the new channel. The user knows the preimage.
    pub invoice: String,
}

/// Says that the hub holds what it is paid under the hash until leg 2 has its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolling {
    /// The batch to leave.
    pub batch: BatchId,
    /// BOLT 11, of the same hash and amount: what the user is to pay over the old channel.
    pub invoice: String,
}

/// Says that the hub does not move the balance now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// The batch the user wants to leave.
    pub batch: BatchId,
    /// The hash of the invoice refused.
    pub payment_hash: [u8; 32],
    /// Why.
    pub reason: StayReason,
}

/// Shows a closing transaction that both sides have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// It, with its witness; what it spends says which channel.
    pub transaction: Transaction,
}

/// Asks to be paid on chain for a payment over a channel of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdraw {
    /// Names the swap; the same when it is sent again.
    pub swap: SwapId,
    /// The funding output of the channel that will carry the payment.
    pub channel: OutPoint,
    /// Value of the output.
    pub amount: Amount,
    /// The user's key, by which it claims.
    pub claimer: PublicKey,
    /// SHA-256 of the preimage, which the user knows.
    pub hash: sha256::Hash,
}

/// Says what a withdrawal costs and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawing {
    /// The swap.
    pub swap: SwapId,
    /// The hub's key, by which it takes the output back.
    pub refunder: PublicKey,
    /// `T`: from here on.
    pub refund: absolute::Height,
    /// When the payment expires at the earliest.
    pub payment_expiry: absolute::Height,
    /// BOLT 11, of the same hash: what the user is to pay and the hub holds.
    pub invoice: String,
}

/// Asks to be paid over a channel of a batch for an output on chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deposit {
    /// Names the swap; the same when it is sent again.
    pub swap: SwapId,
    /// The funding output of the channel that will carry the payment.
    pub channel: OutPoint,
    /// Value of the output.
    pub amount: Amount,
    /// The user's key, by which it takes the output back.
    pub refunder: PublicKey,
    /// SHA-256 of the preimage, which the user knows.
    pub hash: sha256::Hash,
}

/// Says what a deposit brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depositing {
    /// The swap.
    pub swap: SwapId,
    /// The hub's key, by which it claims.
    pub claimer: PublicKey,
    /// Blocks after its confirmation from which the user takes the output back.
    pub refund: relative::Height,
    /// What the hub pays for it, in millisatoshi.
    pub payment_msat: u64,
}

/// Says how to be paid for a deposit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposited {
    /// The swap.
    pub swap: SwapId,
    /// BOLT 11, of the hash and payment agreed on.
    pub invoice: String,
}

/// Says that the hub does not swap that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The swap.
    pub swap: SwapId,
    /// Why.
    pub reason: SwapRefusal,
}

/// Tells the preimage of a withdrawal whose output is buried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reveal {
    /// The swap.
    pub swap: SwapId,
    /// The preimage.
    pub preimage: Preimage,
}

/// Hands a key of a swap over, so that the other side spends the output alone by key path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// The swap.
    pub swap: SwapId,
    /// The secret.
    pub secret: TreeSecret,
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(
            Debug,
            Clone,
            Copy,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            thiserror::Error,
            serde::Serialize,
            serde::Deserialize,
        )]
        pub enum $name {
            $(#[doc = concat!("Says: ", $text, ".")] #[error($text)] $variant,)*
        }

        impl $name {
            /// All reasons, by code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the byte that stands for it in a message.
            pub fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// Finds the reason with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.code() == code)
            }
        }
    };
}

reasons! {
    /// Why a hub has no place for a user.
    DeclineReason {
        Full = 1, "the batch is full";
        Closed = 2, "the batch has closed";
        Capacity = 3, "the capacity is outside the hub's range";
        Inbound = 4, "the inbound amount exceeds the capacity";
        Key = 5, "a tree key is used twice";
        Registered = 6, "the node has another registration in this batch";
        BackOff = 7, "the node broke off too often and must wait";
        Unavailable = 8, "the hub takes no registrations";
    }
}

reasons! {
    /// Why a user does not sign a proposal.
    RefuseReason {
        Shape = 1, "the batch has no such shape or place";
        Key = 2, "the user's key is not in an aggregate, or a foreign one is";
        Expiry = 3, "the expiry is not the one promised";
        Channel = 4, "the last output is not the channel's";
        Root = 5, "the root output is not the one announced";
        Path = 6, "the transactions do not fit together";
        NoChannel = 7, "the channel of this batch is unknown or gone";
        Signature = 8, "the final signatures are wrong";
        Internal = 9, "the user's node cannot go on";
    }
}

reasons! {
    /// Why a hub does not move a balance.
    StayReason {
        NotMember = 1, "the user has no usable channel in one of the batches";
        Late = 2, "the payments would outlive the old batch's deadline";
        Invoice = 3, "the invoice is not the user's, or not of this network, amount or expiry";
        Funds = 4, "the new channel cannot carry the amount now";
        Busy = 5, "too many payments of the user wait already";
        Internal = 6, "the hub's node cannot go on";
    }
}

reasons! {
    /// Why a hub does not swap.
    SwapRefusal {
        Unavailable = 1, "the hub swaps nothing now";
        Channel = 2, "the user has no usable channel of a batch with that funding output";
        Amount = 3, "the amount is outside the hub's range";
        Late = 4, "the payment would outlive the channel's deadline";
        Key = 5, "the key, the hash or the name of the swap was used before";
        Busy = 6, "too many swaps of the user wait already";
        Funds = 7, "the hub has not enough coins or balance now";
        Internal = 8, "the hub's node cannot go on";
    }
}

reasons! {
    /// Why a user is left out, or a batch ends before it began.
    DropReason {
        Silent = 1, "no answer before the deadline";
        Wrong = 2, "a message was wrong";
        Partial = 3, "a partial signature was wrong";
        Refused = 4, "the user refused the proposal";
        Channel = 5, "the channel was closed";
        Gone = 6, "the connection was lost";
        Attempts = 7, "too many attempts failed";
        Funds = 8, "the hub cannot fund the batch";
        Restart = 9, "the hub was restarted";
        Empty = 10, "nobody is left";
        Funding = 11, "a channel was not ready for funding in time";
        Conflict = 12, "the batch transaction was double-spent";
    }
}

impl DropReason {
    /// Tells whether it is the user's fault, to be counted for its back-off.
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Silent | Self::Wrong | Self::Partial | Self::Refused | Self::Channel | Self::Gone
        )
    }
}

impl From<&ProposalError> for RefuseReason {
    fn from(error: &ProposalError) -> Self {
        match error {
            ProposalError::Shape(_) | ProposalError::WrongShape { .. } => Self::Shape,
            ProposalError::Aggregate(_)
            | ProposalError::ForeignSlot { .. }
            | ProposalError::WrongCosigners { .. } => Self::Key,
            ProposalError::WrongLeaf { .. } => Self::Path,
            ProposalError::Path(error) => error.into(),
        }
    }
}

impl From<&PathError> for RefuseReason {
    fn from(error: &PathError) -> Self {
        match error {
            PathError::WrongExpiry { .. } => Self::Expiry,
            PathError::WrongChannel { .. } => Self::Channel,
            PathError::WrongRoot { .. } => Self::Root,
            PathError::WrongSignature { .. } | PathError::SignatureCount { .. } => Self::Signature,
            PathError::Levels { .. }
            | PathError::OwnIndex { .. }
            | PathError::TooWide { .. }
            | PathError::NothingLeft { .. }
            | PathError::Aggregate(_) => Self::Path,
        }
    }
}
