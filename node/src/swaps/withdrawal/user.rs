//! A user's side: it pays, waits for its output, reveals the preimage and spends the output.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Witness, absolute};
use channel_contracts::batch::SwapId;
use channel_contracts::batch::message::{Message, Reveal, Withdraw, Withdrawing};
use channel_contracts::musig::TreeSecret;
use channel_contracts::swap::margins::FINAL_DEPTH;
use channel_contracts::swap::withdrawal::{
    UserWithdrawalInput, UserWithdrawalPhase, WithdrawalTerms,
};
use channel_contracts::swap::{RefundTime, SwapContract, WithdrawalTimes};

use crate::journal::IdempotencyKey;
use crate::payments::{PayError, PayRequest, PaymentState};
use crate::store::StoreError;
use crate::swaps::record::{End, Life, UserWithdrawalAgreed};
use crate::swaps::service::{Swap, Swaps, height};
use crate::swaps::spend::{Spendable, Way};
use crate::swaps::watch::Found;

/// Blocks after which a hub that does not answer is not asked again.
pub(in crate::swaps) const ANSWER_BLOCKS: u32 = 36;
/// Blocks by which a hub's times may be longer than the shortest.
const TIMES_SLACK: u32 = 40;

impl Swaps {
    pub(in crate::swaps) async fn user_withdrawal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        best: u32,
    ) -> Result<(), StoreError> {
        let Life::UserWithdrawal(life) = &mut swap.record.life else { return Ok(()) };
        let Some(agreed) = &mut life.agreed else { return self.ask(id, swap, best).await };
        let payment = self.payment(agreed.payment, &payment_key(id))?;
        let found = self.parts.watch.found(id);
        let begun = payment.as_ref().map(|payment| payment.id);
        let mut happened = std::mem::replace(&mut agreed.payment, begun) != begun;
        let payment = payment.map(|payment| payment.state);
        for input in inputs(agreed, payment, found.as_ref(), best) {
            happened |= agreed.take(id, input);
        }
        let Some(phase) = agreed.machine().map(|machine| machine.phase()) else { return Ok(()) };
        if happened {
            // What was said for an earlier phase is not what this one says.
            swap.told_at = None;
            self.keep(id, swap).await?;
        }
        match phase {
            UserWithdrawalPhase::Paying if payment.is_none() => self.pay(id, swap, best).await,
            UserWithdrawalPhase::Revealed { .. } => {
                let preimage = self.parts.secrets.swap_preimage(id);
                let reveal = Message::Reveal(Reveal { swap: id, preimage });
                self.tell(swap, best, &reveal);
                Ok(())
            }
            UserWithdrawalPhase::Spending => match found {
                Some(found) if found.spend.is_none() => {
                    self.spend_withdrawal(id, swap, &found, best).await
                }
                _ => Ok(()),
            },
            UserWithdrawalPhase::Settled => {
                let witness = found.and_then(|found| found.spend).and_then(|spend| spend.witness());
                let is_lost = witness.is_some_and(|witness| is_refund(swap, &witness));
                if is_lost {
                    tracing::error!(swap = %id, "the hub took the output back although the preimage is out");
                }
                self.end(id, swap, if is_lost { End::Refunded } else { End::Done }).await
            }
            UserWithdrawalPhase::Over => {
                let why = "the payment came back; nothing was revealed".to_owned();
                self.end(id, swap, End::Nothing(why)).await
            }
            UserWithdrawalPhase::Paying | UserWithdrawalPhase::Confirmed { .. } => Ok(()),
        }
    }

    async fn ask(&self, id: SwapId, swap: &mut Swap, best: u32) -> Result<(), StoreError> {
        if best >= swap.record.begun_at.saturating_add(ANSWER_BLOCKS) {
            return self.end(id, swap, End::Nothing("the hub did not answer".into())).await;
        }
        // The hub answers nothing before it has taken the channel up again.
        let carrying = self.carrying(swap.record.peer, swap.record.channel);
        if !carrying.is_some_and(|carrying| carrying.live.usable) {
            return Ok(());
        }
        let ask = Withdraw {
            swap: id,
            channel: swap.record.channel,
            amount: swap.record.amount,
            claimer: self.parts.secrets.user_swap(id).public_key(),
            hash: sha256::Hash::from_byte_array(swap.record.hash.0),
        };
        self.ask_again(swap);
        self.tell(swap, best, &Message::Withdraw(ask));
        Ok(())
    }

    /// The hub says what it wants: it is paid if that is safe and not too dear.
    pub(in crate::swaps) async fn hear_withdrawing(
        &self,
        swap: &mut Swap,
        best: u32,
        said: &Withdrawing,
    ) -> Result<(), StoreError> {
        let id = said.swap;
        let Life::UserWithdrawal(life) = &swap.record.life else { return Ok(()) };
        if life.agreed.is_some() {
            return Ok(());
        }
        match self.withdrawal_terms(swap, best, said) {
            Ok(terms) => {
                let output = terms.output().map_err(|e| StoreError::Corrupt(e.to_string()))?;
                self.parts.watch.watch(id, output);
                let Life::UserWithdrawal(life) = &mut swap.record.life else { return Ok(()) };
                life.agreed = Some(UserWithdrawalAgreed {
                    terms,
                    at: height(best),
                    invoice: said.invoice.clone(),
                    events: vec![],
                    payment: None,
                });
                swap.told_at = None;
                self.keep(id, swap).await
            }
            Err(why) => {
                let why = format!("the hub's answer was not taken: {why}");
                self.end(id, swap, End::Nothing(why)).await
            }
        }
    }

    fn withdrawal_terms(
        &self,
        swap: &Swap,
        best: u32,
        said: &Withdrawing,
    ) -> Result<WithdrawalTerms, String> {
        let record = &swap.record;
        let Life::UserWithdrawal(life) = &record.life else { return Err("no withdrawal".into()) };
        let carrying = self.carrying(record.peer, record.channel);
        let carrying = carrying.ok_or("the channel is closed")?;
        let invoice = self.parts.lightning.decode(&said.invoice).map_err(|e| e.to_string())?;
        if invoice.payee != Some(record.peer) || invoice.hash != Some(record.hash) {
            return Err("its invoice is of another payee or hash".into());
        }
        let payment_msat = invoice.amount_msat.ok_or("its invoice names no amount")?;
        let fee_msat = payment_msat.saturating_sub(record.amount.to_sat().saturating_mul(1_000));
        if fee_msat > life.max_fee_msat {
            let most = life.max_fee_msat;
            return Err(format!("it takes {fee_msat} msat, more than {most} msat"));
        }
        let delta = invoice.min_final_cltv_expiry_delta.unwrap_or(u32::MAX);
        let expires = height(best.saturating_add(delta).saturating_add(1));
        if !carrying.deadlines.may_hold(expires) {
            return Err("its invoice outlives the channel's deadline".into());
        }
        let terms = WithdrawalTerms {
            contract: SwapContract {
                hash: sha256::Hash::from_byte_array(record.hash.0),
                claimer: self.parts.secrets.user_swap(said.swap).public_key(),
                refunder: said.refunder,
                refund_time: RefundTime::Height(said.refund),
            },
            amount: record.amount,
            payment_msat,
            payment_expiry: said.payment_expiry,
            levels: carrying.levels,
            deadline: carrying.deadlines.user_deadline(),
        };
        terms.check(height(best)).map_err(|error| error.to_string())?;
        // A hub that never funds must not bind the payment for longer than it needs.
        let least = WithdrawalTimes::choose(height(best), terms.levels, terms.deadline);
        let least = least.map_err(|error| error.to_string())?;
        let above = |height: absolute::Height, least: absolute::Height| {
            height.to_consensus_u32().saturating_sub(least.to_consensus_u32())
        };
        if above(said.refund, least.refund) > TIMES_SLACK
            || above(expires, least.payment_expiry) > TIMES_SLACK
        {
            return Err(format!("it binds the payment until {expires}"));
        }
        Ok(terms)
    }

    /// Pays the hub, once: the outcome is looked up by its key. What cannot be paid now is tried
    /// again at the next block, while that is safe.
    async fn pay(&self, id: SwapId, swap: &mut Swap, best: u32) -> Result<(), StoreError> {
        let Life::UserWithdrawal(life) = &swap.record.life else { return Ok(()) };
        let Some(agreed) = &life.agreed else { return Ok(()) };
        if let Err(error) = agreed.terms.check(height(best)) {
            return self.end(id, swap, End::Nothing(error.to_string())).await;
        }
        if swap.failed_at == Some(best) {
            return Ok(());
        }
        let Some(carrying) = self.carrying(swap.record.peer, swap.record.channel) else {
            let why = "the channel was closed before it was paid".to_owned();
            return self.end(id, swap, End::Nothing(why)).await;
        };
        if !carrying.live.usable {
            return Ok(());
        }
        let request = PayRequest::over(agreed.invoice.clone(), carrying.channel);
        match self.parts.payments.pay(&request, Some(&payment_key(id))) {
            Ok(_followed_by_its_key) => Ok(()),
            Err(PayError::Store(error)) => Err(error),
            Err(error @ PayError::Expired { .. }) => {
                self.end(id, swap, End::Nothing(error.to_string())).await
            }
            Err(error) => {
                tracing::warn!(swap = %id, %error, "withdrawal cannot be paid for now");
                swap.failed_at = Some(best);
                Ok(())
            }
        }
    }

    /// The hub's key, if it is that: the output is spent with both.
    pub(in crate::swaps) async fn hear_withdrawal_key(
        &self,
        id: SwapId,
        swap: &mut Swap,
        secret: TreeSecret,
    ) -> Result<(), StoreError> {
        let Life::UserWithdrawal(life) = &mut swap.record.life else { return Ok(()) };
        let Some(agreed) = &mut life.agreed else { return Ok(()) };
        if secret.public_key() != agreed.terms.contract.refunder {
            tracing::warn!(swap = %id, "the hub hands over a key that is not the swap's");
            return Ok(());
        }
        if agreed.take(id, UserWithdrawalInput::KeyHandedOver) {
            self.keep(id, swap).await?;
        }
        swap.secret = Some(secret);
        Ok(())
    }

    async fn spend_withdrawal(
        &self,
        id: SwapId,
        swap: &mut Swap,
        found: &Found,
        best: u32,
    ) -> Result<(), StoreError> {
        let Life::UserWithdrawal(life) = &swap.record.life else { return Ok(()) };
        let Some(agreed) = &life.agreed else { return Ok(()) };
        let WithdrawalTerms { contract, amount, .. } = agreed.terms;
        let RefundTime::Height(refund) = contract.refund_time else { return Ok(()) };
        let deadline = refund.to_consensus_u32();
        let what = Spendable { contract, amount, outpoint: found.outpoint, deadline, parent: None };
        let destination = Some(life.destination.clone());
        let ours = self.parts.secrets.user_swap(id);
        let theirs = swap.secret.clone();
        let way = match &theirs {
            Some(theirs) => Way::Keys([&ours, theirs]),
            None => Way::Claim(self.parts.secrets.swap_preimage(id), &ours),
        };
        self.spend(id, swap, &what, way, destination, best).await
    }
}

