//! A hub and users, and what scenarios do with them.

use bitcoin::Amount;
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
pub use tests::e2e::{
    DEPTH, HUB, batches_in_mempool as in_mempool, connect, in_time, newest, pays, request, until,
    usable, wish,
};

pub const USERS: [&str; 5] = ["ada", "ben", "cid", "dot", "eve"];
pub const FUNDS_SAT: u64 = 5_000_000;
const CAPACITY_SAT: u64 = 300_000;

pub async fn start(net: &mut Cluster, users: usize) {
    for name in [HUB].iter().chain(&USERS[..users]) {
        let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    for user in &USERS[..users] {
        connect(net, user).await;
    }
}

/// Asks the hub for a channel of the usual size.
pub async fn join(net: &Cluster, user: &str) {
    tests::e2e::join(net, user, CAPACITY_SAT).await;
}

/// Lets `users` join one batch and brings it to life.
pub async fn formed(net: &Cluster, users: &[&str]) {
    tests::e2e::formed(net, users, CAPACITY_SAT).await;
}
