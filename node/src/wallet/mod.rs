//! On-chain coins: addresses, balances, transactions of our own, and who may spend which coin.
//!
//! [`Wallet`] wraps BDK (BIP 86, watch-only: signatures come from `keys/`). It is fed blocks by
//! the chain follower and transactions of ours by whoever broadcasts them. Three things are its
//! own: every change is one durable record behind a [`Ticket`], a coin given to one purpose is
//! *held* and given to no other, and the *anchor reserve* keeps coins back for channel exits.
//!
//! It never broadcasts. A caller waits for the ticket, tells the wallet with
//! [`Wallet::apply_unconfirmed`], and broadcasts; a transaction that will never be broadcast is
//! given back with [`Wallet::release`].
//!
//! Read `coins.rs` for what counts as spendable, `spend.rs`, `bump.rs` and `anchor.rs` for
//! transactions, `psbt.rs` for what LDK's handlers use, `record.rs` for the store.

mod anchor;
mod bump;
mod coins;
mod listener;
mod news;
mod psbt;
mod record;
pub(crate) mod replacement;
mod rivals;
mod spend;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bdk_wallet::chain::{BlockId, CheckPoint};
use bdk_wallet::{ChangeSet, KeychainKind, LoadError, LoadMismatch, Update};
use bitcoin::{Address, Amount, Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use parking_lot::{Mutex, MutexGuard};

pub use anchor::{AnchorChild, AnchorError, AnchorRequest};
pub use bump::BumpError;
pub use coins::{
    Coin, CoinState, HoldError, ReleaseError, TransactionInfo, UnspentCoin, WalletBalance,
};
pub use news::{Book, Happened, News};
pub use psbt::SignPsbtError;
pub use record::{Owner, Purpose};
pub use spend::{Built, FundingRequest, SendAmount, SpendError};

use crate::chain::{BURIED_DEPTH, BlockRef};
use crate::environment::{Clock, Entropy};
use crate::keys::{Keys, WalletDescriptors};
use crate::store::{Batch, Committer, StoreError, Ticket};
use news::Told;
use record::{Record, Stored};

/// Addresses watched beyond the last one given out. A restore from words alone finds coins up to
/// such a gap, and a hub gives out many scripts that are never paid.
pub const LOOKAHEAD_DEFAULT: u32 = 100;

/// What a wallet is opened with.
#[derive(Clone)]
pub struct WalletParams {
    /// The unlocked keys.
    pub keys: Arc<Keys>,
    /// The way to the store.
    pub committer: Committer,
    /// Where what happens is told: the store itself where nobody wants to know.
    pub book: Arc<dyn Book>,
    /// Wall-clock time, for when a transaction was seen.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the order of inputs and outputs.
    pub entropy: Arc<dyn Entropy>,
    /// Kept back per open channel.
    pub anchor_reserve_per_channel: Amount,
    /// Where a wallet without records starts; `None` is genesis.
    pub birthday: Option<BlockRef>,
    /// Addresses watched beyond the last one given out, see [`LOOKAHEAD_DEFAULT`].
    pub lookahead: u32,
}

/// Why the wallet cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenWalletError {
    /// The records belong to other keys.
    #[error(
        "the wallet in the store belongs to another seed; use the seed it was made with, or an empty data directory"
    )]
    OtherSeed,
    /// The records belong to another network.
    #[error("the wallet in the store is on {found}, the node is on {expected}; set network")]
    OtherNetwork {
        /// The network of the records.
        found: bitcoin::Network,
        /// The network of the keys.
        expected: bitcoin::Network,
    },
    /// The records do not make a wallet.
    #[error("the wallet in the store is damaged: {0}; restore the data directory from a backup")]
    Damaged(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a block cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block does not build on what the wallet knows.
    #[error(
        "block {hash} at height {height} does not connect to the wallet's tip at {tip_height}; feed the blocks between"
    )]
    Unconnected {
        /// The block's height.
        height: u32,
        /// Its hash.
        hash: BlockHash,
        /// The height of the wallet's best block.
        tip_height: u32,
    },
    /// The wallet cannot be rebuilt without the disconnected blocks.
    #[error("cannot go back to height {height}: {detail}")]
    Rewind {
        /// The height of the fork.
        height: u32,
        /// What failed.
        detail: String,
    },
}

