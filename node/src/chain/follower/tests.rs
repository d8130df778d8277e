//! Followers against the embedded chain: reorgs, restarts, bad sources.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use bitcoin::{Network, OutPoint, Transaction, TxOut, Txid};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::chain::TxStatus;
use crate::chain::embedded::EmbeddedChain;
use crate::chain::embedded::tests::bench::*;

/// A listener that refuses any step that is not right after the last.
struct Recorder {
    name: String,
    /// Best last; never empty.
    seen: Mutex<Vec<BlockRef>>,
    disconnects: AtomicU32,
    /// Heights of all recorders, to see that nobody runs ahead.
    herd: Arc<Mutex<HashMap<String, u32>>>,
}

impl Recorder {
    fn at(name: &str, seen: Vec<BlockRef>, herd: &Arc<Mutex<HashMap<String, u32>>>) -> Arc<Self> {
        let height = seen.last().unwrap().height;
        herd.lock().insert(name.to_owned(), height);
        Arc::new(Self {
            name: name.to_owned(),
            seen: Mutex::new(seen),
            disconnects: AtomicU32::new(0),
            herd: herd.clone(),
        })
    }

    fn best(&self) -> BlockRef {
        *self.seen.lock().last().unwrap()
    }
}

impl ChainListener for Recorder {
    fn name(&self) -> &str {
        &self.name
    }

    fn positions(&self) -> Vec<BlockRef> {
        self.seen.lock().iter().rev().take(12).copied().collect()
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let mut seen = self.seen.lock();
        let last = *seen.last().unwrap();
        assert_eq!(block.header.prev_blockhash, last.hash, "{} at {height}", self.name);
        assert_eq!(height, last.height + 1);
        seen.push(BlockRef { height, hash: block.block_hash() });
        let mut herd = self.herd.lock();
        herd.insert(self.name.clone(), height);
        let slowest = *herd.values().min().unwrap();
        assert!(slowest + 1 >= height, "{} ran ahead to {height} of {slowest}", self.name);
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        let mut seen = self.seen.lock();
        assert!(fork_point.height < seen.last().unwrap().height);
        seen.retain(|b| b.height <= fork_point.height);
        assert_eq!(*seen.last().unwrap(), fork_point);
        self.disconnects.fetch_add(1, Ordering::Relaxed);
        self.herd.lock().insert(self.name.clone(), fork_point.height);
    }
}

/// The embedded chain behind a bad line.
struct BadLine {
    chain: EmbeddedChain,
    calls: AtomicU32,
    /// Every so many calls one fails; 0 for none.
    fail_every: u32,
    /// Blocks off the best chain are not known.
    forgetful: bool,
    down: AtomicBool,
    fetched: Mutex<Vec<BlockHash>>,
}

impl BadLine {
    fn new(chain: &EmbeddedChain, fail_every: u32, forgetful: bool) -> Arc<Self> {
        Arc::new(Self {
            chain: chain.clone(),
            calls: AtomicU32::new(0),
            fail_every,
            forgetful,
            down: AtomicBool::new(false),
            fetched: Mutex::new(Vec::new()),
        })
    }

