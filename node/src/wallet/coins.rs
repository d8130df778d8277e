//! Which coins there are, whose they are, and what may be spent.
//!
//! A coin is *confirmed*, *ours and pending* (change of a transaction all of whose inputs are
//! ours: nobody else can undo it), *foreign and pending* (never spent before it confirms, except
//! to pay for its own parent), or *immature*. Beside that it may be *held* for an [`Owner`].

use std::sync::Arc;

use bdk_wallet::chain::ChainPosition;
use bdk_wallet::{LocalOutput, WalletTx};
use bitcoin::{Amount, OutPoint, Script, Transaction, TxOut, Txid, Weight};

use super::record::{Owner, Purpose};
use super::{Inner, Wallet, rivals};
use crate::chain::BlockRef;
use crate::store::Ticket;

/// Blocks until the coins of a miner may be spent.
const COINBASE_MATURITY: u32 = 100;

/// How far a coin can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoinState {
    /// In a block, and spendable in the next one.
    Confirmed,
    /// Change of our own unconfirmed transaction.
    Pending,
    /// Paid to us by an unconfirmed transaction of others.
    PendingForeign,
    /// A miner's coin that needs more blocks.
    Immature,
}

/// A confirmed coin that may be spent by its key (BIP 86: every coin of the wallet is P2TR).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Amount and script.
    pub txout: TxOut,
    /// Weight of its witness: item count, length, and a 64-byte signature. The empty script
    /// signature's length byte (4 weight units) is not in it.
    pub satisfaction_weight: Weight,
}

impl Coin {
    /// Weight of a BIP 86 key spend's witness.
    pub const SATISFACTION_WEIGHT: Weight = Weight::from_wu(66);
}

/// An unspent coin, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnspentCoin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// Amount and script.
    pub txout: TxOut,
    /// Blocks that bury it; 0 is unconfirmed.
    pub confirmations: u32,
    /// How far it can be relied on.
    pub state: CoinState,
    /// For whom it is reserved.
    pub held_by: Option<Owner>,
}

/// The wallet's money. Each coin counts once in `confirmed`, `unconfirmed` or `immature`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalletBalance {
    /// Confirmed and mature.
    pub confirmed: Amount,
    /// In unconfirmed transactions, our change and payments of others.
    pub unconfirmed: Amount,
    /// Of miners, not yet spendable.
    pub immature: Amount,
    /// Part of the above that is reserved for transactions under way.
    pub held: Amount,
    /// What must stay in the wallet for the exits of open channels.
    pub reserved_for_anchors: Amount,
    /// What confirmed, free coins lack to cover the reserve: exits may wait that long.
    pub anchor_reserve_missing: Amount,
    /// What can be spent now, fees not counted: confirmed coins and our own change, less what
    /// is held and the reserve.
    pub spendable: Amount,
}

/// One transaction, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionInfo {
    /// Its id.
    pub txid: Txid,
    /// The transaction.
    pub transaction: Arc<Transaction>,
    /// Sum of our coins it spends.
    pub sent: Amount,
    /// Sum of its outputs that are ours.
    pub received: Amount,
    /// Its fee, where all its inputs are known.
    pub fee: Option<Amount>,
    /// The block it is in.
    pub confirmed_in: Option<BlockRef>,
    /// Why we made it; `None` for those of others.
    pub purpose: Option<Purpose>,
    /// When it was first seen, in seconds since the Unix epoch: in the mempool, else in its
    /// block.
    pub first_seen_seconds: u64,
    /// The transaction that counts in its place.
    pub replaced_by: Option<Txid>,
}

/// Why coins cannot be reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The coin is spent or never was ours.
    #[error("{outpoint} is not an unspent coin of this wallet")]
    Unknown {
        /// The coin.
        outpoint: OutPoint,
    },
    /// Somebody else was first.
    #[error("{outpoint} is reserved for {owner}; choose another coin")]
    Held {
        /// The coin.
        outpoint: OutPoint,
        /// For whom it is reserved.
        owner: Owner,
    },
}

/// Why coins cannot be given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The transaction is in a block.
    #[error("transaction {txid} is confirmed at height {height}; its coins are spent")]
    Confirmed {
        /// The transaction.
        txid: Txid,
        /// Its block's height.
        height: u32,
    },
}

impl Wallet {
    /// Whether this wallet can spend what pays to `script`.
    pub fn owns(&self, script: &Script) -> bool {
        self.lock().bdk.is_mine(script.to_owned())
    }

