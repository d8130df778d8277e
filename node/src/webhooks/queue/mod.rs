//! What one endpoint is still to have: which event is due, in which order, and when again.
//!
//! Pure: time and randomness are arguments, and nothing here knows of HTTP or the store. Events
//! of one object make a line: the first is tried until it is delivered or given up, and the others
//! wait; other lines go on. What is durable is the place in the log and the events before it that
//! are not finished; [`Queue::take_changes`] says what has changed since it was last asked.
//!
//! Read `service.rs` for who drives it.

mod retry;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

pub use retry::RetryPolicy;

use super::object::Object;

/// An event that waits, as it is stored beside its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What it is about; events about nothing wait for no other.
    pub object: Option<Object>,
    /// How often it was tried.
    pub tries: u32,
    /// Since when it could have been delivered, in ms since 1970.
    pub since_ms: u64,
    /// When it is tried next, in ms since 1970.
    pub due_ms: u64,
}

/// What became of an event that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It is tried again.
    Again {
        /// When, in ms since 1970.
        due_ms: u64,
    },
    /// It was tried for long enough.
    GivenUp(Pending),
    /// It is not waiting: the queue was changed while it was under way.
    Unknown,
}

/// What is to be written, in one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Everything up to this place in the log is finished or pending.
    pub read_to: u64,
    /// Pending events that are new or have changed.
    pub put: Vec<(u64, Pending)>,
    /// Pending events that are finished.
    pub delete: Vec<u64>,
}

/// One endpoint's queue.
#[derive(Debug, Default)]
pub struct Queue {
    read_to: u64,
    waiting: BTreeMap<u64, Waiting>,
    lines: HashMap<LineName, Line>,
    /// The first of each line that is not under way: when it is due, and its place.
    due: BTreeSet<(u64, u64)>,
    /// What is stored otherwise, or not at all.
    changed: BTreeSet<u64>,
    is_changed: bool,
}

#[derive(Debug)]
struct Waiting {
    pending: Pending,
    is_stored: bool,
}

/// An event about nothing stands in a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum LineName {
    Of(Object),
    Alone(u64),
}

#[derive(Debug, Default)]
struct Line {
    sequences: BTreeSet<u64>,
    flying: Option<u64>,
    /// What stands for it in [`Queue::due`].
    armed: Option<(u64, u64)>,
}

impl Queue {
    /// A queue of an endpoint that gets what comes after `read_to`.
    pub fn new(read_to: u64) -> Self {
        Self { read_to, is_changed: true, ..Self::default() }
    }

    /// The queue that was stored.
    pub fn load(read_to: u64, pending: impl IntoIterator<Item = (u64, Pending)>) -> Self {
        let mut queue = Self { read_to, ..Self::default() };
        for (sequence, pending) in pending {
            queue.insert(sequence, pending, true);
        }
        queue
    }

    /// The place in the log up to which events were taken in.
    pub fn read_to(&self) -> u64 {
        self.read_to
    }

    /// Events that are not finished.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many more events may be taken in when `waiting_max` may wait.
    pub fn room(&self, waiting_max: usize) -> usize {
        waiting_max.saturating_sub(self.waiting.len())
    }

    /// Events that could be tried now, counted up to `enough`.
    pub fn ready(&self, now_ms: u64, enough: usize) -> usize {
        self.due.range(..=(now_ms, u64::MAX)).take(enough).count()
    }

    /// Takes in the next event of the log.
    pub fn push(&mut self, sequence: u64, object: Option<Object>, now_ms: u64) {
        debug_assert!(sequence > self.read_to);
        self.pass(sequence);
        let pending = Pending { object, tries: 0, since_ms: now_ms, due_ms: now_ms };
        self.insert(sequence, pending, false);
    }

    /// Comes past events that the endpoint does not get, up to `sequence`.
    pub fn pass(&mut self, sequence: u64) {
        self.read_to = self.read_to.max(sequence);
        self.is_changed = true;
    }

    /// The event that is to be tried now, if one is due; it is under way from here on.
    pub fn start(&mut self, now_ms: u64) -> Option<u64> {
        let (_, sequence) = *self.due.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
        let name = self.line_of(sequence)?;
        if let Some(line) = self.lines.get_mut(&name) {
            line.flying = Some(sequence);
        }
        self.rearm(name);
        Some(sequence)
    }

    /// When the next event is due, in ms since 1970.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Finishes an event: it was delivered, or there is nothing to deliver. Says whether it waited.
    pub fn finish(&mut self, sequence: u64) -> bool {
        self.remove(sequence).is_some()
    }

