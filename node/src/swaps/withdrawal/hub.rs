//! A hub's side: it holds the payment, puts the output on chain, and takes the payment with the
//! preimage, or its output back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bitcoin::{Amount, OutPoint, Transaction};
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
            Err(Refusal::NotNow) => return Ok(()),
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
        let promised: Amount = state.swaps.values().filter_map(Swap::promised).sum();
        if self.parts.wallet.balance().spendable < asked.amount + promised {
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
        let refunder = self.parts.secrets.hub_swap(asked.swap, &hash.0).public_key();
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
            description: InvoiceDescription::Text(String::new()),
            expiry: INVOICE_EXPIRY,
            min_final_cltv_expiry_delta: u16::try_from(delta).ok(),
            hash: Some(hash),
        };
        let purpose = format!("withdrawal {}", asked.swap);
        let invoice = self.hold_invoice(create, purpose).await?;
        self.parts.payments.keep_held(hash);
        self.parts.watch.watch(asked.swap, output);
        let mut swap = Swap::new(SwapRecord {
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
            told: None,
        });
        self.keep(asked.swap, &mut swap).await?;
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
        let is_held = life.machine().is_some_and(|m| m.phase() == HubWithdrawalPhase::Held);
        let may_depart = is_held && (swap.boarded || !self.have_departed.load(Ordering::Relaxed));
        let is_beaten = life.carrier.is_some_and(|txid| self.parts.wallet.is_beaten(txid));
        if is_beaten && found.is_none() {
            happened |= life.take(id, HubWithdrawalInput::Conflicted);
        }
        for input in inputs(life, payment.as_ref(), found.as_ref(), best) {
            // What is, or may be, in a batch transaction is not given up before that has departed.
            let is_end =
                matches!(input, HubWithdrawalInput::Block { .. } | HubWithdrawalInput::PaymentGone);
            if !(is_end && may_depart) {
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
                Some(found) => self.refund_withdrawal(id, swap, found.outpoint, None, best).await,
                // In no block yet: the refund, its child, pays for it too.
                None => match self.carried(swap) {
                    Some((outpoint, carrier)) => {
                        self.refund_withdrawal(id, swap, outpoint, Some(carrier), best).await
                    }
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
                let secret = self.parts.secrets.hub_swap(id, &swap.record.hash.0);
                let hand_over = Message::HandOver(HandOver { swap: id, secret });
                self.tell(swap, best, &hand_over);
                Ok(())
            }
            Some(PaymentState::Failed) | None => {
                let spend = found.and_then(|found| found.spend);
                if spend.is_some_and(|spend| best.saturating_sub(spend.at) + 1 >= FINAL_DEPTH) {
                    tracing::error!(swap = %id, "payment of a withdrawal is gone although its output was claimed");
                    return self.end(id, swap, End::Done).await;
                }
                Ok(())
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
                    None => End::Nothing("the output was not funded in time".into()),
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

    /// Where the output stands in the transaction that carries it, and that.
    fn carried(&self, swap: &Swap) -> Option<(OutPoint, Transaction)> {
        let Life::HubWithdrawal(life) = &swap.record.life else { return None };
        let (txid, output) = (life.carrier?, life.terms.output().ok()?);
        let known = self.parts.wallet.list_transactions();
        let carrier = known.into_iter().find(|info| info.txid == txid)?;
        let vout = carrier.transaction.output.iter().position(|known| *known == output)?;
        let outpoint = OutPoint { txid, vout: u32::try_from(vout).ok()? };
        Some((outpoint, Transaction::clone(&carrier.transaction)))
    }

    async fn refund_withdrawal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        outpoint: OutPoint,
        parent: Option<Transaction>,
        best: u32,
    ) -> Result<(), StoreError> {
        let Life::HubWithdrawal(life) = &swap.record.life else { return Ok(()) };
        let WithdrawalTerms { contract, amount, .. } = life.terms;
        // The user may claim it until then.
        let what = Spendable { contract, amount, outpoint, deadline: 0, parent };
        let ours = self.parts.secrets.hub_swap(id, &swap.record.hash.0);
        self.spend(id, swap, &what, Way::Refund(&ours), None, best).await
    }

    /// The preimage, from the user: from now on the payment is the hub's.
    pub(in crate::swaps) async fn hear_reveal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        preimage: Preimage,
    ) -> Result<(), StoreError> {
        // A preimage takes nothing once the payment is gone; the output is taken back then.
        let payment = self.parts.payments.recorded(swap.record.hash.inbound_id())?;
        if payment.is_none_or(|payment| payment.state == PaymentState::Failed) {
            return Ok(());
        }
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
    if phase == HubWithdrawalPhase::Held && payment.is_none_or(|p| p.state != PaymentState::Held) {
        inputs.push(HubWithdrawalInput::PaymentGone);
    }
    let spend = found.and_then(|found| found.spend.as_ref());
    let witness = spend.and_then(|spend| Some((height(spend.at), spend.witness()?)));
    let output = life.terms.contract.output().ok();
    let claim = output.zip(witness.as_ref()).and_then(|(o, (_, w))| o.preimage_in(w));
    let refund = output.zip(witness).and_then(|(o, (at, w))| o.is_refund(&w).then_some(at));
    // One block may take the refund, and bring it or the user's claim instead.
    let known = match phase {
        HubWithdrawalPhase::Refunded { at } => Some(at),
        _ => None,
    };
    if known.is_some() && known != refund {
        inputs.push(HubWithdrawalInput::RefundDisconnected);
    }
    match (claim, refund) {
        (Some(preimage), _) if phase != HubWithdrawalPhase::Paid => {
            inputs.push(HubWithdrawalInput::Preimage { preimage });
        }
        (None, Some(at))
            if known != refund && (known.is_some() || phase == HubWithdrawalPhase::Refunding) =>
        {
            inputs.push(HubWithdrawalInput::RefundConfirmed { at });
        }
        _ => {}
    }
    inputs.push(HubWithdrawalInput::Block { best });
    inputs
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{TxIn, Txid, Witness, absolute, transaction};
    use channel_contracts::musig::TreeSecret;

    use super::*;
    use crate::swaps::watch::SpentBy;

    const BEST: u32 = 1_000;

    fn refunded_at(at: u32) -> HubWithdrawalLife {
        let key = |byte| TreeSecret::from_bytes([byte; 32]).unwrap().public_key();
        let deadline = height(BEST + 3_000);
        let times = WithdrawalTimes::choose(height(BEST), 2, deadline).unwrap();
        let phases = [
            HubWithdrawalPhase::Held,
            HubWithdrawalPhase::Funded,
            HubWithdrawalPhase::Refunding,
            HubWithdrawalPhase::Refunded { at: height(at) },
        ];
        HubWithdrawalLife {
            terms: WithdrawalTerms {
                contract: SwapContract {
                    hash: Preimage([7; 32]).hash(),
                    claimer: key(1),
                    refunder: key(2),
                    refund_time: RefundTime::Height(times.refund),
                },
                amount: Amount::from_sat(50_000),
                payment_msat: 50_000_000,
                payment_expiry: times.payment_expiry,
                levels: 2,
                deadline,
            },
            at: height(BEST),
            invoice: String::new(),
            events: phases.map(HubWithdrawalEvent::Entered).to_vec(),
            held_at: None,
            carrier: None,
        }
    }

    fn spent(witness: &[&[u8]], at: u32) -> Found {
        let outpoint = OutPoint { txid: Txid::all_zeros(), vout: 0 };
        let input = TxIn {
            previous_output: outpoint,
            witness: Witness::from_slice(witness),
            ..TxIn::default()
        };
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![input],
            output: vec![],
        };
        Found { outpoint, at: BEST, spend: Some(SpentBy::new(&transaction, 0, at)) }
    }

    #[test]
    fn a_reorg_that_brings_the_claim_for_the_refund_is_seen_whole() {
        let best = 1_203;
        let life = refunded_at(1_200);
        let block = HubWithdrawalInput::Block { best: height(best) };
        let preimage = Preimage([7; 32]);
        let refund_script = life.terms.contract.refund_script();
        let refund: [&[u8]; 3] = [&[1; 64], refund_script.as_bytes(), &[2; 65]];
        let claim: [&[u8]; 5] = [&[1; 64], &preimage.0, &[3; 9], &[2; 65], &[0x50]];
        let seen = |found: &Found| inputs(&life, None, Some(found), best);

        assert_eq!(seen(&spent(&refund, 1_200)), std::slice::from_ref(&block));
        let gone = HubWithdrawalInput::RefundDisconnected;
        let again = HubWithdrawalInput::RefundConfirmed { at: height(1_202) };
        assert_eq!(seen(&spent(&refund, 1_202)), [gone.clone(), again, block.clone()]);
        let claimed = HubWithdrawalInput::Preimage { preimage };
        let inputs = seen(&spent(&claim, 1_202));
        assert_eq!(inputs, [gone, claimed, block]);
        let mut life = life.clone();
        for input in inputs {
            let _happened = life.take(SwapId([1; 32]), input);
        }
        assert_eq!(life.machine().unwrap().phase(), HubWithdrawalPhase::Paid);
    }
}
