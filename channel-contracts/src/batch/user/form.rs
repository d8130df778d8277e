//! From the wish to the stored path: what the user answers, once per attempt.

use super::types::{OverReason, UserEffect, UserEvent, UserRejection};
use super::{Agreed, Offer, Place, UserBatch, UserDecision, UserPhase};
use crate::batch::Decision;
use crate::batch::ids::{Attempt, BatchId, RegistrationId, Timestamp};
use crate::batch::leaf::{LeafEvent, LeafState};
use crate::batch::message::{
    Accepted, Dropped, Message, Nonces, Partial, Propose, Refuse, RefuseReason, Sign, Signed,
    Stored,
};
use crate::musig::{PartialSignature, PublicNonce};

type Outcome = Result<UserDecision, UserRejection>;

impl UserBatch {
    pub(super) fn message(&self, message: Message, now: Timestamp) -> Outcome {
        match message {
            Message::Accepted(message) => self.accepted(&message, now),
            Message::Declined(message) => {
                self.expect_registration(message.registration)?;
                match self.phase {
                    UserPhase::Registering { .. } => {
                        Ok(self.give_up(OverReason::Declined(message.reason)))
                    }
                    phase => Err(UserRejection::OutOfOrder { input: "declined", phase }),
                }
            }
            Message::Propose(message) => self.propose(*message),
            Message::Sign(message) => self.sign(message),
            Message::Signed(message) => self.signed(message),
            Message::Dropped(message) => self.dropped(&message),
            other => Err(UserRejection::NotForUser { kind: other.kind() }),
        }
    }

    /// §3.1: the hub has a place, on terms that must be acceptable.
    fn accepted(&self, message: &Accepted, now: Timestamp) -> Outcome {
        self.expect_registration(message.registration)?;
        let Accepted { batch, fee, expiry, closes_in_ms, .. } = *message;
        let place = Place { batch, fee, expiry };
        match self.phase {
            UserPhase::Registering { .. } => {}
            UserPhase::Accepted { .. } if self.place == Some(place) => {
                return Ok(Decision::nothing());
            }
            phase => return Err(UserRejection::OutOfOrder { input: "accepted", phase }),
        }
        let life = expiry.to_consensus_u32().checked_sub(self.request.best.to_consensus_u32());
        let is_fair = fee <= self.policy.fee_max
            && closes_in_ms <= self.policy.gathering_max_ms
            && life.is_some_and(|life| life >= self.policy.life_min);
        if !is_fair {
            return Ok(self.give_up(OverReason::Terms));
        }
        // Gathering, then a channel for everybody.
        let deadline = now.plus_ms(u64::from(closes_in_ms)).plus_ms(2 * self.policy.step_ms);
        let phase = UserPhase::Accepted { deadline };
        let events = vec![UserEvent::PlaceGiven { place }, UserEvent::PhaseEntered { phase }];
        Ok(Decision::new(events, vec![UserEffect::WakeAt { at: deadline }]))
    }

    /// §3.3: one proposal per attempt; the same again gets the same answer.
    fn propose(&self, message: Propose) -> Outcome {
        let place = self.expect_batch(message.batch)?;
        let attempt = message.attempt;
        let (root, leaf_txid) = (message.proposal.path.root, message.proposal.leaf_txid);
        let offer = Offer { attempt, root, leaf_txid };
        if !self.phase.is_forming() {
            let phase = self.phase;
            return Err(UserRejection::OutOfOrder { input: "proposal", phase });
        }
        let mut effects = vec![];
        if let Some(known) = self.offer {
            if known == offer {
                return Ok(self.repeat_nonces());
            }
            if known.attempt == attempt {
                let (known, changed) = (known.leaf_txid, leaf_txid);
                return Err(UserRejection::Changed { attempt, known, changed });
            }
            if known.attempt > attempt {
                let (named, attempt) = (attempt, Some(known.attempt));
                return Err(UserRejection::OtherAttempt { named, attempt });
            }
            // §3.8: a later attempt, with another key and other nonces.
            effects.push(UserEffect::ForgetAttempt { attempt: known.attempt });
        }
        let events = vec![
            UserEvent::Offered { offer },
            UserEvent::PhaseEntered { phase: UserPhase::Checking },
        ];
        let propose = Box::new(message);
        effects.push(UserEffect::CheckProposal { propose, expiry: place.expiry });
        Ok(Decision::new(events, effects))
    }

