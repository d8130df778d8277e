//! Mining until something has happened, and what is on chain then.

use std::time::Duration;

use bitcoin::{Amount, OutPoint, Psbt, Transaction, TxIn, TxOut, Txid, absolute, transaction};
use node::dev::{Cluster, DevNode};
use node::node::Node;

/// Time for nodes to do what a block made possible.
const BLOCK_TIME: Duration = Duration::from_millis(10);

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
        // What the block made possible takes a moment, more on a busy machine.
        tokio::time::sleep(BLOCK_TIME).await;
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
    let everybody = running(net).map(|dev| dev.name.as_str()).collect::<Vec<_>>();
    mine_until_swept_at(net, &everybody, most).await;
}

/// As [`mine_until_swept`], for the nodes of `names` alone: what a cheater waits for never comes.
///
/// # Panics
///
/// If `most` blocks are not enough.
pub async fn mine_until_swept_at(net: &Cluster, names: &[&str], most: u32) {
    let mut quiet = 0;
    for _ in 0..most {
        // An output that matures is for a moment neither the monitor's nor the sweeper's, so
        // one quiet look is not enough.
        quiet = if names.iter().all(|name| swept(net.node(name))) { quiet + 1 } else { 0 };
        if quiet == QUIET_BLOCKS {
            return;
        }
        net.mine(1).await.expect("blocks are mined and followed");
    }
    // A sweep that the mempool refused beside an earlier one is made anew by the clock, not by
    // blocks, and these come fast here.
    let all_swept = || names.iter().all(|name| swept(net.node(name)));
    let mut looks = 0;
    while !all_swept() {
        let left: Vec<_> = names.iter().map(|n| net.node(n).lightning.pending_balances()).collect();
        assert!(looks < LATE_LOOKS, "not everything is swept after {most} blocks: {left:?}");
        tokio::time::sleep(LATE_LOOK).await;
        net.mine(1).await.expect("blocks are mined and followed");
        looks += 1;
    }
}

/// Looks at a late sweep, one block each: longer than LDK's sweeper waits.
const LATE_LOOKS: u32 = 45;
const LATE_LOOK: Duration = Duration::from_secs(1);

/// Blocks in a row at which nothing may be pending.
const QUIET_BLOCKS: u32 = 4;

fn running(net: &Cluster) -> impl Iterator<Item = &DevNode> {
    net.nodes().filter(|dev| dev.running().is_some())
}

fn swept(node: &Node) -> bool {
    node.lightning.channels().iter().all(|channel| !channel.closing)
        && node.lightning.pending_balances().is_empty()
        && node.wallet.balance().unconfirmed.to_sat() == 0
}

/// Where `transaction` pays exactly `sat`.
///
/// # Panics
///
/// If it does not.
pub fn output_of(transaction: &Transaction, sat: u64) -> OutPoint {
    let is_it = |output: &TxOut| output.value == Amount::from_sat(sat);
    let vout = transaction.output.iter().position(is_it);
    let vout = vout.unwrap_or_else(|| panic!("no output of {sat} sat: {transaction:?}"));
    OutPoint { txid: transaction.compute_txid(), vout: u32::try_from(vout).expect("few outputs") }
}

/// The fees of all transactions so far, satoshi.
///
/// # Panics
///
/// If the chain cannot be asked.
pub async fn fees_sat(net: &Cluster) -> u64 {
    net.on_chain().await.expect("the chain can be asked").fees.to_sat()
}

/// Mines a block in which the coins of `txid`, a transaction of `name`'s, go back to its wallet by
/// another one: what a copy of the same wallet would do elsewhere.
///
/// # Panics
///
/// If the wallet does not know the transaction.
pub async fn double_spend(net: &Cluster, name: &str, txid: Txid) {
    let node = net.node(name);
    let beaten = node.wallet.previous_transaction(OutPoint { txid, vout: 0 }).expect("known");
    let coins: Vec<OutPoint> = beaten.input.iter().map(|input| input.previous_output).collect();
    let amount: Amount = coins
        .iter()
        .map(|coin| {
            node.wallet
                .previous_transaction(*coin)
                .expect("known")
                .tx_out(coin.vout as usize)
                .expect("it is there")
                .value
        })
        .sum();
    let (address, ticket) = node.wallet.new_address();
    node.committer.durable(ticket).await.expect("the store works");
    let unsigned = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: coins
            .into_iter()
            .map(|previous_output| TxIn { previous_output, ..TxIn::default() })
            .collect(),
        output: vec![TxOut {
            value: amount - Amount::from_sat(1_000),
            script_pubkey: address.script_pubkey(),
        }],
    };
    let psbt = Psbt::from_unsigned_tx(unsigned).expect("it is unsigned");
    let rival = node.wallet.sign_psbt(psbt).expect("the coins are its own");
    net.chain.mine_exactly(&[rival]).await.expect("the rival is valid");
    net.synced().await.expect("everybody follows");
}
