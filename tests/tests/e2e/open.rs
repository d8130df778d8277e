//! Opening channels.

use bitcoin::Amount;
use node::channels::{ChannelState, OpenError};
use node::dev::{Cluster, NodeOptions};
use node::journal::{ChannelEvent, DomainEvent, IdempotencyError, IdempotencyKey};
use node::lightning::CloseKind;
pub use tests::e2e::records;
use tests::e2e::{WAIT, conserved, open_request};

const FUNDS_SAT: u64 = 1_000_000;

async fn pair(net: &mut Cluster) {
    for name in ["alice", "bob"] {
        net.add(name, NodeOptions::default()).await.unwrap();
    }
    net.fund(&["alice"], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
}

/// What happened to channels of `name`, by name and in order.
fn story(net: &Cluster, name: &str) -> Vec<&'static str> {
    let entries = net.node(name).journal.read(0, 10_000).unwrap();
    entries
        .into_iter()
        .filter_map(|entry| match entry.event {
            DomainEvent::Channel(event) => Some(match event {
                ChannelEvent::OpenRequested { .. } => "open requested",
                ChannelEvent::InboundAccepted { .. } => "accepted",
                ChannelEvent::Funded { .. } => "funded",
                ChannelEvent::Pending { .. } => "pending",
                ChannelEvent::Ready { .. } => "ready",
                ChannelEvent::Closed { .. } => "closed",
                _ => "other",
            }),
            _ => None,
        })
        .collect()
}

pub async fn a_channel_becomes_active_on_both_sides(net: &mut Cluster) {
    pair(net).await;
    let channel = net.open_channel("alice", "bob", 300_000, 50_000_001).await.unwrap();
    let active = |view: &node::channels::ChannelView| view.record.state == ChannelState::Active;
    net.wait_channel("alice", channel, "record of an active channel", active).await.unwrap();

    let view = net.node("alice").channels.get(channel).unwrap();
    let (ours, live) = (view.record, view.live.unwrap());
    assert!(ours.outbound && !ours.announced);
    assert_eq!(ours.peer, net.node("bob").lightning.node_id());
    assert_eq!((ours.capacity_sat, ours.push_msat), (300_000, 50_000_001));
    assert_eq!((live.local_msat, live.remote_msat), (249_999_999, 50_000_001));
    assert_eq!(ours.funding, live.funding);

    let theirs = records(net, "bob").await.remove(0);
    let there = theirs.channel;
    net.wait_channel("bob", there, "record of an active channel", active).await.unwrap();
    let view = net.node("bob").channels.get(there).unwrap();
    let (theirs, live) = (view.record, view.live.unwrap());
    assert!(!theirs.outbound);
    assert_eq!(theirs.peer, net.node("alice").lightning.node_id());
    assert_eq!((theirs.capacity_sat, theirs.push_msat), (300_000, 50_000_001));
    assert_eq!((live.local_msat, live.remote_msat), (50_000_001, 249_999_999));
    assert_eq!((theirs.funding, theirs.channel_id), (ours.funding, ours.channel_id));

    assert_eq!(records(net, "alice").await, vec![ours]);
    assert_eq!(story(net, "alice"), ["open requested", "funded", "pending", "ready"]);
    assert_eq!(story(net, "bob"), ["accepted", "pending", "ready"]);
    conserved(net).await;
}

