//! Paths of batches that this tower publishes for those who sleep, at its own cost.
//!
//! Only clients of the household leave them: the tower's wallet pays, up to what was agreed. A
//! watch is over once the leaf is buried, since the channel is an ordinary one then, or once the
//! batch has expired. Whether a channel was retired meanwhile is for its owner to say; if it could
//! not, the path costs its fees and does no harm.
//!
//! Source: BATCHES §5.1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use channel_contracts::tower::batch_watch::{BatchWatch, BatchWatchError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::chain::{ChainError, ChainSource, TxStatus};
use crate::store::cbor::{decode, encode};
use crate::store::{Batch, Committer, StoreError, Table, Ticket};
use crate::unroll::{Paths, Place, Reason, UnrollError};

/// Watches of one client.
const WATCHES_MAX: usize = 1_000;
/// Blocks after which a leaf, or the end of a batch, is final for a tower.
const BURIED: u32 = 144;

/// Whose paths a tower publishes, and what it spends on one.
#[derive(Debug, Clone, Default)]
pub struct Household {
    /// The keys of its clients.
    pub clients: BTreeSet<PublicKey>,
    /// The most that one path, or the answer to one breach, may cost the tower.
    pub budget: Amount,
}

/// Why a watch is not taken. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The tower's money is for others.
    #[error(
        "client {0} is not of this tower's household, whose paths alone it publishes; its operator can add the key to tower.household"
    )]
    Stranger(PublicKey),
    /// The watch makes no sense.
    #[error(transparent)]
    Watch(#[from] BatchWatchError),
    /// It would cost more than the tower gives.
    #[error("a budget of {asked} is asked for, {max} is what this tower gives for a path")]
    Budget {
        /// What is asked for.
        asked: Amount,
        /// What it gives.
        max: Amount,
    },
    /// It comes too late.
    #[error("the path was to be published from height {guard_height} on, the chain is at {height}")]
    Late {
        /// `U`.
        guard_height: u32,
        /// The best block.
        height: u32,
    },
    /// There is nothing to publish on.
    #[error("root {0} is not an unspent output of a block; leave the watch once it is")]
    NoRoot(OutPoint),
    /// There are too many.
    #[error("{WATCHES_MAX} paths are watched for this client, the most there may be")]
    TooMany,
    /// The chain cannot be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the store has of a watch.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    client: PublicKey,
    funding: OutPoint,
    /// As [`BatchWatch::encode`] says.
    watch: Vec<u8>,
    /// The height of the block that has the leaf.
    confirmed: Option<u32>,
}

struct Kept {
    record: Record,
    guard_height: u32,
    expiry: u32,
    /// What one transaction of the path may cost.
    fee_max: Amount,
    root: OutPoint,
    path: Vec<Transaction>,
}

type Key = (PublicKey, OutPoint);

/// The paths that a tower watches.
pub struct Watches {
    committer: Committer,
    chain: Arc<dyn ChainSource>,
    household: Household,
    kept: Mutex<BTreeMap<Key, Kept>>,
}

