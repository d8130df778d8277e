//! The in-memory engine: a disk that lies, tears, fills up and loses power when told to.
//!
//! A [`MemoryDisk`] outlives the stores opened on it, as a disk outlives processes. Faults are
//! put on numbered commits, so the same calls always give the same run: nothing here reads a
//! clock or a random source. Opening takes the next term and fences off the holder before it,
//! as a shared database would; the lock file of `open.rs` has no counterpart here.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use super::engine::{Writes, net_writes};
use super::{Batch, Pair, Store, StoreError, Term, Visit};

/// What goes wrong at one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// The write fails: an error, and nothing of the batch is there.
    FailWrite,
    /// The write is done but its sync fails: an error, and a power cut decides about the batch.
    FailSync,
    /// All is durable, but the answer is an error all the same.
    FailAnswer,
    /// The sync is skipped: success is reported, and a power cut decides about the batch. The
    /// next commit that is really synced makes this one durable too.
    LoseSync,
    /// The disk is full: an error, nothing of the batch is there, and nothing fits from here on
    /// until [`MemoryDisk::set_capacity`] gives room.
    Full,
}

/// What a power cut leaves of the batches that were written but not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PowerCut {
    /// How many of them survive whole, oldest first.
    pub kept: usize,
    /// How many writes of the next one survive, by ascending key. More than 0 is an engine that
    /// breaks the promise of atomic batches: to show that a checker notices.
    pub torn_writes: usize,
}

/// A disk in memory, shared by the stores opened on it one after the other. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// What a power cut cannot take.
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Batches written and not synced, oldest first. Few at a time, most of the time none.
    unsynced: Vec<NetBatch>,
    /// What they come to: readers see it over `durable`.
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Bytes of keys and values that readers see.
    bytes: u64,
    capacity_bytes: Option<u64>,
    /// Commits attempted since the disk was made.
    commits: u64,
    faults: BTreeMap<u64, DiskFault>,
    /// From this commit on every sync is lost.
    syncs_lost_from: Option<u64>,
    term: Term,
    /// Counts power cuts: a store opened before the last one is dead.
    cuts: u64,
}

/// The last write per key, by ascending key.
type NetBatch = Vec<(Vec<u8>, Option<Vec<u8>>)>;
/// A range of keys.
type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

const ALL: Range<'static> = (Bound::Unbounded, Bound::Unbounded);

impl MemoryDisk {
    /// Makes an empty disk without faults or limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a store on the disk; the stores opened before are fenced off.
    pub fn open(&self) -> MemoryStore {
        let mut disk = self.disk.lock();
        // The term is durable at once: a lost one would let two holders share it.
        disk.term = Term(disk.term.0 + 1);
        MemoryStore {
            disk: Arc::clone(&self.disk),
            term: disk.term,
            cuts: disk.cuts,
            failed: Mutex::new(None),
        }
    }

    /// Makes `fault` happen at the commit with this number, see [`MemoryDisk::commits`].
    pub fn fault_at(&self, commit: u64, fault: DiskFault) {
        self.disk.lock().faults.insert(commit, fault);
    }

    /// Takes back the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.disk.lock().faults.clear();
    }

    /// Loses the sync of every commit from this number on; `None` ends it.
    pub fn lose_syncs_from(&self, commit: Option<u64>) {
        self.disk.lock().syncs_lost_from = commit;
    }

    /// Sets the disk's size in bytes of keys and values; `None` is without limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity_bytes = bytes;
    }

    /// Commits attempted so far, counted over all stores of the disk; the next has one more.
    pub fn commits(&self) -> u64 {
        self.disk.lock().commits
    }

    /// Batches that were written and not synced: what a power cut decides about.
    pub fn unsynced(&self) -> usize {
        self.disk.lock().unsynced.len()
    }

    /// Cuts the power: open stores are dead, and of the unsynced batches only `cut` remains.
    pub fn cut_power(&self, cut: PowerCut) {
        let mut disk = self.disk.lock();
        let unsynced = std::mem::take(&mut disk.unsynced);
        for (index, batch) in unsynced.into_iter().enumerate() {
            let writes = match index {
                index if index < cut.kept => usize::MAX,
                index if index == cut.kept => cut.torn_writes,
                _ => break,
            };
            for (key, value) in batch.into_iter().take(writes) {
                set(&mut disk.durable, key, value);
            }
        }
        disk.pending.clear();
        disk.bytes = bytes(&disk.durable);
        disk.cuts += 1;
    }
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
    term: Term,
    cuts: u64,
    failed: Mutex<Option<String>>,
}