    pub(super) fn proposal_checked(
        &self,
        attempt: Attempt,
        result: Result<Agreed, RefuseReason>,
    ) -> Outcome {
        let offer = self.expect_attempt(attempt)?;
        self.expect_phase("checked proposal", UserPhase::Checking)?;
        match result {
            Ok(agreed) if agreed.attempt == attempt && agreed.root == offer.root => {
                let events = vec![
                    UserEvent::Agreed { agreed },
                    UserEvent::PhaseEntered { phase: UserPhase::Committing },
                ];
                Ok(Decision::new(events, vec![UserEffect::MakeNonces { attempt }]))
            }
            Ok(_) => Ok(self.refuse(attempt, RefuseReason::Internal)),
            Err(reason) => Ok(self.refuse(attempt, reason)),
        }
    }

    pub(super) fn nonces_made(
        &self,
        attempt: Attempt,
        nonces: Vec<PublicNonce>,
        now: Timestamp,
    ) -> Outcome {
        self.expect_attempt(attempt)?;
        self.expect_phase("nonces", UserPhase::Committing)?;
        self.expect_count("nonces", nonces.len())?;
        let deadline = now.plus_ms(self.policy.step_ms);
        let phase = UserPhase::AwaitingSign { deadline };
        let events = vec![
            UserEvent::NoncesMade { nonces: nonces.clone() },
            UserEvent::PhaseEntered { phase },
        ];
        let effects = self.send_nonces(nonces).into_iter();
        Ok(Decision::new(events, effects.chain([UserEffect::WakeAt { at: deadline }]).collect()))
    }

    /// §3.4: signs once. Told again, repeats what it signed.
    fn sign(&self, message: Sign) -> Outcome {
        self.expect_batch(message.batch)?;
        self.expect_attempt(message.attempt)?;
        self.expect_count("aggregated nonces", message.aggregated.len())?;
        match self.phase {
            UserPhase::AwaitingSign { .. } => {
                let phase = UserPhase::Signing;
                let Sign { attempt, aggregated, .. } = message;
                let effect = UserEffect::SignPartials { attempt, aggregated };
                Ok(Decision::new(vec![UserEvent::PhaseEntered { phase }], vec![effect]))
            }
            UserPhase::AwaitingSigned { .. } => {
                Ok(Decision::new(vec![], self.send_partials(self.partials.clone())))
            }
            UserPhase::Signing | UserPhase::Completing | UserPhase::Leaf(_) => {
                Ok(Decision::nothing())
            }
            phase => Err(UserRejection::OutOfOrder { input: "sign", phase }),
        }
    }

    pub(super) fn partials_made(
        &self,
        attempt: Attempt,
        partials: Vec<PartialSignature>,
        now: Timestamp,
    ) -> Outcome {
        self.expect_attempt(attempt)?;
        self.expect_phase("partial signatures", UserPhase::Signing)?;
        self.expect_count("partial signatures", partials.len())?;
        let deadline = now.plus_ms(self.policy.step_ms);
        let phase = UserPhase::AwaitingSigned { deadline };
        let made = UserEvent::PartialsMade { partials: partials.clone() };
        let effects = self.send_partials(partials).into_iter();
        Ok(Decision::new(
            vec![made, UserEvent::PhaseEntered { phase }],
            effects.chain([UserEffect::WakeAt { at: deadline }]).collect(),
        ))
    }

    /// §3.5: the final signatures. Told again after storing, says `stored` again.
    fn signed(&self, message: Signed) -> Outcome {
        self.expect_batch(message.batch)?;
        self.expect_attempt(message.attempt)?;
        self.expect_count("signatures", message.signatures.len())?;
        match self.phase {
            UserPhase::AwaitingSigned { .. } => {
                let Signed { attempt, signatures, .. } = message;
                let event = UserEvent::PhaseEntered { phase: UserPhase::Completing };
                let effect = UserEffect::CompletePath { attempt, signatures };
                Ok(Decision::new(vec![event], vec![effect]))
            }
            UserPhase::Completing => Ok(Decision::nothing()),
            UserPhase::Leaf(LeafState::Signed) => {
                Ok(Decision::new(vec![], self.send_stored().into_iter().collect()))
            }
            UserPhase::Leaf(_) => Ok(Decision::nothing()),
            phase => Err(UserRejection::OutOfOrder { input: "signed", phase }),
        }
    }

    pub(super) fn path_stored(&self, attempt: Attempt) -> Outcome {
        self.expect_attempt(attempt)?;
        if let UserPhase::Leaf(_) = self.phase {
            return Ok(Decision::nothing());
        }
        self.expect_phase("stored path", UserPhase::Completing)?;
        let phase = UserPhase::Leaf(LeafState::Signed);
        let effects = self.send_stored().into_iter().collect();
        Ok(Decision::new(vec![UserEvent::PhaseEntered { phase }], effects))
    }

