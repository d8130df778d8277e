//! What reaches a hub's batch, what happens to it, what it asks for, and why it refuses.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, TxOut, Txid, absolute};

use super::{HubMember, HubPhase};
use crate::batch::ids::{Attempt, BatchId, Peer, Timestamp};
use crate::batch::message::{DropReason, Message};
use crate::musig::{PartialSignature, PublicNonce, TreeSecret};

/// What reaches the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubInput {
    /// A message of a peer; for `register`, until when the peer must wait for its faults.
    Message {
        /// Who sent it.
        peer: Peer,
        /// What it says.
        message: Message,
        /// Until when it must wait ([`HubPolicy::back_off_ms`](super::HubPolicy::back_off_ms)).
        banned_until: Option<Timestamp>,
    },
    /// A message of a peer that could not be decoded.
    Malformed {
        /// Who sent it.
        peer: Peer,
    },
    /// The clock moved. To be given at every deadline, harmless at any other time.
    Tick,
    /// The operator wants no more users to be waited for.
    Close,
    /// The connection to a peer is lost.
    PeerGone {
        /// Who it was.
        peer: Peer,
    },
    /// LDK knows the funding script of a channel.
    ChannelReady {
        /// Whose channel.
        peer: Peer,
        /// Its funding output.
        funding: TxOut,
    },
    /// A channel was closed or could not be opened.
    ChannelFailed {
        /// Whose channel.
        peer: Peer,
    },
    /// The shell built the tree and the batch transaction of an attempt.
    TreeBuilt {
        /// The attempt.
        attempt: Attempt,
        /// Where the root output stands.
        root: OutPoint,
    },
    /// The shell cannot build it: coins are missing.
    TreeFailed {
        /// The attempt.
        attempt: Attempt,
    },
    /// The session took, or refused, the nonces of a peer.
    NoncesChecked {
        /// The attempt.
        attempt: Attempt,
        /// Whose.
        peer: Peer,
        /// They are as many as its path has levels.
        right: bool,
    },
    /// The session has the nonces of all and has signed.
    Aggregated {
        /// The attempt.
        attempt: Attempt,
    },
    /// The session verified the partial signatures of a peer.
    PartialsChecked {
        /// The attempt.
        attempt: Attempt,
        /// Whose.
        peer: Peer,
        /// The level of the first wrong one, if one is.
        wrong_level: Option<usize>,
    },
    /// Every tree transaction has its final signature, durable.
    TreeSigned {
        /// The attempt.
        attempt: Attempt,
    },
    /// LDK says `FundingTxBroadcastSafe` for a channel.
    FundingSafe {
        /// Whose channel.
        peer: Peer,
    },
    /// The batch transaction was handed to the network.
    BatchBroadcast {
        /// Its id.
        txid: Txid,
    },
    /// The batch transaction is in a block.
    BatchConfirmed {
        /// Its id.
        txid: Txid,
        /// The height of the block.
        at: absolute::Height,
    },
    /// That block is gone.
    BatchDisconnected,
    /// Another transaction took a coin of the batch transaction, deep enough to be final.
    BatchConflicted,
    /// A channel is retired.
    ChannelRetired {
        /// Whose.
        peer: Peer,
    },
    /// The secret in a `release` is, or is not, that of the peer's tree key.
    ReleaseChecked {
        /// Whose.
        peer: Peer,
        /// It is.
        right: bool,
    },
    /// The best block.
    Block {
        /// Its height.
        best: absolute::Height,
    },
    /// Every channel named by [`HubEffect::CloseForSweep`] is closed.
    ClosedForSweep,
    /// The root output is spent by ours, deep enough to be final.
    RootSettled,
    /// The node was restarted: connections, sessions and channels without funding are gone.
    Restarted,
}

/// What has happened to a batch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HubEvent {
    /// A user has a place.
    MemberJoined {
        /// Who.
        peer: Peer,
        /// Everything of it.
        member: Box<HubMember>,
    },
    /// A user is left out.
    MemberLeftOut {
        /// Who.
        peer: Peer,
        /// Why.
        reason: DropReason,
        /// The level of its wrong partial signature, if that is why.
        level: Option<usize>,
    },
    /// The funding output of a channel is known.
    ChannelKnown {
        /// Whose.
        peer: Peer,
        /// The output.
        funding: TxOut,
    },
    /// A user answered; the shell checks it.
    AnswerTaken {
        /// Who.
        peer: Peer,
    },
    /// A user did its part of the step.
    StepDone {
        /// Who.
        peer: Peer,
    },
    /// The batch is in another phase; in a new step nobody has answered.
    PhaseEntered {
        /// The phase.
        phase: HubPhase,
    },
    /// Another attempt begins, without those left out.
    AttemptBegun {
        /// The attempt.
        attempt: Attempt,
    },
    /// The tree of the attempt is built.
    TreeBuilt {
        /// Where its root output stands.
        root: OutPoint,
    },
    /// The tree of the attempt is signed.
    TreeSigned,
    /// A channel is retired.
    Retired {
        /// Whose.
        peer: Peer,
    },
    /// A user's tree secret is ours.
    Released {
        /// Whose.
        peer: Peer,
    },
}

/// One user of a tree to be built, in the order of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeMember {
    /// Who.
    pub peer: Peer,
    /// Its tree key of this attempt.
    pub tree_key: PublicKey,
    /// The funding output of its channel.
    pub funding: TxOut,
}

