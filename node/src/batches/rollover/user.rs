//! A user's side: the newer batch, one swap after the other, the close.

use std::time::Duration;

use channel_contracts::batch::deadlines::ROLLOVER_SECOND_CLTV_MAX;
use channel_contracts::batch::message::{Message, Roll, Rolling, Stay};
use channel_contracts::batch::{
    BatchId, BlockDelta, Deadlines, LeafState, Peer, RegistrationId, UserPhase,
};

use super::place::Due;
use super::plan::{ChannelLook, SwapLook, UserLook, UserStep};
use super::record::{Rollover, RolloverRecord, Swap};
use crate::batches::requests::{JoinError, JoinRequest};
use crate::batches::service::{Batches, State, height};
use crate::batches::user::UserLife;
use crate::journal::IdempotencyKey;
use crate::lightning::types::{ChannelRef, NodeId, PaymentHash};
use crate::lightning::{Decoded, InvoiceDescription};
use crate::payments::{CreateInvoice, CreateInvoiceError, PayError, PayRequest, PaymentState};
use crate::store::{Batch, StoreError};

/// What a swap is reckoned with before the CLTV of its leg 2 is known.
const SECOND_CLTV_MAX: BlockDelta = BlockDelta(ROLLOVER_SECOND_CLTV_MAX);
/// How long the invoice of leg 2 is valid. The hub pays it within seconds, or a restart later.
const INVOICE_EXPIRY: Duration = Duration::from_secs(24 * 3_600);

impl Batches {
    /// Takes up the rollover of `wish`. Nothing happens if it is under way.
    pub(in crate::batches) fn begin_rollover(&self, state: &mut State, wish: RegistrationId) {
        if state.rollovers.user.contains_key(&wish) {
            return;
        }
        tracing::info!(registration = %wish, "channel of a batch rolls over into a newer one");
        let rollover = Rollover::default();
        let mut writes = Batch::default();
        rollover.record.put(wish, &mut writes);
        let _begun_again_after_a_crash = self.parts.committer.enqueue(writes);
        state.rollovers.user.insert(wish, rollover);
    }

    pub(super) async fn go_on_with_rollover(
        &self,
        state: &mut State,
        wish: RegistrationId,
    ) -> Result<(), StoreError> {
        // A step makes the next one possible; what fails waits for the next block.
        loop {
            let Some(look) = self.look(state, wish)? else {
                state.rollovers.user.remove(&wish);
                return Ok(());
            };
            let step = look.step();
            match step {
                UserStep::Wait => return Ok(()),
                UserStep::End => return self.end_rollover(state, wish),
                UserStep::Join => self.join_successor(state, wish).await?,
                UserStep::Begin(movable_msat) => self.begin_swap(state, wish, movable_msat).await?,
                UserStep::Ask => self.ask_hub(state, wish),
                UserStep::Pay => self.pay_first_leg(state, wish).await?,
                UserStep::EndSwap { moved } => self.end_swap(state, wish, moved)?,
                UserStep::Close => self.close_old(state, wish).await,
            }
        }
    }

    /// What there is to see; `None` if the wish is gone.
    fn look(&self, state: &State, wish: RegistrationId) -> Result<Option<UserLook>, StoreError> {
        let (Some(life), Some(rollover)) = (state.user.get(&wish), state.rollovers.user.get(&wish))
        else {
            return Ok(None);
        };
        let UserPhase::Leaf(leaf) = life.machine.phase() else { return Ok(None) };
        let record = &rollover.record;
        let successor = successor_of(state, wish);
        let swap = match &record.swap {
            None => None,
            Some(Swap { hubs: None, .. }) => {
                Some(SwapLook::AwaitsHub { asked: rollover.asked_at == Some(state.best) })
            }
            Some(swap) => Some(SwapLook::Agreed(self.first_leg(swap)?)),
        };
        let in_time = life
            .machine
            .deadlines()
            .is_some_and(|d| d.rollover_legs(height(state.best), SECOND_CLTV_MAX).is_ok());
        Ok(Some(UserLook {
            leaf,
            old: life.channel.and_then(|channel| self.channel_look(channel)),
            successor: successor.map(|life| {
                let channel = life.channel.and_then(|channel| self.channel_look(channel));
                (life.machine.phase(), channel)
            }),
            swap,
            in_time,
            connected: self.parts.lightning.is_connected(&life.hub),
            failed: rollover.failed_at == Some(state.best),
        }))
    }

