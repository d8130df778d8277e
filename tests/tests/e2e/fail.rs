//! Payments that do not arrive.

use std::time::Duration;

use node::channels::ChannelState;
use node::dev::Cluster;
use node::lightning::FailureReason;
use node::payments::{InvoiceState, PaymentState};
use tests::e2e::{
    WAIT, channel_balance, conserved, invoice, invoice_state, line, paid, pay, pay_request,
    payments, settled,
};

const NAMES: [&str; 3] = ["alice", "hub", "bob"];
const CAPACITY_MSAT: u64 = 1_000_000_000;

async fn assert_nothing_moved(net: &Cluster) {
    settled(net).await;
    assert_eq!(channel_balance(net, "alice", "hub"), CAPACITY_MSAT);
    assert_eq!(channel_balance(net, "hub", "alice"), 0);
    let hub = net.node("hub").lightning.channels();
    let towards_bob = hub.iter().find(|channel| channel.outbound).unwrap();
    assert_eq!(towards_bob.local_msat, CAPACITY_MSAT);
}

pub async fn a_payment_to_an_absent_receiver_fails_and_costs_nothing(net: &mut Cluster) {
    line(net, &NAMES, 4_000_000, CAPACITY_MSAT / 1_000).await;
    let bill = invoice(net, "bob", Some(10_000_000)).await;
    let mut request = pay_request(&bill.invoice, None);
    request.retry_for = Some(Duration::from_secs(2));
    net.stop("bob").await.unwrap();
    net.wait("hub's notice that bob is gone", WAIT, || {
        net.node("hub").lightning.spendable().usable == 1
    })
    .await
    .unwrap();
    let failed = pay(net, "alice", &request).await;
    assert_eq!(failed.state, PaymentState::Failed);
    assert!(
        matches!(
            failed.failure,
            Some(FailureReason::RouteNotFound | FailureReason::RetriesExhausted)
        ),
        "{failed:?}"
    );
    assert_eq!((failed.fee_msat, failed.preimage), (0, None));
    assert_nothing_moved(net).await;

    // The same invoice can be paid once its receiver is back.
    net.start("bob").await.unwrap();
    net.wait("bob's return", WAIT, || net.node("hub").lightning.spendable().usable == 2)
        .await
        .unwrap();
    paid(net, "alice", &bill.invoice, None).await;
    assert_eq!(payments(net, "alice").await.len(), 2);
    settled(net).await;
    assert_eq!(channel_balance(net, "bob", "hub"), 10_000_000);
    conserved(net).await;
}

pub async fn a_payment_the_receiver_does_not_want_comes_back(net: &mut Cluster) {
    line(net, &NAMES, 4_000_000, CAPACITY_MSAT / 1_000).await;
    let bill = invoice(net, "bob", Some(10_000_000)).await;
    net.node("bob")
        .payments
        .cancel_invoice(bill.hash, node::store::Batch::default())
        .await
        .unwrap();
    assert_eq!(invoice_state(net, "bob", bill.hash).await, InvoiceState::Cancelled);
    let failed = pay(net, "alice", &pay_request(&bill.invoice, None)).await;
    assert_eq!(failed.state, PaymentState::Failed);
    assert_eq!(failed.failure, Some(FailureReason::RecipientRejected));
    let returned = payments(net, "bob").await;
    assert_eq!(returned.len(), 1);
    assert_eq!((returned[0].state, returned[0].hash), (PaymentState::Failed, Some(bill.hash)));
    assert!(returned[0].failure_detail.is_some());
    assert_nothing_moved(net).await;

    // A limit on fees that no route keeps is a failure, too.
    let dear = invoice(net, "bob", Some(10_000_000)).await;
    let mut request = pay_request(&dear.invoice, None);
    request.max_fee_msat = Some(4_999);
    request.retry_for = Some(Duration::ZERO);
    let failed = pay(net, "alice", &request).await;
    assert_eq!(failed.failure, Some(FailureReason::RouteNotFound));
    assert_nothing_moved(net).await;
    request.max_fee_msat = Some(5_000);
    assert_eq!(pay(net, "alice", &request).await.state, PaymentState::Succeeded);
    for name in NAMES {
        let records = crate::open::records(net, name).await;
        assert!(records.iter().all(|record| record.state == ChannelState::Active));
    }
    conserved(net).await;
}
