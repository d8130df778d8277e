//! What the commit cycle promises, on the in-memory engine and, for load, on a slow one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.into(), value.into());
    batch
}

fn delete(key: &str) -> Batch {
    let mut batch = Batch::default();
    batch.delete(key.into());
    batch
}

fn on_memory() -> (MemoryDisk, Committer) {
    let disk = MemoryDisk::new();
    let committer = Committer::new(Arc::new(disk.open()));
    (disk, committer)
}

fn keys(pairs: Vec<Pair>) -> Vec<String> {
    pairs.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

/// A store that tells when it is written, and may take its time.
struct Watched {
    inner: MemoryStore,
    log: Arc<Mutex<Vec<String>>>,
    pause: Duration,
}

impl Store for Watched {
    fn engine(&self) -> &'static str {
        "watched"
    }
    fn term(&self) -> Term {
        self.inner.term()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.inner.scan(from, to, limit)
    }
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.inner.scan_back(from, to, limit)
    }
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.log.lock().push(format!("write {}", batch.ops.len()));
        std::thread::sleep(self.pause);
        let result = self.inner.commit(batch);
        self.log.lock().push("written".to_owned());
        result
    }
    fn snapshot(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        self.inner.snapshot(visit)
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// A gate that writes down what is asked of it, and adds a snapshot of its own when sealing.
struct Recorder {
    log: Arc<Mutex<Vec<String>>>,
    adds: Option<&'static str>,
}

impl Gate for Recorder {
    fn collect(&self) -> bool {
        self.log.lock().push("collect".to_owned());
        true
    }
    fn seal(&self, seal: &mut dyn FnMut() -> Batch) -> Batch {
        self.log.lock().push("seal".to_owned());
        let mut batch = seal();
        if let Some(key) = self.adds {
            batch.put(key.into(), b"snapshot".to_vec());
        }
        batch
    }
    fn release(&self) {
        self.log.lock().push("release".to_owned());
    }
}

#[test]
fn reads_see_pending_writes_and_the_store_does_not() {
    let (_, committer) = on_memory();
    for key in ["a", "b", "c", "d"] {
        let _ = committer.enqueue(put(key, "durable"));
    }
    committer.cycle().unwrap();
    let _ = committer.enqueue(put("b", "pending"));
    let _ = committer.enqueue(delete("c"));
    let _ = committer.enqueue(put("bb", "pending"));

    assert_eq!(committer.get(b"b").unwrap(), Some(b"pending".to_vec()));
    assert_eq!(committer.get(b"c").unwrap(), None);
    assert_eq!(committer.get(b"a").unwrap(), Some(b"durable".to_vec()));
    assert_eq!(committer.store().get(b"b").unwrap(), Some(b"durable".to_vec()));
    assert_eq!(keys(committer.scan(b"a", b"z", 99).unwrap()), ["a", "b", "bb", "d"]);
    assert_eq!(keys(committer.scan(b"b", b"d", 99).unwrap()), ["b", "bb"]);
    assert_eq!(keys(committer.scan_back(b"a", b"z", 99).unwrap()), ["d", "bb", "b", "a"]);
    // A pending delete does not use up the limit.
    let _ = committer.enqueue(delete("a"));
    assert_eq!(keys(committer.scan(b"a", b"z", 2).unwrap()), ["b", "bb"]);
    assert_eq!(keys(committer.scan_back(b"a", b"z", 2).unwrap()), ["d", "bb"]);
    assert!(committer.scan(b"z", b"a", 2).unwrap().is_empty());

    committer.cycle().unwrap();
    assert_eq!(keys(committer.store().scan(b"a", b"z", 9).unwrap()), ["b", "bb", "d"]);
    assert_eq!(keys(committer.scan(b"a", b"z", 9).unwrap()), ["b", "bb", "d"]);
}

#[test]
fn cycle_collects_seals_writes_and_releases_in_this_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let committer = Committer::new(Arc::new(Watched {
        inner: MemoryDisk::new().open(),
        log: Arc::clone(&log),
        pause: Duration::ZERO,
    }));
    committer.set_gate(Arc::new(Recorder { log: Arc::clone(&log), adds: Some("manager") }));
    let _ = committer.enqueue(put("a", "1"));
    let _ = committer.enqueue(put("b", "2"));
    assert!(committer.cycle().unwrap());
    assert_eq!(*log.lock(), ["collect", "seal", "write 3", "written", "release"]);
    assert_eq!(committer.get(b"manager").unwrap(), Some(b"snapshot".to_vec()));
    assert_eq!(committer.stats().batches, 1);
    assert_eq!(committer.stats().ops, 3);
}