/// The node's on-chain wallet. All calls lock it and are short; none waits for disk or network.
pub struct Wallet {
    params: WalletParams,
    descriptors: WalletDescriptors,
    inner: Mutex<Inner>,
    /// Held while coins are chosen. Taken before `inner`.
    choosing: Mutex<()>,
}

struct Inner {
    bdk: bdk_wallet::Wallet,
    holds: BTreeMap<OutPoint, Owner>,
    notes: BTreeMap<Txid, Purpose>,
    /// Changes of ours that are not yet enqueued; BDK stages its own.
    staged: Record,
    next_sequence: u64,
    channel_count: u32,
    /// The time last given to an unconfirmed transaction, or to its end; strictly rising, so that
    /// of two conflicting transactions the later told one counts even if no second has passed.
    last_seen: u64,
    recent: rivals::Recent,
    /// What was told of transactions, and what is to be told with the next write.
    told: Told,
    news: Vec<News>,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("keys", &self.params.keys).finish_non_exhaustive()
    }
}

impl Wallet {
    /// Opens the wallet of these keys from the store, or begins a new one.
    ///
    /// # Errors
    ///
    /// [`OpenWalletError`] if the records belong to another seed or network, or do not read.
    pub fn open(params: WalletParams) -> Result<Self, OpenWalletError> {
        let descriptors = params.keys.wallet_descriptors();
        let mut stored = record::read(&params.committer)?;
        if let Some(batch) = stored.compaction() {
            // Nobody waits for it: until it is durable the old records stand.
            let _ = params.committer.enqueue(batch);
        }
        let is_new = stored.next_sequence == 0;
        let bdk = if is_new {
            create(&params, &descriptors)?
        } else {
            load(&params, &descriptors, stored.record.change.clone())?
        };
        let graph = bdk.tx_graph();
        let times = graph.full_txs().map(|tx| tx.last_seen.max(graph.get_last_evicted(tx.txid)));
        let last_seen = times.flatten().max().unwrap_or(0);
        let Stored { record, next_sequence, .. } = stored;
        let wallet = Self {
            inner: Mutex::new(Inner {
                bdk,
                holds: record
                    .holds
                    .into_iter()
                    .filter_map(|(outpoint, owner)| Some((outpoint, owner?)))
                    .collect(),
                notes: record.notes,
                staged: Record::default(),
                next_sequence,
                channel_count: 0,
                last_seen,
                recent: rivals::Recent::default(),
                told: Told::new(),
                news: Vec::new(),
            }),
            choosing: Mutex::new(()),
            descriptors,
            params,
        };
        let ticket = {
            let mut inner = wallet.lock();
            inner.told = inner.told_now();
            wallet.persist(&mut inner)
        };
        tracing::debug!(is_new, ?ticket, "wallet opened");
        Ok(wallet)
    }

    /// Makes a new address, never given out before. Show it once the ticket is durable: until
    /// then a crash could give it out again.
    pub fn new_address(&self) -> (Address, Ticket) {
        self.new_address_beside(|_| Batch::default())
    }

    /// As [`Wallet::new_address`], durable together with the writes of `beside`.
    pub(crate) fn new_address_beside(
        &self,
        beside: impl FnOnce(&Address) -> Batch,
    ) -> (Address, Ticket) {
        let mut inner = self.lock();
        let info = inner.bdk.reveal_next_address(KeychainKind::External);
        let ticket = self.persist_beside(&mut inner, beside(&info.address));
        (info.address, ticket)
    }

