//! Channels of batches, whose users sleep: the tower publishes paths and answers stale states.

use std::collections::BTreeSet;

use bitcoin::{Amount, OutPoint, Transaction, absolute};
use channel_contracts::batch::{LeafState, UserPhase};
use channel_contracts::tower::{BatchWatch, Mode};
use node::chain::TxStatus;
use node::dev::Cluster;
use node::tower::server::WatchError;
use tests::e2e::{
    Eye, FormedBatch, HUB, batch_usable, broadcast, connect, copy, form_deep, formed, mine_heard,
    mine_until_swept_at, moved, next_batch, other_spender, path, pays, start_on_disks, until,
    usable_channel, wake, wallet_sat, wish, wishes,
};

use crate::stage::{Raised, delivered};

/// Blocks of a life; long enough that a payment ends before the deadline.
const LIFE: u32 = 400;
/// Long enough for a window to roll over in.
const LONGER_LIFE: u32 = 600;
const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
const CAPACITY_SAT: u64 = 100_000;
const PAID_SAT: u64 = 30_000;
/// What the tower spends on one path at most.
const BUDGET_SAT: u64 = 20_000;

pub async fn a_tower_publishes_the_paths_of_its_household(net: &mut Cluster) {
    let mut tower = guarded_users(net, &USERS, LIFE).await;
    formed(net, &USERS, CAPACITY_SAT).await;
    for user in USERS {
        pays(net, HUB, user, PAID_SAT * 1_000).await;
    }
    watched(net, &tower, &USERS).await;
    what_makes_no_sense_is_refused(net, &tower).await;
    let wish_of = wish(net, "ada").await;
    let (deadline, expiry) = (wish_of.deadline.unwrap(), wish_of.expiry.unwrap());
    let mut leaves = BTreeSet::new();
    for user in USERS {
        leaves.insert(wish(net, user).await.funding.unwrap().txid);
        net.stop(user).await.unwrap();
    }
    let coins_sat = tower.process().wallet.balance().confirmed.to_sat();

    // Nothing before the deadline of the deepest, everything in time.
    let root = wish_of.root.unwrap();
    let tip = net.chain.tip().await.unwrap().height;
    let first = deadline.to_consensus_u32() - 12;
    mine_heard(net, first - tip).await;
    tower.synced(net).await;
    assert!(net.chain.source().unspent_output(root).await.unwrap().is_some());
    assert!(tests::e2e::spender(net, root).await.is_none(), "a path is published early");
    for _ in 0..40 {
        net.mine(1).await.unwrap();
        tower.synced(net).await;
        if confirmed(net, &leaves).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(confirmed(net, &leaves).await, "the leaves are not on chain");
    let tip = net.chain.tip().await.unwrap().height;
    assert!(tip < expiry.to_consensus_u32(), "the leaves came too late");
    until("the tower's change", async || {
        tower.process().wallet.balance().unconfirmed == Amount::ZERO
    })
    .await;
    let spent_sat = coins_sat - tower.process().wallet.balance().confirmed.to_sat();
    assert!(spent_sat > 0 && spent_sat <= BUDGET_SAT * USERS.len() as u64, "{spent_sat} sat");

    // They wake with ordinary channels, and what they have.
    for user in USERS {
        wake(net, user).await;
        connect(net, user).await;
        let funding = wish(net, user).await.funding;
        usable_channel(net, user, |channel| channel.funding == funding).await;
        assert_eq!(tests::e2e::channel_balance(net, user, HUB), PAID_SAT * 1_000);
        pays(net, HUB, user, 1_000_000).await;
        until("an unrolled leaf", async || {
            wish(net, user).await.state == UserPhase::Leaf(LeafState::Unrolled)
        })
        .await;
    }
    tower.stop().await;
}

/// Strangers, what would cost too much, and what comes too late.
async fn what_makes_no_sense_is_refused(net: &Cluster, tower: &Raised) {
    let leaf = net.node("ada").batches.live_leaves().await.remove(0);
    let budget = Amount::from_sat(BUDGET_SAT);
    let right = BatchWatch { path: leaf.path, guard_height: leaf.deadline, budget };
    let client = |name: &str| net.node(name).towers.list()[0].client;
    let watches = tower.process().tower.watches();
    let height = net.chain.tip().await.unwrap().height;
    let refused = watches.add(tower.key(), &right, height).await.unwrap_err();
    assert!(matches!(refused, WatchError::Stranger(key) if key == tower.key()), "{refused}");
    let dear = BatchWatch { budget: budget + Amount::ONE_SAT, ..right.clone() };
    let refused = watches.add(client("ben"), &dear, height).await.unwrap_err();
    assert!(matches!(refused, WatchError::Budget { max, .. } if max == budget), "{refused}");
    let now = absolute::Height::from_consensus(height).unwrap();
    let late = BatchWatch { guard_height: now, ..right.clone() };
    let refused = watches.add(client("ben"), &late, height).await.unwrap_err();
    assert!(matches!(refused, WatchError::Late { .. }), "{refused}");
    let mut forged = right.clone();
    forged.path.path.root.vout += 1;
    let refused = watches.add(client("ben"), &forged, height).await.unwrap_err();
    assert!(matches!(refused, WatchError::Watch(_)), "{refused}");
    assert_eq!(watches.len(), USERS.len(), "nothing has changed");
}

/// Who moved to the next batch takes its old path back, and has the new one watched.
pub async fn a_retired_channel_is_watched_no_more(net: &mut Cluster) {
    let mut tower = guarded_users(net, &["ada"], LONGER_LIFE).await;
    formed(net, &["ada"], CAPACITY_SAT).await;
    pays(net, HUB, "ada", PAID_SAT * 1_000).await;
    watched(net, &tower, &["ada"]).await;
    let before = net.node("ada").towers.guarded_paths(&tower.key()).unwrap();
    next_batch(net, LONGER_LIFE / 2, 2).await;
    moved(net, "ada").await;
    let (_, after) = wishes(net, "ada").await;
    let new = after.unwrap().funding.unwrap();
    until("the new path at the tower", async || {
        let guarded = net.node("ada").towers.guarded_paths(&tower.key()).unwrap();
        guarded == BTreeSet::from([new])
    })
    .await;
    assert_eq!(tower.process().tower.watches().len(), 1);
    assert_ne!(before, BTreeSet::from([new]));
    tower.stop().await;
}

/// The hub comes back from an old disk, publishes the path of a user who sleeps, and a state that
/// was revoked.
pub async fn a_blind_tower_answers_a_stale_state_after_an_unroll(net: &mut Cluster) {
    let disks = start_on_disks(net, &[HUB, "ada", "ben"], |_| {}).await;
    net.fund(&[HUB], Amount::from_sat(4_000_000), 4).await.unwrap();
    let mut tower = Raised::new(net).await;
    tower.guards(net, "ada", Mode::Blind).await;
    let batch = form_deep(net, HUB, &["ada", "ben", "ben"], CAPACITY_SAT).await;
    live(net, &batch).await;
    let ada = batch.members[0].clone();
    let old = copy(net, &disks, HUB).await;
    wake(net, HUB).await;
    connect(net, "ada").await;
    connect(net, "ben").await;
    batch_usable(net, HUB, &batch).await;
    pays(net, HUB, "ada", 60_000_000).await;
    delivered(net, "ada").await;
    let ada_sat = wallet_sat(net, "ada");
    net.stop("ada").await.unwrap();
    net.stop("ben").await.unwrap();
    net.stop(HUB).await.unwrap();
    old.put_back(&disks[HUB]);
    wake(net, HUB).await;

    let mut eye = Eye::on(net, &batch).await;
    net.node(HUB).channels.close(ada.at_hub, true, None, None).await.unwrap();
    assert_eq!(eye.unrolled(net, &[path(&batch, 0)]).await, 2);
    let revoked = other_spender(net, ada.funding, None).await;
    let to_hub = largest(&revoked);
    other_spender(net, to_hub, None).await;
    net.mine(1).await.unwrap();
    until("the output to be spent", async || {
        net.chain.source().unspent_output(to_hub).await.unwrap().is_none()
    })
    .await;
    let view = tower.process().tower.guard().breaches();
    assert_eq!((view.len(), view[0].commitment, view[0].lost), (1, revoked.compute_txid(), 0));
    tower.stop().await;

    // All of the channel is the victim's, but for the highest fee that it signed for.
    wake(net, "ada").await;
    mine_until_swept_at(net, &["ada"], 120).await;
    let gained_sat = wallet_sat(net, "ada") - ada_sat;
    assert!(gained_sat > CAPACITY_SAT - 40_000, "{gained_sat} sat of {CAPACITY_SAT}");
}

/// A hub with coins, `users` beside it, and a tower that pays for their paths.
async fn guarded_users(net: &mut Cluster, users: &[&'static str], life: u32) -> Raised {
    let names: Vec<&'static str> = [HUB].iter().chain(users).copied().collect();
    start_on_disks(net, &names, move |config| {
        config.batch.life_blocks = life;
        config.batch.gathering_ms = 300;
        // The hub waits for the expiry.
        config.batch.early_value_ppm = 0;
    })
    .await;
    net.fund(&[HUB], Amount::from_sat(4_000_000), 4).await.unwrap();
    let mut tower = Raised::new(net).await;
    for user in users {
        connect(net, user).await;
        tower.guards(net, user, Mode::Trusted).await;
    }
    tower.pays_for(net, users, BUDGET_SAT, 4).await;
    tower
}

/// Waits until the tower has signed for one path of each of `users`.
async fn watched(net: &Cluster, tower: &Raised, users: &[&str]) {
    for user in users {
        until("a path at the tower", async || {
            net.node(user).towers.list().iter().any(|tower| tower.paths == 1)
        })
        .await;
    }
    assert_eq!(tower.process().tower.watches().len(), users.len());
}

async fn live(net: &Cluster, batch: &FormedBatch) {
    broadcast(net, HUB, batch).await;
    net.mine(tests::e2e::DEPTH).await.unwrap();
    batch_usable(net, HUB, batch).await;
}

/// Whether blocks have all of `transactions`.
async fn confirmed(net: &Cluster, transactions: &BTreeSet<bitcoin::Txid>) -> bool {
    for txid in transactions {
        let status = net.chain.source().transaction_status(*txid).await.unwrap();
        if !matches!(status, TxStatus::Confirmed(_)) {
            return false;
        }
    }
    true
}

/// The largest output of a commitment.
fn largest(commitment: &Transaction) -> OutPoint {
    let outputs = (0..).zip(&commitment.output);
    let (vout, _) = outputs.max_by_key(|(_, output)| output.value).unwrap();
    OutPoint { txid: commitment.compute_txid(), vout }
}
