//! What every engine must do, run by each of them.
//!
//! A new engine adds one [`Harness`] and one line to `engines!`. What a power cut leaves is the
//! business of the power-cut suite in the crate `tests`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::engine::KEY_BYTES_MAX;
use super::*;

/// A place for a store that outlives its holders.
trait Harness {
    /// Makes an empty place.
    fn new() -> Self;
    /// Opens the store there; its earlier holder is gone, or is fenced off.
    fn open(&self) -> Arc<dyn Store>;
}

struct OnDisk<const SLED: bool>(tempfile::TempDir);

impl<const SLED: bool> OnDisk<SLED> {
    const KIND: EngineKind = if SLED { EngineKind::Sled } else { EngineKind::Fjall };

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        open(self.path(), Self::KIND, &options())
    }
}

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 4 * 1024 * 1024, write_buffer_bytes: 1024 * 1024, reserve_bytes: 0 }
}

impl<const SLED: bool> Harness for OnDisk<SLED> {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Arc<dyn Store> {
        self.try_open().unwrap()
    }
}

impl Harness for MemoryDisk {
    fn new() -> Self {
        MemoryDisk::new()
    }

    fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryDisk::open(self))
    }
}

/// Commits `puts` and then `deletes` as one batch.
fn commit(store: &dyn Store, puts: &[(&[u8], &[u8])], deletes: &[&[u8]]) {
    let mut batch = batch_of(store);
    for (key, value) in puts {
        batch.put(key.to_vec(), value.to_vec());
    }
    for key in deletes {
        batch.delete(key.to_vec());
    }
    store.commit(&batch).unwrap();
}

fn batch_of(store: &dyn Store) -> Batch {
    Batch { term: store.term(), ops: Vec::new() }
}

/// Everything but the store's own records.
fn contents(store: &dyn Store) -> Vec<Pair> {
    let mut pairs = Vec::new();
    store
        .snapshot(&mut |key, value| {
            if Table::Meta.rest(key).is_none() {
                pairs.push((key.to_vec(), value.to_vec()));
            }
            Ok(())
        })
        .unwrap();
    pairs
}

fn keys(pairs: Vec<Pair>) -> Vec<Vec<u8>> {
    pairs.into_iter().map(|(key, _)| key).collect()
}

fn scans_are_ordered_bounded_and_limited<H: Harness>() {
    let place = H::new();
    let store = place.open();
    let all: Vec<[u8; 2]> = (0..=255_u8).map(|n| [b't', n]).collect();
    for key in all.iter().rev() {
        commit(&*store, &[(key, b"v")], &[]);
    }
    commit(&*store, &[(b"s", b"before"), (b"u", b"after")], &[]);

    let ascending = keys(store.scan(b"t", b"u", usize::MAX).unwrap());
    assert_eq!(ascending, all.map_to_vecs());
    let mut descending = keys(store.scan_back(b"t", b"u", usize::MAX).unwrap());
    descending.reverse();
    assert_eq!(descending, all.map_to_vecs());

    let part = store.scan(&[b't', 10], &[b't', 20], 99).unwrap();
    assert_eq!(keys(part), all[10..20].to_vec().map_to_vecs());
    let first = store.scan(&[b't', 10], &[b't', 20], 3).unwrap();
    assert_eq!(keys(first), all[10..13].to_vec().map_to_vecs());
    let last = store.scan_back(&[b't', 10], &[b't', 20], 2).unwrap();
    assert_eq!(keys(last), [vec![b't', 19], vec![b't', 18]]);

    assert!(store.scan(b"t", b"u", 0).unwrap().is_empty());
    assert!(store.scan(b"t", b"t", 9).unwrap().is_empty());
    assert!(store.scan(b"u", b"t", 9).unwrap().is_empty());
    assert!(store.scan_back(b"u", b"t", 9).unwrap().is_empty());
    assert!(store.scan(b"x", b"y", 9).unwrap().is_empty());
    let (from, to) = Table::Meta.range();
    assert!(store.scan(&from, &to, 9).unwrap().len() <= 1);
}