    pub(super) fn channel_look(&self, channel: ChannelRef) -> Option<ChannelLook> {
        let live = self.parts.channels.get(channel)?.live?;
        Some(ChannelLook {
            usable: live.usable,
            closing: live.closing,
            spendable_msat: live.spendable_msat,
            receivable_msat: live.receivable_msat,
            local_msat: live.local_msat,
            htlcs: live.inbound_htlcs.saturating_add(live.outbound_htlcs),
        })
    }

    /// Where our payment of leg 1 stands, once it began.
    fn first_leg(&self, swap: &Swap) -> Result<Option<PaymentState>, StoreError> {
        let payment = self.parts.payments.recorded_under(&first_leg_key(swap.hash))?;
        Ok(payment.map(|payment| payment.state))
    }

    fn end_rollover(&self, state: &mut State, wish: RegistrationId) -> Result<(), StoreError> {
        let mut writes = Batch::default();
        RolloverRecord::delete(wish, &mut writes);
        let _ended_again_after_a_crash = self.parts.committer.enqueue(writes);
        state.rollovers.user.remove(&wish);
        Ok(())
    }

    /// Asks for a place in the hub's next batch, of the same size.
    async fn join_successor(
        &self,
        state: &mut State,
        wish: RegistrationId,
    ) -> Result<(), StoreError> {
        let Some(life) = state.user.get(&wish) else { return Ok(()) };
        let request = life.machine.request();
        let (capacity, inbound) = (request.capacity, request.inbound);
        let join = JoinRequest { hub: life.hub, capacity, inbound };
        // What came to nothing makes place.
        let before = successor_of(state, wish).map(UserLife::registration);
        if let Some(life) = before.and_then(|before| state.user.remove(&before)) {
            let _nobody_waits = self.parts.committer.enqueue(life.log.erase());
        }
        match self.begin_join(state, &join, Some(wish), None).await {
            Ok(_found_by_what_it_follows) => {}
            Err(JoinError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(registration = %wish, %error, "no newer batch can be joined now");
            }
        }
        self.failed(state, wish);
        Ok(())
    }

    /// Makes the invoice of leg 2.
    async fn begin_swap(
        &self,
        state: &mut State,
        wish: RegistrationId,
        movable_msat: u64,
    ) -> Result<(), StoreError> {
        let due = self.place_due_of(state, wish);
        let amount_msat = due.arrives(movable_msat);
        let fee_max_msat = due.of(amount_msat);
        let create = CreateInvoice {
            amount_msat: Some(amount_msat),
            description: InvoiceDescription::Text(format!("rollover of {wish}")),
            expiry: INVOICE_EXPIRY,
            min_final_cltv_expiry_delta: None,
            hash: None,
        };
        match self.parts.payments.create_invoice(create, None).await {
            Ok(invoice) => {
                let (hash, ours) = (invoice.hash, invoice.invoice);
                let hubs = None;
                let swap = Swap { hash, amount_msat, fee_max_msat, fee_msat: 0, ours, hubs };
                self.change(state, wish, |record| record.swap = Some(swap));
                if let Some(rollover) = state.rollovers.user.get_mut(&wish) {
                    rollover.asked_at = None;
                }
            }
            Err(CreateInvoiceError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::error!(registration = %wish, %error, "no swap can begin");
                self.failed(state, wish);
            }
        }
        Ok(())
    }

