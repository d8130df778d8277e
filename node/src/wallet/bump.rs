//! Paying more for a transaction that is under way: by replacing it, or by a child.
//!
//! A funding transaction is never replaced: the channels' commitments spend its txid. Nor is one
//! whose change is already spent again, which would undo the child as well.

use std::collections::BTreeSet;

use bdk_wallet::KeychainKind;
use bdk_wallet::error::{BuildFeeBumpError, CreateTxError};
use bitcoin::{Amount, FeeRate, Transaction, TxOut, Txid};

use super::coins::confirmed_in;
use super::record::Purpose;
use super::spend::{Beside, Shuffle, check_feerate, refusal};
use super::{Built, Inner, SpendError, Wallet};

/// Size of a child with one BIP 86 input and one such output, vB.
const CHILD_VSIZE: u64 = 111;
/// How often a child is made again because more coins made it larger.
const CHILD_ROUNDS_MAX: usize = 5;

/// Why a fee cannot be bumped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BumpError {
    /// The wallet does not know the transaction, or knows that it was replaced.
    #[error("transaction {txid} is not an unconfirmed transaction of this wallet")]
    Unknown {
        /// The transaction.
        txid: Txid,
    },
    /// It is too late.
    #[error("transaction {txid} is confirmed at height {height}; nothing to bump")]
    Confirmed {
        /// The transaction.
        txid: Txid,
        /// Its block's height.
        height: u32,
    },
    /// Its id must not change.
    #[error("transaction {txid} must not be replaced: {reason}; bump it by a child (CPFP)")]
    NotReplaceable {
        /// The transaction.
        txid: Txid,
        /// Why.
        reason: String,
    },
    /// The network takes a replacement only if it pays for itself on top of the old fee.
    #[error(
        "feerate of {given} sat per 1,000 weight units is too low, {required} are needed to replace or lift the transaction"
    )]
    FeerateTooLow {
        /// The feerate asked for, satoshi per 1,000 weight units.
        given: u64,
        /// The least that works.
        required: u64,
    },
    /// A child needs an output to spend.
    #[error(
        "transaction {txid} has no unspent, free output of this wallet; only its sender can bump it"
    )]
    NoOutput {
        /// The transaction.
        txid: Txid,
    },
    /// The new transaction cannot be built.
    #[error(transparent)]
    Spend(#[from] SpendError),
}

impl Wallet {
    /// Replaces our transaction `txid` by one that pays `feerate` (BIP 125). Its coins pass to
    /// the replacement. Both are told by txid: whichever confirms, the other is void.
    ///
    /// # Errors
    ///
    /// [`BumpError`]; the old transaction stands then.
    pub fn bump_fee(&self, txid: Txid, feerate: FeeRate) -> Result<Built, BumpError> {
        self.bump_fee_beside(txid, feerate, None)
    }

