//! A hub that loses power after any message of a batch that forms.

use bitcoin::Amount;
use channel_contracts::batch::HubPhase;
use node::dev::Cluster;
use tests::e2e::{
    DEPTH, HUB, WAIT, batches_in_mempool, clear_end, conserved, crash, forming_ended, in_time,
    join, pays, until,
};

use crate::stage::{connected_at, fund, start};
use crate::wire::Wire;

/// A capacity of which many fit into the hub's coins.
const SMALL_SAT: u64 = 20_000;
/// Ada is behind the wire, ben is not.
const USERS: [&str; 2] = ["ada", "ben"];
/// Fewer pieces than any batch takes to form.
const FEWEST_PIECES: u64 = 8;

pub async fn a_hub_that_crashes_after_any_message_loses_nothing(net: &mut Cluster) {
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
        if was_cut {
            crash(net, HUB).await;
        }
        wire.repair();
        both_connected(net, &wire).await;
        ended_clearly(net).await;
        if !was_cut {
            break;
        }
        after += 1;
    }
    println!("  the hub lost power after each of {} messages", after - 1);
    assert!(after > FEWEST_PIECES, "the hub was cut off {after} times only");
    both_connected(net, &wire).await;
    every_channel_carries(net).await;
    conserved(net).await;
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
