//! Reads fjall's journals before fjall does, to part a torn tail from damage.
//!
//! A power cut during a commit may leave any part of its batch: some sectors are there, others
//! are zeros. Fjall 3.1 drops such a batch only if its structure is broken; if only a value is,
//! the checksum fails and the database refuses to open. On the other hand it drops, without a
//! word, good batches that follow a broken one in the middle. Both are decided here instead:
//!
//! - the last batch of the newest journal is broken: it was never acknowledged, since a commit
//!   returns after its sync and the next begins after that. It is cut off, as fjall does with
//!   other torn batches;
//! - anything else is broken: the disk lost what it had promised, and the store does not open.
//!
//! The layout is that of fjall's journal version 3. A test reads a journal fjall has just
//! written, so that an upgrade which changes it does not pass unseen. Integers are little endian.
//!
//! ```text
//! batch = 1 · items u32 · seqno u64 · item* · 3 · xxh3 of the items u64 · "FJL\x03"
//! item  = 2 · type u8 · compression u8 · keyspace u64 · key u16 · value u32 · stored u32 · key · stored value
//!       | 4 · keyspace u64
//! ```

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::engine::EngineError;

/// Cuts a torn batch off the newest journal in `dir`.
///
/// # Errors
///
/// [`EngineError::Corrupt`] if a batch is broken that was durable before, [`EngineError::Io`] if
/// a journal cannot be read or cut.
pub(super) fn cut_torn_tail(dir: &Path) -> Result<(), EngineError> {
    let journals = journals(dir)?;
    let Some((newest, sealed)) = journals.split_last() else {
        return Ok(());
    };
    for journal in sealed {
        let bytes = fs::read(journal)?;
        let valid = valid_prefix(&bytes);
        if bytes[valid..].iter().any(|byte| *byte != 0) {
            return Err(damaged(journal, valid));
        }
    }
    let bytes = fs::read(newest)?;
    let valid = valid_prefix(&bytes);
    let Some(used) = bytes.iter().rposition(|byte| *byte != 0) else {
        return Ok(());
    };
    let tail = &bytes[valid..(used + 1).max(valid)];
    if tail.is_empty() {
        return Ok(());
    }
    if (1..tail.len()).any(|start| batch_len(&tail[start..]).is_some()) {
        return Err(damaged(newest, valid));
    }
    tracing::warn!(
        journal = %newest.display(),
        offset = valid,
        bytes = tail.len(),
        "cut off a batch that a power cut left in part; it was never acknowledged"
    );
    let file = OpenOptions::new().write(true).open(newest)?;
    file.set_len(valid as u64)?;
    file.sync_all()?;
    Ok(())
}

fn damaged(journal: &Path, offset: usize) -> EngineError {
    EngineError::Corrupt(format!(
        "batch at byte {offset} of journal {} does not read back although it was durable; \
         restore a backup",
        journal.display()
    ))
}

/// Returns the journals in `dir`, oldest first.
fn journals(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// Returns the length of the whole batches at the start of `bytes`.
fn valid_prefix(bytes: &[u8]) -> usize {
    let mut valid = 0;
    while let Some(len) = batch_len(&bytes[valid..]) {
        valid += len;
    }
    valid
}

/// Returns the length of the batch at the start of `bytes`, if a whole one is there.
fn batch_len(bytes: &[u8]) -> Option<usize> {
    let mut rest = Reader { rest: bytes };
    if rest.take(1)? != [TAG_START] {
        return None;
    }
    let count = rest.u32()?;
    let _seqno = rest.take(8)?;
    let items = rest.rest;
    for _ in 0..count {
        match rest.take(1)? {
            [TAG_ITEM] => {
                let _type_compression_keyspace = rest.take(1 + 1 + 8)?;
                let key = usize::from(u16::from_le_bytes(rest.array()?));
                let _value = rest.u32()?;
                let stored = usize::try_from(rest.u32()?).ok()?;
                rest.take(key.checked_add(stored)?)?;
            }
            [TAG_CLEAR] => {
                rest.take(8)?;
            }
            _ => return None,
        }
    }
    let items = &items[..items.len() - rest.rest.len()];
    if rest.take(1)? != [TAG_END] {
        return None;
    }
    let checksum = u64::from_le_bytes(rest.array()?);
    if rest.take(MAGIC.len())? != MAGIC || checksum != XxHash3_64::oneshot(items) {
        return None;
    }
    Some(bytes.len() - rest.rest.len())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
}

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const MAGIC: &[u8] = b"FJL\x03";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, EngineKind, Store, StoreError, StoreOptions, open};

    /// Commits five batches, closes the store, and returns its journal and the batches' ends.
    fn written(dir: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
        let store = open_store(dir).unwrap();
        for number in 0..5_u8 {
            let mut batch = Batch { term: store.term(), ..Batch::default() };
            batch.put(vec![b'k', number], vec![number + 1; 9_000]);
            batch.put(vec![b'l', number], noise(9_000));
            batch.delete(b"absent".to_vec());
            store.commit(&batch).unwrap();
        }
        drop(store);
        let journal = journals(&dir.join("store/fjall")).unwrap().pop().unwrap();
        let bytes = fs::read(&journal).unwrap();
        let mut ends = vec![0];
        while let Some(len) = batch_len(&bytes[ends[ends.len() - 1]..]) {
            ends.push(ends[ends.len() - 1] + len);
        }
        (journal, bytes, ends)
    }

    /// Bytes without zeros that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 | 1
        })
        .take(len)
        .collect()
    }

    fn open_store(dir: &Path) -> Result<std::sync::Arc<dyn Store>, StoreError> {
        let options = StoreOptions { reserve_bytes: 0, ..StoreOptions::default() };
        open(dir, EngineKind::Fjall, &options)
    }

    #[test]
    fn every_batch_fjall_writes_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (_, bytes, ends) = written(dir.path());
        // The five batches and the record of the term.
        assert_eq!(ends.len() - 1, 6);
        assert!(bytes[ends[6]..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn torn_last_batch_is_cut_off_and_the_store_opens() {
        for lost_sector in [0, 3, 9, 15] {
            let dir = tempfile::tempdir().unwrap();
            let (journal, mut bytes, ends) = written(dir.path());
            let start = (ends[5] / 512 + lost_sector) * 512;
            let from = start.max(ends[5]);
            bytes[from..(start + 512).min(ends[6])].fill(0);
            fs::write(&journal, &bytes).unwrap();
            let store = open_store(dir.path()).unwrap();
            assert_eq!(store.get(&[b'k', 3]).unwrap(), Some(vec![4; 9_000]));
            assert_eq!(store.get(&[b'k', 4]).unwrap(), None);
            assert_eq!(store.get(&[b'l', 4]).unwrap(), None);
        }
    }

    #[test]
    fn broken_batch_before_a_good_one_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, mut bytes, ends) = written(dir.path());
        for spoil in [ends[3], ends[4] - 1, (ends[3] + ends[4]) / 2] {
            bytes[spoil] ^= 0x55;
            fs::write(&journal, &bytes).unwrap();
            let error = match open_store(dir.path()) {
                Err(error) => error,
                Ok(_) => panic!("opened with byte {spoil} spoiled"),
            };
            let text = error.to_string();
            assert!(
                matches!(error, StoreError::Corrupt(_))
                    && text.contains(&format!("byte {} of journal", ends[3])),
                "{text}"
            );
            bytes[spoil] ^= 0x55;
        }
        fs::write(&journal, &bytes).unwrap();
        assert!(open_store(dir.path()).is_ok());
    }
}
