//! Invoices, offers, payments.

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use proto::v1::payments_client::PaymentsClient;
use proto::v1::{self as pb};

use crate::callers::{Call, NOT_BACK, duplicates};
use crate::process::wait_until;
use crate::world::{ALICE, BOB, World};

/// The one message of an answer, whole.
pub fn whole<R: Clone>(answer: &[R]) -> R {
    assert_eq!(answer.len(), 1, "a call has one answer");
    answer[0].clone()
}

pub fn invoice_of(world: &World, amount_msat: u64) -> pb::CreateInvoiceRequest {
    pb::CreateInvoiceRequest {
        idempotency_key: world.name("invoice"),
        amount_msat: Some(amount_msat),
        ..pb::CreateInvoiceRequest::default()
    }
}

/// What bob has, and how many payments each knows: what a payment from alice to bob changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Books {
    bob_msat: u64,
    alice_payments: usize,
    bob_payments: usize,
}

impl Books {
    pub async fn of(world: &World) -> Self {
        Self {
            bob_msat: world.balance_msat(BOB, ALICE).await,
            alice_payments: world.payments(ALICE).await.len(),
            bob_payments: world.payments(BOB).await.len(),
        }
    }

    pub fn bob(&self) -> u64 {
        self.bob_msat
    }

    /// Whether bob has got so many payments of so much together since.
    pub fn is_paid(&self, before: &Self, payments: usize, amount_msat: u64) -> bool {
        self.bob_msat == before.bob_msat + amount_msat
            && self.bob_payments == before.bob_payments + payments
    }

    /// As they are after so many payments of so much together.
    pub fn with(self, payments: usize, amount_msat: u64) -> Self {
        Self {
            bob_msat: self.bob_msat + amount_msat,
            alice_payments: self.alice_payments + payments,
            bob_payments: self.bob_payments + payments,
        }
    }
}

/// Events of an invoice that say this of it.
async fn told(world: &World, hash: &[u8], state: pb::InvoiceState, after: u64) -> usize {
    let events = world.events(BOB, pb::EventKind::Invoice, after).await;
    let is_it = |event: &&pb::Event| match &event.kind {
        Some(pb::event::Kind::Invoice(event)) => {
            event.payment_hash == hash && event.state() == state
        }
        _ => false,
    };
    events.iter().filter(is_it).count()
}

pub async fn create_invoice(world: &Arc<World>) {
    let (before, log) = (world.invoices(BOB).await.len(), world.newest_event(BOB).await);
    let request = invoice_of(world, 1_234);
    let call = Call::new(BOB, "Payments/CreateInvoice", &request);
    let invoice: pb::Invoice = duplicates(world, call, whole).await.remove(0);
    let listed = world.invoices(BOB).await;
    assert_eq!(listed.len(), before + 1, "one more invoice");
    assert!(listed.contains(&invoice), "it is listed as it was answered");
    assert_eq!(told(world, &invoice.payment_hash, pb::InvoiceState::Open, log).await, 1);
    assert_eq!(world.events(BOB, pb::EventKind::Invoice, log).await.len(), 1, "one event");
}

/// Offers are in no list: a second one would be seen by another code, whose metadata are drawn at
/// random.
pub async fn create_offer(world: &Arc<World>) {
    let request = pb::CreateOfferRequest {
        idempotency_key: world.name("offer"),
        amount_msat: Some(world.amount_msat()),
        description: Some("tea".into()),
        expiry_seconds: Some(3_600),
    };
    let call = Call::new(BOB, "Payments/CreateOffer", &request).not_yet(NOT_BACK);
    let offer: pb::Offer = duplicates(world, call, whole).await.remove(0);
    let mut alice = PaymentsClient::new(world.door(ALICE).await);
    let text = pb::DecodeRequest { text: offer.bolt12 };
    match alice.decode(text).await.unwrap().into_inner().decoded {
        Some(pb::decode_response::Decoded::Offer(read)) => {
            assert_eq!((read.offer_id, read.amount_msat), (offer.offer_id, offer.amount_msat));
        }
        other => panic!("alice reads {other:?}"),
    }
}

