//! A user's side: it funds the output, is paid for it, and hands its key over; or takes it back.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Address, Amount, relative};
use channel_contracts::batch::SwapId;
use channel_contracts::batch::message::{Deposit, Deposited, Depositing, HandOver, Message};
use channel_contracts::swap::deposit::{
    Confirmation, DepositTerms, UserDepositInput, UserDepositPhase,
};
use channel_contracts::swap::margins::{DEPOSIT_REFUND_BLOCKS, FINAL_DEPTH};
use channel_contracts::swap::{RefundTime, SwapContract};

use super::FINAL_CLTV_MAX;
use crate::lightning::InvoiceDescription;
use crate::payments::{CreateInvoice, PaymentState};
use crate::store::{Batch, StoreError};
use crate::swaps::record::{End, Life, UserDepositAgreed};
use crate::swaps::requests::Refusal;
use crate::swaps::service::{Swap, Swaps, height};
use crate::swaps::spend::{Spendable, Way};
use crate::swaps::watch::Found;
use crate::swaps::withdrawal::ANSWER_BLOCKS;
use crate::wallet::SendAmount;

/// How long the hub can pay: longer than the output takes to be buried or taken back.
const INVOICE_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Blocks for which a channel that is not usable is waited for before the output is funded.
const FUND_BLOCKS: u32 = 144;

impl Swaps {
    pub(in crate::swaps) async fn user_deposit(
        &self,
        id: SwapId,
        swap: &mut Swap,
        best: u32,
    ) -> Result<(), StoreError> {
        let payment = self.parts.payments.recorded(swap.record.hash.inbound_id())?;
        let found = self.parts.watch.found(id);
        let Life::UserDeposit(life) = &mut swap.record.life else { return Ok(()) };
        let Some(agreed) = &mut life.agreed else { return self.ask_deposit(id, swap, best).await };
        let paid = payment.as_ref().map(|payment| (payment.state, payment.amount_msat));
        let mut happened = false;
        for input in inputs(agreed, paid, found.as_ref(), best) {
            happened |= agreed.take(id, input);
        }
        let Some(phase) = agreed.machine().map(|machine| machine.phase()) else { return Ok(()) };
        let (is_funded, invoice) = (agreed.funding.is_some(), agreed.invoice.clone());
        if happened {
            // What was said for an earlier phase is not what this one says.
            swap.told_at = None;
            self.keep(id, swap).await?;
        }
        let deadline = payment.as_ref().and_then(|payment| payment.claim_deadline);
        let state = payment.map(|payment| payment.state);
        match phase {
            UserDepositPhase::Funding if !is_funded => self.fund_deposit(id, swap, best).await,
            UserDepositPhase::Funding | UserDepositPhase::Confirmed(_) => {
                let deposited = Message::Deposited(Deposited { swap: id, invoice });
                self.tell(swap, best, &deposited);
                Ok(())
            }
            // LDK has failed it by then, and a claim would come to nothing.
            UserDepositPhase::Claiming
                if state == Some(PaymentState::Held)
                    && deadline.is_some_and(|deadline| deadline <= best) =>
            {
                self.give_back(swap.record.hash).await
            }
            UserDepositPhase::Claiming if state == Some(PaymentState::Held) => {
                self.settle(id, Some(self.parts.secrets.swap_preimage(id))).await
            }
            UserDepositPhase::Claiming => Ok(()),
            UserDepositPhase::Paid => {
                let spend = found.and_then(|found| found.spend);
                if spend.is_some_and(|spend| best.saturating_sub(spend.at) + 1 >= FINAL_DEPTH) {
                    return self.end(id, swap, End::Done).await;
                }
                let secret = self.parts.secrets.user_swap(id);
                let hand_over = Message::HandOver(HandOver { swap: id, secret });
                self.tell(swap, best, &hand_over);
                Ok(())
            }
            UserDepositPhase::Refunding => {
                let hash = swap.record.hash;
                if state == Some(PaymentState::Held) {
                    self.give_back(hash).await?;
                }
                self.cancel(hash).await?;
                match found {
                    Some(found) if found.spend.is_none() => {
                        self.refund_deposit(id, swap, &found, best).await
                    }
                    _ => Ok(()),
                }
            }
            UserDepositPhase::Refunded => self.end(id, swap, End::Refunded).await,
        }
    }

