//! The one loop: look, let the machine decide, make that durable, act.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitcoin::{Amount, OutPoint, Txid, absolute};
use channel_contracts::batch::{Deadlines, Message, SwapId};
use channel_contracts::musig::TreeSecret;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};

use super::Parts;
use super::record::{self, End, Life, SwapRecord};
use super::view;
use crate::chain::follower::SyncState;
use crate::environment::UnixTime;
use crate::lightning::types::{ChannelRef, NodeId};
use crate::lightning::{ChannelSnapshot, LightningEvent};
use crate::runtime::Tasks;
use crate::store::{Batch, StoreError, Ticket};

/// How often payments are looked at while swaps are under way.
const LOOK: Duration = Duration::from_millis(250);
/// How long a hub has for its answer before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// The service of withdrawals and deposits, for both roles.
pub struct Swaps {
    pub(super) parts: Parts,
    /// Held through a turn.
    pub(super) state: AsyncMutex<State>,
    heard: Mutex<Vec<Heard>>,
    woken: Notify,
    views: watch::Sender<u64>,
    /// Whether payments concern a swap.
    is_moving: AtomicBool,
    /// Whether every batch transaction of an earlier life of this node has departed.
    pub(super) have_departed: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    pub swaps: BTreeMap<SwapId, Swap>,
    /// The best block that every part of the node has seen.
    pub best: u32,
}

/// A swap, and what of it is in memory alone.
pub(super) struct Swap {
    pub record: SwapRecord,
    /// The best block at which the other side was told what this phase has to say.
    pub told_at: Option<u32>,
    /// When the other side was asked.
    pub asked_at: Option<UnixTime>,
    /// The key that the other side handed over.
    pub secret: Option<TreeSecret>,
    /// Whether this process has broadcast the transaction that spends the output.
    pub broadcast: bool,
    /// The best block at which something failed: it is tried again at the next.
    pub failed_at: Option<u32>,
    /// The best block when this process first saw that the output is the hub's.
    pub owned_since: Option<u32>,
    /// Whether a batch that forms has its output in its transaction.
    pub boarded: bool,
}

impl Swap {
    pub fn new(record: SwapRecord) -> Self {
        Self {
            record,
            told_at: None,
            asked_at: None,
            secret: None,
            broadcast: false,
            failed_at: None,
            owned_since: None,
            boarded: false,
        }
    }
}

impl Swap {
    /// What this hub has agreed to put on chain, and has not.
    pub fn promised(&self) -> Option<Amount> {
        match &self.record.life {
            Life::HubWithdrawal(life) if self.record.end.is_none() && life.carrier.is_none() => {
                Some(self.record.amount)
            }
            _ => None,
        }
    }
}

/// What reached the service since the last turn.
enum Heard {
    Message(NodeId, Message),
    Connected(NodeId),
}

/// A channel of a batch that can carry a swap's payment.
pub(super) struct Carrying {
    pub channel: ChannelRef,
    pub live: ChannelSnapshot,
    pub deadlines: Deadlines,
    /// Transactions on its path.
    pub levels: u32,
}

