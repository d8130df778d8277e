//! A receiver that fails half of the time, and a node that loses power again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use node::journal::DomainEvent;
use node::store::{DiskFault, MemoryDisk};

use crate::receiver::{Mood, Receiver};
use crate::stage::{Stage, event, policy, until};

/// Numbers that repeat.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, by xorshift.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % end
    }

    /// Fails half of the time, in every way there is.
    pub fn mood(&mut self) -> Mood {
        match self.below(12) {
            0 => Mood::Silent(Duration::from_secs(1)),
            1 | 2 => Mood::Drop,
            3 => Mood::Status(500, String::new()),
            4 => Mood::Status(503, "retry-after: 0\r\n".to_owned()),
            5 => Mood::Status(302, "location: http://127.0.0.1:1/\r\n".to_owned()),
            _ => Mood::Take,
        }
    }
}

/// Rounds between two crashes, and events in each.
const ROUNDS: u64 = 12;
const EVENTS: u64 = 25;
/// Payments, channels and the like that the events are about.
const OBJECTS: u64 = 9;

/// Makes a commit of the next few fail, and says whether a power cut keeps what was written.
fn fault(numbers: &mut Numbers, disk: &MemoryDisk) {
    let faults =
        [DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer, DiskFault::Full];
    let commit = disk.commits() + 1 + numbers.below(20);
    disk.fault_at(commit, faults[numbers.below(4) as usize]);
}

async fn life(seed: u64) {
    let mut numbers = Numbers::new(seed);
    let mut policy = policy();
    // So little that the log is longer, and reading waits for room.
    policy.waiting_max = 15;
    policy.concurrency = 4;
    let mut stage = Stage::new(policy).await;
    let mut moods = Numbers::new(seed + 1);
    let receiver = Receiver::new(move |_| moods.mood()).await;
    let (id, secret) = stage.endpoint(&receiver.url()).await;
    let mut crashes = 0;
    for _ in 0..ROUNDS {
        if numbers.below(3) > 0 {
            fault(&mut numbers, &stage.disk);
        }
        let mut has_failed = false;
        for _ in 0..EVENTS {
            let object = numbers.below(OBJECTS) as u8;
            has_failed |= stage.append(&[event(object)]).await.is_err();
            tokio::time::sleep(Duration::from_millis(numbers.below(8))).await;
        }
        stage.disk.set_capacity(None);
        if has_failed || numbers.below(2) == 0 {
            stage.crash(numbers.below(3) as usize).await;
            crashes += 1;
        } else if numbers.below(2) == 0 {
            stage.stop().await;
            stage.disk.clear_faults();
            stage.start();
        }
    }
    assert!(crashes > 2, "only {crashes} crashes");
    stage.disk.clear_faults();
    stage.crash(0).await;

    // The log says what there is to hear: an event whose write failed is in it or not.
    let objects: BTreeMap<u64, u8> = stage
        .log()
        .iter()
        .filter_map(|entry| match &entry.event {
            DomainEvent::Swap(event) => Some((entry.sequence, event.swap.0[0])),
            _ => None,
        })
        .collect();
    assert!(objects.len() as u64 > ROUNDS * EVENTS / 5, "{} events", objects.len());
    until("everything at the receiver", || receiver.events().len() == objects.len()).await;
    let events = receiver.events();
    let mut sorted = events.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, objects.keys().copied().collect::<Vec<_>>());
    let mut last = BTreeMap::new();
    for sequence in &events {
        if let Some(before) = last.insert(objects[sequence], *sequence) {
            assert!(before < *sequence, "{sequence} came after {before}: {events:?}");
        }
    }
    receiver.check(&secret.reveal());
    // It failed, and crashes made it hear some twice.
    assert!(receiver.heard().len() > receiver.taken().len());
    until("an empty queue", || stage.view(id).waiting == 0 && stage.view(id).behind == 0).await;
    stage.stop().await;
    // What is written down says the same.
    let heard = receiver.heard().len();
    stage.start();
    assert_eq!(stage.view(id).waiting, 0);
    stage.append(&[event(0)]).await.unwrap();
    until("one more", || receiver.events().len() == objects.len() + 1).await;
    let news: Vec<u64> = receiver.heard()[heard..].iter().map(|one| one.sequence()).collect();
    assert!(news.iter().all(|sequence| *sequence > sorted[sorted.len() - 1]), "{news:?}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_in_order_of_its_object_whatever_fails() {
    for seed in [11, 12, 13] {
        life(seed).await;
    }
}