    /// What the place in the newer batch still costs.
    fn place_due_of(&self, state: &State, wish: RegistrationId) -> Due {
        let place = successor_of(state, wish).and_then(|life| life.machine.place());
        let fee_msat = place.map_or(0, |place| place.fee.to_sat().saturating_mul(1_000));
        let paid = state.rollovers.user.get(&wish).map_or(0, |r| r.record.paid_msat);
        Due::after(fee_msat, paid)
    }

    fn ask_hub(&self, state: &mut State, wish: RegistrationId) {
        let best = state.best;
        let place = |life: &UserLife| Some((life.hub, life.machine.place()?.batch));
        let Some(rollover) = state.rollovers.user.get(&wish) else { return };
        if let (Some((hub, batch)), Some((_, successor)), Some(swap)) = (
            state.user.get(&wish).and_then(place),
            successor_of(state, wish).and_then(place),
            &rollover.record.swap,
        ) {
            let roll = Roll { batch, successor, invoice: swap.ours.clone() };
            self.parts.send(Peer(hub), &Message::Roll(roll));
        }
        if let Some(rollover) = state.rollovers.user.get_mut(&wish) {
            rollover.asked_at = Some(best);
        }
    }

    /// The hub is ready: its invoice must be of the same hash, ask for no more than was agreed, and
    /// end in time.
    pub(super) fn hear_rolling(
        &self,
        state: &mut State,
        from: NodeId,
        rolling: &Rolling,
    ) -> Result<(), StoreError> {
        let Some((wish, swap)) = asked(state, from, rolling.batch) else { return Ok(()) };
        let deadlines = state.user.get(&wish).and_then(|life| life.machine.deadlines());
        let invoice = self.parts.lightning.decode(&rolling.invoice).ok().filter(|invoice| {
            invoice.payee == Some(from)
                && invoice.hash == Some(swap.hash)
                && invoice.on_our_network
                && deadlines.is_some_and(|deadlines| ends_in_time(&deadlines, state.best, invoice))
        });
        let asked_msat = invoice.and_then(|invoice| invoice.amount_msat);
        let fee = asked_msat.and_then(|asked| asked.checked_sub(swap.amount_msat));
        if let Some(fee_msat) = fee.filter(|fee| *fee <= swap.fee_max_msat) {
            let hubs = Some(rolling.invoice.clone());
            self.change(state, wish, |record| {
                if let Some(swap) = &mut record.swap {
                    (swap.hubs, swap.fee_msat) = (hubs, fee_msat);
                }
            });
            return Ok(());
        }
        tracing::warn!(registration = %wish, hub = %from, "hub's invoice for a rollover is wrong; not paid");
        self.end_swap(state, wish, false)
    }

    pub(super) fn hear_stay(
        &self,
        state: &mut State,
        from: NodeId,
        stay: &Stay,
    ) -> Result<(), StoreError> {
        let Some((wish, swap)) = asked(state, from, stay.batch) else { return Ok(()) };
        if swap.hash.0 != stay.payment_hash {
            return Ok(());
        }
        tracing::info!(registration = %wish, hub = %from, reason = %stay.reason, "hub does not move the balance now");
        self.end_swap(state, wish, false)
    }

    /// Pays the hub's invoice over the old channel. Its outcome is looked up by its key, so that
    /// a crash never pays twice.
    async fn pay_first_leg(
        &self,
        state: &mut State,
        wish: RegistrationId,
    ) -> Result<(), StoreError> {
        let channel = state.user.get(&wish).and_then(|life| life.channel);
        let rollover = state.rollovers.user.get(&wish);
        let swap = rollover.and_then(|rollover| rollover.record.swap.clone());
        let (Some(channel), Some(swap)) = (channel, swap) else { return Ok(()) };
        let Some(hubs) = swap.hubs else { return Ok(()) };
        // What is to be paid is durable before it is.
        self.parts.committer.durable(self.parts.committer.now()).await?;
        let request = PayRequest::over(hubs, channel);
        match self.parts.payments.pay(&request, Some(&first_leg_key(swap.hash))) {
            Ok(_followed_by_its_key) => Ok(()),
            Err(PayError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(registration = %wish, %error, "balance cannot be moved now");
                self.end_swap(state, wish, false)
            }
        }
    }

