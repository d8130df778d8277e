//! Hubs and users with channels of a batch.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, Script, TxOut};
use channel_contracts::tree::shape::{VIRTUAL_INDEX_BASE, VIRTUAL_INDICES_PER_ROOT};
use node::chain::virtual_confirmation::AddError;
use node::channels::ChannelState;
use node::dev::{Cluster, NodeOptions};
use node::lightning::types::ChannelRef;
use node::lightning::{CloseKind, WithheldKind};
use node::store::MemoryDisk;
use tests::e2e::{
    FormedBatch, WAIT, batch_usable, broadcast, channel_balance, conserved, form, form_paying,
    hub_fee, hub_record, mine_until, mine_until_swept, open_unfunded, pays, tree_stays_off_chain,
    usable_channel, wallet_sat,
};

const HUB: &str = "hub";
const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
const FUNDS_SAT: u64 = 5_000_000;
const CAPACITY_SAT: u64 = 300_000;
/// Confirmations that a batch needs on regtest.
const DEPTH: u32 = 3;

/// The first virtual index of a batch transaction behind the coinbase transaction alone.
const FIRST: u64 = (VIRTUAL_INDEX_BASE + VIRTUAL_INDICES_PER_ROOT) as u64;

/// Starts a hub with coins and `users` users without.
async fn start(net: &mut Cluster, users: usize, on_disk: bool) {
    for name in [HUB].iter().chain(&USERS[..users]) {
        let disk = (!on_disk).then(MemoryDisk::new);
        net.add(name, NodeOptions { disk, ..NodeOptions::default() }).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
}

/// A batch of `users` users whose channels are usable.
async fn batch(net: &mut Cluster, users: usize) -> FormedBatch {
    let batch = form(net, HUB, &USERS[..users], CAPACITY_SAT).await;
    broadcast(net, HUB, &batch).await;
    net.mine(DEPTH).await.unwrap();
    batch_usable(net, HUB, &batch).await;
    batch
}

/// Every channel's place in its block, from its short channel id.
fn indices(net: &Cluster, name: &str) -> Vec<u64> {
    let channels = net.node(name).lightning.channels();
    let mut indices: Vec<u64> =
        channels.iter().filter_map(|c| Some((c.short_channel_id? >> 16) & 0xff_ffff)).collect();
    indices.sort_unstable();
    indices
}

pub async fn one_transaction_makes_one_channel_usable(net: &mut Cluster) {
    becomes_usable(net, 1).await;
}

pub async fn one_transaction_makes_two_channels_usable(net: &mut Cluster) {
    becomes_usable(net, 2).await;
}

pub async fn one_transaction_makes_five_channels_usable(net: &mut Cluster) {
    becomes_usable(net, 5).await;
}

async fn becomes_usable(net: &mut Cluster, users: usize) {
    start(net, users, true).await;
    let before = net.on_chain().await.unwrap().transactions;
    let batch = batch(net, users).await;
    assert_eq!(net.on_chain().await.unwrap().transactions, before + 1);

    // The first leaf of five is at the root's own transaction and has three channels.
    let expected: &[u64] = match users {
        5 => &[FIRST, FIRST, FIRST, FIRST + 1, FIRST + 1],
        _ => &[FIRST; 2][..users],
    };
    assert_eq!(indices(net, HUB), expected);
    for name in [HUB].iter().chain(&USERS[..users]) {
        for channel in net.node(name).lightning.channels() {
            assert_eq!((channel.reserve_sat, channel.counterparty_reserve_sat), (0, 0));
            assert_eq!(channel.confirmations, (DEPTH, DEPTH));
            let record = net.node(name).channels.recorded(channel.channel).unwrap();
            assert!(record.batch && record.funding == channel.funding, "{record:?}");
        }
    }

    // Down to each user, among users through the hub, and every satoshi back up.
    let users = &USERS[..users];
    let large_msat = 200_000_000;
    for user in users {
        pays(net, HUB, user, large_msat).await;
    }
    for pair in users.windows(2) {
        for (from, to) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            for amount_msat in [1, 1_000, 12_345_678] {
                let before = channel_balance(net, from, HUB);
                pays(net, from, to, amount_msat).await;
                let spent = before - channel_balance(net, from, HUB);
                assert_eq!(spent, amount_msat + hub_fee(amount_msat));
            }
        }
    }
    for user in users {
        let all_msat = channel_balance(net, user, HUB);
        pays(net, user, HUB, all_msat).await;
        assert_eq!(channel_balance(net, user, HUB), 0);
        pays(net, HUB, user, CAPACITY_SAT * 1_000).await;
        assert_eq!(channel_balance(net, HUB, user), 0);
    }

    // A node that did not record the batch in time is told so.
    net.add("zoe", NodeOptions::default()).await.unwrap();
    let zoe = net.node("zoe");
    let source = &zoe.environment.chain;
    let late = zoe.confirmations.add(hub_record(&batch.signed), &**source).await.unwrap_err();
    assert!(matches!(late, AddError::TooLate { root } if root == batch.root()), "{late}");
    assert_eq!(zoe.confirmations.get(batch.root()), None);
    tree_stays_off_chain(net, &batch).await;
    conserved(net).await;
}

