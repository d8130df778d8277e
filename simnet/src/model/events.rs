//! What is going to happen, by time; what is due at one moment happens in the order of asking.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::graph::Lane;
use crate::topology::Node;

/// A part of a payment: its place and how often that was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartRef {
    pub place: u32,
    pub generation: u32,
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// An HTLC is irrevocably committed at the end of its hop.
    Locked { part: PartRef, hop: u8 },
    /// The preimage reaches the start of a hop.
    Fulfilled { part: PartRef, hop: u8 },
    /// A failed HTLC is irrevocably removed at the start of its hop.
    Failed { part: PartRef, hop: u8 },
    /// A fulfilled HTLC leaves a lane: its amount is the other side's.
    Removed { lane: Lane, amount_msat: u64 },
    /// The receiver takes a payment.
    Settle { payment: u32, generation: u32 },
    /// The receiver has waited long enough for the other parts.
    Impatient { part: PartRef },
    /// An HTLC reaches its expiry.
    Expiry { part: PartRef, hop: u8 },
    /// A node that comes and goes does so.
    Toggle { node: Node },
    /// An absence begins.
    Leave { node: Node },
    /// An absence ends.
    Return { node: Node },
    /// Time for a sample.
    Sample,
    /// A block.
    Block,
    /// A fault of batches, by its place.
    Fault { place: u32 },
}

struct Entry {
    at_us: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The standard heap gives the greatest first: that is the earliest here.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.sequence).cmp(&(self.at_us, self.sequence))
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    sequence: u64,
}

impl Queue {
    pub fn push(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.heap.push(Entry { at_us, sequence: self.sequence, event });
    }

    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at_us)
    }

    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|entry| (entry.at_us, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut queue = Queue::default();
        for node in 0..100 {
            queue.push(5, Event::Toggle { node });
        }
        queue.push(4, Event::Sample);
        assert_eq!(queue.pop(), Some((4, Event::Sample)));
        for node in 0..100 {
            assert_eq!(queue.pop(), Some((5, Event::Toggle { node })));
        }
        assert_eq!(queue.pop(), None);
    }
}
