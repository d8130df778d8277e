//! The closing transaction of a retired channel, when a neighbour brings the leaf onto the chain.

use bitcoin::Amount;
use channel_contracts::batch::{LeafState, UserPhase};
use node::dev::Cluster;
use node::lightning::WithheldKind;
use tests::e2e::{WAIT, conserved, mine_until_swept, wallet_sat};

use crate::stage::{
    CAPACITY_SAT, HUB, USERS, batch, close, connect, crash, is_confirmed, is_quiet, mine_heard,
    pays, until, usable, wish,
};

const PAID_SAT: u64 = 40_000;

pub async fn a_neighbour_leaves_and_the_parked_closing_pays_both_sides(net: &mut Cluster) {
    batch(net, &USERS[..2], |_| {}).await;
    net.fund(&["ben"], Amount::from_sat(400_000), 2).await.unwrap();
    pays(net, HUB, "ada", PAID_SAT * 1_000).await;
    pays(net, HUB, "ben", 30_000_000).await;
    close(net, "ada").await;
    let funding = wish(net, "ada").await.funding.unwrap();
    assert_eq!(funding.txid, wish(net, "ben").await.funding.unwrap().txid, "one leaf for both");
    let closing = net.node(HUB).lightning.parked_closing(funding).unwrap();
    assert_eq!(net.node("ada").lightning.parked_closing(funding), Some(closing.clone()));

    // LDK offers its commitments again at a start and knows of no closing transaction.
    for name in [HUB, "ada"] {
        crash(net, name).await;
    }
    connect(net, "ada").await;
    connect(net, "ben").await;
    usable(net, "ben").await;
    mine_heard(net, 3).await;
    for name in [HUB, "ada"] {
        assert!(is_quiet(net, name), "{name} unrolls a retired channel");
        let withheld = net.node(name).lightning.withheld_leaves();
        assert_eq!(withheld.get(&funding), Some(&WithheldKind::Closing), "{name}");
    }
    assert!(!net.chain.knows(closing.compute_txid()).await.unwrap());

    let before = (wallet_sat(net, "ada"), wallet_sat(net, HUB));
    let joined = wish(net, "ben").await.registration;
    net.node("ben").batches.exit(joined).await.unwrap();
    until("the leaf", async || net.chain.knows(funding.txid).await.unwrap()).await;
    mine_heard(net, 1).await;
    assert!(is_confirmed(net, funding.txid).await);
    until("the closing transaction", async || {
        net.chain.knows(closing.compute_txid()).await.unwrap()
    })
    .await;
    // Also where a power cut comes between the leaf and its block.
    crash(net, HUB).await;
    crash(net, "ada").await;
    connect(net, "ben").await;
    net.mine(1).await.unwrap();
    assert!(is_confirmed(net, closing.compute_txid()).await);
    until("an unrolled leaf", async || {
        wish(net, "ada").await.state == UserPhase::Leaf(LeafState::Unrolled)
    })
    .await;
    mine_until_swept(net, 40).await;
    usable(net, "ben").await;
    pays(net, "ben", HUB, 1_000_000).await;
    assert_eq!(wallet_sat(net, "ada"), before.0 + PAID_SAT);
    let fee_sat = CAPACITY_SAT - closing.output.iter().map(|o| o.value.to_sat()).sum::<u64>();
    assert_eq!(wallet_sat(net, HUB), before.1 + CAPACITY_SAT - PAID_SAT - fee_sat);
    net.wait("free coins", WAIT, || net.nodes().all(|dev| dev.node().wallet.holds().is_empty()))
        .await
        .unwrap();
    conserved(net).await;
}
