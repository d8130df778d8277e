//! From the stored path to the end: what the chain, the channel and the user itself do to a leaf.

use bitcoin::{Amount, OutPoint, TxOut, absolute};

use super::types::{OverReason, UnrollReason, UserEffect, UserEvent, UserInput, UserRejection};
use super::{UserBatch, UserDecision, UserPhase};
use crate::batch::Decision;
use crate::batch::deadlines::PendingHtlc;
use crate::batch::leaf::{LeafEvent, LeafState};

type Outcome = Result<UserDecision, UserRejection>;

impl UserBatch {
    pub(super) fn live(&self, input: UserInput) -> Outcome {
        match input {
            UserInput::CommitmentsExchanged { funding } => self.commitments_exchanged(funding),
            UserInput::ChannelFailed => match self.phase {
                phase if phase.is_forming() => Ok(self.give_up(OverReason::ChannelFailed)),
                // From here on the channel ends on chain, by its own rules.
                _ => Ok(Decision::nothing()),
            },
            UserInput::RootConfirmed { root, output, at } => self.root_confirmed(root, output, at),
            UserInput::RootDisconnected => self.step(LeafEvent::RootDisconnected),
            UserInput::RootConflicted => match self.phase {
                UserPhase::Leaf(LeafState::Signed | LeafState::Funded | LeafState::Dropped) => {
                    Ok(self.give_up(OverReason::Conflicted))
                }
                UserPhase::Over(_) => Ok(Decision::nothing()),
                phase => Err(UserRejection::OutOfOrder { input: "conflict", phase }),
            },
            UserInput::Block { best, htlcs } => Ok(self.block(best, &htlcs)),
            UserInput::RolloverFailed if self.rollover_begun => {
                Ok(Decision::new(vec![UserEvent::RolloverFailed], vec![]))
            }
            UserInput::ChannelClosed => self.step(LeafEvent::ChannelClosed),
            UserInput::ReleaseRequested { closing_balance, htlcs } => {
                self.release(closing_balance, htlcs)
            }
            UserInput::UnrollRequested => match self.leaf() {
                Some(LeafState::Confirmed { .. }) => Ok(self.unroll(UnrollReason::Requested)),
                _ => {
                    let phase = self.phase;
                    Err(UserRejection::OutOfOrder { input: "wish to leave", phase })
                }
            },
            UserInput::LeafConfirmed => {
                let mut decision = self.step(LeafEvent::LeafConfirmed)?;
                if self.leaf() == Some(LeafState::Retired) {
                    decision.effects.push(UserEffect::PublishClosing);
                }
                Ok(decision)
            }
            UserInput::AncestorSpent { confirmations } => {
                let mut decision = self.step(LeafEvent::AncestorSpent { confirmations })?;
                // §8.5: without this the monitor stays for ever.
                if !decision.events.is_empty() {
                    decision.effects.push(UserEffect::ForgetChannel);
                }
                Ok(decision)
            }
            _ => Ok(Decision::nothing()),
        }
    }

    /// §3.6: commitments count only on the outpoint the path ends in.
    fn commitments_exchanged(&self, funding: OutPoint) -> Outcome {
        let out_of_order = UserRejection::OutOfOrder { input: "commitments", phase: self.phase };
        let (UserPhase::Leaf(leaf), Some(agreed)) = (self.phase, &self.agreed) else {
            return Err(out_of_order);
        };
        match agreed.funding == funding {
            true => {}
            false if leaf == LeafState::Signed => {
                return Ok(self.give_up(OverReason::WrongFunding));
            }
            // It has those of its own outpoint, and maybe something in it.
            false => return Err(out_of_order),
        }
        let mut decision = self.step(LeafEvent::CommitmentsExchanged)?;
        if !decision.events.is_empty() {
            decision.effects.push(UserEffect::WatchRoot { agreed: agreed.clone() });
        }
        Ok(decision)
    }

    /// §4.4: only the output that the path spends, only with a stored path and commitments.
    fn root_confirmed(&self, root: OutPoint, output: TxOut, at: absolute::Height) -> Outcome {
        let (UserPhase::Leaf(_), Some(agreed)) = (self.phase, &self.agreed) else {
            let phase = self.phase;
            return Err(UserRejection::OutOfOrder { input: "confirmation", phase });
        };
        let actual = (root, output);
        let expected = (agreed.root, agreed.root_output.clone());
        if actual != expected {
            let (actual, expected) = (Box::new(actual), Box::new(expected));
            return Err(UserRejection::WrongRoot { actual, expected });
        }
        self.step(LeafEvent::RootConfirmed(at))
    }

    /// §5: what a new best block makes due.
    fn block(&self, best: absolute::Height, htlcs: &[PendingHtlc]) -> UserDecision {
        let (Some(leaf), Some(deadlines)) = (self.leaf(), self.deadlines()) else {
            return Decision::nothing();
        };
        // The closing transaction of a retired channel whose key was not handed over still pays
        // this user something: it must be on chain in time like a commitment.
        let pays_us = leaf == LeafState::Retired && !self.released;
        let at = match leaf {
            LeafState::Confirmed { at } => Some(at),
            LeafState::Retired if pays_us => None,
            _ => return Decision::nothing(),
        };
        if deadlines.must_unroll(best) {
            return self.unroll(UnrollReason::Deadline);
        }
        let Some(at) = at else { return Decision::nothing() };
        if htlcs.iter().any(|htlc| deadlines.must_pre_unroll(htlc, best)) {
            return self.unroll(UnrollReason::Htlc);
        }
        let is_due = deadlines.in_rollover_window(at, best);
        if is_due && !self.rollover_begun && self.unrolling.is_none() {
            return Decision::new(vec![UserEvent::RolloverBegun], vec![UserEffect::BeginRollover]);
        }
        Decision::nothing()
    }

    /// §8.1: the key of a retired, empty channel and of no other.
    fn release(&self, closing_balance: Amount, htlcs: usize) -> Outcome {
        let state = self.leaf();
        if state != Some(LeafState::Retired) || closing_balance > Amount::ZERO || htlcs > 0 {
            return Err(UserRejection::NotReleasable { state, closing_balance, htlcs });
        }
        let events = if self.released { vec![] } else { vec![UserEvent::Released] };
        Ok(Decision::new(events, self.send_release().into_iter().collect()))
    }

    pub(super) fn send_release(&self) -> Option<UserEffect> {
        let (place, agreed) = (self.place?, self.agreed.as_ref()?);
        Some(UserEffect::SendRelease { batch: place.batch, attempt: agreed.attempt })
    }

    /// Publishes the path, unless that is under way.
    fn unroll(&self, reason: UnrollReason) -> UserDecision {
        if self.unrolling.is_some() {
            return Decision::nothing();
        }
        let effect = UserEffect::PublishPath { reason };
        Decision::new(vec![UserEvent::UnrollBegun { reason }], vec![effect])
    }

    fn leaf(&self) -> Option<LeafState> {
        match self.phase {
            UserPhase::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    /// Moves the leaf, if the event says something new.
    pub(super) fn step(&self, event: LeafEvent) -> Outcome {
        let UserPhase::Leaf(leaf) = self.phase else {
            let phase = self.phase;
            return Err(UserRejection::OutOfOrder { input: "event of a leaf", phase });
        };
        let next = leaf.after(event)?;
        if next == leaf {
            return Ok(Decision::nothing());
        }
        let phase = UserPhase::Leaf(next);
        Ok(Decision::new(vec![UserEvent::PhaseEntered { phase }], vec![]))
    }
}
