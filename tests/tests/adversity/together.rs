//! Many at once: batches in one block, and everybody at the door.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::OutPoint;
use node::dev::Cluster;
use node::unroll::UnrollState;
use tests::e2e::{
    Eye, FormedBatch, batch_usable, broadcast, connect, conserved, crash, form, in_mempool,
    mine_until_swept, path, pays, spender, tree_stays_off_chain, until, wallet_sat,
};

use crate::stage::{
    CAPACITY_SAT, DEPTH, HUB, MOST_BLOCKS, fees_sat, fund, live, no_coin_is_held, start,
};

const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];

/// The short channel ids that LDK at `name` sees, by funding output; all different.
fn scids(net: &Cluster, name: &str) -> BTreeMap<OutPoint, u64> {
    let channels = net.node(name).lightning.channels();
    let scids = channels.iter().map(|c| (c.funding.unwrap(), c.short_channel_id.unwrap()));
    let scids: BTreeMap<OutPoint, u64> = scids.collect();
    assert_eq!(scids.values().collect::<BTreeSet<_>>().len(), channels.len(), "{name}: {scids:?}");
    scids
}

/// Asserts that hub and users name each channel by the same id, though only the hub knows of
/// both batches.
fn of_one_mind(net: &Cluster) {
    let hub = scids(net, HUB);
    assert_eq!(hub.len(), 4);
    for user in ["ada", "ben", "cid"] {
        for (funding, scid) in scids(net, user) {
            assert_eq!(hub[&funding], scid, "{user}: {funding}");
        }
    }
}

pub async fn two_batches_confirm_in_one_block(net: &mut Cluster) {
    start(net, &[HUB, "ada", "ben", "cid"], |_| {}).await;
    fund(net, HUB, 4_000_000, 4).await;
    // Ada has a channel in both.
    let batches = [
        form(net, HUB, &["ada", "ben"], CAPACITY_SAT).await,
        form(net, HUB, &["cid", "ada"], CAPACITY_SAT).await,
    ];
    for batch in &batches {
        broadcast(net, HUB, batch).await;
        in_mempool(net, batch.root().txid).await;
    }
    net.mine(1).await.unwrap();
    in_one_block(net, &batches);
    // Another block has both, and the hub sees it after a power cut.
    net.chain.reorg(1).await.unwrap();
    net.synced().await.unwrap();
    in_one_block(net, &batches);
    crash(net, HUB).await;
    net.mine(DEPTH).await.unwrap();
    usable(net, &batches).await;
    let before = scids(net, HUB);
    of_one_mind(net);
    pay_around(net).await;
    for name in [HUB, "ada"] {
        crash(net, name).await;
        usable(net, &batches).await;
        assert_eq!(scids(net, HUB), before);
        of_one_mind(net);
        pay_around(net).await;
    }
    for batch in &batches {
        tree_stays_off_chain(net, batch).await;
    }
    conserved(net).await;
}

/// Asserts that one block has both roots, as every member says.
fn in_one_block(net: &Cluster, batches: &[FormedBatch; 2]) {
    let root = |name: &str, batch: usize| {
        net.node(name).confirmations.confirmed(batches[batch].root()).unwrap()
    };
    let block = root(HUB, 0);
    for (name, batch) in [(HUB, 1), ("ada", 0), ("ada", 1), ("ben", 0), ("cid", 1)] {
        assert_eq!(root(name, batch), block, "{name}, batch {batch}");
    }
}

async fn usable(net: &Cluster, batches: &[FormedBatch]) {
    for user in ["ada", "ben", "cid"] {
        connect(net, user).await;
    }
    for batch in batches {
        batch_usable(net, HUB, batch).await;
    }
}

/// Down to each user, and from one batch to the other.
async fn pay_around(net: &Cluster) {
    for user in ["ada", "ben", "cid"] {
        pays(net, HUB, user, 10_000_000).await;
    }
    pays(net, "ben", "cid", 2_000_001).await;
    pays(net, "cid", "ada", 1_000).await;
    pays(net, "ada", "ben", 1_000_000).await;
}

/// What each user has in its channel.
const PAID_SAT: u64 = 40_000;
/// The one coin of each, for its share of the path and for its commitment.
const COIN_SAT: u64 = 120_000;

