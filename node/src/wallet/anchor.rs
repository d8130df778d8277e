//! Children that pay for a transaction by its anchor: one confirmed coin in, change out.
//!
//! The parent has version 3, no fee and an output that anybody may spend (pay to anchor), so
//! parent and child travel as a package of two; of unconfirmed transactions the child may spend
//! its parent alone. A later child for the same anchor replaces the one before: it spends the
//! same coin while that is large enough.
//!
//! Source: BIP 431 (version 3), BIP 433 (pay to anchor), BATCHES §9.1.

use bdk_wallet::KeychainKind;
use bitcoin::psbt::Psbt;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, absolute,
    transaction,
};

use super::coins::confirmed_in;
use super::record::{Owner, Purpose};
use super::spend::check_feerate;
use super::{Built, Coin, CoinState, Inner, SpendError, Wallet, rivals};

/// Largest child of a version 3 transaction, vB (BIP 431, rule 5).
const CHILD_VSIZE_MAX: u64 = 1_000;
/// What a replacement pays on top for its own relay, sat/vB: the default of Bitcoin Core.
const INCREMENTAL_SAT_PER_VB: u64 = 1;
/// A coin that is newly taken is worth this many times the fee, if there is one: later children
/// pay more.
const ROOM_TO_RAISE: u64 = 8;

/// What a child is to pay for, and how much.
#[derive(Debug, Clone, Copy)]
pub struct AnchorRequest<'a> {
    /// The parent, which pays no fee itself.
    pub parent: &'a Transaction,
    /// Which output of it is the anchor.
    pub vout: u32,
    /// What parent and child together pay, 1 to 10,000 sat/vB.
    pub feerate: FeeRate,
    /// The most that the child may pay; less than the feerate asks for, if need be.
    pub fee_max: Amount,
    /// For whom the child's coin is held.
    pub owner: Owner,
}

/// A child that the wallet knows to be under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorChild {
    /// The child.
    pub transaction: Transaction,
    /// Its fee.
    pub fee: Amount,
}

/// Why no child is made. The one before, if there is one, stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// No coin is large enough.
    #[error(
        "no confirmed coin pays the fee of {needed}: the largest free one has {largest}; deposit, or wait for confirmations"
    )]
    NoCoin {
        /// The fee, and the least that change may be.
        needed: Amount,
        /// What the largest coin has.
        largest: Amount,
    },
    /// The network would not take what may be paid.
    #[error("a child must pay {needed}, and may pay {fee_max}")]
    TooDear {
        /// The least that it must pay.
        needed: Amount,
        /// The most that it may.
        fee_max: Amount,
    },
    /// The request makes no sense, or signing fails for a reason that none should cause.
    #[error(transparent)]
    Spend(#[from] SpendError),
}

impl Wallet {
    /// Builds the child that makes `request.parent` and itself pay the feerate, or a little more
    /// where a child before it must be outbid. Its coin is held for the owner, who has no other
    /// from then on, and the wallet counts both transactions as being broadcast.
    ///
    /// The anchor reserve is not spared: this is what it is for.
    ///
    /// # Errors
    ///
    /// See [`AnchorError`].
    pub fn pay_by_anchor(&self, request: &AnchorRequest<'_>) -> Result<Built, AnchorError> {
        let AnchorRequest { parent, vout, feerate, fee_max, owner } = *request;
        check_feerate(feerate)?;
        let anchor = OutPoint { txid: parent.compute_txid(), vout };
        let anchor_output = parent.output.get(vout as usize).cloned().ok_or_else(|| {
            SpendError::Internal(format!("{anchor} is not an output of its transaction"))
        })?;
        let _nobody_else_chooses = self.choosing();
        let mut inner = self.lock();
        let before = inner.child_of(anchor);
        let change = match before.as_ref().and_then(|child| child.transaction.output.first()) {
            Some(output) => output.script_pubkey.clone(),
            None => inner.bdk.next_unused_address(KeychainKind::Internal).script_pubkey(),
        };
        let unfunded = unsigned_child(anchor, OutPoint::null(), change.clone());
        let vsize = vsize_when_signed(&unfunded);
        assert!(vsize <= CHILD_VSIZE_MAX, "two inputs and an output are {vsize} vB");
        let outbid = before.map_or(Amount::ZERO, |child| {
            child.fee + Amount::from_sat(INCREMENTAL_SAT_PER_VB * vsize)
        });
        let both = parent.vsize() as u64 + vsize;
        let needed = outbid.max(fee_ceil(FeeRate::BROADCAST_MIN, both));
        if needed > fee_max {
            return Err(AnchorError::TooDear { needed, fee_max });
        }
        let fee = fee_ceil(feerate, both).min(fee_max).max(needed);
        let (outpoint, coin) = inner.coin_for(owner, fee, change.minimal_non_dust())?;
        let mut child = unsigned_child(anchor, outpoint, change);
        child.output[0].value = (coin.value + anchor_output.value)
            .checked_sub(fee)
            .expect("a coin was chosen that covers the fee");

        let mut psbt = Psbt::from_unsigned_tx(child)
            .map_err(|error| SpendError::Internal(error.to_string()))?;
        psbt.inputs[0].witness_utxo = Some(anchor_output);
        psbt.inputs[1].witness_utxo = Some(coin);
        let transaction =
            self.sign(&inner, psbt).map_err(|error| SpendError::Internal(error.to_string()))?;
        let txid = transaction.compute_txid();
        inner.release(owner);
        inner.hold(outpoint, owner);
        inner.note(txid, Purpose::Child);
        for told in [parent, &transaction] {
            let at = self.seen(&mut inner);
            rivals::seen(&mut inner.bdk, told, at);
        }
        let Inner { bdk, recent, .. } = &mut *inner;
        recent.decide(bdk);
        let ticket = self.persist(&mut inner);
        tracing::debug!(%txid, parent = %anchor.txid, fee_sat = fee.to_sat(), "child built");
        Ok(Built { transaction, fee, ticket })
    }

