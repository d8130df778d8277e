//! A hub's side: it holds the payment, puts the output on chain, and takes the payment with the
//! preimage, or its output back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bitcoin::OutPoint;
use channel_contracts::batch::SwapId;
use channel_contracts::batch::message::{
    HandOver, Message, Refused, SwapRefusal, Withdraw, Withdrawing,
};
use channel_contracts::script::Preimage;
use channel_contracts::swap::margins::{FAIL_BACK_BUFFER, FINAL_DEPTH};
use channel_contracts::swap::withdrawal::{
    HubWithdrawalEvent, HubWithdrawalInput, HubWithdrawalPhase, WithdrawalTerms,
};
use channel_contracts::swap::{RefundTime, SwapContract, WithdrawalTimes};

use crate::chain::fees::FeePurpose;
use crate::journal::millis;
use crate::lightning::InvoiceDescription;
use crate::lightning::types::{NodeId, PaymentHash};
use crate::payments::{CreateInvoice, PaymentRecord, PaymentState};
use crate::store::StoreError;
use crate::swaps::record::{End, HubWithdrawalLife, Life, SwapRecord};
use crate::swaps::requests::Refusal;
use crate::swaps::service::{State, Swap, Swaps, height};
use crate::swaps::spend::{Spendable, Way};
use crate::swaps::watch::Found;

/// How long the invoice can be paid: the user does it at once, or after a restart.
const INVOICE_EXPIRY: Duration = Duration::from_secs(3_600);
/// Blocks by which the payment outlives what the margins ask for: the node gives a held payment
/// back twelve blocks before LDK would, and blocks come while both sides agree.
const HOLD_BLOCKS: u32 = 12 + 6;
/// What LDK adds to the CLTV that an invoice is asked for with, and a block that is found before
/// the user pays.
const CLTV_SLACK: u32 = 9;

impl Swaps {
    /// Answers a user that wants to be paid on chain.
    pub(in crate::swaps) async fn answer_withdraw(
        &self,
        state: &mut State,
        user: NodeId,
        asked: &Withdraw,
    ) -> Result<(), StoreError> {
        let answer = match self.prepare_withdrawal(state, user, asked).await {
            Ok(answer) => Message::Withdrawing(answer),
            Err(Refusal::Store(error)) => return Err(error),
            Err(Refusal::Says(reason)) => {
                tracing::info!(%user, swap = %asked.swap, %reason, "withdrawal is refused");
                Message::Refused(Refused { swap: asked.swap, reason })
            }
        };
        self.parts.send(user, &answer);
        Ok(())
    }

    /// Makes everything ready, durable, and says what the user has to pay. The same question gets
    /// the same answer.
    async fn prepare_withdrawal(
        &self,
        state: &mut State,
        user: NodeId,
        asked: &Withdraw,
    ) -> Result<Withdrawing, Refusal> {
        let hash = PaymentHash(*asked.hash.as_ref());
        if let Some(known) = state.swaps.get(&asked.swap) {
            return same_answer(known, user, asked).ok_or(SwapRefusal::Key.into());
        }
        let carrying = self.admit(state, user, (asked.swap, asked.channel, asked.amount, hash))?;
        if self.parts.wallet.balance().spendable < asked.amount {
            return Err(SwapRefusal::Funds.into());
        }
        let (best, now) = (height(state.best), self.parts.clock.now());
        let deadline = carrying.deadlines.user_deadline();
        let times = WithdrawalTimes::choose(best, carrying.levels, deadline);
        let times = times.map_err(|_| SwapRefusal::Late)?;
        let payment_expiry =
            height(times.payment_expiry.to_consensus_u32().saturating_add(HOLD_BLOCKS));
        let delta = payment_expiry.to_consensus_u32().saturating_sub(state.best) + CLTV_SLACK;
        // What LDK adds, and blocks that are found until it is paid.
        let expires = height(state.best.saturating_add(delta).saturating_add(CLTV_SLACK));
        if !carrying.deadlines.may_hold(expires) {
            return Err(SwapRefusal::Late.into());
        }
        let feerate = self.parts.fees.get(FeePurpose::Open);
        let fee_msat = self.parts.policy.withdrawal_fee_msat(asked.amount, feerate);
        let payment_msat = asked.amount.to_sat().saturating_mul(1_000).saturating_add(fee_msat);
        let refunder = self.parts.secrets.hub_swap(asked.swap).public_key();
        let refund_time = RefundTime::Height(times.refund);
        let contract =
            SwapContract { hash: asked.hash, claimer: asked.claimer, refunder, refund_time };
        let terms = WithdrawalTerms {
            contract,
            amount: asked.amount,
            payment_msat,
            payment_expiry,
            levels: carrying.levels,
            deadline,
        };
        terms.check(best).map_err(|_| SwapRefusal::Late)?;
        let output = terms.output().map_err(|_| SwapRefusal::Key)?;
        let create = CreateInvoice {
            amount_msat: Some(payment_msat),
            description: InvoiceDescription::Text(format!("withdrawal {}", asked.swap)),
            expiry: INVOICE_EXPIRY,
            min_final_cltv_expiry_delta: u16::try_from(delta).ok(),
            hash: Some(hash),
        };
        let invoice = self.hold_invoice(create).await?;
        self.parts.watch.watch(asked.swap, output);
        let swap = Swap::new(SwapRecord {
            peer: user,
            channel: asked.channel,
            amount: asked.amount,
            hash,
            begun_ms: millis(now),
            begun_at: state.best,
            life: Life::HubWithdrawal(HubWithdrawalLife {
                terms,
                at: best,
                invoice,
                events: vec![],
                held_at: None,
                carrier: None,
            }),
            spend: None,
            end: None,
        });
        self.keep(asked.swap, &swap).await?;
        let answer = same_answer(&swap, user, asked);
        state.swaps.insert(asked.swap, swap);
        answer.ok_or(SwapRefusal::Internal.into())
    }