#[test]
fn outputs_without_writes_are_released_without_a_write() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (disk, committer) = on_memory();
    committer.set_gate(Arc::new(Recorder { log: Arc::clone(&log), adds: None }));
    assert!(!committer.cycle().unwrap());
    assert_eq!(*log.lock(), ["collect", "seal", "release"]);
    assert_eq!(disk.commits(), 0);
}

#[tokio::test]
async fn failed_write_releases_nothing_and_stops_the_cycle() {
    for fault in [DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (disk, committer) = on_memory();
        committer.set_gate(Arc::new(Recorder { log: Arc::clone(&log), adds: None }));
        let first = committer.enqueue(put("a", "1"));
        committer.cycle().unwrap();
        log.lock().clear();
        disk.fault_at(2, fault);
        let second = committer.enqueue(put("b", "2"));
        assert!(committer.cycle().is_err());
        assert_eq!(*log.lock(), ["collect", "seal"]);
        let third = committer.enqueue(put("c", "3"));
        assert!(matches!(committer.cycle(), Err(StoreError::Failed(_))));
        assert_eq!(*log.lock(), ["collect", "seal"], "nothing after a failure");

        committer.durable(first).await.unwrap();
        for ticket in [second, third] {
            let error = committer.durable(ticket).await.unwrap_err();
            assert!(error.to_string().contains("injected"), "{error}");
        }
        assert!(committer.failed().await.contains("injected"));
        // What was never durable stays visible to this process, which is about to end.
        assert_eq!(committer.get(b"b").unwrap(), Some(b"2".to_vec()));
    }
}

#[tokio::test]
async fn tickets_are_redeemed_in_order_and_only_when_durable() {
    let (_, committer) = on_memory();
    let first = committer.enqueue(put("a", "1"));
    let second = committer.enqueue(put("b", "2"));
    assert!(first < second);
    assert_eq!(committer.now(), second);
    let wait = tokio::time::timeout(Duration::from_millis(30), committer.durable(first));
    assert!(wait.await.is_err(), "durable before any cycle");
    committer.cycle().unwrap();
    committer.durable(first).await.unwrap();
    committer.durable(second).await.unwrap();
    let third = committer.enqueue(Batch::default());
    committer.cycle().unwrap();
    committer.durable(third).await.unwrap();
}

#[tokio::test]
async fn stop_writes_what_is_pending_and_refuses_the_rest() {
    let (disk, committer) = on_memory();
    let ticket = committer.enqueue(put("a", "1"));
    committer.stop();
    let thread = committer.run_thread().unwrap();
    committer.durable(ticket).await.unwrap();
    thread.join().unwrap();
    let late = committer.enqueue(put("b", "2"));
    let error = committer.durable(late).await.unwrap_err();
    assert!(error.to_string().contains("stopping"), "{error}");
    disk.cut_power(PowerCut::default());
    let left = disk.open().scan(b"a", b"z", 9).unwrap();
    assert_eq!(keys(left), ["a"]);
}

#[tokio::test]
async fn panic_on_the_commit_thread_is_a_failure_not_a_hang() {
    struct Bomb;
    impl Gate for Bomb {
        fn collect(&self) -> bool {
            true
        }
        fn seal(&self, _: &mut dyn FnMut() -> Batch) -> Batch {
            panic!("bomb");
        }
        fn release(&self) {}
    }
    let (_, committer) = on_memory();
    committer.set_gate(Arc::new(Bomb));
    let thread = committer.run_thread().unwrap();
    let ticket = committer.enqueue(put("a", "1"));
    let wait = tokio::time::timeout(Duration::from_secs(20), committer.durable(ticket));
    let error = wait.await.expect("an answer").unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(committer.failed().await.contains("panicked"));
    assert!(thread.join().is_err());
}

