//! The cheater boots from an old disk while the victim sleeps: the tower leaves it nothing.

use std::collections::BTreeMap;

use bitcoin::{Amount, FeeRate, OutPoint, Transaction};
use channel_contracts::tower::Mode;
use node::chain::TxStatus;
use node::dev::Cluster;
use tests::e2e::{
    Disks, conserved, copy, fees_sat, holds, mine_until_swept_at, other_spender, output_of, pays,
    preimage, settled, until, usable_channel, wake, wallet_sat,
};

use crate::stage::{CAPACITY_SAT, CHEATER, PUSH_SAT, Raised, VICTIM, connected, delivered, start};

/// What is pending in the revoked state: to the cheater, and from it.
const INBOUND_SAT: u64 = 20_001;
const OUTBOUND_SAT: u64 = 15_002;
const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;
/// Fewer blocks than the delay of the cheater's own outputs: its node does not know that they are
/// gone, and would count on them.
const MOST_BLOCKS: u32 = 120;

/// More than any feerate that a blind client signs for, sat/vB.
const DEAR_SAT_PER_VB: u64 = 400;
/// What the tower spends on the answer to one breach at most.
const BUDGET_SAT: u64 = 300_000;

/// What everybody had before the breach.
pub struct Before {
    victim_sat: u64,
    cheater_sat: u64,
    fees_sat: u64,
}

pub async fn a_blind_tower_takes_a_revoked_commitment_with_htlcs(net: &mut Cluster) {
    at_once(net, Mode::Blind).await;
}

pub async fn a_trusted_tower_takes_a_revoked_commitment_with_htlcs(net: &mut Cluster) {
    at_once(net, Mode::Trusted).await;
}

/// The tower sees the commitment in the mempool and answers before it is in a block.
async fn at_once(net: &mut Cluster, mode: Mode) {
    let (_disks, mut tower, before) = cheated(net, mode).await;
    let revoked = publish(net).await;
    for outpoint in outputs(&revoked) {
        other_spender(net, outpoint, None).await;
    }
    // One block takes the commitment and the answer to it.
    net.mine(1).await.unwrap();
    taken(net, &revoked).await;
    let view = tower.process().tower.guard().breaches();
    assert_eq!(view.len(), 1);
    assert_eq!((view[0].commitment, view[0].lost), (revoked.compute_txid(), 0));
    nothing_is_left_to_the_cheater(net, &before).await;
    tower.stop().await;
}

/// The cheater takes its payment with the preimage while the tower is away, too.
pub async fn a_trusted_tower_takes_what_went_on_to_a_second_stage(net: &mut Cluster) {
    let (_disks, mut tower, before) = cheated(net, Mode::Trusted).await;
    tower.stop().await;
    let revoked = publish(net).await;
    net.mine(1).await.unwrap();
    net.node(CHEATER).payments.settle(preimage(INBOUND)).await.unwrap();
    let inbound = output_of(&revoked, INBOUND_SAT);
    let success = other_spender(net, inbound, None).await;
    net.mine(1).await.unwrap();
    tower.start(net).await;
    let second = OutPoint { txid: success.compute_txid(), vout: 0 };
    other_spender(net, second, None).await;
    net.mine(1).await.unwrap();
    taken(net, &revoked).await;
    assert_eq!(net.chain.source().unspent_output(second).await.unwrap(), None);
    nothing_is_left_to_the_cheater(net, &before).await;
    tower.stop().await;
}

