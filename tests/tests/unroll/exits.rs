//! Whole stories: somebody leaves, and everybody has what is theirs.

use bitcoin::Amount;
use node::channels::ChannelState;
use node::dev::Cluster;
use node::lightning::CloseKind;
use node::unroll::{Reason, UnrollError, UnrollState};
use tests::e2e::{
    BatchMember, FormedBatch, WAIT, batch_usable, conserved, crash, mine_until_swept,
    other_spender, usable_channel, wallet_sat,
};

use crate::stage::{
    CAPACITY_SAT, COINS_SAT, Eye, HUB, PAID_MSAT, USERS, batch, in_mempool, path, pays, unroll,
    unroll_is,
};

/// More blocks than the delay of a lone closer.
const MOST_BLOCKS: u32 = 400;

pub async fn the_user_of_a_batch_of_one_closes_alone(net: &mut Cluster) {
    closes_alone(net, 1, "ada").await;
}

pub async fn a_user_of_a_batch_of_five_closes_alone(net: &mut Cluster) {
    closes_alone(net, 5, "ada").await;
}

pub async fn the_hub_closes_alone(net: &mut Cluster) {
    closes_alone(net, 2, HUB).await;
}

/// `closer` closes ada's channel by force. Nobody but the hub and a closing ada has coins.
async fn closes_alone(net: &mut Cluster, users: usize, closer: &str) {
    let with_coins: &[&str] = if closer == HUB { &[] } else { &["ada"] };
    let batch = batch(net, users, with_coins).await;
    let ada = &batch.members[0];
    let channel = if closer == HUB { ada.at_hub } else { ada.at_user };
    let mut eye = Eye::on(net, &batch).await;
    let before = (wallet_sat(net, "ada"), wallet_sat(net, HUB));
    net.node(closer).channels.close(channel, true, None, None).await.unwrap();

    let levels = path(&batch, 0);
    assert_eq!(levels.len(), if users == 5 { 2 } else { 1 });
    let blocks = eye.unrolled(net, std::slice::from_ref(&levels)).await;
    assert_eq!(blocks as usize, levels.len());
    assert_eq!(eye.confirmed.len(), levels.len());
    unroll_is(net, closer, |state| matches!(state, UnrollState::OnChain { .. })).await;
    assert_eq!(unroll(net, closer).unwrap().reason, Reason::Commitment);
    let spent = async || {
        let funding = net.chain.source().unspent_output(ada.funding).await.unwrap();
        funding.is_none()
    };
    for _ in 0..10 {
        if spent().await {
            break;
        }
        net.mine(1).await.unwrap();
    }
    assert!(spent().await, "no commitment is confirmed");
    // Neighbours on the same transactions go on.
    for BatchMember { user, at_hub, .. } in &batch.members[1..] {
        usable_channel(net, HUB, |c| c.channel == *at_hub).await;
        pays(net, HUB, user, 2_000_000).await;
    }
    mine_until_swept(net, MOST_BLOCKS).await;
    assert_eq!(unroll(net, closer), None, "what is buried is forgotten");
    at_home(net).await;
    let fees_sat = net.on_chain().await.unwrap().fees.to_sat();
    let (ada_sat, hub_sat) = (wallet_sat(net, "ada"), wallet_sat(net, HUB));
    assert!(ada_sat + fees_sat >= before.0 + PAID_MSAT / 1_000, "{ada_sat} of {before:?}");
    let rest_sat = CAPACITY_SAT - PAID_MSAT / 1_000;
    assert!(hub_sat + fees_sat >= before.1 + rest_sat, "{hub_sat} of {before:?}");
    let kind = net.node(closer).channels.recorded(channel).unwrap().close_kind;
    assert_eq!(kind, Some(CloseKind::ForcedByUs));
}

/// Asserts that no satoshi is missing, and none is held for anything.
async fn at_home(net: &Cluster) {
    conserved(net).await;
    for dev in net.nodes() {
        assert_eq!(dev.node().wallet.holds(), vec![], "{}", dev.name);
    }
}

pub async fn a_user_leaves_and_pays_on(net: &mut Cluster) {
    let batch = batch(net, 5, &["ada"]).await;
    let ada = &batch.members[0];
    let unroller = &net.node("ada").unroller;
    let others = unroller.exit(batch.members[4].funding).await.unwrap_err();
    assert!(matches!(others, UnrollError::Unknown { .. }), "ada has no path there: {others}");
    let mut eye = Eye::on(net, &batch).await;
    unroller.exit(ada.funding).await.unwrap();
    unroller.exit(ada.funding).await.unwrap();
    assert_eq!(eye.unrolled(net, &[path(&batch, 0)]).await, 2);
    unroll_is(net, "ada", |state| *state == UnrollState::OnChain { confirmations: 1 }).await;
    assert!(net.node("ada").confirmations.is_on_chain(ada.funding));
    assert!(net.node(HUB).unroller.unrolls().is_empty());

    batch_usable(net, HUB, &batch).await;
    pays(net, "ada", HUB, 30_000_000).await;
    pays(net, HUB, "ada", 1).await;
    pays(net, "ada", "eve", 1_000_000).await;
    net.mine(5).await.unwrap();
    net.wait("end of the record", WAIT, || unroll(net, "ada").is_none()).await.unwrap();
    at_home(net).await;

    // It ends as any other.
    net.node("ada").channels.close(ada.at_user, false, None, None).await.unwrap();
    let closed = || {
        let record = net.node("ada").channels.recorded(ada.at_user).unwrap();
        record.state == ChannelState::Closed
    };
    net.wait("end of the channel", WAIT, closed).await.unwrap();
    other_spender(net, ada.funding, None).await;
    net.mine(1).await.unwrap();
    let spent = net.chain.source().unspent_output(ada.funding).await.unwrap().is_none();
    assert!(spent, "the closing transaction is not confirmed");
    mine_until_swept(net, MOST_BLOCKS).await;
    at_home(net).await;
}

