//! A hub, or a user, that loses power after any message of a batch that forms.

use std::time::Duration;

use bitcoin::consensus::encode::deserialize;
use bitcoin::{Amount, Transaction};
use channel_contracts::batch::{BatchId, HubPhase, LeafState, UserPhase};
use node::batches::JoinView;
use node::dev::Cluster;
use node::lightning::CloseKind;
use node::store::Table;
use tests::e2e::{
    DEPTH, HUB, WAIT, batches_in_mempool, clear_end, conserved, crash, forming_ended, in_time,
    join, pays, until,
};

use crate::stage::{connected_at, fund, start, wake};
use crate::wire::Wire;

/// A capacity of which many fit into the hub's coins.
const SMALL_SAT: u64 = 20_000;
/// Ada is behind the wire, ben is not.
const USERS: [&str; 2] = ["ada", "ben"];
/// Fewer pieces than any batch takes to form.
const FEWEST_PIECES: u64 = 8;
/// Less than a step may take, and more than one takes.
const PAUSE: Duration = Duration::from_millis(500);
/// What ben leaves with.
const EXIT_COIN_SAT: u64 = 120_000;
/// Time for a node to publish what the last block made possible.
const BLOCK_TIME: Duration = Duration::from_millis(250);

pub async fn a_hub_that_crashes_after_any_message_loses_nothing(net: &mut Cluster) {
    let crash_hub = async |net: &mut Cluster| {
        crash(net, HUB).await;
        Next::Another
    };
    cut_after_each_message(net, crash_hub).await;
    every_channel_carries(net).await;
    conserved(net).await;
}

pub async fn a_user_that_crashes_after_any_message_loses_nothing(net: &mut Cluster) {
    let crash_user = async |net: &mut Cluster| {
        crash(net, USERS[0]).await;
        Next::Another
    };
    cut_after_each_message(net, crash_user).await;
    every_channel_carries(net).await;
    conserved(net).await;
}

pub async fn a_hub_that_crashes_while_it_waits_for_one_user_closes_the_channels_of_others(
    net: &mut Cluster,
) {
    let mut funded = Vec::new();
    let crash_waiting = async |net: &mut Cluster| {
        funded.extend(waits_for_one(net).await);
        crash(net, HUB).await;
        Next::Another
    };
    cut_after_each_message(net, crash_waiting).await;
    assert!(!funded.is_empty(), "nobody had commitments before the other");
    for waiting in funded {
        // Ben keeps its path; for the hub the channel never was.
        let joins = net.node(USERS[1]).batches.joins().await;
        let wish = joins.iter().find(|wish| wish.batch == waiting.batch).unwrap();
        assert_eq!(wish.state, UserPhase::Leaf(LeafState::Dropped));
        assert!(net.node(USERS[1]).batches.path(wish).is_some());
        let hub = net.node(HUB);
        let channel = hub.channels.by_funding()[&wish.funding.unwrap()];
        let record = hub.channels.recorded(channel).unwrap();
        assert_eq!(record.close_kind, Some(CloseKind::NeverOpened), "{record:?}");
        assert!(hub.batches.batches().await.iter().all(|b| Some(b.batch) != waiting.batch));
    }
    every_channel_carries(net).await;
    conserved(net).await;
}

pub async fn a_user_leaves_a_batch_that_the_hub_gave_up_and_publishes_all_the_same(
    net: &mut Cluster,
) {
    let mut published = None;
    let crash_waiting = async |net: &mut Cluster| {
        published = waits_for_one(net).await;
        crash(net, HUB).await;
        if published.is_some() { Next::Enough } else { Next::Another }
    };
    cut_after_each_message(net, crash_waiting).await;
    let Waiting { batch, transaction } = published.expect("ben has commitments before ada");
    fund(net, USERS[1], EXIT_COIN_SAT, 1).await;
    let state = async |net: &Cluster| {
        let joins = net.node(USERS[1]).batches.joins().await;
        joins.into_iter().find(|wish| wish.batch == batch).unwrap()
    };
    let wish = state(net).await;
    assert_eq!(wish.state, UserPhase::Leaf(LeafState::Dropped));

    // Ben has forgotten nothing over a restart.
    crash(net, USERS[1]).await;
    net.chain.broadcaster().submit(&[transaction]).await.unwrap();
    net.mine(1).await.unwrap();
    until("a channel of a confirmed batch", async || {
        matches!(state(net).await.state, UserPhase::Leaf(LeafState::Confirmed { .. }))
    })
    .await;
    until("the channel on chain", async || {
        tokio::time::sleep(BLOCK_TIME).await;
        net.mine(1).await.unwrap();
        state(net).await.state == UserPhase::Leaf(LeafState::Unrolled)
    })
    .await;
    let funding = wish.funding.unwrap();
    until("its commitment", async || {
        tokio::time::sleep(BLOCK_TIME).await;
        net.mine(1).await.unwrap();
        net.chain.source().unspent_output(funding).await.unwrap().is_none()
    })
    .await;
}

/// A batch whose hub waits for the commitments of one user alone.
struct Waiting {
    batch: Option<BatchId>,
    /// The batch transaction, signed and not published.
    transaction: Transaction,
}

