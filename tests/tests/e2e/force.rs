//! Closing alone: every satoshi comes back to somebody's wallet or is a fee.

use bitcoin::Amount;
use node::channels::{ChannelState, CloseError};
use node::dev::{Cluster, NodeOptions};
use node::lightning::CloseKind;
use node::lightning::types::PaymentId;
use node::payments::{PaymentState, PaymentWatch};
use tests::e2e::{
    WAIT, channel_balance, conserved, holds, line, mine_until, mine_until_swept, outcome, preimage,
    received, settled, wallet_sat,
};

const FUNDS_SAT: u64 = 2_000_000;
const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_SAT: u64 = 400_000;
/// More blocks than a payment's time lock and the delay of a lone closer together.
const MOST_BLOCKS: u32 = 800;

pub async fn the_opener_closes_alone(net: &mut Cluster) {
    quiet(net, "alice").await;
}

pub async fn the_acceptor_closes_alone(net: &mut Cluster) {
    quiet(net, "bob").await;
}

pub async fn the_opener_closes_alone_with_htlcs_both_ways(net: &mut Cluster) {
    busy(net, "alice").await;
}

pub async fn the_acceptor_closes_alone_with_htlcs_both_ways(net: &mut Cluster) {
    busy(net, "bob").await;
}

async fn pair(net: &mut Cluster) {
    for name in ["alice", "bob"] {
        net.add(name, NodeOptions::default()).await.unwrap();
    }
    net.fund(&["alice", "bob"], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    net.open_channel("alice", "bob", CAPACITY_SAT, PUSH_SAT * 1_000).await.unwrap();
}

/// Closes the only channel of `closer` by force and mines until both sides know.
async fn force_close(net: &Cluster, closer: &str, other: &str) {
    let channel = crate::open::records(net, closer).await[0].channel;
    net.node(closer).channels.close(channel, true, None, None).await.unwrap();
    mine_until(net, "end of the channel at both sides", 10, || {
        [closer, other].iter().all(|name| net.node(name).lightning.channels().is_empty())
    })
    .await;
    for (name, kind) in [(closer, CloseKind::ForcedByUs), (other, CloseKind::ForcedByPeer)] {
        let channel = crate::open::records(net, name).await[0].channel;
        net.wait_channel(name, channel, "record of a closed channel", |view| {
            view.record.state == ChannelState::Closed
        })
        .await
        .unwrap();
        let view = net.node(name).channels.get(channel).unwrap();
        assert_eq!(view.record.close_kind, Some(kind), "{name}: {view:?}");
    }
    let again = net.node(closer).channels.close(channel, true, None, None).await.unwrap_err();
    assert!(matches!(again, CloseError::WrongState { state: ChannelState::Closed }), "{again}");
}

/// Asserts that both wallets together lack only fees, and that neither lost to the other:
/// `alice_sat` and `bob_sat` are theirs before fees.
async fn assert_home(net: &Cluster, alice_sat: u64, bob_sat: u64) {
    conserved(net).await;
    let fees_sat = net.on_chain().await.unwrap().fees.to_sat();
    let (alice, bob) = (wallet_sat(net, "alice"), wallet_sat(net, "bob"));
    assert_eq!(alice + bob + fees_sat, 2 * FUNDS_SAT);
    // Regtest gives no estimates: the node bumps claims from its cautious 20 sat/vB upwards.
    assert!(fees_sat < 80_000, "{fees_sat} sat of fees");
    assert!(alice <= alice_sat && alice + fees_sat >= alice_sat, "{alice} of {alice_sat}");
    assert!(bob <= bob_sat && bob + fees_sat >= bob_sat, "{bob} of {bob_sat}");
    for name in ["alice", "bob"] {
        assert_eq!(net.node(name).lightning.pending_balances(), vec![]);
        let balance = net.node(name).wallet.balance();
        assert_eq!(balance.held, Amount::ZERO, "{name} holds coins for nothing");
        assert_eq!(balance.unconfirmed, Amount::ZERO);
    }
}

async fn quiet(net: &mut Cluster, closer: &str) {
    pair(net).await;
    let other = if closer == "alice" { "bob" } else { "alice" };
    force_close(net, closer, other).await;
    mine_until_swept(net, MOST_BLOCKS).await;
    assert_home(net, FUNDS_SAT - PUSH_SAT, FUNDS_SAT + PUSH_SAT).await;
}

/// A payment that its receiver holds.
struct Held {
    payer: &'static str,
    payee: &'static str,
    amount_msat: u64,
    number: u8,
    /// Whether its receiver will settle it once the commitment is on chain.
    settle: bool,
}

impl Held {
    fn id(&self) -> PaymentId {
        preimage(self.number).hash().inbound_id()
    }

    async fn start(&self, net: &Cluster) -> PaymentWatch {
        holds(net, self.payer, self.payee, self.amount_msat, self.number).await
    }
}

async fn busy(net: &mut Cluster, closer: &str) {
    pair(net).await;
    let held = |payer, payee, amount_msat, number, settle| Held {
        payer,
        payee,
        amount_msat,
        number,
        settle,
    };
    let all = [
        held("alice", "bob", 50_000_000, 1, true),
        held("alice", "bob", 60_000_000, 2, false),
        held("bob", "alice", 40_000_000, 3, true),
        held("bob", "alice", 30_000_000, 4, false),
    ];
    let mut watches = Vec::new();
    for payment in &all {
        watches.push(payment.start(net).await);
    }
    let other = if closer == "alice" { "bob" } else { "alice" };
    force_close(net, closer, other).await;
    for payment in all.iter().filter(|payment| payment.settle) {
        net.node(payment.payee).payments.settle(preimage(payment.number)).await.unwrap();
    }
    mine_until_swept(net, MOST_BLOCKS).await;
    for (payment, watch) in all.iter().zip(watches) {
        let sent = outcome(watch).await;
        let (expected, proof) = if payment.settle {
            (PaymentState::Succeeded, Some(preimage(payment.number)))
        } else {
            (PaymentState::Failed, None)
        };
        assert_eq!((sent.state, sent.preimage), (expected, proof), "{sent:?}");
        received(net, payment.payee, payment.id(), expected).await;
    }
    // Of the channel, each has what it had, less what it paid, plus what it was paid.
    let alice_sat = FUNDS_SAT - PUSH_SAT - 50_000 + 40_000;
    assert_home(net, alice_sat, 2 * FUNDS_SAT - alice_sat).await;
}

pub async fn a_forward_survives_the_force_close_behind_it(net: &mut Cluster) {
    line(net, &["alice", "hub", "bob"], 4_000_000, CAPACITY_SAT).await;
    let watch = holds(net, "alice", "bob", 70_000_003, 7).await;
    let id = preimage(7).hash().inbound_id();

    let bob = net.node("bob").lightning.node_id();
    let records = crate::open::records(net, "hub").await;
    let channel = records.iter().find(|record| record.peer == bob).unwrap().channel;
    net.node("hub").channels.close(channel, true, None, None).await.unwrap();
    mine_until(net, "end of bob's channel", 10, || net.node("bob").lightning.channels().is_empty())
        .await;
    // The hub learns the preimage from the chain, and takes what alice owes it off chain.
    net.node("bob").payments.settle(preimage(7)).await.unwrap();
    mine_until(net, "bob's claim on chain", 40, || net.node("alice").payments.open_count() == 0)
        .await;
    let sent = outcome(watch).await;
    assert_eq!((sent.state, sent.preimage), (PaymentState::Succeeded, Some(preimage(7))));
    received(net, "bob", id, PaymentState::Succeeded).await;
    mine_until_swept(net, MOST_BLOCKS).await;
    settled(net).await;
    let fee_msat = 70_000_003 * 500 / 1_000_000;
    let capacity_msat = CAPACITY_SAT * 1_000;
    assert_eq!(channel_balance(net, "alice", "hub"), capacity_msat - 70_000_003 - fee_msat);
    net.wait("alice's channel in use", WAIT, || {
        net.node("alice").lightning.spendable().usable == 1
    })
    .await
    .unwrap();
    conserved(net).await;
}
