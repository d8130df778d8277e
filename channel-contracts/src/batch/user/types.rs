//! What reaches a user's machine, what happens to it, what it asks for, and why it refuses.

use bitcoin::{Amount, OutPoint, TxOut, Txid, absolute};

use super::{Offer, Place, UserPhase};
use crate::batch::deadlines::PendingHtlc;
use crate::batch::ids::{Attempt, BatchId, RegistrationId, Timestamp};
use crate::batch::leaf::{LeafError, LeafState};
use crate::batch::message::{DeclineReason, DropReason, Message, Propose, RefuseReason};
use crate::musig::{AggregatedNonce, PartialSignature, PublicNonce, SchnorrSignature};
use crate::tree::LeafSlot;

/// What the machine keeps of a proposal that was found right.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Agreed {
    /// The attempt.
    pub attempt: Attempt,
    /// Where the root output stands.
    pub root: OutPoint,
    /// The root output. The signatures of the path commit to it, so the batch transaction must
    /// have exactly this one.
    pub root_output: TxOut,
    /// Where the channel's funding output stands.
    pub funding: OutPoint,
    /// The number of the funding transaction among those of its tree.
    pub leaf_slot: LeafSlot,
    /// Transactions of the path.
    pub levels: usize,
}

/// Why a batch came to nothing for this user.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, serde::Serialize, serde::Deserialize,
)]
pub enum OverReason {
    /// The hub has no place.
    #[error("the hub declined: {0}")]
    Declined(DeclineReason),
    /// The hub's terms are not acceptable.
    #[error("the hub asks too much, waits too long or expires too early")]
    Terms,
    /// The hub did not answer.
    #[error("the hub was silent past the deadline")]
    HubSilent,
    /// The hub said something wrong.
    #[error("a message of the hub was wrong")]
    HubWrong,
    /// The user refused the proposal or the final signatures.
    #[error("refused: {0}")]
    Refused(RefuseReason),
    /// The hub left the user out, or ended the batch.
    #[error("dropped: {0}")]
    Dropped(DropReason),
    /// The channel is gone.
    #[error("the channel was closed before the batch was confirmed")]
    ChannelFailed,
    /// The channel has commitments on another outpoint than the path ends in.
    #[error("the channel was funded at another outpoint than the path ends in")]
    WrongFunding,
    /// The node was restarted before the path was stored.
    #[error("restarted before the path was stored")]
    Restarted,
    /// The batch transaction can never be confirmed.
    #[error("the batch transaction was double-spent")]
    Conflicted,
}

/// Why a path is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum UnrollReason {
    /// The user wants to leave.
    Requested,
    /// `U` is reached and the channel is not retired (§5.1).
    Deadline,
    /// An HTLC may need the chain (§5.4). Closes nothing.
    Htlc,
}

/// What reaches the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserInput {
    /// A message of the hub.
    Message {
        /// What it says.
        message: Message,
    },
    /// A message of the hub that could not be decoded.
    Malformed,
    /// The clock moved. To be given at every deadline, harmless at any other time.
    Tick,
    /// The shell checked a proposal against the channel and its own key.
    ProposalChecked {
        /// The attempt.
        attempt: Attempt,
        /// What was found.
        result: Result<Agreed, RefuseReason>,
    },
    /// The session made nonces.
    NoncesMade {
        /// The attempt.
        attempt: Attempt,
        /// One for each level.
        nonces: Vec<PublicNonce>,
    },
    /// The session signed; its nonces are gone.
    PartialsMade {
        /// The attempt.
        attempt: Attempt,
        /// One for each level.
        partials: Vec<PartialSignature>,
    },
    /// The final signatures are verified and the path is durable.
    PathStored {
        /// The attempt.
        attempt: Attempt,
    },
    /// A final signature is wrong.
    PathWrong {
        /// The attempt.
        attempt: Attempt,
    },
    /// The channel has commitments of both sides.
    CommitmentsExchanged {
        /// Its funding outpoint.
        funding: OutPoint,
    },
    /// The channel is gone.
    ChannelFailed,
    /// The transaction with the root output is in a block of the node's own validated chain.
    RootConfirmed {
        /// Where the output stands.
        root: OutPoint,
        /// The output, as it is in that block.
        output: TxOut,
        /// The height of the block.
        at: absolute::Height,
    },
    /// That block is gone.
    RootDisconnected,
    /// Another transaction took a coin of the batch transaction, deep enough to be final.
    RootConflicted,
    /// The best block and what is pending on the channel.
    Block {
        /// Its height.
        best: absolute::Height,
        /// HTLCs of the channel.
        htlcs: Vec<PendingHtlc>,
    },
    /// A rollover that was begun did not come about.
    RolloverFailed,
    /// The channel is closed cooperatively.
    ChannelClosed,
    /// The hub wants the tree key, or the user offers it.
    ReleaseRequested {
        /// The user's balance in the closing transaction.
        closing_balance: Amount,
        /// HTLCs still pending in the monitor.
        htlcs: usize,
    },
    /// The user wants to leave.
    UnrollRequested,
    /// The funding transaction is in a block.
    LeafConfirmed,
    /// The hub spent an ancestor of the funding transaction.
    AncestorSpent {
        /// Confirmations of the spend.
        confirmations: u32,
    },
    /// The node was restarted: connections and sessions are gone.
    Restarted,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UserEvent {
    /// The hub accepted.
    PlaceGiven {
        /// What it promised.
        place: Place,
    },
    /// An attempt begins with a proposal.
    Offered {
        /// The proposal.
        offer: Offer,
    },
    /// The proposal is right.
    Agreed {
        /// What of it is kept.
        agreed: Agreed,
    },
    /// Nonces exist.
    NoncesMade {
        /// Their public halves. Not stored: sessions end with the process.
        #[serde(skip)]
        nonces: Vec<PublicNonce>,
    },
    /// Partial signatures exist.
    PartialsMade {
        /// The signatures. Not stored either.
        #[serde(skip)]
        partials: Vec<PartialSignature>,
    },
    /// Another phase begins.
    PhaseEntered {
        /// The phase.
        phase: UserPhase,
    },
    /// The rollover was begun.
    RolloverBegun,
    /// It did not come about; the next block begins it again.
    RolloverFailed,
    /// The path is being published.
    UnrollBegun {
        /// Why.
        reason: UnrollReason,
    },
    /// The tree key is handed over.
    Released,
}