/// Feerates rise above all that was signed for: the tower puts coins of its own behind the pairs.
pub async fn a_tower_pays_for_its_household_what_was_not_signed_for(net: &mut Cluster) {
    // Only there can a test say what blocks cost.
    if net.chain.as_embedded().is_none() {
        return;
    }
    let (_disks, mut tower, before) = cheated_with(net, Mode::Blind, BUDGET_SAT).await;
    let had_sat = tower.process().wallet.balance().confirmed.to_sat();
    let dear = FeeRate::from_sat_per_vb(DEAR_SAT_PER_VB).unwrap();
    net.chain.as_embedded().unwrap().set_fee_estimate(2, dear);
    net.mine(1).await.unwrap();
    tower.synced(net).await;
    // The cheater's own child pays as much; behind it the commitment is in a block at once.
    let revoked = publish(net).await;
    net.mine(1).await.unwrap();
    let mut answers = BTreeMap::new();
    for outpoint in outputs(&revoked) {
        let answer = other_spender(net, outpoint, None).await;
        answers.insert(answer.compute_txid(), answer);
    }
    let wallet = &tower.process().wallet;
    for answer in answers.values() {
        let change = answer.output.last().unwrap();
        assert!(wallet.owns(&change.script_pubkey), "no coin of the tower's is in {answer:?}");
    }
    net.mine(1).await.unwrap();
    taken(net, &revoked).await;
    tower.synced(net).await;
    let spent_sat = had_sat - tower.process().wallet.balance().confirmed.to_sat();
    assert!(spent_sat > 0 && spent_sat <= BUDGET_SAT, "the tower spent {spent_sat} sat");
    tower.stop().await;
    net.chain.as_embedded().unwrap().set_fee_estimate(2, FeeRate::BROADCAST_MIN);
    wake(net, VICTIM).await;
    mine_until_swept_at(net, &[VICTIM], MOST_BLOCKS).await;
    // What the pairs were signed for is all that the victim pays.
    let victim_sat = wallet_sat(net, VICTIM);
    assert!(victim_sat + 80_000 > before.victim_sat + CAPACITY_SAT, "{victim_sat} sat");
}

/// Whatever happens while the tower is away is seen when it comes back, block by block.
pub async fn a_tower_that_slept_answers_when_it_wakes(net: &mut Cluster) {
    let (_disks, mut tower, before) = cheated(net, Mode::Blind).await;
    tower.stop().await;
    let revoked = publish(net).await;
    net.mine(3).await.unwrap();
    tower.start(net).await;
    for outpoint in outputs(&revoked) {
        other_spender(net, outpoint, None).await;
    }
    // It goes on from its records when it is stopped in the middle, block by block for more.
    tower.stop().await;
    tower.start(net).await;
    assert_eq!(tower.process().tower.guard().breaches().len(), 1);
    net.mine(1).await.unwrap();
    taken(net, &revoked).await;
    tower.synced(net).await;
    assert!(tower.process().tower.guard().breaches()[0].over.is_some());
    nothing_is_left_to_the_cheater(net, &before).await;
    tower.stop().await;
}

/// Blocks and mempool lose the answer, and it is given once more.
pub async fn a_reorg_of_the_answer_is_answered_again(net: &mut Cluster) {
    let (_disks, mut tower, before) = cheated(net, Mode::Trusted).await;
    tower.stop().await;
    let revoked = publish(net).await;
    net.mine(1).await.unwrap();
    tower.start(net).await;
    for outpoint in outputs(&revoked) {
        other_spender(net, outpoint, None).await;
    }
    net.mine(1).await.unwrap();
    taken(net, &revoked).await;
    tower.synced(net).await;
    let over = || tower.process().tower.guard().breaches()[0].over;
    assert!(over().is_some());
    net.chain.reorg(1).await.unwrap();
    tower.synced(net).await;
    net.mine(2).await.unwrap();
    tower.synced(net).await;
    taken(net, &revoked).await;
    until("the answer in its new block", async || over().is_some()).await;
    nothing_is_left_to_the_cheater(net, &before).await;
    tower.stop().await;
}

/// A channel with a past, of which the tower has every revoked state. The victim sleeps, the
/// cheater is about to publish a state with payments pending both ways and most of the money.
pub async fn cheated(net: &mut Cluster, mode: Mode) -> (Disks, Raised, Before) {
    cheated_with(net, mode, 0).await
}

