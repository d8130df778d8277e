//! What an event does to a batch. Cannot fail, so that a journal can always be replayed.

use super::{HubBatch, HubEvent, HubMember, HubPhase, HubTree, StepState};

impl HubBatch {
    /// Applies an event that [`HubBatch::decide`] returned, or that a journal kept.
    ///
    /// An event about a peer that is no member changes nothing.
    pub fn apply(&mut self, event: HubEvent) {
        match event {
            HubEvent::MemberJoined { peer, member } => {
                self.left_out.remove(&peer);
                self.members.insert(peer, *member);
            }
            HubEvent::MemberLeftOut { peer, reason, .. } => {
                if self.members.remove(&peer).is_some() {
                    self.left_out.insert(peer, reason);
                    self.broken |= self.is_ceremony();
                }
            }
            HubEvent::ChannelKnown { peer, funding } => {
                self.change(peer, |member| member.channel = Some(funding));
            }
            HubEvent::AnswerTaken { peer } => {
                self.change(peer, |member| member.step = StepState::Checking);
            }
            HubEvent::StepDone { peer } => {
                self.change(peer, |member| member.step = StepState::Done);
            }
            HubEvent::PhaseEntered { phase } => {
                self.phase = phase;
                if phase.is_step() {
                    self.members.values_mut().for_each(|m| m.step = StepState::Waiting);
                }
            }
            HubEvent::AttemptBegun { attempt } => {
                self.attempt = attempt;
                self.broken = false;
                self.tree = None;
            }
            HubEvent::TreeBuilt { root } => {
                self.tree = Some(HubTree { attempt: self.attempt, root, signed: false });
            }
            HubEvent::TreeSigned => {
                if let Some(tree) = &mut self.tree {
                    tree.signed = true;
                }
            }
            HubEvent::Retired { peer } => self.change(peer, |member| member.retired = true),
            HubEvent::Released { peer } => self.change(peer, |member| member.released = true),
        }
    }

    fn change(&mut self, peer: super::Peer, change: impl FnOnce(&mut HubMember)) {
        if let Some(member) = self.members.get_mut(&peer) {
            change(member);
        }
    }

    /// Tells whether a tree of the present members is being built or signed, so that it would be
    /// spoilt by leaving one out.
    fn is_ceremony(&self) -> bool {
        matches!(
            self.phase,
            HubPhase::Building
                | HubPhase::Nonces { .. }
                | HubPhase::Aggregating
                | HubPhase::Partials { .. }
                | HubPhase::Finishing
                | HubPhase::Storing { .. }
        )
    }
}

impl HubPhase {
    /// Tells whether every user has something to do in it.
    pub fn is_step(self) -> bool {
        self.deadline().is_some() && !matches!(self, Self::Gathering { .. })
    }

    /// Returns when it ends at the latest, if it does by time.
    pub fn deadline(self) -> Option<super::Timestamp> {
        match self {
            Self::Gathering { closes_at: deadline }
            | Self::Opening { deadline }
            | Self::Nonces { deadline }
            | Self::Partials { deadline }
            | Self::Storing { deadline }
            | Self::Funding { deadline } => Some(deadline),
            Self::Building
            | Self::Aggregating
            | Self::Finishing
            | Self::Publishing
            | Self::Confirming
            | Self::Live { .. }
            | Self::Expiring { .. }
            | Self::Settled
            | Self::Failed { .. } => None,
        }
    }

    /// Tells whether a user can still be left out: before its channel is given its outpoint.
    pub fn can_leave_out(self) -> bool {
        matches!(
            self,
            Self::Gathering { .. }
                | Self::Opening { .. }
                | Self::Building
                | Self::Nonces { .. }
                | Self::Aggregating
                | Self::Partials { .. }
                | Self::Finishing
                | Self::Storing { .. }
        )
    }
}
