//! A channel that was rolled over and retired, and its state from before.

use channel_contracts::batch::{LeafState, UserPhase};
use node::dev::Cluster;
use tests::e2e::{
    Image, connect, conserved, formed, in_mempool, mine_until_swept_at, moved, next_batch, pays,
    usable_channel, wallet_sat, wishes,
};

use crate::stage::{
    CAPACITY_SAT, HUB, MOST_BLOCKS, copy, fees_sat, fund, mine_spender, start, wake,
};

/// Life of a batch here, in blocks: long enough for a window to roll over in.
const LIFE: u32 = 600;
const COINS_SAT: u64 = 400_000;
const PAID_SAT: u64 = 50_001;

pub async fn a_state_from_before_the_rollover_is_punished_after_retirement_and_restart(
    net: &mut Cluster,
) {
    let disks = start(net, &[HUB, "ada"], |config| {
        config.batch.life_blocks = LIFE;
        config.batch.gathering_ms = 300;
        // The hub lets the old batch lie until its expiry.
        config.batch.early_value_ppm = 0;
    })
    .await;
    fund(net, HUB, 4_000_000, 4).await;
    fund(net, "ada", COINS_SAT, 2).await;
    connect(net, "ada").await;
    formed(net, &["ada"], CAPACITY_SAT).await;
    pays(net, HUB, "ada", PAID_SAT * 1_000).await;
    let (first, _) = wishes(net, "ada").await;
    let old = copy(net, &disks, "ada").await;
    wake(net, "ada").await;
    connect(net, "ada").await;

    next_batch(net, LIFE / 2, 2).await;
    moved(net, "ada").await;
    let (left, second) = wishes(net, "ada").await;
    assert_eq!(left.state, UserPhase::Leaf(LeafState::Retired));
    let coins = (wallet_sat(net, "ada"), wallet_sat(net, HUB), fees_sat(net).await);

    // The cheater has all that the retired channel ever gave her, and the new channel too.
    net.stop(HUB).await.unwrap();
    let honest = copy(net, &disks, "ada").await;
    old.put_back(&disks["ada"]);
    wake(net, "ada").await;
    let (funding, channel) = (first.funding.unwrap(), first.channel.unwrap());
    net.node("ada").channels.close(channel, true, None, None).await.unwrap();
    in_mempool(net, funding.txid).await;
    net.mine(1).await.unwrap();
    mine_spender(net, funding).await;
    net.mine(1).await.unwrap();
    change_of_heart(net, &honest, &disks["ada"]).await;

    // The hub starts, has no channel there any more, and takes all of it.
    wake(net, HUB).await;
    mine_until_swept_at(net, &[HUB], MOST_BLOCKS.min(LIFE / 4)).await;
    connect(net, "ada").await;
    let funding = second.unwrap().funding;
    usable_channel(net, "ada", |channel| channel.funding == funding).await;
    usable_channel(net, HUB, |channel| channel.funding == funding).await;
    let channels = net.node("ada").lightning.channels();
    let balances: Vec<u64> = channels.iter().map(|channel| channel.local_msat).collect();
    assert_eq!(balances, [PAID_SAT * 1_000]);
    pays(net, "ada", HUB, 1_000_000).await;
    conserved(net).await;
    let fees_sat = fees_sat(net).await - coins.2;
    let (ada_has, hub_has) = (wallet_sat(net, "ada"), wallet_sat(net, HUB));
    let spent_sat = coins.0.checked_sub(ada_has).expect("the cheater gains nothing");
    assert_eq!(hub_has, coins.1 + CAPACITY_SAT + spent_sat - fees_sat);
    assert!(fees_sat - spent_sat < 20_000, "punishing took {} sat", fees_sat - spent_sat);
}

/// The cheater has her new channel again, so that what comes of it is seen.
async fn change_of_heart(net: &mut Cluster, honest: &Image, disk: &node::store::MemoryDisk) {
    net.stop("ada").await.unwrap();
    honest.put_back(disk);
    wake(net, "ada").await;
}