    async fn ask_deposit(&self, id: SwapId, swap: &mut Swap, best: u32) -> Result<(), StoreError> {
        if best >= swap.record.begun_at.saturating_add(ANSWER_BLOCKS) {
            return self.end(id, swap, End::Nothing("the hub did not answer".into())).await;
        }
        // The hub answers nothing before it has taken the channel up again.
        let carrying = self.carrying(swap.record.peer, swap.record.channel);
        if !carrying.is_some_and(|carrying| carrying.live.usable) {
            return Ok(());
        }
        let ask = Deposit {
            swap: id,
            channel: swap.record.channel,
            amount: swap.record.amount,
            refunder: self.parts.secrets.user_swap(id).public_key(),
            hash: sha256::Hash::from_byte_array(swap.record.hash.0),
        };
        self.ask_again(swap);
        self.tell(swap, best, &Message::Deposit(ask));
        Ok(())
    }

    /// The hub says what it gives: the output is funded if that is enough.
    pub(in crate::swaps) async fn hear_depositing(
        &self,
        swap: &mut Swap,
        said: &Depositing,
    ) -> Result<(), StoreError> {
        let id = said.swap;
        let Life::UserDeposit(life) = &swap.record.life else { return Ok(()) };
        if life.agreed.is_some() {
            return Ok(());
        }
        let agreed = match self.deposit_terms(swap, said) {
            Ok(terms) => self.agree(id, swap, terms).await,
            Err(why) => Err(why),
        };
        match agreed {
            Ok(agreed) => {
                let output =
                    agreed.terms.output().map_err(|e| StoreError::Corrupt(e.to_string()))?;
                self.parts.watch.watch(id, output);
                let Life::UserDeposit(life) = &mut swap.record.life else { return Ok(()) };
                life.agreed = Some(agreed);
                swap.told_at = None;
                self.keep(id, swap).await
            }
            Err(why) => {
                let why = format!("the hub's answer was not taken: {why}");
                self.end(id, swap, End::Nothing(why)).await
            }
        }
    }

    fn deposit_terms(&self, swap: &Swap, said: &Depositing) -> Result<DepositTerms, String> {
        let record = &swap.record;
        let Life::UserDeposit(life) = &record.life else { return Err("no deposit".into()) };
        let carrying = self.carrying(record.peer, record.channel);
        let carrying = carrying.ok_or("the channel is closed")?;
        let amount_msat = record.amount.to_sat().saturating_mul(1_000);
        let fee_msat = amount_msat.saturating_sub(said.payment_msat);
        if fee_msat > life.max_fee_msat {
            let most = life.max_fee_msat;
            return Err(format!("it takes {fee_msat} msat, more than {most} msat"));
        }
        if said.refund > relative::Height::from_height(DEPOSIT_REFUND_BLOCKS) {
            return Err(format!("it keeps the output for {} blocks", said.refund.value()));
        }
        let terms = DepositTerms {
            contract: SwapContract {
                hash: sha256::Hash::from_byte_array(record.hash.0),
                claimer: said.claimer,
                refunder: self.parts.secrets.user_swap(said.swap).public_key(),
                refund_time: RefundTime::Blocks(said.refund),
            },
            amount: record.amount,
            payment_msat: said.payment_msat,
            levels: carrying.levels,
            final_cltv: FINAL_CLTV_MAX,
        };
        terms.check().map_err(|error| error.to_string())?;
        Ok(terms)
    }

    async fn agree(
        &self,
        id: SwapId,
        swap: &Swap,
        terms: DepositTerms,
    ) -> Result<UserDepositAgreed, String> {
        let create = CreateInvoice {
            amount_msat: Some(terms.payment_msat),
            description: InvoiceDescription::Text(String::new()),
            expiry: INVOICE_EXPIRY,
            min_final_cltv_expiry_delta: None,
            hash: Some(swap.record.hash),
        };
        match self.hold_invoice(create, format!("deposit {id}")).await {
            Ok(invoice) => Ok(UserDepositAgreed { terms, invoice, events: vec![], funding: None }),
            Err(Refusal::Store(error)) => Err(error.to_string()),
            Err(Refusal::Says(_) | Refusal::NotNow) => Err("no invoice can be made for it".into()),
        }
    }

