//! Lines on chain: gathered into one transaction, paid once over power cuts at every write.

use bitcoin::{Amount, ScriptBuf};
use node::dev::Cluster;
use node::payouts::{LineState, PayoutState, Settings};
use node::store::DiskFault;
use tests::e2e::{channel_balance, in_mempool, wallet_sat};

use crate::stage::{
    HUB, PAYEE, PAYER, accepted, agreed, ask, create, ended, file, invoices, kill, line, lines,
    paid_once, settings, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_on_chain_share_a_transaction_to_the_millisatoshi() {
    tests::e2e::embedded("payouts on chain", async |net| {
        let disks = line(net).await;
        gathered(net).await;
        above_the_bound(net).await;
        for cut in 1..=14 {
            cut_at(net, &disks[PAYER], cut).await;
        }
    })
    .await;
}

/// An address of the payee's, and its script.
async fn address(net: &Cluster) -> (String, ScriptBuf) {
    let payee = net.node(PAYEE);
    let (address, ticket) = payee.wallet.new_address();
    payee.committer.durable(ticket).await.unwrap();
    (address.to_string(), address.script_pubkey())
}

async fn gathered(net: &mut Cluster) {
    let before_msat = channel_balance(net, PAYER, HUB);
    let (payer_sat, payee_sat) = (wallet_sat(net, PAYER), wallet_sat(net, PAYEE));
    let mut rows = invoices(net, 3).await;
    let (twice, _) = address(net).await;
    for (number, amount_sat) in [(1, 50_000_u64), (2, 50_000), (3, 330)] {
        let target = if number < 3 { twice.clone() } else { address(net).await.0 };
        rows.insert(number, format!("{target},{},coin {number}", amount_sat * 1_000));
    }
    let id = accepted(net, settings(), file(&rows), "coins").await;
    let waits = until(net, id, "the invoices", |record| record.tally.paid == 3).await;
    assert_eq!(waits.state, PayoutState::Running, "coins are in no block yet: {waits:?}");
    until(net, id, "a transaction", |record| record.tally.paying == 3).await;
    kill(net).await;
    let coins = lines(net, id, &[LineState::Paying]).await;
    let txid = coins[0].output.unwrap().txid;
    assert!(coins.iter().all(|line| line.output.unwrap().txid == txid), "one transaction");
    let mut places: Vec<u32> = coins.iter().map(|line| line.output.unwrap().vout).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 3, "each line has an output of its own");
    in_mempool(net, txid).await;
    net.mine(1).await.unwrap();
    ended(net, id).await;
    let balance = paid_once(net, id, before_msat).await;
    assert_eq!(balance.transactions, 1);
    assert_eq!(wallet_sat(net, PAYEE), payee_sat + 100_330);
    let left_sat = payer_sat - wallet_sat(net, PAYER);
    assert_eq!(balance.onchain_msat, left_sat * 1_000, "to the millisatoshi");
    let refused = net.node(PAYER).onchain.bump_fee(txid, Some(50), None, None).await;
    assert!(refused.is_err(), "receipts name the transaction");
}

/// A fee above what was accepted is not paid.
async fn above_the_bound(net: &mut Cluster) {
    let (target, _) = address(net).await;
    let rows = [format!("{target},100000000,")];
    let low = Settings {
        max_line_fee_msat: Some(100_000),
        feerate_sat_per_vb: Some(5),
        time_limit_seconds: 1,
        ..settings()
    };
    let before_sat = wallet_sat(net, PAYER);
    let id = accepted(net, low, file(&rows), "dear").await;
    let end = ended(net, id).await;
    assert_eq!((end.tally.failed, end.cost_msat()), (1, 0), "{end:?}");
    assert_eq!(wallet_sat(net, PAYER), before_sat);
    net.node(PAYER).payouts.reconcile(id).await.unwrap();
}

/// The disk fails at the `cut`th write after the payout was accepted.
async fn cut_at(net: &mut Cluster, disk: &node::store::MemoryDisk, cut: u64) {
    let before_msat = channel_balance(net, PAYER, HUB);
    let payee_sat = wallet_sat(net, PAYEE);
    let mut rows = invoices(net, 2).await;
    let key = net.node(HUB).lightning.node_id();
    rows.push(format!("{key},1234,"));
    for _ in 0..2 {
        rows.push(format!("{},20000000,", address(net).await.0));
    }
    let name = format!("cut {cut}");
    let made = create(net, settings(), file(&rows), &name).await;
    disk.fault_at(disk.commits() + cut, DiskFault::FailSync);
    // It may fail in the middle of this very call.
    let _maybe = ask(net, made.id, &agreed(&made), &format!("{name} accept")).await;
    let node = net.node(PAYER);
    let _failed = tokio::time::timeout(std::time::Duration::from_secs(2), node.committer.failed());
    let _failed = _failed.await;
    disk.clear_faults();
    kill(net).await;
    ask(net, made.id, &agreed(&made), &format!("{name} accept")).await.unwrap();
    let paying = |record: &node::payouts::PayoutRecord| record.tally.pending == 0;
    until(net, made.id, "a transaction", paying).await;
    let coins = lines(net, made.id, &[LineState::Paying, LineState::Paid]).await;
    let txid = coins.iter().find_map(|line| line.output).unwrap().txid;
    in_mempool(net, txid).await;
    net.mine(1).await.unwrap();
    ended(net, made.id).await;
    let balance = paid_once(net, made.id, before_msat).await;
    assert_eq!(balance.transactions, 1, "cut {cut}");
    let got = Amount::from_sat(wallet_sat(net, PAYEE) - payee_sat);
    assert_eq!(got.to_sat(), 40_000, "cut {cut}");
}