    /// Returns the child of ours that spends `anchor` and is not in a block, also one of a
    /// process before this one.
    pub fn child_of(&self, anchor: OutPoint) -> Option<AnchorChild> {
        self.lock().child_of(anchor)
    }
}

impl Inner {
    fn child_of(&self, anchor: OutPoint) -> Option<AnchorChild> {
        let spenders = self.bdk.tx_graph().outspends(anchor);
        spenders.iter().filter(|txid| self.notes.get(*txid) == Some(&Purpose::Child)).find_map(
            |txid| {
                let known = self.bdk.get_tx(*txid)?;
                if confirmed_in(&known.chain_position).is_some() {
                    return None;
                }
                let transaction = known.tx_node.tx.as_ref().clone();
                let fee = self.bdk.calculate_fee(&transaction).ok()?;
                Some(AnchorChild { transaction, fee })
            },
        )
    }

    /// The coin that `owner` has, if it still does; else the smallest free one with room for
    /// fees to rise, else the largest.
    fn coin_for(
        &self,
        owner: Owner,
        fee: Amount,
        dust: Amount,
    ) -> Result<(OutPoint, TxOut), AnchorError> {
        let needed = fee + dust;
        // Its last child has spent it already, as far as BDK knows.
        let held = self.holds.iter().filter(|(_, of)| **of == owner);
        let own = held.filter_map(|(outpoint, _)| self.own_output(*outpoint)).find(|output| {
            confirmed_in(&output.chain_position).is_some() && output.txout.value >= needed
        });
        if let Some(own) = own {
            return Ok((own.outpoint, own.txout));
        }
        let mut free: Vec<_> = self
            .unspent()
            .into_iter()
            .filter(|coin| coin.state == CoinState::Confirmed && coin.held_by.is_none())
            .map(|coin| (coin.outpoint, coin.txout))
            .collect();
        free.sort_by_key(|(outpoint, coin)| (coin.value, *outpoint));
        let roomy = fee.checked_mul(ROOM_TO_RAISE).unwrap_or(Amount::MAX_MONEY) + dust;
        let roomy = free.iter().find(|(_, coin)| coin.value >= roomy);
        match roomy.or(free.last()) {
            Some((outpoint, coin)) if coin.value >= needed => Ok((*outpoint, coin.clone())),
            short => Err(AnchorError::NoCoin {
                needed,
                largest: short.map_or(Amount::ZERO, |(_, coin)| coin.value),
            }),
        }
    }
}

/// A child of `anchor` that spends `coin` too. The anchor is spent without a witness.
fn unsigned_child(anchor: OutPoint, coin: OutPoint, change: ScriptBuf) -> Transaction {
    let input = |previous_output| TxIn {
        previous_output,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    };
    Transaction {
        version: transaction::Version(3),
        lock_time: absolute::LockTime::ZERO,
        input: vec![input(anchor), input(coin)],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: change }],
    }
}

/// Size of a child once its coin has its signature, vB.
fn vsize_when_signed(unsigned: &Transaction) -> u64 {
    // Marker, flag and the empty witness of the anchor: 3 weight units.
    let witness = Weight::from_wu(3) + Coin::SATISFACTION_WEIGHT;
    (unsigned.weight() + witness).to_vbytes_ceil()
}

fn fee_ceil(feerate: FeeRate, vsize: u64) -> Amount {
    Amount::from_sat(feerate.to_sat_per_kwu().saturating_mul(vsize * 4).div_ceil(1_000))
}
