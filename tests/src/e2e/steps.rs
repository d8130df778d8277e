//! The steps scenarios are made of: nodes in a line, invoices, payments, balances.

use std::time::Duration;

use bitcoin::Amount;
use node::channels::{ChannelRecord, OpenRequest};
use node::dev::{Cluster, NodeOptions};
use node::journal::DomainEvent;
use node::lightning::types::{NodeId, PaymentHash, PaymentId, Preimage};
use node::lightning::{ChannelSnapshot, InvoiceDescription};
use node::payments::{
    CreateInvoice, InvoiceRecord, InvoiceState, PayRequest, PayTarget, PaymentFilter,
    PaymentRecord, PaymentState, PaymentWatch,
};

use super::WAIT;

/// Starts `names`, pays `funds_sat` to each in two coins, and opens a channel of `capacity_sat`
/// from each to the next.
///
/// # Panics
///
/// If any of it fails.
pub async fn line(net: &mut Cluster, names: &[&str], funds_sat: u64, capacity_sat: u64) {
    for name in names {
        net.add(name, NodeOptions::default()).await.expect("a new node starts");
    }
    net.fund(names, Amount::from_sat(funds_sat), 2).await.expect("the faucet pays");
    for pair in names.windows(2) {
        net.open_channel(pair[0], pair[1], capacity_sat, 0).await.expect("the channel opens");
    }
}

/// A request for a private channel; the address is left out if it is `None`.
pub fn open_request(peer: NodeId, address: Option<String>, capacity_sat: u64) -> OpenRequest {
    OpenRequest {
        peer,
        address,
        capacity_sat,
        push_msat: 0,
        announced: false,
        feerate_sat_per_vb: None,
        zero_reserve: false,
        fees: None,
    }
}

/// An invoice of `payee`'s.
///
/// # Panics
///
/// If it cannot be made.
pub async fn invoice(net: &Cluster, payee: &str, amount_msat: Option<u64>) -> InvoiceRecord {
    let create = CreateInvoice {
        amount_msat,
        description: InvoiceDescription::Text("tea".into()),
        expiry: Duration::from_secs(3_600),
        min_final_cltv_expiry_delta: None,
        hash: None,
    };
    net.node(payee).payments.create_invoice(create, None).await.expect("an invoice is made")
}

/// Where an invoice of `payee`'s stands.
///
/// # Panics
///
/// If there is none.
pub async fn invoice_state(net: &Cluster, payee: &str, hash: PaymentHash) -> InvoiceState {
    let view = net.node(payee).payments.look_up_invoice(hash).await;
    view.expect("the store works").expect("the invoice was made").state
}

/// The preimage numbered `number`, known to the scenario alone.
pub fn preimage(number: u8) -> Preimage {
    Preimage([number; 32])
}

/// An invoice of `payee`'s whose preimage only the scenario knows.
///
/// # Panics
///
/// If it cannot be made.
pub async fn hold(
    net: &Cluster,
    payee: &str,
    amount_msat: u64,
    preimage: Preimage,
) -> InvoiceRecord {
    let create = CreateInvoice {
        amount_msat: Some(amount_msat),
        description: InvoiceDescription::Text("held tea".into()),
        expiry: Duration::from_secs(3_600),
        min_final_cltv_expiry_delta: None,
        hash: Some(preimage.hash()),
    };
    net.node(payee).payments.create_invoice(create, None).await.expect("a hold invoice is made")
}

/// Lets `payer` pay a hold invoice of `payee`'s with preimage `number`, and waits until that has
/// the payment.
///
/// # Panics
///
/// If it does not get there.
pub async fn holds(
    net: &Cluster,
    payer: &str,
    payee: &str,
    amount_msat: u64,
    number: u8,
) -> PaymentWatch {
    let bill = hold(net, payee, amount_msat, preimage(number)).await;
    let watch = net.node(payer).payments.pay(&pay_request(&bill.invoice, None), None);
    let watch = watch.expect("the payment starts");
    received(net, payee, preimage(number).hash().inbound_id(), PaymentState::Held).await;
    watch
}

/// Cuts the power of `name`, starts it again, and waits until it has followed the chain.
///
/// # Panics
///
/// If it does not start.
pub async fn crash(net: &mut Cluster, name: &str) {
    net.crash(name).await.expect("a node of the network");
    net.start(name).await.expect("it starts again");
    net.synced().await.expect("it follows the chain");
}

/// A request to pay `text` with the node's own limits.
pub fn pay_request(text: &str, amount_msat: Option<u64>) -> PayRequest {
    PayRequest {
        target: PayTarget::Request(text.to_owned()),
        amount_msat,
        max_fee_msat: None,
        retry_for: None,
        max_parts: None,
        payer_note: None,
    }
}

/// Starts a payment and follows it to its end.
///
/// # Panics
///
/// If it is refused or has no end.
pub async fn pay(net: &Cluster, payer: &str, request: &PayRequest) -> PaymentRecord {
    let watch = net.node(payer).payments.pay(request, None);
    outcome(watch.expect("the payment starts")).await
}

