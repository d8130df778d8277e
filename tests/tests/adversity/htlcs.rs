//! Payments that are pending when a channel deep in a tree is closed alone.

use channel_contracts::batch::deadlines::CLAIM_BUFFER;
use node::dev::Cluster;
use node::lightning::WithheldKind;
use node::lightning::types::PaymentId;
use node::payments::PaymentState;
use tests::e2e::{
    BatchMember, Eye, WAIT, conserved, form_deep, holds, mine_until_swept, outcome, path, pays,
    preimage, received, until, wallet_sat,
};

use crate::stage::{
    CAPACITY_SAT, HUB, MOST_BLOCKS, fees_sat, fund, live, mine_spender, no_coin_is_held, output_of,
    start, tip, wake,
};

/// What ada has in four coins: a path of five levels, a commitment and two claims at once.
const COINS_SAT: u64 = 600_000;
/// What ada is paid first.
const PAID_SAT: u64 = 50_000;
/// The payment to ada, whose preimage she learns when the hub is gone.
const INBOUND_SAT: u64 = 20_001;
/// The payment from ada, which nobody claims.
const OUTBOUND_SAT: u64 = 15_002;
/// Blocks after the end of an outbound payment's time lock at which LDK closes the channel.
const TIMEOUT_GRACE: u32 = 3;
/// Numbers of their preimages.
const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;

pub async fn htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_1(
    net: &mut Cluster,
) {
    at_depth(net, 1).await;
}

pub async fn htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_2(
    net: &mut Cluster,
) {
    at_depth(net, 2).await;
}

pub async fn htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_3(
    net: &mut Cluster,
) {
    at_depth(net, 3).await;
}

pub async fn htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_4(
    net: &mut Cluster,
) {
    at_depth(net, 4).await;
}

pub async fn htlcs_pending_at_a_force_close_are_claimed_and_timed_out_at_depth_5(
    net: &mut Cluster,
) {
    at_depth(net, 5).await;
}

/// A binary tree in which ada's path has `levels` transactions. LDK takes four unfunded channels
/// of a peer, so few nodes have the others.
fn members(levels: usize) -> Vec<&'static str> {
    let others = if levels == 1 { 0 } else { 1 << (levels - 1) };
    let names = ["ben", "cid", "dot", "eve"].into_iter().flat_map(|name| [name; 4]);
    ["ada"].into_iter().chain(names.take(others)).collect()
}

/// When ada's payments end, the inbound one first.
fn expiries(net: &Cluster, ada: &BatchMember) -> [u32; 2] {
    let pending = net.node("ada").lightning.pending_htlcs(ada.at_user);
    let heights: Vec<u32> = pending.iter().map(|p| p.cltv_expiry.to_consensus_u32()).collect();
    heights.try_into().expect("one payment each way")
}

async fn at_depth(net: &mut Cluster, levels: usize) {
    let members = members(levels);
    let mut names = vec![HUB];
    names.extend(&members);
    names.dedup();
    start(net, &names, |_| {}).await;
    fund(net, HUB, 4_000_000, 4).await;
    fund(net, "ada", COINS_SAT, 4).await;
    let batch = form_deep(net, HUB, &members, CAPACITY_SAT).await;
    live(net, &batch).await;
    let (ada, levels_of_ada) = (&batch.members[0], path(&batch, 0));
    assert_eq!(levels_of_ada.len(), levels);
    pays(net, HUB, "ada", PAID_SAT * 1_000).await;
    let coins = (wallet_sat(net, "ada"), wallet_sat(net, HUB), fees_sat(net).await);

    let mut sent_by_hub = holds(net, HUB, "ada", INBOUND_SAT * 1_000, INBOUND).await;
    let sent_by_hub = sent_by_hub.current().await.unwrap().id;
    let sent_by_ada = holds(net, "ada", HUB, OUTBOUND_SAT * 1_000, OUTBOUND).await;
    let [inbound_expiry, outbound_expiry] = expiries(net, ada);
    net.stop(HUB).await.unwrap();
    net.node("ada").payments.settle(preimage(INBOUND)).await.unwrap();

    // Nobody asks for it: LDK closes before a claim would come too late, or after a time lock has
    // ended. Which is first is chance: payers add blocks to hide how far away the payee is.
    let closes_at = (inbound_expiry - CLAIM_BUFFER).min(outbound_expiry + TIMEOUT_GRACE);
    let mut eye = Eye::on(net, &batch).await;
    net.mine(closes_at - 1 - tip(net).await).await.unwrap();
    assert_eq!(net.node("ada").lightning.withheld_leaves().len(), 0, "not a block too early");
    net.mine(1).await.unwrap();
    net.wait("commitment that waits for its leaf", WAIT, || {
        let withheld = net.node("ada").lightning.withheld_leaves();
        withheld.get(&ada.funding) == Some(&WithheldKind::Commitment)
    })
    .await
    .unwrap();
    assert_eq!(eye.unrolled(net, std::slice::from_ref(&levels_of_ada)).await as usize, levels);
    let commitment = mine_spender(net, ada.funding).await;
    mine_spender(net, output_of(&commitment, INBOUND_SAT)).await;
    let claimed_at = tip(net).await;
    assert_eq!(claimed_at as usize, closes_at as usize + levels + 2, "a block for each step");
    assert!(claimed_at < inbound_expiry, "claimed at {claimed_at}, due at {inbound_expiry}");

    // The hub is back and learns from the chain that it has paid.
    wake(net, HUB).await;
    until("what the hub paid", async || {
        let payment = net.node(HUB).payments.get(sent_by_hub).await.unwrap().unwrap();
        payment.state == PaymentState::Succeeded && payment.preimage == Some(preimage(INBOUND))
    })
    .await;
    net.mine(outbound_expiry.saturating_sub(tip(net).await)).await.unwrap();
    mine_until_swept(net, MOST_BLOCKS).await;
    assert_eq!(outcome(sent_by_ada).await.state, PaymentState::Failed);
    let inbound_id = |number| -> PaymentId { preimage(number).hash().inbound_id() };
    received(net, "ada", inbound_id(INBOUND), PaymentState::Succeeded).await;
    received(net, HUB, inbound_id(OUTBOUND), PaymentState::Failed).await;

    // Each has what it had, and the payment that arrived; what was timed out is ada's again.
    conserved(net).await;
    no_coin_is_held(net);
    let fees_sat = fees_sat(net).await - coins.2;
    let ada_sat = coins.0 + PAID_SAT + INBOUND_SAT;
    let hub_sat = coins.1 + CAPACITY_SAT - PAID_SAT - INBOUND_SAT;
    let (ada_has, hub_has) = (wallet_sat(net, "ada"), wallet_sat(net, HUB));
    assert_eq!(ada_has + hub_has + fees_sat, ada_sat + hub_sat);
    assert!(ada_has <= ada_sat && hub_has <= hub_sat, "{ada_has}, {hub_has}");
    assert!(fees_sat < 100_000, "{fees_sat} sat of fees");
}