impl MemoryStore {
    fn collect(
        &self,
        from: &[u8],
        to: &[u8],
        ascending: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let disk = self.disk.lock();
        self.check_power(&disk)?;
        let seen = disk.seen((Bound::Included(from), Bound::Excluded(to)));
        let own = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match ascending {
            true => seen.take(limit).map(own).collect(),
            false => seen.rev().take(limit).map(own).collect(),
        })
    }

    fn check_power(&self, disk: &Disk) -> Result<(), StoreError> {
        if disk.cuts == self.cuts {
            return Ok(());
        }
        Err(StoreError::Failed("power was cut".to_owned()))
    }
}

impl Store for MemoryStore {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn term(&self) -> Term {
        self.term
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let disk = self.disk.lock();
        self.check_power(&disk)?;
        Ok(disk.value(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.collect(from, to, true, limit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.collect(from, to, false, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut failed = self.failed.lock();
        if let Some(why) = &*failed {
            return Err(StoreError::Failed(why.clone()));
        }
        let mut disk = self.disk.lock();
        self.check_power(&disk)?;
        // The handle's own term counts as well: a fenced holder cannot borrow the new one.
        let ours = batch.term.min(self.term);
        if ours != disk.term || batch.term != disk.term {
            return Err(StoreError::Fenced { ours, current: disk.term });
        }
        let writes = net_writes(batch)?;
        if writes.is_empty() {
            return Ok(());
        }
        let result = disk.commit(&writes);
        if let Err(error) = &result {
            *failed = Some(error.to_string());
        }
        result
    }

    fn snapshot(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        let disk = self.disk.lock();
        self.check_power(&disk)?;
        disk.seen(ALL).try_for_each(|(key, value)| visit(key, value))
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

impl Disk {
    fn commit(&mut self, writes: &Writes<'_>) -> Result<(), StoreError> {
        self.commits += 1;
        let fault = self.faults.remove(&self.commits);
        if fault == Some(DiskFault::FailWrite) {
            return Err(injected("write"));
        }
        if fault == Some(DiskFault::Full) {
            self.capacity_bytes = Some(0);
        }
        let bytes = self.bytes_after(writes);
        if let Some(capacity) = self.capacity_bytes
            && bytes > capacity
        {
            return Err(StoreError::DiskFull {
                path: "memory".to_owned(),
                detail: format!("{bytes} bytes exceed the {capacity} there are"),
            });
        }
        self.bytes = bytes;
        let batch: NetBatch =
            writes.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
        self.unsynced.push(batch);
        let lost = self.syncs_lost_from.is_some_and(|n| self.commits >= n);
        if lost || matches!(fault, Some(DiskFault::FailSync | DiskFault::LoseSync)) {
            let batch = self.unsynced.last().into_iter().flatten();
            self.pending.extend(batch.map(|(key, value)| (key.clone(), value.clone())));
            return match fault {
                Some(DiskFault::FailSync) => Err(injected("sync")),
                _ => Ok(()),
            };
        }
        for (key, value) in self.unsynced.drain(..).flatten() {
            set(&mut self.durable, key, value);
        }
        self.pending.clear();
        match fault {
            Some(DiskFault::FailAnswer) => Err(injected("answer")),
            _ => Ok(()),
        }
    }

    fn value(&self, key: &[u8]) -> Option<&Vec<u8>> {
        match self.pending.get(key) {
            Some(written) => written.as_ref(),
            None => self.durable.get(key),
        }
    }

    /// What readers see of a range, by ascending key.
    fn seen(
        &self,
        range: Range<'_>,
    ) -> Box<dyn DoubleEndedIterator<Item = (&Vec<u8>, &Vec<u8>)> + '_> {
        let durable = self.durable.range::<[u8], _>(range);
        if self.pending.is_empty() {
            return Box::new(durable);
        }
        let mut seen: BTreeMap<_, _> = durable.collect();
        for (key, value) in self.pending.range::<[u8], _>(range) {
            match value {
                Some(value) => seen.insert(key, value),
                None => seen.remove(key),
            };
        }
        Box::new(seen.into_iter())
    }

    fn bytes_after(&self, writes: &Writes<'_>) -> u64 {
        writes.iter().fold(self.bytes, |bytes, (key, value)| {
            let old = self.value(key).map_or(0, |old| key.len() + old.len());
            let new = value.map_or(0, |value| key.len() + value.len());
            bytes - old as u64 + new as u64
        })
    }
}

fn set(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn bytes(map: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

fn injected(what: &str) -> StoreError {
    StoreError::Io(std::io::Error::other(format!("injected {what} failure")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &MemoryStore, key: &str) -> Result<(), StoreError> {
        let mut batch = Batch { term: store.term(), ..Batch::default() };
        batch.put(format!("{key}1").into_bytes(), b"one".to_vec());
        batch.put(format!("{key}2").into_bytes(), b"two".to_vec());
        store.commit(&batch)
    }

    fn keys(disk: &MemoryDisk) -> Vec<String> {
        disk.open()
            .scan(b"", b"zz", 99)
            .unwrap()
            .into_iter()
            .map(|(key, _)| String::from_utf8(key).unwrap())
            .collect()
    }

    #[test]
    fn acknowledged_batches_survive_a_cut_that_keeps_nothing() {
        let disk = MemoryDisk::new();
        let store = disk.open();
        put(&store, "a").unwrap();
        disk.cut_power(PowerCut::default());
        assert!(matches!(put(&store, "b"), Err(StoreError::Failed(_))));
        assert!(matches!(store.get(b"a1"), Err(StoreError::Failed(_))));
        assert_eq!(keys(&disk), ["a1", "a2"]);
    }

    #[test]
    fn lost_syncs_leave_what_the_cut_keeps() {
        for (kept, left) in [(0, vec!["a1", "a2"]), (1, vec!["a1", "a2", "b1", "b2"])] {
            let disk = MemoryDisk::new();
            let store = disk.open();
            put(&store, "a").unwrap();
            disk.lose_syncs_from(Some(2));
            put(&store, "b").unwrap();
            put(&store, "c").unwrap();
            assert_eq!(disk.unsynced(), 2);
            disk.cut_power(PowerCut { kept, torn_writes: 0 });
            assert_eq!(keys(&disk), left);
        }
    }

    #[test]
    fn a_later_real_sync_covers_a_lost_one() {
        let disk = MemoryDisk::new();
        disk.fault_at(1, DiskFault::LoseSync);
        let store = disk.open();
        put(&store, "a").unwrap();
        assert_eq!(disk.unsynced(), 1);
        put(&store, "b").unwrap();
        disk.cut_power(PowerCut::default());
        assert_eq!(keys(&disk), ["a1", "a2", "b1", "b2"]);
    }

    #[test]
    fn torn_batch_is_there_in_part() {
        let disk = MemoryDisk::new();
        disk.fault_at(1, DiskFault::LoseSync);
        put(&disk.open(), "a").unwrap();
        disk.cut_power(PowerCut { kept: 0, torn_writes: 1 });
        assert_eq!(keys(&disk), ["a1"]);
    }

    #[test]
    fn each_failure_leaves_what_it_says_and_stops_the_store() {
        use DiskFault::{FailAnswer, FailSync, FailWrite};
        for (fault, kept, there) in [
            (FailWrite, 1, false),
            (FailSync, 0, false),
            (FailSync, 1, true),
            (FailAnswer, 0, true),
        ] {
            let disk = MemoryDisk::new();
            disk.fault_at(1, fault);
            let store = disk.open();
            assert!(matches!(put(&store, "a"), Err(StoreError::Io(_))));
            assert!(matches!(put(&store, "b"), Err(StoreError::Failed(_))));
            assert_eq!(disk.commits(), 1);
            disk.cut_power(PowerCut { kept, torn_writes: 0 });
            let left = keys(&disk);
            assert_eq!(left.contains(&"a1".to_owned()), there, "{fault:?} {kept}");
            assert_eq!(left.contains(&"a2".to_owned()), there, "{fault:?} {kept}");
            put(&disk.open(), "c").unwrap();
        }
    }

    #[test]
    fn full_disk_refuses_and_takes_deletes_after_a_restart() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(10));
        let store = disk.open();
        put(&store, "a").unwrap();
        let error = put(&store, "b").unwrap_err();
        assert!(
            matches!(&error, StoreError::DiskFull { detail, .. } if detail.contains("20 bytes")),
            "{error}"
        );
        let store = disk.open();
        let mut batch = Batch { term: store.term(), ..Batch::default() };
        batch.delete(b"a1".to_vec());
        batch.delete(b"a2".to_vec());
        store.commit(&batch).unwrap();
        put(&store, "b").unwrap();
        assert_eq!(keys(&disk), ["b1", "b2"]);
    }

    #[test]
    fn disk_filled_by_a_fault_takes_nothing_until_it_has_room() {
        let disk = MemoryDisk::new();
        disk.fault_at(1, DiskFault::Full);
        disk.fault_at(3, DiskFault::Full);
        for _ in 0..2 {
            let error = put(&disk.open(), "a").unwrap_err();
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        }
        disk.set_capacity(None);
        disk.clear_faults();
        put(&disk.open(), "a").unwrap();
        assert_eq!(keys(&disk), ["a1", "a2"]);
    }

    #[test]
    fn a_later_holder_fences_the_earlier_one() {
        let disk = MemoryDisk::new();
        let first = disk.open();
        put(&first, "a").unwrap();
        let second = disk.open();
        let error = put(&first, "b").unwrap_err();
        assert!(matches!(error, StoreError::Fenced { ours, current } if ours < current), "{error}");
        put(&second, "c").unwrap();
        assert_eq!(keys(&disk), ["a1", "a2", "c1", "c2"]);
    }
}