    fn end_swap(
        &self,
        state: &mut State,
        wish: RegistrationId,
        moved: bool,
    ) -> Result<(), StoreError> {
        if moved {
            let swap = state.rollovers.user.get(&wish).and_then(|r| r.record.swap.as_ref());
            let (amount_msat, fee_msat) = swap.map_or((0, 0), |s| (s.amount_msat, s.fee_msat));
            tracing::info!(registration = %wish, amount_msat, fee_msat, "balance moved to the newer batch");
        } else {
            self.failed(state, wish);
        }
        self.change(state, wish, |record| {
            if let Some(swap) = record.swap.take().filter(|_| moved) {
                record.paid_msat = record.paid_msat.saturating_add(swap.fee_msat);
            }
        });
        Ok(())
    }

    async fn close_old(&self, state: &mut State, wish: RegistrationId) {
        if let Some(channel) = state.user.get(&wish).and_then(|life| life.channel)
            && let Err(error) = self.parts.channels.close(channel, false, None, None).await
        {
            tracing::warn!(registration = %wish, %error, "old channel cannot be closed now");
        }
        self.failed(state, wish);
    }

    /// Notes that nothing more is to be tried before the next block.
    fn failed(&self, state: &mut State, wish: RegistrationId) {
        let best = state.best;
        if let Some(rollover) = state.rollovers.user.get_mut(&wish) {
            rollover.failed_at = Some(best);
        }
    }

    fn change(
        &self,
        state: &mut State,
        wish: RegistrationId,
        change: impl FnOnce(&mut RolloverRecord),
    ) {
        let Some(rollover) = state.rollovers.user.get_mut(&wish) else { return };
        change(&mut rollover.record);
        let mut writes = Batch::default();
        rollover.record.put(wish, &mut writes);
        let _durable_before_a_payment = self.parts.committer.enqueue(writes);
        self.changed();
    }
}

/// The wish for a newer batch that follows on `wish`. There is one at a time, those that the hub
/// dropped aside: their paths are kept.
fn successor_of(state: &State, wish: RegistrationId) -> Option<&UserLife> {
    let is_dropped = |life: &&UserLife| life.machine.phase() == UserPhase::Leaf(LeafState::Dropped);
    let mut followers = state.user.values().filter(|life| life.follows == Some(wish));
    followers.find(|life| !is_dropped(life))
}

/// The swap out of `batch` that waits for the word of `hub`, and the wish it is of.
fn asked(state: &State, hub: NodeId, batch: BatchId) -> Option<(RegistrationId, &Swap)> {
    let is_of = |wish: &RegistrationId| {
        let life = state.user.get(wish).filter(|life| life.hub == hub);
        life.and_then(|life| life.machine.place()).is_some_and(|place| place.batch == batch)
    };
    let (wish, rollover) = state.rollovers.user.iter().find(|(wish, _)| is_of(wish))?;
    let swap = rollover.record.swap.as_ref().filter(|swap| swap.hubs.is_none())?;
    Some((*wish, swap))
}

/// The name of our payment of leg 1, from which its outcome is found again.
fn first_leg_key(hash: PaymentHash) -> IdempotencyKey {
    IdempotencyKey::own("rollover leg 1", hash)
}

/// Whether a payment of `invoice` ends before the old channel's deadline.
fn ends_in_time(deadlines: &Deadlines, best: u32, invoice: &Decoded) -> bool {
    let delta = invoice.min_final_cltv_expiry_delta.unwrap_or(u32::MAX);
    // LDK lets a payment expire one block later than asked for.
    let expires = best.saturating_add(delta).saturating_add(1);
    expires < deadlines.user_deadline().to_consensus_u32()
}