pub async fn two_users_at_once_share_what_they_have_in_common(net: &mut Cluster) {
    let batch = batch(net, 5, &["ada", "ben", "eve"]).await;
    let paths = [path(&batch, 0), path(&batch, 1), path(&batch, 4)];
    assert_eq!(paths[0], paths[1]);
    assert_eq!((paths[0].len(), paths[2].len()), (2, 1));
    let mut eye = Eye::on(net, &batch).await;
    let before = net.on_chain().await.unwrap().transactions;
    for slot in [0, 1, 4] {
        let BatchMember { user, funding, .. } = &batch.members[slot];
        net.node(user).unroller.exit(*funding).await.unwrap();
    }
    assert_eq!(eye.unrolled(net, &paths).await, 2);
    // Two levels and a child for each, whoever paid.
    assert_eq!(net.on_chain().await.unwrap().transactions, before + 4);
    for slot in [0, 1, 4] {
        let user = USERS[slot];
        unroll_is(net, user, |state| matches!(state, UnrollState::OnChain { .. })).await;
        pays(net, user, HUB, 1_000_000).await;
    }
    net.mine(6).await.unwrap();
    net.wait("free coins", WAIT, || net.nodes().all(|dev| dev.node().wallet.holds().is_empty()))
        .await
        .unwrap();
    at_home(net).await;
    let coins = |name| net.node(name).wallet.balance().confirmed.to_sat();
    let paid_sat: u64 = ["ada", "ben", "eve"].iter().map(|name| COINS_SAT - coins(name)).sum();
    assert!((1..40_000).contains(&paid_sat), "{paid_sat} sat of fees");
}

pub async fn a_hub_brings_all_channels_onto_the_chain(net: &mut Cluster) {
    let batch = batch(net, 5, &[]).await;
    let mut eye = Eye::on(net, &batch).await;
    for member in &batch.members {
        net.node(HUB).unroller.exit(member.funding).await.unwrap();
    }
    let paths: Vec<_> = (0..5).map(|slot| path(&batch, slot)).collect();
    assert_eq!(eye.unrolled(net, &paths).await, 2);
    assert_eq!(eye.confirmed.len(), batch.tree_transactions().len());
    batch_usable(net, HUB, &batch).await;
    pays(net, "ada", "ben", 1_000_000).await;
    pays(net, "eve", "cid", 1_000_000).await;
    net.mine(6).await.unwrap();
    net.wait("end of the records", WAIT, || net.node(HUB).unroller.unrolls().is_empty())
        .await
        .unwrap();
    at_home(net).await;
}

pub async fn a_power_cut_in_the_middle_changes_nothing(net: &mut Cluster) {
    let batch = batch(net, 5, &["ada"]).await;
    let ada = batch.members[0].clone();
    let levels = path(&batch, 0);
    let mut eye = Eye::on(net, &batch).await;
    net.node("ada").unroller.exit(ada.funding).await.unwrap();
    // At once, with the first level in the mempool, and with the second.
    crash(net, "ada").await;
    assert_eq!(unroll(net, "ada").unwrap().reason, Reason::Requested);
    in_mempool(net, levels[0]).await;
    crash(net, "ada").await;
    net.mine(1).await.unwrap();
    in_mempool(net, levels[1]).await;
    crash(net, "ada").await;
    crash(net, HUB).await;
    eye.read(net).await;
    assert_eq!(eye.unrolled(net, std::slice::from_ref(&levels)).await, 1);
    assert!(eye.confirmed[&levels[0]] < eye.confirmed[&levels[1]]);
    crash(net, "ada").await;
    unroll_is(net, "ada", |state| matches!(state, UnrollState::OnChain { .. })).await;
    batch_usable(net, HUB, &batch).await;
    pays(net, "ada", HUB, 1_000_000).await;

    // A channel that is closed alone while the other side is down.
    net.stop(HUB).await.unwrap();
    net.node("ada").channels.close(ada.at_user, true, None, None).await.unwrap();
    crash(net, "ada").await;
    net.mine(2).await.unwrap();
    net.start(HUB).await.unwrap();
    net.synced().await.unwrap();
    mine_until_swept(net, MOST_BLOCKS).await;
    at_home(net).await;
}

pub async fn a_reorg_of_any_level_is_followed(net: &mut Cluster) {
    let batch: FormedBatch = batch(net, 5, &["ada"]).await;
    let ada = &batch.members[0];
    let levels = path(&batch, 0);
    let mut eye = Eye::on(net, &batch).await;
    net.node("ada").unroller.exit(ada.funding).await.unwrap();
    in_mempool(net, levels[0]).await;
    net.mine(1).await.unwrap();
    // The first level alone, then both: they come back into the mempool and into new blocks.
    for depth in [1, 2] {
        net.chain.reorg(depth).await.unwrap();
        net.synced().await.unwrap();
        eye.read_again(net).await;
        eye.unrolled(net, std::slice::from_ref(&levels)).await;
        unroll_is(net, "ada", |state| matches!(state, UnrollState::OnChain { .. })).await;
    }
    net.mine(6).await.unwrap();
    net.wait("end of the record", WAIT, || unroll(net, "ada").is_none()).await.unwrap();
    assert!(net.node(HUB).confirmations.is_on_chain(ada.funding));
    batch_usable(net, HUB, &batch).await;
    pays(net, "ada", HUB, 1_000_000).await;
    at_home(net).await;
    assert!(net.node("ada").wallet.balance().confirmed > Amount::from_sat(COINS_SAT - 60_000));
}
