//! One wish of a user for a channel of a batch: the machine, and what it asks for.

use bitcoin::OutPoint;
use channel_contracts::batch::message::{Message, Propose, RefuseReason, Release};
use channel_contracts::batch::user::{Agreed, UserInput};
use channel_contracts::batch::{
    Attempt, Peer, RegistrationId, Timestamp, UserBatch, UserEffect, UserEvent, UserPhase,
};
use channel_contracts::musig::{
    AggregatedNonce, NonceSeed, SchnorrSignature, UserNonces, UserSigned,
};
use channel_contracts::tree::{AgreedPath, Terms};

use super::Parts;
use super::record::EventLog;
use crate::chain::virtual_confirmation::{SignedLeaf, VirtualBatch};
use crate::journal::{BatchEvent, DomainEvent};
use crate::lightning::types::{ChannelRef, NodeId};
use crate::store::{Batch, StoreError};
use crate::unroll::UnrollError;

/// A wish of this user.
pub(super) struct UserLife {
    pub hub: NodeId,
    /// The wish whose channel rolls over into this one's.
    pub follows: Option<RegistrationId>,
    pub machine: UserBatch,
    pub log: EventLog,
    /// The channel that is expected, or there.
    pub channel: Option<ChannelRef>,
    session: Session,
}

/// The secret part of an attempt. Dies with the process, as the nonces in it must.
enum Session {
    /// Nothing was agreed on, or it is over.
    None,
    /// The proposal is right.
    Agreed(Box<AgreedPath>),
    /// Nonces are out.
    Nonces(Box<UserNonces>),
    /// Partial signatures are out; the nonces are gone.
    Signed(Box<UserSigned>),
}

impl UserLife {
    /// A wish that begins, or one that is read back: its sessions are gone.
    pub fn new(
        hub: NodeId,
        follows: Option<RegistrationId>,
        machine: UserBatch,
        log: EventLog,
    ) -> Self {
        Self { hub, follows, machine, log, channel: None, session: Session::None }
    }

    /// Its name.
    pub fn registration(&self) -> RegistrationId {
        self.machine.request().registration
    }

    /// Where the channel's funding output stands, once that is agreed on.
    pub fn funding(&self) -> Option<OutPoint> {
        Some(self.machine.agreed()?.funding)
    }

    /// Whether what the machine asks for waits until its events are durable: from the stored
    /// path on there is something to lose.
    pub fn is_binding(&self) -> bool {
        matches!(self.machine.phase(), UserPhase::Leaf(_))
    }

    /// What the journal hears when the wish enters `phase`.
    pub fn entered(&self, phase: UserPhase) -> DomainEvent {
        let (registration, hub) = (self.registration(), self.hub);
        DomainEvent::Batch(BatchEvent::Wish { registration, hub, phase })
    }

    /// Lets the machine decide and applies its events, which `told` hears of. A rejection is said in the log.
    pub fn decide(
        &mut self,
        input: UserInput,
        now: Timestamp,
        writes: &mut Batch,
        told: &mut Vec<DomainEvent>,
    ) -> Vec<UserEffect> {
        let decision = match self.machine.decide(input, now) {
            Ok(decision) => decision,
            Err(rejection) => {
                let registration = self.registration();
                tracing::info!(%registration, hub = %self.hub, %rejection, "wish goes on unchanged");
                return vec![];
            }
        };
        self.log.append(&decision.events, writes);
        for event in decision.events {
            if let UserEvent::PhaseEntered { phase } = &event {
                tracing::info!(registration = %self.registration(), ?phase, "channel of a batch");
                told.push(self.entered(*phase));
            }
            self.machine.apply(event);
        }
        decision.effects
    }