    fn line(&self) -> Result<(), ChainError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let broken = self.fail_every != 0 && call.is_multiple_of(self.fail_every);
        if broken || self.down.load(Ordering::Relaxed) {
            return Err(ChainError::Unreachable("bad line".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl ChainSource for BadLine {
    fn network(&self) -> Network {
        self.chain.network()
    }
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        self.line()?;
        self.chain.tip().await
    }
    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        self.line()?;
        self.chain.block_hash(height).await
    }
    async fn height_of(&self, hash: BlockHash) -> Result<Option<u32>, ChainError> {
        self.line()?;
        self.chain.height_of(hash).await
    }
    async fn block(&self, hash: BlockHash) -> Result<Arc<Block>, ChainError> {
        self.line()?;
        if self.forgetful && self.chain.height_of(hash).await?.is_none() {
            return Err(ChainError::UnknownBlock(hash));
        }
        self.fetched.lock().push(hash);
        self.chain.block(hash).await
    }
    async fn changed(&self, known: BlockHash) {
        while !self.down.load(Ordering::Relaxed) && self.chain.best().hash == known {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    async fn transaction_status(&self, txid: Txid) -> Result<TxStatus, ChainError> {
        self.chain.transaction_status(txid).await
    }
    async fn unspent_output(&self, outpoint: OutPoint) -> Result<Option<TxOut>, ChainError> {
        self.chain.unspent_output(outpoint).await
    }
    async fn mempool(&self) -> Result<Vec<Txid>, ChainError> {
        self.chain.mempool().await
    }
    async fn mempool_transaction(&self, txid: Txid) -> Result<Option<Transaction>, ChainError> {
        self.chain.mempool_transaction(txid).await
    }
}

/// The best chain as a recorder would have seen it, up to `height`.
fn history(chain: &EmbeddedChain, height: u32) -> Vec<BlockRef> {
    let blocks = chain.export();
    blocks[..height as usize]
        .iter()
        .zip(1..)
        .map(|(block, height)| BlockRef { height, hash: block.block_hash() })
        .collect()
}

fn impatient(stall_after: Option<Duration>) -> FollowerConfig {
    FollowerConfig {
        stall_after,
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(4),
    }
}

fn follower(source: Arc<dyn ChainSource>) -> Follower {
    Follower::new(source, ManualClock::at(START), impatient(None))
}

fn listeners(recorders: &[Arc<Recorder>]) -> Vec<Arc<dyn ChainListener>> {
    recorders.iter().map(|r| r.clone() as Arc<dyn ChainListener>).collect()
}

async fn settle(state: &mut watch::Receiver<SyncState>, tip: BlockRef) {
    state.wait_for(|s| s.synced == Some(tip) && s.tip == Some(tip)).await.unwrap();
}

#[tokio::test]
async fn listeners_of_all_heights_meet_and_each_block_is_fetched_once() {
    let chain = chain();
    let line = BadLine::new(&chain, 0, false);
    let herd = Arc::default();
    let recorders: Vec<_> = [20u32, 90, 50, 110, 50]
        .iter()
        .enumerate()
        .map(|(i, height)| Recorder::at(&format!("listener {i}"), history(&chain, *height), &herd))
        .collect();
    let mut follower = follower(line.clone());
    let tip = follower.catch_up(&listeners(&recorders), &CancellationToken::new()).await;
    assert_eq!(tip, Some(chain.best()));
    assert!(recorders.iter().all(|r| r.best() == chain.best()));
    let fetched = line.fetched.lock().clone();
    let expected: Vec<_> = history(&chain, 110)[20..].iter().map(|b| b.hash).collect();
    assert_eq!(fetched, expected);
}

#[tokio::test]
async fn newcomer_without_past_starts_at_the_tip() {
    struct Newcomer(Mutex<Vec<u32>>);
    impl ChainListener for Newcomer {
        fn name(&self) -> &str {
            "newcomer"
        }
        fn positions(&self) -> Vec<BlockRef> {
            Vec::new()
        }
        fn block_connected(&self, _: &Arc<Block>, height: u32) {
            self.0.lock().push(height);
        }
        fn blocks_disconnected(&self, _: BlockRef) {
            panic!("no reorg here");
        }
    }
    let chain = chain();
    let newcomer = Arc::new(Newcomer(Mutex::default()));
    let follower = follower(Arc::new(chain.clone()));
    let mut state = follower.subscribe();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(follower.run(vec![newcomer.clone()], cancel.clone()));
    settle(&mut state, chain.best()).await;
    chain.mine(2, &sink());
    settle(&mut state, chain.best()).await;
    assert_eq!(*newcomer.0.lock(), vec![111, 112]);
    assert!(state.borrow().is_current());
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn reorg_during_downtime_is_found() {
    for forgetful in [false, true] {
        let chain = chain();
        let herd = Arc::default();
        let recorder = Recorder::at("one", history(&chain, 110), &herd);
        let shallow = Recorder::at("two", history(&chain, 108), &herd);
        chain.reorg(3, 6).unwrap();
        let line = BadLine::new(&chain, 0, forgetful);
        let recorders = [recorder.clone(), shallow.clone()];
        follower(line).catch_up(&listeners(&recorders), &CancellationToken::new()).await;
        let expected = history(&chain, 113);
        assert_eq!(*recorder.seen.lock(), expected, "forgetful: {forgetful}");
        assert_eq!(*shallow.seen.lock(), expected);
        assert_eq!(recorder.disconnects.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn shorter_chain_takes_nothing_back() {
    let chain = chain();
    let herd = Arc::default();
    let recorder = Recorder::at("one", history(&chain, 110), &herd);
    let follower = follower(Arc::new(chain.clone()));
    let mut state = follower.subscribe();
    let cancel = CancellationToken::new();
    let task =
        tokio::spawn(follower.run(listeners(std::slice::from_ref(&recorder)), cancel.clone()));
    settle(&mut state, chain.best()).await;
    chain.invalidate(4).unwrap();
    state.wait_for(|s| s.last_error.is_some()).await.unwrap();
    assert!(state.borrow().last_error.as_ref().unwrap().contains("one has seen 110"));
    assert!(!state.borrow().is_current());
    assert_eq!(recorder.best().height, 110);
    chain.mine(5, &sink());
    settle(&mut state, chain.best()).await;
    assert_eq!(recorder.best(), chain.best());
    assert_eq!(recorder.disconnects.load(Ordering::Relaxed), 1);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn foreign_chain_is_an_error_and_nothing_is_fed() {
    let chain = chain();
    let (other, _) = chain_at(START + 9_999);
    other.mine(5, &sink());
    let herd = Arc::default();
    // It knows its last block only, and the source has never heard of it.
    let recorder = Recorder::at("stranger", vec![chain.best()], &herd);
    let follower = follower(Arc::new(other));
    let mut state = follower.subscribe();
    let cancel = CancellationToken::new();
    let task =
        tokio::spawn(follower.run(listeners(std::slice::from_ref(&recorder)), cancel.clone()));
    state.wait_for(|s| s.last_error.is_some()).await.unwrap();
    let error = state.borrow().last_error.clone().unwrap();
    assert!(error.contains("no common block of stranger"), "{error}");
    assert_eq!(recorder.best(), chain.best());
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn lost_source_and_stale_tip_show_in_the_state() {
    let (chain, clock) = chain_at(START);
    let line = BadLine::new(&chain, 0, false);
    let config = impatient(Some(Duration::from_secs(7_200)));
    let follower = Follower::new(line.clone(), clock.clone(), config);
    let herd = Arc::default();
    let recorder = Recorder::at("one", history(&chain, 110), &herd);
    let mut state = follower.subscribe();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(follower.run(listeners(&[recorder]), cancel.clone()));
    settle(&mut state, chain.best()).await;
    assert!(state.borrow().is_current());
    line.down.store(true, Ordering::Relaxed);
    clock.advance(7_200);
    state.wait_for(|s| s.last_error.is_some() && s.stalled_since.is_some()).await.unwrap();
    assert_eq!(state.borrow().stalled_since, Some(Duration::from_secs(START + 7_200)));
    line.down.store(false, Ordering::Relaxed);
    chain.mine(1, &sink());
    state.wait_for(SyncState::is_current).await.unwrap();
    cancel.cancel();
    task.await.unwrap();
}

#[derive(Debug, Clone)]
enum Act {
    Mine(u32),
    Reorg {
        depth: u32,
        longer: u32,
    },
    Invalidate {
        depth: u32,
        then: u32,
    },
    /// Let the follower run until it is synced.
    Settle,
    /// Let it run for some time only.
    Breathe,
    /// Stop it and start another one with a listener thrown back by some blocks.
    Restart {
        back: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1..12u32).prop_map(Act::Mine),
        2 => (1..9u32, 1..4u32).prop_map(|(depth, longer)| Act::Reorg { depth, longer }),
        1 => (1..5u32, 1..5u32).prop_map(|(depth, more)| Act::Invalidate { depth, then: depth + more }),
        2 => Just(Act::Settle),
        2 => Just(Act::Breathe),
        2 => (0..15usize).prop_map(|back| Act::Restart { back }),
    ]
}

async fn play(acts: Vec<Act>, fail_every: u32) {
    let chain = chain();
    let line = BadLine::new(&chain, fail_every, false);
    let mut pasts = vec![history(&chain, 110), history(&chain, 60)];
    let start = |pasts: &[Vec<BlockRef>]| {
        let herd = Arc::default();
        let recorders: Vec<_> = pasts
            .iter()
            .enumerate()
            .map(|(i, past)| Recorder::at(&format!("listener {i}"), past.clone(), &herd))
            .collect();
        let follower = follower(line.clone());
        let state = follower.subscribe();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(follower.run(listeners(&recorders), cancel.clone()));
        (recorders, state, cancel, task)
    };
    let (mut recorders, mut state, mut cancel, mut task) = start(&pasts);
    for act in acts {
        match act {
            Act::Mine(n) => drop(chain.mine(n, &sink())),
            Act::Reorg { depth, longer } => drop(chain.reorg(depth, depth + longer).unwrap()),
            Act::Invalidate { depth, then } => {
                chain.invalidate(depth).unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                chain.mine(then, &sink());
            }
            Act::Settle => settle(&mut state, chain.best()).await,
            Act::Breathe => tokio::task::yield_now().await,
            Act::Restart { back } => {
                cancel.cancel();
                task.await.unwrap();
                pasts = recorders.iter().map(|r| r.seen.lock().clone()).collect();
                let keep = pasts[1].len().saturating_sub(back).max(1);
                pasts[1].truncate(keep);
                (recorders, state, cancel, task) = start(&pasts);
            }
        }
    }
    settle(&mut state, chain.best()).await;
    cancel.cancel();
    task.await.unwrap();
    let expected = history(&chain, chain.best().height);
    for recorder in &recorders {
        assert_eq!(*recorder.seen.lock(), expected, "{}", recorder.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_schedule_ends_at_the_chain(
        acts in prop::collection::vec(act(), 1..25),
        fail_every in prop_oneof![Just(0u32), 25..60u32],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(play(acts, fail_every));
    }
}