fn tables_are_one_ordered_map<H: Harness>() {
    let place = H::new();
    let store = place.open();
    // Neighbours in the order of keys, of which an engine may keep some apart.
    let tables = [Table::Manager, Table::Journal, Table::Payment, Table::PaymentOpen, Table::Peer];
    let mut all: Vec<Vec<u8>> =
        (0..20_u8).flat_map(|n| tables.map(|table| table.key([n]))).collect();
    for key in &all {
        commit(&*store, &[(key, b"v")], &[]);
    }
    all.sort();
    let map: Vec<_> = all.iter().map(|key| (key.clone(), b"v".to_vec())).collect();
    assert_eq!(contents(&*store), map);
    // The store's own record lies in between.
    let ours = |pairs| -> Vec<Vec<u8>> {
        keys(pairs).into_iter().filter(|key| Table::Meta.rest(key).is_none()).collect()
    };
    assert_eq!(ours(store.scan(&all[3], &all[70], usize::MAX).unwrap()), all[3..70]);
    let mut back = ours(store.scan_back(&all[3], &all[70], 20).unwrap());
    back.reverse();
    assert_eq!(back, all[50..70]);
    let (from, to) = Table::Payment.range();
    let payments = keys(store.scan(&from, &to, usize::MAX).unwrap());
    assert_eq!(payments, (0..20_u8).map(|n| Table::Payment.key([n])).collect::<Vec<_>>());
}

trait MapToVecs {
    fn map_to_vecs(&self) -> Vec<Vec<u8>>;
}

impl MapToVecs for Vec<[u8; 2]> {
    fn map_to_vecs(&self) -> Vec<Vec<u8>> {
        self.iter().map(|key| key.to_vec()).collect()
    }
}

fn last_write_to_a_key_in_a_batch_wins<H: Harness>() {
    let place = H::new();
    let store = place.open();
    commit(&*store, &[(b"gone", b"old"), (b"back", b"old")], &[]);
    let mut batch = batch_of(&*store);
    batch.put(b"key".to_vec(), b"one".to_vec());
    batch.delete(b"key".to_vec());
    batch.put(b"key".to_vec(), b"two".to_vec());
    batch.put(b"gone".to_vec(), b"new".to_vec());
    batch.delete(b"gone".to_vec());
    batch.delete(b"back".to_vec());
    batch.put(b"back".to_vec(), b"new".to_vec());
    store.commit(&batch).unwrap();
    let check = |store: Arc<dyn Store>| {
        assert_eq!(store.get(b"key").unwrap(), Some(b"two".to_vec()));
        assert_eq!(store.get(b"gone").unwrap(), None);
        assert_eq!(store.get(b"back").unwrap(), Some(b"new".to_vec()));
    };
    check(store);
    check(place.open());
}

fn values_of_every_size_and_binary_keys_read_back<H: Harness>() {
    let place = H::new();
    let store = place.open();
    let big: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let long_key = vec![0xff; KEY_BYTES_MAX];
    let puts: [(&[u8], &[u8]); 7] = [
        (b"empty", b""),
        (b"big", &big),
        (b"\0", b"zero"),
        (b"\0\0", b"zeros"),
        (b"\xff\xff", b"ones"),
        (b"a/\0/\xfe", b"mixed"),
        (&long_key, b"long"),
    ];
    commit(&*store, &puts, &[]);
    commit(&*store, &[(b"big", &big[1..])], &[]);
    drop(store);
    let store = place.open();
    for (key, value) in puts {
        let value = if key == b"big" { &value[1..] } else { value };
        assert_eq!(store.get(key).unwrap().as_deref(), Some(value));
    }
    assert_eq!(store.get(b"absent").unwrap(), None);
    assert_eq!(contents(&*store).len(), puts.len());
}