    /// Returns the wallet's money.
    pub fn balance(&self) -> WalletBalance {
        let inner = self.lock();
        let reserve = self.reserve_for(inner.channel_count);
        let mut balance =
            WalletBalance { reserved_for_anchors: reserve, ..WalletBalance::default() };
        let (mut free, mut free_confirmed) = (Amount::ZERO, Amount::ZERO);
        for coin in inner.unspent() {
            let amount = coin.txout.value;
            match coin.state {
                CoinState::Confirmed => balance.confirmed += amount,
                CoinState::Immature => balance.immature += amount,
                CoinState::Pending | CoinState::PendingForeign => balance.unconfirmed += amount,
            }
            if coin.held_by.is_some() {
                balance.held += amount;
            } else if coin.is_selectable() {
                free += amount;
                if coin.state == CoinState::Confirmed {
                    free_confirmed += amount;
                }
            }
        }
        balance.anchor_reserve_missing =
            reserve.checked_sub(free_confirmed).unwrap_or(Amount::ZERO);
        balance.spendable = free.checked_sub(reserve).unwrap_or(Amount::ZERO);
        balance
    }

    /// Returns every unspent coin, held ones included, by outpoint.
    pub fn list_unspent(&self) -> Vec<UnspentCoin> {
        let mut coins = self.lock().unspent();
        coins.sort_by_key(|coin| coin.outpoint);
        coins
    }

    /// Returns every transaction of the wallet that counts: confirmed ones by height, then
    /// unconfirmed ones; replaced ones are left out.
    pub fn list_transactions(&self) -> Vec<TransactionInfo> {
        let inner = self.lock();
        let mut all: Vec<TransactionInfo> =
            inner.bdk.transactions().map(|tx| inner.info(&tx)).collect();
        all.sort_by_key(|tx| (tx.confirmed_in.map_or(u32::MAX, |b| b.height), tx.txid));
        all
    }

    /// Returns one transaction of the wallet, if it counts.
    pub fn transaction(&self, txid: Txid) -> Option<TransactionInfo> {
        let inner = self.lock();
        inner.bdk.get_tx(txid).map(|tx| inner.info(&tx))
    }

    /// Returns one transaction of the wallet, also if another was made or confirmed in its place.
    pub fn transaction_ever(&self, txid: Txid) -> Option<TransactionInfo> {
        let inner = self.lock();
        if let Some(tx) = inner.bdk.get_tx(txid) {
            return Some(inner.info(&tx));
        }
        let node = inner.bdk.tx_graph().get_tx_node(txid)?;
        let replaced_by = rivals::in_place_of(&inner.bdk, &node);
        let unconfirmed = ChainPosition::Unconfirmed { first_seen: None, last_seen: None };
        let info = inner.info(&WalletTx { chain_position: unconfirmed, tx_node: node });
        Some(TransactionInfo { replaced_by, ..info })
    }

    /// Returns confirmed coins that nobody holds, and those that `reuse` itself holds. The
    /// anchor reserve is among them: this is what it is for.
    pub fn confirmed_coins(&self, reuse: Option<Owner>) -> Vec<Coin> {
        let mut coins: Vec<Coin> = self
            .lock()
            .unspent()
            .into_iter()
            .filter(|coin| coin.state == CoinState::Confirmed)
            .filter(|coin| coin.held_by.is_none() || coin.held_by == reuse)
            .map(|coin| Coin {
                outpoint: coin.outpoint,
                txout: coin.txout,
                satisfaction_weight: Coin::SATISFACTION_WEIGHT,
            })
            .collect();
        coins.sort_by_key(|coin| coin.outpoint);
        coins
    }

    /// Reserves `outpoints` for `owner`, all or none. Repeating it for the same owner changes
    /// nothing. The hold ends when a block spends one of the owner's coins, or by
    /// [`Wallet::release`].
    ///
    /// # Errors
    ///
    /// [`HoldError`] names the first coin that cannot be had.
    pub fn hold(&self, outpoints: &[OutPoint], owner: Owner) -> Result<Ticket, HoldError> {
        let mut inner = self.lock();
        let unspent = inner.unspent();
        for outpoint in outpoints {
            let coin = unspent.iter().find(|coin| coin.outpoint == *outpoint);
            match coin {
                None => {
                    return Err(HoldError::Unknown { outpoint: *outpoint });
                }
                Some(UnspentCoin { held_by: Some(other), .. }) if *other != owner => {
                    return Err(HoldError::Held { outpoint: *outpoint, owner: *other });
                }
                Some(_) => {}
            }
        }
        for outpoint in outpoints {
            inner.hold(*outpoint, owner);
        }
        Ok(self.persist(&mut inner))
    }