impl Swaps {
    /// Reads what the store has.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (id, record) in record::load(&parts.committer)? {
            if let (Life::HubWithdrawal(_), None) = (&record.life, &record.end) {
                parts.payments.keep_held(record.hash);
            }
            state.swaps.insert(id, Swap::new(record));
        }
        // Watched for before it was recorded, or still although it ended: a crash came between.
        for id in parts.watch.watched() {
            if state.swaps.get(&id).is_none_or(|swap| swap.record.end.is_some()) {
                parts.watch.forget(id);
            }
        }
        Ok(Self {
            parts,
            state: AsyncMutex::new(state),
            heard: Mutex::default(),
            woken: Notify::new(),
            views: watch::Sender::new(0),
            is_moving: AtomicBool::new(true),
            have_departed: AtomicBool::new(false),
        })
    }

    /// Hears a message about a swap.
    pub fn hear(&self, from: NodeId, message: Message) {
        self.heard.lock().push(Heard::Message(from, message));
        self.woken.notify_one();
    }

    /// Hears that a peer is connected: what it may have missed is said again.
    pub fn connected(&self, peer: NodeId) {
        if self.is_moving.load(Ordering::Relaxed) {
            self.heard.lock().push(Heard::Connected(peer));
            self.woken.notify_one();
        }
    }

    /// Hears LDK.
    pub fn handle(&self, event: &LightningEvent) {
        if self.is_moving.load(Ordering::Relaxed)
            && matches!(
                event,
                LightningEvent::Claimable { .. }
                    | LightningEvent::Claimed { .. }
                    | LightningEvent::Sent { .. }
                    | LightningEvent::Failed { .. }
                    | LightningEvent::ChannelReady { .. }
            )
        {
            self.woken.notify_one();
        }
    }

    /// Runs until the stop signal.
    pub async fn run(self: Arc<Self>, mut sync: watch::Receiver<SyncState>, tasks: Tasks) {
        loop {
            let look = self.is_moving.load(Ordering::Relaxed);
            tokio::select! {
                biased;
                () = tasks.stopped() => return,
                () = self.woken.notified() => {}
                changed = sync.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK), if look => {}
            }
            let best = sync.borrow_and_update().synced.map_or(0, |block| block.height);
            let mut state = self.state.lock().await;
            if best == 0 {
                continue;
            }
            state.best = best;
            if let Err(error) = self.turn(&mut state).await {
                return tracing::error!(%error, "withdrawals and deposits stand still");
            }
            let is_moving = state.swaps.values().any(|swap| swap.record.end.is_none());
            self.is_moving.store(is_moving, Ordering::Relaxed);
        }
    }

    /// The transactions of this node's wallet that records of swaps name.
    pub async fn transactions(&self) -> Vec<Txid> {
        let state = self.state.lock().await;
        state.swaps.values().filter_map(|swap| swap.record.carrier()).collect()
    }

    /// Tells whenever something may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.views.subscribe()
    }

    async fn turn(&self, state: &mut State) -> Result<(), StoreError> {
        let all = std::mem::take(&mut *self.heard.lock());
        for heard in all {
            match heard {
                Heard::Message(from, message) => self.take_message(state, from, message).await?,
                Heard::Connected(peer) => {
                    let of_it = state.swaps.values_mut().filter(|swap| swap.record.peer == peer);
                    of_it.for_each(|swap| swap.told_at = None);
                }
            }
        }
        let best = state.best;
        for (id, swap) in state.swaps.iter_mut().filter(|(_, swap)| swap.record.end.is_none()) {
            match swap.record.life {
                Life::UserWithdrawal(_) => self.user_withdrawal(*id, swap, best).await?,
                Life::HubWithdrawal(_) => self.hub_withdrawal(*id, swap, best).await?,
                Life::UserDeposit(_) => self.user_deposit(*id, swap, best).await?,
                Life::HubDeposit(_) => self.hub_deposit(*id, swap, best).await?,
            }
        }
        self.carry_withdrawals(state).await
    }

    async fn take_message(
        &self,
        state: &mut State,
        from: NodeId,
        message: Message,
    ) -> Result<(), StoreError> {
        match message {
            Message::Withdraw(asked) => self.answer_withdraw(state, from, &asked).await,
            Message::Deposit(asked) => self.answer_deposit(state, from, &asked).await,
            Message::Withdrawing(said) => match known(state, said.swap, from) {
                Some((swap, best)) => self.hear_withdrawing(swap, best, &said).await,
                None => Ok(()),
            },
            Message::Depositing(said) => match known(state, said.swap, from) {
                Some((swap, _)) => self.hear_depositing(swap, &said).await,
                None => Ok(()),
            },
            Message::Deposited(said) => match known(state, said.swap, from) {
                Some((swap, _)) => self.hear_deposited(swap, &said).await,
                None => Ok(()),
            },
            Message::Refused(said) => match known(state, said.swap, from) {
                Some((swap, _)) if is_unanswered(&swap.record.life) => {
                    let why = format!("the hub refuses: {}", said.reason);
                    self.end(said.swap, swap, End::Nothing(why)).await
                }
                _ => Ok(()),
            },
            Message::Reveal(said) => match known(state, said.swap, from) {
                Some((swap, _)) => self.hear_reveal(said.swap, swap, said.preimage).await,
                None => Ok(()),
            },
            Message::HandOver(said) => match known(state, said.swap, from) {
                Some((swap, _)) => self.hear_key(said.swap, swap, said.secret).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Writes a swap as it is, durable.
    pub(super) async fn keep(&self, id: SwapId, swap: &mut Swap) -> Result<(), StoreError> {
        let ticket = self.write(id, &mut swap.record, Batch::default());
        self.parts.committer.durable(ticket).await?;
        self.changed();
        Ok(())
    }

    /// Writes a record with what lies beside it, and tells the journal if its state is a new one.
    pub(super) fn write(&self, id: SwapId, record: &mut SwapRecord, mut beside: Batch) -> Ticket {
        let events = view::entered(&self.parts, id, record);
        record.put(id, &mut beside);
        self.parts.journal.append(&events, beside)
    }

    /// Writes that a swap ended.
    pub(super) async fn end(
        &self,
        id: SwapId,
        swap: &mut Swap,
        end: End,
    ) -> Result<(), StoreError> {
        tracing::info!(swap = %id, peer = %swap.record.peer, ?end, "swap ended");
        swap.record.end = Some(end);
        self.keep(id, swap).await?;
        self.parts.payments.let_go_of_held(swap.record.hash);
        self.parts.watch.forget(id);
        Ok(())
    }

    pub(super) fn changed(&self) {
        self.views.send_modify(|turns| *turns += 1);
    }

    pub(super) fn wake(&self) {
        self.is_moving.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// Has the next [`Swaps::tell`] speak if the last is some seconds ago: nothing waits for a block.
    pub(super) fn ask_again(&self, swap: &mut Swap) {
        let now = self.parts.clock.now();
        if swap.asked_at.is_none_or(|asked_at| now >= asked_at + ASK_AGAIN) {
            swap.asked_at = Some(now);
            swap.told_at = None;
        }
    }

    /// Says something to the other side once a block, and whenever it is connected again.
    pub(super) fn tell(&self, swap: &mut Swap, best: u32, message: &Message) {
        if swap.told_at != Some(best) && self.parts.lightning.is_connected(&swap.record.peer) {
            swap.told_at = Some(best);
            self.parts.send(swap.record.peer, message);
        }
    }

    /// The channel with `peer` whose funding output is `funding`, if a batch funds it.
    pub(super) fn carrying(&self, peer: NodeId, funding: OutPoint) -> Option<Carrying> {
        let channel = *self.parts.channels.by_funding().get(&funding)?;
        let view = self.parts.channels.get(channel)?;
        let live = view.live.filter(|_| view.record.peer == peer)?;
        let deadlines = self.parts.confirmations.deadlines(funding.txid)?;
        let path = self.parts.confirmations.path_to(funding.txid)?;
        let levels = u32::try_from(path.path.levels.len()).ok()?;
        Some(Carrying { channel, live, deadlines, levels })
    }
}

/// The swap `id` of `peer` that has not ended, and the best block.
fn known(state: &mut State, id: SwapId, peer: NodeId) -> Option<(&mut Swap, u32)> {
    let best = state.best;
    let swap = state.swaps.get_mut(&id)?;
    (swap.record.peer == peer && swap.record.end.is_none()).then_some((swap, best))
}

fn is_unanswered(life: &Life) -> bool {
    match life {
        Life::UserWithdrawal(life) => life.agreed.is_none(),
        Life::UserDeposit(life) => life.agreed.is_none(),
        Life::HubWithdrawal(_) | Life::HubDeposit(_) => false,
    }
}

/// A height as a locktime says it. Blocks reach half a billion in ten thousand years.
pub(super) fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap_or(absolute::Height::MAX)
}
