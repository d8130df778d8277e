//! The one reader of blocks: brings every listener to the tip and keeps all in lockstep.
//!
//! Listeners may start at different blocks, also at blocks that were reorged out while the node
//! was down. Block n + 1 is never handed out before every listener has had block n. What the
//! listeners do with blocks is theirs; where blocks come from is the [`ChainSource`]'s.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Block, BlockHash};
use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{BlockRef, ChainError, ChainSource};
use crate::environment::{Clock, UnixTime};

/// Blocks fetched at once while far behind.
const FETCH_AHEAD: u32 = 8;
/// Predecessors remembered, enough for any reorg that a source may have forgotten.
const ANCESTRY_MAX: usize = 2_016;

/// Somebody who must see every block once, in order.
///
/// Calls come one after the other from one task and should be short.
pub trait ChainListener: Send + Sync {
    /// A name for logs and status.
    fn name(&self) -> &str;

    /// Returns the last block seen, then a few of its ancestors, newest first.
    ///
    /// Empty for a listener without a past: it starts at the tip. The ancestors help where the
    /// source has forgotten a block that was reorged out.
    fn positions(&self) -> Vec<BlockRef>;

    /// Takes the block after the last one.
    fn block_connected(&self, block: &Arc<Block>, height: u32);

    /// Forgets all blocks above `fork_point`, which stays.
    fn blocks_disconnected(&self, fork_point: BlockRef);
}

/// How patient a follower is.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// Age of the tip's header at which the chain counts as stalled; `None` on regtest, where
    /// blocks come when somebody asks for them [mainnet 2 h].
    pub stall_after: Option<Duration>,
    /// First wait after a failure; doubles up to `retry_max` [250 ms].
    pub retry_min: Duration,
    /// Longest wait between tries [30 s].
    pub retry_max: Duration,
}

impl Default for FollowerConfig {
    fn default() -> Self {
        Self {
            stall_after: None,
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(30),
        }
    }
}

/// Where the node stands relative to the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncState {
    /// The source's tip, when last asked.
    pub tip: Option<BlockRef>,
    /// The block that every listener has seen.
    pub synced: Option<BlockRef>,
    /// Blocks that the slowest listener has yet to see.
    pub behind: u32,
    /// Since when the tip is older than it should be.
    pub stalled_since: Option<UnixTime>,
    /// Why the last look at the source failed; `None` after a good one.
    pub last_error: Option<String>,
}

impl SyncState {
    /// Says whether new risk may be taken: at the tip, no error, no stall.
    pub fn is_current(&self) -> bool {
        self.synced.is_some()
            && self.synced == self.tip
            && self.stalled_since.is_none()
            && self.last_error.is_none()
    }
}

/// Why a round ended without progress.
#[derive(Debug, Clone, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "the chain source is at height {tip}, but {listener} has seen {seen}; wait for it to sync, or check that it is the same chain"
    )]
    SourceBehind { listener: String, tip: u32, seen: u32 },
    #[error(
        "no common block of {listener} and the chain source is known at or below height {height}; check that it is the same chain"
    )]
    NoForkPoint { listener: String, height: u32 },
    #[error("the chain source broke the chain at height {height}; asking again")]
    BrokenLink { height: u32 },
}

#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Every listener is at this tip.
    Synced(BlockRef),
    /// Something moved; look again at once.
    Moved,
}

struct Cursor {
    listener: Arc<dyn ChainListener>,
    at: BlockRef,
}

/// Feeds blocks to listeners.
pub struct Follower {
    source: Arc<dyn ChainSource>,
    clock: Arc<dyn Clock>,
    config: FollowerConfig,
    state: watch::Sender<SyncState>,
    ancestry: Ancestry,
    /// Header time of the block that was asked about last.
    tip_time: Option<(BlockHash, UnixTime)>,
}

impl Follower {
    /// Prepares a follower; nothing is read before [`Self::catch_up`] or [`Self::run`].
    pub fn new(
        source: Arc<dyn ChainSource>,
        clock: Arc<dyn Clock>,
        config: FollowerConfig,
    ) -> Self {
        Self {
            source,
            clock,
            config,
            state: watch::Sender::new(SyncState::default()),
            ancestry: Ancestry::default(),
            tip_time: None,
        }
    }

    /// Watches where the follower stands.
    pub fn subscribe(&self) -> watch::Receiver<SyncState> {
        self.state.subscribe()
    }

    /// Brings `listeners` from wherever they are to a common tip and returns it; `None` if
    /// cancelled.
    ///
    /// For what must be current before it is put to use, as LDK's monitors at start. Failures
    /// of the source are retried for ever.
    pub async fn catch_up(
        &mut self,
        listeners: &[Arc<dyn ChainListener>],
        cancel: &CancellationToken,
    ) -> Option<BlockRef> {
        let mut cursors = None;
        self.reach_tip(listeners, &mut cursors, cancel).await
    }

