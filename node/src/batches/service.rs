//! The loop of the batch service, and what callers ask for.
//!
//! Whatever reaches a machine goes through [`Batches::turn`], one at a time: decide, make durable
//! what must be, then act; what an act comes to is decided in its turn. LDK's events wait in a
//! queue in memory. One that is lost in a crash is found again at the start, when each machine
//! is compared with the records of channels and of the chain.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitcoin::{Amount, OutPoint, Txid, absolute};
use channel_contracts::batch::hub::{HubEvent, HubInput};
use channel_contracts::batch::user::UserInput;
use channel_contracts::batch::{
    BatchId, HubBatch, HubEffect, HubPhase, LeafState, RegistrationId, Timestamp, UserEffect,
    UserPhase,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};

use super::closed::ClosedWord;
use super::faults::Faults;
use super::hub::HubLife;
use super::phases::PhaseProbe;
use super::record::{EventLog, HubBegun, load_hub, load_user};
use super::rollover::{self, Rollovers};
use super::user::UserLife;
use super::{BatchPolicy, Parts};
use crate::chain::follower::SyncState;
use crate::channels::ChannelState;
use crate::config::BatchConfig;
use crate::journal::{BatchEvent, DomainEvent};
use crate::lightning::types::ChannelRef;
use crate::lightning::{CloseKind, LightningEvent};
use crate::runtime::Tasks;
use crate::store::{Batch, StoreError};

/// How often channels are looked at while balances move.
const LOOK: Duration = Duration::from_millis(250);

/// The channel service of batches, for both roles.
pub struct Batches {
    pub(super) parts: Parts,
    /// Held through a turn.
    pub(super) state: AsyncMutex<State>,
    /// What LDK said since the last turn.
    heard: Mutex<VecDeque<Heard>>,
    /// Funding outputs of channels whose monitors go with the next start.
    pub(super) forgotten: Mutex<HashSet<OutPoint>>,
    woken: Notify,
    views: watch::Sender<u64>,
    /// Whether payments and channels concern a rollover.
    is_moving: AtomicBool,
    /// What the next batch offers.
    pub(super) offer: Mutex<BatchConfig>,
    /// How long batches stay where.
    pub(super) phases: PhaseProbe,
}

#[derive(Default)]
pub(super) struct State {
    pub hub: BTreeMap<BatchId, HubLife>,
    /// The batch that gathers users.
    gathering: Option<BatchId>,
    pub user: BTreeMap<RegistrationId, UserLife>,
    pub faults: Faults,
    pub rollovers: Rollovers,
    /// What peers said of channels that one side takes for open.
    pub closed: Vec<ClosedWord>,
    /// The best block told to the machines.
    pub best: u32,
}

impl State {
    /// The batch that gathers users, if one does.
    pub fn gathers(&self) -> Option<BatchId> {
        let phase = |id: &BatchId| self.hub.get(id).map(|life| life.machine.phase());
        self.gathering.filter(|id| matches!(phase(id), Some(HubPhase::Gathering { .. })))
    }

    /// The hub's batches that came to nothing.
    fn failed(&self) -> impl Iterator<Item = BatchId> {
        let failed = |life: &HubLife| matches!(life.machine.phase(), HubPhase::Failed { .. });
        self.hub.iter().filter(move |(_, life)| failed(life)).map(|(id, _)| *id)
    }
}

/// What LDK said about a channel that may be one of a batch.
#[derive(Debug, Clone)]
enum Heard {
    Funding { channel: ChannelRef, output: bitcoin::TxOut },
    Safe { channel: ChannelRef },
    Commitments { channel: ChannelRef, funding: OutPoint },
    Closed { channel: ChannelRef, kind: CloseKind },
}

/// What reaches a machine.
pub(super) enum Input {
    Hub(BatchId, HubInput),
    User(RegistrationId, UserInput),
    /// The hub is connected again and may not have heard what this wish said last.
    Repeat(RegistrationId),
    /// It is time to look at what a hub can take back of a batch.
    Settle(BatchId),
}

pub(super) enum Effect {
    Hub(BatchId, HubEffect),
    User(RegistrationId, UserEffect),
}

