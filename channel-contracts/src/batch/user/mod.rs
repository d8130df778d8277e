//! The user's machine of one channel in one batch.
//!
//! ```text
//! registering ─► accepted ─► checking ─► committing ─► awaiting sign ─► signing ─► awaiting signed
//!                    ▲ a later attempt begins again from any state up to stored        │
//!                    └──────────────────────────────────────────────────────┐          ▼
//!     over ◄─ any of these: silence, refusal, dropped, channel lost         stored ◄─ completing
//!                                                                           │
//!                 (dropped ◄─) funded ─► confirmed ─► retired ─► dead ◄─────┘  (see `leaf`)
//! ```
//!
//! What protects the user: it answers one proposal per attempt and no second one; it says
//! `stored` only when the path is verified and durable; commitments count only on the outpoint
//! it signed for; the batch transaction counts only if both are there (§4.4); and from `funded`
//! on nothing that the hub says ends the batch, only the chain does, and at `U` at the latest
//! the path is published (§5.1). A hub that says before the confirmation that it gave the batch
//! up is heard: the leaf is `dropped`, with its path kept and the chain watched as before. Its
//! tree key leaves only when the channel is retired and empty (§8.1).
//!
//! What goes in and out is in `types`, the forming of a batch in `form`, its life in `life`.
//! What is left to the shell, see [`batch`](super).
//!
//! Source: BATCHES §3, §4.4, §5, §6 and §8.

mod form;
mod life;
mod types;

pub use types::{
    Agreed, OverReason, UnrollReason, UserEffect, UserEvent, UserInput, UserRejection,
};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, Txid, absolute};

use super::Decision;
use super::deadlines::Deadlines;
use super::ids::{ATTEMPTS_MAX, Attempt, BatchId, RegistrationId, Timestamp};
use super::leaf::LeafState;
use super::message::{Message, Register};
use crate::musig::{PartialSignature, PublicNonce};

/// How long a user waits, and what it is ready to pay.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserPolicy {
    /// How long the hub may take for each step, in milliseconds.
    pub step_ms: u64,
    /// How long a batch may gather users, in milliseconds.
    pub gathering_max_ms: u32,
    /// The most a place may cost.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee_max: Amount,
    /// Blocks of life a batch must have at least, from the best block to E.
    pub life_min: u32,
}

impl Default for UserPolicy {
    /// Six times the hub's own patience, since it waits for the slowest user; half a usual
    /// life.
    fn default() -> Self {
        Self {
            step_ms: 60_000,
            gathering_max_ms: 600_000,
            fee_max: Amount::from_sat(1_000),
            life_min: 2_016,
        }
    }
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserRequest {
    /// Names the wish.
    pub registration: RegistrationId,
    /// Capacity of the channel.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub capacity: Amount,
    /// How much of it must be receivable at once.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub inbound: Amount,
    /// A fresh tree key for each attempt.
    pub tree_keys: [PublicKey; ATTEMPTS_MAX as usize],
    /// Height of the best block when asking.
    pub best: absolute::Height,
}

/// One channel of a user in one batch, from the wish to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserBatch {
    request: UserRequest,
    policy: UserPolicy,
    phase: UserPhase,
    place: Option<Place>,
    offer: Option<Offer>,
    agreed: Option<Agreed>,
    nonces: Vec<PublicNonce>,
    partials: Vec<PartialSignature>,
    rollover_begun: bool,
    unrolling: Option<UnrollReason>,
    released: bool,
}

/// What the hub promised when it accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// The batch.
    pub batch: BatchId,
    /// What the place costs.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee: Amount,
    /// `E`.
    pub expiry: absolute::Height,
}

/// The one proposal of an attempt that is answered. `leaf_txid` commits to all of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Offer {
    /// The attempt.
    pub attempt: Attempt,
    /// Where the root output stands.
    pub root: OutPoint,
    /// The id of the transaction that funds the channel.
    pub leaf_txid: Txid,
}

/// Where a user's channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum UserPhase {
    /// `register` is sent.
    Registering {
        /// When it gives up.
        deadline: Timestamp,
    },
    /// It has a place and waits for a proposal.
    Accepted {
        /// When it gives up.
        deadline: Timestamp,
    },
    /// The shell checks a proposal.
    Checking,
    /// The shell makes nonces.
    Committing,
    /// Nonces are sent.
    AwaitingSign {
        /// When it gives up.
        deadline: Timestamp,
    },
    /// The shell signs.
    Signing,
    /// Partial signatures are sent.
    AwaitingSigned {
        /// When it gives up.
        deadline: Timestamp,
    },
    /// The shell verifies the final signatures and stores the path.
    Completing,
    /// The path is stored; or more: see the leaf.
    Leaf(LeafState),
    /// It came to nothing.
    Over(OverReason),
}

impl UserPhase {
    /// Returns when the user gives up, if it waits for the hub with nothing at stake.
    pub fn deadline(self) -> Option<Timestamp> {
        match self {
            Self::Registering { deadline }
            | Self::Accepted { deadline }
            | Self::AwaitingSign { deadline }
            | Self::AwaitingSigned { deadline } => Some(deadline),
            _ => None,
        }
    }

    /// Tells whether the batch may still be given up without a loss: before commitments exist.
    pub fn is_forming(self) -> bool {
        !matches!(self, Self::Over(_))
            && !matches!(self, Self::Leaf(leaf) if leaf != LeafState::Signed)
    }
}

type UserDecision = Decision<UserEvent, UserEffect>;

