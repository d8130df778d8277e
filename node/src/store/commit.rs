//! The commit cycle: the only writer of the store, and the gate that outputs wait behind.
//!
//! Everything that must survive is enqueued as a [`Batch`] and becomes pending. A cycle seals
//! what is pending into one batch, writes it with one sync, and releases what waited for it.
//! While a sync is under way the next batch gathers, so the cycle is immediate when idle and
//! widens under load without a setting. What nobody waits for, neither an output nor a caller,
//! joins the next batch that somebody waits for, or is written after [`LAZY`].
//!
//! The [`Gate`] is how LDK takes part. LDK runs on in memory; its outputs (peer messages,
//! broadcasts) are collected *before* a batch is sealed and released only *after* it is durable,
//! so that nothing leaves before its cause is on disk. What the outputs are is the gate's
//! business; this file knows only the order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::probe::CommitProbe;
use super::{Batch, Op, Pair, Store, StoreError, Table, Term};

/// How long writes wait at most for others to share a sync with, if nobody waits for them.
pub(super) const LAZY: Duration = Duration::from_millis(100);

/// The part of the node whose outputs wait for durability.
pub trait Gate: Send + Sync + 'static {
    /// Waits, for a moment at most, for the end of what is half done, so that it makes one batch.
    /// Called before a cycle on its own thread; a cycle that runs as a task does not wait.
    fn settle(&self) {}
    /// Takes every output produced so far. Called first in a cycle. Returns whether any waits.
    fn collect(&self) -> bool;
    /// Calls `seal` exactly once, at a moment that no state change can straddle, and returns its
    /// batch with whatever snapshot of that same moment belongs to it.
    fn seal(&self, seal: &mut dyn FnMut() -> Batch) -> Batch;
    /// Lets the collected outputs leave. Called last, once the batch is durable.
    fn release(&self);
}

/// Proof that writes are pending; redeemed by [`Committer::durable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "nothing may be answered before its ticket is durable"]
pub struct Ticket(u64);

/// What the commit cycle has done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Batches written, one sync each.
    pub batches: u64,
    /// Writes in them.
    pub ops: u64,
    /// Bytes of keys and values in them.
    pub bytes: u64,
}

/// The handle to the commit cycle. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    term: Term,
    pending: Mutex<Pending>,
    /// Wakes the cycle on its thread.
    work: Condvar,
    /// Wakes the cycle as a task.
    work_task: Notify,
    /// Held through a cycle: two at once could write their batches in the wrong order.
    cycling: Mutex<()>,
    gate: RwLock<Option<Arc<dyn Gate>>>,
    progress: watch::Sender<Progress>,
    probe: CommitProbe,
    batches: AtomicU64,
    ops: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    /// Not yet durable values by key, newest last: what reads must see.
    overlay: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
    /// Ticket of the newest enqueued batch.
    newest: u64,
    /// Ticket of the newest batch that a cycle has taken to write.
    sealed: u64,
    /// Newest ticket that a caller waits for.
    awaited: u64,
    /// Since when something waits to be written.
    since: Option<Instant>,
    kicked: bool,
    stopping: bool,
}

impl Pending {
    fn kick(&mut self) {
        self.kicked = true;
        self.since.get_or_insert_with(Instant::now);
    }

    /// When what nobody waits for is written all the same.
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LAZY)
    }
}

#[derive(Debug, Clone, Default)]
struct Progress {
    durable: u64,
    failed: Option<Arc<str>>,
    stopped: bool,
}

impl Committer {
    /// Makes a committer over `store`. Nothing is written until a cycle runs, see
    /// [`Committer::run_thread`].
    pub fn new(store: Arc<dyn Store>) -> Self {
        let term = store.term();
        Self {
            shared: Arc::new(Shared {
                store,
                term,
                pending: Mutex::default(),
                work: Condvar::new(),
                work_task: Notify::new(),
                cycling: Mutex::new(()),
                gate: RwLock::new(None),
                progress: watch::Sender::new(Progress::default()),
                probe: CommitProbe::default(),
                batches: AtomicU64::new(0),
                ops: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            }),
        }
    }

    /// Puts `gate` in charge of outputs and sealing. Called once, before the first peer.
    pub fn set_gate(&self, gate: Arc<dyn Gate>) {
        *self.shared.gate.write() = Some(gate);
    }

