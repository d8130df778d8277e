//! What a node hands to its towers, and when.

use channel_contracts::tower::Mode;
use node::dev::Cluster;
use tests::e2e::{pays, until, wake};

use crate::stage::{CAPACITY_SAT, CHEATER, PUSH_SAT, Raised, VICTIM, connected, delivered, start};

pub async fn a_tower_that_was_away_has_everything_in_the_end(net: &mut Cluster) {
    start(net).await;
    let mut tower = Raised::new(net).await;
    tower.guards(net, VICTIM, Mode::Blind).await;
    net.open_channel(VICTIM, CHEATER, CAPACITY_SAT, PUSH_SAT * 1_000).await.unwrap();
    pays(net, VICTIM, CHEATER, 1_000_000).await;
    delivered(net, VICTIM).await;
    let had = tower.process().tower.ledger().len();
    assert!(had > 0);
    tower.stop().await;
    for _ in 0..10 {
        pays(net, VICTIM, CHEATER, 1_000).await;
        pays(net, CHEATER, VICTIM, 1_000).await;
    }
    // What waits survives the node, too.
    net.crash(VICTIM).await.unwrap();
    wake(net, VICTIM).await;
    connected(net).await;
    let view = net.node(VICTIM).towers.list().remove(0);
    assert!(view.backlog >= 20, "{view:?}");
    until("a word about it", async || net.node(VICTIM).towers.list()[0].last_error.is_some()).await;
    tower.start(net).await;
    delivered(net, VICTIM).await;
    let view = net.node(VICTIM).towers.list().remove(0);
    assert_eq!(view.last_error, None);
    // Nothing twice, nothing missing.
    assert_eq!(tower.process().tower.ledger().len(), view.record.delivered);
    assert!(view.record.delivered >= had + 20);
    assert_eq!(net.node(VICTIM).towers.outbox_bytes(), 0);
    tower.stop().await;
}

/// One that is gone holds up nobody but its own place.
pub async fn two_towers_each_have_their_own_place(net: &mut Cluster) {
    start(net).await;
    let (mut gone, mut here) = (Raised::new(net).await, Raised::new(net).await);
    gone.guards(net, VICTIM, Mode::Blind).await;
    here.guards(net, VICTIM, Mode::Trusted).await;
    net.open_channel(VICTIM, CHEATER, CAPACITY_SAT, PUSH_SAT * 1_000).await.unwrap();
    pays(net, VICTIM, CHEATER, 1_000_000).await;
    delivered(net, VICTIM).await;
    gone.stop().await;
    for _ in 0..5 {
        pays(net, VICTIM, CHEATER, 1_000).await;
    }
    let of = |key| {
        let towers = net.node(VICTIM).towers.list();
        towers.into_iter().find(|tower| tower.record.tower == key).unwrap()
    };
    let (gone_key, here_key) = (gone.key(), here.key());
    until("everything at the one that is there", async || of(here_key).backlog == 0).await;
    assert!(of(gone_key).backlog >= 5);
    assert!(net.node(VICTIM).towers.outbox_bytes() > 0);
    // It is given up: nothing waits any more.
    net.node(VICTIM).towers.remove(&gone_key, node::store::Batch::default()).await.unwrap();
    until("an empty outbox", async || net.node(VICTIM).towers.outbox_bytes() == 0).await;
    pays(net, VICTIM, CHEATER, 1_000).await;
    delivered(net, VICTIM).await;
    assert_eq!(here.process().tower.ledger().len(), of(here_key).record.delivered);
    here.stop().await;
}