    /// As [`Wallet::bump_fee`]; `beside` as in `send_beside`.
    ///
    /// # Errors
    ///
    /// As [`Wallet::bump_fee`]; `beside` was not asked then.
    pub(crate) fn bump_fee_beside(
        &self,
        txid: Txid,
        feerate: FeeRate,
        beside: Option<Beside<'_>>,
    ) -> Result<Built, BumpError> {
        check_feerate(feerate)?;
        let _nobody_else_chooses = self.choosing();
        let mut inner = self.lock();
        let old = inner.unconfirmed(txid)?;
        let purpose = inner.replaceable(&old)?;
        let old_fee = inner
            .bdk
            .calculate_fee(&old)
            .map_err(|error| SpendError::Internal(error.to_string()))?;
        let free = inner.free();
        let own_outputs: Vec<TxOut> = old
            .output
            .iter()
            .filter(|output| inner.bdk.is_mine(output.script_pubkey.clone()))
            .cloned()
            .collect();
        let mut builder =
            inner.bdk.build_fee_bump(txid).map_err(|error| not_bumpable(txid, error))?;
        builder.fee_rate(feerate).unspendable(free.unspendable);
        if let Purpose::SendAll(destination) = &purpose {
            // The receiver pays the fee, as in the first place; what we kept stays the same.
            builder
                .set_recipients(
                    own_outputs
                        .iter()
                        .filter(|output| output.script_pubkey != *destination)
                        .map(|output| (output.script_pubkey.clone(), output.value))
                        .collect(),
                )
                .drain_to(destination.clone())
                .manually_selected_only();
        }
        let psbt =
            builder.finish_with_aux_rand(&mut Shuffle(&*self.params.entropy)).map_err(|error| {
                match error {
                    CreateTxError::FeeRateTooLow { required } => BumpError::FeerateTooLow {
                        given: feerate.to_sat_per_kwu(),
                        required: required.to_sat_per_kwu(),
                    },
                    other => refusal(other, &old.output, free.total, free.held).into(),
                }
            })?;
        if let Purpose::SendAll(destination) = &purpose {
            let pays = |output: &TxOut| output.script_pubkey == *destination;
            if !psbt.unsigned_tx.output.iter().any(pays) {
                return Err(SpendError::Dust {
                    amount: Amount::ZERO,
                    minimum: destination.minimal_non_dust(),
                }
                .into());
            }
        }
        // The old transaction's coins are not free, its change is. What is free once the old
        // one is void: today's coins, less that change, plus the coins.
        let (sent, received) = inner.bdk.sent_and_received(&old);
        let available = (free.total + sent).checked_sub(received).unwrap_or(Amount::ZERO);
        let channels = inner.channel_count;
        self.check_reserve(&inner, &psbt.unsigned_tx, available, channels)?;
        // BIP 125, rule 4: the replacement pays for its own relay on top of the old fee.
        let fee = psbt.fee().map_err(|error| SpendError::Internal(error.to_string()))?;
        let vsize = vsize_when_signed(&psbt.unsigned_tx);
        let least = old_fee + Amount::from_sat(vsize);
        if fee < least {
            return Err(BumpError::FeerateTooLow {
                given: feerate.to_sat_per_kwu(),
                required: (least.to_sat() * 250).div_ceil(vsize),
            });
        }
        Ok(self.complete(&mut inner, psbt, purpose, beside)?)
    }

    /// Builds a child of the unconfirmed transaction `txid` so that both, with all unconfirmed
    /// ancestors, pay `feerate`. It spends an output of ours, and further coins if that is too
    /// little. The fee of an ancestor whose inputs are unknown counts as nothing.
    ///
    /// # Errors
    ///
    /// [`BumpError`]; no coin is held then.
    pub fn bump_by_child(&self, txid: Txid, feerate: FeeRate) -> Result<Built, BumpError> {
        check_feerate(feerate)?;
        let _nobody_else_chooses = self.choosing();
        let mut inner = self.lock();
        let parent = inner.unconfirmed(txid)?;
        let coin = inner
            .unspent()
            .into_iter()
            .filter(|coin| coin.outpoint.txid == txid && coin.held_by.is_none())
            .max_by_key(|coin| coin.txout.value)
            .ok_or(BumpError::NoOutput { txid })?;
        let (ancestors_vsize, ancestors_fee) = inner.unconfirmed_package(&parent);
        let total = |child_vsize: u64| {
            fee_ceil(feerate, ancestors_vsize + child_vsize)
                .checked_sub(ancestors_fee)
                .filter(|fee| *fee >= Amount::from_sat(child_vsize))
        };
        let free = inner.free();
        let change = inner.bdk.next_unused_address(KeychainKind::Internal);
        let mut child_vsize = CHILD_VSIZE;
        for _ in 0..CHILD_ROUNDS_MAX {
            let fee = total(child_vsize).ok_or_else(|| BumpError::FeerateTooLow {
                given: feerate.to_sat_per_kwu(),
                required: (ancestors_fee.to_sat() + child_vsize)
                    .saturating_mul(250)
                    .div_ceil(ancestors_vsize + child_vsize),
            })?;
            let mut builder = inner.bdk.build_tx();
            builder
                .version(parent.version.0)
                .unspendable(free.unspendable.clone())
                .fee_absolute(fee)
                .drain_to(change.script_pubkey());
            builder
                .add_utxo(coin.outpoint)
                .map_err(|error| SpendError::Internal(error.to_string()))?;
            let psbt = builder
                .finish_with_aux_rand(&mut Shuffle(&*self.params.entropy))
                .map_err(|error| refusal(error, &[], free.total, free.held))?;
            let real = vsize_when_signed(&psbt.unsigned_tx);
            if real > child_vsize {
                child_vsize = real;
                continue;
            }
            // The parent's output may be one that others still could undo; it counts here.
            let available = match coin.is_selectable() {
                true => free.total,
                false => free.total + coin.txout.value,
            };
            let channels = inner.channel_count;
            self.check_reserve(&inner, &psbt.unsigned_tx, available, channels)?;
            return Ok(self.complete(&mut inner, psbt, Purpose::Child, None)?);
        }
        Err(SpendError::Internal("the child grows with every coin".into()).into())
    }
}