    /// Follows the chain until cancelled.
    pub async fn run(mut self, listeners: Vec<Arc<dyn ChainListener>>, cancel: CancellationToken) {
        let mut cursors = None;
        while let Some(tip) = self.reach_tip(&listeners, &mut cursors, &cancel).await {
            let source = self.source.clone();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = source.changed(tip.hash) => {}
            }
        }
    }

    /// Rounds, with back-off after failures, until all cursors are at the tip.
    async fn reach_tip(
        &mut self,
        listeners: &[Arc<dyn ChainListener>],
        cursors: &mut Option<Vec<Cursor>>,
        cancel: &CancellationToken,
    ) -> Option<BlockRef> {
        let mut wait = self.config.retry_min;
        loop {
            let round = tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                round = self.round(listeners, cursors) => round,
            };
            match round {
                Ok(Round::Synced(tip)) => {
                    self.report(cursors, None);
                    return Some(tip);
                }
                Ok(Round::Moved) => {
                    wait = self.config.retry_min;
                    self.report(cursors, None);
                    // Catching up is long: others on this thread get their turn.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    let text = error.to_string();
                    if self.state.borrow().last_error.as_ref() != Some(&text) {
                        warn!(%error, "cannot follow the chain");
                    }
                    self.report(cursors, Some(text));
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return None,
                        () = tokio::time::sleep(wait) => {}
                    }
                    wait = (wait * 2).min(self.config.retry_max);
                }
            }
        }
    }

    async fn round(
        &mut self,
        listeners: &[Arc<dyn ChainListener>],
        cursors: &mut Option<Vec<Cursor>>,
    ) -> Result<Round, FollowError> {
        let tip = self.source.tip().await?;
        self.state.send_modify(|state| state.tip = Some(tip));
        self.note_tip_time(tip).await?;
        let cursors = cursors.get_or_insert_with(|| self.place(listeners, tip));
        if cursors.iter().all(|c| c.at == tip) {
            return Ok(Round::Synced(tip));
        }
        if let Some(beyond) = cursors.iter().find(|c| c.at.height > tip.height) {
            // An endpoint that lags, or the middle of a reorg. A chain that wins is longer, so
            // nothing is taken back before a longer one is seen.
            return Err(FollowError::SourceBehind {
                listener: beyond.listener.name().to_owned(),
                tip: tip.height,
                seen: beyond.at.height,
            });
        }
        if cursors.iter().any(|c| c.at.height == tip.height && c.at != tip) {
            self.rewind(cursors, |at| at.height == tip.height && at != tip).await?;
            return Ok(Round::Moved);
        }
        let low = cursors.iter().map(|c| c.at.height).min().unwrap_or(tip.height);
        let blocks = self.fetch(low + 1, tip.height).await?;
        for (height, block) in (low + 1..).zip(blocks) {
            if !self.feed(cursors, &block, height).await? {
                return Ok(Round::Moved);
            }
        }
        Ok(Round::Moved)
    }

    /// Puts every listener at its last block, those without one at the tip.
    fn place(&mut self, listeners: &[Arc<dyn ChainListener>], tip: BlockRef) -> Vec<Cursor> {
        listeners
            .iter()
            .map(|listener| {
                let positions = listener.positions();
                for pair in positions.windows(2) {
                    self.ancestry.insert(pair[0], pair[1]);
                }
                let at = positions.first().copied().unwrap_or(tip);
                debug!(listener = listener.name(), height = at.height, "listener placed");
                Cursor { listener: listener.clone(), at }
            })
            .collect()
    }

    /// Fetches the next blocks of the best chain, linked to each other.
    async fn fetch(&self, from: u32, tip: u32) -> Result<Vec<Arc<Block>>, FollowError> {
        let until = tip.min(from.saturating_add(FETCH_AHEAD - 1));
        let answers = join_all((from..=until).map(|height| async move {
            match self.source.block_hash(height).await? {
                Some(hash) => self.source.block(hash).await.map(Some),
                None => Ok(None),
            }
        }))
        .await;
        // A reorg between two calls shows as a gap or a broken link: take what is whole. A
        // failure ends the row too, and is told only if it leaves nothing.
        let mut linked: Vec<Arc<Block>> = Vec::with_capacity(answers.len());
        for answer in answers {
            let block = match answer {
                Err(error) if linked.is_empty() => return Err(error.into()),
                Ok(Some(block)) => block,
                Ok(None) | Err(_) => break,
            };
            let parent = block.header.prev_blockhash;
            if linked.last().is_some_and(|b| b.block_hash() != parent) {
                break;
            }
            linked.push(block);
        }
        if linked.is_empty() {
            return Err(FollowError::BrokenLink { height: from });
        }
        Ok(linked)
    }

    /// Hands `block` to the listeners right below it; `false` if one stood on another branch
    /// and was taken back instead.
    async fn feed(
        &mut self,
        cursors: &mut [Cursor],
        block: &Arc<Block>,
        height: u32,
    ) -> Result<bool, FollowError> {
        let parent = block.header.prev_blockhash;
        let below = height - 1;
        if cursors.iter().any(|c| c.at.height == below && c.at.hash != parent) {
            self.rewind(cursors, |at| at.height == below && at.hash != parent).await?;
            return Ok(false);
        }
        let at = BlockRef { height, hash: block.block_hash() };
        self.ancestry.insert(at, BlockRef { height: below, hash: parent });
        for cursor in cursors.iter_mut().filter(|c| c.at.height == below) {
            cursor.listener.block_connected(block, height);
            cursor.at = at;
        }
        Ok(true)
    }

    /// Takes the listeners whose place matches back to the best chain.
    async fn rewind(
        &mut self,
        cursors: &mut [Cursor],
        matches: impl Fn(BlockRef) -> bool,
    ) -> Result<(), FollowError> {
        let mut found: HashMap<BlockHash, BlockRef> = HashMap::new();
        for cursor in cursors.iter_mut().filter(|c| matches(c.at)) {
            let fork_point = match found.get(&cursor.at.hash) {
                Some(known) => *known,
                None => self.fork_point(cursor).await?,
            };
            found.insert(cursor.at.hash, fork_point);
            if fork_point != cursor.at {
                let (from, to) = (cursor.at.height, fork_point.height);
                info!(listener = cursor.listener.name(), from, to, "blocks disconnected");
                cursor.listener.blocks_disconnected(fork_point);
                cursor.at = fork_point;
            }
        }
        Ok(())
    }

    /// Walks down from a listener's block to the first one of the best chain.
    async fn fork_point(&self, cursor: &Cursor) -> Result<BlockRef, FollowError> {
        let mut at = cursor.at;
        let mut visited = HashSet::new();
        while self.source.block_hash(at.height).await? != Some(at.hash) {
            let lost = || FollowError::NoForkPoint {
                listener: cursor.listener.name().to_owned(),
                height: at.height,
            };
            if at.height == 0 || !visited.insert(at.hash) {
                return Err(lost());
            }
            let direct = self.ancestry.parent(at.hash).filter(|p| p.height + 1 == at.height);
            at = match direct {
                Some(parent) => parent,
                None => match self.source.block(at.hash).await {
                    Ok(block) => {
                        BlockRef { height: at.height - 1, hash: block.header.prev_blockhash }
                    }
                    // The source forgot it: the next older place of the listener must do.
                    Err(ChainError::UnknownBlock(_)) => cursor
                        .listener
                        .positions()
                        .into_iter()
                        .find(|p| p.height < at.height)
                        .ok_or_else(lost)?,
                    Err(error) => return Err(error.into()),
                },
            };
        }
        Ok(at)
    }

    async fn note_tip_time(&mut self, tip: BlockRef) -> Result<(), ChainError> {
        if self.config.stall_after.is_some()
            && self.tip_time.is_none_or(|(hash, _)| hash != tip.hash)
        {
            let header = self.source.block(tip.hash).await?.header;
            self.tip_time = Some((tip.hash, Duration::from_secs(u64::from(header.time))));
        }
        Ok(())
    }

    fn report(&self, cursors: &Option<Vec<Cursor>>, error: Option<String>) {
        let synced = cursors
            .as_ref()
            .and_then(|cursors| cursors.iter().map(|c| c.at).min_by_key(|at| at.height));
        let stalled_since = self.config.stall_after.and_then(|limit| {
            let since = self.tip_time?.1 + limit;
            (since <= self.clock.now()).then_some(since)
        });
        self.state.send_if_modified(|state| {
            let tip = state.tip;
            let synced = match cursors {
                // Without listeners, whoever asks is at the tip.
                Some(cursors) if cursors.is_empty() => tip,
                _ => synced,
            };
            let height = |block: Option<BlockRef>| block.map_or(0, |b| b.height);
            let new = SyncState {
                tip,
                synced,
                behind: height(tip).saturating_sub(height(synced)),
                stalled_since,
                last_error: error,
            };
            // The tip was written when it was seen; telling is due all the same.
            let changed = *state != new || new.synced == new.tip;
            if new.stalled_since.is_some() && state.stalled_since.is_none() {
                warn!(height = height(tip), "the chain's tip is stale");
            }
            *state = new;
            changed
        });
    }
}

/// Parents of blocks seen, so that a reorg can be walked without the source.
#[derive(Default)]
struct Ancestry {
    parents: HashMap<BlockHash, BlockRef>,
    order: VecDeque<BlockHash>,
}

impl Ancestry {
    fn insert(&mut self, block: BlockRef, parent: BlockRef) {
        if self.parents.insert(block.hash, parent).is_none() {
            self.order.push_back(block.hash);
        }
        while self.order.len() > ANCESTRY_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.parents.remove(&oldest);
            }
        }
    }

    fn parent(&self, hash: BlockHash) -> Option<BlockRef> {
        self.parents.get(&hash).copied()
    }
}

#[cfg(test)]
mod tests;