    /// Makes `batch` pending. It is written when somebody waits: see [`Committer::durable`] and
    /// [`Committer::kick`], or after a moment.
    pub fn enqueue(&self, batch: Batch) -> Ticket {
        let mut pending = self.shared.pending.lock();
        pending.newest += 1;
        let ticket = pending.newest;
        for op in batch.ops {
            let (key, value) = match &op {
                Op::Put { key, value } => (key.clone(), Some(value.clone())),
                Op::Delete { key } => (key.clone(), None),
            };
            pending.overlay.insert(key, (ticket, value));
            pending.batch.ops.push(op);
        }
        if pending.since.is_none() {
            pending.since = Some(Instant::now());
            // Not to write, but to know when it is due.
            self.wake();
        }
        Ticket(ticket)
    }

    /// Returns a ticket for everything enqueued so far.
    pub fn now(&self) -> Ticket {
        Ticket(self.shared.pending.lock().newest)
    }

    /// Starts a cycle if there is anything to let out. To be called when whatever may have made
    /// outputs is done with all of them: those of one cause share a cycle.
    pub fn kick(&self) {
        self.shared.pending.lock().kick();
        self.wake();
    }

    /// Waits until `ticket` is durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::Failed`] if the store failed or the committer stopped first: the outcome is
    /// then known only after a restart.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), StoreError> {
        {
            let mut pending = self.shared.pending.lock();
            if ticket.0 > pending.sealed {
                pending.awaited = pending.awaited.max(ticket.0);
                pending.kick();
                self.wake();
            }
        }
        let mut progress = self.shared.progress.subscribe();
        let reached = progress
            .wait_for(|p| p.durable >= ticket.0 || p.failed.is_some() || p.stopped)
            .await
            .map_err(|_| StoreError::Failed("commit cycle has gone".into()))?;
        match (&reached.failed, reached.durable >= ticket.0) {
            (_, true) => Ok(()),
            (Some(why), false) => Err(StoreError::Failed(why.to_string())),
            (None, false) => Err(StoreError::Failed("node is stopping".into())),
        }
    }

    /// The newest ticket that is durable.
    pub fn last_durable(&self) -> Ticket {
        Ticket(self.shared.progress.borrow().durable)
    }

    /// Waits until the store fails; pending for ever while it works.
    pub async fn failed(&self) -> String {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let failed = progress.wait_for(|p| p.failed.is_some()).await;
        failed.ok().and_then(|p| p.failed.as_deref().map(str::to_owned)).unwrap_or_default()
    }

    /// Ends the node's writing for good: what is pending never becomes durable, and nothing more
    /// leaves. For a state in memory that cannot be trusted any more.
    pub fn give_up(&self, why: &str) {
        tracing::error!(why, "the node stops writing and answering");
        self.shared.progress.send_modify(|p| {
            p.failed.get_or_insert_with(|| why.into());
        });
        self.shared.pending.lock().kick();
        self.wake();
    }

    /// Returns the value at `key`, pending writes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some((_, value)) = self.shared.pending.lock().overlay.get(key) {
            return Ok(value.clone());
        }
        self.shared.store.get(key)
    }

    /// Returns at most `limit` pairs with `from <= key < to` by ascending key, pending writes
    /// included.
    pub fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = self.merged(from, to, |limit_durable| {
            self.shared.store.scan(from, to, limit.saturating_add(limit_durable))
        })?;
        pairs.truncate(limit);
        Ok(pairs)
    }

    /// Returns every pair of `table` whose key begins with `prefix`, as [`Committer::scan`] does:
    /// for what fits into memory.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn scan_all(
        &self,
        table: Table,
        prefix: impl AsRef<[u8]>,
    ) -> Result<Vec<Pair>, StoreError> {
        let (from, to) = table.range_of(prefix);
        self.merged(&from, &to, |_| self.shared.store.scan(&from, &to, usize::MAX))
    }

    /// Gives `take` every pair of the range by ascending key, `step` at a time, so that a large
    /// range is never in memory as a whole. Each step is of its own moment; `take` may write.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or what `take` says.
    pub fn scan_steps(
        &self,
        from: &[u8],
        to: &[u8],
        step: usize,
        mut take: impl FnMut(Vec<Pair>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = from.to_vec();
        loop {
            let pairs = self.scan(&from, to, step)?;
            let Some((last, _)) = pairs.last() else { return Ok(()) };
            from = [&last[..], &[0]].concat();
            let is_last = pairs.len() < step;
            take(pairs)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// As [`Committer::scan`], by descending key.
    pub fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = self.merged(from, to, |limit_durable| {
            self.shared.store.scan_back(from, to, limit.saturating_add(limit_durable))
        })?;
        pairs.reverse();
        pairs.truncate(limit);
        Ok(pairs)
    }

    /// Merges the pending writes of the range over what `durable` finds in the store. It is told
    /// how many pairs pending deletes may hide, so that the limit is met all the same.
    ///
    /// The result is the state of one moment. The store must not have moved past the overlay
    /// that is laid over it: if a cycle took newer writes meanwhile, both are read again.
    fn merged(
        &self,
        from: &[u8],
        to: &[u8],
        durable: impl Fn(usize) -> Result<Vec<Pair>, StoreError>,
    ) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let overlay = |pending: &Pending| -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
            pending
                .overlay
                .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
                .map(|(key, (_, value))| (key.clone(), value.clone()))
                .collect()
        };
        for _ in 0..SCAN_TRIES {
            let (newest, overlay) = {
                let pending = self.shared.pending.lock();
                (pending.newest, overlay(&pending))
            };
            let pairs = durable(overlay.len())?;
            if self.shared.pending.lock().sealed <= newest {
                return Ok(merge(pairs, overlay));
            }
        }
        // Under heavy load the cycle waits for the scan instead.
        let pending = self.shared.pending.lock();
        let overlay = overlay(&pending);
        let pairs = durable(overlay.len())?;
        Ok(merge(pairs, overlay))
    }

    /// The store below. Reads past the overlay; for sizes and snapshots.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// What the cycle has done since the start.
    pub fn stats(&self) -> CommitStats {
        CommitStats {
            batches: self.shared.batches.load(Ordering::Relaxed),
            ops: self.shared.ops.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// What measures the cycle.
    pub fn probe(&self) -> &CommitProbe {
        &self.shared.probe
    }

    /// Writes that no cycle has taken yet, and since when the oldest waits.
    pub fn waiting(&self) -> (usize, Duration) {
        let pending = self.shared.pending.lock();
        (pending.batch.ops.len(), pending.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Calls `then` once `ticket` is durable; never, if the store fails first. For figures: `then`
    /// runs on the commit cycle and must be short.
    pub fn when_durable(&self, ticket: Ticket, then: impl FnOnce() + Send + 'static) {
        self.shared.probe.when_durable(ticket.0, Box::new(then), || self.last_durable().0);
    }

    /// Runs one cycle: collect, seal, write, release. Returns whether anything was written.
    ///
    /// A simulation calls this at the times it likes; otherwise see [`Committer::run_thread`].
    ///
    /// # Errors
    ///
    /// That of the store. Nothing is released then, and no later cycle writes.
    pub fn cycle(&self) -> Result<bool, StoreError> {
        self.turn(true)
    }

    /// A cycle, unless it is not `sure` and nobody waits for one.
    fn turn(&self, sure: bool) -> Result<bool, StoreError> {
        let shared = &*self.shared;
        let _alone = shared.cycling.lock();
        if let Some(why) = &shared.progress.borrow().failed {
            return Err(StoreError::Failed(why.to_string()));
        }
        let gate = shared.gate.read().clone();
        let since = {
            let mut pending = shared.pending.lock();
            // Before collecting: a kick from here on may announce an output that comes too late
            // for this cycle, and asks for the next one.
            pending.kicked = false;
            pending.since.take()
        };
        let mut stopwatch = shared.probe.begin(since);
        let outputs = gate.as_ref().is_some_and(|gate| gate.collect());
        if !sure && !outputs {
            let mut pending = shared.pending.lock();
            let waited_for = pending.awaited > pending.sealed || pending.stopping;
            if !waited_for
                && let Some(since) = since
                && since.elapsed() < LAZY
            {
                pending.since = Some(since);
                return Ok(false);
            }
        }
        let mut sealed_at = 0;
        let mut take = || {
            let mut pending = shared.pending.lock();
            sealed_at = pending.newest;
            pending.sealed = sealed_at;
            std::mem::take(&mut pending.batch)
        };
        let mut batch = match &gate {
            Some(gate) => gate.seal(&mut take),
            None => take(),
        };
        batch.term = shared.term;
        let wrote = !batch.is_empty();
        stopwatch.sealed();
        if wrote {
            if let Err(error) = shared.store.commit(&batch) {
                tracing::error!(%error, "store failed; the node stops writing and answering");
                shared.progress.send_modify(|p| p.failed = Some(error.to_string().into()));
                return Err(error);
            }
            stopwatch.written(&batch);
            shared.batches.fetch_add(1, Ordering::Relaxed);
            shared.ops.fetch_add(batch.ops.len() as u64, Ordering::Relaxed);
            shared.bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
            shared.pending.lock().overlay.retain(|_, (ticket, _)| *ticket > sealed_at);
        }
        shared.progress.send_if_modified(|p| {
            let advanced = p.durable < sealed_at;
            p.durable = p.durable.max(sealed_at);
            advanced
        });
        if let Some(gate) = &gate {
            gate.release();
        }
        stopwatch.released();
        shared.probe.durable(sealed_at);
        Ok(wrote)
    }

    /// Starts the commit thread. It runs until [`Committer::stop`] or a failure of the store.
    ///
    /// # Errors
    ///
    /// If the operating system gives no thread.
    pub fn run_thread(&self) -> std::io::Result<std::thread::JoinHandle<()>> {
        let ending = Ending(Some(self.clone()));
        std::thread::Builder::new().name("commit".into()).spawn(move || {
            let Some(this) = &ending.0 else { return };
            loop {
                let ended = {
                    let mut pending = this.shared.pending.lock();
                    while !pending.kicked && !pending.stopping {
                        match pending.due() {
                            None => this.shared.work.wait(&mut pending),
                            Some(due) => {
                                let due = due.into_std();
                                if this.shared.work.wait_until(&mut pending, due).timed_out() {
                                    break;
                                }
                            }
                        }
                    }
                    pending.stopping && pending.since.is_none()
                };
                if ended {
                    break;
                }
                let gate = this.shared.gate.read().clone();
                if let Some(gate) = gate {
                    gate.settle();
                }
                if this.turn(false).is_err() {
                    break;
                }
            }
        })
    }

    fn wake(&self) {
        self.shared.work.notify_one();
        self.shared.work_task.notify_one();
    }

    /// Runs the cycle as a task, for a store that never blocks, until [`Committer::stop`] or a
    /// failure of the store. Each batch is written `takes` after it was asked for, as if a disk
    /// took so long: what comes meanwhile shares it.
    pub async fn run_task(self, takes: Duration) {
        loop {
            let woken = self.shared.work_task.notified();
            let (kicked, stopping, due) = {
                let pending = self.shared.pending.lock();
                (pending.kicked, pending.stopping, pending.due())
            };
            let overdue = due.is_some_and(|due| stopping || due <= Instant::now());
            match due {
                _ if kicked || overdue => {
                    if !takes.is_zero() {
                        tokio::time::sleep(takes).await;
                    }
                    if self.turn(false).is_err() {
                        break;
                    }
                    // Others run between two cycles, so that batches gather.
                    tokio::task::yield_now().await;
                }
                _ if stopping => break,
                Some(due) => {
                    let _woken_or_due = tokio::time::timeout_at(due, woken).await;
                }
                None => woken.await,
            }
        }
        drop(Ending(Some(self)));
    }

    /// Waits until the cycle has ended.
    pub async fn stopped(&self) {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ended = progress.wait_for(|p| p.stopped || p.failed.is_some()).await;
    }

    /// Ends the cycle after what is pending is written.
    pub fn stop(&self) {
        self.shared.pending.lock().stopping = true;
        self.wake();
    }
}

/// The end of the cycle, also if its thread panics: lets go of gate and store, and only then
/// tells those who wait, who may open the store again.
struct Ending(Option<Committer>);

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(committer) = self.0.take() else { return };
        *committer.shared.gate.write() = None;
        let progress = committer.shared.progress.clone();
        drop(committer);
        let panicked = std::thread::panicking();
        progress.send_modify(|p| {
            p.stopped = true;
            if panicked && p.failed.is_none() {
                p.failed = Some("commit thread panicked".into());
            }
        });
    }
}

/// How often a scan reads again before it makes the cycle wait.
const SCAN_TRIES: usize = 3;

fn merge(durable: Vec<Pair>, overlay: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Vec<Pair> {
    let mut all: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
        durable.into_iter().map(|(key, value)| (key, Some(value))).collect();
    all.extend(overlay);
    all.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
}
