//! Updates of channels that are not in the graph yet.

use std::collections::{HashMap, VecDeque};

use lightning::ln::msgs::ChannelUpdate;
use parking_lot::Mutex;

/// Channels whose updates are kept; the oldest makes room. An update takes about 140 bytes.
const CHANNELS_MAX: usize = 1_000;
/// BOLT 7 `message_flags`: the update is for the channel's own peer.
const DONT_FORWARD: u8 = 1 << 1;

/// The newest update of each direction of channels that wait for their announcement.
#[derive(Default)]
pub(super) struct EarlyUpdates {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_channel: HashMap<u64, [Option<ChannelUpdate>; 2]>,
    /// The same channels, oldest first.
    order: VecDeque<u64>,
}

impl EarlyUpdates {
    /// Keeps `update` until its channel is announced.
    pub(super) fn keep(&self, update: &ChannelUpdate) {
        if update.contents.message_flags & DONT_FORWARD != 0 {
            return;
        }
        let scid = update.contents.short_channel_id;
        let mut kept = self.kept.lock();
        if !kept.by_channel.contains_key(&scid) {
            kept.order.push_back(scid);
        }
        let direction = usize::from(update.contents.channel_flags & 1);
        let place = &mut kept.by_channel.entry(scid).or_default()[direction];
        if place.as_ref().is_none_or(|old| old.contents.timestamp < update.contents.timestamp) {
            *place = Some(update.clone());
        }
        while kept.order.len() > CHANNELS_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_channel.remove(&oldest);
            }
        }
    }

    /// Takes what was kept of the channel `scid`.
    pub(super) fn take(&self, scid: u64) -> impl Iterator<Item = ChannelUpdate> + use<> {
        let mut kept = self.kept.lock();
        let updates = kept.by_channel.remove(&scid);
        if updates.is_some() {
            kept.order.retain(|other| *other != scid);
        }
        updates.into_iter().flatten().flatten()
    }
}
