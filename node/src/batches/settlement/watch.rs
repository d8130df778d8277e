//! What blocks and the records of channels say to the machines, and which channels are dead.

use bitcoin::{FeeRate, OutPoint, Txid};
use channel_contracts::batch::hub::HubInput;
use channel_contracts::batch::leaf::DEATH_DEPTH;
use channel_contracts::batch::user::UserInput;
use channel_contracts::batch::{BatchId, HubPhase, LeafState, UserPhase};

use crate::batches::service::{Batches, Input, State};
use crate::channels::{ChannelRecord, ChannelState};
use crate::lightning::CloseKind;
use crate::lightning::types::NodeId;

/// How the end of a hub's batch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementView {
    /// Where the batch stands.
    pub phase: HubPhase,
    /// Users whose channel both sides have closed.
    pub retired: Vec<NodeId>,
    /// Users who have handed their key over.
    pub released: Vec<NodeId>,
    /// Users who handed over a key that is not theirs, since the last start.
    pub refused: Vec<NodeId>,
    /// The transaction that takes outputs back, until the next one, and what it pays.
    pub transaction: Option<(Txid, FeeRate)>,
}

impl Batches {
    /// How the end of a batch of this hub stands; `None` if it has no such batch.
    pub async fn settlement(&self, batch: BatchId) -> Option<SettlementView> {
        let state = self.state.lock().await;
        let life = state.hub.get(&batch)?;
        let members = || life.machine.members().iter();
        let retired = members().filter(|(_, member)| member.retired);
        let released = members().filter(|(_, member)| member.released);
        Some(SettlementView {
            phase: life.machine.phase(),
            retired: retired.map(|(peer, _)| peer.0).collect(),
            released: released.map(|(peer, _)| peer.0).collect(),
            refused: life.settling.refused().iter().map(|peer| peer.0).collect(),
            transaction: life.settling.pending(),
        })
    }

    /// What the machines must be told at the block `best` beside the block itself: channels that
    /// were closed by both sides, outputs above a leaf that were taken, and that it is time to
    /// look at what can be taken back.
    pub(in crate::batches) fn settlement_inputs(&self, state: &State, best: u32) -> Vec<Input> {
        let mut inputs = self.retired_at_hubs(state);
        inputs.extend(state.hub.keys().map(|id| Input::Settle(*id)));
        for (id, life) in &state.user {
            let UserPhase::Leaf(leaf @ (LeafState::Confirmed { .. } | LeafState::Retired)) =
                life.machine.phase()
            else {
                continue;
            };
            let Some(agreed) = life.machine.agreed() else { continue };
            let record = self.parts.confirmations.get(agreed.root);
            let taken = record.and_then(|record| {
                let leaf = record.leaves().iter().find(|l| l.txid() == agreed.funding.txid)?;
                record.taken_above(leaf)
            });
            match taken {
                Some(spend) => {
                    let confirmations = spend.confirmations(best);
                    inputs.push(Input::User(*id, UserInput::AncestorSpent { confirmations }));
                }
                // The hub may have heard it before it knew that the channel is retired.
                None if leaf == LeafState::Retired
                    && life.machine.released()
                    && self.parts.lightning.is_connected(&life.hub) =>
                {
                    inputs.push(Input::Repeat(*id));
                }
                None => {}
            }
        }
        self.forget_the_dead(best);
        inputs
    }

    /// Channels of this hub's batches that both sides have closed, and whose machine has not
    /// heard of it: LDK's events wait in memory and may be lost in a crash.
    pub(in crate::batches) fn retired_at_hubs(&self, state: &State) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (id, life) in &state.hub {
            if !matches!(life.machine.phase(), HubPhase::Live { .. }) {
                continue;
            }
            for (peer, channel) in &life.channels {
                let member = life.machine.members().get(peer);
                let is_open = member.is_some_and(|member| !member.retired);
                let record = is_open.then(|| self.parts.channels.recorded(*channel)).flatten();
                if record.is_some_and(|record| is_closed_together(&record)) {
                    inputs.push(Input::Hub(*id, HubInput::ChannelRetired { peer: *peer }));
                }
            }
        }
        inputs
    }

    /// §8.5: what LDK keeps of channels whose leaf can never be on chain any more goes, and
    /// closing transactions that have done their duty. Found from the records of the chain, so
    /// that either role and any restart comes to the same.
    fn forget_the_dead(&self, best: u32) {
        let dead = self.parts.confirmations.dead_leaves(best, DEATH_DEPTH);
        let recorded = self.parts.channels.by_funding();
        let mut forgotten = self.forgotten.lock();
        for (root, leaf) in dead {
            let is_new = |funding: &OutPoint| funding.txid == leaf && !forgotten.contains(funding);
            let channels: Vec<_> = recorded.iter().filter(|(funding, _)| is_new(funding)).collect();
            if channels.is_empty() {
                continue;
            }
            // No commitment of it brings a path onto the chain, which nothing can.
            self.parts.unroller.set_aside(root);
            for (funding, channel) in channels {
                let Some(record) = self.parts.channels.recorded(*channel) else { continue };
                self.parts.channels.close_for_the_books(*channel, "its batch is settled");
                let _parked_for_nothing = self.parts.lightning.forget_withheld(*funding);
                let gone = match record.channel_id {
                    Some(id) if self.parts.lightning.has_monitor(id) => {
                        self.parts.lightning.forget_monitor(id).is_some()
                    }
                    _ => true,
                };
                if gone {
                    tracing::info!(%funding, "channel of a settled batch is dead");
                    forgotten.insert(*funding);
                }
            }
        }
        drop(forgotten);
        for funding in self.parts.lightning.parked_fundings() {
            let record = recorded.get(&funding).and_then(|c| self.parts.channels.recorded(*c));
            let id = record.and_then(|record| record.channel_id);
            // LDK archives a monitor when all that it claims is buried.
            if id.is_some_and(|id| !self.parts.lightning.has_monitor(id)) {
                let _nothing_left = self.parts.lightning.forget_withheld(funding);
            }
        }
    }
}

fn is_closed_together(record: &ChannelRecord) -> bool {
    record.state == ChannelState::Closed && record.close_kind == Some(CloseKind::Cooperative)
}