pub async fn both_sides_restart_and_pay_on(net: &mut Cluster) {
    start(net, 2, true).await;
    let batch = form(net, HUB, &USERS[..2], CAPACITY_SAT).await;
    // The hub before its batch is broadcast, a user while it confirms.
    net.stop(HUB).await.unwrap();
    net.start(HUB).await.unwrap();
    broadcast(net, HUB, &batch).await;
    net.stop("ada").await.unwrap();
    net.mine(DEPTH).await.unwrap();
    net.start("ada").await.unwrap();
    net.synced().await.unwrap();
    batch_usable(net, HUB, &batch).await;
    pay_around(net).await;
    for name in [HUB, "ada"] {
        let before = (indices(net, name), channel_balances(net, name));
        net.stop(name).await.unwrap();
        net.start(name).await.unwrap();
        assert_eq!((indices(net, name), channel_balances(net, name)), before);
        batch_usable(net, HUB, &batch).await;
        pay_around(net).await;
    }
    tree_stays_off_chain(net, &batch).await;
    conserved(net).await;
}

pub async fn both_sides_crash_and_pay_on(net: &mut Cluster) {
    start(net, 2, false).await;
    let batch = form(net, HUB, &USERS[..2], CAPACITY_SAT).await;
    for name in ["ada", HUB] {
        net.crash(name).await.unwrap();
        net.start(name).await.unwrap();
        assert!(net.node(name).confirmations.get(batch.root()).is_some());
    }
    broadcast(net, HUB, &batch).await;
    for name in ["ben", HUB, "ada"] {
        // The block of the root, and those above it, are seen by a node that has just crashed.
        net.crash(name).await.unwrap();
        net.mine(1).await.unwrap();
        net.start(name).await.unwrap();
        net.synced().await.unwrap();
    }
    batch_usable(net, HUB, &batch).await;
    pay_around(net).await;
    for name in [HUB, "ada"] {
        net.crash(name).await.unwrap();
        net.start(name).await.unwrap();
        batch_usable(net, HUB, &batch).await;
        pay_around(net).await;
    }
    tree_stays_off_chain(net, &batch).await;
    conserved(net).await;
}

/// The hub pays one user, who pays the other.
async fn pay_around(net: &Cluster) {
    pays(net, HUB, "ada", 20_000_000).await;
    pays(net, "ada", "ben", 5_000_000).await;
    pays(net, "ben", "ada", 1).await;
}

fn channel_balances(net: &Cluster, name: &str) -> BTreeSet<(String, u64, u64)> {
    let channels = net.node(name).lightning.channels().into_iter();
    channels.map(|c| (c.funding.unwrap().to_string(), c.local_msat, c.remote_msat)).collect()
}

