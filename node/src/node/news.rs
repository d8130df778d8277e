//! What the journal tells of coins and chain: the wallet's news, and what a look at the chain says.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use tokio::sync::watch;
use tokio::time::Instant;

use super::synced_height;
use crate::chain::follower::SyncState;
use crate::journal::{ChainEvent, DomainEvent, Journal, NodeEvent, WalletEvent, WalletStep};
use crate::runtime::Tasks;
use crate::store::{Batch, Ticket};
use crate::wallet::{Book, Happened, News, Wallet};

/// How often the reserve for force-closes is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// A source that fails for less is not told of.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes what the wallet stores together with the journal's record of it.
pub(super) struct JournalBook(pub Journal);

impl Book for JournalBook {
    fn write(&self, news: &[News], writes: Batch) -> Ticket {
        let events: Vec<DomainEvent> = news.iter().map(told).collect();
        self.0.append(&events, writes)
    }
}

fn told(news: &News) -> DomainEvent {
    match news {
        News::Transaction { txid, what, sent, received } => DomainEvent::Wallet(WalletEvent {
            txid: *txid,
            step: match *what {
                Happened::Made => WalletStep::Created,
                Happened::Seen => WalletStep::Seen,
                Happened::Confirmed(height) => WalletStep::Confirmed { height },
                Happened::Unconfirmed => WalletStep::Unconfirmed,
                Happened::Replaced => WalletStep::Replaced,
            },
            spent_sat: sent.to_sat(),
            received_sat: received.to_sat(),
        }),
        News::Disconnected(fork) => {
            DomainEvent::Chain(ChainEvent::Reorganised { height: fork.height, hash: fork.hash })
        }
    }
}

/// Tells the journal that the node is up.
pub(super) fn tell_of_start(journal: &Journal, height: u32) -> Ticket {
    let started = NodeEvent::Started { version: env!("CARGO_PKG_VERSION").into(), height };
    journal.append(&[DomainEvent::Node(started)], Batch::default())
}

/// Tells the journal where the chain stands and what the reserve lacks, from now on.
pub(super) fn tell_of_chain(
    journal: &Journal,
    wallet: &Arc<Wallet>,
    sync: &watch::Receiver<SyncState>,
    tasks: &Tasks,
) {
    let watching = watch_chain(journal.clone(), Arc::clone(wallet), sync.clone(), tasks.clone());
    tasks.spawn("chain events", watching);
}

async fn watch_chain(
    journal: Journal,
    wallet: Arc<Wallet>,
    mut sync: watch::Receiver<SyncState>,
    tasks: Tasks,
) {
    let mut look = tokio::time::interval(LOOK);
    let mut watchman = Watchman::default();
    loop {
        let mut events = Vec::new();
        tokio::select! {
            biased;
            () = tasks.stopped() => break,
            changed = sync.changed() => if changed.is_err() { break },
            _ = look.tick() => {
                events.extend(watchman.reserve(wallet.balance().anchor_reserve_missing));
            }
        }
        events.extend(watchman.chain(&sync.borrow_and_update(), Instant::now()));
        if !events.is_empty() {
            let _nobody_waits = journal.append(&events, Batch::default());
        }
    }
}

/// What was told last.
#[derive(Default)]
struct Watchman {
    is_synced: bool,
    is_stalled: bool,
    is_short: bool,
    failing_since: Option<Instant>,
    is_lost: bool,
}