fn keys_no_engine_takes_are_refused_and_do_no_harm<H: Harness>() {
    let place = H::new();
    let store = place.open();
    for key in [vec![], vec![b'k'; KEY_BYTES_MAX + 1]] {
        let mut batch = batch_of(&*store);
        batch.put(b"other".to_vec(), b"x".to_vec());
        batch.put(key, b"x".to_vec());
        assert!(matches!(store.commit(&batch), Err(StoreError::Io(_))));
    }
    assert_eq!(contents(&*store), []);
    assert_eq!(store.get(b"").unwrap(), None);
    commit(&*store, &[(b"k", b"v")], &[]);
    assert_eq!(store.get(b"k").unwrap(), Some(b"v".to_vec()));
}

fn state_survives_reopening<H: Harness>() {
    let place = H::new();
    let mut model = BTreeMap::new();
    for round in 0..4_u64 {
        let store = place.open();
        let pairs: Vec<Pair> = model.clone().into_iter().collect();
        assert_eq!(contents(&*store), pairs, "round {round}");
        for number in 0..200_u64 {
            let key = Table::Channel.key((number % 61).to_be_bytes());
            if number % 7 == round {
                commit(&*store, &[], &[&key]);
                model.remove(&key);
            } else {
                let value = vec![number as u8; (number * 13 % 4_000) as usize];
                commit(&*store, &[(&key, &value)], &[]);
                model.insert(key, value);
            }
        }
    }
}

fn each_holder_has_a_higher_term_and_stale_writers_are_fenced<H: Harness>() {
    let place = H::new();
    let first = place.open();
    let stale = first.term();
    assert!(stale > Term(0));
    commit(&*first, &[(b"k", b"first")], &[]);
    drop(first);
    let second = place.open();
    assert!(second.term() > stale);
    for term in [stale, Term(0), Term(second.term().0 + 1)] {
        let mut batch = Batch { term, ops: Vec::new() };
        batch.put(b"k".to_vec(), b"stale".to_vec());
        let error = second.commit(&batch).unwrap_err();
        assert!(
            matches!(error, StoreError::Fenced { current, .. } if current == second.term()),
            "{error}"
        );
    }
    assert_eq!(second.get(b"k").unwrap(), Some(b"first".to_vec()));
    // Refusing a stale writer does not stop the rightful one.
    commit(&*second, &[(b"k", b"second")], &[]);
    assert_eq!(second.get(b"k").unwrap(), Some(b"second".to_vec()));
}

fn empty_batch_is_no_write<H: Harness>() {
    let place = H::new();
    let store = place.open();
    store.commit(&batch_of(&*store)).unwrap();
    assert_eq!(contents(&*store), []);
    commit(&*store, &[], &[b"absent"]);
    assert_eq!(contents(&*store), []);
}

fn readers_see_whole_batches_during_commits<H: Harness>() {
    let place = H::new();
    let store = place.open();
    const KEYS: u64 = 20;
    let write = |round: u64| {
        let mut batch = batch_of(&*store);
        for key in 0..KEYS {
            batch.put(
                Table::Payment.key(key.to_be_bytes()),
                [&round.to_be_bytes()[..], &[7; 100]].concat(),
            );
        }
        store.commit(&batch).unwrap();
    };
    let one_round = |pairs: &[Pair]| {
        assert_eq!(pairs.len() as u64, KEYS);
        for (_, value) in pairs {
            assert_eq!(value[..8], pairs[0].1[..8], "a scan saw half a batch");
        }
        u64::from_be_bytes(pairs[0].1[..8].try_into().unwrap())
    };
    write(0);
    let done = AtomicBool::new(false);
    let (from, to) = Table::Payment.range();
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (store, done, from, to) = (&store, &done, &from, &to);
            scope.spawn(move || {
                let mut newest = 0;
                while !done.load(Ordering::SeqCst) {
                    let round = match reader {
                        0 => one_round(&store.scan(from, to, 99).unwrap()),
                        1 => one_round(&{
                            let mut pairs = store.scan_back(from, to, 99).unwrap();
                            pairs.reverse();
                            pairs
                        }),
                        _ => one_round(&contents(&**store)),
                    };
                    assert!(round >= newest, "a scan went back in time");
                    newest = round;
                }
            });
        }
        for round in 1..150 {
            write(round);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(one_round(&store.scan(&from, &to, 99).unwrap()), 149);
}

