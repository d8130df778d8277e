//! The queue on the embedded chain.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::*;
use crate::chain::embedded::EmbeddedChain;
use crate::chain::embedded::tests::bench::*;
use crate::chain::{ChainError, ChainSource};

/// Mines and shows the queue the blocks, as a follower would.
struct Bench {
    chain: EmbeddedChain,
    queue: BroadcastQueue,
    line: Arc<Line>,
}

/// Records submissions; may be cut.
struct Line {
    chain: EmbeddedChain,
    cut: AtomicBool,
    seen: Mutex<Vec<Vec<Txid>>>,
}

#[async_trait]
impl Broadcaster for Line {
    async fn submit(&self, package: &[Transaction]) -> Result<(), BroadcastError> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(ChainError::Unreachable("cut".to_owned()).into());
        }
        self.seen.lock().push(package.iter().map(Transaction::compute_txid).collect());
        self.chain.accept(package)
    }
}

impl Bench {
    fn new(limits: BroadcastLimits) -> Self {
        let chain = chain();
        let line =
            Line { chain: chain.clone(), cut: AtomicBool::new(false), seen: Mutex::default() };
        Self { chain, queue: BroadcastQueue::new(limits), line: Arc::new(line) }
    }

    async fn work(&self) -> bool {
        self.queue.submit_due(&*self.line).await
    }

    fn show(&self, from: u32) {
        for (block, height) in self.chain.export().iter().zip(1..).skip(from as usize - 1) {
            self.queue.block_connected(&Arc::new(block.clone()), height);
        }
    }

    fn mine(&self, n: u32) {
        let from = self.chain.best().height + 1;
        self.chain.mine(n, &sink());
        self.show(from);
    }
}

#[tokio::test]
async fn transaction_is_offered_until_six_deep_and_again_after_a_reorg() {
    let bench = Bench::new(BroadcastLimits::default());
    let coin = coins(&bench.chain, 100_000, 0..1).remove(0);
    let tx = spend(2, &[&coin], vec![pay(1, 99_000)]);
    bench.queue.push(vec![tx.clone()]);
    bench.queue.push(vec![tx.clone()]);
    assert_eq!(bench.queue.unburied(), vec![vec![tx.clone()]]);
    assert!(bench.work().await);
    assert_eq!(bench.chain.mempool().await.unwrap(), vec![tx.compute_txid()]);
    bench.mine(5);
    assert_eq!(bench.queue.pending().len(), 1);
    // All five go; the mempool forgets it too.
    let fork = bench.chain.best().height - 5;
    bench.chain.reorg_with(5, vec![Vec::new(); 6]).unwrap();
    bench.chain.set_mempool_minimum(bitcoin::FeeRate::from_sat_per_vb(900).unwrap());
    bench.chain.set_mempool_minimum(bitcoin::FeeRate::ZERO);
    assert!(bench.chain.mempool().await.unwrap().is_empty());
    let hash = bench.chain.block_hash(fork).await.unwrap().unwrap();
    bench.queue.blocks_disconnected(BlockRef { height: fork, hash });
    bench.show(fork + 1);
    assert!(bench.work().await);
    assert_eq!(bench.chain.mempool().await.unwrap(), vec![tx.compute_txid()]);
    bench.mine(6);
    assert!(bench.queue.pending().is_empty());
    assert!(bench.queue.shared.state.lock().by_input.is_empty());
}

#[tokio::test]
async fn loser_of_a_double_spend_is_dropped_once_the_rival_is_buried() {
    let bench = Bench::new(BroadcastLimits::default());
    let coin = coins(&bench.chain, 100_000, 0..1).remove(0);
    let ours = spend(2, &[&coin], vec![pay(1, 99_000)]);
    let rival = spend(2, &[&coin], vec![pay(2, 90_000)]);
    bench.chain.accept(&[rival]).unwrap();
    bench.queue.push(vec![ours]);
    assert!(bench.work().await);
    let pending = bench.queue.pending().remove(0);
    assert!(!pending.taken);
    assert!(pending.refusal.unwrap().contains("insufficient fee"));
    bench.mine(5);
    assert_eq!(bench.queue.pending().len(), 1);
    bench.mine(1);
    assert!(bench.queue.pending().is_empty());
}