    /// Does what the machine asks, and returns what came of it.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn run(
        &mut self,
        parts: &Parts,
        effect: UserEffect,
    ) -> Result<Vec<UserInput>, StoreError> {
        Ok(match effect {
            UserEffect::Send { message } => {
                parts.send(Peer(self.hub), &message);
                vec![]
            }
            UserEffect::CheckProposal { propose, expiry } => {
                let attempt = propose.attempt;
                let result = self.check(parts, &propose, expiry);
                vec![UserInput::ProposalChecked { attempt, result }]
            }
            UserEffect::MakeNonces { attempt } => self.make_nonces(parts, attempt),
            UserEffect::SignPartials { attempt, aggregated } => self.sign(attempt, &aggregated),
            UserEffect::CompletePath { attempt, signatures } => {
                if self.complete(parts, signatures).await? {
                    vec![UserInput::PathStored { attempt }]
                } else {
                    vec![UserInput::PathWrong { attempt }]
                }
            }
            UserEffect::ForgetAttempt { .. } => {
                self.session = Session::None;
                if let Some(agreed) = self.machine.agreed()
                    && let Err(error) = parts.confirmations.forget(agreed.root)
                {
                    tracing::error!(%error, "a batch that was given up is on chain");
                }
                vec![]
            }
            UserEffect::AbandonChannel => {
                if let Some(channel) = self.channel {
                    parts.channels.abandon_for_batch(channel, "its batch came to nothing");
                }
                vec![]
            }
            UserEffect::SendRelease { batch, attempt } => {
                let secret = parts.secrets.user_tree(self.registration(), attempt);
                let release = Release { batch, attempt, secret };
                parts.send(Peer(self.hub), &Message::Release(release));
                vec![]
            }
            UserEffect::PublishPath { reason } => {
                if let Some(agreed) = self.machine.agreed() {
                    tracing::warn!(root = %agreed.root, ?reason, "leaving the batch on chain");
                    match parts.unroller.want(agreed.funding, reason.into()).await {
                        Ok(()) => {}
                        Err(UnrollError::Store(error)) => return Err(error),
                        Err(error) => tracing::error!(%error, "the batch cannot be left"),
                    }
                }
                vec![]
            }
            // The service rolls over: it takes several wishes.
            UserEffect::BeginRollover => vec![],
            // The parked closing transaction leaves by the gate once the leaf is in a block, and
            // at each start again (`lightning/withheld.rs`). What is dead is found from the
            // records of the chain at each block, for either role (`settlement/watch.rs`).
            UserEffect::PublishClosing | UserEffect::ForgetChannel => vec![],
            // The record of the path watches for the root; the loop wakes by itself.
            UserEffect::WatchRoot { .. } | UserEffect::WakeAt { .. } => vec![],
        })
    }

    /// §3.3: everything the user can know by itself.
    fn check(
        &mut self,
        parts: &Parts,
        propose: &Propose,
        expiry: bitcoin::absolute::Height,
    ) -> Result<Agreed, RefuseReason> {
        let registration = self.registration();
        let unfunded = self.channel.and_then(|c| parts.lightning.unfunded_channel(c));
        let channel = unfunded.ok_or(RefuseReason::NoChannel)?;
        let root = propose.proposal.path.root;
        let terms = Terms {
            own_key: parts.secrets.user_tree(registration, propose.attempt).public_key(),
            root,
            root_output: propose.root_output.clone(),
            expiry,
            channel: channel.funding_output,
        };
        let path = propose.proposal.verify(&terms).map_err(|error| {
            tracing::warn!(%registration, hub = %self.hub, %error, "proposal is wrong; not signed");
            RefuseReason::from(&error)
        })?;
        let agreed = Agreed {
            attempt: propose.attempt,
            root,
            root_output: propose.root_output.clone(),
            funding: path.funding,
            leaf_slot: path.leaf_slot,
            levels: path.levels.len(),
        };
        self.session = Session::Agreed(Box::new(path));
        Ok(agreed)
    }

    /// §3.4: a seed is drawn, used and gone.
    fn make_nonces(&mut self, parts: &Parts, attempt: Attempt) -> Vec<UserInput> {
        let Session::Agreed(path) = std::mem::replace(&mut self.session, Session::None) else {
            return vec![];
        };
        let secret = parts.secrets.user_tree(self.registration(), attempt);
        let seed = NonceSeed::from_fresh_randomness(parts.entropy.bytes());
        match UserNonces::begin(*path, secret, seed) {
            Ok((session, nonces)) => {
                self.session = Session::Nonces(Box::new(session));
                vec![UserInput::NoncesMade { attempt, nonces }]
            }
            Err(error) => {
                tracing::error!(%error, "nonces cannot be made");
                vec![]
            }
        }
    }

    fn sign(&mut self, attempt: Attempt, aggregated: &[AggregatedNonce]) -> Vec<UserInput> {
        let Session::Nonces(session) = std::mem::replace(&mut self.session, Session::None) else {
            return vec![];
        };
        match session.sign(aggregated) {
            Ok(signed) => {
                let partials = signed.partials().to_vec();
                self.session = Session::Signed(Box::new(signed));
                vec![UserInput::PartialsMade { attempt, partials }]
            }
            Err(error) => {
                tracing::warn!(hub = %self.hub, %error, "cannot sign; the attempt is over");
                vec![]
            }
        }
    }

    /// §3.5: verifies the final signatures and makes the path durable. Says whether it is.
    async fn complete(
        &mut self,
        parts: &Parts,
        signatures: Vec<SchnorrSignature>,
    ) -> Result<bool, StoreError> {
        let Session::Signed(session) = &self.session else { return Ok(false) };
        let agreed = session.agreed();
        let (slot, ends) = (agreed.leaf_slot, agreed.ends.clone());
        let record = session.complete(signatures).map_err(|error| error.to_string()).and_then(
            |(path, _)| {
                let leaf = SignedLeaf { slot, path, ends };
                VirtualBatch::new(vec![leaf]).map_err(|error| error.to_string())
            },
        );
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(hub = %self.hub, error, "final signatures are wrong");
                return Ok(false);
            }
        };
        match parts.confirmations.add(record, &*parts.chain).await {
            Ok(()) => Ok(true),
            Err(crate::chain::virtual_confirmation::AddError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(hub = %self.hub, %error, "batch cannot be recorded");
                Ok(false)
            }
        }
    }
}