pub async fn create_payment_request(world: &Arc<World>) {
    let first = world.new_address(BOB).await;
    let before = world.invoices(BOB).await.len();
    let request = pb::CreatePaymentRequestRequest {
        idempotency_key: world.name("request"),
        amount_msat: Some(50_000_000),
        description: "a bicycle".into(),
        ..pb::CreatePaymentRequestRequest::default()
    };
    let call = Call::new(BOB, "Payments/CreatePaymentRequest", &request);
    let made: pb::PaymentRequest = duplicates(world, call, whole).await.remove(0);
    let listed = world.invoices(BOB).await;
    assert_eq!(listed.len(), before + 1, "one more invoice");
    assert!(listed.iter().any(|invoice| Some(&invoice.bolt11) == made.bolt11.as_ref()));
    let next = world.new_address(BOB).await;
    let address = made.address.unwrap();
    let mut places = Vec::new();
    for address in [&first, &address, &next] {
        places.push(world.address_index(BOB, address).await);
    }
    assert_eq!(places, [places[0], places[0] + 1, places[0] + 2], "one address was taken");
}

async fn keysend(world: &World, what: &str, amount_msat: u64) -> pb::PayRequest {
    let target = pb::Keysend { node_id: world.id(BOB).await, custom_records: Vec::new() };
    pb::PayRequest {
        idempotency_key: world.name(what),
        target: Some(pb::pay_request::Target::Keysend(target)),
        amount_msat: Some(amount_msat),
        timeout_seconds: Some(20),
        wait: pb::PayWait::Wait.into(),
        ..pb::PayRequest::default()
    }
}

/// The kill may end the payment, which is then FAILED for all. Without an invoice nothing but the
/// key keeps it from being made twice.
async fn paid_once(world: &World, before: Books, payment: &pb::Payment, amount_msat: u64) {
    let after = Books::of(world).await;
    let kept = world.payments(ALICE).await;
    assert!(kept.contains(payment), "the record is what was answered");
    match payment.state() {
        pb::PaymentState::Succeeded => assert_eq!(after, before.with(1, amount_msat)),
        pb::PaymentState::Failed => {
            assert_eq!(after.bob_msat, before.bob_msat, "it failed: {payment:?}");
            assert_eq!(after.alice_payments, before.alice_payments + 1);
        }
        state => panic!("{state:?} is no outcome"),
    }
}

pub async fn pay(world: &Arc<World>) {
    let amount_msat = world.amount_msat();
    let before = Books::of(world).await;
    let request = keysend(world, "pay", amount_msat).await;
    let call = Call::new(ALICE, "Payments/Pay", &request).not_yet(NOT_BACK);
    // Everybody waits for the outcome, which never changes.
    let payment: pb::Payment = duplicates(world, call, whole).await.remove(0);
    paid_once(world, before, &payment, amount_msat).await;
}

/// All streams end with the outcome; which states come before depends on when a caller came.
pub async fn pay_stream(world: &Arc<World>) {
    let amount_msat = world.amount_msat();
    let before = Books::of(world).await;
    let request = keysend(world, "pay-stream", amount_msat).await;
    let call = Call::new(ALICE, "Payments/PayStream", &request).not_yet(NOT_BACK);
    let same = |states: &[pb::Payment]| {
        let (first, last) = (states.first().unwrap(), states.last().unwrap());
        (first.payment_id.clone(), first.payment_hash.clone(), last.clone())
    };
    let payment = duplicates(world, call, same).await.pop().unwrap();
    paid_once(world, before, &payment, amount_msat).await;
}

async fn invoice(world: &World, hash: &[u8]) -> pb::Invoice {
    let mut bob = PaymentsClient::new(world.door(BOB).await);
    let request = pb::LookupInvoiceRequest { payment_hash: hash.to_vec() };
    bob.lookup_invoice(request).await.unwrap().into_inner()
}