#[tokio::test]
async fn after_giving_up_nothing_becomes_durable() {
    let (disk, committer) = on_memory();
    let thread = committer.run_thread().unwrap();
    committer.durable(committer.enqueue(put("a", "1"))).await.unwrap();
    committer.give_up("a task panicked");
    committer.give_up("another one");
    assert_eq!(committer.failed().await, "a task panicked");
    let ticket = committer.enqueue(put("b", "2"));
    let error = committer.durable(ticket).await.unwrap_err();
    assert!(error.to_string().contains("a task panicked"), "{error}");
    thread.join().unwrap();
    assert_eq!(disk.commits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_share_batches_and_none_waits_for_ever() {
    const WRITERS: u64 = 64;
    const EACH: u64 = 40;
    let disk = MemoryDisk::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let committer = Committer::new(Arc::new(Watched {
        inner: disk.open(),
        log,
        pause: Duration::from_millis(2),
    }));
    let thread = committer.run_thread().unwrap();
    let all = async {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let committer = committer.clone();
                tokio::spawn(async move {
                    for number in 0..EACH {
                        let key = format!("{writer}-{number}");
                        let ticket = committer.enqueue(put(&key, "x"));
                        committer.durable(ticket).await.unwrap();
                        let found = committer.store().get(key.as_bytes()).unwrap();
                        assert!(found.is_some(), "{key} was called durable and is not there");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("no wakeup is lost");
    let stats = committer.stats();
    assert_eq!(stats.ops, WRITERS * EACH);
    assert!(stats.batches * 8 <= stats.ops, "{} batches for {} writes", stats.batches, stats.ops);
    committer.stop();
    thread.join().unwrap();
    disk.cut_power(PowerCut::default());
    let left = disk.open().scan(b"0", b"a", usize::MAX).unwrap();
    assert_eq!(left.len() as u64, WRITERS * EACH);
}

#[test]
fn kicks_from_many_threads_all_lead_to_a_release() {
    struct Counter(AtomicU64, AtomicU64);
    impl Gate for Counter {
        fn collect(&self) -> bool {
            // Outputs made before this moment are among those released below.
            let made = self.0.load(Ordering::SeqCst);
            self.1.swap(made, Ordering::SeqCst) != made
        }
        fn seal(&self, seal: &mut dyn FnMut() -> Batch) -> Batch {
            seal()
        }
        fn release(&self) {}
    }
    let (_, committer) = on_memory();
    let gate = Arc::new(Counter(AtomicU64::new(0), AtomicU64::new(0)));
    committer.set_gate(Arc::clone(&gate) as Arc<dyn Gate>);
    let thread = committer.run_thread().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    gate.0.fetch_add(1, Ordering::SeqCst);
                    committer.kick();
                }
            });
        }
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while gate.1.load(Ordering::SeqCst) < 16_000 {
        assert!(std::time::Instant::now() < deadline, "a kick was lost");
        std::thread::sleep(Duration::from_millis(1));
    }
    committer.stop();
    thread.join().unwrap();
}

#[test]
fn an_output_made_between_collect_and_seal_is_not_left_behind() {
    /// A peer's message is handled, and kicks, just when a cycle has collected.
    struct Late {
        committer: Committer,
        made: AtomicU64,
        collected: AtomicU64,
    }
    impl Gate for Late {
        fn collect(&self) -> bool {
            self.collected.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
            self.made.load(Ordering::SeqCst) > 0
        }
        fn seal(&self, seal: &mut dyn FnMut() -> Batch) -> Batch {
            if self.made.swap(1, Ordering::SeqCst) == 0 {
                self.committer.kick();
            }
            seal()
        }
        fn release(&self) {}
    }
    let (_, committer) = on_memory();
    let gate = Arc::new(Late {
        committer: committer.clone(),
        made: AtomicU64::new(0),
        collected: AtomicU64::new(0),
    });
    committer.set_gate(Arc::clone(&gate) as Arc<dyn Gate>);
    let thread = committer.run_thread().unwrap();
    committer.kick();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while gate.collected.load(Ordering::SeqCst) == 0 {
        assert!(std::time::Instant::now() < deadline, "the output waits for a stranger's kick");
        std::thread::sleep(Duration::from_millis(1));
    }
    committer.stop();
    thread.join().unwrap();
}

#[test]
fn scans_show_one_moment_while_cycles_run() {
    let (_, committer) = on_memory();
    let thread = committer.run_thread().unwrap();
    let write = |round: u64| {
        let mut batch = Batch::default();
        for key in ["a", "b", "c", "d"] {
            batch.put(key.into(), round.to_be_bytes().to_vec());
        }
        let _ = committer.enqueue(batch);
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for backwards in [false, true] {
            let (committer, done) = (&committer, &done);
            scope.spawn(move || {
                let mut newest = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    let pairs = if backwards {
                        committer.scan_back(b"a", b"z", 9).unwrap()
                    } else {
                        committer.scan(b"a", b"z", 9).unwrap()
                    };
                    assert_eq!(pairs.len(), 4);
                    let values: BTreeMap<_, _> = pairs.into_iter().map(|(k, v)| (v, k)).collect();
                    assert_eq!(values.len(), 1, "a scan saw half a batch: {values:?}");
                    let (value, _) = values.into_iter().next().unwrap();
                    assert!(value >= newest, "a scan went back in time");
                    newest = value;
                }
            });
        }
        for round in 1..30_000 {
            write(round);
        }
        done.store(true, Ordering::SeqCst);
    });
    committer.stop();
    thread.join().unwrap();
}