/// Pays `text` and asserts that it arrived.
///
/// # Panics
///
/// If it did not.
pub async fn paid(
    net: &Cluster,
    payer: &str,
    text: &str,
    amount_msat: Option<u64>,
) -> PaymentRecord {
    let record = pay(net, payer, &pay_request(text, amount_msat)).await;
    assert_eq!(record.state, PaymentState::Succeeded, "{record:?}");
    record
}

/// Lets `payer` pay `payee` once, and waits until no HTLC is in flight.
///
/// # Panics
///
/// If the payment does not arrive.
pub async fn pays(net: &Cluster, payer: &str, payee: &str, amount_msat: u64) {
    let bill = invoice(net, payee, Some(amount_msat)).await;
    paid(net, payer, &bill.invoice, None).await;
    settled(net).await;
}

/// Waits until `name` has a channel that `which` takes, and that can carry payments.
///
/// # Panics
///
/// If it does not come.
pub async fn usable_channel(net: &Cluster, name: &str, which: impl Fn(&ChannelSnapshot) -> bool) {
    net.wait("usable channel", WAIT, || {
        let channels = net.node(name).lightning.channels();
        channels.iter().any(|c| which(c) && c.usable && c.counterparty_fees.is_some())
    })
    .await
    .expect("a channel becomes usable");
}

/// Waits until `done` says so.
///
/// # Panics
///
/// If it does not in time.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    assert!(in_time(&mut done).await, "{what} does not come");
}

/// Waits until `done` says so, and says whether it did in time.
pub async fn in_time(done: &mut impl AsyncFnMut() -> bool) -> bool {
    let end = tokio::time::Instant::now() + WAIT;
    while !done().await {
        if tokio::time::Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// The final record of a payment.
///
/// # Panics
///
/// If there is none in time.
pub async fn outcome(mut watch: PaymentWatch) -> PaymentRecord {
    let ended = tokio::time::timeout(WAIT, watch.outcome()).await;
    ended.expect("a payment ends in time").expect("the store works")
}

/// Waits until `payee`'s record of an incoming payment is in `state`, and returns it.
///
/// # Panics
///
/// If it does not get there in time.
pub async fn received(
    net: &Cluster,
    payee: &str,
    id: PaymentId,
    state: PaymentState,
) -> PaymentRecord {
    let payments = &net.node(payee).payments;
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let record = payments.get(id).await.expect("the store works");
        match record {
            Some(record) if record.state == state => return record,
            other => assert!(
                tokio::time::Instant::now() < deadline,
                "payment {id} of {payee} is not {state:?} in time: {other:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every payment `name` has a record of, newest first.
///
/// # Panics
///
/// If the store fails.
pub async fn payments(net: &Cluster, name: &str) -> Vec<PaymentRecord> {
    let filter = PaymentFilter::default();
    let page = net.node(name).payments.list(&filter, None, 100_000).await;
    page.expect("the store works").payments
}

/// Every channel record of `name`, newest first.
///
/// # Panics
///
/// If the store fails.
pub async fn records(net: &Cluster, name: &str) -> Vec<ChannelRecord> {
    let page = net.node(name).channels.list(|_, _| true, None, 100_000).await;
    page.expect("the store works").channels.into_iter().map(|view| view.record).collect()
}

/// Waits until no HTLC is in flight at any running node and neighbours agree on what each owns.
///
/// # Panics
///
/// If that does not come about in time.
pub async fn settled(net: &Cluster) {
    net.wait("channels without HTLCs and of one mind", WAIT, || {
        let channels: Vec<_> = net
            .nodes()
            .filter_map(|dev| dev.running())
            .flat_map(|node| node.lightning.channels())
            .collect();
        channels.iter().all(|channel| {
            let other = channels
                .iter()
                .find(|c| c.funding == channel.funding && c.outbound != channel.outbound);
            channel.inbound_htlcs == 0
                && channel.outbound_htlcs == 0
                && other.is_none_or(|other| other.local_msat == channel.remote_msat)
        })
    })
    .await
    .expect("payments settle");
}

/// What `name` owns in its channels with `peer`, msat.
pub fn channel_balance(net: &Cluster, name: &str, peer: &str) -> u64 {
    let peer = net.node(peer).lightning.node_id();
    let channels = net.node(name).lightning.channels();
    channels.iter().filter(|channel| channel.peer == peer).map(|channel| channel.local_msat).sum()
}

/// What `name` has in its wallet, sat, confirmed or not.
pub fn wallet_sat(net: &Cluster, name: &str) -> u64 {
    let balance = net.node(name).wallet.balance();
    (balance.confirmed + balance.unconfirmed + balance.immature).to_sat()
}

/// What the journal of `name` has of its life so far.
///
/// # Panics
///
/// If it cannot be read.
pub fn told(net: &Cluster, name: &str) -> Vec<DomainEvent> {
    let journal = &net.node(name).journal;
    let mut events = Vec::new();
    loop {
        let read = journal.read(events.len() as u64, 1_000).expect("the journal can be read");
        if read.is_empty() {
            return events;
        }
        events.extend(read.into_iter().map(|entry| entry.event));
    }
}

/// Asserts that no satoshi is lost or doubled.
///
/// # Panics
///
/// If one is.
pub async fn conserved(net: &Cluster) {
    settled(net).await;
    let audit = net.audit().await.expect("the chain can be read");
    assert!(audit.conserved(), "{audit:?}");
}
