//! What a follower has seen, and whether that is the truth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::v1::EventKind;
use tokio::sync::watch;

use crate::truth::{Fact, Truth};

/// How long a follower that has everything listens for more.
pub const LISTEN_ON: Duration = Duration::from_millis(500);
/// Most complaints about one follower.
const WRONG_MAX: usize = 4;

/// The truth, once the load is over.
pub type Goal = watch::Receiver<Option<Arc<Truth>>>;

/// In which form events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Wire,
    Json,
}

/// One subscriber over all of its streams.
pub struct Follower {
    pub name: &'static str,
    pub kinds: Vec<EventKind>,
    form: Form,
    seen: Mutex<Seen>,
    /// Streams that were opened.
    pub streams: AtomicU64,
    /// Streams that it let go of.
    pub dropped: AtomicU64,
    /// Streams that broke.
    pub broken: AtomicU64,
}

#[derive(Default)]
struct Seen {
    /// Sequence and digest, as they came.
    events: Vec<(u64, u64)>,
    /// Events of channels in words.
    texts: BTreeMap<u64, String>,
    wrong: Vec<String>,
}

impl Follower {
    pub fn new(name: &'static str, form: Form, kinds: &[EventKind]) -> Arc<Self> {
        Arc::new(Self {
            name,
            kinds: kinds.to_vec(),
            form,
            seen: Mutex::default(),
            streams: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        })
    }

    /// Takes in an event. `text` is kept for what may have to be shown.
    pub fn process(&self, sequence: u64, digest: u64, text: Option<String>) {
        let mut seen = self.seen.lock().unwrap();
        seen.events.push((sequence, digest));
        if let Some(text) = text {
            seen.texts.entry(sequence).or_insert(text);
        }
    }

    /// The last event it has processed; 0 if none.
    pub fn last(&self) -> u64 {
        self.seen.lock().unwrap().events.last().map_or(0, |(sequence, _)| *sequence)
    }

    /// How many events it has processed.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().events.len()
    }

    /// Something that must not be.
    pub fn complain(&self, what: String) {
        let mut seen = self.seen.lock().unwrap();
        if seen.wrong.len() < WRONG_MAX {
            seen.wrong.push(what);
        }
    }

    /// Whether it has come to the end of the truth.
    pub fn is_done(&self, goal: &Goal) -> bool {
        let truth = goal.borrow();
        truth.as_ref().is_some_and(|truth| {
            self.last() >= truth.of(&self.kinds).last().map_or(0, |fact| fact.sequence)
        })
    }

    pub fn count_up(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn expected(&self, fact: &Fact) -> u64 {
        match self.form {
            Form::Wire => fact.wire,
            Form::Json => fact.json,
        }
    }

    /// Compares what it saw with the truth: each event of its kinds once, in order, and the same.
    pub fn judge(&self, truth: &Truth) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mut wrong = seen.wrong.clone();
        // What came after the truth was read is not judged.
        let mut events = seen.events.iter().filter(|(sequence, _)| *sequence <= truth.last());
        let mut before = 0;
        for fact in truth.of(&self.kinds) {
            let Some((sequence, digest)) = events.next() else {
                wrong.push(format!("{} and what follows did not come", fact.sequence));
                break;
            };
            if *sequence != fact.sequence {
                let expected = fact.sequence;
                wrong.push(format!("after {before} came {sequence} instead of {expected}"));
                break;
            }
            before = *sequence;
            if *digest != self.expected(fact) && wrong.len() < WRONG_MAX {
                let text = |text: Option<&String>| text.cloned().unwrap_or_default();
                let told = text(seen.texts.get(sequence));
                let is = truth.texts.get(sequence).map(|texts| &texts[self.form as usize]);
                let is = text(is);
                wrong.push(format!("{sequence} was told as\n{told}\nand now is\n{is}\n"));
            }
        }
        if wrong.is_empty() && events.next().is_some() {
            wrong.push("more came than there is".to_owned());
        }
        wrong.into_iter().map(|what| format!("{}: {what}", self.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> Truth {
        let fact = |sequence, kind| Fact {
            sequence,
            kind,
            wire: sequence * 10,
            json: sequence * 100,
            object: None,
            is_told: true,
        };
        let facts = vec![
            fact(1, EventKind::Node),
            fact(2, EventKind::Payment),
            fact(3, EventKind::Channel),
            fact(4, EventKind::Payment),
        ];
        Truth { facts, texts: BTreeMap::new(), counts: BTreeMap::new() }
    }

    fn judged(kinds: &[EventKind], events: &[(u64, u64)]) -> Vec<String> {
        let follower = Follower::new("it", Form::Wire, kinds);
        for (sequence, digest) in events {
            follower.process(*sequence, *digest, None);
        }
        follower.judge(&truth())
    }

    #[test]
    fn only_the_truth_is_true() {
        let all = [(1, 10), (2, 20), (3, 30), (4, 40)];
        assert_eq!(judged(&[], &all), [""; 0]);
        assert_eq!(judged(&[EventKind::Payment], &[(2, 20), (4, 40)]), [""; 0]);
        assert_eq!(judged(&[], &[(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]), [""; 0]);
        for wrong in [
            &[(1, 10), (2, 20), (3, 30)][..],
            &[(1, 10), (3, 30), (4, 40)],
            &[(1, 10), (2, 20), (2, 20), (3, 30), (4, 40)],
            &[(2, 20), (1, 10), (3, 30), (4, 40)],
            &[(1, 10), (2, 20), (3, 31), (4, 40)],
            &[(1, 10), (2, 20), (3, 30), (4, 40), (4, 40)],
        ] {
            assert_eq!(judged(&[], wrong).len(), 1, "{wrong:?}");
        }
        assert_eq!(judged(&[EventKind::Payment], &all).len(), 1);
    }
}