impl Batches {
    /// Reads what the store has and tells each machine that the node was restarted.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (machine, log) in load_hub(&parts.committer)? {
            let mut life = HubLife::new(machine, log);
            life.restore(&parts)?;
            state.hub.insert(life.machine.id(), life);
        }
        let recorded = parts.channels.by_funding();
        for (begun, machine, log) in load_user(&parts.committer)? {
            let mut life = UserLife::new(begun.hub, begun.follows, machine, log);
            life.channel =
                begun.channel.or_else(|| life.funding().and_then(|f| recorded.get(&f).copied()));
            state.user.insert(life.registration(), life);
        }
        state.rollovers = rollover::load(&parts.committer)?;
        Ok(Self {
            offer: Mutex::new(parts.policy.config.clone()),
            parts,
            phases: PhaseProbe::default(),
            state: AsyncMutex::new(state),
            heard: Mutex::default(),
            forgotten: Mutex::default(),
            woken: Notify::new(),
            views: watch::Sender::new(0),
            is_moving: AtomicBool::new(true),
        })
    }

    /// Hears LDK.
    pub fn handle(&self, event: &LightningEvent) {
        let heard = match event {
            LightningEvent::FundingNeeded { channel, capacity_sat, funding_script, .. } => {
                let output = bitcoin::TxOut {
                    value: Amount::from_sat(*capacity_sat),
                    script_pubkey: funding_script.clone(),
                };
                Heard::Funding { channel: *channel, output }
            }
            LightningEvent::FundingSafe { channel, .. } => Heard::Safe { channel: *channel },
            LightningEvent::ChannelPending { channel, funding, .. } => {
                Heard::Commitments { channel: *channel, funding: *funding }
            }
            LightningEvent::ChannelClosed { channel, kind, .. } => {
                Heard::Closed { channel: *channel, kind: *kind }
            }
            LightningEvent::ChannelReady { .. }
            | LightningEvent::Claimable { .. }
            | LightningEvent::Claimed { .. }
            | LightningEvent::Sent { .. }
            | LightningEvent::Failed { .. } => {
                if self.is_moving.load(Ordering::Relaxed) {
                    self.woken.notify_one();
                }
                return;
            }
            _ => return,
        };
        self.heard.lock().push_back(heard);
        self.woken.notify_one();
    }

    /// Runs until the stop signal.
    pub async fn run(self: Arc<Self>, mut sync: watch::Receiver<SyncState>, tasks: Tasks) {
        if let Err(error) = self.restarted().await {
            return tracing::error!(%error, "batches stand still");
        }
        self.parts.swaps.all_have_departed();
        loop {
            let wake = self.next_wake().await;
            tokio::select! {
                biased;
                () = tasks.stopped() => return,
                () = self.parts.lightning.batch_messages().arrived() => {}
                () = self.woken.notified() => {}
                changed = sync.changed() => if changed.is_err() { return },
                () = sleep(wake) => {}
            }
            let best = sync.borrow_and_update().synced.map_or(0, |block| block.height);
            let mut state = self.state.lock().await;
            let inputs = self.gather(&mut state, best);
            let mut done = self.turn(&mut state, inputs).await;
            if done.is_ok() {
                done = self.answer_closed(&mut state).await;
            }
            if done.is_ok() {
                done = self.roll_over(&mut state).await;
            }
            if let Err(error) = done {
                return tracing::error!(%error, "batches stand still");
            }
            self.is_moving.store(!state.rollovers.is_idle(), Ordering::Relaxed);
        }
    }

    /// The batch transactions of this hub that its records name.
    pub async fn transactions(&self) -> Vec<Txid> {
        let state = self.state.lock().await;
        state.hub.values().filter_map(|life| Some(life.machine.tree()?.root.txid)).collect()
    }

    /// Tells whenever something may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.views.subscribe()
    }

    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    pub(super) fn changed(&self) {
        self.views.send_modify(|turns| *turns += 1);
    }

    /// Tells whenever a path on its way onto the chain may have gone on.
    pub fn unrolls(&self) -> watch::Receiver<u64> {
        self.parts.unroller.changes()
    }

    /// Tells each machine that the node was restarted, what it missed, and does what it owes.
    async fn restarted(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let hubs: Vec<BatchId> = state.hub.keys().copied().collect();
        let failed: Vec<BatchId> = state.failed().collect();
        let users: Vec<RegistrationId> = state.user.keys().copied().collect();
        let mut inputs: Vec<Input> =
            hubs.iter().map(|id| Input::Hub(*id, HubInput::Restarted)).collect();
        inputs.extend(users.iter().map(|id| Input::User(*id, UserInput::Restarted)));
        self.turn(&mut state, inputs).await?;
        let missed = self.missed(&state);
        self.turn(&mut state, missed).await?;
        let mut owed: Vec<Effect> = Vec::new();
        for (id, life) in &state.hub {
            owed.extend(life.machine.unfinished_effects().into_iter().map(|e| Effect::Hub(*id, e)));
        }
        for (id, life) in &state.user {
            owed.extend(
                life.machine.unfinished_effects().into_iter().map(|e| Effect::User(*id, e)),
            );
        }
        let inputs = self.act(&mut state, owed).await?;
        self.turn(&mut state, inputs).await?;
        // What had failed in an earlier life of the node is cleaned up by now.
        for id in failed {
            if let Some(life) = state.hub.remove(&id) {
                let _nobody_waits = self.parts.committer.enqueue(life.log.erase());
            }
        }
        Ok(())
    }

    /// What the records of channels know and a machine does not.
    fn missed(&self, state: &State) -> Vec<Input> {
        let mut inputs = self.retired_at_hubs(state);
        for (id, life) in &state.user {
            let (Some(channel), Some(funding)) = (life.channel, life.funding()) else { continue };
            let Some(record) = self.parts.channels.recorded(channel) else { continue };
            if life.machine.phase() == UserPhase::Leaf(LeafState::Signed)
                && record.state != ChannelState::Closed
            {
                inputs.push(Input::User(*id, UserInput::CommitmentsExchanged { funding }));
            }
            if record.state == ChannelState::Closed {
                inputs.push(Input::User(*id, closed(record.close_kind)));
            }
        }
        inputs
    }

    /// When a machine wants to be woken next.
    async fn next_wake(&self) -> Option<Duration> {
        let state = self.state.lock().await;
        let hubs = state.hub.values().filter_map(|life| life.machine.phase().deadline());
        let users = state.user.values().filter_map(|life| life.machine.phase().deadline());
        let next = hubs.chain(users).min();
        let next =
            next.map(|next| Duration::from_millis(next.0.saturating_sub(self.parts.now().0)));
        // HTLCs end without a word to us.
        let look = (!state.rollovers.is_idle()).then_some(LOOK);
        next.into_iter().chain(look).min()
    }

    /// Everything that has come since the last turn.
    fn gather(&self, state: &mut State, best: u32) -> Vec<Input> {
        let mut inputs = Vec::new();
        for heard in std::mem::take(&mut *self.heard.lock()) {
            inputs.extend(input_of(state, &heard));
        }
        for arrival in self.parts.lightning.batch_messages().take() {
            inputs.extend(self.arrived(state, arrival));
        }
        let now = self.parts.now();
        let due = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= now);
        for (id, life) in &state.hub {
            if due(life.machine.phase().deadline()) {
                inputs.push(Input::Hub(*id, HubInput::Tick));
            }
        }
        for (id, life) in &state.user {
            if due(life.machine.phase().deadline()) {
                inputs.push(Input::User(*id, UserInput::Tick));
            }
        }
        if best != state.best {
            state.best = best;
            inputs.extend(self.block(state, best));
            inputs.extend(self.settlement_inputs(state, best));
            self.limit_forwarding(state, best);
        }
        inputs
    }

    /// What a new best block says to each machine.
    fn block(&self, state: &State, best: u32) -> Vec<Input> {
        let best = height(best);
        let mut inputs = Vec::new();
        for (id, life) in &state.hub {
            if let Some(tree) = life.machine.tree().filter(|tree| tree.signed) {
                let known = match life.machine.phase() {
                    HubPhase::Live { at } | HubPhase::Expiring { at } => Some(at),
                    _ => None,
                };
                match self.parts.confirmations.confirmed(tree.root) {
                    Some(at) if known != Some(height(at.height)) => {
                        let (txid, at) = (tree.root.txid, height(at.height));
                        inputs.push(Input::Hub(*id, HubInput::BatchConfirmed { txid, at }));
                    }
                    None if known.is_some() => {
                        inputs.push(Input::Hub(*id, HubInput::BatchDisconnected));
                    }
                    None if self.parts.wallet.is_beaten(tree.root.txid) => {
                        inputs.push(Input::Hub(*id, HubInput::BatchConflicted));
                    }
                    _ => {}
                }
            }
            inputs.push(Input::Hub(*id, HubInput::Block { best }));
        }
        for (id, life) in &state.user {
            inputs.extend(self.user_block(life, best).map(|input| Input::User(*id, input)));
        }
        inputs
    }

    fn user_block(
        &self,
        life: &UserLife,
        best: absolute::Height,
    ) -> impl Iterator<Item = UserInput> + use<> {
        let mut inputs = Vec::new();
        if let (UserPhase::Leaf(leaf), Some(agreed)) = (life.machine.phase(), life.machine.agreed())
            && let Some(record) = self.parts.confirmations.get(agreed.root)
        {
            let known = match leaf {
                LeafState::Confirmed { at } => Some(at),
                _ => None,
            };
            match record.confirmed().map(|at| height(at.height)) {
                Some(at)
                    if matches!(leaf, LeafState::Funded | LeafState::Dropped)
                        || known.is_some_and(|known| known != at) =>
                {
                    let output = record.root_output().clone();
                    inputs.push(UserInput::RootConfirmed { root: agreed.root, output, at });
                }
                None if known.is_some() => inputs.push(UserInput::RootDisconnected),
                _ => {}
            }
            if leaf != LeafState::Unrolled && self.parts.confirmations.is_on_chain(agreed.funding) {
                inputs.push(UserInput::LeafConfirmed);
            }
            let channel = life.channel;
            let htlcs = channel.map(|c| self.parts.lightning.pending_htlcs(c)).unwrap_or_default();
            inputs.push(UserInput::Block { best, htlcs });
        }
        inputs.into_iter()
    }

    /// The batch that takes users; opens one if there is none.
    pub(super) fn gathering(&self, state: &mut State) -> Option<BatchId> {
        if !self.parts.policy.role.is_hub() || state.best == 0 {
            return None;
        }
        if let Some(id) = state.gathers() {
            return Some(id);
        }
        Some(self.open_batch(state, None))
    }

    /// Opens a batch, which gathers users for `gathering_ms` or as long as the offer says.
    pub(super) fn open_batch(&self, state: &mut State, gathering_ms: Option<u64>) -> BatchId {
        let BatchPolicy { hub: mut policy, life, expiring_max, .. } =
            BatchPolicy::new(&self.offer.lock());
        policy.gathering_ms = gathering_ms.unwrap_or(policy.gathering_ms);
        let id = BatchId(self.parts.entropy.bytes());
        let is_over = |life: &&HubLife| {
            matches!(life.machine.phase(), HubPhase::Settled | HubPhase::Failed { .. })
        };
        let live = state.hub.values().filter(|life| !is_over(life));
        let live: Vec<(u32, usize)> = live
            .map(|life| (life.machine.expiry().to_consensus_u32(), life.machine.members().len()))
            .collect();
        let earliest = state.best.saturating_add(life);
        let expiry = height(super::spread::expiry(earliest, policy.users_max, expiring_max, &live));
        let at = self.parts.now();
        let mut writes = Batch::default();
        let begun = HubBegun { policy: policy.clone(), expiry, at };
        let log = EventLog::begin_hub(id, &begun, &mut writes);
        let _nothing_depends_on_it_yet = self.parts.committer.enqueue(writes);
        state.hub.insert(id, HubLife::new(HubBatch::open(id, policy, expiry, at), log));
        state.gathering = Some(id);
        id
    }

    /// Lets machines decide until nothing is left to do.
    pub(super) async fn turn(
        &self,
        state: &mut State,
        inputs: Vec<Input>,
    ) -> Result<(), StoreError> {
        let mut inputs = inputs;
        loop {
            while !inputs.is_empty() {
                let effects = self.decide(state, std::mem::take(&mut inputs)).await?;
                inputs = self.act(state, effects).await?;
            }
            inputs = self.due_releases(state);
            if inputs.is_empty() {
                break;
            }
        }
        self.views.send_modify(|turns| *turns += 1);
        Ok(())
    }

    /// Lets machines decide about `inputs`. What they ask for may be done when this returns.
    async fn decide(
        &self,
        state: &mut State,
        inputs: Vec<Input>,
    ) -> Result<Vec<Effect>, StoreError> {
        let now = self.parts.now();
        let mut writes = Batch::default();
        let mut told = Vec::new();
        let mut effects = Vec::new();
        let mut is_binding = false;
        for input in inputs {
            match input {
                Input::Hub(id, input) => {
                    let Some(life) = state.hub.get_mut(&id) else { continue };
                    let decided = life.decide(input, now, &mut writes);
                    is_binding |= life.is_binding();
                    effects.extend(decided.effects.into_iter().map(|e| Effect::Hub(id, e)));
                    for event in &decided.events {
                        state.faults.learn(event, now);
                        if let HubEvent::PhaseEntered { phase } = event {
                            self.phases.enter(id, phase);
                            let (batch, phase) = (id, *phase);
                            told.push(DomainEvent::Batch(BatchEvent::Hosted { batch, phase }));
                        }
                    }
                }
                Input::User(id, input) => {
                    let Some(life) = state.user.get_mut(&id) else { continue };
                    let asked = life.decide(input, now, &mut writes, &mut told);
                    is_binding |= life.is_binding();
                    effects.extend(asked.into_iter().map(|e| Effect::User(id, e)));
                }
                Input::Repeat(id) => {
                    let Some(life) = state.user.get(&id) else { continue };
                    let owed = life.machine.unfinished_effects();
                    effects.extend(owed.into_iter().map(|e| Effect::User(id, e)));
                }
                Input::Settle(id) => {
                    let owed = state.hub.get(&id).map(|life| life.settling_effects(&self.parts));
                    effects.extend(owed.into_iter().flatten().map(|e| Effect::Hub(id, e)));
                }
            }
        }
        if !writes.is_empty() {
            let ticket = self.parts.journal.append(&told, writes);
            if is_binding && !effects.is_empty() {
                self.parts.committer.durable(ticket).await?;
            }
        }
        Ok(effects)
    }

    /// Does what machines asked for, in order.
    pub(super) async fn act(
        &self,
        state: &mut State,
        effects: Vec<Effect>,
    ) -> Result<Vec<Input>, StoreError> {
        let mut inputs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Hub(id, effect) => {
                    let Some(life) = state.hub.get_mut(&id) else { continue };
                    let came = life.run(&self.parts, effect, state.best).await?;
                    inputs.extend(came.into_iter().map(|input| Input::Hub(id, input)));
                }
                Effect::User(id, UserEffect::BeginRollover) => self.begin_rollover(state, id),
                Effect::User(id, effect) => {
                    let Some(life) = state.user.get_mut(&id) else { continue };
                    let came = life.run(&self.parts, effect).await?;
                    inputs.extend(came.into_iter().map(|input| Input::User(id, input)));
                }
            }
        }
        Ok(inputs)
    }
}