impl UserBatch {
    /// Asks for a place at `now`: returns the machine and what to do first.
    pub fn register(
        request: UserRequest,
        policy: UserPolicy,
        now: Timestamp,
    ) -> (Self, Vec<UserEffect>) {
        let deadline = now.plus_ms(policy.step_ms);
        let batch = Self {
            request,
            policy,
            phase: UserPhase::Registering { deadline },
            place: None,
            offer: None,
            agreed: None,
            nonces: vec![],
            partials: vec![],
            rollover_begun: false,
            unrolling: None,
            released: false,
        };
        let effects = vec![batch.send_register(), UserEffect::WakeAt { at: deadline }];
        (batch, effects)
    }

    /// Decides about an input at `now`. Changes nothing by itself.
    ///
    /// # Errors
    ///
    /// [`UserRejection`] if the input is stale, out of order or wrong. Nothing is signed then.
    pub fn decide(&self, input: UserInput, now: Timestamp) -> Result<UserDecision, UserRejection> {
        match input {
            UserInput::Message { message } => self.message(message, now),
            UserInput::Malformed => match self.phase {
                phase if phase.is_forming() => Ok(self.give_up(OverReason::HubWrong)),
                phase => Err(UserRejection::OutOfOrder { input: "malformed message", phase }),
            },
            UserInput::Tick => match self.phase.deadline() {
                Some(deadline) if now >= deadline => Ok(self.give_up(OverReason::HubSilent)),
                _ => Ok(Decision::nothing()),
            },
            UserInput::Restarted => match self.phase {
                // Nonces died with the process; a stored path needs none.
                UserPhase::Leaf(_) | UserPhase::Over(_) => Ok(Decision::nothing()),
                _ => Ok(self.give_up(OverReason::Restarted)),
            },
            UserInput::ProposalChecked { attempt, result } => {
                self.proposal_checked(attempt, result)
            }
            UserInput::NoncesMade { attempt, nonces } => self.nonces_made(attempt, nonces, now),
            UserInput::PartialsMade { attempt, partials } => {
                self.partials_made(attempt, partials, now)
            }
            UserInput::PathStored { attempt } => self.path_stored(attempt),
            UserInput::PathWrong { attempt } => self.path_wrong(attempt),
            other => self.live(other),
        }
    }

    /// Applies an event that [`UserBatch::decide`] returned, or that a journal kept.
    pub fn apply(&mut self, event: UserEvent) {
        match event {
            UserEvent::PlaceGiven { place } => self.place = Some(place),
            UserEvent::Offered { offer } => {
                self.offer = Some(offer);
                self.agreed = None;
                self.nonces.clear();
                self.partials.clear();
            }
            UserEvent::Agreed { agreed } => self.agreed = Some(agreed),
            UserEvent::NoncesMade { nonces } => self.nonces = nonces,
            UserEvent::PartialsMade { partials } => self.partials = partials,
            UserEvent::PhaseEntered { phase } => self.phase = phase,
            UserEvent::RolloverBegun => self.rollover_begun = true,
            UserEvent::RolloverFailed => self.rollover_begun = false,
            UserEvent::UnrollBegun { reason } => self.unrolling = Some(reason),
            UserEvent::Released => self.released = true,
        }
    }

    /// Returns what must be done again after a restart, once [`UserInput::Restarted`] is applied.
    pub fn unfinished_effects(&self) -> Vec<UserEffect> {
        let mut effects = vec![];
        if let (UserPhase::Leaf(leaf), Some(agreed)) = (self.phase, &self.agreed) {
            // A hub whose batch came to nothing answers with `dropped`.
            if matches!(leaf, LeafState::Signed | LeafState::Funded) {
                effects.extend(self.send_stored());
            }
            let is_watched = matches!(leaf, LeafState::Confirmed { .. } | LeafState::Retired);
            if is_watched || matches!(leaf, LeafState::Funded | LeafState::Dropped) {
                effects.push(UserEffect::WatchRoot { agreed: agreed.clone() });
            }
            if let (true, Some(reason)) = (leaf.needs_exit_by_deadline(), self.unrolling) {
                effects.push(UserEffect::PublishPath { reason });
            }
            if self.released && leaf == LeafState::Retired {
                effects.extend(self.send_release());
            }
            if leaf == LeafState::Dead {
                effects.push(UserEffect::ForgetChannel);
            }
        }
        effects
    }

    /// Returns what it asked for.
    pub fn request(&self) -> &UserRequest {
        &self.request
    }

    /// Returns where it stands.
    pub fn phase(&self) -> UserPhase {
        self.phase
    }

    /// Returns what the hub promised, once it accepted.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Returns what was signed for, once a proposal was found right.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// Returns why the path is being published, if it is.
    pub fn unrolling(&self) -> Option<UnrollReason> {
        self.unrolling
    }

    /// Tells whether the tree key is handed over.
    pub fn released(&self) -> bool {
        self.released
    }

    /// Returns the deadlines of the channel, once its path is known.
    pub fn deadlines(&self) -> Option<Deadlines> {
        let (place, agreed) = (self.place?, self.agreed.as_ref()?);
        Deadlines::new(place.expiry, agreed.levels).ok()
    }

    fn send_register(&self) -> UserEffect {
        let UserRequest { registration, capacity, inbound, tree_keys, .. } = self.request;
        let register = Register { registration, capacity, inbound, tree_keys };
        UserEffect::Send { message: Message::Register(Box::new(register)) }
    }
}