    /// Takes note that an event was tried in vain. `asked_ms` is how long the receiver asks to be
    /// left alone.
    pub fn failed(
        &mut self,
        sequence: u64,
        now_ms: u64,
        policy: &RetryPolicy,
        asked_ms: Option<u64>,
        random: u64,
    ) -> Failed {
        let Some(waiting) = self.waiting.get_mut(&sequence) else { return Failed::Unknown };
        let pending = &mut waiting.pending;
        pending.tries = pending.tries.saturating_add(1);
        let gives_up_ms = pending.since_ms.saturating_add(policy.give_up_ms);
        if now_ms >= gives_up_ms {
            return self.remove(sequence).map_or(Failed::Unknown, Failed::GivenUp);
        }
        let wait_ms = policy.wait_ms(pending.tries, asked_ms, random);
        // The last try is at the end of the time, not before it.
        let due_ms = now_ms.saturating_add(wait_ms).min(gives_up_ms);
        pending.due_ms = due_ms;
        self.changed.insert(sequence);
        self.is_changed = true;
        self.land(sequence);
        Failed::Again { due_ms }
    }

    /// Puts an event back that was given up: it is due at once, before later ones of its object.
    /// One that the endpoint has not come to yet is left to come by itself.
    pub fn put_back(&mut self, sequence: u64, object: Option<Object>, now_ms: u64) {
        if sequence <= self.read_to && !self.waiting.contains_key(&sequence) {
            let pending = Pending { object, tries: 0, since_ms: now_ms, due_ms: now_ms };
            self.insert(sequence, pending, false);
        }
    }

    /// Goes back in the log: everything after `to` is taken in anew. Nothing is under way any more.
    pub fn rewind(&mut self, to: u64) {
        self.land_all();
        if to < self.read_to {
            let gone: Vec<u64> =
                self.waiting.range(to + 1..).map(|(sequence, _)| *sequence).collect();
            for sequence in gone {
                self.remove(sequence);
            }
            self.read_to = to;
            self.is_changed = true;
        }
    }

    /// Nothing is under way any more; what was is tried again when it is due.
    pub fn land_all(&mut self) {
        let flying: Vec<u64> = self.lines.values().filter_map(|line| line.flying).collect();
        for sequence in flying {
            self.land(sequence);
        }
    }

    /// Makes everything due at once, as if it had never been tried.
    pub fn begin_anew(&mut self, now_ms: u64) {
        for (sequence, waiting) in &mut self.waiting {
            waiting.pending.tries = 0;
            waiting.pending.since_ms = now_ms;
            waiting.pending.due_ms = now_ms;
            self.changed.insert(*sequence);
        }
        self.is_changed = true;
        let names: Vec<LineName> = self.lines.keys().copied().collect();
        for name in names {
            self.rearm(name);
        }
    }

    /// Whether [`Queue::take_changes`] has something to say.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// What has changed since this was last asked. All of it belongs into one batch.
    pub fn take_changes(&mut self) -> Changes {
        self.is_changed = false;
        let mut changes = Changes { read_to: self.read_to, put: Vec::new(), delete: Vec::new() };
        for sequence in std::mem::take(&mut self.changed) {
            match self.waiting.get_mut(&sequence) {
                Some(waiting) => {
                    waiting.is_stored = true;
                    changes.put.push((sequence, waiting.pending.clone()));
                }
                None => changes.delete.push(sequence),
            }
        }
        changes
    }

    fn line_of(&self, sequence: u64) -> Option<LineName> {
        let waiting = self.waiting.get(&sequence)?;
        Some(waiting.pending.object.map_or(LineName::Alone(sequence), LineName::Of))
    }

    fn insert(&mut self, sequence: u64, pending: Pending, is_stored: bool) {
        let name = pending.object.map_or(LineName::Alone(sequence), LineName::Of);
        self.lines.entry(name).or_default().sequences.insert(sequence);
        // One that left and has come back before that was written is still there in the store.
        let mut stored = is_stored;
        if !is_stored {
            stored = !self.changed.insert(sequence);
            self.is_changed = true;
        }
        self.waiting.insert(sequence, Waiting { pending, is_stored: stored });
        self.rearm(name);
    }

    fn remove(&mut self, sequence: u64) -> Option<Pending> {
        let name = self.line_of(sequence)?;
        let waiting = self.waiting.remove(&sequence)?;
        match waiting.is_stored {
            true => self.changed.insert(sequence),
            // The store never heard of it.
            false => self.changed.remove(&sequence),
        };
        self.is_changed = true;
        if let Some(line) = self.lines.get_mut(&name) {
            line.sequences.remove(&sequence);
            line.flying.take_if(|flying| *flying == sequence);
        }
        self.rearm(name);
        Some(waiting.pending)
    }

    fn land(&mut self, sequence: u64) {
        let Some(name) = self.line_of(sequence) else { return };
        if let Some(line) = self.lines.get_mut(&name) {
            line.flying.take_if(|flying| *flying == sequence);
        }
        self.rearm(name);
    }

    /// Sets what stands for a line among what is due: its first event, unless one is under way.
    fn rearm(&mut self, name: LineName) {
        let Some(line) = self.lines.get_mut(&name) else { return };
        if let Some(armed) = line.armed.take() {
            self.due.remove(&armed);
        }
        let Some(first) = line.sequences.first() else {
            self.lines.remove(&name);
            return;
        };
        if line.flying.is_none()
            && let Some(waiting) = self.waiting.get(first)
        {
            let armed = (waiting.pending.due_ms, *first);
            line.armed = Some(armed);
            self.due.insert(armed);
        }
    }
}

#[cfg(test)]
mod tests;
