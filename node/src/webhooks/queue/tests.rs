//! The queue against a simple model, over crashes and ways back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::journal::EndpointId;

const POLICY: RetryPolicy = RetryPolicy { first_ms: 10, longest_ms: 100, give_up_ms: 1_000 };
/// Most that wait in a property test.
const WAITING_MAX: usize = 6;
/// Objects of a property test; a number above stands for an event about nothing.
const OBJECTS: u8 = 3;

fn object(number: u8) -> Option<Object> {
    (number < OBJECTS).then_some(Object::Endpoint(EndpointId([number; 16])))
}

fn failed(queue: &mut Queue, sequence: u64, now_ms: u64) -> Failed {
    queue.failed(sequence, now_ms, &POLICY, None, 7)
}

#[test]
fn a_later_event_of_an_object_waits_and_other_objects_go_on() {
    let mut queue = Queue::new(0);
    for (sequence, number) in [(1, 0), (2, 0), (3, 1), (4, 9), (5, 9)] {
        queue.push(sequence, object(number), 0);
    }
    assert_eq!(queue.ready(0, 9), 4);
    let started: Vec<u64> = std::iter::from_fn(|| queue.start(0)).collect();
    assert_eq!(started, [1, 3, 4, 5], "events about nothing wait for no other");
    let Failed::Again { due_ms } = failed(&mut queue, 1, 0) else { panic!("tried again") };
    assert_eq!(queue.start(due_ms - 1), None);
    assert_eq!(queue.start(due_ms), Some(1));
    assert!(queue.finish(1));
    assert_eq!(queue.start(due_ms), Some(2));
    assert!(!queue.finish(1), "it is finished already");
}

#[test]
fn an_event_is_tried_a_last_time_at_the_end_of_its_time_and_then_given_up() {
    let mut queue = Queue::new(0);
    queue.push(1, object(0), 500);
    queue.push(2, object(0), 900);
    let mut now_ms = 500;
    let mut tries = 0;
    let given_up = loop {
        assert_eq!(queue.start(now_ms), Some(1));
        tries += 1;
        match failed(&mut queue, 1, now_ms) {
            Failed::Again { due_ms } => now_ms = due_ms,
            Failed::GivenUp(pending) => break pending,
            Failed::Unknown => panic!("it waits"),
        }
    };
    assert_eq!((now_ms, given_up.tries), (1_500, tries));
    assert_eq!(queue.start(now_ms), Some(2), "the next of the object has its turn");
    assert!(matches!(failed(&mut queue, 2, now_ms), Failed::Again { due_ms } if due_ms <= 1_900));
}

#[test]
fn what_was_given_up_comes_back_before_later_events_of_its_object() {
    let mut queue = Queue::new(0);
    for sequence in 1..=3 {
        queue.push(sequence, object(0), 0);
    }
    assert_eq!(queue.start(0), Some(1));
    assert!(matches!(failed(&mut queue, 1, 5_000), Failed::GivenUp(_)));
    assert_eq!(queue.start(5_000), Some(2));
    queue.put_back(1, object(0), 5_000);
    queue.put_back(4, object(0), 5_000);
    assert_eq!(queue.start(5_000), None, "one of the object is under way");
    queue.finish(2);
    assert_eq!(queue.start(5_000), Some(1));
    queue.finish(1);
    assert_eq!(queue.start(5_000), Some(3));
    queue.finish(3);
    assert_eq!(queue.len(), 0, "what is yet to come comes by itself");
}

#[test]
fn an_endpoint_that_is_enabled_again_is_tried_at_once() {
    let mut queue = Queue::new(0);
    queue.push(1, object(0), 0);
    assert_eq!(queue.start(0), Some(1));
    failed(&mut queue, 1, 0);
    queue.begin_anew(2_000);
    assert_eq!(queue.start(2_000), Some(1));
    assert!(matches!(failed(&mut queue, 1, 2_500), Failed::Again { .. }), "its time begins anew");
}

#[test]
fn what_was_delivered_before_it_was_written_is_never_written() {
    let mut queue = Queue::new(0);
    queue.push(1, object(0), 0);
    queue.start(0);
    queue.finish(1);
    assert!(queue.is_changed());
    let changes = queue.take_changes();
    assert_eq!(changes, Changes { read_to: 1, put: vec![], delete: vec![] });
    assert!(!queue.is_changed());
}

#[test]
fn what_came_back_before_its_end_was_written_is_still_deleted_in_the_end() {
    let mut queue = Queue::new(0);
    queue.push(1, object(0), 0);
    queue.take_changes();
    queue.rewind(0);
    queue.push(1, object(0), 0);
    queue.start(0);
    queue.finish(1);
    let changes = queue.take_changes();
    assert_eq!(changes, Changes { read_to: 1, put: vec![], delete: vec![1] });
}

/// One step of a life.
#[derive(Debug, Clone)]
enum Step {
    Read,
    Start,
    Deliver(usize),
    Fail(usize),
    Pass(u64),
    Write,
    Crash,
    Rewind(usize),
    BeginAnew,
    PutBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Read),
        6 => Just(Step::Start),
        4 => any::<usize>().prop_map(Step::Deliver),
        3 => any::<usize>().prop_map(Step::Fail),
        2 => (0_u64..400).prop_map(Step::Pass),
        3 => Just(Step::Write),
        1 => Just(Step::Crash),
        1 => any::<usize>().prop_map(Step::Rewind),
        1 => Just(Step::BeginAnew),
        1 => Just(Step::PutBack),
    ];
    prop::collection::vec(step, 1..200)
}

