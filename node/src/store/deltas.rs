//! One large value kept as a full copy and the differences since, so that a write costs what
//! changed and not what is there.
//!
//! LDK's channel manager is one value of some kilobytes per channel, and every commit cycle in
//! which it changed must write it. Both the last and the next value are cut into chunks where
//! their content says so (FastCDC): an insertion moves the cuts around it and leaves all others.
//! Chunks found in both are anchors, anchors are widened byte by byte, and what is left between
//! them is the difference. It is one record of the caller's batch. Where a chunk of the last value
//! is there as it was, and what is read behind a cut too, so is the cut: cuts are looked for where
//! something changed, and nowhere else. When the differences weigh [`FULL_AFTER`] times the value,
//! the value is written anew and they are deleted, so that bytes written stay within a constant
//! factor of bytes changed.
//!
//! ```text
//! full  = sequence u64 · xxh3 of the value u64 · value
//! delta = xxh3 of the new value u64 · step*
//! step  = 0 · from u32 · length u32     bytes of the last value
//!       | 1 · length u32 · bytes        new bytes
//! ```
//!
//! Integers are big endian. A delta's key is its sequence number; the first follows the full
//! value's.

use std::collections::HashMap;
use std::ops::Range;

use fastcdc::v2020::FastCDC;
use twox_hash::XxHash3_64;

use super::{Batch, Committer, StoreError, Table};

/// How often the differences may outweigh the value before it is written in full.
const FULL_AFTER: usize = 4;
/// A small value may have this many bytes of differences all the same.
const FULL_AFTER_MIN: usize = 64 * 1024;
/// Least, average and most bytes of a chunk.
const CHUNK: (usize, usize, usize) = (128, 512, 2_048);
/// How many bytes behind a cut decide on it: those are read two by two.
const CUT_READS: usize = 2;

const COPY: u8 = 0;
const INSERT: u8 = 1;

/// A value and its differences: what is on disk, or in the batch that is about to be.
pub struct Deltas {
    full: Vec<u8>,
    table: Table,
    /// The last value.
    value: Vec<u8>,
    /// The buffer of the value before it: keeps its capacity for the next.
    spare: Vec<u8>,
    /// The chunks of `value`, in order.
    chunks: Vec<Chunk>,
    /// Where in `chunks` content with a hash is. The hash only finds candidates: bytes decide.
    index: HashMap<u64, usize>,
    /// Sequence number of the last record; `None` before the first.
    last: Option<u64>,
    /// Sequence number of the full value.
    base: u64,
    /// Bytes of the differences since.
    weight: usize,
}

impl Deltas {
    /// Reads the value whose full copy is at key `full` and whose differences are in `table`;
    /// `None` beside it if there is none yet.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or what is read is not what was written.
    pub fn load(
        committer: &Committer,
        full: Vec<u8>,
        table: Table,
    ) -> Result<(Self, Option<Vec<u8>>), StoreError> {
        let corrupt = |detail: String| {
            StoreError::Corrupt(format!("value {}: {detail}", String::from_utf8_lossy(&full)))
        };
        let Some(found) = committer.get(&full)? else {
            return Ok((Self::empty(full, table), None));
        };
        let (base, checksum, bytes) = found
            .split_first_chunk::<8>()
            .and_then(|(base, rest)| Some((base, rest.split_first_chunk::<8>()?)))
            .map(|(base, (checksum, bytes))| {
                (u64::from_be_bytes(*base), u64::from_be_bytes(*checksum), bytes)
            })
            .ok_or_else(|| corrupt("its full copy is cut short".into()))?;
        if XxHash3_64::oneshot(bytes) != checksum {
            return Err(corrupt("its full copy is not what was written".into()));
        }
        let (mut value, mut last, mut weight) = (bytes.to_vec(), base, 0);
        for (key, delta) in committer.scan_all(table, [])? {
            let sequence = table.rest(&key).and_then(|rest| rest.try_into().ok());
            if sequence.map(u64::from_be_bytes) != Some(last + 1) {
                return Err(corrupt(format!("difference {} is missing", last + 1)));
            }
            last += 1;
            weight += delta.len();
            value = apply(&value, &delta)
                .ok_or_else(|| corrupt(format!("difference {last} is not what was written")))?;
        }
        let mut loaded = Self { last: Some(last), base, weight, ..Self::empty(full, table) };
        let chunks = loaded.cut(&value);
        loaded.keep(value.clone(), chunks);
        Ok((loaded, Some(value)))
    }

