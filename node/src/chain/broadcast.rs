//! The way out for transactions: submitted in order, and again until they are buried.
//!
//! Callers push and go on; one task submits. The queue listens to blocks, so it knows what has
//! confirmed and what a conflict has made impossible. It lives in memory: LDK and the wallet
//! offer their transactions again after a restart, and whoever needs more can store
//! [`BroadcastQueue::unburied`] and push it back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Block, OutPoint, Transaction, Txid};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::follower::ChainListener;
use super::{BURIED_DEPTH, BlockRef, BroadcastError, Broadcaster};

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How much the queue keeps.
#[derive(Debug, Clone)]
pub struct BroadcastLimits {
    /// Packages; above it the oldest is given up [20,000].
    pub packages_max: usize,
    /// Blocks after which a package that never confirms is given up [4,032, four weeks].
    pub age_max: u32,
}

impl Default for BroadcastLimits {
    fn default() -> Self {
        Self { packages_max: 20_000, age_max: 4_032 }
    }
}

/// A package that is not buried yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingBroadcast {
    /// Its transactions, parents first.
    pub txids: Vec<Txid>,
    /// Whether the network's nodes took it when last asked.
    pub taken: bool,
    /// Why not.
    pub refusal: Option<String>,
    /// Blocks seen since it was pushed.
    pub age: u32,
}

/// Submits packages and keeps at it; clones share the queue.
#[derive(Clone)]
pub struct BroadcastQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    limits: BroadcastLimits,
}

#[derive(Default)]
struct State {
    /// By order of arrival.
    packages: BTreeMap<u64, Package>,
    by_txid: HashMap<Txid, BTreeSet<u64>>,
    by_input: HashMap<OutPoint, BTreeSet<u64>>,
    next_id: u64,
}

struct Package {
    txs: Vec<(Txid, Transaction)>,
    due: bool,
    taken: bool,
    refusal: Option<String>,
    age: u32,
    /// Height at which each transaction, or a rival, confirmed.
    settled: HashMap<Txid, u32>,
    /// Those of them that can never confirm now, with the rival's height.
    lost: HashMap<Txid, u32>,
}

impl Default for BroadcastQueue {
    fn default() -> Self {
        Self::new(BroadcastLimits::default())
    }
}

impl BroadcastQueue {
    /// Makes an empty queue; [`Self::run`] works it off.
    pub fn new(limits: BroadcastLimits) -> Self {
        let state = Mutex::new(State::default());
        Self { shared: Arc::new(Shared { state, wake: Notify::new(), limits }) }
    }

