//! Who is late loses to the sweep.

use bitcoin::absolute::Height;
use channel_contracts::batch::{Deadlines, HubPhase, LeafState, UserPhase};
use node::dev::Cluster;
use node::unroll::{Reason, UnrollState};
use tests::e2e::{
    WAIT, connect, conserved, formed, in_mempool, mine_heard, newest, other_spender, pays, until,
    usable_channel, wallet_sat, wish,
};

use crate::stage::{CAPACITY_SAT, HUB, fees_sat, fund, no_coin_is_held, start, tip, wake};

/// Blocks of a life; long enough that a payment ends before the deadline.
const LIFE: u32 = 400;
const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
const COINS_SAT: u64 = 400_000;
const PAID_SAT: u64 = 30_000;

pub async fn a_late_exit_loses_to_the_sweep(net: &mut Cluster) {
    start(net, &[HUB, "ada", "ben", "cid", "dot", "eve"], |config| {
        config.batch.life_blocks = LIFE;
        // The hub waits for the expiry, and outbids users, who pay little for an exit.
        config.batch.early_value_ppm = 0;
        if config.alias != HUB {
            config.batch.exit_feerate_max_sat_per_vb = 3;
        }
    })
    .await;
    fund(net, HUB, 4_000_000, 4).await;
    for user in USERS {
        connect(net, user).await;
    }
    formed(net, &USERS, CAPACITY_SAT).await;
    // The root's transaction funds three channels itself; below it are two, the late one's too.
    let deep = two_levels_deep(net).await;
    let [late, neighbour] = deep[..] else { panic!("two users are below: {deep:?}") };
    fund(net, late, COINS_SAT, 2).await;
    pays(net, HUB, late, PAID_SAT * 1_000).await;
    let place = wish(net, late).await;
    let (funding, expiry) = (place.funding.unwrap(), place.expiry.unwrap());
    for user in USERS {
        net.stop(user).await.unwrap();
    }
    let before = (wallet_sat(net, HUB), fees_sat(net).await);

    // It wakes one block before the expiry, when an exit has no time any more, and tries.
    mine_heard(net, expiry.to_consensus_u32() - 1 - tip(net).await).await;
    let deadlines = Deadlines::new(expiry, 2).unwrap();
    let best = Height::from_consensus(tip(net).await).unwrap();
    assert!(deadlines.must_unroll(best) && !deadlines.exit_can_win(best));
    wake(net, late).await;
    unroll_is(net, late, |state| matches!(state, UnrollState::Publishing { level: 0, .. })).await;
    assert_eq!(net.node(late).unroller.unrolls()[0].reason, Reason::Deadline);
    let top = other_spender(net, place.root.unwrap(), None).await;
    in_mempool(net, top.compute_txid()).await;
    mine_heard(net, 1).await;

    // The hub takes what hangs below, at a fee that the exit does not pay. The node tells it.
    until("the sweep", async || swept(net).await).await;
    mine_heard(net, 1).await;
    unroll_is(net, late, |state| *state == UnrollState::Lost).await;
    assert!(!net.chain.knows(funding.txid).await.unwrap(), "the leaf is published");
    mine_heard(net, 5).await;
    until("a settled batch", async || newest(net).await.unwrap().phase == HubPhase::Settled).await;

    // What the late user had is the hub's; it lost its fees as well.
    let late_has = wallet_sat(net, late);
    let spent_sat = COINS_SAT.checked_sub(late_has).expect("a late user gains nothing");
    assert!(spent_sat > 0, "the late user pays for what it published");
    let fees_sat = fees_sat(net).await - before.1;
    assert_eq!(wallet_sat(net, HUB), before.0 + 2 * CAPACITY_SAT + spent_sat - fees_sat);

    // The others have ordinary channels, thanks to the late one.
    for user in USERS.into_iter().filter(|user| *user != late) {
        wake(net, user).await;
        connect(net, user).await;
    }
    for user in USERS.into_iter().filter(|user| !deep.contains(user)) {
        let funding = wish(net, user).await.funding;
        usable_channel(net, user, |channel| channel.funding == funding).await;
        pays(net, HUB, user, 1_000_000).await;
    }
    mine_heard(net, 100).await;
    for user in [late, neighbour] {
        until("a dead channel", async || {
            wish(net, user).await.state == UserPhase::Leaf(LeafState::Dead)
        })
        .await;
    }
    net.wait("free coins", WAIT, || net.nodes().all(|dev| dev.node().wallet.holds().is_empty()))
        .await
        .unwrap();
    no_coin_is_held(net);
    conserved(net).await;
}

/// Waits until `done` says so of the one path that `name` publishes.
async fn unroll_is(net: &Cluster, name: &str, done: impl Fn(&UnrollState) -> bool) {
    let unrolls = || net.node(name).unroller.unrolls();
    let waited = net.wait("state of an unroll", WAIT, || unrolls().iter().any(|u| done(&u.state)));
    waited.await.unwrap_or_else(|error| panic!("{error}: {:?}", unrolls()));
}

/// Whether the mempool has what sweeps the hub's batch.
async fn swept(net: &Cluster) -> bool {
    let batch = newest(net).await.unwrap().batch;
    let settlement = net.node(HUB).batches.settlement(batch).await.unwrap();
    assert!(matches!(settlement.phase, HubPhase::Expiring { .. }), "{settlement:?}");
    match settlement.transaction {
        Some((txid, _)) => net.chain.knows(txid).await.unwrap(),
        None => false,
    }
}

/// The users whose paths have two transactions.
async fn two_levels_deep(net: &Cluster) -> Vec<&'static str> {
    let mut deep = Vec::new();
    for user in USERS {
        if wish(net, user).await.exit.unwrap().levels == 2 {
            deep.push(user);
        }
    }
    deep
}
