//! Users who join a hub's batches by the protocol, and what becomes of their wishes.

use std::time::Duration;

use bitcoin::Amount;
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::batches::{BatchView, JoinRequest, JoinView};
use node::dev::Cluster;

use super::{WAIT, until};

/// The hub of every such scenario.
pub const HUB: &str = "hub";
/// Confirmations that a batch needs on regtest.
pub const DEPTH: u32 = 3;
/// Blocks within which a balance has moved into the next batch.
const BLOCKS_TO_MOVE: u32 = 15;
/// Looks before another block comes.
const LOOKS_A_BLOCK: u32 = 50;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Connects `user` to the hub, and remembers it.
///
/// # Panics
///
/// If the hub cannot be reached.
pub async fn connect(net: &Cluster, user: &str) {
    let hub = net.node(HUB).lightning.node_id();
    let address = net.get(HUB).expect("there is a hub").address();
    let there = net.node(user);
    let _kept = there.peers.remember(hub, &address, true);
    there.lightning.connect(hub, &address).await.expect("the hub listens");
    let id = there.lightning.node_id();
    net.wait("connection", WAIT, || net.node(HUB).lightning.is_connected(&id))
        .await
        .expect("the hub has a peer");
}

/// A wish for a channel of the hub's.
pub fn request(net: &Cluster, capacity_sat: u64) -> JoinRequest {
    JoinRequest {
        hub: net.node(HUB).lightning.node_id(),
        capacity: Amount::from_sat(capacity_sat),
        inbound: Amount::ZERO,
    }
}

/// Asks the hub for a channel.
///
/// # Panics
///
/// If the node refuses.
pub async fn join(net: &Cluster, user: &str, capacity_sat: u64) -> JoinView {
    let asked = net.node(user).batches.join(&request(net, capacity_sat), None).await;
    asked.expect("the node takes the wish")
}

/// The wish of `user`, who has made one.
///
/// # Panics
///
/// If it has none.
pub async fn wish(net: &Cluster, user: &str) -> JoinView {
    net.node(user).batches.joins().await.pop().expect("a wish was made")
}

/// The batch of the hub, if it has one: of several, one of them.
pub async fn newest(net: &Cluster) -> Option<BatchView> {
    net.node(HUB).batches.batches().await.pop()
}

/// Lets `users` join one batch with channels of `capacity_sat`, and brings it to life.
///
/// # Panics
///
/// If it does not come about.
pub async fn formed(net: &Cluster, users: &[&str], capacity_sat: u64) {
    for user in users {
        join(net, user, capacity_sat).await;
    }
    until("the batch transaction", async || {
        newest(net).await.is_some_and(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    usable(net, users).await;
}

/// Waits until every batch transaction that was handed over is where a block finds it.
///
/// # Panics
///
/// If one does not get there.
pub async fn batches_in_mempool(net: &Cluster) {
    until("the batch transaction in the mempool", async || {
        let mut all = true;
        for batch in net.node(HUB).batches.batches().await {
            if let (HubPhase::Confirming, Some(txid)) = (batch.phase, batch.txid) {
                all &= net.chain.knows(txid).await.expect("the chain answers");
            }
        }
        all
    })
    .await;
}

/// Mines until the channels of `users` can be used.
///
/// # Panics
///
/// If that does not come about.
pub async fn usable(net: &Cluster, users: &[&str]) {
    batches_in_mempool(net).await;
    net.mine(DEPTH).await.expect("blocks are mined and followed");
    until("channels that can be used", async || {
        let mut ready = true;
        for user in users {
            let wish = wish(net, user).await;
            let channels = net.node(user).lightning.channels();
            ready &= matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. }))
                && channels.iter().any(|c| {
                    Some(c.channel) == wish.channel && c.usable && c.counterparty_fees.is_some()
                });
        }
        ready && newest(net).await.is_some_and(|b| matches!(b.phase, HubPhase::Live { .. }))
    })
    .await;
}

