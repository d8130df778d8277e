//! What the child writes: batches of known content, from a seed and a number alone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use node::store::{self, Batch, EngineKind, Op, Pair, Store, StoreError, StoreOptions, Table};

/// The state of the store after some batches.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// A small generator of repeatable numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// Returns true once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Returns the writes of batch `number`, counted from 1.
///
/// The mix is a node's: mostly small batches that overwrite a manager, append monitor updates
/// and delete old ones; now and then 200 writes, or values of 64 kB to 1 MB.
pub fn ops(seed: u64, number: u64) -> Vec<Op> {
    let mut numbers = Numbers::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let count = match numbers.below(20) {
        0 => 200,
        1..=4 => 20 + numbers.below(40),
        _ => 1 + numbers.below(8),
    };
    let mut ops = Vec::new();
    for _ in 0..count {
        let slot = numbers.below(400);
        let key = match numbers.below(4) {
            0 => Table::Monitor.key((slot % 40).to_be_bytes()),
            1 => Table::Manager.key([]),
            2 => Table::MonitorUpdate.key(slot.to_be_bytes()),
            _ => Table::Payment.key(slot.to_le_bytes()),
        };
        if numbers.one_in(6) {
            ops.push(Op::Delete { key });
            continue;
        }
        let len = match numbers.below(100) {
            0..=4 => 0,
            5..=9 => 2_000 + numbers.below(6_000),
            _ => numbers.below(400),
        };
        ops.push(Op::Put { key, value: bytes(&mut numbers, len) });
    }
    if numbers.one_in(12) {
        let len = 64_000 + numbers.below(200_000);
        let slot = numbers.below(4);
        ops.push(Op::Put {
            key: Table::Ldk.key(slot.to_be_bytes()),
            value: bytes(&mut numbers, len),
        });
    }
    if numbers.one_in(60) {
        let len = 500_000 + numbers.below(500_000);
        ops.push(Op::Put { key: Table::Ldk.key("graph"), value: bytes(&mut numbers, len) });
    }
    ops
}

/// Bytes that neither compress well nor hold a sector of zeros.
fn bytes(numbers: &mut Numbers, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while (bytes.len() as u64) < len {
        bytes.extend_from_slice(&(numbers.draw() | 1).to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

/// Applies batch `number` to `state`.
pub fn apply(state: &mut State, seed: u64, number: u64) {
    for op in ops(seed, number) {
        match op {
            Op::Put { key, value } => {
                state.insert(key, value);
            }
            Op::Delete { key } => {
                state.remove(&key);
            }
        }
    }
    state.insert(Table::Journal.key("last"), number.to_be_bytes().to_vec());
}

/// Commits batch `number`.
pub fn commit(store: &dyn Store, seed: u64, number: u64) -> Result<(), StoreError> {
    let mut batch = Batch { term: store.term(), ops: ops(seed, number) };
    batch.put(Table::Journal.key("last"), number.to_be_bytes().to_vec());
    store.commit(&batch)
}

/// Opens the store as the suite does: small buffers, so that tables and segments turn over.
pub fn open(dir: &Path, engine: EngineKind) -> Result<Arc<dyn Store>, StoreError> {
    let options = StoreOptions {
        cache_bytes: 8 * 1024 * 1024,
        write_buffer_bytes: 1024 * 1024,
        reserve_bytes: 0,
    };
    store::open(dir, engine, &options)
}

/// Returns everything but the store's own records.
pub fn read(store: &dyn Store) -> Result<Vec<Pair>, StoreError> {
    let mut pairs = Vec::new();
    store.snapshot(&mut |key, value| {
        if Table::Meta.rest(key).is_none() {
            pairs.push((key.to_vec(), value.to_vec()));
        }
        Ok(())
    })?;
    Ok(pairs)
}

/// Returns the number of the last batch in `pairs`, 0 if there is none.
pub fn last_batch(pairs: &[Pair]) -> u64 {
    let key = Table::Journal.key("last");
    pairs
        .iter()
        .find(|(k, _)| *k == key)
        .and_then(|(_, value)| value.as_slice().try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// One run of the child: what it does to the store, in order.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Seed of the batches.
    pub seed: u64,
    /// How many batches to commit before the store is closed and opened again.
    pub first: u64,
    /// How many to commit then.
    pub second: u64,
}

/// Runs the workload on `dir`, writing a line to `marks` before and after each step.
///
/// # Errors
///
/// That of the store or of the marks file.
pub fn run(dir: &Path, engine: EngineKind, run: Run, marks: &Path) -> Result<(), StoreError> {
    let mut marks = OpenOptions::new().append(true).create(true).open(marks)?;
    for count in [run.first, run.second] {
        let store = open(dir, engine)?;
        let mut number = last_batch(&read(&*store)?);
        // What an open store shows must stay, however it came there.
        mark(&mut marks, "ack", number)?;
        for _ in 0..count {
            number += 1;
            mark(&mut marks, "begin", number)?;
            commit(&*store, run.seed, number)?;
            mark(&mut marks, "ack", number)?;
        }
    }
    Ok(())
}

fn mark(file: &mut File, what: &str, number: u64) -> std::io::Result<()> {
    file.write_all(format!("{what} {number}\n").as_bytes())
}