    pub(super) fn path_wrong(&self, attempt: Attempt) -> Outcome {
        self.expect_attempt(attempt)?;
        self.expect_phase("wrong path", UserPhase::Completing)?;
        Ok(self.refuse(attempt, RefuseReason::Signature))
    }

    /// §3.8: the hub goes on without us, or not at all. Once commitments exist its word ends
    /// nothing: it has our signatures, and the batch transaction may be on its way.
    fn dropped(&self, message: &Dropped) -> Outcome {
        self.expect_batch(message.batch)?;
        if let Some(offer) = self.offer.filter(|offer| offer.attempt > message.attempt) {
            let (named, attempt) = (message.attempt, Some(offer.attempt));
            return Err(UserRejection::OtherAttempt { named, attempt });
        }
        match self.phase {
            phase if phase.is_forming() => Ok(self.give_up(OverReason::Dropped(message.reason))),
            UserPhase::Leaf(LeafState::Funded | LeafState::Dropped) => {
                self.step(LeafEvent::Dropped)
            }
            UserPhase::Over(_) => Ok(Decision::nothing()),
            phase => Err(UserRejection::OutOfOrder { input: "dropped", phase }),
        }
    }

    pub(super) fn give_up(&self, reason: OverReason) -> UserDecision {
        let phase = UserPhase::Over(reason);
        let forget = self.offer.map(|offer| UserEffect::ForgetAttempt { attempt: offer.attempt });
        let effects = forget.into_iter().chain([UserEffect::AbandonChannel]).collect();
        Decision::new(vec![UserEvent::PhaseEntered { phase }], effects)
    }

    fn refuse(&self, attempt: Attempt, reason: RefuseReason) -> UserDecision {
        let mut decision = self.give_up(OverReason::Refused(reason));
        if let Some(Place { batch, .. }) = self.place {
            let message = Message::Refuse(Refuse { batch, attempt, reason });
            decision.effects.insert(0, UserEffect::Send { message });
        }
        decision
    }

    fn repeat_nonces(&self) -> UserDecision {
        match self.phase {
            UserPhase::AwaitingSign { .. } => {
                Decision::new(vec![], self.send_nonces(self.nonces.clone()))
            }
            _ => Decision::nothing(),
        }
    }

    fn send_nonces(&self, nonces: Vec<PublicNonce>) -> Vec<UserEffect> {
        self.send(|batch, attempt| Message::Nonces(Nonces { batch, attempt, nonces }))
    }

    fn send_partials(&self, partials: Vec<PartialSignature>) -> Vec<UserEffect> {
        self.send(|batch, attempt| Message::Partial(Partial { batch, attempt, partials }))
    }

    pub(super) fn send_stored(&self) -> Vec<UserEffect> {
        self.send(|batch, attempt| Message::Stored(Stored { batch, attempt }))
    }

    /// Sends a message of the attempt at hand.
    fn send(&self, message: impl FnOnce(BatchId, Attempt) -> Message) -> Vec<UserEffect> {
        let (Some(place), Some(offer)) = (self.place, self.offer) else {
            return vec![];
        };
        vec![UserEffect::Send { message: message(place.batch, offer.attempt) }]
    }

    fn expect_registration(&self, named: RegistrationId) -> Result<(), UserRejection> {
        let registration = self.request.registration;
        if named != registration {
            return Err(UserRejection::OtherRegistration { named, registration });
        }
        Ok(())
    }

    fn expect_batch(&self, named: BatchId) -> Result<Place, UserRejection> {
        let batch = self.place.map(|place| place.batch);
        self.place
            .filter(|place| place.batch == named)
            .ok_or(UserRejection::OtherBatch { named, batch })
    }

    fn expect_attempt(&self, named: Attempt) -> Result<Offer, UserRejection> {
        let attempt = self.offer.map(|offer| offer.attempt);
        self.offer
            .filter(|offer| offer.attempt == named)
            .ok_or(UserRejection::OtherAttempt { named, attempt })
    }

    fn expect_phase(&self, input: &'static str, phase: UserPhase) -> Result<(), UserRejection> {
        if self.phase != phase {
            return Err(UserRejection::OutOfOrder { input, phase: self.phase });
        }
        Ok(())
    }

    fn expect_count(&self, what: &'static str, actual: usize) -> Result<(), UserRejection> {
        let Some(levels) = self.agreed.as_ref().map(|agreed| agreed.levels) else {
            return Err(UserRejection::OutOfOrder { input: what, phase: self.phase });
        };
        if actual != levels {
            return Err(UserRejection::Count { what, actual, levels });
        }
        Ok(())
    }
}