    /// Makes a fresh script for the cooperative close of a channel. Durable as an address.
    pub fn shutdown_script(&self) -> (ScriptBuf, Ticket) {
        let (address, ticket) = self.new_address();
        (address.script_pubkey(), ticket)
    }

    /// Makes a fresh script for coins swept from a closed channel. Durable as an address.
    pub fn sweep_script(&self) -> (ScriptBuf, Ticket) {
        self.shutdown_script()
    }

    /// Returns a change script that nothing has paid yet. A second call before the first script
    /// is used returns it again: fee bumps ask many times for one transaction.
    pub fn change_script(&self) -> (ScriptBuf, Ticket) {
        let mut inner = self.lock();
        let info = inner.bdk.next_unused_address(KeychainKind::Internal);
        let ticket = self.persist(&mut inner);
        (info.script_pubkey(), ticket)
    }

    /// Tells how many channels the anchor reserve is for.
    pub fn set_channel_count(&self, channels: u32) {
        self.lock().channel_count = channels;
    }

    /// Takes a block that builds on the wallet's best block or on one of its ancestors. Holds
    /// on coins that the block spends end.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unconnected`]; the wallet is unchanged then.
    pub fn block_connected(&self, block: &Arc<Block>, height: u32) -> Result<(), BlockError> {
        let mut inner = self.lock();
        inner.bdk.apply_block(block, height).map_err(|_| BlockError::Unconnected {
            height,
            hash: block.block_hash(),
            tip_height: inner.bdk.latest_checkpoint().height(),
        })?;
        rivals::confirm_spenders(&mut inner.bdk, block, height);
        inner.recent.push(block, height);
        if !inner.holds.is_empty() {
            for input in block.txdata.iter().flat_map(|tx| &tx.input) {
                if let Some(owner) = inner.holds.get(&input.previous_output).copied() {
                    // Confirmed, or made impossible by what confirmed instead: in both cases
                    // the owner's other coins are free.
                    inner.release(owner);
                }
            }
        }
        // Nobody waits for it: after a crash the follower feeds the block again.
        let _ = self.persist(&mut inner);
        Ok(())
    }

    /// Forgets the blocks above `fork`. Their transactions are unconfirmed again.
    ///
    /// # Errors
    ///
    /// [`BlockError::Rewind`] if the store does not read back; the wallet is unchanged then.
    pub fn blocks_disconnected(&self, fork: BlockRef) -> Result<(), BlockError> {
        let mut inner = self.lock();
        let mut back = ChangeSet::default();
        for checkpoint in inner.bdk.checkpoints() {
            if checkpoint.height() <= fork.height {
                break;
            }
            back.local_chain.blocks.insert(checkpoint.height(), None);
        }
        // An ancestor that the wallet had no checkpoint for becomes one, or the next block
        // would not connect.
        back.local_chain.blocks.insert(fork.height, Some(fork.hash));
        let failed = |detail: String| BlockError::Rewind { height: fork.height, detail };
        // BDK takes no block away, so the wallet is made again from its records without them.
        // Whatever is staged must be among the records first.
        let _ = self.persist(&mut inner);
        let mut stored =
            record::read(&self.params.committer).map_err(|error| failed(error.to_string()))?;
        let step = Record { change: back, ..Record::default() };
        stored.record.merge(step.clone());
        inner.bdk = load(&self.params, &self.descriptors, stored.record.change)
            .map_err(|error| failed(error.to_string()))?;
        inner.staged.merge(step);
        inner.recent.forget_above(fork.height);
        inner.news.push(News::Disconnected(fork));
        let _ = self.persist(&mut inner);
        Ok(())
    }