    pub(in crate::swaps) async fn hub_withdrawal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        best: u32,
    ) -> Result<(), StoreError> {
        let payment = self.parts.payments.recorded(swap.record.hash.inbound_id())?;
        let found = self.parts.watch.found(id);
        let Life::HubWithdrawal(life) = &mut swap.record.life else { return Ok(()) };
        let mut happened = false;
        let may_depart = swap.boarded || !self.have_departed.load(Ordering::Relaxed);
        for input in inputs(life, payment.as_ref(), found.as_ref(), best) {
            // What is, or may be, in a batch transaction is not given up before that has departed.
            let is_block = matches!(input, HubWithdrawalInput::Block { .. });
            if !(is_block && may_depart) {
                happened |= life.take(id, input);
            }
        }
        let Some(phase) = life.machine().map(|machine| machine.phase()) else { return Ok(()) };
        if happened {
            if phase == HubWithdrawalPhase::Held {
                life.held_at.get_or_insert(best);
            }
            self.keep(id, swap).await?;
        }
        let payment = payment.map(|payment| payment.state);
        match phase {
            HubWithdrawalPhase::Refunding => match found {
                Some(found) if found.spend.is_some() => Ok(()),
                Some(found) => self.refund_withdrawal(id, swap, found.outpoint, best).await,
                // In no block yet: the refund, its child, pays for it too.
                None => match self.carried(swap) {
                    Some(outpoint) => self.refund_withdrawal(id, swap, outpoint, best).await,
                    None => Ok(()),
                },
            },
            HubWithdrawalPhase::AwaitingPayment if payment.is_none() => {
                self.end_unpaid(id, swap).await
            }
            HubWithdrawalPhase::Paid => self.take_payment(id, swap, payment, found, best).await,
            HubWithdrawalPhase::Over => self.give_payment_back(id, swap, payment).await,
            HubWithdrawalPhase::AwaitingPayment
            | HubWithdrawalPhase::Held
            | HubWithdrawalPhase::Funded
            | HubWithdrawalPhase::Refunded { .. } => Ok(()),
        }
    }

    /// Claims the payment; then the user gets the hub's key, until its output is spent for good.
    async fn take_payment(
        &self,
        id: SwapId,
        swap: &mut Swap,
        payment: Option<PaymentState>,
        found: Option<Found>,
        best: u32,
    ) -> Result<(), StoreError> {
        let Life::HubWithdrawal(life) = &swap.record.life else { return Ok(()) };
        let preimage = life.events.iter().rev().find_map(|event| match event {
            HubWithdrawalEvent::PreimageKnown(preimage) => Some(*preimage),
            _ => None,
        });
        match payment {
            Some(PaymentState::Held) => self.settle(id, preimage).await,
            Some(PaymentState::Succeeded) => {
                let spend = found.and_then(|found| found.spend);
                if spend.is_some_and(|spend| best.saturating_sub(spend.at) + 1 >= FINAL_DEPTH) {
                    return self.end(id, swap, End::Done).await;
                }
                let secret = self.parts.secrets.hub_swap(id);
                let hand_over = Message::HandOver(HandOver { swap: id, secret });
                self.tell(swap, best, &hand_over);
                Ok(())
            }
            Some(PaymentState::Failed) | None => {
                tracing::error!(swap = %id, "payment of a withdrawal is gone although its preimage is known");
                self.end(id, swap, End::Done).await
            }
            Some(PaymentState::Claiming | PaymentState::InFlight) => Ok(()),
        }
    }

    async fn give_payment_back(
        &self,
        id: SwapId,
        swap: &mut Swap,
        payment: Option<PaymentState>,
    ) -> Result<(), StoreError> {
        let hash = swap.record.hash;
        match payment {
            Some(PaymentState::Held) => self.give_back(hash).await,
            Some(PaymentState::InFlight | PaymentState::Claiming) => Ok(()),
            Some(PaymentState::Succeeded | PaymentState::Failed) | None => {
                self.cancel(hash).await?;
                let end = match swap.record.spend {
                    Some(_) => End::Refunded,
                    None => End::Nothing("the user did not pay in time".into()),
                };
                self.end(id, swap, end).await
            }
        }
    }

    /// Ends what nobody can pay any more: its invoice has expired.
    async fn end_unpaid(&self, id: SwapId, swap: &mut Swap) -> Result<(), StoreError> {
        let now = millis(self.parts.clock.now());
        let invoice = self.parts.payments.invoice(swap.record.hash)?;
        if invoice.is_some_and(|invoice| now <= invoice.expires_ms) {
            return Ok(());
        }
        self.cancel(swap.record.hash).await?;
        let why = "the user did not pay in time".to_owned();
        self.end(id, swap, End::Nothing(why)).await
    }

    /// Where the output stands in the transaction that carries it.
    fn carried(&self, swap: &Swap) -> Option<OutPoint> {
        let Life::HubWithdrawal(life) = &swap.record.life else { return None };
        let (txid, output) = (life.carrier?, life.terms.output().ok()?);
        let known = self.parts.wallet.list_transactions();
        let carrier = known.into_iter().find(|info| info.txid == txid)?;
        let vout = carrier.transaction.output.iter().position(|known| *known == output)?;
        Some(OutPoint { txid, vout: u32::try_from(vout).ok()? })
    }

    async fn refund_withdrawal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        outpoint: OutPoint,
        best: u32,
    ) -> Result<(), StoreError> {
        let Life::HubWithdrawal(life) = &swap.record.life else { return Ok(()) };
        let WithdrawalTerms { contract, amount, .. } = life.terms;
        let what = Spendable { contract, amount, outpoint };
        let ours = self.parts.secrets.hub_swap(id);
        self.spend(id, swap, &what, Way::Refund(&ours), None, best).await
    }

    /// The preimage, from the user: from now on the payment is the hub's.
    pub(in crate::swaps) async fn hear_reveal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        preimage: Preimage,
    ) -> Result<(), StoreError> {
        let Life::HubWithdrawal(life) = &mut swap.record.life else { return Ok(()) };
        if life.take(id, HubWithdrawalInput::Preimage { preimage }) {
            self.keep(id, swap).await?;
        }
        // Who says it again has not got the key.
        swap.told_at = None;
        Ok(())
    }
}