pub async fn everyone_exits_at_once(net: &mut Cluster) {
    let mut names = vec![HUB];
    names.extend(USERS);
    start(net, &names, |_| {}).await;
    fund(net, HUB, 2_000_000, 4).await;
    for user in USERS {
        fund(net, user, COIN_SAT, 1).await;
    }
    let batch = form(net, HUB, &USERS, CAPACITY_SAT).await;
    live(net, &batch).await;
    for user in USERS {
        pays(net, HUB, user, PAID_SAT * 1_000).await;
    }
    let (before, hub_had) = (net.on_chain().await.unwrap(), wallet_sat(net, HUB));
    let paths: Vec<_> = (0..USERS.len()).map(|slot| path(&batch, slot)).collect();
    let mut eye = Eye::on(net, &batch).await;
    for member in &batch.members {
        let channels = &net.node(&member.user).channels;
        channels.close(member.at_user, true, None, None).await.unwrap();
    }

    // The root's transaction, then what is below it beside the first commitments, then the last.
    let mut blocks = 0;
    while !all_left(net, &batch).await {
        for (slot, member) in batch.members.iter().enumerate() {
            match eye.next(&paths[slot..=slot]).first() {
                Some(level) => in_mempool(net, *level).await,
                None => until("a commitment", async || is_leaving(net, member.funding).await).await,
            }
        }
        net.mine(1).await.unwrap();
        eye.read(net).await;
        blocks += 1;
    }
    assert_eq!(blocks, 3, "two levels, and the last commitments");
    assert_eq!(eye.confirmed.len(), batch.tree_transactions().len());
    // Who was not first may have found its leaf on chain before it wanted it there.
    for user in USERS {
        let unrolls = net.node(user).unroller.unrolls();
        let on_chain = |state| matches!(state, UnrollState::OnChain { .. });
        assert!(unrolls.iter().all(|unroll| on_chain(unroll.state)), "{user}: {unrolls:?}");
    }
    // A level and its child, once for all; a commitment and its child for each.
    let left = net.on_chain().await.unwrap();
    let [levels, users] = [2, USERS.len() as u64];
    assert_eq!(left.transactions - before.transactions, 2 * levels + 2 * users);
    let vbytes = (left.vbytes - before.vbytes) / users;
    println!("  an exit by all takes {vbytes} vB for each of {users} users, commitments included");
    assert!(vbytes < 800, "{vbytes} vB for each user");

    mine_until_swept(net, MOST_BLOCKS / 2).await;
    conserved(net).await;
    no_coin_is_held(net);
    let fees_sat = fees_sat(net).await - before.fees.to_sat();
    for user in USERS {
        let (has, had) = (wallet_sat(net, user), COIN_SAT + PAID_SAT);
        assert!(has <= had && has + 40_000 > had, "{user} has {has} of {had}");
    }
    let users_sat: u64 = USERS.iter().map(|user| wallet_sat(net, user)).sum();
    let hub_sat = hub_had + users * (CAPACITY_SAT - PAID_SAT);
    let all_sat = hub_sat + users * (COIN_SAT + PAID_SAT);
    assert_eq!(users_sat + wallet_sat(net, HUB) + fees_sat, all_sat);
}

/// A hub leaves with all its channels and has one coin for every level and every commitment:
/// what it pays for one of them waits in change for the next block.
pub async fn one_coin_is_enough_for_a_mass_exit(net: &mut Cluster) {
    let mut names = vec![HUB];
    names.extend(USERS);
    start(net, &names, |_| {}).await;
    let capacities_sat = CAPACITY_SAT * USERS.len() as u64;
    fund(net, HUB, capacities_sat + 4 * COIN_SAT, 1).await;
    let batch = form(net, HUB, &USERS, CAPACITY_SAT).await;
    live(net, &batch).await;
    for user in USERS {
        pays(net, HUB, user, PAID_SAT * 1_000).await;
    }
    let hub = net.node(HUB);
    assert_eq!(hub.wallet.list_unspent().len(), 1);
    let had = wallet_sat(net, HUB);
    let fees_before = fees_sat(net).await;
    for member in &batch.members {
        hub.channels.close(member.at_hub, true, None, None).await.unwrap();
    }
    let mut blocks = 0;
    while !all_left(net, &batch).await {
        settle_down().await;
        net.mine(1).await.unwrap();
        blocks += 1;
        assert!(blocks < 60, "{:#?}", hub.unroller.unrolls());
    }
    println!("  with one coin an exit of all takes {blocks} blocks");
    // With coins for all it takes three.
    assert!(blocks > 3, "{blocks} blocks");
    mine_until_swept(net, MOST_BLOCKS / 2).await;
    conserved(net).await;
    no_coin_is_held(net);
    let users_sat: u64 = USERS.iter().map(|user| wallet_sat(net, user)).sum();
    let fees_sat = fees_sat(net).await - fees_before;
    assert_eq!(users_sat + wallet_sat(net, HUB) + fees_sat, had + capacities_sat);
}

/// Time to do what a block made possible.
async fn settle_down() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Whether every commitment is in a block.
async fn all_left(net: &Cluster, batch: &FormedBatch) -> bool {
    let source = net.chain.source();
    for member in &batch.members {
        let leaf = source.transaction_status(member.funding.txid).await.unwrap();
        if !matches!(leaf, node::chain::TxStatus::Confirmed(_))
            || source.unspent_output(member.funding).await.unwrap().is_some()
        {
            return false;
        }
    }
    true
}

/// Whether a commitment that spends `funding` is in the mempool or a block.
async fn is_leaving(net: &Cluster, funding: OutPoint) -> bool {
    let unspent = net.chain.source().unspent_output(funding).await.unwrap();
    unspent.is_none() || spender(net, funding).await.is_some()
}