/// What the shell is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEffect {
    /// Send a message.
    Send {
        /// To whom.
        peer: Peer,
        /// What.
        message: Message,
    },
    /// Open a channel up to its funding script (§3.2).
    OpenChannel {
        /// With whom.
        peer: Peer,
        /// Its capacity.
        capacity: Amount,
    },
    /// Close a channel that will not be funded.
    CloseChannel {
        /// Whose.
        peer: Peer,
    },
    /// Draw a fresh tree key, build tree and batch transaction (§3.3).
    BuildTree {
        /// The attempt.
        attempt: Attempt,
        /// The users, by slot.
        members: Vec<TreeMember>,
        /// `E`.
        expiry: absolute::Height,
    },
    /// Begin the session with a fresh seed and propose its path to each (§3.3).
    Propose {
        /// The attempt.
        attempt: Attempt,
        /// To whom.
        peers: Vec<Peer>,
    },
    /// Give nonces to the session, answer with [`HubInput::NoncesChecked`] (§3.4).
    TakeNonces {
        /// The attempt.
        attempt: Attempt,
        /// Whose.
        peer: Peer,
        /// One for each level.
        nonces: Vec<PublicNonce>,
    },
    /// Aggregate nonces, answer with [`HubInput::Aggregated`] (§3.4).
    Aggregate {
        /// The attempt.
        attempt: Attempt,
    },
    /// Send each its aggregated nonces, `sign` (§3.4).
    SendAggregated {
        /// The attempt.
        attempt: Attempt,
        /// To whom.
        peers: Vec<Peer>,
    },
    /// Verify partial signatures, answer with [`HubInput::PartialsChecked`] (§3.4).
    CheckPartials {
        /// The attempt.
        attempt: Attempt,
        /// Whose.
        peer: Peer,
        /// One for each level.
        partials: Vec<PartialSignature>,
    },
    /// Aggregate signatures, make them durable, answer with [`HubInput::TreeSigned`] (§3.4).
    Finish {
        /// The attempt.
        attempt: Attempt,
    },
    /// Send each its final signatures, `signed` (§3.5).
    SendSigned {
        /// The attempt.
        attempt: Attempt,
        /// To whom.
        peers: Vec<Peer>,
    },
    /// Forget session, keys and batch transaction of an attempt that is over.
    ForgetAttempt {
        /// The attempt.
        attempt: Attempt,
    },
    /// Give LDK each leaf outpoint, once per channel (§3.6).
    FundChannels {
        /// The attempt.
        attempt: Attempt,
        /// Whose.
        peers: Vec<Peer>,
    },
    /// Broadcast the batch transaction and rebroadcast it until it is confirmed; bump it by CPFP
    /// only (§3.7).
    BroadcastBatch {
        /// The attempt.
        attempt: Attempt,
        /// The transaction.
        txid: Txid,
    },
    /// Check a released secret, store it, answer with [`HubInput::ReleaseChecked`] (§8.1).
    CheckRelease {
        /// Whose.
        peer: Peer,
        /// The secret, as it came.
        secret: TreeSecret,
    },
    /// See what can be reclaimed with the keys released so far
    /// ([`ReclaimPlan`](crate::musig::ReclaimPlan)), and whether it is worth it (§8.2).
    PlanReclaim,
    /// Force-close these channels without broadcasting, answer with
    /// [`HubInput::ClosedForSweep`]; or LDK goes on honouring dead balances (§8.4).
    CloseForSweep {
        /// Whose channels are still open.
        peers: Vec<Peer>,
    },
    /// Spend by the expiry leaf whatever node output is left (§8.3).
    SweepExpired,
    /// Give a [`HubInput::Tick`] at this moment.
    WakeAt {
        /// When.
        at: Timestamp,
    },
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubRejection {
    /// The peer has no place in this batch.
    #[error("peer {peer} is not a member of batch {batch}")]
    NotMember {
        /// Who sent it.
        peer: Peer,
        /// The batch.
        batch: BatchId,
    },
    /// The message names another batch.
    #[error("message for batch {named} reached batch {batch}")]
    OtherBatch {
        /// The batch named.
        named: BatchId,
        /// This batch.
        batch: BatchId,
    },
    /// The message or result belongs to another attempt.
    #[error("attempt {named} is not the one at hand, {attempt}; stale, ignored")]
    OtherAttempt {
        /// The attempt named.
        named: Attempt,
        /// The attempt at hand.
        attempt: Attempt,
    },
    /// Nothing of the kind is expected now.
    #[error("{input} does not fit phase {phase:?}")]
    OutOfOrder {
        /// What came.
        input: &'static str,
        /// The phase.
        phase: HubPhase,
    },
    /// It gathers no users.
    #[error("the batch gathers no users")]
    NotGathering,
    /// Only a hub says this.
    #[error("message of type {kind} is not for a hub")]
    NotForHub {
        /// Its Lightning message type.
        kind: u16,
    },
    /// The channel is not that of the registration.
    #[error("channel of {peer} has {actual}, registered was {expected}")]
    WrongCapacity {
        /// Whose.
        peer: Peer,
        /// Its value.
        actual: Amount,
        /// The capacity registered.
        expected: Amount,
    },
    /// The transaction is not the batch's.
    #[error("transaction {actual} is not the batch transaction {expected}")]
    OtherTransaction {
        /// The id that came.
        actual: Txid,
        /// The id of the batch transaction.
        expected: Txid,
    },
    /// A channel that is not retired cannot be released.
    #[error("channel of {peer} is not retired; its key is not taken")]
    NotRetired {
        /// Whose.
        peer: Peer,
    },
    /// A released secret is wrong.
    #[error("secret released by {peer} is not that of its tree key")]
    WrongSecret {
        /// Whose.
        peer: Peer,
    },
}
