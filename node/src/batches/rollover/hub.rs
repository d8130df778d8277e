//! A hub's side: it holds leg 1 until leg 2 has its outcome.

use std::time::Duration;

use bitcoin::Amount;
use channel_contracts::batch::deadlines::{CLAIM_BUFFER, ROLLOVER_SECOND_CLTV_MAX};
use channel_contracts::batch::message::{Message, Roll, Rolling, Stay, StayReason};
use channel_contracts::batch::{BatchId, BlockDelta, Deadlines, HubPhase, LegExpiries, Peer};

use super::place::Due;
use super::plan::{LegLook, LegStep};
use super::record::{Leg, put_paid};
use crate::batches::service::{Batches, State, height};
use crate::journal::{IdempotencyKey, millis};
use crate::lightning::types::{ChannelRef, NodeId, PaymentHash};
use crate::lightning::{Decoded, InvoiceDescription};
use crate::payments::{
    CreateInvoice, CreateInvoiceError, HoldError, PayError, PayRequest, PaymentRecord, PaymentState,
};
use crate::store::{Batch, StoreError};

/// How long leg 1 can be paid: the user does it at once, or after a restart.
const INVOICE_EXPIRY: Duration = Duration::from_secs(3_600);
/// Swaps that one user may have under way.
const LEGS_MAX: usize = 4;
/// What LDK adds to the CLTV that an invoice is asked for with, and one block that is found
/// meanwhile.
const CLTV_SLACK: u32 = 4;

impl Batches {
    /// Answers a user that wants to move its balance.
    pub(super) async fn answer_roll(
        &self,
        state: &mut State,
        user: NodeId,
        roll: &Roll,
    ) -> Result<(), StoreError> {
        let theirs = self.parts.lightning.decode(&roll.invoice).ok();
        let hash = theirs.as_ref().and_then(|theirs| theirs.hash);
        let answer = match self.prepare(state, user, roll, theirs).await {
            Ok(invoice) => Message::Rolling(Rolling { batch: roll.batch, invoice }),
            Err(Refused::Store(error)) => return Err(error),
            Err(Refused::Stay(reason)) => {
                tracing::info!(%user, batch = %roll.batch, %reason, "user does not roll over now");
                let batch = roll.batch;
                let payment_hash = hash.map_or([0; 32], |hash| hash.0);
                Message::Stay(Stay { batch, payment_hash, reason })
            }
        };
        self.parts.send(Peer(user), &answer);
        Ok(())
    }