impl Watches {
    /// Reads what the store has.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(
        committer: Committer,
        chain: Arc<dyn ChainSource>,
        household: Household,
    ) -> Result<Self, StoreError> {
        let mut kept = BTreeMap::new();
        for (_, value) in committer.scan_all(Table::TowerWatch, [])? {
            let record: Record = decode(Table::TowerWatch, &value)?;
            let corrupt = |why: String| StoreError::Corrupt(format!("watch of a path: {why}"));
            let watch =
                BatchWatch::decode(&record.watch).map_err(|error| corrupt(error.to_string()))?;
            let one = Kept::new(record, &watch).map_err(|error| corrupt(error.to_string()))?;
            kept.insert((one.record.client, one.record.funding), one);
        }
        Ok(Self { committer, chain, household, kept: Mutex::new(kept) })
    }

    /// What the tower spends on one path of `client`, or on the answer to one breach.
    pub fn budget_of(&self, client: &PublicKey) -> Amount {
        let Household { clients, budget } = &self.household;
        if clients.contains(client) { *budget } else { Amount::ZERO }
    }

    /// How many paths are watched.
    pub fn len(&self) -> usize {
        self.kept.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a watch of `client` at the best block `height`. The same again replaces the one
    /// before. Returns the funding output, once that is durable.
    ///
    /// # Errors
    ///
    /// See [`WatchError`].
    pub async fn add(
        &self,
        client: PublicKey,
        watch: &BatchWatch,
        height: u32,
    ) -> Result<OutPoint, WatchError> {
        let max = self.budget_of(&client);
        if max == Amount::ZERO {
            return Err(WatchError::Stranger(client));
        }
        if watch.budget > max {
            return Err(WatchError::Budget { asked: watch.budget, max });
        }
        let funding = watch.verify()?.funding;
        let record = Record { client, funding, watch: watch.encode(), confirmed: None };
        let mut one = Kept::new(record, watch)?;
        // What is seen in blocks from here on is noted; what was there before is asked for.
        let began = self.kept.lock().contains_key(&(client, funding));
        if !began {
            if one.guard_height <= height {
                let guard_height = one.guard_height;
                return Err(WatchError::Late { guard_height, height });
            }
            if !self.is_rooted(&one).await? {
                return Err(WatchError::NoRoot(one.root));
            }
            if let TxStatus::Confirmed(at) = self.chain.transaction_status(funding.txid).await? {
                one.record.confirmed = Some(at.height);
            }
        }
        let ticket = {
            let mut kept = self.kept.lock();
            let own = kept.range((client, OutPoint::null())..).filter(|((of, _), _)| *of == client);
            if !began && own.count() >= WATCHES_MAX {
                return Err(WatchError::TooMany);
            }
            if let Some(known) = kept.get(&(client, funding)) {
                one.record.confirmed = known.record.confirmed;
            }
            let mut writes = Batch::default();
            one.put(&mut writes);
            kept.insert((client, funding), one);
            self.committer.enqueue(writes)
        };
        self.committer.durable(ticket).await?;
        tracing::info!(%client, %funding, "path of a batch is watched");
        Ok(funding)
    }

    /// Whether some output of the path is there to be spent, or the leaf's own.
    async fn is_rooted(&self, one: &Kept) -> Result<bool, ChainError> {
        let spent = one.path.iter().map(|transaction| transaction.input[0].previous_output);
        for output in spent.chain([one.record.funding]) {
            if self.chain.unspent_output(output).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Watches a path no more. Returns whether it was watched, and the ticket of that.
    pub fn remove(&self, client: PublicKey, funding: OutPoint) -> (bool, Ticket) {
        let mut kept = self.kept.lock();
        let known = kept.remove(&(client, funding));
        let mut writes = Batch::default();
        if let Some(known) = &known {
            writes.delete(key(&known.record));
        }
        (known.is_some(), self.committer.enqueue(writes))
    }

    /// The leaves whose owners should have left by the height `best`, and have not.
    pub fn due(&self, best: u32) -> Vec<OutPoint> {
        let kept = self.kept.lock();
        let due = kept.values().filter(|one| {
            one.record.confirmed.is_none() && one.guard_height <= best && best < one.expiry
        });
        due.map(|one| one.record.funding).collect()
    }

    /// Takes note of a block, whose transactions have `ids`.
    pub fn block_connected(&self, ids: &[Txid], height: u32, writes: &mut Batch) {
        let mut kept = self.kept.lock();
        if kept.is_empty() {
            return;
        }
        let ids: BTreeSet<&Txid> = ids.iter().collect();
        kept.retain(|_, one| {
            if ids.contains(&one.record.funding.txid) {
                one.record.confirmed = Some(height);
                one.put(writes);
            }
            let last = one.record.confirmed.unwrap_or(u32::MAX).min(one.expiry);
            let over = last.saturating_add(BURIED) <= height;
            if over {
                writes.delete(key(&one.record));
            }
            !over
        });
    }

    /// Forgets what was confirmed above `height`.
    pub fn disconnected(&self, height: u32, writes: &mut Batch) {
        for one in self.kept.lock().values_mut() {
            if one.record.confirmed.is_some_and(|leaf| leaf > height) {
                one.record.confirmed = None;
                one.put(writes);
            }
        }
    }
}

impl Kept {
    fn new(record: Record, watch: &BatchWatch) -> Result<Self, BatchWatchError> {
        let verified = watch.verify()?;
        let path: Vec<Transaction> =
            verified.transactions.into_iter().map(|step| step.transaction).collect();
        Ok(Self {
            record,
            guard_height: watch.guard_height.to_consensus_u32(),
            expiry: watch.path.path.leaf.expiry.to_consensus_u32(),
            fee_max: watch.budget / path.len().max(1) as u64,
            root: verified.root,
            path,
        })
    }

    fn put(&self, writes: &mut Batch) {
        writes.put(key(&self.record), encode(&self.record));
    }
}

impl Paths for Watches {
    fn path(&self, funding: OutPoint, _reason: Reason) -> Result<Vec<Transaction>, UnrollError> {
        let kept = self.kept.lock();
        let known = kept.values().find(|one| one.record.funding == funding);
        Ok(known.ok_or(UnrollError::Unknown { funding })?.path.clone())
    }

    fn place(&self, txid: Txid) -> Option<Place> {
        let kept = self.kept.lock();
        let known = kept.values().find(|one| one.record.funding.txid == txid)?;
        // The root was there when the watch was taken. Where a reorg takes it away, the network
        // refuses what spends it until it is back.
        Some(Place { is_rooted: true, leaf: known.record.confirmed })
    }

    fn root_of(&self, txid: Txid) -> Option<OutPoint> {
        let kept = self.kept.lock();
        kept.values().find(|one| one.record.funding.txid == txid).map(|one| one.root)
    }

    fn awaited(&self) -> Vec<OutPoint> {
        Vec::new()
    }

    fn is_closed_together(&self, _funding: OutPoint) -> bool {
        false
    }

    fn fee_max(&self, funding: OutPoint) -> Amount {
        let kept = self.kept.lock();
        let own = kept.values().filter(|one| one.record.funding == funding);
        own.map(|one| one.fee_max).max().unwrap_or(Amount::ZERO)
    }
}

fn key(record: &Record) -> Vec<u8> {
    let client = record.client.serialize();
    Table::TowerWatch.key([&client[..], &serialize(&record.funding)].concat())
}
