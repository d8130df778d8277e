//! What a hub's batch does about an input. Each rule names the step of BATCHES §3 it implements.

use std::collections::BTreeSet;

use bitcoin::TxOut;

use super::draft::Draft;
use super::{
    HubBatch, HubDecision, HubEffect, HubEvent, HubInput, HubMember, HubPhase, HubRejection,
    StepState,
};
use crate::batch::Decision;
use crate::batch::ids::{Attempt, Peer, Timestamp};
use crate::batch::message::{
    Accepted, DeclineReason, Declined, DropReason, Message, Nonces, Partial, Register,
};

pub(super) type Outcome = Result<HubDecision, HubRejection>;

impl HubBatch {
    /// Decides about an input at `now`. Changes nothing by itself.
    ///
    /// # Errors
    ///
    /// [`HubRejection`] if the input is stale, out of order or wrong in a way that is nobody's
    /// fault in this batch. A wrong message of a member is no error: it leaves the member out.
    pub fn decide(&self, input: HubInput, now: Timestamp) -> Outcome {
        match input {
            HubInput::Message { peer, message, banned_until } => {
                self.message(peer, message, banned_until, now)
            }
            HubInput::Malformed { peer } => self.leave_out(peer, DropReason::Wrong, None, now),
            HubInput::Tick => Ok(self.draft().advance(now)),
            HubInput::Close => match self.phase {
                HubPhase::Gathering { .. } => Ok(self.draft().close_gathering(now)),
                _ => Err(HubRejection::NotGathering),
            },
            HubInput::PeerGone { peer } => match self.phase.can_leave_out() {
                true => self.leave_out(peer, DropReason::Gone, None, now),
                // Commitments are exchanged after it comes back, or the deadline passes.
                false => Ok(Decision::nothing()),
            },
            HubInput::ChannelReady { peer, funding } => self.channel_ready(peer, funding, now),
            HubInput::ChannelFailed { peer } => self.channel_failed(peer, now),
            HubInput::TreeBuilt { attempt, root } => {
                self.expect(attempt, "tree", matches!(self.phase, HubPhase::Building))?;
                let mut draft = self.draft();
                draft.emit(HubEvent::TreeBuilt { root });
                if draft.batch.broken {
                    draft.next_attempt();
                } else {
                    draft.enter_nonces(now);
                }
                Ok(draft.advance(now))
            }
            HubInput::TreeFailed { attempt } => {
                self.expect(attempt, "missing coins", matches!(self.phase, HubPhase::Building))?;
                Ok(self.draft().fail(DropReason::Funds))
            }
            HubInput::NoncesChecked { attempt, peer, right } => {
                let fits = matches!(self.phase, HubPhase::Nonces { .. });
                self.expect(attempt, "checked nonces", fits)?;
                let reason = (!right).then_some((DropReason::Wrong, None));
                self.answer_checked(peer, reason, now)
            }
            HubInput::Aggregated { attempt } => {
                let fits = matches!(self.phase, HubPhase::Aggregating);
                self.expect(attempt, "aggregated nonces", fits)?;
                Ok(self.draft().after_aggregation(now))
            }
            HubInput::PartialsChecked { attempt, peer, wrong_level } => {
                let fits = matches!(self.phase, HubPhase::Partials { .. });
                self.expect(attempt, "checked partial signatures", fits)?;
                // §3.4: the culprit of a wrong one is named.
                let reason = wrong_level.map(|level| (DropReason::Partial, Some(level)));
                self.answer_checked(peer, reason, now)
            }
            HubInput::TreeSigned { attempt } => {
                self.expect(attempt, "signed tree", matches!(self.phase, HubPhase::Finishing))?;
                Ok(self.draft().after_signing(now))
            }
            HubInput::FundingSafe { peer } => self.funding_safe(peer, now),
            HubInput::BatchBroadcast { txid } => {
                self.expect_transaction(txid)?;
                match self.phase {
                    HubPhase::Publishing => Ok(self.enter(HubPhase::Confirming)),
                    HubPhase::Confirming | HubPhase::Live { .. } => Ok(Decision::nothing()),
                    phase => Err(HubRejection::OutOfOrder { input: "broadcast", phase }),
                }
            }
            HubInput::BatchConfirmed { txid, at } => {
                self.expect_transaction(txid)?;
                match self.phase {
                    HubPhase::Live { at: known } if known == at => Ok(Decision::nothing()),
                    HubPhase::Publishing | HubPhase::Confirming | HubPhase::Live { .. } => {
                        Ok(self.enter(HubPhase::Live { at }))
                    }
                    phase => Err(HubRejection::OutOfOrder { input: "confirmation", phase }),
                }
            }
            HubInput::BatchDisconnected => match self.phase {
                HubPhase::Live { .. } => {
                    let mut decision = self.enter(HubPhase::Confirming);
                    decision.effects.extend(self.broadcast());
                    Ok(decision)
                }
                HubPhase::Confirming => Ok(Decision::nothing()),
                phase => Err(HubRejection::OutOfOrder { input: "reorg", phase }),
            },
            HubInput::BatchConflicted => match self.phase {
                HubPhase::Publishing | HubPhase::Confirming => {
                    Ok(self.draft().fail(DropReason::Conflict))
                }
                HubPhase::Failed { .. } => Ok(Decision::nothing()),
                phase => Err(HubRejection::OutOfOrder { input: "conflict", phase }),
            },
            HubInput::ChannelRetired { .. }
            | HubInput::ReleaseChecked { .. }
            | HubInput::Block { .. }
            | HubInput::ClosedForSweep
            | HubInput::RootSettled => self.end(input),
            HubInput::Restarted => match self.phase {
                // Sessions and channels without funding died with the process (§3.2).
                phase if phase.can_leave_out() || matches!(phase, HubPhase::Funding { .. }) => {
                    Ok(self.draft().fail(DropReason::Restart))
                }
                _ => Ok(Decision::nothing()),
            },
        }
    }