#[test]
fn cycles_on_two_threads_write_in_the_order_of_the_queue() {
    let (disk, committer) = on_memory();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..3_000 {
                    committer.cycle().unwrap();
                }
            });
        }
        for number in 0..3_000_u64 {
            let mut batch = Batch::default();
            batch.put(b"last".to_vec(), number.to_be_bytes().to_vec());
            let _ = committer.enqueue(batch);
        }
    });
    committer.cycle().unwrap();
    disk.cut_power(PowerCut::default());
    let last = disk.open().get(b"last").unwrap();
    assert_eq!(last, Some(2_999_u64.to_be_bytes().to_vec()));
}

/// A gate whose outputs are what the test puts there.
#[derive(Default)]
struct Outbox {
    waiting: AtomicU64,
    released: AtomicU64,
}

impl Gate for Outbox {
    fn collect(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }
    fn seal(&self, seal: &mut dyn FnMut() -> Batch) -> Batch {
        seal()
    }
    fn release(&self) {
        self.released.fetch_add(self.waiting.swap(0, Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// A committer on virtual time whose cycle runs as a task, behind an [`Outbox`].
fn lazily() -> (Committer, Arc<Outbox>, tokio::task::JoinHandle<()>) {
    let (_, committer) = on_memory();
    let outbox = Arc::new(Outbox::default());
    committer.set_gate(Arc::clone(&outbox) as Arc<dyn Gate>);
    let task = tokio::spawn(committer.clone().run_task());
    (committer, outbox, task)
}

/// Lets the cycle do what it does at this moment.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_written_a_little_later_with_one_sync() {
    let (committer, _, task) = lazily();
    for number in 0..5 {
        let _ = committer.enqueue(put(&format!("k{number}"), "x"));
        settle().await;
    }
    assert_eq!(committer.stats().batches, 0);
    tokio::time::sleep(super::commit::LAZY).await;
    settle().await;
    assert_eq!((committer.stats().batches, committer.stats().ops), (1, 5));
    committer.stop();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_output_or_a_caller_who_waits_starts_a_cycle_at_once() {
    let (committer, outbox, task) = lazily();
    let began = tokio::time::Instant::now();
    let _ = committer.enqueue(put("cause", "x"));
    settle().await;
    outbox.waiting.store(1, Ordering::SeqCst);
    committer.kick();
    settle().await;
    assert_eq!((outbox.released.load(Ordering::SeqCst), committer.stats().batches), (1, 1));
    let ticket = committer.enqueue(put("asked for", "x"));
    settle().await;
    assert_eq!(committer.stats().batches, 1);
    committer.durable(ticket).await.unwrap();
    assert_eq!(committer.stats().batches, 2);
    assert_eq!(began.elapsed(), Duration::ZERO);
    committer.stop();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_writes_what_nobody_waits_for() {
    let (committer, _, task) = lazily();
    let _ = committer.enqueue(put("k", "x"));
    settle().await;
    committer.stop();
    task.await.unwrap();
    assert_eq!(committer.stats().ops, 1);
}
