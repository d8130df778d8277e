//! What the node shows of itself: figures for Prometheus, and what is wrong with a word on what
//! to do.
//!
//! Services count what happens, each in a struct of its own. Here is what reads them, beside
//! everything that can be looked up when it is asked for: `families/` writes the page, `doctor/`
//! judges. Nothing here changes anything, but that [`Observer::start`] arms what measures, if the
//! configuration asks for figures or spans.

pub mod doctor;
mod families;
mod process;
mod subscribers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use crate::batches::Batches;
use crate::chain::ChainSource;
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::FeeEstimates;
use crate::chain::follower::SyncState;
use crate::channels::Channels;
use crate::config::Config;
use crate::environment::{Clock, Entropy, UnixTime};
use crate::journal::Journal;
use crate::lightning::types::ChannelRef;
use crate::lightning::{ChannelSnapshot, Lightning};
use crate::payments::Payments;
use crate::runtime::Tasks;
use crate::runtime::metrics::{Counter, Exposed, Page};
use crate::runtime::spans::Spans;
use crate::store::Committer;
use crate::swaps::Swaps;
use crate::tower::client::Towers;
use crate::tower::server::Tower;
use crate::wallet::Wallet;
use crate::webhooks::Webhooks;

pub use process::ProcessFigures;
pub use subscribers::{Subscriber, Subscribers};

/// How often it is noted which channels are offline.
const LOOK: Duration = Duration::from_secs(60);

/// What is looked at.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The way to the store.
    pub committer: Committer,
    /// The log of events.
    pub journal: Journal,
    /// Coins.
    pub wallet: Arc<Wallet>,
    /// Feerates.
    pub fees: FeeEstimates,
    /// What is on its way to the mempool.
    pub broadcasts: BroadcastQueue,
    /// LDK.
    pub lightning: Arc<Lightning>,
    /// Channels.
    pub channels: Arc<Channels>,
    /// Payments.
    pub payments: Arc<Payments>,
    /// Batches.
    pub batches: Arc<Batches>,
    /// Withdrawals and deposits.
    pub swaps: Arc<Swaps>,
    /// The towers that guard this node.
    pub towers: Arc<Towers>,
    /// This node as a tower, if it is one.
    pub tower: Option<Arc<Tower>>,
    /// Who is told of events.
    pub webhooks: Arc<Webhooks>,
    /// How far the chain was followed.
    pub sync: watch::Receiver<SyncState>,
    /// The chain.
    pub chain: Arc<dyn ChainSource>,
    /// How often a look at it failed.
    pub chain_failures: Arc<Counter>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for names of spans.
    pub entropy: Arc<dyn Entropy>,
    /// When the node started.
    pub started: UnixTime,
    /// Where spans go.
    pub spans: Spans,
}

/// Looks at a node.
pub struct Observer {
    parts: Parts,
    /// Figures of those above this room.
    doors: Mutex<Vec<Arc<dyn Exposed>>>,
    subscribers: Arc<Subscribers>,
    /// One page at a time: a second who asks waits for the first.
    writing: AsyncMutex<()>,
    /// The time of the block last asked about.
    tip_time: Mutex<Option<(BlockHash, u64)>>,
    /// Since when open channels are offline.
    offline: Mutex<BTreeMap<ChannelRef, Instant>>,
    scrapes: Counter,
}

impl Observer {
    /// Begins to look. Arms what measures, if the configuration asks for figures or spans.
    pub fn start(parts: Parts, tasks: &Tasks) -> Arc<Self> {
        let observer = Arc::new(Self {
            parts,
            doors: Mutex::default(),
            subscribers: Arc::default(),
            writing: AsyncMutex::default(),
            tip_time: Mutex::default(),
            offline: Mutex::default(),
            scrapes: Counter::default(),
        });
        if observer.is_armed() {
            observer.arm();
        }
        // A node that nobody can ask, one of a simulation, is spared.
        if observer.is_armed() || !observer.parts.config.rpc.listen.is_empty() {
            let (this, own) = (Arc::clone(&observer), tasks.clone());
            tasks.spawn("channel watch", async move {
                loop {
                    this.note_offline(&this.parts.lightning.channels());
                    tokio::select! {
                        biased;
                        () = own.stopped() => return,
                        () = tokio::time::sleep(LOOK) => {}
                    }
                }
            });
        }
        observer
    }

    /// Whether figures or spans are asked for, so that what costs time is measured.
    pub fn is_armed(&self) -> bool {
        !self.parts.config.metrics.listen.is_empty() || self.parts.spans.is_on()
    }

    fn arm(&self) {
        let parts = &self.parts;
        let node = parts.lightning.node_id();
        parts.committer.probe().arm();
        parts.lightning.htlcs().arm(node, parts.spans.clone());
        parts.payments.probe().arm(node, parts.spans.clone());
        parts.batches.phases().arm();
        parts.webhooks.figures().arm();
    }

    /// What it looks at.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Adds figures to the page.
    pub fn add(&self, door: Arc<dyn Exposed>) {
        self.doors.lock().push(door);
    }

    /// Who reads the log of events as it grows.
    pub fn subscribers(&self) -> &Arc<Subscribers> {
        &self.subscribers
    }

    /// The page of figures, in the text format of Prometheus.
    pub async fn page(&self) -> String {
        let _one_at_a_time = self.writing.lock().await;
        self.scrapes.increment();
        let begun = Instant::now();
        let mut page = Page::default();
        families::write(self, &mut page).await;
        for door in self.doors.lock().iter() {
            door.expose(&mut page);
        }
        let took = crate::runtime::metrics::Seconds(begun.elapsed());
        page.gauge("tributary_scrape_seconds", "How long it took to write this page.", took);
        page.text()
    }

    /// The time in the header of the block that the node has followed the chain to, seconds since
    /// 1970; a block is fetched once.
    pub async fn tip_time(&self) -> Option<u64> {
        let hash = self.parts.sync.borrow().synced?.hash;
        let known = *self.tip_time.lock();
        if let Some((_, time)) = known.filter(|(known, _)| *known == hash) {
            return Some(time);
        }
        let block = self.parts.chain.block(hash).await.ok()?;
        let time = u64::from(block.header.time);
        *self.tip_time.lock() = Some((hash, time));
        Some(time)
    }

    /// Notes which channels are offline, and forgets those that are back.
    fn note_offline(&self, channels: &[ChannelSnapshot]) {
        let now = Instant::now();
        let is_offline =
            |channel: &&ChannelSnapshot| channel.ready && !channel.closing && !channel.usable;
        let offline: Vec<ChannelRef> =
            channels.iter().filter(is_offline).map(|channel| channel.channel).collect();
        let mut since = self.offline.lock();
        since.retain(|channel, _| offline.contains(channel));
        for channel in offline {
            since.entry(channel).or_insert(now);
        }
    }

    /// Since how long open channels are offline, as far as it was seen.
    fn offline(&self, channels: &[ChannelSnapshot]) -> BTreeMap<ChannelRef, Duration> {
        self.note_offline(channels);
        let since = self.offline.lock();
        since.iter().map(|(channel, since)| (*channel, since.elapsed())).collect()
    }
}