#[tokio::test]
async fn family_goes_as_package_and_strangers_one_by_one() {
    let bench = Bench::new(BroadcastLimits::default());
    let coins = coins(&bench.chain, 100_000, 0..4);
    let parent = spend(3, &[&coins[0]], vec![pay(1, 100_000), anchor(0)]);
    let child = spend(3, &[&coins[1], &anchor_coin(&parent, 1)], vec![pay(2, 98_000)]);
    let strangers = [2, 3].map(|n| spend(2, &[&coins[n]], vec![pay(3, 99_000)]));
    bench.queue.push(vec![parent.clone(), child.clone()]);
    bench.queue.push(strangers.to_vec());
    assert!(bench.work().await);
    assert!(bench.queue.pending().iter().all(|p| p.taken));
    assert_eq!(bench.chain.stats().waiting, 4);
    let seen = bench.line.seen.lock().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(seen, vec![2, 2, 1, 1]);
    // What has confirmed is not offered again.
    bench.mine(1);
    assert!(bench.work().await);
    assert_eq!(bench.line.seen.lock().len(), 4);
}

#[tokio::test]
async fn cut_line_keeps_order_and_loses_nothing() {
    let bench = Bench::new(BroadcastLimits::default());
    let coins = coins(&bench.chain, 100_000, 0..3);
    let txs: Vec<_> = coins.iter().map(|c| spend(2, &[c], vec![pay(1, 99_000)])).collect();
    bench.line.cut.store(true, Ordering::Relaxed);
    for tx in &txs {
        bench.queue.push(vec![tx.clone()]);
    }
    assert!(!bench.work().await);
    bench.line.cut.store(false, Ordering::Relaxed);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(bench.queue.clone().run(bench.line.clone(), cancel.clone()));
    while bench.chain.stats().waiting < 3 {
        tokio::task::yield_now().await;
    }
    let order: Vec<_> = txs.iter().map(|tx| vec![tx.compute_txid()]).collect();
    assert_eq!(*bench.line.seen.lock(), order);
    // A push wakes the task.
    let late = spend(2, &[&output_coin(&txs[0], 0, 1)], vec![pay(1, 98_000)]);
    bench.queue.push(vec![late]);
    while bench.chain.stats().waiting < 4 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn queue_is_bounded_in_number_and_age() {
    let bench = Bench::new(BroadcastLimits { packages_max: 2, age_max: 3 });
    let coins = coins(&bench.chain, 100_000, 0..3);
    // Orphans: they never confirm.
    let orphans = coins.iter().map(|coin| {
        let parent = spend(2, &[coin], vec![pay(1, 99_000)]);
        spend(2, &[&output_coin(&parent, 0, 1)], vec![pay(2, 98_000)])
    });
    let txids: Vec<_> = orphans
        .map(|tx| {
            let txid = tx.compute_txid();
            bench.queue.push(vec![tx]);
            vec![txid]
        })
        .collect();
    assert!(bench.work().await);
    let pending = bench.queue.pending();
    assert_eq!(pending.iter().map(|p| p.txids.clone()).collect::<Vec<_>>(), txids[1..]);
    assert!(pending[0].refusal.as_ref().unwrap().contains("missing or spent"));
    bench.mine(3);
    assert_eq!(bench.queue.pending()[0].age, 3);
    bench.mine(1);
    assert!(bench.queue.pending().is_empty());
}

#[tokio::test]
async fn withdrawn_packages_are_offered_no_more() {
    let bench = Bench::new(BroadcastLimits::default());
    let coins = coins(&bench.chain, 100_000, 0..2);
    let parent = spend(2, &[&coins[0]], vec![pay(1, 99_000)]);
    let child = |to| spend(2, &[&output_coin(&parent, 0, 1), &coins[1]], vec![pay(to, 190_000)]);
    let (first, second) = (child(2), child(3));
    bench.queue.push(vec![parent.clone(), first.clone()]);
    bench.queue.push(vec![first.clone()]);
    bench.queue.push(vec![parent.clone(), second.clone()]);
    // Only as the last of a package: its parent is not it.
    bench.queue.withdraw(parent.compute_txid());
    bench.queue.withdraw(first.compute_txid());
    bench.queue.withdraw(first.compute_txid());
    assert_eq!(bench.queue.unburied(), vec![vec![parent, second]]);
    assert!(!bench.queue.shared.state.lock().by_txid.contains_key(&first.compute_txid()));
}
