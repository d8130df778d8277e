//! Who reads the log of events as it grows, and how far each has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The subscribers of a node.
#[derive(Debug, Default)]
pub struct Subscribers {
    next: AtomicU64,
    /// The last event each was given.
    places: Mutex<BTreeMap<u64, Arc<AtomicU64>>>,
}

/// One subscriber. It leaves when it is dropped.
#[derive(Debug)]
pub struct Subscriber {
    number: u64,
    place: Arc<AtomicU64>,
    all: Arc<Subscribers>,
}

impl Subscribers {
    /// Lets one in that begins after `sequence`.
    pub fn enter(self: &Arc<Self>, sequence: u64) -> Subscriber {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(AtomicU64::new(sequence));
        self.places.lock().insert(number, Arc::clone(&place));
        Subscriber { number, place, all: Arc::clone(self) }
    }

    /// How many there are, and how far the slowest has come.
    pub fn look(&self) -> (usize, Option<u64>) {
        let places = self.places.lock();
        let slowest = places.values().map(|place| place.load(Ordering::Relaxed)).min();
        (places.len(), slowest)
    }
}

impl Subscriber {
    /// It was given everything up to `sequence`.
    pub fn reached(&self, sequence: u64) {
        self.place.store(sequence, Ordering::Relaxed);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.all.places.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_counts_until_it_leaves() {
        let all = Arc::new(Subscribers::default());
        assert_eq!(all.look(), (0, None));
        let slow = all.enter(3);
        let quick = all.enter(3);
        quick.reached(9);
        assert_eq!(all.look(), (2, Some(3)));
        drop(slow);
        assert_eq!(all.look(), (1, Some(9)));
    }
}
