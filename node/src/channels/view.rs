//! Channels as callers see them: one, a page, or one followed through its life.

use std::collections::{HashMap, HashSet};

use bitcoin::{OutPoint, Txid};
use tokio::sync::watch;

use super::record::{ChannelRecord, ChannelState};
use super::service::Channels;
use crate::journal::{Ends, Follow, Latest};
use crate::lightning::ChannelSnapshot;
use crate::lightning::types::{ChannelId, ChannelRef};
use crate::store::StoreError;

/// A channel's record and, while it lives, what LDK says of it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelView {
    /// The record.
    pub record: ChannelRecord,
    /// LDK's view.
    pub live: Option<ChannelSnapshot>,
    /// The transaction in a block that ended it.
    pub closing_txid: Option<Txid>,
}

/// One page of channels, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPage {
    /// The channels.
    pub channels: Vec<ChannelView>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<ChannelRef>,
}

/// The newest record of each channel.
pub(super) type Records = HashMap<ChannelRef, watch::Sender<Latest<ChannelRecord>>>;

/// Follows one channel's record.
pub type ChannelWatch = Follow<ChannelRecord>;

impl Ends for ChannelRecord {
    fn has_ended(&self) -> bool {
        self.state == ChannelState::Closed
    }
}

impl Channels {
    /// One channel.
    pub fn get(&self, channel: ChannelRef) -> Option<ChannelView> {
        let record = self.records.lock().get(&channel)?.borrow().0.clone();
        let live = self.parts.lightning.channels().into_iter().find(|c| c.channel == channel);
        Some(self.view(record, live))
    }

    /// One channel's record as last written, durable or not: for what never changes in it.
    pub fn recorded(&self, channel: ChannelRef) -> Option<ChannelRecord> {
        Some(self.records.lock().get(&channel)?.borrow().0.clone())
    }

    /// Where each channel stands that ever was, by our record.
    pub fn states(&self) -> Vec<(ChannelRef, ChannelState)> {
        let records = self.records.lock();
        records.iter().map(|(channel, latest)| (*channel, latest.borrow().0.state)).collect()
    }

    /// One channel, once what is shown of it is durable; `None` if there is no such channel.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn look_up(&self, channel: ChannelRef) -> Result<Option<ChannelView>, StoreError> {
        let view = self.get(channel);
        self.parts.committer.durable(self.parts.committer.now()).await?;
        Ok(view)
    }

    /// The funding outputs of all channels that ever were.
    pub fn fundings(&self) -> HashSet<OutPoint> {
        self.snapshot_records().into_iter().filter_map(|record| record.funding).collect()
    }

    /// Channels by the funding output they have, or had.
    pub fn by_funding(&self) -> HashMap<OutPoint, ChannelRef> {
        let records = self.snapshot_records().into_iter();
        records.filter_map(|record| Some((record.funding?, record.channel))).collect()
    }

    /// One channel by LDK's id.
    pub fn find(&self, channel_id: ChannelId) -> Option<ChannelRef> {
        self.snapshot_records()
            .into_iter()
            .find(|record| record.channel_id == Some(channel_id))
            .map(|record| record.channel)
    }

    pub(super) async fn get_durable(&self, channel: ChannelRef) -> Result<ChannelView, StoreError> {
        let view = self
            .get(channel)
            .ok_or_else(|| StoreError::Corrupt(format!("channel {channel} has no record")))?;
        self.parts.committer.durable(self.parts.committer.now()).await?;
        Ok(view)
    }

    /// Follows one channel.
    pub fn watch(&self, channel: ChannelRef) -> Option<ChannelWatch> {
        let latest = self.records.lock().get(&channel)?.subscribe();
        Some(ChannelWatch::new(latest, self.parts.journal.clone()))
    }

    /// Channels that `filter` takes, newest first, at most `limit`, from `page` on.
    ///
    /// # Errors
    ///
    /// If the store fails before what was read is durable.
    pub async fn list(
        &self,
        filter: impl Fn(&ChannelRecord, Option<&ChannelSnapshot>) -> bool,
        page: Option<ChannelRef>,
        limit: usize,
    ) -> Result<ChannelPage, StoreError> {
        let mut records = self.snapshot_records();
        let mut live: HashMap<ChannelRef, ChannelSnapshot> =
            self.parts.lightning.channels().into_iter().map(|c| (c.channel, c)).collect();
        self.parts.committer.durable(self.parts.committer.now()).await?;
        records.sort_by_key(|r| (std::cmp::Reverse(r.created_ms), r.channel));
        let start = match page {
            Some(last) => records.iter().position(|r| r.channel == last).map_or(0, |at| at + 1),
            None => 0,
        };
        let records: Vec<ChannelRecord> = records
            .into_iter()
            .skip(start)
            .filter(|record| filter(record, live.get(&record.channel)))
            .take(limit.saturating_add(1))
            .collect();
        let mut channels: Vec<ChannelView> = records
            .into_iter()
            .map(|record| {
                let live = live.remove(&record.channel);
                self.view(record, live)
            })
            .collect();
        let more = channels.len() > limit;
        channels.truncate(limit);
        let next = channels.last().filter(|_| more).map(|view| view.record.channel);
        Ok(ChannelPage { channels, next })
    }

    pub(super) fn state(&self, channel: ChannelRef) -> Option<ChannelState> {
        Some(self.records.lock().get(&channel)?.borrow().0.state)
    }

    fn view(&self, record: ChannelRecord, live: Option<ChannelSnapshot>) -> ChannelView {
        let closing_txid = self.parts.endings.of(&record);
        ChannelView { record, live, closing_txid }
    }

    pub(super) fn snapshot_records(&self) -> Vec<ChannelRecord> {
        self.records.lock().values().map(|latest| latest.borrow().0.clone()).collect()
    }
}
