//! Channels from alice to bob, beside the line: opened and closed.

use std::time::Instant;

use bitcoin::Amount;
use node::channels::{ChannelRecord, ChannelState, CloseError, OpenError};
use node::dev::Cluster;
use node::journal::{IdempotencyError, IdempotencyKey};
use node::lightning::CloseKind;
use node::lightning::types::ChannelRef;
use tests::e2e::{WAIT, mine_until_swept, open_request, records, wallet_sat};

const CAPACITY_SAT: u64 = 100_000;
/// Bob's share of a channel that is to be closed.
const PUSH_MSAT: u64 = 20_000_000;
/// LDK's words where a peer has forgotten a channel: it had all it needs of the closing
/// transaction, and power was lost before we had. A known fault where it is the peer that lost
/// power: it forgets the channel with the batch that lets its last signature and its broadcast
/// out, and LDK repeats neither. We close with our commitment then, and nobody loses more than
/// fees and time.
const FORGOTTEN: &str = "invalid channel_reestablish";
/// Most blocks until all is paid out, with the delay of a lone closer.
const BLOCKS_MAX: u32 = 800;
/// Most tries at opening one channel.
const TRIES_MAX: u64 = 5;

/// Opening a channel, from the request until both sides can use it.
pub struct Opening {
    number: u64,
    tries: u64,
    channel: Option<ChannelRef>,
}

impl Opening {
    pub fn new(number: u64) -> Self {
        Self { number, tries: 0, channel: None }
    }

    pub async fn advance(&mut self, net: &Cluster) -> bool {
        dial(net).await;
        let channels = &net.node("alice").channels;
        let Some(channel) = self.channel else {
            self.ask(net).await;
            return false;
        };
        let view = channels.get(channel).expect("a channel that was promised has a record");
        match view.record.state {
            // It ended before it was funded: the caller asks for another.
            ChannelState::Closed => {
                self.channel = None;
                self.tries += 1;
                assert!(self.tries < TRIES_MAX, "{:?}", view.record);
                false
            }
            ChannelState::AwaitingConfirmation => {
                let funding = view.record.funding.unwrap();
                let deep =
                    view.live.is_none_or(|live| live.confirmations.0 >= live.confirmations.1);
                if !deep && followed(net).await && net.chain.knows(funding.txid).await.unwrap() {
                    net.chain.mine(1).await.unwrap();
                }
                false
            }
            _ => ["alice", "bob"].iter().all(|name| {
                let live = net.node(name).lightning.channels();
                live.iter().any(|c| c.usable && c.funding == view.record.funding)
            }),
        }
    }

