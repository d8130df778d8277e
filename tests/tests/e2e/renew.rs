//! Renewals: a channel that carried many payments gets a new funding output, and its monitors
//! forget.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, OutPoint};
use node::channels::ChannelState;
use node::dev::{Cluster, NodeOptions};
use node::journal::{ChannelEvent, DomainEvent};
use node::lightning::{ChannelSnapshot, CloseKind};
use node::store::{DiskFault, MemoryDisk};
use tests::e2e::{
    NAMES, WAIT, burst, connected, conserved, invoice, mine_until, mine_until_swept, open_request,
    paid, settled,
};

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 300_000_000;
/// From here on a monitor is too heavy.
const LIMIT_KIB: u64 = 48;
/// A node looks for heavy channels every five seconds.
const TWO_LOOKS: Duration = Duration::from_secs(10);
/// What a renewal brings to its opener's wallet.
const RETURNED_SAT: u64 = 1_000;

fn renewing_at(limit_kib: u64, disk: Option<MemoryDisk>) -> NodeOptions {
    let configure = Arc::new(move |config: &mut node::config::Config| {
        config.lightning.renew_monitor_kib = limit_kib;
    });
    NodeOptions { configure, disk }
}

/// The channel of `name` with `peer`.
fn channel(net: &Cluster, name: &str, peer: &str) -> ChannelSnapshot {
    let peer = net.node(peer).lightning.node_id();
    let channels = net.node(name).lightning.channels();
    channels.into_iter().find(|channel| channel.peer == peer).unwrap()
}

/// What the monitors of a channel weigh, in memory and in the store: its opener's, then the
/// other side's.
fn weights(net: &Cluster, opener: &str, acceptor: &str) -> [(usize, u64); 2] {
    [(opener, acceptor), (acceptor, opener)].map(|(name, peer)| {
        let channel = channel(net, name, peer);
        let encoded = net.node(name).lightning.encoded_monitor_bytes(channel.channel_id);
        (encoded.unwrap(), channel.monitor.stored_bytes)
    })
}

/// The funding output of a channel as both sides and both records have it, once they agree.
fn funding(net: &Cluster, opener: &str, acceptor: &str) -> Option<OutPoint> {
    let ours = channel(net, opener, acceptor);
    let theirs = channel(net, acceptor, opener);
    let recorded = |name, id| net.node(name).channels.recorded(id).unwrap().funding;
    let all = [
        theirs.funding,
        recorded(opener, ours.channel),
        recorded(acceptor, theirs.channel),
        ours.funding,
    ];
    ours.funding.filter(|_| all.iter().all(|funding| *funding == ours.funding))
}

fn signed(net: &Cluster, opener: &str, acceptor: &str) -> bool {
    channel(net, opener, acceptor).splice.is_some_and(|splice| splice.txid.is_some())
        && channel(net, acceptor, opener).splice.is_some_and(|splice| splice.txid.is_some())
}

/// Waits until the transaction of a splice can be in the next block.
async fn in_mempool(net: &Cluster, opener: &str, acceptor: &str) {
    let txid = channel(net, opener, acceptor).splice.unwrap().txid.unwrap();
    let deadline = tokio::time::Instant::now() + WAIT;
    while !net.chain.knows(txid).await.unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "splice {txid} is not broadcast");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn pays(net: &Cluster, payer: &str, payee: &str, amount_msat: u64) {
    let bill = invoice(net, payee, Some(amount_msat)).await;
    paid(net, payer, &bill.invoice, None).await;
}

async fn both_ways(net: &Cluster) {
    pays(net, "alice", "bob", 2_000_000).await;
    pays(net, "bob", "alice", 500_000).await;
}

async fn restart_all(net: &mut Cluster) {
    for name in NAMES {
        net.stop(name).await.unwrap();
        net.start(name).await.unwrap();
        connected(net).await;
    }
}

/// The splices that `name`'s journal tells of: whether locked, and the fee.
fn story(net: &Cluster, name: &str) -> Vec<(bool, Option<u64>)> {
    let entries = net.node(name).journal.read(0, 100_000).unwrap();
    entries
        .into_iter()
        .filter_map(|entry| match entry.event {
            DomainEvent::Channel(ChannelEvent::SplicePending { fee_sat, .. }) => {
                Some((false, Some(fee_sat)))
            }
            DomainEvent::Channel(ChannelEvent::Spliced { fee_sat, .. }) => Some((true, fee_sat)),
            _ => None,
        })
        .collect()
}

