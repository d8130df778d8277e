//! A hub's side: it pays once the output is buried, and spends the output with what it learns.

use bitcoin::relative;
use channel_contracts::batch::SwapId;
use channel_contracts::batch::message::{
    Deposit, Deposited, Depositing, Message, Refused, SwapRefusal,
};
use channel_contracts::musig::TreeSecret;
use channel_contracts::script::Preimage;
use channel_contracts::swap::deposit::{
    Confirmation, DepositTerms, HubDepositEvent, HubDepositInput, HubDepositPhase,
};
use channel_contracts::swap::margins::{DEPOSIT_REFUND_BLOCKS, DepositTimes};
use channel_contracts::swap::{RefundTime, SwapContract};

use super::FINAL_CLTV_MAX;
use crate::chain::fees::FeePurpose;
use crate::journal::{IdempotencyKey, millis};
use crate::lightning::types::{NodeId, PaymentHash};
use crate::payments::{PayError, PayRequest, PaymentRecord, PaymentState};
use crate::store::StoreError;
use crate::swaps::record::{End, HubDepositLife, Life, SwapRecord};
use crate::swaps::requests::Refusal;
use crate::swaps::service::{State, Swap, Swaps, height};
use crate::swaps::spend::{Spendable, Way};
use crate::swaps::watch::Found;

/// Blocks that may be found between our look at the best one and the payment's HTLC.
const PAY_MARGIN: u32 = 4;
/// Blocks after which an output that never came is not waited for.
const WAIT_BLOCKS: u32 = 1_008;

impl Swaps {
    /// Answers a user that wants to pay on chain.
    pub(in crate::swaps) async fn answer_deposit(
        &self,
        state: &mut State,
        user: NodeId,
        asked: &Deposit,
    ) -> Result<(), StoreError> {
        let answer = match self.prepare_deposit(state, user, asked).await {
            Ok(answer) => Message::Depositing(answer),
            Err(Refusal::Store(error)) => return Err(error),
            Err(Refusal::NotNow) => return Ok(()),
            Err(Refusal::Says(reason)) => {
                tracing::info!(%user, swap = %asked.swap, %reason, "deposit is refused");
                Message::Refused(Refused { swap: asked.swap, reason })
            }
        };
        self.parts.send(user, &answer);
        Ok(())
    }

