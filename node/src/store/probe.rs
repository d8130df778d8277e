//! What a commit cycle took, step by step, for those who ask.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Batch;
use crate::runtime::metrics::{Histogram, Probe, Scale};

/// Who waits for durability only to know when it came; more are not noted.
const WAITING_MAX: usize = 65_536;

/// Figures of the commit cycle.
#[derive(Debug)]
pub struct CommitFigures {
    /// From the first write of a batch until its cycle begins.
    pub gather: Histogram,
    /// Taking outputs, and sealing the batch with the manager that belongs to it.
    pub seal: Histogram,
    /// Writing the batch, with its one sync.
    pub sync: Histogram,
    /// Letting outputs leave.
    pub release: Histogram,
    /// Writes in a batch.
    pub ops: Histogram,
    /// Bytes of keys and values in a batch.
    pub bytes: Histogram,
}

impl Default for CommitFigures {
    fn default() -> Self {
        Self {
            gather: Histogram::new(Scale::DISK),
            seal: Histogram::new(Scale::DISK),
            sync: Histogram::new(Scale::DISK),
            release: Histogram::new(Scale::DISK),
            ops: Histogram::new(Scale::ITEMS),
            bytes: Histogram::new(Scale::BYTES),
        }
    }
}

type Then = Box<dyn FnOnce() + Send>;

/// Measures the commit cycle once it is armed.
#[derive(Default)]
pub struct CommitProbe {
    figures: Probe<CommitFigures>,
    /// By ticket, as they came.
    waiting: Mutex<VecDeque<(u64, Then)>>,
    /// How many those are, to be asked without a lock.
    count: AtomicUsize,
}

impl CommitProbe {
    /// Measures from now on.
    pub fn arm(&self) {
        self.figures.arm(CommitFigures::default());
    }

    /// The figures, if it was armed.
    pub fn figures(&self) -> Option<&CommitFigures> {
        self.figures.get()
    }

    pub(super) fn begin(&self, since: Option<Instant>) -> Stopwatch<'_> {
        let figures = self.figures.get();
        let now = figures.map(|_| Instant::now());
        let gathered = now.zip(since).map(|(now, since)| now.saturating_duration_since(since));
        Stopwatch { figures, at: now, gathered, sealing: Duration::ZERO, wrote: false }
    }

    /// Calls `then` when `ticket` is durable, at once if it is.
    pub(super) fn when_durable(&self, ticket: u64, then: Then, durable: impl FnOnce() -> u64) {
        {
            let mut waiting = self.waiting.lock();
            // Asked under the lock: a cycle that ends now comes by after it.
            if durable() < ticket {
                if waiting.len() < WAITING_MAX {
                    waiting.push_back((ticket, then));
                    self.count.store(waiting.len(), Ordering::Release);
                }
                return;
            }
        }
        then();
    }

    /// Tells those who wait for a ticket up to `durable`.
    pub(super) fn durable(&self, durable: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let ready: Vec<Then> = {
            let mut waiting = self.waiting.lock();
            let mut ready = Vec::new();
            // Two who asked at the same time may stand in the wrong order, for a cycle at most.
            while waiting.front().is_some_and(|(ticket, _)| *ticket <= durable) {
                ready.extend(waiting.pop_front().map(|(_, then)| then));
            }
            self.count.store(waiting.len(), Ordering::Release);
            ready
        };
        for then in ready {
            then();
        }
    }
}

/// Measures one cycle, if anybody asks. One that writes nothing is not counted.
pub(super) struct Stopwatch<'a> {
    figures: Option<&'a CommitFigures>,
    at: Option<Instant>,
    gathered: Option<Duration>,
    sealing: Duration,
    wrote: bool,
}

impl Stopwatch<'_> {
    fn lap(&mut self) -> Duration {
        let Some(at) = &mut self.at else { return Duration::ZERO };
        let now = Instant::now();
        let lap = now.saturating_duration_since(*at);
        *at = now;
        lap
    }

    pub(super) fn sealed(&mut self) {
        self.sealing = self.lap();
    }

    pub(super) fn written(&mut self, batch: &Batch) {
        let took = self.lap();
        let Some(figures) = self.figures else { return };
        self.wrote = true;
        if let Some(gathered) = self.gathered {
            figures.gather.took(gathered);
        }
        figures.seal.took(self.sealing);
        figures.sync.took(took);
        figures.ops.observe(batch.ops.len() as u64);
        figures.bytes.observe(batch.bytes() as u64);
    }

    pub(super) fn released(&mut self) {
        let took = self.lap();
        if let Some(figures) = self.figures.filter(|_| self.wrote) {
            figures.release.took(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Committer, MemoryDisk, Table};
    use super::*;

    fn write(committer: &Committer) -> super::super::Ticket {
        let mut batch = Batch::default();
        batch.put(Table::Meta.key("x"), vec![1]);
        committer.enqueue(batch)
    }

    #[test]
    fn only_an_armed_cycle_is_measured_and_only_if_it_writes() {
        let committer = Committer::new(Arc::new(MemoryDisk::new().open()));
        let _ticket = write(&committer);
        committer.cycle().unwrap();
        assert!(committer.probe().figures().is_none());
        committer.probe().arm();
        committer.cycle().unwrap();
        let figures = committer.probe().figures().unwrap();
        assert_eq!(figures.sync.count(), 0, "nothing was written");
        let _ticket = write(&committer);
        assert_eq!(committer.waiting().0, 1);
        committer.cycle().unwrap();
        for step in [&figures.gather, &figures.seal, &figures.sync, &figures.release, &figures.ops]
        {
            assert_eq!(step.count(), 1, "{step:?}");
        }
    }

    #[test]
    fn durability_is_told_once_it_is_there_and_never_before() {
        let committer = Committer::new(Arc::new(MemoryDisk::new().open()));
        let told = Arc::new(AtomicUsize::new(0));
        let ask = |ticket| {
            let told = Arc::clone(&told);
            committer.when_durable(ticket, move || {
                told.fetch_add(1, Ordering::Relaxed);
            });
        };
        let ticket = write(&committer);
        ask(ticket);
        assert_eq!(told.load(Ordering::Relaxed), 0);
        committer.cycle().unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        ask(ticket);
        assert_eq!(told.load(Ordering::Relaxed), 2, "it is durable already");
        let later = write(&committer);
        ask(later);
        committer.give_up("the test says so");
        let _failed = committer.cycle();
        assert_eq!(told.load(Ordering::Relaxed), 2, "what never is durable is never told");
    }
}