pub async fn a_heavy_channel_is_renewed_while_payments_go_on(net: &mut Cluster) {
    let pairs = [("alice", "hub"), ("hub", "bob")];
    for name in NAMES {
        net.add(name, renewing_at(LIMIT_KIB, None)).await.unwrap();
    }
    net.fund(&NAMES, Amount::from_sat(4_000_000), 2).await.unwrap();
    for (from, to) in pairs {
        net.open_channel(from, to, CAPACITY_SAT, PUSH_MSAT).await.unwrap();
    }
    let before = pairs.map(|(from, to)| channel(net, from, to));

    while !pairs.iter().all(|(from, to)| signed(net, from, to)) {
        burst(net, "alice", "bob", 100).await.finished().await;
    }
    burst(net, "alice", "bob", 20).await.finished().await;
    both_ways(net).await;
    settled(net).await;
    conserved(net).await;
    let heavy = pairs.map(|(from, to)| weights(net, from, to));

    restart_all(net).await;
    both_ways(net).await;
    conserved(net).await;
    for (from, to) in pairs {
        assert!(signed(net, from, to), "a restart lost the splice");
        in_mempool(net, from, to).await;
    }
    net.mine(1).await.unwrap();
    both_ways(net).await;
    conserved(net).await;
    mine_until(net, "locked splices", 10, || {
        pairs.iter().zip(&before).all(|((from, to), before)| {
            funding(net, from, to).is_some_and(|now| Some(now) != before.funding)
        })
    })
    .await;

    for (index, (from, to)) in pairs.into_iter().enumerate() {
        let light = weights(net, from, to);
        println!("  {from}-{to}: (memory, store) bytes {:?} before, {light:?} after", heavy[index]);
        // What was paid after the splices were signed stays, and 38 bytes of each older HTLC on
        // the side that offered it.
        assert!(light[0].0 < heavy[index][0].0 / 2 && light[0].1 < heavy[index][0].1 / 2);
        assert!(light[1].0 < heavy[index][1].0 / 2 && light[1].1 < heavy[index][1].1 / 2);
        let now = channel(net, from, to);
        for (name, channel) in [(from, now.channel), (to, channel(net, to, from).channel)] {
            // The journal shows what is durable.
            net.node(name).channels.look_up(channel).await.unwrap();
        }
        let record = net.node(from).channels.recorded(now.channel).unwrap();
        assert_eq!((now.splice, record.splice), (None, None));
        assert_eq!(record.capacity_sat, now.capacity_sat);
        assert_ne!(now.short_channel_id, before[index].short_channel_id);
        let fee_sat = CAPACITY_SAT - RETURNED_SAT - now.capacity_sat;
        assert!((200..10_000).contains(&fee_sat), "{fee_sat}");
        assert!(story(net, from).contains(&(true, Some(fee_sat))), "{:?}", story(net, from));
    }
    assert_eq!(story(net, "alice").len(), 2);
    // The hub opened one of the two, and its peer spliced the other.
    assert_eq!(story(net, "hub").iter().filter(|(locked, _)| *locked).count(), 2);
    assert_eq!(story(net, "bob"), [(true, None)]);
    both_ways(net).await;
    conserved(net).await;
    restart_all(net).await;
    burst(net, "alice", "bob", 40).await.finished().await;
    both_ways(net).await;
    conserved(net).await;

    // One by agreement, the other by force: all of it comes home.
    let id = channel(net, "hub", "bob").channel;
    net.node("hub").channels.close(id, false, None, None).await.unwrap();
    net.wait_channel("hub", id, "close", |v| v.record.state == ChannelState::Closed).await.unwrap();
    let id = channel(net, "alice", "hub").channel;
    net.node("alice").channels.close(id, true, None, None).await.unwrap();
    mine_until(net, "end of the channels", 10, || {
        NAMES.iter().all(|name| net.node(name).lightning.channels().is_empty())
    })
    .await;
    mine_until_swept(net, 800).await;
    let record = net.node("alice").channels.recorded(id).unwrap();
    assert_eq!(record.close_kind, Some(CloseKind::ForcedByUs));
    conserved(net).await;
    let audit = net.audit().await.unwrap();
    assert_eq!(audit.paid_in_msat, audit.wallets_msat + audit.fees_msat, "{audit:?}");
}