impl Inner {
    /// Returns the transaction if it is known and not in a block.
    fn unconfirmed(&self, txid: Txid) -> Result<Transaction, BumpError> {
        let tx = self.bdk.get_tx(txid).ok_or(BumpError::Unknown { txid })?;
        match confirmed_in(&tx.chain_position) {
            Some(block) => Err(BumpError::Confirmed { txid, height: block.height }),
            None => Ok(tx.tx_node.tx.as_ref().clone()),
        }
    }

    /// Returns why the transaction was made, if it may be replaced.
    fn replaceable(&self, old: &Transaction) -> Result<Purpose, BumpError> {
        let txid = old.compute_txid();
        let refuse = |reason: &str| Err(BumpError::NotReplaceable { txid, reason: reason.into() });
        let purpose = match self.notes.get(&txid) {
            Some(Purpose::Funding) => return refuse("channels rely on its id"),
            Some(Purpose::Child) => return refuse("it pays for its parent"),
            Some(Purpose::Payout) => return refuse("receipts of a payout name it"),
            Some(Purpose::Close) => return refuse("both sides of a channel signed it"),
            Some(Purpose::Anchor | Purpose::Sweep) => return refuse("it is replaced by itself"),
            None => return refuse("it was not made by this wallet"),
            Some(purpose) => purpose.clone(),
        };
        let is_used = self.bdk.list_output().any(|output| {
            output.outpoint.txid == txid
                && (output.is_spent || self.holds.contains_key(&output.outpoint))
        });
        if is_used {
            return refuse("its change is already spent again");
        }
        Ok(purpose)
    }

    /// Size and fees of `tx` and its unconfirmed ancestors.
    fn unconfirmed_package(&self, tx: &Transaction) -> (u64, Amount) {
        let (mut vsize, mut fees) = (0, Amount::ZERO);
        let mut counted = BTreeSet::new();
        let mut open = vec![tx.clone()];
        while let Some(tx) = open.pop() {
            if !counted.insert(tx.compute_txid()) {
                continue;
            }
            vsize += tx.vsize() as u64;
            fees += self.bdk.calculate_fee(&tx).unwrap_or(Amount::ZERO);
            for input in &tx.input {
                if let Ok(ancestor) = self.unconfirmed(input.previous_output.txid) {
                    open.push(ancestor);
                }
            }
        }
        (vsize, fees)
    }
}

fn not_bumpable(txid: Txid, error: BuildFeeBumpError) -> BumpError {
    match error {
        BuildFeeBumpError::TransactionNotFound(txid) => BumpError::Unknown { txid },
        other => BumpError::NotReplaceable { txid, reason: other.to_string() },
    }
}

/// Size of a transaction once each input has its BIP 86 signature, vB.
fn vsize_when_signed(unsigned: &Transaction) -> u64 {
    // Marker and flag of the witness: 2 weight units, then one key spend per input.
    let witness = 2 + unsigned.input.len() as u64 * super::Coin::SATISFACTION_WEIGHT.to_wu();
    (unsigned.weight().to_wu() + witness).div_ceil(4)
}

fn fee_ceil(feerate: FeeRate, vsize: u64) -> Amount {
    Amount::from_sat(feerate.to_sat_per_kwu().saturating_mul(vsize * 4).div_ceil(1_000))
}
