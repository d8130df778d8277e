//! How the steps of a batch follow each other: a batch as events change it, while deciding.

use super::{HubBatch, HubDecision, HubEffect, HubEvent, HubPhase, StepState, TreeMember};
use crate::batch::Decision;
use crate::batch::ids::{Peer, Timestamp};
use crate::batch::message::{DropReason, Dropped, Message};

/// A batch as it would be after the events decided on so far.
pub(super) struct Draft {
    pub(super) batch: HubBatch,
    events: Vec<HubEvent>,
    pub(super) effects: Vec<HubEffect>,
}

impl Draft {
    pub(super) fn new(batch: &HubBatch) -> Self {
        Self { batch: batch.clone(), events: vec![], effects: vec![] }
    }

    pub(super) fn emit(&mut self, event: HubEvent) {
        self.batch.apply(event.clone());
        self.events.push(event);
    }

    fn enter(&mut self, phase: HubPhase) {
        self.emit(HubEvent::PhaseEntered { phase });
        self.effects.extend(phase.deadline().map(|at| HubEffect::WakeAt { at }));
    }

    pub(super) fn decision(self) -> HubDecision {
        Decision::new(self.events, self.effects)
    }

    fn peers(&self) -> Vec<Peer> {
        self.batch.members.keys().copied().collect()
    }

    pub(super) fn leave_out(&mut self, peer: Peer, reason: DropReason, level: Option<usize>) {
        self.emit(HubEvent::MemberLeftOut { peer, reason, level });
        let (batch, attempt) = (self.batch.id, self.batch.attempt);
        let message = Message::Dropped(Dropped { batch, attempt, reason });
        self.effects.push(HubEffect::Send { peer, message });
        self.effects.push(HubEffect::CloseChannel { peer });
    }

    /// Ends the step at hand if everybody has answered or its deadline has passed.
    pub(super) fn advance(mut self, now: Timestamp) -> HubDecision {
        let phase = self.batch.phase;
        let Some(deadline) = phase.deadline() else {
            return self.decision();
        };
        let is_due = now >= deadline;
        if let HubPhase::Gathering { .. } = phase {
            let is_full = self.batch.members.len() >= self.batch.policy.users_max;
            return if is_due || is_full { self.close_gathering(now) } else { self.decision() };
        }
        if let HubPhase::Funding { .. } = phase {
            return self.advance_funding(is_due);
        }
        if is_due {
            // §3.8. An answer that the shell still checks is not silence.
            let is_silent = |peer: &Peer| self.batch.members[peer].step == StepState::Waiting;
            for peer in self.peers().into_iter().filter(is_silent).collect::<Vec<_>>() {
                self.leave_out(peer, DropReason::Silent, None);
            }
        }
        if self.batch.members.values().any(|member| member.step != StepState::Done) {
            return self.decision();
        }
        self.end_step(now)
    }

    /// Goes from a step that everybody left in it has done to what follows.
    fn end_step(mut self, now: Timestamp) -> HubDecision {
        if self.batch.members.is_empty() {
            return self.fail(DropReason::Empty);
        }
        let attempt = self.batch.attempt;
        match self.batch.phase {
            HubPhase::Opening { .. } => self.build(),
            _ if self.batch.broken => self.next_attempt(),
            HubPhase::Nonces { .. } => {
                self.enter(HubPhase::Aggregating);
                self.effects.push(HubEffect::Aggregate { attempt });
            }
            HubPhase::Partials { .. } => {
                self.enter(HubPhase::Finishing);
                self.effects.push(HubEffect::Finish { attempt });
            }
            HubPhase::Storing { .. } => {
                let deadline = now.plus_ms(self.batch.policy.funding_ms);
                self.enter(HubPhase::Funding { deadline });
                let peers = self.peers();
                self.effects.push(HubEffect::FundChannels { attempt, peers });
            }
            _ => {}
        }
        self.decision()
    }