fn snapshot_passes_on_the_error_of_its_visitor<H: Harness>() {
    let place = H::new();
    let store = place.open();
    commit(&*store, &[(b"a", b"1"), (b"b", b"2")], &[]);
    let mut seen = 0;
    let result = store.snapshot(&mut |_, _| {
        seen += 1;
        Err(StoreError::Corrupt("enough".to_owned()))
    });
    assert!(matches!(result, Err(StoreError::Corrupt(why)) if why == "enough"));
    assert_eq!(seen, 1);
    commit(&*store, &[(b"c", b"3")], &[]);
}

/// One step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(u8, Option<Vec<u8>>)>),
    Reopen,
    Scan(u8, u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 5_000..9_000),
    ];
    let op = (any::<u8>(), proptest::option::weighted(0.7, value));
    prop_oneof![
        8 => proptest::collection::vec(op, 0..30).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        4 => (any::<u8>(), any::<u8>(), 0..40_usize).prop_map(|(a, b, n)| Step::Scan(a, b, n)),
    ]
}

fn behaves_like_a_sorted_map<H: Harness>() {
    let mut config = ProptestConfig::with_cases(12);
    config.failure_persistence = None;
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..40))| {
        let place = H::new();
        let mut store = Some(place.open());
        let mut model = BTreeMap::new();
        for step in steps {
            let open = store.take().unwrap();
            store = Some(match step {
                Step::Commit(ops) => {
                    let mut batch = batch_of(&*open);
                    for (key, value) in ops {
                        let key = Table::Peer.key([key]);
                        match value {
                            Some(value) => {
                                batch.put(key.clone(), value.clone());
                                model.insert(key, value);
                            }
                            None => {
                                batch.delete(key.clone());
                                model.remove(&key);
                            }
                        }
                    }
                    open.commit(&batch).unwrap();
                    open
                }
                Step::Reopen => {
                    drop(open);
                    place.open()
                }
                Step::Scan(from, to, limit) => {
                    let (from, to) = (Table::Peer.key([from]), Table::Peer.key([to]));
                    let mut expected: Vec<Pair> = if from < to {
                        model.range(from.clone()..to.clone())
                            .map(|(k, v): (&Vec<u8>, &Vec<u8>)| (k.clone(), v.clone()))
                            .collect()
                    } else {
                        Vec::new()
                    };
                    let mut backward = expected.clone();
                    expected.truncate(limit);
                    backward.reverse();
                    backward.truncate(limit);
                    prop_assert_eq!(open.scan(&from, &to, limit).unwrap(), expected);
                    prop_assert_eq!(open.scan_back(&from, &to, limit).unwrap(), backward);
                    open
                }
            });
            let whole: Vec<Pair> = model.clone().into_iter().collect();
            prop_assert_eq!(contents(&**store.as_ref().unwrap()), whole);
        }
    });
}

fn second_holder_is_refused_until_the_first_is_gone<const SLED: bool>() {
    let place = OnDisk::<SLED>::new();
    let store = place.open();
    let error = place.try_open().err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::InUse { .. }), "{text}");
    assert!(text.contains(&place.path().display().to_string()), "{text}");
    assert!(text.contains("--data-dir"), "{text}");
    // The refused one has not disturbed the holder.
    commit(&*store, &[(b"k", b"v")], &[]);
    drop(store);
    assert_eq!(place.open().get(b"k").unwrap(), Some(b"v".to_vec()));
}