    /// Makes everything ready for a swap, durable, and returns the invoice of leg 1. The same
    /// question gets the same answer.
    async fn prepare(
        &self,
        state: &mut State,
        user: NodeId,
        roll: &Roll,
        theirs: Option<Decoded>,
    ) -> Result<String, Refused> {
        let SecondLeg { amount_msat, hash, cltv } = self.second_leg(user, theirs)?;
        if let Some(known) = state.rollovers.hub.get(&hash) {
            let same = known.user == user && known.theirs == roll.invoice;
            let first = self.parts.payments.invoice(hash)?.filter(|_| same);
            return first.map(|first| first.invoice).ok_or(Refused::Stay(StayReason::Invoice));
        }
        if state.rollovers.hub.values().filter(|leg| leg.user == user).count() >= LEGS_MAX {
            return Err(Refused::Stay(StayReason::Busy));
        }
        if roll.batch == roll.successor {
            return Err(Refused::Stay(StayReason::NotMember));
        }
        let old = self.member_channel(state, user, roll.batch);
        let new = self.member_channel(state, user, roll.successor);
        let (Some((_, deadlines)), Some((new, _))) = (old, new) else {
            return Err(Refused::Stay(StayReason::NotMember));
        };
        let look = self.channel_look(new).filter(|channel| channel.usable);
        let look = look.ok_or(Refused::Stay(StayReason::NotMember))?;
        if look.spendable_msat < amount_msat {
            return Err(Refused::Stay(StayReason::Funds));
        }
        let fee_msat = self.place_due(state, user, roll.successor)?.of(amount_msat);
        let first_msat = amount_msat.checked_add(fee_msat);
        let first_msat = first_msat.ok_or(Refused::Stay(StayReason::Invoice))?;
        let LegExpiries { old_channel, .. } = deadlines
            .rollover_legs(height(state.best), cltv)
            .map_err(|_| Refused::Stay(StayReason::Late))?;
        let delta = old_channel.to_consensus_u32().saturating_sub(state.best);
        let purpose = format!("rollover out of {}", roll.batch);
        let create = CreateInvoice {
            amount_msat: Some(first_msat),
            description: InvoiceDescription::Text(purpose.clone()),
            expiry: INVOICE_EXPIRY,
            min_final_cltv_expiry_delta: u16::try_from(delta).ok(),
            hash: Some(hash),
        };
        let first = match self.parts.payments.create_invoice(create, None).await {
            Ok(invoice) => invoice,
            // Made before a crash that lost the record of the leg; one that is for something else
            // would be paid once and buy both.
            Err(CreateInvoiceError::HashUsed { .. }) => {
                let known = self.parts.payments.invoice(hash)?;
                let same = known.filter(|known| {
                    known.hold
                        && known.amount_msat == Some(first_msat)
                        && known.description == purpose
                });
                same.ok_or(Refused::Stay(StayReason::Invoice))?
            }
            Err(CreateInvoiceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "no invoice can be made for a rollover");
                return Err(Refused::Stay(StayReason::Internal));
            }
        };
        let (batch, successor, theirs) = (roll.batch, roll.successor, roll.invoice.clone());
        let leg = Leg { user, batch, successor, theirs, cltv: cltv.0, fee_msat };
        let mut writes = Batch::default();
        leg.put(hash, &mut writes);
        self.parts.committer.durable(self.parts.committer.enqueue(writes)).await?;
        state.rollovers.hub.insert(hash, leg);
        Ok(first.invoice)
    }

    /// What `user` still owes for its place in `batch`, with what it is paying taken for paid.
    fn place_due(&self, state: &State, user: NodeId, batch: BatchId) -> Result<Due, StoreError> {
        let fee = state.hub.get(&batch).map_or(Amount::ZERO, |life| life.machine.policy().fee);
        let paid = state.rollovers.paid.get(&batch).and_then(|paid| paid.get(&user));
        let mut under_way = Vec::new();
        for (hash, leg) in &state.rollovers.hub {
            if leg.user == user && leg.successor == batch {
                let first = self.parts.payments.recorded(hash.inbound_id())?;
                under_way.push((leg.fee_msat, first.map(|first| first.state)));
            }
        }
        let fee_msat = fee.to_sat().saturating_mul(1_000);
        Ok(Due::beside(fee_msat, paid.copied().unwrap_or(0), under_way.into_iter()))
    }

    /// What a user wants to be paid by its invoice, if it may be.
    fn second_leg(&self, user: NodeId, invoice: Option<Decoded>) -> Result<SecondLeg, Refused> {
        let refused = || Refused::Stay(StayReason::Invoice);
        let invoice = invoice.ok_or_else(refused)?;
        let now = self.parts.clock.now();
        let expires_later = invoice.expires.is_some_and(|expires| expires > now + INVOICE_EXPIRY);
        let delta = invoice.min_final_cltv_expiry_delta.unwrap_or(u32::MAX);
        let is_right = invoice.payee == Some(user)
            && invoice.on_our_network
            && expires_later
            && delta <= ROLLOVER_SECOND_CLTV_MAX + CLTV_SLACK;
        match (invoice.amount_msat, invoice.hash) {
            (Some(amount_msat), Some(hash)) if is_right && amount_msat > 0 => {
                Ok(SecondLeg { amount_msat, hash, cltv: BlockDelta(delta) })
            }
            _ => Err(refused()),
        }
    }

    /// The channel of `user` in a live batch of ours, and the deadlines of its path.
    fn member_channel(
        &self,
        state: &State,
        user: NodeId,
        batch: BatchId,
    ) -> Option<(ChannelRef, Deadlines)> {
        let life = state.hub.get(&batch)?;
        let member = life.machine.members().get(&Peer(user)).filter(|member| !member.retired)?;
        let HubPhase::Live { .. } = life.machine.phase() else { return None };
        let channel = life.channels.get(&Peer(user))?;
        member.channel.as_ref()?;
        let levels = life.signed()?.tree().shape().levels();
        let deadlines = Deadlines::new(life.machine.expiry(), levels).ok()?;
        Some((*channel, deadlines))
    }

    pub(super) async fn go_on_with_leg(
        &self,
        state: &mut State,
        hash: PaymentHash,
    ) -> Result<(), StoreError> {
        let Some(leg) = state.rollovers.hub.get(&hash).cloned() else { return Ok(()) };
        let payments = &self.parts.payments;
        let first = payments.recorded(hash.inbound_id())?;
        let second = payments.recorded_under(&second_leg_key(hash))?;
        let invoice = payments.invoice(hash)?;
        let now = millis(self.parts.clock.now());
        let look = LegLook {
            first: first.as_ref().map(|record| record.state),
            second: second.as_ref().map(|record| record.state),
            is_open: invoice.is_some_and(|invoice| !invoice.cancelled && invoice.expires_ms > now),
            in_time: first.as_ref().is_some_and(|first| is_in_time(first, leg.cltv, state.best)),
        };
        match look.step() {
            LegStep::Wait => {}
            LegStep::Pay => self.pay_second_leg(state, hash, &leg).await?,
            LegStep::Take => {
                if let Some(preimage) = second.and_then(|record| record.preimage) {
                    store_error(payments.settle(preimage).await)?;
                }
            }
            LegStep::GiveBack => self.give_first_leg_back(hash).await?,
            LegStep::End => {
                let lost = look.first == Some(PaymentState::Failed)
                    && look.second == Some(PaymentState::Succeeded);
                if lost {
                    tracing::error!(%hash, user = %leg.user, "leg 1 of a rollover went back although leg 2 arrived");
                }
                let mut writes = Batch::default();
                Leg::delete(hash, &mut writes);
                if look.first == Some(PaymentState::Succeeded) && leg.fee_msat > 0 {
                    let paid = state.rollovers.paid.entry(leg.successor).or_default();
                    let sum = paid.entry(leg.user).or_default();
                    *sum = sum.saturating_add(leg.fee_msat);
                    put_paid(leg.successor, paid, &mut writes);
                }
                let _ended_again_after_a_crash = self.parts.committer.enqueue(writes);
                state.rollovers.hub.remove(&hash);
            }
        }
        Ok(())
    }

    /// Pays leg 2 over the new channel, once: its outcome is looked up by its key.
    async fn pay_second_leg(
        &self,
        state: &State,
        hash: PaymentHash,
        leg: &Leg,
    ) -> Result<(), StoreError> {
        let new = self.member_channel(state, leg.user, leg.successor);
        let Some((new, _)) = new else { return self.give_first_leg_back(hash).await };
        let request = PayRequest::over(leg.theirs.clone(), new);
        match self.parts.payments.pay(&request, Some(&second_leg_key(hash))) {
            Ok(_followed_by_its_key) => Ok(()),
            Err(PayError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(user = %leg.user, %hash, %error, "leg 2 of a rollover cannot be paid");
                self.give_first_leg_back(hash).await
            }
        }
    }

    async fn give_first_leg_back(&self, hash: PaymentHash) -> Result<(), StoreError> {
        store_error(self.parts.payments.give_back(hash).await)
    }
}

/// What a user wants to be paid.
struct SecondLeg {
    amount_msat: u64,
    hash: PaymentHash,
    cltv: BlockDelta,
}

/// Why a swap does not begin.
enum Refused {
    Stay(StayReason),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A payment that is in another state by now is looked at again anyway.
fn store_error(done: Result<PaymentRecord, HoldError>) -> Result<(), StoreError> {
    match done {
        Err(HoldError::Store(error)) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "leg 1 of a rollover has its outcome already");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Whether leg 2, begun at `best`, has its outcome before leg 1 must be claimed: its CLTV and its
/// end on chain must fit in between.
fn is_in_time(first: &PaymentRecord, second_cltv: u32, best: u32) -> bool {
    let needed = best.saturating_add(second_cltv).saturating_add(CLAIM_BUFFER);
    first.claim_deadline.is_none_or(|deadline| deadline > needed)
}

/// The name of our payment of leg 2, from which its outcome is found again.
fn second_leg_key(hash: PaymentHash) -> IdempotencyKey {
    IdempotencyKey::own("rollover leg 2", hash)
}