/// What the shell is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserEffect {
    /// Send a message to the hub.
    Send {
        /// What.
        message: Message,
    },
    /// Check a proposal, answer with [`UserInput::ProposalChecked`] (§3.3).
    CheckProposal {
        /// The proposal.
        propose: Box<Propose>,
        /// `E` as promised.
        expiry: absolute::Height,
    },
    /// Begin a session with a fresh seed, answer with [`UserInput::NoncesMade`] (§3.4).
    MakeNonces {
        /// The attempt.
        attempt: Attempt,
    },
    /// Sign and consume the nonces, answer with [`UserInput::PartialsMade`] (§3.4).
    SignPartials {
        /// The attempt.
        attempt: Attempt,
        /// One for each level.
        aggregated: Vec<AggregatedNonce>,
    },
    /// Verify the final signatures and store the path, answer with [`UserInput::PathStored`] or
    /// [`UserInput::PathWrong`] (§3.5).
    CompletePath {
        /// The attempt.
        attempt: Attempt,
        /// One for each level.
        signatures: Vec<SchnorrSignature>,
    },
    /// Forget session and nonces of an attempt that is over.
    ForgetAttempt {
        /// The attempt.
        attempt: Attempt,
    },
    /// Close the channel that has not been funded.
    AbandonChannel,
    /// Watch for the batch transaction, and give LDK the leaf in its block (§4.1).
    WatchRoot {
        /// What to watch for.
        agreed: Agreed,
    },
    /// Move the balance to a channel of a newer batch and close this one (§6).
    BeginRollover,
    /// Publish the path, one level per block (§9.1).
    PublishPath {
        /// Why.
        reason: UnrollReason,
    },
    /// Publish the parked closing transaction: somebody put the leaf on chain (§6).
    PublishClosing,
    /// Send `release` with the tree secret of this attempt (§8.1).
    SendRelease {
        /// The batch.
        batch: BatchId,
        /// The attempt.
        attempt: Attempt,
    },
    /// Let LDK archive the monitor (§8.5).
    ForgetChannel,
    /// Give a [`UserInput::Tick`] at this moment.
    WakeAt {
        /// When.
        at: Timestamp,
    },
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserRejection {
    /// The answer is to another registration.
    #[error("answer to registration {named}, ours is {registration}")]
    OtherRegistration {
        /// The registration named.
        named: RegistrationId,
        /// Ours.
        registration: RegistrationId,
    },
    /// The message names another batch.
    #[error("message for batch {named} reached batch {batch:?}")]
    OtherBatch {
        /// The batch named.
        named: BatchId,
        /// This batch, once it is known.
        batch: Option<BatchId>,
    },
    /// The message or result belongs to another attempt.
    #[error("attempt {named} is not the one at hand, {attempt:?}; stale, ignored")]
    OtherAttempt {
        /// The attempt named.
        named: Attempt,
        /// The attempt at hand.
        attempt: Option<Attempt>,
    },
    /// The hub proposes something else in the same attempt.
    #[error("attempt {attempt} was proposed with leaf {known}, now with {changed}; not signed")]
    Changed {
        /// The attempt.
        attempt: Attempt,
        /// The leaf answered.
        known: Txid,
        /// The leaf offered now.
        changed: Txid,
    },
    /// The output in the block is not the one the path was signed for: the hub lied about it, or
    /// the block has another transaction.
    #[error("output {actual:?} is in the block, the path spends {expected:?}")]
    WrongRoot {
        /// What is in the block.
        actual: Box<(OutPoint, TxOut)>,
        /// What was agreed on.
        expected: Box<(OutPoint, TxOut)>,
    },
    /// More or fewer values came than the path has levels.
    #[error("{what}: {actual} came, the path has {levels} levels")]
    Count {
        /// What came.
        what: &'static str,
        /// How many.
        actual: usize,
        /// How many it takes.
        levels: usize,
    },
    /// Nothing of the kind is expected now.
    #[error("{input} does not fit phase {phase:?}")]
    OutOfOrder {
        /// What came.
        input: &'static str,
        /// The phase.
        phase: UserPhase,
    },
    /// Only a user says this.
    #[error("message of type {kind} is not for a user")]
    NotForUser {
        /// Its Lightning message type.
        kind: u16,
    },
    /// The event cannot happen to the leaf.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The key must not be handed over.
    #[error(
        "a channel that is {state:?} with a closing balance of {closing_balance} and {htlcs} HTLCs keeps its key"
    )]
    NotReleasable {
        /// Where the leaf stands.
        state: Option<LeafState>,
        /// The user's balance in the closing transaction.
        closing_balance: Amount,
        /// HTLCs still pending.
        htlcs: usize,
    },
}