    fn empty(full: Vec<u8>, table: Table) -> Self {
        Self {
            full,
            table,
            value: Vec::new(),
            spare: Vec::new(),
            chunks: Vec::new(),
            index: HashMap::new(),
            last: None,
            base: 0,
            weight: 0,
        }
    }

    /// An empty buffer for the next value, as large as values have been.
    pub fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Puts `value` in the place of the last one: into `batch` goes what differs.
    pub fn replace(&mut self, value: Vec<u8>, batch: &mut Batch) {
        let sequence = self.last.map_or(0, |last| last + 1);
        let chunks = self.cut(&value);
        let delta = self.last.map(|_| encode(&self.differences(&value, &chunks), &value));
        let heaviest = (value.len() * FULL_AFTER).max(FULL_AFTER_MIN);
        match delta {
            Some(delta) if self.weight + delta.len() <= heaviest => {
                self.weight += delta.len();
                batch.put(self.table.key(sequence.to_be_bytes()), delta);
            }
            _ => {
                let mut full = Vec::with_capacity(16 + value.len());
                full.extend_from_slice(&sequence.to_be_bytes());
                full.extend_from_slice(&XxHash3_64::oneshot(&value).to_be_bytes());
                full.extend_from_slice(&value);
                batch.put(self.full.clone(), full);
                for old in self.base + 1..sequence {
                    batch.delete(self.table.key(old.to_be_bytes()));
                }
                (self.base, self.weight) = (sequence, 0);
            }
        }
        self.last = Some(sequence);
        self.keep(value, chunks);
    }

    fn keep(&mut self, value: Vec<u8>, chunks: Vec<Chunk>) {
        self.index.clear();
        self.index.extend(chunks.iter().enumerate().map(|(place, chunk)| (chunk.hash, place)));
        self.chunks = chunks;
        self.spare = std::mem::replace(&mut self.value, value);
        self.spare.clear();
    }

    /// The chunks of `value`, in order: those that [`FastCDC`] gives.
    fn cut(&self, value: &[u8]) -> Vec<Chunk> {
        let (least, average, most) = CHUNK;
        let cutter = FastCDC::new(value, least, average, most);
        let mut chunks = Vec::with_capacity(self.chunks.len() + 8);
        let mut begin = 0;
        // The chunk of the last value that may follow here.
        let mut place = 0;
        while begin < value.len() {
            let last = self.chunks.get(place).filter(|last| {
                let read = self.value.get(last.at.start..last.at.end + CUT_READS);
                read.is_some_and(|read| value[begin..].starts_with(read))
            });
            let (hash, end) = match last {
                Some(last) => (last.hash, begin + last.at.len()),
                None => {
                    let (_, end) = cutter.cut(begin, value.len() - begin);
                    (XxHash3_64::oneshot(&value[begin..end]), end)
                }
            };
            place = match last {
                Some(_) => place + 1,
                None => self.index.get(&hash).map_or(self.chunks.len(), |found| found + 1),
            };
            chunks.push(Chunk { hash, at: begin..end });
            begin = end;
        }
        chunks
    }

    fn start_of(&self, hash: u64) -> Option<usize> {
        self.index.get(&hash).map(|place| self.chunks[*place].at.start)
    }

    /// What makes `value`, cut into `chunks`, out of the last value.
    fn differences(&self, value: &[u8], chunks: &[Chunk]) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for Chunk { hash, at } in chunks {
            let content = &value[at.clone()];
            let same =
                |from: usize| self.value.get(from..).is_some_and(|last| last.starts_with(content));
            match steps.last_mut() {
                // What follows the last copy first: equal chunks are many.
                Some(Step::Copy(from)) if same(from.end) => from.end += content.len(),
                last => match (self.start_of(*hash).filter(|from| same(*from)), last) {
                    (Some(from), _) => steps.push(Step::Copy(from..from + content.len())),
                    (None, Some(Step::Insert(new))) => new.end = at.end,
                    (None, _) => steps.push(Step::Insert(at.clone())),
                },
            }
        }
        for index in 0..steps.len() {
            let Step::Insert(mut new) = steps[index].clone() else {
                continue;
            };
            if let Some(Step::Copy(from)) = index.checked_sub(1).map(|before| &mut steps[before]) {
                let more = common(value[new.clone()].iter(), self.value[from.end..].iter());
                from.end += more;
                new.start += more;
            }
            if let Some(Step::Copy(from)) = steps.get_mut(index + 1) {
                let more =
                    common(value[new.clone()].iter().rev(), self.value[..from.start].iter().rev());
                from.start -= more;
                new.end -= more;
            }
            steps[index] = Step::Insert(new);
        }
        steps
    }
}

