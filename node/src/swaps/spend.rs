//! The transaction that spends a swap's output, to where its owner wants it: made, kept, and made
//! anew with a higher fee until a block has it.

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness, absolute,
    transaction,
};
use channel_contracts::batch::SwapId;
use channel_contracts::musig::TreeSecret;
use channel_contracts::script::Preimage;
use channel_contracts::swap::margins::CONFIRM_BLOCKS;
use channel_contracts::swap::{SwapContract, SwapOutput, SwapSpend, SwapSpendError};

use super::record::Spend;
use super::service::{Swap, Swaps};
use crate::chain::fees::FeePurpose;
use crate::store::{Batch, StoreError};
use crate::wallet::replacement::{Rates, Step, UnderWay, fee_ceil, step};

/// By which way of the contract.
pub(super) enum Way<'a> {
    /// With both keys, one of them handed over.
    Keys([&'a TreeSecret; 2]),
    /// With the preimage, as the claimer.
    Claim(Preimage, &'a TreeSecret),
    /// After the time, as the refunder.
    Refund(&'a TreeSecret),
}

/// An output of a swap on chain.
pub(super) struct Spendable {
    pub contract: SwapContract,
    pub amount: Amount,
    pub outpoint: OutPoint,
    /// The height from which the other side may take it too.
    pub deadline: u32,
    /// The transaction with the output, if it is in no block and has to be brought along.
    pub parent: Option<Transaction>,
}

impl Swaps {
    /// Sees to it that a transaction of this side spends `what` to `destination`, or to the wallet.
    pub(super) async fn spend(
        &self,
        id: SwapId,
        swap: &mut Swap,
        what: &Spendable,
        way: Way<'_>,
        destination: Option<ScriptBuf>,
        best: u32,
    ) -> Result<(), StoreError> {
        let contested = best.saturating_add(CONFIRM_BLOCKS) >= what.deadline;
        let purpose = if contested { FeePurpose::Open } else { FeePurpose::Normal };
        let rates = Rates {
            wanted: self.parts.fees.get(purpose),
            most: self.parts.policy.feerate_max,
            contested,
        };
        let known = swap.record.spend.as_ref();
        let under_way = known.and_then(|spend| {
            let transaction = spend.transaction()?;
            Some(UnderWay {
                feerate: spend.feerate,
                fee: spend.fee,
                made_at: spend.made_at,
                broadcast: swap.broadcast,
                fits: transaction.input[0].previous_output == what.outpoint,
            })
        });
        let earlier = known.and_then(Spend::transaction);
        match step(under_way, best, rates) {
            Step::Keep => Ok(()),
            Step::Repeat => {
                swap.broadcast = true;
                self.parts.broadcasts.push(what.parent.iter().cloned().chain(earlier).collect());
                Ok(())
            }
            Step::Make(feerate) => {
                let script = match (&earlier, destination) {
                    (Some(earlier), _) => earlier.output[0].script_pubkey.clone(),
                    (None, Some(destination)) => destination,
                    (None, None) => {
                        let (script, ticket) = self.parts.wallet.sweep_script();
                        self.parts.committer.durable(ticket).await?;
                        script
                    }
                };
                let replaced = under_way.filter(|known| known.fits).map(|known| known.fee);
                let Some((transaction, fee)) =
                    signed(id, what, &way, script, |weight| fee_ceil(feerate, weight, replaced))
                else {
                    return Ok(());
                };
                swap.record.spend = Some(Spend::new(&transaction, fee, feerate, best));
                self.publish(id, swap, what.parent.as_ref(), &transaction, earlier.as_ref()).await
            }
        }
    }

    /// Makes the spend of `swap` durable and broadcasts it in place of `replaced`.
    async fn publish(
        &self,
        id: SwapId,
        swap: &mut Swap,
        parent: Option<&Transaction>,
        transaction: &Transaction,
        replaced: Option<&Transaction>,
    ) -> Result<(), StoreError> {
        let recorded = self.write(id, &mut swap.record, Batch::default());
        self.parts.committer.durable(recorded).await?;
        if self.parts.wallet.owns(&transaction.output[0].script_pubkey) {
            let counted = self.parts.wallet.apply_unconfirmed(transaction);
            self.parts.committer.durable(counted).await?;
        }
        if let Some(replaced) = replaced {
            self.parts.broadcasts.withdraw(replaced.compute_txid());
        }
        tracing::info!(swap = %id, txid = %transaction.compute_txid(), "output of a swap is spent");
        self.parts.broadcasts.push(parent.into_iter().chain([transaction]).cloned().collect());
        swap.broadcast = true;
        self.changed();
        Ok(())
    }
}

/// Builds and signs it; `None` if the output does not pay for it, or a signature fails for a
/// reason that none should.
fn signed(
    id: SwapId,
    what: &Spendable,
    way: &Way<'_>,
    script: ScriptBuf,
    fee: impl FnOnce(Weight) -> Amount,
) -> Option<(Transaction, Amount)> {
    let output = what.contract.output().ok()?;
    let spent = [output.tx_out(what.amount)];
    let (sequence, lock_time) = match way {
        Way::Refund(_) => (output.refund_sequence(), output.refund_lock_time()),
        _ => (Sequence::ENABLE_RBF_NO_LOCKTIME, absolute::LockTime::ZERO),
    };
    let least = script.minimal_non_dust();
    let mut transaction = Transaction {
        version: transaction::Version::TWO,
        lock_time,
        input: vec![TxIn { previous_output: what.outpoint, sequence, ..TxIn::default() }],
        output: vec![TxOut { value: what.amount, script_pubkey: script }],
    };
    let complete = |transaction: &mut Transaction| match witness(&output, way, transaction, &spent)
    {
        Ok(witness) => {
            transaction.input[0].witness = witness;
            true
        }
        Err(error) => {
            tracing::error!(swap = %id, %error, "output of a swap cannot be signed for");
            false
        }
    };
    // Signatures have 64 bytes, so the weight is that of the one with the fee.
    if !complete(&mut transaction) {
        return None;
    }
    let fee = fee(transaction.weight());
    let value = what.amount.checked_sub(fee).filter(|value| *value >= least);
    let Some(value) = value else {
        tracing::warn!(swap = %id, amount = %what.amount, %fee, "output of a swap does not pay for its fee");
        return None;
    };
    transaction.output[0].value = value;
    complete(&mut transaction).then_some((transaction, fee))
}

fn witness(
    output: &SwapOutput,
    way: &Way<'_>,
    transaction: &Transaction,
    spent: &[TxOut],
) -> Result<Witness, SwapSpendError> {
    let spend = SwapSpend { output, transaction, input: 0, spent };
    match way {
        Way::Keys(secrets) => spend.by_key(*secrets),
        Way::Claim(preimage, secret) => spend.claim(preimage, secret),
        Way::Refund(secret) => spend.refund(secret),
    }
}