/// A payment from alice that bob holds: its hash and its id.
async fn held(world: &World, preimage: [u8; 32], amount_msat: u64) -> (Vec<u8>, Vec<u8>) {
    let hash = sha256::Hash::hash(&preimage).to_byte_array().to_vec();
    let mut bob = PaymentsClient::new(world.door(BOB).await);
    let request = pb::CreateInvoiceRequest {
        payment_hash: Some(hash.clone()),
        ..invoice_of(world, amount_msat)
    };
    let bolt11 = bob.create_invoice(request).await.unwrap().into_inner().bolt11;
    let mut alice = PaymentsClient::new(world.door(ALICE).await);
    let request = pb::PayRequest {
        idempotency_key: world.name("held"),
        target: Some(pb::pay_request::Target::Bolt11Invoice(bolt11)),
        timeout_seconds: Some(30),
        ..pb::PayRequest::default()
    };
    let payment = alice.pay(request).await.unwrap().into_inner();
    wait_until("a held payment", || async {
        invoice(world, &hash).await.state() == pb::InvoiceState::Held
    })
    .await;
    (hash, payment.payment_id)
}

/// What alice's payment came to.
async fn outcome(world: &World, payment_id: &[u8]) -> pb::PaymentState {
    let mut alice = PaymentsClient::new(world.door(ALICE).await);
    let request = pb::WatchPaymentRequest { payment_id: payment_id.to_vec() };
    let mut states = alice.watch_payment(request).await.unwrap().into_inner();
    let mut last = pb::PaymentState::Unspecified;
    while let Some(payment) = states.message().await.unwrap() {
        last = payment.state();
    }
    last
}

/// The invoice is on its way from HELD to SETTLED: what it asks for stays.
pub async fn settle_hold(world: &Arc<World>) {
    let (preimage, amount_msat) = (world.bytes(), world.amount_msat());
    let (before, log) = (Books::of(world).await, world.newest_event(BOB).await);
    let (hash, payment_id) = held(world, preimage, amount_msat).await;
    let request = pb::SettleHoldRequest {
        idempotency_key: world.name("settle"),
        preimage: preimage.to_vec(),
    };
    let call = Call::new(BOB, "Payments/SettleHold", &request);
    let same = |answer: &[pb::Invoice]| {
        let invoice = whole(answer);
        (invoice.payment_hash, invoice.bolt11, invoice.amount_received_msat)
    };
    duplicates(world, call, same).await;
    assert_eq!(outcome(world, &payment_id).await, pb::PaymentState::Succeeded);
    wait_until("a settled invoice", || async {
        invoice(world, &hash).await.state() == pb::InvoiceState::Settled
    })
    .await;
    assert_eq!(Books::of(world).await, before.with(1, amount_msat));
    let events = world.events(BOB, pb::EventKind::Payment, log).await;
    let took = |event: &&pb::Event| match &event.kind {
        Some(pb::event::Kind::Payment(event)) => event.state() == pb::PaymentState::Succeeded,
        _ => false,
    };
    assert_eq!(events.iter().filter(took).count(), 1, "taken once");
}

pub async fn cancel_hold(world: &Arc<World>) {
    let (preimage, amount_msat) = (world.bytes(), world.amount_msat());
    let (before, log) = (Books::of(world).await, world.newest_event(BOB).await);
    let (hash, payment_id) = held(world, preimage, amount_msat).await;
    let request =
        pb::CancelHoldRequest { idempotency_key: world.name("cancel"), payment_hash: hash.clone() };
    let call = Call::new(BOB, "Payments/CancelHold", &request);
    let invoice: pb::Invoice = duplicates(world, call, whole).await.remove(0);
    assert_eq!(invoice.state(), pb::InvoiceState::Cancelled);
    assert_eq!(outcome(world, &payment_id).await, pb::PaymentState::Failed);
    assert_eq!(Books::of(world).await, before.with(1, 0), "nothing was paid");
    assert_eq!(told(world, &hash, pb::InvoiceState::Cancelled, log).await, 1, "cancelled once");
}
