//! One side boots from an old disk and puts a state on chain that was revoked.

use bitcoin::{OutPoint, Transaction};
use node::dev::Cluster;
use node::journal::{DomainEvent, SecurityEvent};
use tests::e2e::{
    Eye, batch_usable, channel_balance, connect, conserved, form_deep, holds, mine_until_swept_at,
    path, pays, preimage, settled, usable_channel, wallet_sat,
};

use crate::stage::{
    CAPACITY_SAT, HUB, MOST_BLOCKS, copy, fees_sat, fund, live, mine_spender, output_of, start,
    wake,
};

/// What ada has beside her channel.
const COINS_SAT: u64 = 600_000;
/// What ada is paid before anything is pending.
const PAID_SAT: u64 = 40_000;
/// What is pending in the revoked state: to ada, and from her.
const INBOUND_SAT: u64 = 20_001;
const OUTBOUND_SAT: u64 = 15_002;
/// Numbers of the preimages.
const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;

pub async fn a_user_who_unrolls_a_revoked_state_with_htlcs_loses_all_of_it(net: &mut Cluster) {
    cheat(net, "ada", HUB).await;
}

pub async fn a_hub_that_unrolls_a_revoked_state_with_htlcs_loses_all_of_it(net: &mut Cluster) {
    cheat(net, HUB, "ada").await;
}

async fn cheat(net: &mut Cluster, cheater: &'static str, victim: &'static str) {
    let disks = start(net, &[HUB, "ada", "ben"], |_| {}).await;
    fund(net, HUB, 4_000_000, 4).await;
    fund(net, "ada", COINS_SAT, 2).await;
    let batch = form_deep(net, HUB, &["ada", "ben", "ben"], CAPACITY_SAT).await;
    live(net, &batch).await;
    let ada = batch.members[0].clone();
    assert_eq!(path(&batch, 0).len(), 2);
    pays(net, HUB, "ada", PAID_SAT * 1_000).await;
    let inbound = holds(net, HUB, "ada", INBOUND_SAT * 1_000, INBOUND).await;
    let outbound = holds(net, "ada", HUB, OUTBOUND_SAT * 1_000, OUTBOUND).await;

    // The state to come back to: both payments pending. What the payer waits for ends with it.
    drop((inbound, outbound));
    let old = copy(net, &disks, cheater).await;
    wake(net, cheater).await;
    connect(net, "ada").await;
    connect(net, "ben").await;
    batch_usable(net, HUB, &batch).await;

    // One payment arrives, one comes back, and what the cheater has goes to the victim.
    net.node("ada").payments.settle(preimage(INBOUND)).await.unwrap();
    net.node(HUB).payments.give_back(preimage(OUTBOUND).hash()).await.unwrap();
    settled(net).await;
    assert_eq!(channel_balance(net, "ada", HUB), (PAID_SAT + INBOUND_SAT) * 1_000);
    let own_msat = net.node(cheater).lightning.channels();
    let own_msat = own_msat.iter().find(|c| c.funding == Some(ada.funding)).unwrap().local_msat;
    pays(net, cheater, victim, own_msat).await;

    let coins = (wallet_sat(net, cheater), wallet_sat(net, victim), fees_sat(net).await);
    net.stop(victim).await.unwrap();
    net.stop("ben").await.unwrap();
    net.stop(cheater).await.unwrap();
    old.put_back(&disks[cheater]);
    wake(net, cheater).await;
    let mut eye = Eye::on(net, &batch).await;
    let (at_cheater, known) = match cheater {
        HUB => (ada.at_hub, (OUTBOUND, OUTBOUND_SAT)),
        _ => (ada.at_user, (INBOUND, INBOUND_SAT)),
    };
    net.node(cheater).channels.close(at_cheater, true, None, None).await.unwrap();
    assert_eq!(eye.unrolled(net, &[path(&batch, 0)]).await, 2);
    let revoked = mine_spender(net, ada.funding).await;
    pays_both_payments(&revoked);
    // It even takes a payment with its preimage while the victim sleeps.
    net.node(cheater).payments.settle(preimage(known.0)).await.unwrap();
    let success = mine_spender(net, output_of(&revoked, known.1)).await;
    net.mine(2).await.unwrap();

    wake(net, victim).await;
    punished(net, &revoked, &success).await;
    told(net, victim, &revoked).await;
    mine_until_swept_at(net, &[victim], MOST_BLOCKS).await;
    wake(net, "ben").await;
    connect(net, "ben").await;
    for member in &batch.members[1..] {
        usable_channel(net, HUB, |c| c.channel == member.at_hub).await;
    }
    pays(net, HUB, "ben", 1_000_000).await;

    // All of the channel is the victim's; each paid for its own transactions.
    conserved(net).await;
    let fees_sat = fees_sat(net).await - coins.2;
    let (cheater_has, victim_has) = (wallet_sat(net, cheater), wallet_sat(net, victim));
    let spent_sat = coins.0.checked_sub(cheater_has).expect("the cheater gains nothing");
    assert_eq!(victim_has, coins.1 + CAPACITY_SAT + spent_sat - fees_sat);
    assert!(fees_sat - spent_sat < 20_000, "punishing took {} sat", fees_sat - spent_sat);
}

/// Asserts that `victim` was told of the breach once.
async fn told(net: &Cluster, victim: &str, revoked: &Transaction) {
    let node = net.node(victim);
    node.committer.durable(node.committer.now()).await.unwrap();
    let entries = node.journal.read(0, usize::MAX).unwrap();
    let breaches: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| match entry.event {
            DomainEvent::Security(SecurityEvent::Breach { channel, txid, .. }) => {
                Some((channel, txid))
            }
            _ => None,
        })
        .collect();
    let [(channel, txid)] = breaches[..] else { panic!("one breach: {breaches:?}") };
    assert_eq!(txid, revoked.compute_txid());
    assert!(node.channels.recorded(channel).unwrap().breached);
}

/// Asserts that a commitment has both pending payments.
fn pays_both_payments(commitment: &Transaction) {
    output_of(commitment, INBOUND_SAT);
    output_of(commitment, OUTBOUND_SAT);
}

/// Mines until every output of `revoked` but its anchor, and what `success` made of one, is
/// spent.
async fn punished(net: &Cluster, revoked: &Transaction, success: &Transaction) {
    let success_output = OutPoint { txid: success.compute_txid(), vout: 0 };
    let outputs = (0..).zip(&revoked.output).filter(|(_, output)| output.value.to_sat() > 240);
    let txid = revoked.compute_txid();
    let mut left: Vec<OutPoint> = outputs.map(|(vout, _)| OutPoint { txid, vout }).collect();
    left.push(success_output);
    for _ in 0..10 {
        let mut unspent = Vec::new();
        for outpoint in left {
            if net.chain.source().unspent_output(outpoint).await.unwrap().is_some() {
                unspent.push(outpoint);
            }
        }
        left = unspent;
        if left.is_empty() {
            return;
        }
        net.mine(1).await.unwrap();
    }
    panic!("not punished: {left:?}");
}