/// As [`cheated`], with a tower that spends `budget_sat` of its own on the answer.
async fn cheated_with(net: &mut Cluster, mode: Mode, budget_sat: u64) -> (Disks, Raised, Before) {
    let disks = start(net).await;
    let mut tower = Raised::new(net).await;
    tower.guards(net, VICTIM, mode).await;
    if budget_sat > 0 {
        tower.pays_for(net, &[VICTIM], budget_sat, 6).await;
    }
    net.open_channel(VICTIM, CHEATER, CAPACITY_SAT, PUSH_SAT * 1_000).await.unwrap();
    pays(net, VICTIM, CHEATER, 200_000_000).await;
    let inbound = holds(net, VICTIM, CHEATER, INBOUND_SAT * 1_000, INBOUND).await;
    let outbound = holds(net, CHEATER, VICTIM, OUTBOUND_SAT * 1_000, OUTBOUND).await;
    drop((inbound, outbound));
    let old = copy(net, &disks, CHEATER).await;
    wake(net, CHEATER).await;
    connected(net).await;
    usable_channel(net, VICTIM, |_| true).await;
    // One payment comes back, one arrives, and what the cheater has goes to the victim.
    net.node(CHEATER).payments.give_back(preimage(INBOUND).hash()).await.unwrap();
    net.node(VICTIM).payments.settle(preimage(OUTBOUND)).await.unwrap();
    settled(net).await;
    pays(net, CHEATER, VICTIM, 250_000_000).await;
    delivered(net, VICTIM).await;
    let before = Before {
        victim_sat: wallet_sat(net, VICTIM),
        cheater_sat: wallet_sat(net, CHEATER),
        fees_sat: fees_sat(net).await,
    };
    net.stop(VICTIM).await.unwrap();
    net.stop(CHEATER).await.unwrap();
    old.put_back(&disks[CHEATER]);
    wake(net, CHEATER).await;
    (disks, tower, before)
}

/// The cheater publishes what it has; returns it from the mempool.
pub async fn publish(net: &Cluster) -> Transaction {
    let channels = net.node(CHEATER).lightning.channels();
    let (channel, funding) = (channels[0].channel, channels[0].funding.unwrap());
    net.node(CHEATER).channels.close(channel, true, None, None).await.unwrap();
    let revoked = other_spender(net, funding, None).await;
    output_of(&revoked, INBOUND_SAT);
    output_of(&revoked, OUTBOUND_SAT);
    revoked
}

/// What a tower has to take: all but the anchor and what is the victim's own.
fn outputs(revoked: &Transaction) -> Vec<OutPoint> {
    let txid = revoked.compute_txid();
    let is_taken = |output: &bitcoin::TxOut| {
        output.value > Amount::from_sat(330) && output.script_pubkey.is_p2wsh()
    };
    let all = (0..).zip(&revoked.output).filter(|(_, output)| is_taken(output));
    // `to_remote` is P2WSH too with keyed anchors; it is what the victim had then.
    let own = CAPACITY_SAT - PUSH_SAT - 200_000 - INBOUND_SAT;
    let all = all.filter(|(_, output)| output.value.to_sat().abs_diff(own) > 5_000);
    all.map(|(vout, _)| OutPoint { txid, vout }).collect()
}

/// Asserts that blocks have the commitment and have spent all of it.
async fn taken(net: &Cluster, revoked: &Transaction) {
    let status = net.chain.source().transaction_status(revoked.compute_txid()).await.unwrap();
    assert!(matches!(status, TxStatus::Confirmed(_)), "{status:?}");
    for outpoint in outputs(revoked) {
        until("the output to be spent", async || {
            net.chain.source().unspent_output(outpoint).await.unwrap().is_none()
        })
        .await;
    }
}

/// The victim comes back and finds everything that was in the channel, but for fees; the cheater
/// has not a satoshi more than before.
pub async fn nothing_is_left_to_the_cheater(net: &mut Cluster, before: &Before) {
    wake(net, VICTIM).await;
    mine_until_swept_at(net, &[VICTIM], MOST_BLOCKS).await;
    conserved(net).await;
    let fees_sat = fees_sat(net).await - before.fees_sat;
    let (victim_has, cheater_has) = (wallet_sat(net, VICTIM), wallet_sat(net, CHEATER));
    let spent = before.cheater_sat.checked_sub(cheater_has).expect("the cheater gains nothing");
    assert_eq!(victim_has + fees_sat, before.victim_sat + CAPACITY_SAT + spent);
    // A blind tower pays the next of the feerates that were signed for.
    assert!(fees_sat - spent < 80_000, "punishing took {} sat", fees_sat - spent);
}