    /// Records the terms, durable, and says them. The same question gets the same answer.
    async fn prepare_deposit(
        &self,
        state: &mut State,
        user: NodeId,
        asked: &Deposit,
    ) -> Result<Depositing, Refusal> {
        let hash = PaymentHash(*asked.hash.as_ref());
        if let Some(known) = state.swaps.get(&asked.swap) {
            return same_answer(known, user, asked).ok_or(SwapRefusal::Key.into());
        }
        let carrying = self.admit(state, user, (asked.swap, asked.channel, asked.amount, hash))?;
        let last = state.best.saturating_add(FINAL_CLTV_MAX + PAY_MARGIN + 2);
        if !carrying.deadlines.may_hold(height(last)) {
            return Err(SwapRefusal::Late.into());
        }
        let feerate = self.parts.fees.get(FeePurpose::Open);
        let fee_msat = self.parts.policy.deposit_fee_msat(asked.amount, feerate);
        let amount_msat = asked.amount.to_sat().saturating_mul(1_000);
        let payment_msat = amount_msat.checked_sub(fee_msat).filter(|msat| *msat > 0);
        let payment_msat = payment_msat.ok_or(SwapRefusal::Amount)?;
        if carrying.live.spendable_msat < payment_msat {
            return Err(SwapRefusal::Funds.into());
        }
        let refund_time = RefundTime::Blocks(relative::Height::from_height(DEPOSIT_REFUND_BLOCKS));
        let claimer = self.parts.secrets.hub_swap(asked.swap, &hash.0).public_key();
        let terms = DepositTerms {
            contract: SwapContract {
                hash: asked.hash,
                claimer,
                refunder: asked.refunder,
                refund_time,
            },
            amount: asked.amount,
            payment_msat,
            levels: carrying.levels,
            final_cltv: FINAL_CLTV_MAX,
        };
        terms.check().map_err(|_| SwapRefusal::Key)?;
        let output = terms.output().map_err(|_| SwapRefusal::Key)?;
        self.parts.watch.watch(asked.swap, output);
        let mut swap = Swap::new(SwapRecord {
            peer: user,
            channel: asked.channel,
            amount: asked.amount,
            hash,
            begun_ms: millis(self.parts.clock.now()),
            begun_at: state.best,
            life: Life::HubDeposit(HubDepositLife {
                terms,
                invoice: None,
                events: vec![],
                payment: None,
                failed: 0,
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

    /// The user says how to be paid.
    pub(in crate::swaps) async fn hear_deposited(
        &self,
        swap: &mut Swap,
        said: &Deposited,
    ) -> Result<(), StoreError> {
        let (peer, hash) = (swap.record.peer, swap.record.hash);
        let Life::HubDeposit(life) = &mut swap.record.life else { return Ok(()) };
        if life.invoice.is_some() {
            return Ok(());
        }
        let is_right = self.parts.lightning.decode(&said.invoice).is_ok_and(|invoice| {
            invoice.payee == Some(peer)
                && invoice.hash == Some(hash)
                && invoice.amount_msat == Some(life.terms.payment_msat)
                && invoice.on_our_network
                && invoice.min_final_cltv_expiry_delta.is_some_and(|d| d <= life.terms.final_cltv)
        });
        if !is_right {
            tracing::warn!(swap = %said.swap, %peer, "invoice for a deposit is not what was agreed");
            return Ok(());
        }
        life.invoice = Some(said.invoice.clone());
        self.keep(said.swap, swap).await
    }

    pub(in crate::swaps) async fn hub_deposit(
        &self,
        id: SwapId,
        swap: &mut Swap,
        best: u32,
    ) -> Result<(), StoreError> {
        let found = self.parts.watch.found(id);
        let begun_at = swap.record.begun_at;
        let Life::HubDeposit(life) = &mut swap.record.life else { return Ok(()) };
        let payment = self.payment(life.payment, &payment_key(id, life.failed))?;
        let begun = payment.as_ref().map(|payment| payment.id);
        let mut happened = std::mem::replace(&mut life.payment, begun) != begun;
        // What failed is paid anew at the next block, while that is safe.
        let failed = payment.as_ref().is_some_and(|p| p.state == PaymentState::Failed);
        if failed && self.last_expiry(life, best).is_some() {
            life.failed += 1;
            life.payment = None;
            swap.failed_at = Some(best);
            return self.keep(id, swap).await;
        }
        for input in inputs(life, payment.as_ref(), found.as_ref(), best) {
            happened |= life.take(id, input);
        }
        let Some(phase) = life.machine().map(|machine| machine.phase()) else { return Ok(()) };
        let is_unpaid = payment.is_none();
        if happened {
            self.keep(id, swap).await?;
        }
        match phase {
            HubDepositPhase::Paying if is_unpaid => self.pay_deposit(id, swap, best).await,
            HubDepositPhase::Owned { .. } => match found {
                Some(found) if found.spend.is_none() => {
                    self.spend_deposit(id, swap, &found, best).await
                }
                _ => Ok(()),
            },
            HubDepositPhase::Settled => self.end(id, swap, End::Done).await,
            HubDepositPhase::Over => {
                let why = "nothing was paid; the user takes the output back".to_owned();
                self.end(id, swap, End::Nothing(why)).await
            }
            HubDepositPhase::AwaitingOutput
                if best >= begun_at.saturating_add(WAIT_BLOCKS) && found.is_none() =>
            {
                self.end(id, swap, End::Nothing("the output never came".into())).await
            }
            _ => Ok(()),
        }
    }

    /// Pays the user, once: the outcome is looked up by its key. What cannot be paid now is tried
    /// again at the next block, while that is safe.
    async fn pay_deposit(&self, id: SwapId, swap: &mut Swap, best: u32) -> Result<(), StoreError> {
        let Life::HubDeposit(life) = &mut swap.record.life else { return Ok(()) };
        if self.last_expiry(life, best).is_none() {
            if life.take(id, HubDepositInput::PaymentFailed) {
                self.keep(id, swap).await?;
            }
            return Ok(());
        }
        let Some(invoice) = life.invoice.clone() else { return Ok(()) };
        if swap.failed_at == Some(best) {
            return Ok(());
        }
        let key = payment_key(id, life.failed);
        let ends = best.saturating_add(life.terms.final_cltv + PAY_MARGIN);
        let carrying = self.carrying(swap.record.peer, swap.record.channel);
        let failed = match carrying {
            Some(carrying) if !carrying.live.usable => return Ok(()),
            Some(carrying) if !carrying.deadlines.may_hold(height(ends)) => {
                "the payment could outlive the channel's deadline".to_owned()
            }
            Some(carrying) => {
                let request = PayRequest::over(invoice, carrying.channel);
                match self.parts.payments.pay(&request, Some(&key)) {
                    Ok(_followed_by_its_key) => return Ok(()),
                    Err(PayError::Store(error)) => return Err(error),
                    Err(error) => error.to_string(),
                }
            }
            None => "the channel is closed".to_owned(),
        };
        tracing::warn!(swap = %id, why = failed, "deposit cannot be paid for now");
        swap.failed_at = Some(best);
        Ok(())
    }

    /// The latest expiry of the payment, if one that is begun at `best` ends before it.
    fn last_expiry(&self, life: &HubDepositLife, best: u32) -> Option<u32> {
        let confirmed = output_of(life)?.at;
        let RefundTime::Blocks(refund) = life.terms.contract.refund_time else { return None };
        let times = DepositTimes { confirmed, refund, levels: life.terms.levels };
        let last = times.payment_expiry_max()?.to_consensus_u32();
        let needed = best.saturating_add(life.terms.final_cltv).saturating_add(PAY_MARGIN);
        (needed <= last).then_some(last)
    }

    /// The user's key, if it is that: the output is spent with both.
    pub(in crate::swaps) async fn hear_deposit_key(
        &self,
        id: SwapId,
        swap: &mut Swap,
        secret: TreeSecret,
    ) -> Result<(), StoreError> {
        let Life::HubDeposit(life) = &mut swap.record.life else { return Ok(()) };
        if secret.public_key() != life.terms.contract.refunder {
            tracing::warn!(swap = %id, "the user hands over a key that is not the swap's");
            return Ok(());
        }
        if life.take(id, HubDepositInput::KeyHandedOver) {
            self.keep(id, swap).await?;
        }
        swap.secret = Some(secret);
        Ok(())
    }

    /// By key once the user has handed over its own, else by the preimage after a block.
    async fn spend_deposit(
        &self,
        id: SwapId,
        swap: &mut Swap,
        found: &Found,
        best: u32,
    ) -> Result<(), StoreError> {
        let owned_since = *swap.owned_since.get_or_insert(best);
        let Life::HubDeposit(life) = &swap.record.life else { return Ok(()) };
        let preimage = life.machine().and_then(|machine| machine.preimage().copied());
        let DepositTerms { contract, amount, .. } = life.terms;
        let RefundTime::Blocks(refund) = contract.refund_time else { return Ok(()) };
        let deadline = found.at.saturating_add(refund.value().into());
        let what = Spendable { contract, amount, outpoint: found.outpoint, deadline, parent: None };
        let ours = self.parts.secrets.hub_swap(id, &swap.record.hash.0);
        let theirs = swap.secret.clone();
        let way = match (&theirs, preimage) {
            (Some(theirs), _) => Way::Keys([&ours, theirs]),
            (None, Some(preimage)) if best > owned_since => Way::Claim(preimage, &ours),
            _ => return Ok(()),
        };
        self.spend(id, swap, &what, way, None, best).await
    }
}

/// The answer to `asked`, if the swap is that.
fn same_answer(known: &Swap, user: NodeId, asked: &Deposit) -> Option<Depositing> {
    let Life::HubDeposit(life) = &known.record.life else { return None };
    let contract = &life.terms.contract;
    let same = known.record.peer == user
        && known.record.end.is_none()
        && known.record.channel == asked.channel
        && life.terms.amount == asked.amount
        && contract.hash == asked.hash
        && contract.refunder == asked.refunder;
    let RefundTime::Blocks(refund) = contract.refund_time else { return None };
    let (claimer, payment_msat) = (contract.claimer, life.terms.payment_msat);
    same.then_some(Depositing { swap: asked.swap, claimer, refund, payment_msat })
}

/// Where the machine knows the output to stand.
fn output_of(life: &HubDepositLife) -> Option<Confirmation> {
    let last = life.events.iter().rev().find_map(|event| match event {
        HubDepositEvent::Output(output) => Some(*output),
        _ => None,
    });
    last.flatten()
}

/// What there is to see, as the machine takes it.
fn inputs(
    life: &HubDepositLife,
    payment: Option<&PaymentRecord>,
    found: Option<&Found>,
    best: u32,
) -> Vec<HubDepositInput> {
    let (mut inputs, best) = (Vec::new(), height(best));
    let (before, output) = (output_of(life), life.terms.output());
    let now = found.map(|found| Confirmation { outpoint: found.outpoint, at: height(found.at) });
    match (now, output) {
        (Some(Confirmation { outpoint, at }), Ok(output)) if before != now => {
            inputs.push(HubDepositInput::OutputConfirmed { outpoint, output, at });
        }
        (None, _) if before.is_some() => inputs.push(HubDepositInput::OutputDisconnected),
        _ => {}
    }
    match payment.map(|payment| (payment.state, payment.preimage)) {
        Some((PaymentState::Succeeded, Some(preimage))) => {
            let preimage = Preimage(preimage.0);
            inputs.push(HubDepositInput::PaymentSucceeded { preimage });
        }
        Some((PaymentState::Failed, _)) => inputs.push(HubDepositInput::PaymentFailed),
        _ => {}
    }
    inputs.push(HubDepositInput::Block { best });
    if let Some(spend) = found.and_then(|found| found.spend.as_ref()) {
        inputs.push(HubDepositInput::SpendConfirmed { at: height(spend.at), best });
    }
    inputs
}

/// The name of a payment for a deposit, from which its outcome is found again.
fn payment_key(id: SwapId, failed: u32) -> IdempotencyKey {
    IdempotencyKey::own("deposit", format_args!("{id}/{failed}"))
}