impl Watchman {
    fn chain(&mut self, state: &SyncState, now: Instant) -> Vec<DomainEvent> {
        let height = synced_height(state);
        let mut events = Vec::new();
        match (&state.last_error, self.failing_since) {
            (Some(_), None) => self.failing_since = Some(now),
            (Some(why), Some(since)) if !self.is_lost && now >= since + PATIENCE => {
                self.is_lost = true;
                events.push(ChainEvent::SourceLost { height, why: why.clone() });
            }
            (None, _) => {
                self.failing_since = None;
                if std::mem::take(&mut self.is_lost) {
                    events.push(ChainEvent::SourceBack { height });
                }
            }
            _ => {}
        }
        if state.stalled_since.is_some() && !self.is_stalled {
            (self.is_stalled, self.is_synced) = (true, false);
            events.push(ChainEvent::Stalled { height });
        }
        self.is_stalled &= state.stalled_since.is_some();
        if let Some(tip) = state.synced.filter(|_| state.is_current() && !self.is_synced) {
            self.is_synced = true;
            events.push(ChainEvent::Synced { height: tip.height, hash: tip.hash });
        }
        events.into_iter().map(DomainEvent::Chain).collect()
    }

    fn reserve(&mut self, missing: Amount) -> Option<DomainEvent> {
        let is_short = missing > Amount::ZERO;
        if is_short == std::mem::replace(&mut self.is_short, is_short) {
            return None;
        }
        Some(DomainEvent::Node(match is_short {
            true => NodeEvent::AnchorReserveShort { missing_sat: missing.to_sat() },
            false => NodeEvent::AnchorReserveWhole,
        }))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    use super::*;
    use crate::chain::BlockRef;

    fn at(height: u32) -> SyncState {
        let tip = Some(BlockRef { height, hash: BlockHash::all_zeros() });
        SyncState { tip, synced: tip, ..SyncState::default() }
    }

    fn chain(event: ChainEvent) -> Vec<DomainEvent> {
        vec![DomainEvent::Chain(event)]
    }

    #[test]
    fn the_tip_is_told_once_and_again_after_a_stall() {
        let (mut watchman, now) = (Watchman::default(), Instant::now());
        let hash = BlockHash::all_zeros();
        assert_eq!(watchman.chain(&SyncState::default(), now), []);
        assert_eq!(watchman.chain(&at(7), now), chain(ChainEvent::Synced { height: 7, hash }));
        assert_eq!(watchman.chain(&at(8), now), []);
        let stalled = SyncState { stalled_since: Some(Duration::ZERO), ..at(8) };
        assert_eq!(watchman.chain(&stalled, now), chain(ChainEvent::Stalled { height: 8 }));
        assert_eq!(watchman.chain(&stalled, now), []);
        assert_eq!(watchman.chain(&at(9), now), chain(ChainEvent::Synced { height: 9, hash }));
    }

    #[test]
    fn a_source_is_lost_once_it_fails_for_long() {
        let (mut watchman, now) = (Watchman::default(), Instant::now());
        let _synced = watchman.chain(&at(7), now);
        let fails = SyncState { last_error: Some("no route".into()), ..at(7) };
        assert_eq!(watchman.chain(&fails, now), []);
        assert_eq!(watchman.chain(&at(7), now + PATIENCE), [], "it came back in time");
        assert_eq!(watchman.chain(&fails, now + PATIENCE), []);
        let lost = ChainEvent::SourceLost { height: 7, why: "no route".into() };
        assert_eq!(watchman.chain(&fails, now + 2 * PATIENCE), chain(lost));
        assert_eq!(watchman.chain(&fails, now + 3 * PATIENCE), []);
        let back = chain(ChainEvent::SourceBack { height: 7 });
        assert_eq!(watchman.chain(&at(7), now + 3 * PATIENCE), back);
    }

    #[test]
    fn a_reserve_is_told_of_when_it_changes() {
        let mut watchman = Watchman::default();
        assert_eq!(watchman.reserve(Amount::ZERO), None);
        let short = NodeEvent::AnchorReserveShort { missing_sat: 5 };
        assert_eq!(watchman.reserve(Amount::from_sat(5)), Some(DomainEvent::Node(short)));
        assert_eq!(watchman.reserve(Amount::from_sat(4)), None);
        let whole = DomainEvent::Node(NodeEvent::AnchorReserveWhole);
        assert_eq!(watchman.reserve(Amount::ZERO), Some(whole));
    }
}
