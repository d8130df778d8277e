//! What a tower adds to the fee of answers for its household: a coin of its own behind the pairs.
//!
//! A blind remedy was signed for a few feerates, and small outputs only for the low ones. Where
//! none of them is what the chain asks for, the tower makes up the difference, up to the budget.
//! A coin is held for the first output of a transaction, so that a replacement spends it again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, FeeRate, OutPoint, Sequence, Transaction, TxIn, TxOut, Weight};
use channel_contracts::justice::{FeeRider, PenaltyPair, combine};

use crate::store::{Committer, StoreError};
use crate::wallet::{Coin, Owner, Wallet};

/// What a coin and its change add to a transaction: outpoint, sequence, signature, P2TR output.
pub(super) const COIN_AND_CHANGE_WEIGHT: Weight = Weight::from_wu(41 * 4 + 66 + 43 * 4);

/// Pairs for one transaction.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    /// Never empty.
    pub pairs: Vec<PenaltyPair>,
    /// What goes behind them in any case.
    pub rider: Option<FeeRider>,
    /// The commitment, if the transaction pays for it too.
    pub parent: Option<Transaction>,
}

/// The tower's coins.
pub struct Purse {
    wallet: Arc<Wallet>,
    committer: Committer,
}

/// A transaction with a coin of the tower's in it.
pub(super) struct Raised {
    pub transaction: Transaction,
    /// What the tower pays.
    pub added: Amount,
}

impl Pairs {
    /// The transaction without a coin of the tower's.
    pub fn plain(&self) -> Option<Transaction> {
        combine(&self.pairs, self.rider.clone()).ok()
    }

    /// What the pairs pay.
    fn fee(&self) -> Amount {
        self.pairs.iter().filter_map(PenaltyPair::fee).sum()
    }

    fn owner(&self) -> Owner {
        owner_of(self.pairs[0].outpoint())
    }
}

impl Purse {
    /// A purse over the tower's wallet.
    pub fn new(wallet: Arc<Wallet>, committer: Committer) -> Self {
        Self { wallet, committer }
    }

    /// Puts a coin behind `pairs`, so that they pay `feerate`, for `budget` at most. `None` if
    /// they do so anyway, or no coin can help.
    pub(super) fn raise(&self, pairs: &Pairs, feerate: FeeRate, budget: Amount) -> Option<Raised> {
        let plain = pairs.plain()?;
        let parent = pairs.parent.as_ref().map_or(Weight::ZERO, Transaction::weight);
        let alone = plain.weight() + parent;
        let with_coin = alone + COIN_AND_CHANGE_WEIGHT;
        let paid = pairs.fee();
        let fee_at = |weight: Weight| {
            let sat = feerate.to_sat_per_kwu().saturating_mul(weight.to_wu()).div_ceil(1_000);
            Amount::from_sat(sat)
        };
        if paid >= fee_at(alone) {
            return None;
        }
        let added = fee_at(with_coin).checked_sub(paid)?.min(budget);
        // Weight costs too: a coin that cannot raise the feerate is left at home.
        let (before, after) = (paid.to_sat(), (paid + added).to_sat());
        if after * alone.to_wu() <= before * with_coin.to_wu() {
            return None;
        }
        let owner = pairs.owner();
        let coin = self.coin_for(owner, added)?;
        let transaction = self.with_coin(pairs, &coin, added)?;
        let _durable_before_it_is_sent = self.wallet.hold(&[coin.outpoint], owner).ok()?;
        Some(Raised { transaction, added })
    }

    /// Returns once the coins of what was raised are held for good.
    pub(super) async fn durable(&self) -> Result<(), StoreError> {
        self.committer.durable(self.committer.now()).await
    }

    /// Gives back what was held for answers to `outputs`.
    pub(super) fn release(&self, outputs: &BTreeSet<OutPoint>) {
        let held: BTreeSet<Owner> =
            self.wallet.holds().into_iter().map(|(_, owner)| owner).collect();
        for owner in outputs.iter().map(|outpoint| owner_of(*outpoint)) {
            if held.contains(&owner)
                && let Err(error) = self.wallet.release(owner)
            {
                tracing::warn!(%error, "coin of an answer stays held");
            }
        }
    }

    /// The coin that `owner` has, else the smallest that is large enough.
    fn coin_for(&self, owner: Owner, added: Amount) -> Option<Coin> {
        let held: BTreeSet<OutPoint> = self.wallet.holds().into_iter().map(|(o, _)| o).collect();
        let mut coins = self.wallet.confirmed_coins(Some(owner));
        coins
            .retain(|coin| coin.txout.value >= added + coin.txout.script_pubkey.minimal_non_dust());
        coins.into_iter().min_by_key(|coin| (!held.contains(&coin.outpoint), coin.txout.value))
    }

    /// `pairs` with `coin` behind them, signed. The change goes back to where the coin was.
    fn with_coin(&self, pairs: &Pairs, coin: &Coin, added: Amount) -> Option<Transaction> {
        let mut rider = pairs.rider.clone().unwrap_or_default();
        let anchors = rider.inputs.len();
        rider.inputs.push(TxIn {
            previous_output: coin.outpoint,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..TxIn::default()
        });
        let value = coin.txout.value.checked_sub(added)?;
        rider.outputs.push(TxOut { value, script_pubkey: coin.txout.script_pubkey.clone() });
        let whole = combine(&pairs.pairs, Some(rider)).ok()?;
        let mut unsigned = whole.clone();
        for input in &mut unsigned.input {
            input.witness.clear();
        }
        let mut psbt = Psbt::from_unsigned_tx(unsigned).ok()?;
        let anchor = |input: &TxIn| {
            let parent = pairs.parent.as_ref()?;
            parent.output.get(usize::try_from(input.previous_output.vout).ok()?).cloned()
        };
        let before = pairs.pairs.len();
        for (index, input) in whole.input.iter().enumerate() {
            let spent = match index {
                index if index < before => Some(pairs.pairs[index].spent.clone()),
                index if index < before + anchors => anchor(input),
                _ => Some(coin.txout.clone()),
            };
            psbt.inputs[index].witness_utxo = Some(spent?);
            if !input.witness.is_empty() {
                psbt.inputs[index].final_script_witness = Some(input.witness.clone());
            }
        }
        self.wallet.sign_psbt(psbt).ok()
    }
}

/// For whom the coin of an answer that takes `outpoint` first is held: the same after a restart.
fn owner_of(outpoint: OutPoint) -> Owner {
    Owner::claim("tributary/tower/purse", &serialize(&outpoint))
}
