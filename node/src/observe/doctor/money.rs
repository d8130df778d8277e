//! Coins, channels, HTLCs, batches.

use std::time::Duration;

use channel_contracts::batch::{LeafState, UserPhase};

use super::{Check, count};
use crate::lightning::ChannelSnapshot;
use crate::observe::Observer;

/// Blocks before the expiry of an HTLC at which its channel is about to go on chain.
const EXPIRY_WARNING: i64 = 12;
const EXPIRY_ERROR: i64 = 3;
/// Blocks before the deadline of a channel of a batch: two days, one day.
const DEADLINE_WARNING: i64 = 288;
const DEADLINE_ERROR: i64 = 144;
/// For how long a peer may be offline before it is worth an alarm.
const OFFLINE_ERROR: Duration = Duration::from_secs(24 * 3_600);

fn height(observer: &Observer) -> i64 {
    observer.parts().sync.borrow().synced.map_or(0, |block| block.height).into()
}

pub(super) fn coins(observer: &Observer) -> Check {
    const NAME: &str = "wallet_coins";
    let balance = observer.parts().wallet.balance();
    let (confirmed, unconfirmed) = (balance.confirmed.to_sat(), balance.unconfirmed.to_sat());
    let is_needed = balance.reserved_for_anchors.to_sat() > 0;
    let finding = format!(
        "{confirmed} sat confirmed, {unconfirmed} unconfirmed, {} held, {} to spend",
        balance.held.to_sat(),
        balance.spendable.to_sat()
    );
    match (confirmed, is_needed) {
        (0, true) => Check::error(
            NAME,
            format_args!("{finding}: nothing can pay for the exit of a channel"),
            "send coins to an address of `tributary wallet address`",
        ),
        (0, false) => Check::ok(NAME, format_args!("{finding}; no channel needs any")),
        _ => Check::ok(NAME, finding),
    }
}

pub(super) fn anchor_reserve(observer: &Observer) -> Check {
    const NAME: &str = "anchor_reserve";
    let balance = observer.parts().wallet.balance();
    let required = balance.reserved_for_anchors.to_sat();
    match balance.anchor_reserve_missing.to_sat() {
        0 => Check::ok(NAME, format_args!("the {required} sat that open channels need are there")),
        missing => Check::warning(
            NAME,
            format_args!("{missing} sat of {required} that open channels need are missing"),
            format_args!(
                "send {missing} sat or more to an address of `tributary wallet address`: a channel \
                 that must be closed alone may not get into a block in time otherwise"
            ),
        ),
    }
}

pub(super) fn channels_online(observer: &Observer, channels: &[ChannelSnapshot]) -> Check {
    const NAME: &str = "channels_online";
    let open = channels.iter().filter(|channel| channel.ready && !channel.closing).count();
    let offline = observer.offline(channels);
    let Some((channel, longest)) = offline.iter().max_by_key(|(_, since)| **since) else {
        return Check::ok(NAME, format_args!("{} open, all peers online", count(open, "channel")));
    };
    let hours = longest.as_secs() / 3_600;
    let minutes = longest.as_secs() / 60 % 60;
    let finding = format!(
        "{} of {} offline, {channel} for {hours} h {minutes} min as far as it was seen",
        offline.len(),
        count(open, "open channel")
    );
    let remedy = "see `tributary channel list --state inactive` and connect (`tributary connect`); \
                  close by force only what does not come back";
    match *longest >= OFFLINE_ERROR {
        true => Check::error(NAME, finding, remedy),
        false => Check::warning(NAME, finding, remedy),
    }
}

pub(super) fn htlc_expiry(observer: &Observer, channels: &[ChannelSnapshot]) -> Check {
    const NAME: &str = "htlc_expiry";
    let htlcs = |channel: &ChannelSnapshot| channel.inbound_htlcs + channel.outbound_htlcs;
    let in_flight: u32 = channels.iter().map(htlcs).sum();
    let Some(expiry) = observer.parts().lightning.next_expiry() else {
        return Check::ok(NAME, "no HTLC is in flight");
    };
    let left = i64::from(expiry) - height(observer);
    let finding = format!(
        "{} in flight, the first expires in {left} blocks, at height {expiry}",
        count(in_flight as usize, "HTLC")
    );
    let remedy = "connect the peer it is with; settle or cancel what this node holds \
                  (`tributary hold`): else its channel is closed on chain";
    match left {
        left if left <= EXPIRY_ERROR => Check::error(NAME, finding, remedy),
        left if left <= EXPIRY_WARNING => Check::warning(NAME, finding, remedy),
        _ => Check::ok(NAME, finding),
    }
}

pub(super) async fn batch_deadlines(observer: &Observer) -> Check {
    const NAME: &str = "batch_deadlines";
    let joins = observer.parts().batches.joins().await;
    let live = joins
        .iter()
        .filter(|join| matches!(join.state, UserPhase::Leaf(LeafState::Confirmed { .. })));
    let deadlines: Vec<i64> = live
        .filter_map(|join| Some(i64::from(join.deadline?.to_consensus_u32()) - height(observer)))
        .collect();
    let Some(left) = deadlines.iter().min().copied() else {
        return Check::ok(NAME, "no channel of this node is in a batch");
    };
    let finding = format!(
        "{} in batches, the first must leave in {left} blocks",
        count(deadlines.len(), "channel")
    );
    let remedy = "connect to its hub, which rolls it over; `tributary batch exit` publishes its \
                  path instead, and costs coins";
    match left {
        left if left < DEADLINE_ERROR => Check::error(NAME, finding, remedy),
        left if left < DEADLINE_WARNING => Check::warning(NAME, finding, remedy),
        _ => Check::ok(NAME, finding),
    }
}