/// Whether a witness is that of the hub's refund.
fn is_refund(swap: &Swap, witness: &Witness) -> bool {
    let Life::UserWithdrawal(life) = &swap.record.life else { return false };
    let output = life.agreed.as_ref().and_then(|agreed| agreed.terms.contract.output().ok());
    output.is_some_and(|output| output.is_refund(witness))
}

/// What there is to see, as the machine takes it.
fn inputs(
    agreed: &UserWithdrawalAgreed,
    payment: Option<PaymentState>,
    found: Option<&Found>,
    best: u32,
) -> Vec<UserWithdrawalInput> {
    let mut inputs = Vec::new();
    let phase = agreed.machine().map(|machine| machine.phase());
    let standing = match phase {
        Some(UserWithdrawalPhase::Confirmed { outpoint, at }) => Some((outpoint, at)),
        _ => None,
    };
    match (found, standing, agreed.terms.output()) {
        (Some(found), standing, Ok(output)) => {
            let now = (found.outpoint, height(found.at));
            if standing != Some(now) {
                let (outpoint, at) = now;
                inputs.push(UserWithdrawalInput::OutputConfirmed { outpoint, output, at });
            }
        }
        (None, Some(_), _) => inputs.push(UserWithdrawalInput::OutputDisconnected),
        _ => {}
    }
    if payment == Some(PaymentState::Failed) {
        inputs.push(UserWithdrawalInput::PaymentFailed);
    }
    inputs.push(UserWithdrawalInput::Block { best: height(best) });
    let spend = found.and_then(|found| found.spend.as_ref());
    if spend.is_some_and(|spend| best.saturating_sub(spend.at) + 1 >= FINAL_DEPTH) {
        inputs.push(UserWithdrawalInput::SpendConfirmed);
    }
    inputs
}

/// The name of the payment, from which its outcome is found again.
fn payment_key(id: SwapId) -> IdempotencyKey {
    IdempotencyKey::own("withdrawal", id)
}