    /// Takes a transaction, or a child with its parents first, without waiting.
    ///
    /// The same package pushed again is submitted again, not kept twice.
    pub fn push(&self, package: Vec<Transaction>) {
        if package.is_empty() {
            return;
        }
        let txs: Vec<(Txid, Transaction)> =
            package.into_iter().map(|tx| (tx.compute_txid(), tx)).collect();
        let mut state = self.shared.state.lock();
        if let Some(known) = state.find(&txs) {
            known.due = true;
        } else {
            if state.packages.len() >= self.shared.limits.packages_max
                && let Some((&oldest, _)) = state.packages.first_key_value()
            {
                let txids = state.remove(oldest);
                warn!(?txids, "broadcast queue is full; the oldest package is given up");
            }
            state.insert(txs);
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Forgets every package that ends in `txid`: its sender has a better one. What was submitted
    /// stays with the network until that replaces it.
    pub fn withdraw(&self, txid: Txid) {
        let mut state = self.shared.state.lock();
        let named = state.by_txid.get(&txid).cloned().unwrap_or_default();
        for id in named {
            let package = state.packages.get(&id);
            if package.and_then(|p| p.txs.last()).is_some_and(|(last, _)| *last == txid) {
                state.remove(id);
            }
        }
    }

    /// Lists what is not buried, in order of arrival.
    pub fn pending(&self) -> Vec<PendingBroadcast> {
        let state = self.shared.state.lock();
        state
            .packages
            .values()
            .map(|package| PendingBroadcast {
                txids: package.txids(),
                taken: package.taken,
                refusal: package.refusal.clone(),
                age: package.age,
            })
            .collect()
    }

    /// Returns the packages that are not buried, to be stored and pushed again.
    pub fn unburied(&self) -> Vec<Vec<Transaction>> {
        let state = self.shared.state.lock();
        state
            .packages
            .values()
            .map(|package| package.txs.iter().map(|(_, tx)| tx.clone()).collect())
            .collect()
    }

    /// Submits what is due, in order, until cancelled.
    pub async fn run(self, broadcaster: Arc<dyn Broadcaster>, cancel: CancellationToken) {
        let mut wait = RETRY_MIN;
        loop {
            let reached = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                reached = self.submit_due(&*broadcaster) => reached,
            };
            if reached {
                wait = RETRY_MIN;
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    () = self.shared.wake.notified() => {}
                }
            } else {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }

    /// Submits all that is due; `false` if nobody could be asked.
    async fn submit_due(&self, broadcaster: &dyn Broadcaster) -> bool {
        // One pass in order of arrival: what falls due behind us wakes us again.
        let mut after = None;
        loop {
            let Some((id, txs)) = self.shared.state.lock().next_due(after) else {
                return true;
            };
            let outcome = submit(broadcaster, &txs).await;
            let mut state = self.shared.state.lock();
            let Some(package) = state.packages.get_mut(&id) else {
                after = Some(id);
                continue;
            };
            match outcome {
                Err(BroadcastError::Chain(error)) => {
                    package.due = true;
                    package.note(Some(error.to_string()));
                    return false;
                }
                Err(error) => package.note(Some(error.to_string())),
                Ok(()) => package.note(None),
            }
            after = Some(id);
        }
    }
}

/// Submits a package; where it is refused as one, its members one by one.
async fn submit(broadcaster: &dyn Broadcaster, txs: &[Transaction]) -> Result<(), BroadcastError> {
    let refusal = match broadcaster.submit(txs).await {
        Err(error) if txs.len() > 1 && !matches!(error, BroadcastError::Chain(_)) => error,
        outcome => return outcome,
    };
    // The members may stand on their own feet, or be no family at all.
    for tx in txs {
        match broadcaster.submit(std::slice::from_ref(tx)).await {
            Ok(()) => {}
            Err(BroadcastError::Chain(error)) => return Err(error.into()),
            // The package's reason says more than that of a member alone.
            Err(_) => return Err(refusal),
        }
    }
    Ok(())
}

impl Package {
    fn txids(&self) -> Vec<Txid> {
        self.txs.iter().map(|(txid, _)| *txid).collect()
    }

    /// Keeps an outcome; says it once.
    fn note(&mut self, refusal: Option<String>) {
        self.taken = refusal.is_none();
        if self.refusal == refusal {
            return;
        }
        let txids = self.txids();
        match &refusal {
            Some(reason) => warn!(?txids, %reason, "broadcast refused; it is tried at each block"),
            None => info!(?txids, "broadcast taken after a refusal"),
        }
        self.refusal = refusal;
    }

    /// Says whether nothing but a deep reorg can change the fate of any member.
    fn is_buried(&self, height: u32) -> bool {
        self.txs.iter().all(|(txid, _)| {
            self.settled.get(txid).is_some_and(|at| height + 1 >= at + BURIED_DEPTH)
        })
    }
}

impl State {
    fn find(&mut self, txs: &[(Txid, Transaction)]) -> Option<&mut Package> {
        let ids = self.by_txid.get(&txs.last()?.0)?;
        let same = |package: &Package| {
            package.txs.len() == txs.len() && package.txs.iter().zip(txs).all(|(a, b)| a.0 == b.0)
        };
        let id = *ids.iter().find(|id| self.packages.get(id).is_some_and(same))?;
        self.packages.get_mut(&id)
    }

    fn insert(&mut self, txs: Vec<(Txid, Transaction)>) {
        let id = self.next_id;
        self.next_id += 1;
        for (txid, tx) in &txs {
            self.by_txid.entry(*txid).or_default().insert(id);
            for input in &tx.input {
                self.by_input.entry(input.previous_output).or_default().insert(id);
            }
        }
        let package = Package {
            txs,
            due: true,
            taken: false,
            refusal: None,
            age: 0,
            settled: HashMap::new(),
            lost: HashMap::new(),
        };
        self.packages.insert(id, package);
    }

    fn remove(&mut self, id: u64) -> Vec<Txid> {
        let Some(package) = self.packages.remove(&id) else {
            return Vec::new();
        };
        for (txid, tx) in &package.txs {
            forget(&mut self.by_txid, txid, id);
            for input in &tx.input {
                forget(&mut self.by_input, &input.previous_output, id);
            }
        }
        package.txids()
    }

    /// Takes the next due package after `after`: its members that are not settled.
    fn next_due(&mut self, after: Option<u64>) -> Option<(u64, Vec<Transaction>)> {
        let from = after.map_or(0, |id| id + 1);
        let (id, package) = self.packages.range_mut(from..).find(|(_, p)| p.due)?;
        package.due = false;
        let open = package.txs.iter().filter(|(txid, _)| !package.settled.contains_key(txid));
        Some((*id, open.map(|(_, tx)| tx.clone()).collect()))
    }

    /// Notes what `block` settles: members themselves, and those whose input a rival took.
    fn settle(&mut self, block: &Block, height: u32) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            for id in self.by_txid.get(&txid).into_iter().flatten() {
                if let Some(package) = self.packages.get_mut(id) {
                    package.settled.insert(txid, height);
                }
            }
            for input in &tx.input {
                let outpoint = input.previous_output;
                for id in self.by_input.get(&outpoint).into_iter().flatten() {
                    let Some(package) = self.packages.get_mut(id) else {
                        continue;
                    };
                    // Parents come first, so one pass finds the children of losers too.
                    for (own, member) in &package.txs {
                        let loses = *own != txid
                            && member.input.iter().map(|input| input.previous_output).any(
                                |spent| spent == outpoint || package.lost.contains_key(&spent.txid),
                            );
                        if loses {
                            debug!(loser = %own, rival = %txid, height, "a rival confirmed");
                            package.settled.insert(*own, height);
                            package.lost.insert(*own, height);
                        }
                    }
                }
            }
        }
    }
}

fn forget<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<u64>>, key: &K, id: u64) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

impl ChainListener for BroadcastQueue {
    fn name(&self) -> &str {
        "broadcaster"
    }

    fn positions(&self) -> Vec<BlockRef> {
        Vec::new()
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let age_max = self.shared.limits.age_max;
        let mut state = self.shared.state.lock();
        state.settle(block, height);
        let mut done = Vec::new();
        for (id, package) in &mut state.packages {
            package.age += 1;
            let given_up = package.age > age_max;
            if given_up {
                warn!(txids = ?package.txids(), "never confirmed; no longer broadcast");
            }
            if package.is_buried(height) || given_up {
                done.push(*id);
            } else {
                package.due = package.settled.len() < package.txs.len();
            }
        }
        for id in done {
            state.remove(id);
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        let mut state = self.shared.state.lock();
        for package in state.packages.values_mut() {
            package.settled.retain(|_, height| *height <= fork_point.height);
            package.lost.retain(|_, height| *height <= fork_point.height);
            package.due = package.settled.len() < package.txs.len();
        }
        drop(state);
        self.shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
