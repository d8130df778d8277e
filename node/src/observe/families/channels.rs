//! Channels, balances, HTLCs, peers.
//!
//! Sums over all channels; a line for each channel only where `metrics.per_channel` asks for it,
//! since a hub has ten thousands.

use std::collections::HashMap;

use crate::channels::ChannelState;
use crate::lightning::ChannelSnapshot;
use crate::lightning::types::ChannelRef;
use crate::observe::Observer;
use crate::runtime::metrics::{Kind, Page, Seconds};

/// Every state, as `Node.GetInfo` counts them.
const STATES: [&str; 5] = ["pending", "active", "inactive", "closing", "closed"];

fn state(record: ChannelState, live: Option<&ChannelSnapshot>) -> &'static str {
    match record {
        ChannelState::Opening | ChannelState::AwaitingConfirmation => "pending",
        ChannelState::Active if live.is_some_and(|live| live.usable) => "active",
        ChannelState::Active if live.is_some_and(|live| live.closing) => "closing",
        ChannelState::Active => "inactive",
        ChannelState::Closing | ChannelState::ForceClosing => "closing",
        ChannelState::Closed => "closed",
    }
}

pub(super) async fn write(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let live = parts.lightning.channels();
    let by_ref: HashMap<ChannelRef, &ChannelSnapshot> =
        live.iter().map(|channel| (channel.channel, channel)).collect();
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for (channel, record) in parts.channels.states() {
        *counts.entry(state(record, by_ref.get(&channel).copied())).or_default() += 1;
    }
    let help = "Channels by state; inactive is open with the peer offline.";
    let mut family = page.family("tributary_channels", Kind::Gauge, help);
    for state in STATES {
        family.sample(&[("state", state)], counts.get(state).copied().unwrap_or(0));
    }
    let offline = observer.offline(&live).into_values().max().unwrap_or_default();
    page.gauge(
        "tributary_channel_offline_max_seconds",
        "How long the peer of an open channel has been offline at most, as far as it was seen.",
        Seconds(offline),
    );
    let sum = |of: &dyn Fn(&ChannelSnapshot) -> u64| -> u64 { live.iter().map(of).sum() };
    let help = "Balances in channels, in millisatoshi; what is in flight belongs to nobody.";
    page.family("tributary_channels_balance_msat", Kind::Gauge, help)
        .sample(&[("side", "local")], sum(&|channel| channel.local_msat))
        .sample(&[("side", "remote")], sum(&|channel| channel.remote_msat));
    let usable = |of: fn(&ChannelSnapshot) -> u64| -> u64 {
        live.iter().filter(|channel| channel.usable).map(of).sum()
    };
    let help = "What usable channels can carry now, in millisatoshi.";
    page.family("tributary_channels_capacity_msat", Kind::Gauge, help)
        .sample(&[("direction", "outbound")], usable(|channel| channel.spendable_msat))
        .sample(&[("direction", "inbound")], usable(|channel| channel.receivable_msat));
    let help = "What both sides must leave untouched, in millisatoshi.";
    page.family("tributary_channels_reserve_msat", Kind::Gauge, help)
        .sample(&[("side", "local")], sum(&|channel| channel.reserve_sat.saturating_mul(1_000)))
        .sample(
            &[("side", "remote")],
            sum(&|channel| channel.counterparty_reserve_sat.saturating_mul(1_000)),
        );
    let help = "HTLCs in flight: received from peers, offered to them.";
    page.family("tributary_htlcs_in_flight", Kind::Gauge, help)
        .sample(&[("direction", "received")], sum(&|channel| channel.inbound_htlcs.into()))
        .sample(&[("direction", "offered")], sum(&|channel| channel.outbound_htlcs.into()));
    let height = parts.sync.borrow().synced.map_or(0, |block| block.height);
    if let Some(expiry) = parts.lightning.next_expiry() {
        let left = i64::from(expiry) - i64::from(height);
        page.gauge(
            "tributary_htlc_next_expiry_blocks",
            "Blocks until the first HTLC in flight expires; absent without HTLCs.",
            left,
        );
    }
    let weights = live.iter().map(|channel| channel.monitor.bytes);
    page.gauge(
        "tributary_channel_monitor_max_bytes",
        "Weight of the heaviest channel's monitor.",
        weights.max().unwrap_or(0),
    );
    page.gauge("tributary_peers_connected", "Peers connected now.", parts.lightning.peers().len());
    let pending = parts.lightning.pending_balances();
    page.gauge(
        "tributary_closed_channels_pending_sat",
        "What closed channels still owe us on chain, in satoshi.",
        pending.iter().map(|balance| balance.amount_sat).sum::<u64>(),
    );
    if parts.config.metrics.per_channel {
        each(page, &live);
    }
}

fn each(page: &mut Page, channels: &[ChannelSnapshot]) {
    let mut family = |name, help: &str, of: fn(&ChannelSnapshot) -> u64| {
        let mut family = page.family(name, Kind::Gauge, help);
        for channel in channels {
            let (id, peer) = (channel.channel.to_string(), channel.peer.to_string());
            family.sample(&[("channel", &id), ("peer", &peer)], of(channel));
        }
    };
    family("tributary_channel_local_msat", "Our balance in a channel.", |c| c.local_msat);
    family("tributary_channel_remote_msat", "The peer's balance in a channel.", |c| c.remote_msat);
    family("tributary_channel_spendable_msat", "What a channel can send.", |c| c.spendable_msat);
    family("tributary_channel_receivable_msat", "What a channel can receive.", |c| {
        c.receivable_msat
    });
    family("tributary_channel_htlcs", "HTLCs in flight in a channel, both ways.", |c| {
        u64::from(c.inbound_htlcs) + u64::from(c.outbound_htlcs)
    });
    family("tributary_channel_usable", "1 while a channel can carry payments.", |c| {
        u64::from(c.usable)
    });
}
