//! Mining until something has happened.

use node::dev::{Cluster, DevNode};
use node::node::Node;

/// Mines until `done`, one block at a time, and returns how many blocks it took.
///
/// # Panics
///
/// If `most` blocks are not enough.
pub async fn mine_until(net: &Cluster, what: &str, most: u32, done: impl Fn() -> bool) -> u32 {
    for blocks in 0..most {
        if done() {
            return blocks;
        }
        net.mine(1).await.expect("blocks are mined and followed");
    }
    assert!(done(), "{what} did not happen within {most} blocks");
    most
}

/// Mines until every closed channel is paid out: nothing is pending at any node and every
/// wallet's coins are confirmed.
///
/// # Panics
///
/// If `most` blocks are not enough.
pub async fn mine_until_swept(net: &Cluster, most: u32) {
    let mut quiet = 0;
    for _ in 0..most {
        // An output that matures is for a moment neither the monitor's nor the sweeper's, so
        // one quiet look is not enough.
        quiet = if running(net).all(swept) { quiet + 1 } else { 0 };
        if quiet == QUIET_BLOCKS {
            return;
        }
        net.mine(1).await.expect("blocks are mined and followed");
    }
    let left: Vec<_> = running(net).map(|node| node.lightning.pending_balances()).collect();
    panic!("not everything is swept after {most} blocks: {left:?}");
}

/// Blocks in a row at which nothing may be pending.
const QUIET_BLOCKS: u32 = 4;

fn running(net: &Cluster) -> impl Iterator<Item = &Node> {
    net.nodes().filter_map(DevNode::running)
}

fn swept(node: &Node) -> bool {
    node.lightning.channels().iter().all(|channel| !channel.closing)
        && node.lightning.pending_balances().is_empty()
        && node.wallet.balance().unconfirmed.to_sat() == 0
}
