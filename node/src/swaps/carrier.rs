//! The transaction that carries the outputs of withdrawals: that of the next batch, or after a
//! while one of their own, with one input and one output of change for all of them.
//!
//! An output is in one transaction alone: one that is in a batch's waits there until the batch
//! transaction departs or is forgotten, and one that has departed is never carried again. After a
//! restart batches come first, since only they know of a transaction that was about to depart.

use std::sync::atomic::Ordering;

use bitcoin::{Transaction, TxOut};
use channel_contracts::batch::SwapId;
use channel_contracts::swap::withdrawal::{HubWithdrawalInput, HubWithdrawalPhase};

use super::record::{HubWithdrawalLife, Life};
use super::service::{State, Swap, Swaps, height};
use crate::chain::fees::FeePurpose;
use crate::payments::PaymentState;
use crate::store::{Batch, StoreError};
use crate::wallet::{Built, FundingRequest, SpendError};

/// Blocks that must be left to pay a withdrawal which boards a batch: forming may fail.
const BOARDING_BLOCKS: u32 = 24;

impl Swaps {
    /// Puts what waits into the transaction of a batch that forms, which then departs or is
    /// forgotten.
    pub async fn board(&self) -> Vec<TxOut> {
        let mut state = self.state.lock().await;
        let best = state.best;
        let waiting = self.waiting(&state);
        let mut outputs = Vec::new();
        for (id, output) in waiting {
            let Some(swap) = state.swaps.get_mut(&id) else { continue };
            let Some(life) = hub_withdrawal(swap) else { continue };
            if life.terms.check(height(best.saturating_add(BOARDING_BLOCKS))).is_ok() {
                swap.boarded = true;
                outputs.push(output);
            }
        }
        outputs
    }

    /// The batch transaction is about to be broadcast: what it carries is paid, durable.
    ///
    /// # Errors
    ///
    /// If the store fails; it must not be broadcast then.
    pub async fn depart(&self, transaction: &Transaction) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        let txid = transaction.compute_txid();
        for (id, swap) in &mut state.swaps {
            let Life::HubWithdrawal(life) = &mut swap.record.life else { continue };
            let is_in = |output: TxOut| transaction.output.contains(&output);
            if life.carrier.is_none() && life.terms.output().is_ok_and(is_in) {
                life.carrier = Some(txid);
                life.take(*id, HubWithdrawalInput::Included);
                swap.boarded = false;
                tracing::info!(swap = %id, %txid, "withdrawal rides in a batch transaction");
                self.keep(*id, swap).await?;
            }
        }
        Ok(())
    }

    /// Batch transactions of an earlier life of this node have departed by now.
    pub fn all_have_departed(&self) {
        self.have_departed.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Outputs that were in the transaction of a batch that came to nothing wait again.
    pub async fn alight(&self, outputs: &[TxOut]) {
        let mut state = self.state.lock().await;
        for swap in state.swaps.values_mut().filter(|swap| swap.boarded) {
            let Life::HubWithdrawal(life) = &swap.record.life else { continue };
            let is_in = |output: TxOut| outputs.contains(&output);
            if life.terms.output().is_ok_and(is_in) {
                swap.boarded = false;
            }
        }
    }

    /// Pays what waits, once the first has waited for its patience.
    pub(super) async fn carry_withdrawals(&self, state: &mut State) -> Result<(), StoreError> {
        if !self.have_departed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let best = state.best;
        let mut waiting = self.waiting(state);
        let patience = self.parts.policy.patience;
        let is_due = waiting.iter().any(|(id, _)| {
            let swap = &state.swaps[id];
            let held_at = held_at(swap).unwrap_or(best);
            best >= held_at.saturating_add(patience) && swap.failed_at != Some(best)
        });
        if !is_due {
            return Ok(());
        }
        // The largest first: it waits if the coins do not suffice for all.
        waiting.sort_by_key(|(_, output)| std::cmp::Reverse(output.value));
        while !waiting.is_empty() {
            match self.carry(state, &waiting) {
                Ok(built) => {
                    self.parts.committer.durable(built.ticket).await?;
                    let (txid, outputs) = (built.txid(), waiting.len());
                    let fee_sat = built.fee.to_sat();
                    tracing::info!(%txid, outputs, fee_sat, "withdrawals are paid");
                    self.parts.broadcasts.push(vec![built.transaction]);
                    self.changed();
                    return Ok(());
                }
                Err(error) => {
                    let (id, _) = waiting.remove(0);
                    tracing::warn!(swap = %id, %error, "withdrawal waits for coins");
                    if let Some(swap) = state.swaps.get_mut(&id) {
                        swap.failed_at = Some(best);
                    }
                }
            }
        }
        Ok(())
    }

    /// Builds a transaction with all of `outputs`. The coins, the transaction and what it pays
    /// become durable together.
    fn carry(&self, state: &mut State, outputs: &[(SwapId, TxOut)]) -> Result<Built, SpendError> {
        let request = FundingRequest {
            outputs: outputs.iter().map(|(_, output)| output.clone()).collect(),
            feerate: self.parts.fees.get(FeePurpose::Open),
            new_channels: 0,
        };
        self.parts.wallet.build_funding_beside(&request, &mut |transaction, _| {
            let mut writes = Batch::default();
            let txid = transaction.compute_txid();
            for (id, _) in outputs {
                let Some(swap) = state.swaps.get_mut(id) else { continue };
                if let Life::HubWithdrawal(life) = &mut swap.record.life {
                    life.carrier = Some(txid);
                    life.take(*id, HubWithdrawalInput::Included);
                }
                swap.record.put(*id, &mut writes);
            }
            Some(writes)
        })
    }

    /// What waits, and whose payment is still held.
    fn waiting(&self, state: &State) -> Vec<(SwapId, TxOut)> {
        let is_held = |id: &SwapId| {
            let hash = state.swaps[id].record.hash;
            let payment = self.parts.payments.recorded(hash.inbound_id());
            matches!(payment, Ok(Some(payment)) if payment.state == PaymentState::Held)
        };
        let waiting = state.swaps.iter().filter_map(waiting);
        waiting.filter(|(id, _)| is_held(id)).collect()
    }
}

/// The output of a swap whose payment is held.
fn waiting((id, swap): (&SwapId, &Swap)) -> Option<(SwapId, TxOut)> {
    let life = hub_withdrawal(swap).filter(|_| !swap.boarded)?;
    let is_held = life.machine()?.phase() == HubWithdrawalPhase::Held;
    Some((*id, life.terms.output().ok()?)).filter(|_| is_held)
}

fn held_at(swap: &Swap) -> Option<u32> {
    hub_withdrawal(swap)?.held_at
}

fn hub_withdrawal(swap: &Swap) -> Option<&HubWithdrawalLife> {
    match &swap.record.life {
        Life::HubWithdrawal(life) if swap.record.end.is_none() => Some(life),
        _ => None,
    }
}
