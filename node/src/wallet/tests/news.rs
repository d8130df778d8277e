//! What the wallet tells of its transactions.

use super::*;
use crate::store::Ticket;

/// Keeps what it is told beside what it writes.
struct Heard {
    committer: Committer,
    news: Mutex<Vec<News>>,
}

impl Book for Heard {
    fn write(&self, news: &[News], writes: Batch) -> Ticket {
        self.news.lock().extend_from_slice(news);
        self.committer.enqueue(writes)
    }
}

impl Heard {
    fn take(&self) -> Vec<(Txid, Happened)> {
        let told = std::mem::take(&mut *self.news.lock());
        let told = told.into_iter().filter_map(|news| match news {
            News::Transaction { txid, what, .. } => Some((txid, what)),
            News::Disconnected(_) => None,
        });
        told.collect()
    }
}

/// Opens the wallet of `store` anew.
fn open(store: &Arc<MemoryStore>) -> (Arc<Wallet>, Arc<Heard>, Committer) {
    let committer = Committer::new(store.clone());
    let heard = Arc::new(Heard { committer: committer.clone(), news: Mutex::default() });
    let book = Arc::clone(&heard) as Arc<dyn Book>;
    let wallet = open_telling(&committer, book, PHRASE, Network::Regtest).unwrap();
    (Arc::new(wallet), heard, committer)
}

fn world() -> (World, Arc<Heard>) {
    let mut world = World::new();
    let heard;
    (world.wallet, heard, world.committer) = open(&world.store);
    (world, heard)
}

#[test]
fn a_deposit_is_seen_confirmed_and_unconfirmed_again() {
    let (mut world, heard) = world();
    let deposit = world.payment(&[50_000]);
    let txid = deposit.compute_txid();
    let _ = world.wallet.apply_unconfirmed(&deposit);
    let _told_once = world.wallet.apply_unconfirmed(&deposit);
    assert_eq!(heard.take(), [(txid, Happened::Seen)]);
    world.mine(vec![deposit]);
    world.mine(vec![]);
    assert_eq!(heard.take(), [(txid, Happened::Confirmed(1))]);

    let genesis = BlockRef { height: 0, hash: world.blocks[0].block_hash() };
    world.wallet.blocks_disconnected(genesis).unwrap();
    assert_eq!(*heard.news.lock(), {
        let what = Happened::Unconfirmed;
        let (sent, received) = (Amount::ZERO, sat(50_000));
        [News::Disconnected(genesis), News::Transaction { txid, what, sent, received }]
    });
}

#[test]
fn a_block_may_be_the_first_to_tell_and_its_reorg_takes_it_back() {
    let (mut world, heard) = world();
    let deposit = world.deposit(&[50_000]);
    let txid = deposit.compute_txid();
    assert_eq!(heard.take(), [(txid, Happened::Confirmed(1))]);
    let genesis = BlockRef { height: 0, hash: world.blocks[0].block_hash() };
    world.wallet.blocks_disconnected(genesis).unwrap();
    assert_eq!(heard.take(), [(txid, Happened::Unconfirmed)]);
    world.blocks.truncate(1);
    world.mine(vec![]);
    assert_eq!(heard.take(), [], "nobody has broadcast it");
    world.mine(vec![deposit]);
    assert_eq!(heard.take(), [(txid, Happened::Confirmed(2))]);
}

#[test]
fn what_is_replaced_is_told_with_what_replaces_it_and_a_restart_tells_nothing() {
    let (mut world, heard) = world();
    world.deposit(&[50_000]);
    let amount = SendAmount::Exact(sat(20_000));
    let sent = world.wallet.send(FOREIGN, amount, sat_vb(2)).unwrap().transaction;
    let _ = world.wallet.apply_unconfirmed(&sent);
    let first = sent.compute_txid();
    assert_eq!(heard.take().last(), Some(&(first, Happened::Made)));
    world.committer.cycle().unwrap();

    let (wallet, heard, committer) = open(&world.store);
    (world.wallet, world.committer) = (wallet, committer);
    assert_eq!(heard.take(), [], "it was told before");
    let bumped = world.wallet.bump_fee(first, sat_vb(9)).unwrap().transaction;
    let _ = world.wallet.apply_unconfirmed(&bumped);
    let second = bumped.compute_txid();
    let mut told = heard.take();
    told.sort();
    let mut expected = [(first, Happened::Replaced), (second, Happened::Made)];
    expected.sort();
    assert_eq!(told, expected);
    let replaced = world.wallet.transaction_ever(first).unwrap();
    assert_eq!((replaced.txid, replaced.replaced_by), (first, Some(second)));
    assert_eq!(world.wallet.transaction_ever(second).unwrap().replaced_by, None);
    assert_eq!(world.wallet.transaction(first), None, "lists have what counts");
}
