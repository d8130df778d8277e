//! Restarts in good order, between and during payments.

use std::collections::BTreeMap;

use node::dev::Cluster;
use node::payments::PaymentState;
use tests::e2e::{
    Ledger, NAMES, burst, channel_balance, connected, conserved, hold, invoice, line, outcome,
    paid, pay_request, payments, preimage, received, settled,
};

const CAPACITY_MSAT: u64 = 1_000_000_000;

async fn restart(net: &mut Cluster, name: &str) {
    net.stop(name).await.unwrap();
    net.start(name).await.unwrap();
}

pub async fn records_are_the_same_before_and_after(net: &mut Cluster) {
    line(net, &NAMES, 4_000_000, CAPACITY_MSAT / 1_000).await;
    for _ in 0..3 {
        let bill = invoice(net, "bob", Some(100_000)).await;
        paid(net, "alice", &bill.invoice, None).await;
    }
    // One payment stays with its receiver while everybody restarts.
    let bill = hold(net, "bob", 5_000_000, preimage(1)).await;
    let alice = &net.node("alice").payments;
    let mut held = alice.pay(&pay_request(&bill.invoice, None), None).unwrap();
    let sent_id = held.current().await.unwrap().id;
    received(net, "bob", bill.hash.inbound_id(), PaymentState::Held).await;
    drop(held);

    for name in NAMES {
        let before = (
            payments(net, name).await,
            crate::open::records(net, name).await,
            net.node(name).wallet.balance(),
            balances(net, name),
            net.node(name).journal.last_durable(),
        );
        restart(net, name).await;
        let after = (
            payments(net, name).await,
            crate::open::records(net, name).await,
            net.node(name).wallet.balance(),
            balances(net, name),
        );
        assert_eq!(
            (&before.0, &before.1, &before.2, &before.3),
            (&after.0, &after.1, &after.2, &after.3)
        );
        // The event log goes on where it ended: it stopped, and started.
        let entries = net.node(name).journal.read(before.4, 10).unwrap();
        assert!(entries.len() >= 2 && entries[0].sequence == before.4 + 1, "{entries:?}");
        connected(net).await;
    }

    net.node("bob").payments.settle(preimage(1)).await.unwrap();
    let watch = net.node("alice").payments.watch(sent_id).unwrap().unwrap();
    assert_eq!(outcome(watch).await.state, PaymentState::Succeeded);
    received(net, "bob", bill.hash.inbound_id(), PaymentState::Succeeded).await;
    let bill = invoice(net, "bob", Some(1_000)).await;
    paid(net, "alice", &bill.invoice, None).await;
    settled(net).await;
    assert_eq!(channel_balance(net, "bob", "hub"), 3 * 100_000 + 5_000_000 + 1_000);
    conserved(net).await;
}

/// Each channel's balances at `name`, by its funding output.
fn balances(net: &Cluster, name: &str) -> BTreeMap<String, (u64, u64)> {
    net.node(name)
        .lightning
        .channels()
        .into_iter()
        .map(|c| (c.funding.unwrap().to_string(), (c.local_msat, c.remote_msat)))
        .collect()
}

pub async fn a_burst_survives_the_restart_of_any_node(net: &mut Cluster) {
    line(net, &NAMES, 4_000_000, CAPACITY_MSAT / 1_000).await;
    let mut ledger = Ledger::new(CAPACITY_MSAT);
    for name in ["hub", "bob", "alice"] {
        let burst = burst(net, "alice", "bob", 100).await;
        burst.ended(net, 20).await;
        let started = if name == "alice" {
            // The payer's own callers go with it; its payments do not.
            net.stop(name).await.unwrap();
            let started = burst.abandoned().await;
            net.start(name).await.unwrap();
            started
        } else {
            restart(net, name).await;
            burst.finished().await
        };
        connected(net).await;
        ledger.check(net, &started).await;
    }
    let before: Vec<_> = payments(net, "alice").await;
    restart(net, "alice").await;
    assert_eq!(payments(net, "alice").await, before);
    connected(net).await;
    conserved(net).await;
}