    /// Returns what must be done again after a restart, once [`HubInput::Restarted`] is applied.
    ///
    /// Before publishing nothing survives a restart; then it is the broadcast, then the end.
    pub fn unfinished_effects(&self) -> Vec<HubEffect> {
        match self.phase {
            HubPhase::Publishing | HubPhase::Confirming => self.broadcast().into_iter().collect(),
            HubPhase::Live { .. } if self.members.values().any(|member| member.released) => {
                vec![HubEffect::PlanReclaim]
            }
            HubPhase::Expiring { .. } => vec![self.close_for_sweep()],
            HubPhase::Failed { .. } => self.clean_up(),
            _ => vec![],
        }
    }

    fn message(
        &self,
        peer: Peer,
        message: Message,
        banned_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Outcome {
        let (batch, attempt) = match &message {
            Message::Register(register) => {
                return Ok(self.register(peer, register, banned_until, now));
            }
            Message::Nonces(message) => (message.batch, message.attempt),
            Message::Partial(message) => (message.batch, message.attempt),
            Message::Stored(message) => (message.batch, message.attempt),
            Message::Refuse(message) => (message.batch, message.attempt),
            Message::Release(message) => (message.batch, message.attempt),
            _ => return Err(HubRejection::NotForHub { kind: message.kind() }),
        };
        if batch != self.id {
            return Err(HubRejection::OtherBatch { named: batch, batch: self.id });
        }
        let step = self.member(peer)?.step;
        if attempt != self.attempt {
            return Err(HubRejection::OtherAttempt { named: attempt, attempt: self.attempt });
        }
        match message {
            Message::Nonces(message) => self.nonces(peer, step, message),
            Message::Partial(message) => self.partial(peer, step, message),
            Message::Stored(_) => self.stored(peer, now),
            Message::Refuse(_) => self.leave_out(peer, DropReason::Refused, None, now),
            Message::Release(message) => self.release(peer, message),
            other => Err(HubRejection::NotForHub { kind: other.kind() }),
        }
    }

    /// §3.1: accepts a user, or says why not. The same again gets the same answer.
    fn register(
        &self,
        peer: Peer,
        register: &Register,
        banned_until: Option<Timestamp>,
        now: Timestamp,
    ) -> HubDecision {
        let registration = register.registration;
        let decline = |reason| {
            let message = Message::Declined(Declined { registration, reason });
            Decision::new(vec![], vec![HubEffect::Send { peer, message }])
        };
        let HubPhase::Gathering { closes_at } = self.phase else {
            return decline(DeclineReason::Closed);
        };
        let left = closes_at.0.saturating_sub(now.0);
        let message = Message::Accepted(Accepted {
            registration,
            batch: self.id,
            fee: self.policy.fee,
            expiry: self.expiry,
            closes_in_ms: u32::try_from(left).unwrap_or(u32::MAX),
        });
        let accept = HubEffect::Send { peer, message };
        if let Some(member) = self.members.get(&peer) {
            if member.registration != registration {
                return decline(DeclineReason::Registered);
            }
            return Decision::new(vec![], vec![accept]);
        }
        if let Some(reason) = self.decline_reason(register, banned_until, now) {
            return decline(reason);
        }
        let member = HubMember {
            registration,
            capacity: register.capacity,
            inbound: register.inbound,
            tree_keys: register.tree_keys,
            channel: None,
            step: StepState::Waiting,
            retired: false,
            released: false,
        };
        let mut draft = self.draft();
        if self.members.is_empty() {
            draft.effects.push(HubEffect::WakeAt { at: closes_at });
        }
        draft.emit(HubEvent::MemberJoined { peer, member: Box::new(member) });
        draft.effects.push(accept);
        draft.advance(now)
    }

    fn decline_reason(
        &self,
        register: &Register,
        banned_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<DeclineReason> {
        let keys: BTreeSet<_> = register.tree_keys.iter().collect();
        let known = || self.members.values().flat_map(|member| &member.tree_keys);
        let capacities = self.policy.capacity_min..=self.policy.capacity_max;
        if banned_until.is_some_and(|until| now < until) {
            Some(DeclineReason::BackOff)
        } else if self.members.len() >= self.policy.users_max {
            Some(DeclineReason::Full)
        } else if !capacities.contains(&register.capacity) {
            Some(DeclineReason::Capacity)
        } else if register.inbound > register.capacity {
            Some(DeclineReason::Inbound)
        } else if keys.len() < register.tree_keys.len() || known().any(|key| keys.contains(key)) {
            Some(DeclineReason::Key)
        } else {
            None
        }
    }

    /// §3.2: a channel's funding script is known.
    fn channel_ready(&self, peer: Peer, funding: TxOut, now: Timestamp) -> Outcome {
        let member = self.member(peer)?;
        if member.channel.as_ref() == Some(&funding) {
            return Ok(Decision::nothing());
        }
        let HubPhase::Opening { .. } = self.phase else {
            let phase = self.phase;
            return Err(HubRejection::OutOfOrder { input: "channel", phase });
        };
        let (actual, expected) = (funding.value, member.capacity);
        if actual != expected {
            return Err(HubRejection::WrongCapacity { peer, actual, expected });
        }
        let mut draft = self.draft();
        draft.emit(HubEvent::ChannelKnown { peer, funding });
        draft.emit(HubEvent::StepDone { peer });
        Ok(draft.advance(now))
    }

    fn channel_failed(&self, peer: Peer, now: Timestamp) -> Outcome {
        self.member(peer)?;
        match self.phase {
            phase if phase.can_leave_out() => self.leave_out(peer, DropReason::Channel, None, now),
            // §3.6: a leaf without its commitments must never be broadcast.
            HubPhase::Funding { .. } => Ok(self.draft().fail(DropReason::Channel)),
            _ => Ok(Decision::nothing()),
        }
    }

    /// §3.4: nonces of one user.
    fn nonces(&self, peer: Peer, step: StepState, message: Nonces) -> Outcome {
        match (self.phase, step) {
            (HubPhase::Nonces { .. }, StepState::Waiting) => {
                let (attempt, nonces) = (message.attempt, message.nonces);
                let take = HubEffect::TakeNonces { attempt, peer, nonces };
                Ok(Decision::new(vec![HubEvent::AnswerTaken { peer }], vec![take]))
            }
            // It did not get our answer: send that again.
            (HubPhase::Partials { .. }, StepState::Waiting) => {
                let (attempt, peers) = (self.attempt, vec![peer]);
                Ok(Decision::new(vec![], vec![HubEffect::SendAggregated { attempt, peers }]))
            }
            (HubPhase::Gathering { .. } | HubPhase::Opening { .. } | HubPhase::Building, _) => {
                Err(HubRejection::OutOfOrder { input: "nonces", phase: self.phase })
            }
            _ => Ok(Decision::nothing()),
        }
    }

    /// §3.4: partial signatures of one user.
    fn partial(&self, peer: Peer, step: StepState, message: Partial) -> Outcome {
        match (self.phase, step) {
            (HubPhase::Partials { .. }, StepState::Waiting) => {
                let (attempt, partials) = (message.attempt, message.partials);
                let check = HubEffect::CheckPartials { attempt, peer, partials };
                Ok(Decision::new(vec![HubEvent::AnswerTaken { peer }], vec![check]))
            }
            (HubPhase::Storing { .. }, StepState::Waiting) => {
                let (attempt, peers) = (self.attempt, vec![peer]);
                Ok(Decision::new(vec![], vec![HubEffect::SendSigned { attempt, peers }]))
            }
            (phase, _) if self.tree.is_none_or(|tree| !tree.signed) => match phase {
                HubPhase::Partials { .. } | HubPhase::Finishing => Ok(Decision::nothing()),
                _ => Err(HubRejection::OutOfOrder { input: "partial signatures", phase }),
            },
            _ => Ok(Decision::nothing()),
        }
    }

    /// §3.5: a user has its path on its disk.
    fn stored(&self, peer: Peer, now: Timestamp) -> Outcome {
        match self.phase {
            HubPhase::Storing { .. } => self.step_done(peer, now),
            phase if phase.can_leave_out() || matches!(phase, HubPhase::Failed { .. }) => {
                Err(HubRejection::OutOfOrder { input: "stored", phase })
            }
            _ => Ok(Decision::nothing()),
        }
    }

    /// §3.6: commitments of both sides exist on a virtual outpoint.
    fn funding_safe(&self, peer: Peer, now: Timestamp) -> Outcome {
        self.member(peer)?;
        match self.phase {
            HubPhase::Funding { .. } => self.step_done(peer, now),
            HubPhase::Publishing | HubPhase::Confirming | HubPhase::Live { .. } => {
                Ok(Decision::nothing())
            }
            phase => Err(HubRejection::OutOfOrder { input: "safe funding", phase }),
        }
    }

    /// A member's answer was checked by the session: it counts, or leaves the member out.
    fn answer_checked(
        &self,
        peer: Peer,
        fault: Option<(DropReason, Option<usize>)>,
        now: Timestamp,
    ) -> Outcome {
        let step = self.member(peer)?.step;
        match (step, fault) {
            (StepState::Checking, Some((reason, level))) => {
                self.leave_out(peer, reason, level, now)
            }
            (StepState::Checking, None) => self.step_done(peer, now),
            (StepState::Done, None) => Ok(Decision::nothing()),
            (StepState::Waiting | StepState::Done, _) => {
                Err(HubRejection::OutOfOrder { input: "check of no answer", phase: self.phase })
            }
        }
    }

    fn step_done(&self, peer: Peer, now: Timestamp) -> Outcome {
        let member = self.member(peer)?;
        if member.step == StepState::Done {
            return Ok(Decision::nothing());
        }
        let done = HubEvent::StepDone { peer };
        let waiting =
            |(other, member): (&Peer, &HubMember)| *other != peer && member.step != StepState::Done;
        // Usually somebody is still missing, and no copy of the batch need be made.
        if self.members.iter().any(waiting) {
            return Ok(Decision::new(vec![done], vec![]));
        }
        let mut draft = self.draft();
        draft.emit(done);
        Ok(draft.advance(now))
    }

    /// §3.8: a user is left out as long as that is possible.
    fn leave_out(
        &self,
        peer: Peer,
        reason: DropReason,
        level: Option<usize>,
        now: Timestamp,
    ) -> Outcome {
        self.member(peer)?;
        if !self.phase.can_leave_out() {
            let phase = self.phase;
            return Err(HubRejection::OutOfOrder { input: "reason to leave a user out", phase });
        }
        let mut draft = self.draft();
        draft.leave_out(peer, reason, level);
        Ok(draft.advance(now))
    }

    pub(super) fn member(&self, peer: Peer) -> Result<&HubMember, HubRejection> {
        self.members.get(&peer).ok_or(HubRejection::NotMember { peer, batch: self.id })
    }

    fn expect(&self, named: Attempt, input: &'static str, fits: bool) -> Result<(), HubRejection> {
        if named != self.attempt {
            return Err(HubRejection::OtherAttempt { named, attempt: self.attempt });
        }
        if !fits {
            return Err(HubRejection::OutOfOrder { input, phase: self.phase });
        }
        Ok(())
    }

    fn expect_transaction(&self, actual: bitcoin::Txid) -> Result<(), HubRejection> {
        let Some(tree) = self.tree else {
            return Err(HubRejection::OutOfOrder { input: "transaction", phase: self.phase });
        };
        if tree.root.txid != actual {
            return Err(HubRejection::OtherTransaction { actual, expected: tree.root.txid });
        }
        Ok(())
    }

    /// §3.7: the one transaction that may be broadcast.
    pub(super) fn broadcast(&self) -> Option<HubEffect> {
        let tree = self.tree.filter(|tree| tree.signed && tree.attempt == self.attempt)?;
        Some(HubEffect::BroadcastBatch { attempt: tree.attempt, txid: tree.root.txid })
    }

    pub(super) fn clean_up(&self) -> Vec<HubEffect> {
        let close = self.members.keys().map(|peer| HubEffect::CloseChannel { peer: *peer });
        close.chain([HubEffect::ForgetAttempt { attempt: self.attempt }]).collect()
    }

    pub(super) fn enter(&self, phase: HubPhase) -> HubDecision {
        Decision::new(vec![HubEvent::PhaseEntered { phase }], vec![])
    }

    fn draft(&self) -> Draft {
        Draft::new(self)
    }
}