pub async fn a_public_channel_is_renewed_and_announced_again(net: &mut Cluster) {
    for name in NAMES {
        net.add(name, renewing_at(LIMIT_KIB, None)).await.unwrap();
    }
    net.fund(&NAMES, Amount::from_sat(4_000_000), 2).await.unwrap();
    for (from, to) in [("alice", "hub"), ("hub", "bob")] {
        let peer = net.node(to).lightning.node_id();
        let address = Some(net.get(to).unwrap().address());
        let mut open = open_request(peer, address, CAPACITY_SAT);
        (open.announced, open.push_msat) = (true, PUSH_MSAT);
        let id = net.node(from).channels.request_open(open, None).await.unwrap().record.channel;
        net.wait_channel(from, id, "funding", |v| {
            v.record.state == ChannelState::AwaitingConfirmation
        })
        .await
        .unwrap();
        net.mine(7).await.unwrap();
        net.wait_channel(from, id, "use", |v| v.live.as_ref().is_some_and(|live| live.usable))
            .await
            .unwrap();
    }
    let before = [channel(net, "alice", "hub"), channel(net, "hub", "bob")];
    let many = burst(net, "alice", "bob", 400).await;
    net.wait("both splices", WAIT, || signed(net, "alice", "hub") && signed(net, "hub", "bob"))
        .await
        .unwrap();
    many.finished().await;
    in_mempool(net, "alice", "hub").await;
    in_mempool(net, "hub", "bob").await;
    // Six blocks, and those it takes to tell everybody.
    for _ in 0..8 {
        net.mine(1).await.unwrap();
        both_ways(net).await;
    }
    let after = [channel(net, "alice", "hub"), channel(net, "hub", "bob")];
    for (before, after) in before.iter().zip(&after) {
        assert!(after.announced && after.usable);
        assert_ne!(before.short_channel_id, after.short_channel_id);
    }
    conserved(net).await;
}

/// Who loses power, how many commits after a splice was asked for, and how.
const CUTS: [(&str, u64, DiskFault); 6] = [
    ("alice", 1, DiskFault::FailWrite),
    ("hub", 2, DiskFault::FailSync),
    ("alice", 3, DiskFault::FailAnswer),
    ("hub", 4, DiskFault::FailWrite),
    ("alice", 5, DiskFault::FailSync),
    ("alice", 7, DiskFault::FailAnswer),
];

pub async fn a_power_cut_during_a_renewal_leaves_the_channel_whole(net: &mut Cluster) {
    let disks = [("alice", MemoryDisk::new()), ("hub", MemoryDisk::new())];
    for (name, disk) in &disks {
        net.add(name, renewing_at(32, Some(disk.clone()))).await.unwrap();
    }
    net.fund(&["alice"], Amount::from_sat(4_000_000), 2).await.unwrap();
    net.open_channel("alice", "hub", CAPACITY_SAT, PUSH_MSAT).await.unwrap();
    for (name, after, fault) in CUTS {
        let before = funding(net, "alice", "hub").unwrap();
        let disk = &disks.iter().find(|(other, _)| *other == name).unwrap().1;
        // Each renewal leaves a little more, so that the next one comes later.
        let begun = || channel(net, "alice", "hub").splice.is_some();
        let mut many = burst(net, "alice", "hub", 250).await;
        while net.wait("begin of a splice", TWO_LOOKS, begun).await.is_err() {
            many.finished().await;
            many = burst(net, "alice", "hub", 250).await;
        }
        let commit = disk.commits() + after;
        disk.fault_at(commit, fault);
        let knocks = async {
            // Where the burst is over already, its followers make the commits.
            while disk.commits() < commit {
                let _ = net.node("alice").wallet.new_address();
                let _ = net.node("hub").wallet.new_address();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WAIT, knocks).await.unwrap();
        net.crash(name).await.unwrap();
        many.abandoned().await;
        net.start(name).await.unwrap();
        net.wait("reconnection", WAIT, || {
            ["alice", "hub"].iter().all(|name| net.node(name).lightning.spendable().usable == 1)
        })
        .await
        .unwrap();
        pays(net, "alice", "hub", 1_000_000).await;
        pays(net, "hub", "alice", 1_000_000).await;
        net.wait("a signed splice", WAIT, || signed(net, "alice", "hub")).await.unwrap();
        in_mempool(net, "alice", "hub").await;
        mine_until(net, "a locked splice", 10, || {
            funding(net, "alice", "hub").is_some_and(|now| now != before)
        })
        .await;
        println!("  {name} lost power {after} commits into a splice ({fault:?})");
        pays(net, "alice", "hub", 1_000_000).await;
        pays(net, "hub", "alice", 1_000_000).await;
        conserved(net).await;
    }
}
