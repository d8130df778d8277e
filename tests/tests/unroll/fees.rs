//! What an exit pays, and out of what.

use bitcoin::{Amount, FeeRate, OutPoint, Script, Transaction};
use node::dev::Cluster;
use node::unroll::UnrollState;
use node::wallet::{AnchorRequest, Owner};
use tests::e2e::{FormedBatch, WAIT, conserved};

use crate::stage::{
    COINS_SAT, Eye, HUB, batch, in_mempool, other_spender, path, pays, unroll, unroll_is,
};

/// The anchor of the tree transaction at the root.
fn anchor(batch: &FormedBatch) -> (Transaction, OutPoint) {
    let top = batch.tree_transactions().remove(0);
    let vout = u32::try_from(top.output.len() - 1).unwrap();
    let anchor = OutPoint { txid: top.compute_txid(), vout };
    (top, anchor)
}

/// What a child of a zero-fee parent pays, of which ada made all but the parent's output.
fn fee(net: &Cluster, name: &str, child: &Transaction) -> Amount {
    let coin = child.input[1].previous_output;
    let made = net.node(name).wallet.previous_transaction(coin).unwrap();
    made.output[coin.vout as usize].value - child.output[0].value
}

pub async fn without_a_coin_it_says_so_and_goes_on_with_one(net: &mut Cluster) {
    let batch = batch(net, 2, &[]).await;
    let ada = &batch.members[0];
    let mut eye = Eye::on(net, &batch).await;
    net.node("ada").unroller.exit(ada.funding).await.unwrap();
    let is_short = |state: &UnrollState| {
        matches!(state, UnrollState::NoCoin { level: 0, largest: Amount::ZERO, .. })
    };
    unroll_is(net, "ada", is_short).await;
    net.mine(2).await.unwrap();
    assert!(is_short(&unroll(net, "ada").unwrap().state));
    // Too little, then enough: tried again at the block that confirms it.
    net.fund(&["ada"], Amount::from_sat(1_000), 1).await.unwrap();
    unroll_is(net, "ada", |state| {
        matches!(state, UnrollState::NoCoin { largest, .. } if *largest == Amount::from_sat(1_000))
    })
    .await;
    net.fund(&["ada"], Amount::from_sat(50_000), 1).await.unwrap();
    assert_eq!(eye.unrolled(net, &[path(&batch, 0)]).await, 1);
    unroll_is(net, "ada", |state| matches!(state, UnrollState::OnChain { .. })).await;
    pays(net, "ada", HUB, 1_000_000).await;
    conserved(net).await;
}

pub async fn a_strangers_cheap_child_is_replaced(net: &mut Cluster) {
    let batch = batch(net, 1, &["ada"]).await;
    let (top, anchor) = anchor(&batch);
    // The hub's wallet plays the stranger.
    let owner = Owner::Claim([5; 32]);
    let cheap = AnchorRequest {
        parent: &top,
        vout: anchor.vout,
        feerate: FeeRate::from_sat_per_vb(1).unwrap(),
        fee_max: Amount::MAX_MONEY,
        owner,
    };
    let hub = net.node(HUB);
    let cheap = hub.wallet.pay_by_anchor(&cheap).unwrap();
    hub.committer.durable(cheap.ticket).await.unwrap();
    let package = [top.clone(), cheap.transaction.clone()];
    hub.environment.broadcaster.submit(&package).await.unwrap();
    in_mempool(net, top.compute_txid()).await;

    let mut eye = Eye::on(net, &batch).await;
    net.node("ada").unroller.exit(batch.members[0].funding).await.unwrap();
    let better = other_spender(net, anchor, Some(cheap.txid())).await;
    assert!(fee(net, "ada", &better) > cheap.fee);
    assert_eq!(eye.unrolled(net, &[path(&batch, 0)]).await, 1);
    let released = net.node(HUB).wallet.release(owner).unwrap();
    net.node(HUB).committer.durable(released).await.unwrap();
    net.wait("the stranger's coin", WAIT, || {
        net.node(HUB).wallet.balance().unconfirmed == Amount::ZERO
    })
    .await
    .unwrap();
    conserved(net).await;
}

pub async fn the_fee_rises_with_each_block_that_takes_nothing(net: &mut Cluster) {
    let batch = batch(net, 1, &["ada"]).await;
    let (_, anchor) = anchor(&batch);
    let mut eye = Eye::on(net, &batch).await;
    net.node("ada").unroller.exit(batch.members[0].funding).await.unwrap();
    let mut child = other_spender(net, anchor, None).await;
    let coin = child.input[1].previous_output;
    for _ in 0..4 {
        let before = fee(net, "ada", &child);
        net.chain.as_embedded().unwrap().mine_block_with(vec![], Script::new()).unwrap();
        net.synced().await.unwrap();
        child = other_spender(net, anchor, Some(child.compute_txid())).await;
        let after = fee(net, "ada", &child);
        assert!(after >= before * 5 / 4 && after <= before * 13 / 10, "{before}, then {after}");
        assert_eq!(child.input[1].previous_output, coin, "each spends the same coin");
        assert_eq!(net.node("ada").wallet.holds().len(), 1);
    }
    let fee = fee(net, "ada", &child);
    assert_eq!(eye.unrolled(net, &[path(&batch, 0)]).await, 1);
    unroll_is(net, "ada", |state| matches!(state, UnrollState::OnChain { .. })).await;
    let balance = net.node("ada").wallet.balance();
    assert_eq!(balance.confirmed, Amount::from_sat(COINS_SAT) - fee);
    assert_eq!((balance.held, balance.unconfirmed), (Amount::ZERO, Amount::ZERO));
    conserved(net).await;
}