/// The wish that was made by hand, and the one that follows on it.
///
/// # Panics
///
/// If none was made by hand.
pub async fn wishes(net: &Cluster, user: &str) -> (JoinView, Option<JoinView>) {
    let joins = net.node(user).batches.joins().await;
    let first = joins.iter().find(|wish| wish.follows.is_none()).expect("a wish was made").clone();
    let second = joins.into_iter().find(|wish| wish.follows == Some(first.registration));
    (first, second)
}

/// Whether `user` has its balance in the next batch, and is out of the first.
///
/// # Panics
///
/// If it was in none.
pub async fn has_moved(net: &Cluster, user: &str) -> bool {
    let (first, second) = wishes(net, user).await;
    is_left(&first)
        && second
            .is_some_and(|wish| matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. })))
}

/// Waits until `user` has its balance in the next batch. What fails waits for a block, so one comes
/// now and then.
///
/// # Panics
///
/// If it does not get there.
pub async fn moved(net: &Cluster, user: &str) {
    for _ in 0..BLOCKS_TO_MOVE {
        for _ in 0..LOOKS_A_BLOCK {
            if has_moved(net, user).await {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        net.mine(1).await.expect("blocks are mined and followed");
    }
    panic!("{user} does not move: {:#?}", net.node(user).batches.joins().await);
}

/// Whether the channel of a wish is closed off the chain.
pub fn is_left(wish: &JoinView) -> bool {
    matches!(wish.state, UserPhase::Leaf(LeafState::Retired | LeafState::Dead))
}

/// Mines `blocks`, into the rollover window, and on until the hub's next batch, which makes
/// `batches`, is in a block and deep enough.
///
/// # Panics
///
/// If it does not come.
pub async fn next_batch(net: &Cluster, blocks: u32, batches: usize) {
    net.mine(blocks).await.expect("blocks are mined and followed");
    until("the next batch", async || {
        let all = net.node(HUB).batches.batches().await;
        all.len() == batches && all.iter().any(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    batches_in_mempool(net).await;
    net.mine(DEPTH).await.expect("blocks are mined and followed");
}

/// Mines, and waits after each block until the hub's batch service has heard it.
///
/// # Panics
///
/// If it does not hear a block.
pub async fn mine_heard(net: &Cluster, blocks: u32) {
    for _ in 0..blocks {
        let mut turns = net.node(HUB).batches.changes();
        turns.mark_unchanged();
        net.mine(1).await.expect("blocks are mined and followed");
        let heard = tokio::time::timeout(WAIT, turns.changed()).await;
        heard.expect("the hub hears a block").expect("the hub runs");
    }
}

/// Whether every batch, and every wish of `users`, has come about or to nothing, chain aside.
pub async fn forming_ended(net: &Cluster, users: &[&str]) -> bool {
    for user in users {
        let wishes = net.node(user).batches.joins().await;
        let has_ended = wishes.iter().all(|wish| {
            matches!(
                wish.state,
                UserPhase::Over(_)
                    | UserPhase::Leaf(
                        LeafState::Funded | LeafState::Dropped | LeafState::Confirmed { .. }
                    )
            )
        });
        if !has_ended {
            return false;
        }
    }
    net.node(HUB).batches.batches().await.iter().all(|batch| {
        matches!(
            batch.phase,
            HubPhase::Confirming | HubPhase::Live { .. } | HubPhase::Failed { .. }
        )
    })
}

/// Whether what was broadcast is alive on both sides, for `users` who are all there are, and no
/// coin is held for anything else.
pub async fn clear_end(net: &Cluster, users: &[&str]) -> bool {
    let batches = net.node(HUB).batches.batches().await;
    let mut members = 0;
    for batch in batches.iter().filter(|batch| matches!(batch.phase, HubPhase::Live { .. })) {
        members += batch.users.len();
    }
    let mut alive = 0;
    for user in users {
        for wish in net.node(user).batches.joins().await {
            let has_batch = batches.iter().any(|batch| Some(batch.batch) == wish.batch);
            let confirmed = matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. }));
            alive += usize::from(has_batch && confirmed);
        }
    }
    forming_ended(net, users).await
        && alive == members
        && batches.iter().all(|batch| batch.phase != HubPhase::Confirming)
        && net.node(HUB).wallet.holds().is_empty()
}