/// Gives everybody who is not cut off the time to go on. Then the batch, if ben has its
/// commitments and the hub waits for ada's.
async fn waits_for_one(net: &Cluster) -> Option<Waiting> {
    tokio::time::sleep(PAUSE).await;
    let joins = net.node(USERS[1]).batches.joins().await;
    let wish = joins.iter().find(|w| w.state == UserPhase::Leaf(LeafState::Funded))?;
    let batches = net.node(HUB).batches.batches().await;
    let batch = batches.iter().find(|batch| Some(batch.batch) == wish.batch)?;
    if !matches!(batch.phase, HubPhase::Funding { .. }) {
        return None;
    }
    let key = Table::HubTree.key(batch.batch.0);
    let value = net.node(HUB).committer.get(&key).unwrap().unwrap();
    let tree: ciborium::Value = ciborium::from_reader(&value[..]).unwrap();
    let fields = tree.as_map().unwrap();
    let is_it = |key: &ciborium::Value| key.as_text() == Some("transaction");
    let (_, bytes) = fields.iter().find(|(key, _)| is_it(key)).unwrap();
    let transaction: Transaction = deserialize(bytes.as_bytes().unwrap()).unwrap();
    assert_eq!(Some(transaction.compute_txid()), wish.root.map(|root| root.txid));
    Some(Waiting { batch: wish.batch, transaction })
}

enum Next {
    /// Another batch, whose wire goes dead one piece later.
    Another,
    Enough,
}

/// Forms batches, with a wire to ada that goes dead after the first piece, after the second, and
/// so on until it carries all. Calls `cut` whenever it is dead; it is repaired afterwards.
async fn cut_after_each_message(net: &mut Cluster, mut cut: impl AsyncFnMut(&mut Cluster) -> Next) {
    start(net, &[HUB, "ada", "ben"], |config| {
        config.batch.gathering_ms = 200;
        config.batch.step_seconds = 1;
    })
    .await;
    fund(net, HUB, 4_000_000, 4).await;
    let wire = Wire::to(net.get(HUB).unwrap().address()).await;
    let mut after = 1;
    loop {
        both_connected(net, &wire).await;
        wire.goes_dead_after(after);
        for user in USERS {
            join(net, user, SMALL_SAT).await;
        }
        until("an end of forming, or of the wire", async || {
            wire.is_dead() || forming_ended(net, &USERS).await
        })
        .await;
        let was_cut = wire.is_dead();
        let next = if was_cut { cut(net).await } else { Next::Enough };
        wire.repair();
        both_connected(net, &wire).await;
        ended_clearly(net).await;
        if !was_cut {
            assert!(after > FEWEST_PIECES, "cut off {after} times only");
        }
        if let Next::Enough = next {
            break;
        }
        // Who breaks off again and again must wait, until the hub starts anew.
        net.stop(HUB).await.unwrap();
        wake(net, HUB).await;
        after += 1;
    }
    println!("  cut off after each of {} messages", after - 1);
    both_connected(net, &wire).await;
}

async fn both_connected(net: &Cluster, wire: &Wire) {
    let [ada, ben] = USERS;
    connected_at(net, ada, &wire.address).await;
    connected_at(net, ben, &net.get(HUB).unwrap().address()).await;
}

/// Mines what was broadcast; everything is alive on both sides then, or nowhere.
async fn ended_clearly(net: &Cluster) {
    until("an end of forming", async || forming_ended(net, &USERS).await).await;
    batches_in_mempool(net).await;
    net.mine(DEPTH).await.unwrap();
    if !in_time(&mut async || clear_end(net, &USERS).await).await {
        let batches = net.node(HUB).batches.batches().await;
        panic!("no clear end: {batches:#?}, held: {:?}", net.node(HUB).wallet.holds());
    }
    if !in_time(&mut async || nothing_is_left_over(net).await).await {
        for name in [HUB].into_iter().chain(USERS) {
            let node = net.node(name);
            let joins = node.batches.joins().await;
            let states: Vec<_> = joins.iter().map(|wish| (wish.batch, wish.state)).collect();
            let (channels, pending) =
                (node.lightning.channels(), node.lightning.pending_balances());
            println!("{name}: {states:#?}, {channels:#?}, {pending:#?}");
        }
        panic!("something of a batch that came to nothing is left");
    }
}

/// Whether LDK has the channels of live batches and no others, nothing is owed for others, and
/// every user knows what became of its wishes.
async fn nothing_is_left_over(net: &Cluster) -> bool {
    let owed = |name: &str| !net.node(name).lightning.pending_balances().is_empty();
    let channels = |name: &str| net.node(name).lightning.channels().len();
    let mut live = 0;
    for user in USERS {
        let wishes = net.node(user).batches.joins().await;
        let is_open = |state| matches!(state, LeafState::Signed | LeafState::Funded);
        if wishes.iter().any(|w| matches!(w.state, UserPhase::Leaf(leaf) if is_open(leaf))) {
            return false;
        }
        let confirmed = |leaf| matches!(leaf, LeafState::Confirmed { .. });
        let has = |w: &&JoinView| matches!(w.state, UserPhase::Leaf(leaf) if confirmed(leaf));
        let has = wishes.iter().filter(has).count();
        if channels(user) != has || owed(user) {
            return false;
        }
        live += has;
    }
    channels(HUB) == live && !owed(HUB)
}

async fn every_channel_carries(net: &Cluster) {
    let mut live = 0;
    for batch in net.node(HUB).batches.batches().await {
        live += if matches!(batch.phase, HubPhase::Live { .. }) { batch.users.len() } else { 0 };
    }
    let channels = || net.node(HUB).lightning.channels();
    let waited = net.wait("usable channels", WAIT, || {
        channels().len() == live && channels().iter().all(|channel| channel.usable)
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {live} of {:#?}", channels()));
    for user in USERS {
        pays(net, HUB, user, 1_000_000).await;
    }
    assert_eq!(net.node(HUB).wallet.balance().held, Amount::ZERO);
}