/// A piece of a value.
struct Chunk {
    /// The hash of its content.
    hash: u64,
    at: Range<usize>,
}

#[derive(Clone)]
enum Step {
    /// Bytes of the last value.
    Copy(Range<usize>),
    /// Bytes of the new value.
    Insert(Range<usize>),
}

/// How many items both begin with.
fn common<'a>(a: impl Iterator<Item = &'a u8>, b: impl Iterator<Item = &'a u8>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

fn encode(steps: &[Step], value: &[u8]) -> Vec<u8> {
    let number = |number: usize| {
        u32::try_from(number).expect("a value of 4 GiB would not fit in memory twice").to_be_bytes()
    };
    let mut delta = XxHash3_64::oneshot(value).to_be_bytes().to_vec();
    for step in steps {
        match step {
            Step::Copy(from) => {
                delta.push(COPY);
                delta.extend_from_slice(&number(from.start));
                delta.extend_from_slice(&number(from.len()));
            }
            Step::Insert(new) => {
                delta.push(INSERT);
                delta.extend_from_slice(&number(new.len()));
                delta.extend_from_slice(&value[new.clone()]);
            }
        }
    }
    delta
}

/// Makes the new value of `last` and `delta`; `None` if the delta is not what was written.
fn apply(last: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    fn number(rest: &mut &[u8]) -> Option<usize> {
        let (number, after) = rest.split_first_chunk::<4>()?;
        *rest = after;
        usize::try_from(u32::from_be_bytes(*number)).ok()
    }
    let (checksum, mut rest) = delta.split_first_chunk::<8>()?;
    let mut value = Vec::with_capacity(last.len() + delta.len());
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        match *step {
            COPY => {
                let from = number(&mut rest)?;
                let to = from.checked_add(number(&mut rest)?)?;
                value.extend_from_slice(last.get(from..to)?);
            }
            INSERT => {
                let length = number(&mut rest)?;
                let (new, after) = rest.split_at_checked(length)?;
                rest = after;
                value.extend_from_slice(new);
            }
            _ => return None,
        }
    }
    (XxHash3_64::oneshot(&value) == u64::from_be_bytes(*checksum)).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{MemoryDisk, Op};

    fn committer() -> Committer {
        Committer::new(Arc::new(MemoryDisk::new().open()))
    }

    fn load(committer: &Committer) -> Result<(Deltas, Option<Vec<u8>>), StoreError> {
        Deltas::load(committer, Table::Manager.key("full"), Table::ManagerDelta)
    }

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&XxHash3_64::oneshot(&seed.to_le_bytes()).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn replace(committer: &Committer, deltas: &mut Deltas, value: &[u8]) -> usize {
        let mut batch = Batch::default();
        deltas.replace(value.to_vec(), &mut batch);
        let written = batch.bytes();
        let _ = committer.enqueue(batch);
        committer.cycle().unwrap();
        written
    }

    #[test]
    fn small_changes_of_a_large_value_cost_little() {
        let committer = committer();
        let (mut deltas, none) = load(&committer).unwrap();
        assert!(none.is_none());
        let mut value = noise(200_000, 1);
        assert!(replace(&committer, &mut deltas, &value) > 200_000);
        value[100_000] ^= 1;
        assert!(replace(&committer, &mut deltas, &value) < 100);
        // An insertion moves everything behind it.
        value.splice(50_000..50_000, noise(70, 2));
        assert!(replace(&committer, &mut deltas, &value) < 170);
        value.drain(120_000..120_500);
        assert!(replace(&committer, &mut deltas, &value) < 100);
        assert!(replace(&committer, &mut deltas, &value) < 80, "nothing changed");
        assert_eq!(load(&committer).unwrap().1.unwrap(), value);
    }

    #[test]
    fn differences_are_folded_in_before_they_outweigh_the_value() {
        let committer = committer();
        let (mut deltas, _) = load(&committer).unwrap();
        let mut written = 0;
        for round in 0..300 {
            let mut value = noise(20_000, 1);
            value[..4_000].copy_from_slice(&noise(4_000, round));
            written += replace(&committer, &mut deltas, &value);
            let pairs = committer.scan_all(Table::ManagerDelta, []).unwrap();
            let kept: usize = pairs.iter().map(|(_, delta)| delta.len()).sum();
            assert!(kept <= 80_000, "{kept} bytes of differences for a value of 20,000");
            assert_eq!(load(&committer).unwrap().1.unwrap(), value);
        }
        assert!(written < 300 * 6_000, "{written} bytes for 1,200,000 changed");
    }

    #[test]
    fn damage_is_found_before_it_is_used() {
        let committer = committer();
        let (mut deltas, _) = load(&committer).unwrap();
        let mut value = noise(20_000, 3);
        replace(&committer, &mut deltas, &value);
        for at in [5, 9_000, 19_000] {
            value[at] ^= 1;
            replace(&committer, &mut deltas, &value);
        }
        let (from, to) = Table::ManagerDelta.range();
        let mut pairs = committer.scan(&from, &to, 2).unwrap();
        pairs.push((Table::Manager.key("full"), committer.get(b"manager/full").unwrap().unwrap()));
        for (key, good) in pairs {
            let set = |value: Option<Vec<u8>>| {
                let op = match value {
                    Some(value) => Op::Put { key: key.clone(), value },
                    None => Op::Delete { key: key.clone() },
                };
                let mut batch = Batch::default();
                batch.ops.push(op);
                let _ = committer.enqueue(batch);
            };
            for at in 0..good.len().min(64) {
                let mut bad = good.clone();
                bad[at] ^= 0x55;
                set(Some(bad));
                assert!(matches!(load(&committer), Err(StoreError::Corrupt(_))), "byte {at}");
            }
            set(Some(good[..good.len() - 1].to_vec()));
            assert!(matches!(load(&committer), Err(StoreError::Corrupt(_))));
            if key.starts_with(b"manager-delta") {
                set(None);
                assert!(matches!(load(&committer), Err(StoreError::Corrupt(_))));
            }
            set(Some(good));
            assert_eq!(load(&committer).unwrap().1.as_ref(), Some(&value));
        }
    }

    /// The cuts of `value` without any before it.
    fn fresh_cuts(value: &[u8]) -> Vec<Range<usize>> {
        let (least, average, most) = CHUNK;
        FastCDC::new(value, least, average, most)
            .map(|chunk| chunk.offset..chunk.offset + chunk.length)
            .collect()
    }

    fn cuts(deltas: &Deltas) -> Vec<Range<usize>> {
        deltas.chunks.iter().map(|chunk| chunk.at.clone()).collect()
    }

    #[test]
    fn a_change_right_behind_a_cut_moves_it() {
        let old = noise(20_000, 5);
        let committer = committer();
        let (mut deltas, _) = load(&committer).unwrap();
        let mut moved = 0;
        for cut in fresh_cuts(&old) {
            for behind in 0..CUT_READS + 2 {
                replace(&committer, &mut deltas, &old);
                let mut value = old.clone();
                value.insert(old.len().min(cut.end + behind), 7);
                replace(&committer, &mut deltas, &value);
                assert_eq!(cuts(&deltas), fresh_cuts(&value), "{behind} behind {cut:?}");
                moved += usize::from(!cuts(&deltas).contains(&cut));
            }
        }
        assert!(moved > 0, "no cut moved: nothing was tested");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_written_last_is_read(
            edits in prop::collection::vec(
                (any::<u16>(), any::<u16>(), 0_usize..3_000, any::<u64>()), 1..12),
            restarts in any::<u16>(),
        ) {
            let committer = committer();
            let (mut deltas, _) = load(&committer).unwrap();
            let mut value = Vec::new();
            for (step, (from, to, len, seed)) in edits.into_iter().enumerate() {
                let place = |at: u16| usize::from(at) % (value.len() + 1);
                let (a, b) = (place(from).min(place(to)), place(from).max(place(to)));
                // Repetitions too: many equal chunks in one value.
                let insert = if seed % 3 == 0 { vec![7; len * 5] } else { noise(len, seed) };
                value.splice(a..b, insert);
                replace(&committer, &mut deltas, &value);
                // Also where only what changed was looked at.
                prop_assert_eq!(cuts(&deltas), fresh_cuts(&value));
                let (loaded, read) = load(&committer).unwrap();
                prop_assert_eq!(read.unwrap(), value.clone());
                if restarts >> step & 1 == 1 {
                    deltas = loaded;
                }
            }
        }
    }
}