    /// Pays the output out of the wallet: the coins, the transaction and its record become durable
    /// together.
    async fn fund_deposit(&self, id: SwapId, swap: &mut Swap, best: u32) -> Result<(), StoreError> {
        let record = &mut swap.record;
        let amount: Amount = record.amount;
        let Life::UserDeposit(life) = &record.life else { return Ok(()) };
        let Some(agreed) = &life.agreed else { return Ok(()) };
        let feerate = life.feerate;
        let output = agreed.terms.output().map_err(|e| StoreError::Corrupt(e.to_string()))?;
        let live = self.carrying(record.peer, record.channel).map(|carrying| carrying.live);
        let is_late = best >= record.begun_at.saturating_add(FUND_BLOCKS);
        match live {
            Some(live) if !live.usable && !is_late => return Ok(()),
            Some(live) if live.usable && live.receivable_msat >= agreed.terms.payment_msat => {}
            _ => {
                let why = "the channel cannot take the payment any more; nothing was paid";
                self.cancel(record.hash).await?;
                return self.end(id, swap, End::Nothing(why.to_owned())).await;
            }
        }
        let network = self.parts.network;
        let address = Address::from_script(&output.script_pubkey, network)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?
            .to_string();
        let built = self.parts.wallet.send_beside(
            &address,
            SendAmount::Exact(amount),
            feerate,
            Some(&mut |transaction, _| {
                let mut writes = Batch::default();
                if let Life::UserDeposit(life) = &mut record.life
                    && let Some(agreed) = &mut life.agreed
                {
                    agreed.funding = Some(transaction.compute_txid());
                }
                record.put(id, &mut writes);
                Some(writes)
            }),
        );
        match built {
            Ok(built) => {
                self.parts.committer.durable(built.ticket).await?;
                tracing::info!(swap = %id, txid = %built.txid(), best, "deposit is funded");
                self.parts.broadcasts.push(vec![built.transaction]);
                self.changed();
                Ok(())
            }
            Err(error) => {
                self.cancel(swap.record.hash).await?;
                self.end(id, swap, End::Nothing(error.to_string())).await
            }
        }
    }

    async fn refund_deposit(
        &self,
        id: SwapId,
        swap: &mut Swap,
        found: &Found,
        best: u32,
    ) -> Result<(), StoreError> {
        let Life::UserDeposit(life) = &swap.record.life else { return Ok(()) };
        let Some(agreed) = &life.agreed else { return Ok(()) };
        let DepositTerms { contract, amount, .. } = agreed.terms;
        // Nobody else has the preimage.
        let what = Spendable {
            contract,
            amount,
            outpoint: found.outpoint,
            deadline: u32::MAX,
            parent: None,
        };
        let ours = self.parts.secrets.user_swap(id);
        self.spend(id, swap, &what, Way::Refund(&ours), None, best).await
    }
}

/// What there is to see, as the machine takes it.
fn inputs(
    agreed: &UserDepositAgreed,
    paid: Option<(PaymentState, u64)>,
    found: Option<&Found>,
    best: u32,
) -> Vec<UserDepositInput> {
    let mut inputs = Vec::new();
    let Some(phase) = agreed.machine().map(|machine| machine.phase()) else { return inputs };
    let standing = match phase {
        UserDepositPhase::Confirmed(confirmation) => Some(confirmation),
        _ => None,
    };
    let now = found.map(|found| Confirmation { outpoint: found.outpoint, at: height(found.at) });
    match now {
        Some(Confirmation { outpoint, at }) if standing != now => {
            inputs.push(UserDepositInput::OutputConfirmed { outpoint, at });
        }
        None if standing.is_some() => inputs.push(UserDepositInput::OutputDisconnected),
        _ => {}
    }
    match paid {
        Some((PaymentState::Held, amount_msat)) => {
            inputs.push(UserDepositInput::PaymentOffered { amount_msat });
        }
        Some((PaymentState::Succeeded, _)) if phase == UserDepositPhase::Claiming => {
            inputs.push(UserDepositInput::PaymentClaimed);
        }
        // What was given back was not claimed.
        Some((PaymentState::Failed, _)) if phase == UserDepositPhase::Claiming => {
            inputs.push(UserDepositInput::PaymentFailed);
        }
        _ => {}
    }
    inputs.push(UserDepositInput::Block { best: height(best) });
    let spend = found.and_then(|found| found.spend.as_ref());
    if spend.is_some_and(|spend| best.saturating_sub(spend.at) + 1 >= FINAL_DEPTH) {
        inputs.push(UserDepositInput::RefundConfirmed);
    }
    inputs
}