pub async fn a_reorg_below_the_depth_is_followed(net: &mut Cluster) {
    start(net, 2, true).await;
    let batch = form(net, HUB, &USERS[..2], CAPACITY_SAT).await;
    broadcast(net, HUB, &batch).await;
    net.mine(DEPTH - 1).await.unwrap();
    let first = net.node(HUB).confirmations.get(batch.root()).unwrap().confirmed().unwrap();
    assert!(net.node(HUB).lightning.channels().iter().all(|channel| !channel.ready));
    // One block more replaces both: the root is in the first of them, or a later one.
    net.chain.reorg(DEPTH - 1).await.unwrap();
    net.synced().await.unwrap();
    for name in [HUB, "ada", "ben"] {
        let again = net.node(name).confirmations.get(batch.root()).unwrap().confirmed().unwrap();
        assert_ne!(again.hash, first.hash, "{name}");
    }
    net.mine(DEPTH).await.unwrap();
    batch_usable(net, HUB, &batch).await;
    pay_around(net).await;
    // What is ready survives a reorg that leaves the root.
    net.chain.reorg(1).await.unwrap();
    net.synced().await.unwrap();
    pay_around(net).await;
    tree_stays_off_chain(net, &batch).await;
    conserved(net).await;
}

pub async fn a_root_that_goes_and_comes_again_confirms_in_its_new_block(net: &mut Cluster) {
    start(net, 2, true).await;
    let batch = form(net, HUB, &USERS[..2], CAPACITY_SAT).await;
    broadcast(net, HUB, &batch).await;
    net.mine(2).await.unwrap();
    let first = net.node(HUB).confirmations.get(batch.root()).unwrap().confirmed().unwrap();
    // Three empty blocks, then as many as it takes, which a user sees after a restart.
    net.chain.as_embedded().unwrap().reorg(2, 3).unwrap();
    net.synced().await.unwrap();
    for name in [HUB, "ada", "ben"] {
        assert_eq!(net.node(name).confirmations.get(batch.root()).unwrap().confirmed(), None);
        for channel in net.node(name).lightning.channels() {
            assert_eq!((channel.confirmations.0, channel.short_channel_id), (0, None), "{name}");
        }
    }
    net.stop("ada").await.unwrap();
    net.mine(DEPTH).await.unwrap();
    net.start("ada").await.unwrap();
    net.synced().await.unwrap();
    batch_usable(net, HUB, &batch).await;
    for name in [HUB, "ada", "ben"] {
        let again = net.node(name).confirmations.get(batch.root()).unwrap().confirmed().unwrap();
        assert_eq!(again.height, first.height + 3, "{name}");
        assert!(indices(net, name).iter().all(|index| *index == FIRST));
    }
    pay_around(net).await;
    tree_stays_off_chain(net, &batch).await;
    conserved(net).await;
}

pub async fn a_wrong_root_confirms_nothing(net: &mut Cluster) {
    start(net, 2, true).await;
    let short = |agreed: &TxOut| TxOut { value: agreed.value - Amount::ONE_SAT, ..agreed.clone() };
    let batch = form_paying(net, HUB, &USERS[..2], CAPACITY_SAT, short).await;
    broadcast(net, HUB, &batch).await;
    net.mine(2 * DEPTH).await.unwrap();
    for name in [HUB, "ada", "ben"] {
        let node = net.node(name);
        assert_eq!(node.confirmations.get(batch.root()).unwrap().confirmed(), None);
        let channels = node.lightning.channels();
        assert!(!channels.is_empty());
        assert!(channels.iter().all(|c| !c.ready && c.confirmations.0 == 0), "{channels:?}");
    }
    tree_stays_off_chain(net, &batch).await;
}