pub async fn what_cannot_be_opened_is_refused_and_leaves_no_trace(net: &mut Cluster) {
    pair(net).await;
    let closed_door = NodeOptions {
        configure: std::sync::Arc::new(|config| config.lightning.accept_inbound_channels = false),
        ..NodeOptions::default()
    };
    net.add("carol", closed_door).await.unwrap();
    let bob = net.node("bob").lightning.node_id();
    let address = net.get("bob").unwrap().address();
    let channels = &net.node("alice").channels;
    let request = |capacity_sat| open_request(bob, Some(address.clone()), capacity_sat);
    let refused = async |request| channels.request_open(request, None).await.unwrap_err();

    for capacity_sat in [0, 19_999, 21_000_000 * 100_000_000 + 1] {
        let error = refused(request(capacity_sat)).await;
        assert!(
            matches!(error, OpenError::CapacityOutOfRange { capacity_sat: c } if c == capacity_sat)
        );
    }
    let error = refused(request(FUNDS_SAT)).await;
    let OpenError::InsufficientFunds { capacity_sat, fee_sat, spendable_sat, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*capacity_sat, *spendable_sat), (FUNDS_SAT, FUNDS_SAT));
    assert!(*fee_sat > 0);
    assert!(error.to_string().contains("1000000 sat"), "{error}");

    let error = refused(open_request(bob, None, 100_000)).await;
    assert!(matches!(error, OpenError::AddressUnknown { peer } if peer == bob), "{error}");
    // Nobody listens on the discard port of this machine.
    let error = refused(open_request(bob, Some("127.0.0.1:9".into()), 100_000)).await;
    assert!(matches!(error, OpenError::Connect(_)), "{error}");
    // Somebody else lives there.
    let elsewhere = net.get("carol").unwrap().address();
    let error = refused(open_request(bob, Some(elsewhere.clone()), 100_000)).await;
    assert!(matches!(error, OpenError::Connect(_)), "{error}");
    let mut too_generous = request(100_000);
    too_generous.push_msat = 100_000_001;
    let error = refused(too_generous).await;
    assert!(matches!(error, OpenError::PushExceedsCapacity { push_msat: 100_000_001, .. }));
    assert_eq!(records(net, "alice").await, vec![]);
    assert_eq!(story(net, "alice"), Vec::<&str>::new());
    assert_eq!(records(net, "bob").await, vec![]);

    // A peer that says no ends the channel it was asked for, and the coins stay free.
    let carol = net.node("carol").lightning.node_id();
    let view =
        channels.request_open(open_request(carol, Some(elsewhere), 100_000), None).await.unwrap();
    net.wait_channel("alice", view.record.channel, "refusal by the peer", |view| {
        view.record.state == ChannelState::Closed
    })
    .await
    .unwrap();
    let record = channels.get(view.record.channel).unwrap().record;
    assert_eq!((record.close_kind, record.funding), (Some(CloseKind::NeverOpened), None));
    let balance = net.node("alice").wallet.balance();
    assert_eq!((balance.spendable.to_sat(), balance.held.to_sat()), (FUNDS_SAT, 0));
    conserved(net).await;
}

pub async fn one_key_opens_one_channel(net: &mut Cluster) {
    pair(net).await;
    let bob = net.node("bob").lightning.node_id();
    let address = net.get("bob").unwrap().address();
    let alice = net.node("alice");
    let channels = &alice.channels;
    alice.lightning.connect(bob, &address).await.unwrap();
    let key = IdempotencyKey::new("open", "first").unwrap();
    let request = open_request(bob, Some(address.clone()), 100_000);

    // Both are asked before the peer can answer either.
    let (first, other) = tokio::join!(
        channels.request_open(request.clone(), key.as_ref()),
        channels.request_open(open_request(bob, Some(address.clone()), 200_000), None),
    );
    let channel = first.unwrap().record.channel;
    let error = other.unwrap_err();
    assert!(
        matches!(error, OpenError::InProgress { peer, channel: c } if peer == bob && c == channel),
        "{error}"
    );

    let again = channels.request_open(request.clone(), key.as_ref()).await.unwrap();
    assert_eq!(again.record.channel, channel);
    let mut another = request;
    another.capacity_sat += 1;
    let error = channels.request_open(another, key.as_ref()).await.unwrap_err();
    assert!(matches!(
        error,
        OpenError::Idempotency(IdempotencyError::Conflict { key }) if key == "first"
    ));

    let pending = |view: &node::channels::ChannelView| view.record.funding.is_some();
    net.wait_channel("alice", channel, "funding", pending).await.unwrap();
    let funding = channels.get(channel).unwrap().record.funding.unwrap().txid;
    net.wait("channel at both sides", WAIT, || {
        channels
            .get(channel)
            .is_some_and(|view| view.record.state == ChannelState::AwaitingConfirmation)
    })
    .await
    .unwrap();
    while !net.chain.knows(funding).await.unwrap() {
        tokio::task::yield_now().await;
    }
    net.mine(6).await.unwrap();
    net.wait_channel("alice", channel, "active channel", |view| {
        view.record.state == ChannelState::Active
    })
    .await
    .unwrap();
    assert_eq!(records(net, "alice").await.len(), 1);
    assert_eq!(records(net, "bob").await.len(), 1);
    conserved(net).await;
}