fn other_format_is_refused<const SLED: bool>() {
    let place = OnDisk::<SLED>::new();
    drop(place.open());
    let header = place.path().join("store/header.json");
    let engine = OnDisk::<SLED>::KIND;
    std::fs::write(
        &header,
        format!(r#"{{"format_version":9,"engine":"{engine}","added_later":1}}"#),
    )
    .unwrap();
    let error = place.try_open().err().unwrap();
    assert!(
        matches!(error, StoreError::NewerVersion { found: 9, known } if known == FORMAT_VERSION),
        "{error}"
    );
    assert!(error.to_string().contains("upgrade"), "{error}");
    std::fs::write(&header, format!(r#"{{"format_version":1,"engine":"{engine}"}}"#)).unwrap();
    let error = place.try_open().err().unwrap();
    assert!(matches!(error, StoreError::OlderVersion { found: 1, .. }), "{error}");
    std::fs::write(&header, "{").unwrap();
    let error = place.try_open().err().unwrap().to_string();
    assert!(error.contains("header.json"), "{error}");
    std::fs::remove_file(&header).unwrap();
    let error = place.try_open().err().unwrap();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
}

fn other_engine_is_refused<const SLED: bool>() {
    let place = OnDisk::<SLED>::new();
    drop(place.open());
    let found = OnDisk::<SLED>::KIND;
    let other = EngineKind::ALL.into_iter().find(|kind| *kind != found).unwrap();
    let error = open(place.path(), other, &options()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::OtherEngine { .. }), "{text}");
    assert!(text.contains(&format!("store.engine = \"{found}\"")), "{text}");
    drop(place.open());
}

fn space_below_the_reserve_is_a_full_disk<const SLED: bool>() {
    let place = OnDisk::<SLED>::new();
    let store = place.open();
    commit(&*store, &[(b"k", b"v")], &[]);
    assert!(store.disk_bytes() > 0);
    drop(store);
    let greedy = StoreOptions { reserve_bytes: u64::MAX, ..options() };
    let error = open(place.path(), OnDisk::<SLED>::KIND, &greedy).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{text}");
    assert!(text.contains(&place.path().display().to_string()), "{text}");
    assert!(text.contains("free space"), "{text}");
    assert_eq!(place.open().get(b"k").unwrap(), Some(b"v".to_vec()));
}

fn interrupted_first_start_leaves_no_trace<const SLED: bool>() {
    let place = OnDisk::<SLED>::new();
    let draft = place.path().join("store.draft/other");
    std::fs::create_dir_all(&draft).unwrap();
    std::fs::write(draft.join("half"), "written").unwrap();
    let store = place.open();
    commit(&*store, &[(b"k", b"v")], &[]);
    assert!(!place.path().join("store.draft").exists());
}

macro_rules! facts {
    ($harness:ty: $($fact:ident)*) => {
        $(
            #[test]
            fn $fact() {
                super::$fact::<$harness>();
            }
        )*
    };
}

macro_rules! engines {
    ($($module:ident: $harness:ty;)*) => {
        $(
            mod $module {
                use super::*;
                facts! { $harness:
                    scans_are_ordered_bounded_and_limited
                    tables_are_one_ordered_map
                    last_write_to_a_key_in_a_batch_wins
                    values_of_every_size_and_binary_keys_read_back
                    keys_no_engine_takes_are_refused_and_do_no_harm
                    state_survives_reopening
                    each_holder_has_a_higher_term_and_stale_writers_are_fenced
                    empty_batch_is_no_write
                    readers_see_whole_batches_during_commits
                    snapshot_passes_on_the_error_of_its_visitor
                    behaves_like_a_sorted_map
                }
            }
        )*
    };
}

engines! {
    sled: OnDisk<true>;
    fjall: OnDisk<false>;
    memory: MemoryDisk;
}

macro_rules! door_facts {
    ($($fact:ident)*) => {
        mod door {
            mod sled { $(#[test] fn $fact() { super::super::$fact::<true>(); })* }
            mod fjall { $(#[test] fn $fact() { super::super::$fact::<false>(); })* }
        }
    };
}

door_facts! {
    second_holder_is_refused_until_the_first_is_gone
    other_format_is_refused
    other_engine_is_refused
    space_below_the_reserve_is_a_full_disk
    interrupted_first_start_leaves_no_trace
}

#[test]
fn engine_names_read_back_and_unknown_ones_name_the_choice() {
    for kind in EngineKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    let error = "rocks".parse::<EngineKind>().unwrap_err().to_string();
    assert!(error.contains("rocks") && error.contains("sled"), "{error}");
}