    /// Returns the wallet's best block, then ancestors at growing distances down to genesis: the
    /// follower finds the newest one that is still in the best chain.
    pub fn positions(&self) -> Vec<BlockRef> {
        let inner = self.lock();
        let mut positions = Vec::new();
        let mut step = 1u32;
        let mut next = u32::MAX;
        for checkpoint in inner.bdk.checkpoints() {
            let height = checkpoint.height();
            if height <= next || height == 0 {
                positions.push(BlockRef { height, hash: checkpoint.hash() });
                // Ten single steps, then doubling: reorgs are short.
                if positions.len() > 10 {
                    step = step.saturating_mul(2);
                }
                next = height.saturating_sub(step);
            }
        }
        positions
    }

    /// Takes a transaction that is being broadcast: ours, one that pays us, or the parent of
    /// one. Its change is usable at once if all its inputs are ours.
    pub fn apply_unconfirmed(&self, transaction: &Transaction) -> Ticket {
        let mut inner = self.lock();
        let at = self.seen(&mut inner);
        let Inner { bdk, recent, .. } = &mut *inner;
        rivals::seen(bdk, transaction, at);
        recent.decide(bdk);
        self.persist(&mut inner)
    }

    /// Notes why `transaction` was made, if it pays or spends the wallet and nothing is noted yet.
    /// Written with the next change: with [`Wallet::apply_unconfirmed`], where it is broadcast.
    pub fn note_purpose(&self, transaction: &Transaction, purpose: Option<Purpose>) {
        let (Some(purpose), mut inner) = (purpose, self.lock()) else { return };
        let txid = transaction.compute_txid();
        let is_ours = || {
            let pays =
                transaction.output.iter().any(|o| inner.bdk.is_mine(o.script_pubkey.clone()));
            let graph = inner.bdk.tx_graph();
            let inputs = transaction.input.iter();
            let mut coins = inputs.filter_map(|input| graph.get_txout(input.previous_output));
            pays || coins.any(|coin| inner.bdk.is_mine(coin.script_pubkey.clone()))
        };
        if !inner.notes.contains_key(&txid) && is_ours() {
            inner.note(txid, purpose);
        }
    }

    /// Whether the wallet's transaction `txid` can never confirm: a block that is buried has
    /// another one in its place.
    pub fn is_beaten(&self, txid: Txid) -> bool {
        let inner = self.lock();
        let Some(transaction) = inner.bdk.tx_graph().get_tx(txid) else { return false };
        let best = inner.bdk.latest_checkpoint().height();
        rivals::winner(&inner.bdk, &transaction).is_some_and(|at| best + 1 >= at + BURIED_DEPTH)
    }

    /// Drops the unconfirmed transactions that spend one of `gone`, outputs that are no longer
    /// there to be spent, and what spends their outputs: returns their ids. The coins that they
    /// take are free, unless held. One of them that is broadcast again, or that a block has after
    /// all, counts again.
    pub fn drop_spenders(&self, gone: &[OutPoint]) -> Vec<Txid> {
        let mut inner = self.lock();
        let spenders = rivals::spenders(&inner.bdk, gone);
        if spenders.is_empty() {
            return spenders;
        }
        let at = self.seen(&mut inner);
        inner.bdk.apply_evicted_txs(spenders.iter().map(|txid| (*txid, at)));
        // Nobody waits for it: what is not dropped is found again.
        let _ = self.persist(&mut inner);
        spenders
    }

    /// Keeps everybody else from choosing coins while the guard lives: for LDK's handler, which
    /// lists coins, chooses among them and broadcasts in several calls. Its choice is known to
    /// the wallet once it was broadcast.
    pub fn choosing(&self) -> MutexGuard<'_, ()> {
        self.choosing.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A time for an unconfirmed transaction, later than any before.
    fn seen(&self, inner: &mut Inner) -> u64 {
        let now = self.params.clock.now().as_secs();
        inner.last_seen = now.max(inner.last_seen + 1);
        inner.last_seen
    }

