//! What peers say, and which machine hears it.

use channel_contracts::batch::hub::HubInput;
use channel_contracts::batch::message::{Closed, DeclineReason, Declined, DropReason, Dropped};
use channel_contracts::batch::user::UserInput;
use channel_contracts::batch::{Attempt, BatchId, HubPhase, Message, Peer};

use super::closed::ClosedWord;
use super::service::{Batches, Input, State};
use super::user::UserLife;
use crate::lightning::BatchArrival;
use crate::lightning::types::NodeId;

impl Batches {
    /// Who a message is for.
    pub(super) fn arrived(&self, state: &mut State, arrival: BatchArrival) -> Vec<Input> {
        match arrival {
            BatchArrival::Connected { peer } => {
                self.parts.swaps.connected(peer);
                let users = state.user.iter().filter(|(_, life)| life.hub == peer);
                users.map(|(id, _)| Input::Repeat(*id)).collect()
            }
            BatchArrival::Gone { peer } => {
                let peer = Peer(peer);
                let hubs = state.hub.iter().filter(|(_, life)| {
                    life.machine.members().contains_key(&peer)
                        && life.machine.phase().deadline().is_some()
                });
                hubs.map(|(id, _)| Input::Hub(*id, HubInput::PeerGone { peer })).collect()
            }
            BatchArrival::Malformed { peer, kind, detail } => {
                tracing::warn!(%peer, kind, detail, "peer sent a wrong batch message");
                let member = Peer(peer);
                let hubs = state
                    .hub
                    .iter()
                    .filter(|(_, life)| life.machine.members().contains_key(&member))
                    .map(|(id, _)| Input::Hub(*id, HubInput::Malformed { peer: member }));
                let users = state
                    .user
                    .iter()
                    .filter(|(_, life)| life.hub == peer)
                    .map(|(id, _)| Input::User(*id, UserInput::Malformed));
                hubs.chain(users).collect()
            }
            BatchArrival::TakenUp { peer, channel } => {
                state.closed.push(ClosedWord::TakenUp { peer, channel });
                vec![]
            }
            BatchArrival::Message { peer, message } => self.message(state, peer, message),
        }
    }

    fn message(&self, state: &mut State, from: NodeId, message: Message) -> Vec<Input> {
        let peer = Peer(from);
        let for_hub = |id: BatchId, message, banned_until| {
            vec![Input::Hub(id, HubInput::Message { peer, message, banned_until })]
        };
        // A member that was away must hear that its batch is over, also if nothing is left of it.
        let member = |state: &State, batch: BatchId, attempt: Attempt, message: Message| {
            let reason = match state.hub.get(&batch).map(|life| life.machine.phase()) {
                Some(HubPhase::Failed { reason }) => reason,
                None => DropReason::Restart,
                Some(_) => return for_hub(batch, message, None),
            };
            self.parts.send(peer, &Message::Dropped(Dropped { batch, attempt, reason }));
            vec![]
        };
        let mine = |life: &UserLife, batch: BatchId| {
            life.hub == from && life.machine.place().is_some_and(|place| place.batch == batch)
        };
        match &message {
            Message::Register(register) => {
                let Some(id) = self.gathering(state) else {
                    let (registration, reason) =
                        (register.registration, DeclineReason::Unavailable);
                    self.parts.send(peer, &Message::Declined(Declined { registration, reason }));
                    return vec![];
                };
                let until = state.faults.banned_until(peer);
                for_hub(id, message, until)
            }
            Message::Nonces(of) => member(state, of.batch, of.attempt, message),
            Message::Partial(of) => member(state, of.batch, of.attempt, message),
            Message::Stored(of) => member(state, of.batch, of.attempt, message),
            Message::Refuse(of) => for_hub(of.batch, message, None),
            Message::Release(of) => for_hub(of.batch, message, None),
            Message::Accepted(_)
            | Message::Declined(_)
            | Message::Propose(_)
            | Message::Sign(_)
            | Message::Signed(_)
            | Message::Dropped(_) => {
                let wish = state.user.iter().find(|(id, life)| match &message {
                    Message::Accepted(of) => **id == of.registration && life.hub == from,
                    Message::Declined(of) => **id == of.registration && life.hub == from,
                    Message::Propose(of) => mine(life, of.batch),
                    Message::Sign(of) => mine(life, of.batch),
                    Message::Signed(of) => mine(life, of.batch),
                    Message::Dropped(of) => mine(life, of.batch),
                    _ => false,
                });
                let Some((id, _)) = wish else {
                    tracing::info!(peer = %from, kind = message.kind(), "no wish is meant");
                    return vec![];
                };
                vec![Input::User(*id, UserInput::Message { message })]
            }
            Message::Roll(_) | Message::Rolling(_) | Message::Stay(_) => {
                state.rollovers.hear(from, message);
                vec![]
            }
            Message::Closed(Closed { transaction }) => {
                let transaction = transaction.clone();
                state.closed.push(ClosedWord::Shown { peer: from, transaction });
                vec![]
            }
            Message::Withdraw(_)
            | Message::Withdrawing(_)
            | Message::Deposit(_)
            | Message::Depositing(_)
            | Message::Deposited(_)
            | Message::Refused(_)
            | Message::Reveal(_)
            | Message::HandOver(_) => {
                self.parts.swaps.hear(from, message);
                vec![]
            }
        }
    }
}