/// The answer to `asked`, if the swap is that.
fn same_answer(known: &Swap, user: NodeId, asked: &Withdraw) -> Option<Withdrawing> {
    let Life::HubWithdrawal(life) = &known.record.life else { return None };
    let contract = &life.terms.contract;
    let same = known.record.peer == user
        && known.record.end.is_none()
        && known.record.channel == asked.channel
        && life.terms.amount == asked.amount
        && contract.hash == asked.hash
        && contract.claimer == asked.claimer;
    let RefundTime::Height(refund) = contract.refund_time else { return None };
    same.then(|| Withdrawing {
        swap: asked.swap,
        refunder: contract.refunder,
        refund,
        payment_expiry: life.terms.payment_expiry,
        invoice: life.invoice.clone(),
    })
}

/// What there is to see, as the machine takes it.
fn inputs(
    life: &HubWithdrawalLife,
    payment: Option<&PaymentRecord>,
    found: Option<&Found>,
    best: u32,
) -> Vec<HubWithdrawalInput> {
    let Some(machine) = life.machine() else { return vec![] };
    let phase = machine.phase();
    let (mut inputs, best) = (Vec::new(), height(best));
    if let Some(payment) = payment.filter(|payment| payment.state == PaymentState::Held)
        && phase == HubWithdrawalPhase::AwaitingPayment
    {
        let deadline = payment.claim_deadline.unwrap_or(0);
        let expiry = height(deadline.saturating_add(FAIL_BACK_BUFFER));
        let amount_msat = payment.amount_msat;
        inputs.push(HubWithdrawalInput::PaymentHeld { amount_msat, expiry, best });
    }
    let spend = found.and_then(|found| found.spend.as_ref());
    let witness = spend.and_then(|spend| Some((spend.at, spend.witness()?)));
    let output = life.terms.contract.output().ok();
    let preimage = output.zip(witness.as_ref()).and_then(|(o, (_, w))| o.preimage_in(w));
    match (preimage, witness, phase) {
        (Some(preimage), _, _) if phase != HubWithdrawalPhase::Paid => {
            inputs.push(HubWithdrawalInput::Preimage { preimage });
        }
        (None, Some((at, _)), HubWithdrawalPhase::Refunding) => {
            inputs.push(HubWithdrawalInput::RefundConfirmed { at: height(at) });
        }
        (_, None, HubWithdrawalPhase::Refunded { .. }) => {
            inputs.push(HubWithdrawalInput::RefundDisconnected);
        }
        _ => {}
    }
    inputs.push(HubWithdrawalInput::Block { best });
    inputs
}