    /// Enqueues what has changed as one record. Called with the lock held, so that records are
    /// enqueued in the order of their numbers.
    fn persist(&self, inner: &mut Inner) -> Ticket {
        self.persist_beside(inner, Batch::default())
    }

    /// As [`Wallet::persist`], together with the writes of `beside`.
    fn persist_beside(&self, inner: &mut Inner, mut beside: Batch) -> Ticket {
        let mut record = std::mem::take(&mut inner.staged);
        if let Some(change) = inner.bdk.take_staged() {
            bdk_wallet::chain::Merge::merge(&mut record.change, change);
        }
        let mut news = std::mem::take(&mut inner.news);
        news.append(&mut inner.compare(&record.change));
        if record.is_empty() && beside.is_empty() && news.is_empty() {
            return self.params.committer.now();
        }
        if !record.is_empty() {
            beside.append(record::append(&record, inner.next_sequence));
            inner.next_sequence += 1;
        }
        self.params.book.write(&news, beside)
    }
}

impl Inner {
    fn hold(&mut self, outpoint: OutPoint, owner: Owner) {
        self.holds.insert(outpoint, owner);
        self.staged.holds.insert(outpoint, Some(owner));
    }

    /// Frees every coin of `owner` and returns how many there were.
    fn release(&mut self, owner: Owner) -> usize {
        let freed: Vec<OutPoint> = self
            .holds
            .iter()
            .filter(|(_, held_by)| **held_by == owner)
            .map(|(outpoint, _)| *outpoint)
            .collect();
        for outpoint in &freed {
            self.holds.remove(outpoint);
            self.staged.holds.insert(*outpoint, None);
        }
        freed.len()
    }

    fn note(&mut self, txid: Txid, purpose: Purpose) {
        self.notes.insert(txid, purpose.clone());
        self.staged.notes.insert(txid, purpose);
    }
}

fn create(
    params: &WalletParams,
    descriptors: &WalletDescriptors,
) -> Result<bdk_wallet::Wallet, OpenWalletError> {
    let damaged = |error: &dyn fmt::Display| OpenWalletError::Damaged(error.to_string());
    let mut bdk =
        bdk_wallet::Wallet::create(descriptors.external.clone(), descriptors.internal.clone())
            .network(params.keys.network())
            .lookahead(params.lookahead)
            .create_wallet_no_persist()
            .map_err(|error| damaged(&error))?;
    if let Some(birthday) = params.birthday.filter(|birthday| birthday.height > 0) {
        let genesis = BlockId { height: 0, hash: bdk.local_chain().genesis_hash() };
        let birthday = BlockId { height: birthday.height, hash: birthday.hash };
        let chain =
            CheckPoint::from_block_ids([genesis, birthday]).expect("genesis is below the birthday");
        bdk.apply_update(Update { chain: Some(chain), ..Update::default() })
            .map_err(|error| damaged(&error))?;
    }
    Ok(bdk)
}

fn load(
    params: &WalletParams,
    descriptors: &WalletDescriptors,
    change: ChangeSet,
) -> Result<bdk_wallet::Wallet, OpenWalletError> {
    let loaded = bdk_wallet::Wallet::load()
        .check_network(params.keys.network())
        .descriptor(KeychainKind::External, Some(descriptors.external.clone()))
        .descriptor(KeychainKind::Internal, Some(descriptors.internal.clone()))
        .lookahead(params.lookahead)
        .load_wallet_no_persist(change);
    match loaded {
        Ok(Some(bdk)) => Ok(bdk),
        Ok(None) => Err(OpenWalletError::Damaged("its records are empty".into())),
        Err(LoadError::Mismatch(LoadMismatch::Network { loaded, expected })) => {
            Err(OpenWalletError::OtherNetwork { found: loaded, expected })
        }
        Err(LoadError::Mismatch(_)) => Err(OpenWalletError::OtherSeed),
        Err(error) => Err(OpenWalletError::Damaged(error.to_string())),
    }
}