    pub(super) fn close_gathering(mut self, now: Timestamp) -> HubDecision {
        if self.batch.members.is_empty() {
            return self.fail(DropReason::Empty);
        }
        self.enter(HubPhase::Opening { deadline: now.plus_ms(self.batch.policy.step_ms) });
        let open = self.batch.members.iter().map(|(peer, member)| HubEffect::OpenChannel {
            peer: *peer,
            capacity: member.capacity,
        });
        self.effects.extend(open.collect::<Vec<_>>());
        self.decision()
    }

    /// §3.6 and §3.7: only when every channel is safe may the batch transaction go out.
    fn advance_funding(mut self, is_due: bool) -> HubDecision {
        if self.batch.members.values().all(|member| member.step == StepState::Done) {
            self.enter(HubPhase::Publishing);
            let broadcast = self.batch.broadcast();
            self.effects.extend(broadcast);
            return self.decision();
        }
        if is_due {
            return self.fail(DropReason::Funding);
        }
        self.decision()
    }

    fn build(&mut self) {
        self.enter(HubPhase::Building);
        let attempt = self.batch.attempt;
        let members = self.batch.members.iter().filter_map(|(peer, member)| {
            let tree_key = attempt.key_of(&member.tree_keys);
            Some(TreeMember { peer: *peer, tree_key, funding: member.channel.clone()? })
        });
        let members: Vec<_> = members.collect();
        assert_eq!(
            members.len(),
            self.batch.members.len(),
            "opening ends with every channel known"
        );
        let expiry = self.batch.expiry;
        self.effects.push(HubEffect::BuildTree { attempt, members, expiry });
    }

    /// §3.8: the tree is re-shaped and signed again with fresh keys and nonces.
    pub(super) fn next_attempt(&mut self) {
        if self.batch.members.is_empty() {
            return self.give_up(DropReason::Empty);
        }
        let Some(attempt) = self.batch.attempt.next() else {
            return self.give_up(DropReason::Attempts);
        };
        self.effects.push(HubEffect::ForgetAttempt { attempt: self.batch.attempt });
        self.emit(HubEvent::AttemptBegun { attempt });
        self.build();
    }

    pub(super) fn enter_nonces(&mut self, now: Timestamp) {
        let (attempt, peers) = (self.batch.attempt, self.peers());
        self.enter(HubPhase::Nonces { deadline: now.plus_ms(self.batch.policy.step_ms) });
        self.effects.push(HubEffect::Propose { attempt, peers });
    }

    pub(super) fn after_aggregation(mut self, now: Timestamp) -> HubDecision {
        if self.batch.broken {
            self.next_attempt();
            return self.decision();
        }
        let (attempt, peers) = (self.batch.attempt, self.peers());
        self.enter(HubPhase::Partials { deadline: now.plus_ms(self.batch.policy.step_ms) });
        self.effects.push(HubEffect::SendAggregated { attempt, peers });
        self.decision()
    }

    pub(super) fn after_signing(mut self, now: Timestamp) -> HubDecision {
        if self.batch.broken {
            self.next_attempt();
            return self.decision();
        }
        let (attempt, peers) = (self.batch.attempt, self.peers());
        self.emit(HubEvent::TreeSigned);
        self.enter(HubPhase::Storing { deadline: now.plus_ms(self.batch.policy.step_ms) });
        self.effects.push(HubEffect::SendSigned { attempt, peers });
        self.decision()
    }

    pub(super) fn fail(mut self, reason: DropReason) -> HubDecision {
        self.give_up(reason);
        self.decision()
    }

    fn give_up(&mut self, reason: DropReason) {
        self.enter(HubPhase::Failed { reason });
        let (batch, attempt) = (self.batch.id, self.batch.attempt);
        for peer in self.peers() {
            let message = Message::Dropped(Dropped { batch, attempt, reason });
            self.effects.push(HubEffect::Send { peer, message });
        }
        self.effects.extend(self.batch.clean_up());
    }
}