pub async fn a_channel_that_no_batch_funds_leaves_no_trace(net: &mut Cluster) {
    start(net, 2, true).await;
    let coins = net.node(HUB).wallet.balance();
    let (given_up, at_ada, _) = open_unfunded(net, HUB, "ada", CAPACITY_SAT).await;
    let (forgotten, at_ben, _) = open_unfunded(net, HUB, "ben", CAPACITY_SAT).await;
    net.node(HUB).channels.abandon_for_batch(given_up, "the batch is full");
    never_opened(net, HUB, given_up).await;
    never_opened(net, "ada", at_ada).await;
    assert!(net.node(HUB).channels.fund_from_batch(given_up, OutPoint::null()).is_err());

    // LDK has no memory of the other after a restart of either side.
    net.stop(HUB).await.unwrap();
    net.start(HUB).await.unwrap();
    never_opened(net, HUB, forgotten).await;
    never_opened(net, "ben", at_ben).await;

    // A user who expects nothing more gets an ordinary channel, with a reserve.
    let hub = net.node(HUB);
    let user = net.node("ada").lightning.node_id();
    net.wait("the user's connection", WAIT, || hub.lightning.is_connected(&user)).await.unwrap();
    let unasked = hub.channels.open_for_batch(user, CAPACITY_SAT, 1, None).unwrap();
    net.wait("the user's answer", WAIT, || hub.lightning.unfunded_channel(unasked).is_some())
        .await
        .unwrap();
    let channels = hub.lightning.channels();
    assert!(channels[0].reserve_sat > 0, "{channels:?}");
    hub.channels.abandon_for_batch(unasked, "it has a reserve");
    never_opened(net, HUB, unasked).await;
    let balance = net.node(HUB).wallet.balance();
    assert_eq!((balance.confirmed, balance.held), (coins.confirmed, Amount::ZERO));
}

async fn never_opened(net: &Cluster, name: &str, channel: ChannelRef) {
    net.wait_channel(name, channel, "end of an unfunded channel", |view| {
        view.record.state == ChannelState::Closed && view.live.is_none()
    })
    .await
    .unwrap();
    let record = net.node(name).channels.recorded(channel).unwrap();
    assert_eq!(record.close_kind, Some(CloseKind::NeverOpened), "{record:?}");
}

pub async fn a_closing_transaction_waits_until_its_leaf_is_on_chain(net: &mut Cluster) {
    let batch = paid_batch(net).await;
    let ada = &batch.members[0];
    let before = wallet_sat(net, "ada");
    net.node("ada").channels.close(ada.at_user, false, None, None).await.unwrap();
    withheld(net, "ada", ada.funding).await;
    withheld(net, HUB, ada.funding).await;
    net.mine(2).await.unwrap();
    assert_eq!(net.chain.source().mempool().await.unwrap(), vec![]);
    for name in ["ada", HUB] {
        let unrolls = net.node(name).unroller.unrolls();
        assert_eq!(unrolls, vec![], "a channel that ended by agreement wants nothing on chain");
    }
    assert_eq!(wallet_sat(net, "ada"), before, "what cannot leave is no money yet");
    tree_stays_off_chain(net, &batch).await;
    publish_and_sweep(net, &batch).await;
    assert!(wallet_sat(net, "ada") > before);
}

/// A batch of two users who were paid; the first has coins too.
async fn paid_batch(net: &mut Cluster) -> FormedBatch {
    start(net, 2, true).await;
    net.fund(&["ada"], Amount::from_sat(100_000), 2).await.unwrap();
    let batch = batch(net, 2).await;
    pays(net, HUB, "ada", 50_000_000).await;
    pays(net, HUB, "ben", 50_000_000).await;
    batch
}

/// Waits until `name` holds back a closing transaction that spends `funding`, and nothing else.
async fn withheld(net: &Cluster, name: &str, funding: OutPoint) {
    let waits = BTreeMap::from([(funding, WithheldKind::Closing)]);
    net.wait("transactions held back", WAIT, || {
        net.node(name).lightning.withheld_leaves() == waits
    })
    .await
    .unwrap();
}

/// Puts the tree on chain, which no side wants by itself, with a block made to measure, and
/// follows the first channel to its end while the second goes on.
async fn publish_and_sweep(net: &Cluster, batch: &FormedBatch) {
    let [ada, ben] = &batch.members[..] else { panic!("two members") };
    let chain = net.chain.as_embedded().unwrap();
    chain.mine_block_with(batch.tree_transactions(), Script::new()).unwrap();
    net.synced().await.unwrap();
    net.wait("release of what was held back", WAIT, || {
        ["ada", HUB].iter().all(|name| net.node(name).lightning.withheld_leaves().is_empty())
    })
    .await
    .unwrap();
    let spent = || chain.spender(ada.funding).is_some();
    mine_until(net, "spend of the leaf", 10, spent).await;
    usable_channel(net, HUB, |c| c.channel == ben.at_hub).await;
    pays(net, HUB, "ben", 2_000_000).await;
    mine_until_swept(net, 400).await;
    conserved(net).await;
}
