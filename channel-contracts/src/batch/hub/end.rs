//! How a live batch ends: keys released, reclaimed early or swept at E, settled.

use super::decide::Outcome;
use super::{HubBatch, HubEffect, HubEvent, HubInput, HubPhase, HubRejection};
use crate::batch::Decision;
use crate::batch::ids::Peer;
use crate::batch::message::Release;

impl HubBatch {
    pub(super) fn end(&self, input: HubInput) -> Outcome {
        match (input, self.phase) {
            (HubInput::ChannelRetired { peer }, HubPhase::Live { .. }) => {
                let events = match self.member(peer)?.retired {
                    true => vec![],
                    false => vec![HubEvent::Retired { peer }],
                };
                Ok(Decision::new(events, vec![]))
            }
            (HubInput::ReleaseChecked { peer, right }, _) => self.release_checked(peer, right),
            (HubInput::Block { best }, HubPhase::Live { at }) if best >= self.expiry => {
                // §8.4: close before sweeping.
                let mut decision = self.enter(HubPhase::Expiring { at });
                decision.effects.push(self.close_for_sweep());
                Ok(decision)
            }
            (HubInput::Block { .. }, _) => Ok(Decision::nothing()),
            (HubInput::ClosedForSweep, HubPhase::Expiring { .. }) => {
                Ok(Decision::new(vec![], vec![HubEffect::SweepExpired]))
            }
            (HubInput::RootSettled, HubPhase::Live { .. } | HubPhase::Expiring { .. }) => {
                Ok(self.enter(HubPhase::Settled))
            }
            (HubInput::RootSettled, HubPhase::Settled) => Ok(Decision::nothing()),
            (_, phase) => Err(HubRejection::OutOfOrder { input: "end of a channel", phase }),
        }
    }

    /// §8.1: takes the secret of a retired channel.
    pub(super) fn release(&self, peer: Peer, message: Release) -> Outcome {
        let HubPhase::Live { .. } = self.phase else {
            return Err(HubRejection::OutOfOrder { input: "release", phase: self.phase });
        };
        let member = self.member(peer)?;
        match (member.retired, member.released) {
            (false, _) => Err(HubRejection::NotRetired { peer }),
            (true, true) => Ok(Decision::nothing()),
            (true, false) => {
                let check = HubEffect::CheckRelease { peer, secret: message.secret };
                Ok(Decision::new(vec![], vec![check]))
            }
        }
    }

    fn release_checked(&self, peer: Peer, right: bool) -> Outcome {
        let member = self.member(peer)?;
        match (right, member.retired, member.released) {
            (false, ..) => Err(HubRejection::WrongSecret { peer }),
            (true, false, _) => Err(HubRejection::NotRetired { peer }),
            (true, true, true) => Ok(Decision::nothing()),
            (true, true, false) => {
                let events = vec![HubEvent::Released { peer }];
                Ok(Decision::new(events, vec![HubEffect::PlanReclaim]))
            }
        }
    }

    pub(super) fn close_for_sweep(&self) -> HubEffect {
        let open = self.members.iter().filter(|(_, member)| !member.retired);
        HubEffect::CloseForSweep { peers: open.map(|(peer, _)| *peer).collect() }
    }
}
