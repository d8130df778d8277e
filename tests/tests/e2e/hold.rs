//! Hold invoices: the receiver's operator decides.

use node::channels::ChannelState;
use node::dev::Cluster;
use node::lightning::FailureReason;
use node::payments::{
    CreateInvoiceError, HoldError, InvoiceState, PaymentRecord, PaymentState, PaymentWatch,
};
use tests::e2e::{
    channel_balance, conserved, hold, invoice_state, line, mine_until, outcome, pay_request,
    payments, preimage, received, settled,
};

const NAMES: [&str; 3] = ["alice", "hub", "bob"];
const CAPACITY_MSAT: u64 = 1_000_000_000;
const AMOUNT_MSAT: u64 = 20_000_001;
/// The hub's 500 millionths.
const FEE_MSAT: u64 = AMOUNT_MSAT * 500 / 1_000_000;

/// Pays a hold invoice with preimage `number`; returns once bob holds the payment.
async fn held(net: &Cluster, number: u8) -> (PaymentWatch, PaymentRecord) {
    let preimage = preimage(number);
    let bill = hold(net, "bob", AMOUNT_MSAT, preimage).await;
    let watch = net.node("alice").payments.pay(&pay_request(&bill.invoice, None), None).unwrap();
    let id = preimage.hash().inbound_id();
    let record = received(net, "bob", id, PaymentState::Held).await;
    assert_eq!((record.amount_msat, record.preimage), (AMOUNT_MSAT, None));
    assert_eq!(invoice_state(net, "bob", bill.hash).await, InvoiceState::Accepted);
    (watch, record)
}

pub async fn a_held_payment_is_settled_or_cancelled(net: &mut Cluster) {
    line(net, &NAMES, 4_000_000, CAPACITY_MSAT / 1_000).await;
    let bob = &net.node("bob").payments;

    let (mut watch, record) = held(net, 1).await;
    assert_eq!(watch.current().await.unwrap().state, PaymentState::InFlight);
    let wrong = bob.settle(preimage(9)).await.unwrap_err();
    assert!(matches!(wrong, HoldError::Unknown(_) | HoldError::Rejected(_)), "{wrong}");
    assert_eq!(bob.get(record.id).await.unwrap().unwrap().state, PaymentState::Held);
    bob.settle(preimage(1)).await.unwrap();
    let sent = outcome(watch).await;
    assert_eq!((sent.state, sent.preimage), (PaymentState::Succeeded, Some(preimage(1))));
    assert_eq!(sent.fee_msat, FEE_MSAT);
    received(net, "bob", record.id, PaymentState::Succeeded).await;
    // What is settled stays settled.
    bob.settle(preimage(1)).await.unwrap();
    let late = bob.give_back(preimage(1).hash()).await.unwrap_err();
    assert!(matches!(late, HoldError::Rejected(_)), "{late}");

    let (watch, record) = held(net, 2).await;
    bob.give_back(preimage(2).hash()).await.unwrap();
    let failed = outcome(watch).await;
    assert_eq!(
        (failed.state, failed.failure),
        (PaymentState::Failed, Some(FailureReason::RecipientRejected))
    );
    received(net, "bob", record.id, PaymentState::Failed).await;
    let late = bob.settle(preimage(2)).await.unwrap_err();
    assert!(matches!(late, HoldError::Rejected(_)), "{late}");

    // An invoice that is cancelled gives back what is held under it.
    let (watch, record) = held(net, 3).await;
    bob.cancel_invoice(preimage(3).hash(), node::store::Batch::default()).await.unwrap();
    assert_eq!(outcome(watch).await.state, PaymentState::Failed);
    received(net, "bob", record.id, PaymentState::Failed).await;
    let state = invoice_state(net, "bob", preimage(3).hash()).await;
    assert_eq!(state, InvoiceState::Cancelled);

    settled(net).await;
    assert_eq!(channel_balance(net, "bob", "hub"), AMOUNT_MSAT);
    assert_eq!(channel_balance(net, "alice", "hub"), CAPACITY_MSAT - AMOUNT_MSAT - FEE_MSAT);
    let again = bob
        .create_invoice(
            node::payments::CreateInvoice {
                amount_msat: Some(1),
                description: node::lightning::InvoiceDescription::Text(String::new()),
                expiry: std::time::Duration::from_secs(60),
                min_final_cltv_expiry_delta: None,
                hash: Some(preimage(1).hash()),
            },
            None,
        )
        .await
        .unwrap_err();
    assert!(matches!(again, CreateInvoiceError::HashUsed { hash } if hash == preimage(1).hash()));
    conserved(net).await;
}

pub async fn a_held_payment_comes_back_before_its_deadline(net: &mut Cluster) {
    line(net, &NAMES, 4_000_000, CAPACITY_MSAT / 1_000).await;
    let (watch, record) = held(net, 1).await;
    let deadline = record.claim_deadline.unwrap();
    let bob = &net.node("bob").payments;
    mine_until(net, "return of a held payment", 400, || bob.open_count() == 0).await;
    let height = net.chain.tip().await.unwrap().height;
    assert!(height < deadline, "given back at {height}, its deadline is {deadline}");
    assert!(height + 14 > deadline, "given back at {height}, long before {deadline}");
    let failed = outcome(watch).await;
    assert_eq!(failed.failure, Some(FailureReason::RecipientRejected));
    let returned = payments(net, "bob").await.remove(0);
    assert_eq!(returned.state, PaymentState::Failed);
    assert!(returned.failure_detail.unwrap().contains("deadline"));

    settled(net).await;
    assert_eq!(channel_balance(net, "alice", "hub"), CAPACITY_MSAT);
    for name in NAMES {
        let records = crate::open::records(net, name).await;
        assert!(records.iter().all(|record| record.state == ChannelState::Active), "{records:?}");
    }
    conserved(net).await;
}