/// The log, what is durable, and what the receiver has.
struct World {
    log: Vec<u8>,
    queue: Queue,
    flying: BTreeSet<u64>,
    durable: (u64, BTreeMap<u64, Pending>),
    /// First deliveries and what was given up, in order.
    finished: Vec<u64>,
    dead: BTreeMap<u64, Option<Object>>,
    now_ms: u64,
}

impl World {
    fn new(log: Vec<u8>) -> Self {
        Self {
            log,
            queue: Queue::new(0),
            flying: BTreeSet::new(),
            durable: (0, BTreeMap::new()),
            finished: Vec::new(),
            dead: BTreeMap::new(),
            now_ms: 0,
        }
    }

    fn object(&self, sequence: u64) -> Option<Object> {
        object(self.log[sequence as usize - 1])
    }

    fn read(&mut self) {
        let next = self.queue.read_to() + 1;
        if next <= self.log.len() as u64 && self.queue.room(WAITING_MAX) > 0 {
            self.queue.push(next, self.object(next), self.now_ms);
        }
    }

    fn start(&mut self) {
        let Some(sequence) = self.queue.start(self.now_ms) else { return };
        assert!(self.flying.insert(sequence), "{sequence} is under way already");
        if let Some(object) = self.object(sequence) {
            let same = |other: &&u64| self.object(**other) == Some(object);
            assert_eq!(self.flying.iter().filter(same).count(), 1, "one of an object at a time");
            let waiting = self.queue.waiting.keys().find(same);
            assert_eq!(waiting, Some(&sequence), "an earlier one waits");
        }
    }

    fn finish(&mut self, sequence: u64) {
        if !self.finished.contains(&sequence) {
            self.finished.push(sequence);
        }
    }

    /// Lands one of those under way.
    fn pick(&mut self, which: usize) -> Option<u64> {
        let nth = which.checked_rem(self.flying.len())?;
        let sequence = *self.flying.iter().nth(nth)?;
        self.flying.remove(&sequence);
        Some(sequence)
    }

    fn write(&mut self) {
        let changes = self.queue.take_changes();
        self.durable.0 = changes.read_to;
        self.durable.1.extend(changes.put);
        for sequence in changes.delete {
            assert!(self.durable.1.remove(&sequence).is_some(), "{sequence} was never written");
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Read => self.read(),
            Step::Start => self.start(),
            Step::Deliver(which) => {
                if let Some(sequence) = self.pick(*which) {
                    assert!(self.queue.finish(sequence));
                    self.finish(sequence);
                }
            }
            Step::Fail(which) => {
                let Some(sequence) = self.pick(*which) else { return };
                match failed(&mut self.queue, sequence, self.now_ms) {
                    Failed::Again { due_ms } => assert!(due_ms > self.now_ms),
                    Failed::GivenUp(pending) => {
                        self.finish(sequence);
                        self.dead.insert(sequence, pending.object);
                    }
                    Failed::Unknown => panic!("{sequence} was under way"),
                }
            }
            Step::Pass(ms) => self.now_ms += ms,
            Step::Write => self.write(),
            Step::Crash => {
                self.flying.clear();
                self.queue = Queue::load(self.durable.0, self.durable.1.clone());
            }
            Step::Rewind(to) => {
                self.queue.rewind((to % (self.log.len() + 1)) as u64);
                self.flying.clear();
            }
            Step::BeginAnew => {
                self.queue.land_all();
                self.flying.clear();
                self.queue.begin_anew(self.now_ms);
            }
            Step::PutBack => {
                for (sequence, object) in std::mem::take(&mut self.dead) {
                    self.queue.put_back(sequence, object, self.now_ms);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        // What was given up and put back comes on top.
        assert!(self.queue.len() <= WAITING_MAX + self.finished.len());
        for sequence in 1..=self.durable.0 {
            let is_known = self.finished.contains(&sequence);
            assert!(is_known || self.durable.1.contains_key(&sequence), "{sequence} is lost");
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_each_object_keeps_its_order(
        log in prop::collection::vec(0..OBJECTS + 2, 1..30),
        steps in steps(),
    ) {
        let mut world = World::new(log);
        for step in &steps {
            world.step(step);
        }
        // A receiver that works from now on.
        world.step(&Step::Crash);
        for _ in 0..20 * world.log.len() {
            world.step(&Step::Read);
            world.step(&Step::Start);
            world.step(&Step::Deliver(0));
            world.step(&Step::Write);
            world.step(&Step::Pass(100));
        }
        prop_assert_eq!(world.queue.len(), 0);
        prop_assert_eq!(world.durable.0, world.log.len() as u64);
        prop_assert!(world.durable.1.is_empty());
        let mut last: BTreeMap<u8, u64> = BTreeMap::new();
        for sequence in &world.finished {
            let number = world.log[*sequence as usize - 1];
            if number < OBJECTS {
                let before = last.insert(number, *sequence);
                prop_assert!(before.is_none_or(|before| before < *sequence), "{sequence}");
            }
        }
        prop_assert_eq!(world.finished.len(), world.log.len());
    }
}