/// Which machine hears what LDK said.
fn input_of(state: &mut State, heard: &Heard) -> Option<Input> {
    if let Heard::Commitments { channel, funding } = heard {
        // After a crash nobody but LDK may know which channel has the outpoint.
        let meant = state.user.values_mut().filter(|life| life.funding() == Some(*funding));
        meant.for_each(|life| life.channel = Some(*channel));
    }
    let channel = match heard {
        Heard::Funding { channel, .. }
        | Heard::Safe { channel }
        | Heard::Commitments { channel, .. }
        | Heard::Closed { channel, .. } => *channel,
    };
    let hub = state.hub.iter().find_map(|(id, life)| Some((*id, life.peer_of(channel)?)));
    if let Some((id, peer)) = hub {
        let input = match heard {
            Heard::Funding { output, .. } => {
                HubInput::ChannelReady { peer, funding: output.clone() }
            }
            Heard::Safe { .. } => HubInput::FundingSafe { peer },
            Heard::Closed { kind: CloseKind::Cooperative, .. } => HubInput::ChannelRetired { peer },
            Heard::Closed { .. } => HubInput::ChannelFailed { peer },
            Heard::Commitments { .. } => return None,
        };
        return Some(Input::Hub(id, input));
    }
    let (id, _) = state.user.iter().find(|(_, life)| life.channel == Some(channel))?;
    let input = match heard {
        Heard::Commitments { funding, .. } => UserInput::CommitmentsExchanged { funding: *funding },
        Heard::Closed { kind, .. } => closed(Some(*kind)),
        Heard::Funding { .. } | Heard::Safe { .. } => return None,
    };
    Some(Input::User(*id, input))
}

/// What the end of a channel means to its user.
fn closed(kind: Option<CloseKind>) -> UserInput {
    match kind {
        Some(CloseKind::Cooperative) => UserInput::ChannelClosed,
        _ => UserInput::ChannelFailed,
    }
}

/// A height of the chain; those beyond 500,000,000 do not exist.
pub(super) fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap_or(absolute::Height::MAX)
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