    async fn ask(&mut self, net: &Cluster) {
        let bob = net.node("bob").lightning.node_id();
        let request = open_request(bob, None, CAPACITY_SAT);
        let key = format!("{} {}", self.number, self.tries);
        let key = IdempotencyKey::new("open", &key).unwrap();
        match net.node("alice").channels.request_open(request, key.as_ref()).await {
            Ok(view) => self.channel = Some(view.record.channel),
            Err(
                OpenError::Store(_)
                | OpenError::Idempotency(IdempotencyError::Store(_))
                | OpenError::AddressUnknown { .. }
                | OpenError::Connect(_),
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Every channel that is funded works at both sides, every other is over at its opener.
    pub async fn conclude(self, net: &Cluster) {
        let channel = self.channel.unwrap();
        let channels = &net.node("alice").channels;
        let view = channels.get(channel).unwrap();
        for (name, peer) in [("alice", "bob"), ("bob", "alice")] {
            let peer = net.node(peer).lightning.node_id();
            let records = records(net, name).await.into_iter().filter(|record| record.peer == peer);
            let mut active = 0;
            for record in records {
                let funded = match record.funding {
                    Some(funding) => net.chain.knows(funding.txid).await.unwrap(),
                    None => false,
                };
                let works = record.state == ChannelState::Active;
                active += u32::from(works);
                let right = match (funded, works) {
                    (true, _) => works || record.close_kind == Some(CloseKind::Cooperative),
                    (false, works) => !works,
                };
                assert!(right, "{name}, funded: {funded}, {record:?}");
                if !funded && record.state != ChannelState::Closed {
                    println!("  {name} waits for a channel without funding: {:?}", record.state);
                }
            }
            assert_eq!(active, 1, "{name} has one working channel beside the line");
            let live = net.node(name).lightning.channels();
            let live = live.iter().find(|live| live.funding == view.record.funding).unwrap();
            let openers = if live.outbound { live.local_msat } else { live.remote_msat };
            assert_eq!(
                (openers, live.local_msat + live.remote_msat),
                (CAPACITY_SAT * 1_000, openers)
            );
        }
        // The next one starts with a clean table.
        let mut closing = Closing { channel, bobs_sat: wallet_sat(net, "bob") };
        let deadline = Instant::now() + WAIT;
        while !closing.advance(net).await {
            if Instant::now() > deadline {
                let theirs = closing.theirs(net, &view.record).await;
                panic!("a channel does not close: {:?}, {theirs:?}", channels.get(channel));
            }
            tokio::time::sleep(crate::walk::LOOK).await;
        }
        closing.conclude(net).await;
    }
}

/// Closing a channel by agreement, until it is closed at both sides.
pub struct Closing {
    channel: ChannelRef,
    /// What bob's wallet must have in the end.
    bobs_sat: u64,
}

impl Closing {
    /// Opens the channel that will be closed.
    pub async fn new(net: &Cluster) -> Self {
        let channel = net.open_channel("alice", "bob", CAPACITY_SAT, PUSH_MSAT).await.unwrap();
        Self { channel, bobs_sat: wallet_sat(net, "bob") + PUSH_MSAT / 1_000 }
    }

    pub async fn advance(&mut self, net: &Cluster) -> bool {
        dial(net).await;
        let channels = &net.node("alice").channels;
        let ours = channels.get(self.channel).expect("the channel has a record").record;
        if matches!(ours.state, ChannelState::Closing | ChannelState::Closed) {
            let theirs = self.theirs(net, &ours).await;
            return [Some(ours), theirs]
                .iter()
                .all(|record| record.as_ref().is_some_and(|r| r.state == ChannelState::Closed));
        }
        match channels.close(self.channel, false, None, None).await {
            Ok(_) | Err(CloseError::PeerOffline { .. } | CloseError::Store(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Bob's record; `None` while his store fails.
    async fn theirs(&self, net: &Cluster, ours: &ChannelRecord) -> Option<ChannelRecord> {
        let page = net.node("bob").channels.list(|_, _| true, None, 100_000).await.ok()?;
        let mut records = page.channels.into_iter().map(|view| view.record);
        records.find(|record| record.funding == ours.funding)
    }

    /// It ended by agreement, and the money is home.
    pub async fn conclude(self, net: &Cluster) {
        let ours = net.node("alice").channels.get(self.channel).unwrap().record;
        let theirs = self.theirs(net, &ours).await.unwrap();
        let kinds = [&ours, &theirs].map(|record| record.close_kind);
        assert!(kinds.contains(&Some(CloseKind::Cooperative)), "{ours:?}, {theirs:?}");
        let mut forgotten = false;
        for record in [&ours, &theirs] {
            if record.close_kind != Some(CloseKind::Cooperative) {
                let why = record.close_reason.as_ref();
                assert!(why.is_some_and(|why| why.contains(FORGOTTEN)), "{record:?}");
                forgotten = true;
            }
        }
        if forgotten {
            println!("  one side closed by agreement, the other was told that the channel is gone");
            mine_until_swept(net, BLOCKS_MAX).await;
        } else {
            self.paid_out(net).await;
        }
        for name in ["alice", "bob"] {
            let balance = net.node(name).wallet.balance();
            assert_eq!(balance.held.to_sat(), 0, "{name} holds coins for nothing");
        }
    }

    /// Mines until the closing transaction has paid both.
    async fn paid_out(&self, net: &Cluster) {
        for blocks in 0.. {
            let balances = ["alice", "bob"].map(|name| net.node(name).wallet.balance());
            let home = wallet_sat(net, "bob") == self.bobs_sat;
            if home && balances.iter().all(|balance| balance.unconfirmed == Amount::ZERO) {
                return;
            }
            assert!(blocks < BLOCKS_MAX, "bob's money does not come: {balances:?}");
            // Somebody may have it to broadcast only now.
            tokio::time::sleep(crate::walk::LOOK).await;
            net.mine(1).await.unwrap();
        }
    }
}

/// Connects alice and bob if they are not.
async fn dial(net: &Cluster) {
    let bob = net.node("bob").lightning.node_id();
    let address = net.get("bob").unwrap().address();
    let _not_yet = net.node("alice").lightning.connect(bob, &address).await;
}

/// Whether every node has followed the chain to its tip.
async fn followed(net: &Cluster) -> bool {
    let tip = net.chain.tip().await.unwrap();
    net.nodes().all(|dev| dev.node().sync.borrow().synced == Some(tip))
}
