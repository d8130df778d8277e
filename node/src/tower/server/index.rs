//! Which appointments wait for a transaction: a table in memory, 17 to 39 bytes for each.
//!
//! An entry is a hash of the locator and the appointment's number. Two locators may share a hash,
//! so a hit is a reason to look at the store, not an answer. The hash is keyed: clients choose
//! their locators, and one that makes many of a kind slows nobody down. The table is cut into
//! shards that grow one by one: growing never holds all of it twice.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use channel_contracts::tower::Locator;
use hashbrown::HashTable;

/// So many tables; each has its place in the top bits of a locator's hash.
const SHARDS: usize = 256;

/// The table.
pub struct LocatorIndex {
    shards: Vec<HashTable<Entry>>,
    len: u64,
    key: RandomState,
}

#[derive(Clone, Copy)]
struct Entry {
    tag: u64,
    number: u64,
}

impl LocatorIndex {
    /// Makes an empty one.
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        Self { shards, len: 0, key: RandomState::new() }
    }

    /// How many appointments it knows.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that its tables take.
    pub fn bytes(&self) -> u64 {
        let buckets: usize = self.shards.iter().map(HashTable::num_buckets).sum();
        buckets as u64 * (size_of::<Entry>() as u64 + 1)
    }

    /// Adds the appointment `number` under `locator`.
    pub fn insert(&mut self, locator: &Locator, number: u64) {
        let entry = Entry { tag: self.tag(locator), number };
        self.shard(entry.tag).insert_unique(entry.tag, entry, |entry| entry.tag);
        self.len += 1;
    }

    /// Removes it; nothing happens if it is not there.
    pub fn remove(&mut self, locator: &Locator, number: u64) {
        let tag = self.tag(locator);
        let shard = self.shard(tag);
        if let Ok(found) = shard.find_entry(tag, |e| e.tag == tag && e.number == number) {
            found.remove();
            self.len -= 1;
        }
    }

    /// Whether anything may be under `locator`.
    pub fn is_known(&self, locator: &Locator) -> bool {
        let tag = self.tag(locator);
        self.shards[place(tag)].find(tag, |entry| entry.tag == tag).is_some()
    }

    /// The numbers of appointments that may be under `locator`.
    pub fn candidates(&self, locator: &Locator) -> Vec<u64> {
        let tag = self.tag(locator);
        let shard = &self.shards[place(tag)];
        let same = shard.iter_hash(tag).filter(|entry| entry.tag == tag);
        let mut numbers: Vec<u64> = same.map(|entry| entry.number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn tag(&self, locator: &Locator) -> u64 {
        self.key.hash_one(locator.0)
    }

    fn shard(&mut self, tag: u64) -> &mut HashTable<Entry> {
        &mut self.shards[place(tag)]
    }
}

impl Default for LocatorIndex {
    fn default() -> Self {
        Self::new()
    }
}

/// Bits that the tables themselves do not look at first.
fn place(tag: u64) -> usize {
    (tag >> 24) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(number: u64) -> Locator {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        Locator(bytes)
    }

    #[test]
    fn what_was_added_is_found_until_it_is_removed() {
        let mut index = LocatorIndex::new();
        for number in 0..10_000_u64 {
            index.insert(&locator(number), number);
        }
        for number in 0..10_000_u64 {
            let locator = locator(number);
            assert_eq!(index.candidates(&locator), [number]);
            index.remove(&locator, number);
            assert_eq!(index.candidates(&locator), [0_u64; 0]);
            index.remove(&locator, number);
        }
        assert!(index.is_empty());
    }

    #[test]
    fn several_appointments_share_a_locator() {
        let mut index = LocatorIndex::new();
        index.insert(&locator(7), 3);
        index.insert(&locator(7), 1);
        index.insert(&locator(8), 2);
        assert_eq!(index.candidates(&locator(7)), [1, 3]);
        index.remove(&locator(7), 3);
        assert_eq!(index.candidates(&locator(7)), [1]);
    }

    #[test]
    fn an_entry_takes_at_most_forty_bytes() {
        let mut index = LocatorIndex::new();
        for number in 0..1_000_000_u64 {
            index.insert(&locator(number), number);
        }
        assert!(index.bytes() <= 40 * index.len(), "{} bytes", index.bytes());
    }
}
