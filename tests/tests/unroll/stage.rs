//! A hub, its users, and what they bring onto the chain.

use bitcoin::Amount;
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
use node::unroll::{UnrollState, UnrollView};
pub use tests::e2e::{Eye, in_mempool, other_spender, path, pays};
use tests::e2e::{FormedBatch, WAIT, batch_usable, broadcast, channel_balance, form};

pub const HUB: &str = "hub";
pub const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
const FUNDS_SAT: u64 = 5_000_000;
pub const CAPACITY_SAT: u64 = 300_000;
/// What the hub pays each user at first.
pub const PAID_MSAT: u64 = 100_000_000;
/// What users with coins have, in two of them.
pub const COINS_SAT: u64 = 400_000;
/// Confirmations that a batch needs on regtest.
const DEPTH: u32 = 3;

/// A hub with coins and a live batch of `users` users, who were paid. Those named have coins.
pub async fn batch(net: &mut Cluster, users: usize, with_coins: &[&str]) -> FormedBatch {
    for name in [HUB].iter().chain(&USERS[..users]) {
        let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    if !with_coins.is_empty() {
        net.fund(with_coins, Amount::from_sat(COINS_SAT), 2).await.unwrap();
    }
    let batch = form(net, HUB, &USERS[..users], CAPACITY_SAT).await;
    broadcast(net, HUB, &batch).await;
    net.mine(DEPTH).await.unwrap();
    batch_usable(net, HUB, &batch).await;
    for user in &USERS[..users] {
        pays(net, HUB, user, PAID_MSAT).await;
        assert_eq!(channel_balance(net, user, HUB), PAID_MSAT);
    }
    batch
}

/// The one leaf that `name` brings onto the chain, if it does.
pub fn unroll(net: &Cluster, name: &str) -> Option<UnrollView> {
    let mut unrolls = net.node(name).unroller.unrolls();
    assert!(unrolls.len() <= 1, "{unrolls:?}");
    unrolls.pop()
}

/// Waits until `done` says so of the one leaf that `name` brings onto the chain.
pub async fn unroll_is(net: &Cluster, name: &str, done: impl Fn(&UnrollState) -> bool) {
    let waited = net
        .wait("state of an unroll", WAIT, || unroll(net, name).is_some_and(|u| done(&u.state)))
        .await;
    waited.unwrap_or_else(|error| panic!("{error}: {:?}", unroll(net, name)));
}
