//! A disk that is really full, for each engine, with and without the reserve.
//!
//! Needs a file system of its own, at most 256 MiB, named by `TRIBUTARY_SMALL_DISK`; for example
//! `mount -t tmpfs -o size=96m none /mnt/small`. Without it the test says that it was skipped.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use node::store::{Batch, EngineKind, StoreError, StoreOptions, Table, open};

#[test]
fn full_disk_is_named_and_loses_nothing_acknowledged() {
    let Ok(disk) = std::env::var("TRIBUTARY_SMALL_DISK") else {
        println!("skipped: TRIBUTARY_SMALL_DISK names no small disk");
        return;
    };
    for engine in EngineKind::ALL {
        fill(Path::new(&disk), engine, 8 * 1024 * 1024);
    }
    // Without a reserve sled hangs when it is closed; so only the default engine goes that far.
    fill(Path::new(&disk), EngineKind::default(), 0);
}

fn fill(disk: &Path, engine: EngineKind, reserve_bytes: u64) {
    let dir = tempfile::tempdir_in(disk).unwrap();
    let filler = disk.join("filler");
    fs::write(&filler, vec![1; 16 * 1024 * 1024]).unwrap();
    let options =
        StoreOptions { write_buffer_bytes: 1024 * 1024, reserve_bytes, ..StoreOptions::default() };
    let store = open(dir.path(), engine, &options).unwrap();
    let batch = |number: u64| {
        let mut batch = Batch { term: store.term(), ..Batch::default() };
        let value: Vec<u8> =
            (0..60_000_u64).map(|n| (n.wrapping_mul(number + 77) >> 5) as u8).collect();
        batch.put(Table::Journal.key(number.to_be_bytes()), value);
        batch
    };
    let mut acked = 0;
    let error = loop {
        assert!(acked < 100_000, "the disk is too large for this test");
        match store.commit(&batch(acked)) {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    println!("{engine}, reserve {reserve_bytes}: after {acked} commits: {error}");
    let text = error.to_string();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{text}");
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    let again = store.commit(&batch(acked)).unwrap_err();
    assert!(matches!(again, StoreError::Failed(_)), "{again}");
    drop(store);

    fs::remove_file(&filler).unwrap();
    let store = open(dir.path(), engine, &options).unwrap();
    for number in 0..acked {
        let key = Table::Journal.key(number.to_be_bytes());
        assert!(store.get(&key).unwrap().is_some(), "batch {number} is lost");
    }
}
