//! What a disk had at one time: a cheater boots from it.

use node::store::{Batch, MemoryDisk, Pair, Store};

/// Above every key of a store.
const LAST_KEY: [u8; 64] = [0xff; 64];

/// A copy of all that is on a disk.
#[derive(Debug, Clone)]
pub struct Image(Vec<Pair>);

impl Image {
    /// Copies `disk`, of which no node runs.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn of(disk: &MemoryDisk) -> Self {
        let pairs = disk.open().scan(&[], &LAST_KEY, usize::MAX);
        Self(pairs.expect("the disk can be read"))
    }

    /// Makes `disk`, of which no node runs, what it was when it was copied.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn put_back(&self, disk: &MemoryDisk) {
        let now = Self::of(disk);
        let store = disk.open();
        let mut writes = Batch { term: store.term(), ..Batch::default() };
        for (key, _) in now.0 {
            writes.delete(key);
        }
        for (key, value) in &self.0 {
            writes.put(key.clone(), value.clone());
        }
        store.commit(&writes).expect("the disk can be written");
    }
}