    /// Frees the coins of `owner`; a transaction is forgotten too, as one that will never be
    /// mined. Repeating it changes nothing.
    ///
    /// The caller vouches that the transaction was never broadcast, or is refused for good: a
    /// freed coin may be spent again at once.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Confirmed`] if the transaction is in a block.
    pub fn release(&self, owner: Owner) -> Result<Ticket, ReleaseError> {
        let mut inner = self.lock();
        if let Owner::Transaction(txid) = owner {
            let position = inner.bdk.get_tx(txid).map(|tx| tx.chain_position);
            if let Some(block) = position.as_ref().and_then(confirmed_in) {
                return Err(ReleaseError::Confirmed { txid, height: block.height });
            }
            if position.is_some() {
                let seen = self.seen(&mut inner);
                inner.bdk.apply_evicted_txs([(txid, seen)]);
            }
        }
        inner.release(owner);
        Ok(self.persist(&mut inner))
    }

    /// Returns every hold, by coin: for operators, and to find what a crash left behind.
    pub fn holds(&self) -> Vec<(OutPoint, Owner)> {
        let inner = self.lock();
        inner.holds.iter().map(|(o, owner)| (*o, *owner)).collect()
    }

    /// The reserve that `channels` need.
    pub(super) fn reserve_for(&self, channels: u32) -> Amount {
        self.params
            .anchor_reserve_per_channel
            .checked_mul(channels.into())
            .unwrap_or(Amount::MAX_MONEY)
            .min(Amount::MAX_MONEY)
    }
}

impl UnspentCoin {
    /// Whether coin selection may take it, holds not considered.
    pub(super) fn is_selectable(&self) -> bool {
        matches!(self.state, CoinState::Confirmed | CoinState::Pending)
    }
}

impl Inner {
    fn info(&self, tx: &WalletTx<'_>) -> TransactionInfo {
        let transaction = tx.tx_node.tx.clone();
        let (sent, received) = self.bdk.sent_and_received(&transaction);
        let seen_at = match tx.chain_position {
            ChainPosition::Confirmed { anchor, .. } => anchor.confirmation_time,
            ChainPosition::Unconfirmed { first_seen, .. } => first_seen.unwrap_or(0),
        };
        TransactionInfo {
            txid: tx.tx_node.txid,
            sent,
            received,
            fee: self.bdk.calculate_fee(&transaction).ok(),
            confirmed_in: confirmed_in(&tx.chain_position),
            purpose: self.notes.get(&tx.tx_node.txid).cloned(),
            first_seen_seconds: tx.tx_node.first_seen.unwrap_or(seen_at),
            replaced_by: None,
            transaction,
        }
    }

    /// Every unspent coin.
    pub(super) fn unspent(&self) -> Vec<UnspentCoin> {
        let tip = self.bdk.latest_checkpoint().height();
        self.bdk.list_unspent().map(|output| self.judge(output, tip)).collect()
    }

    fn judge(&self, output: LocalOutput, tip: u32) -> UnspentCoin {
        let graph = self.bdk.tx_graph();
        let parent = graph.get_tx(output.outpoint.txid);
        let confirmations = match confirmed_in(&output.chain_position) {
            Some(block) => (tip + 1).saturating_sub(block.height),
            None => 0,
        };
        let is_coinbase = parent.as_ref().is_some_and(|tx| tx.is_coinbase());
        let is_ours = parent.is_some_and(|tx| {
            tx.input.iter().all(|input| {
                graph
                    .get_txout(input.previous_output)
                    .is_some_and(|spent| self.bdk.is_mine(spent.script_pubkey.clone()))
            })
        });
        let state = match (confirmations, is_coinbase, is_ours) {
            (0, false, true) => CoinState::Pending,
            (0, _, _) => CoinState::PendingForeign,
            (n, true, _) if n < COINBASE_MATURITY => CoinState::Immature,
            _ => CoinState::Confirmed,
        };
        UnspentCoin {
            held_by: self.holds.get(&output.outpoint).copied(),
            outpoint: output.outpoint,
            txout: output.txout,
            confirmations,
            state,
        }
    }
}

/// The block of a position, if it is in one.
pub(super) fn confirmed_in(
    position: &ChainPosition<bdk_wallet::chain::ConfirmationBlockTime>,
) -> Option<BlockRef> {
    match position {
        ChainPosition::Confirmed { anchor, .. } => {
            Some(BlockRef { height: anchor.block_id.height, hash: anchor.block_id.hash })
        }
        ChainPosition::Unconfirmed { .. } => None,
    }
}
