//! What is left of a batch at its expiry.

use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::dev::Cluster;
use tests::e2e::{WAIT, conserved, wallet_sat};

use crate::stage::{
    CAPACITY_SAT, HUB, USERS, batch, close, connect, crash, hub_batch, is_closed, is_confirmed,
    is_quiet, is_watched, mine_heard, mine_until_settled, pays, released, settlement, spender,
    until, wish,
};

/// Blocks of a life; long enough that a payment ends before the deadline.
const LIFE: u32 = 400;

pub async fn what_missing_users_leave_is_swept_at_expiry(net: &mut Cluster) {
    let users = &USERS[..3];
    batch(net, users, |config| {
        config.batch.life_blocks = LIFE;
        // It waits for the expiry.
        config.batch.early_value_ppm = 0;
    })
    .await;
    // One gives its key, one falls asleep with nothing, one with something.
    pays(net, HUB, "cid", 10_000_000).await;
    close(net, "ada").await;
    released(net, &["ada"]).await;
    let (sleeper, root) = (wish(net, "ben").await, wish(net, "ben").await.root.unwrap());
    let funding = sleeper.funding.unwrap();
    net.stop("ben").await.unwrap();
    net.stop("cid").await.unwrap();
    let coins = wallet_sat(net, HUB);
    let expiry = hub_batch(net).await.expiry.to_consensus_u32();
    let tip = net.chain.tip().await.unwrap().height;
    mine_heard(net, expiry - 1 - tip).await;
    assert!(matches!(settlement(net).await.phase, HubPhase::Live { .. }));
    assert!(!is_closed(net, HUB, funding) && settlement(net).await.transaction.is_none());

    mine_heard(net, 1).await;
    until("the sweep", async || settlement(net).await.transaction.is_some()).await;
    assert!(matches!(settlement(net).await.phase, HubPhase::Expiring { .. }));
    until("closed channels", async || is_closed(net, HUB, funding)).await;
    let sweep = spender(net, root).await;
    assert_eq!(sweep.input[0].witness.len(), 3, "spent by the script leaf");
    assert_eq!(sweep.lock_time.to_consensus_u32(), expiry);
    // LDK offers the commitments of what was closed again: no path is published for them.
    crash(net, HUB).await;
    connect(net, "ada").await;
    assert!(is_quiet(net, HUB));
    mine_heard(net, 1).await;
    assert!(is_quiet(net, HUB));
    assert!(is_confirmed(net, sweep.compute_txid()).await, "a restart does not change it");
    mine_until_settled(net, 8).await;
    assert!(net.chain.source().unspent_output(root).await.unwrap().is_none());
    let fees_sat = 3 * CAPACITY_SAT + coins - wallet_sat(net, HUB);
    assert!((100..10_000).contains(&fees_sat), "{fees_sat} sat");

    // Who slept finds the channel gone, and forgets it in the end.
    for user in ["ben", "cid"] {
        net.start(user).await.unwrap();
        connect(net, user).await;
    }
    net.synced().await.unwrap();
    mine_heard(net, 95).await;
    for user in users {
        until("a dead channel", async || {
            wish(net, user).await.state == UserPhase::Leaf(LeafState::Dead)
        })
        .await;
    }
    until("closed channels", async || is_closed(net, "ben", funding)).await;
    mine_heard(net, 1).await;
    for name in [HUB, "ben", "cid"] {
        let committer = &net.node(name).committer;
        committer.durable(committer.now()).await.unwrap();
        crash(net, name).await;
        let of = if name == HUB { "ben" } else { name };
        assert!(!is_watched(net, name, of).await, "{name} keeps a dead monitor");
        net.wait("nothing wanted", WAIT, || is_quiet(net, name)).await.unwrap();
        assert!(net.node(name).lightning.withheld_leaves().is_empty(), "{name}");
    }
    conserved(net).await;
}
