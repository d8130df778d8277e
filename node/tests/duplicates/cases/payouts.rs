//! Payouts: made, accepted, stopped for a while, and tried again.

use std::sync::Arc;

use proto::v1::payments_client::PaymentsClient;
use proto::v1::payouts_client::PayoutsClient;
use proto::v1::{self as pb};

use super::payments::{Books, invoice_of, whole};
use crate::callers::{Call, duplicates};
use crate::process::wait_until;
use crate::world::{ALICE, BOB, World};

/// A time that does not come.
const NEVER_UNIX_MS: u64 = u64::MAX / 4;

async fn all(world: &World) -> Vec<pb::Payout> {
    let mut alice = PayoutsClient::new(world.door(ALICE).await);
    let request = pb::ListPayoutsRequest { page_size: Some(1_000), ..Default::default() };
    alice.list(request).await.unwrap().into_inner().payouts
}

async fn get(world: &World, id: &[u8]) -> pb::Payout {
    let mut alice = PayoutsClient::new(world.door(ALICE).await);
    let request = pb::GetPayoutRequest { payout_id: id.to_vec() };
    alice.get(request).await.unwrap().into_inner()
}

/// How often the log says this of a payout.
async fn told(world: &World, id: &[u8], kind: pb::PayoutEventKind) -> usize {
    let events = world.events(ALICE, pb::EventKind::Payout, 0).await;
    let is_it = |event: &&pb::Event| match &event.kind {
        Some(pb::event::Kind::Payout(event)) => event.payout_id == id && event.kind() == kind,
        _ => false,
    };
    events.iter().filter(is_it).count()
}

async fn keysends(world: &World, count: usize) -> (Vec<pb::PayoutLineInput>, u64) {
    let target = hex::encode(world.id(BOB).await);
    let amounts: Vec<u64> = (0..count).map(|_| world.amount_msat()).collect();
    let line = |amount_msat: &u64| pb::PayoutLineInput {
        target: target.clone(),
        amount_msat: Some(*amount_msat),
        ..Default::default()
    };
    (amounts.iter().map(line).collect(), amounts.iter().sum())
}

fn request(
    key: String,
    lines: Vec<pb::PayoutLineInput>,
    settings: pb::PayoutSettings,
) -> pb::CreatePayoutRequest {
    use pb::create_payout_request::Source;
    pb::CreatePayoutRequest {
        idempotency_key: key,
        settings: Some(settings),
        source: Some(Source::Lines(pb::PayoutLineInputs { lines })),
    }
}

async fn made(
    world: &World,
    lines: Vec<pb::PayoutLineInput>,
    settings: pb::PayoutSettings,
) -> pb::Payout {
    let mut alice = PayoutsClient::new(world.door(ALICE).await);
    let request = request(world.name("payout"), lines, settings);
    alice.create(request).await.unwrap().into_inner()
}

fn acceptance(world: &World, payout: &pb::Payout) -> pb::AcceptPayoutRequest {
    let quote = payout.quote.unwrap();
    pb::AcceptPayoutRequest {
        idempotency_key: world.name("accept"),
        payout_id: payout.payout_id.clone(),
        total_msat: quote.total_msat,
        max_fee_msat: quote.max_fee_msat,
        skip_bad_lines: false,
    }
}

async fn accepted(world: &World, payout: &pb::Payout) {
    let mut alice = PayoutsClient::new(world.door(ALICE).await);
    alice.accept(acceptance(world, payout)).await.unwrap();
}

/// An accepted payout that waits for a time that does not come.
async fn waiting(world: &World) -> Vec<u8> {
    let (lines, _) = keysends(world, 1).await;
    let settings =
        pb::PayoutSettings { not_before_unix_ms: Some(NEVER_UNIX_MS), ..Default::default() };
    let payout = made(world, lines, settings).await;
    accepted(world, &payout).await;
    payout.payout_id
}

async fn ended(world: &World, id: &[u8]) -> pb::Payout {
    let states = [pb::PayoutState::Completed, pb::PayoutState::Cancelled];
    wait_until("the end of a payout", || async { states.contains(&get(world, id).await.state()) })
        .await;
    get(world, id).await
}

async fn balances(world: &World, id: &[u8]) -> pb::Reconciliation {
    let mut alice = PayoutsClient::new(world.door(ALICE).await);
    let request = pb::GetReconciliationRequest { payout_id: id.to_vec() };
    alice.get_reconciliation(request).await.unwrap().into_inner()
}

pub async fn create(world: &Arc<World>) {
    let before = all(world).await.len();
    let (lines, total_msat) = keysends(world, 3).await;
    let request = request(world.name("create"), lines, pb::PayoutSettings::default());
    let call = Call::new(ALICE, "Payouts/Create", &request);
    // A repetition is answered with the payout as it was made.
    let payout: pb::Payout = duplicates(world, call, whole).await.remove(0);
    let listed = all(world).await;
    assert_eq!(listed.len(), before + 1, "one more payout");
    assert!(listed.contains(&payout), "it is listed as it was answered");
    assert_eq!(payout.quote.unwrap().total_msat, total_msat);
    assert_eq!(told(world, &payout.payout_id, pb::PayoutEventKind::Created).await, 1);
}

pub async fn create_stream(world: &Arc<World>) {
    let before = all(world).await.len();
    let (lines, total_msat) = keysends(world, 4).await;
    let mut pieces = Vec::new();
    for line in lines {
        let piece = request(String::new(), vec![line], pb::PayoutSettings::default());
        pieces.push(pb::CreatePayoutRequest { settings: None, ..piece });
    }
    pieces[0].idempotency_key = world.name("create-stream");
    pieces[0].settings = Some(pb::PayoutSettings::default());
    let call = Call::in_pieces(ALICE, "Payouts/CreateStream", &pieces);
    let payout: pb::Payout = duplicates(world, call, whole).await.remove(0);
    let listed = all(world).await;
    assert_eq!(listed.len(), before + 1, "one more payout");
    assert!(listed.contains(&payout), "it is listed as it was answered");
    assert_eq!(payout.quote.unwrap().total_msat, total_msat);
    assert_eq!(told(world, &payout.payout_id, pb::PayoutEventKind::Created).await, 1);
}

/// What was accepted and when: the rest is how far it came. Its lines pay a node without an
/// invoice, so that nothing but their records keeps them from being paid twice.
pub async fn accept(world: &Arc<World>) {
    let before = Books::of(world).await;
    let (lines, total_msat) = keysends(world, 5).await;
    let payout = made(world, lines, pb::PayoutSettings::default()).await;
    let request = acceptance(world, &payout);
    let call = Call::new(ALICE, "Payouts/Accept", &request);
    let same = |answer: &[pb::Payout]| {
        let payout = whole(answer);
        (payout.payout_id, payout.settings, payout.quote, payout.accepted_unix_ms)
    };
    duplicates(world, call, same).await;
    let end = ended(world, &payout.payout_id).await;
    let progress = end.progress.unwrap();
    assert_eq!((progress.done_lines, progress.done_msat), (5, total_msat), "{end:?}");
    let sums = balances(world, &payout.payout_id).await;
    assert_eq!((sums.payments, sums.lightning_msat), (5, total_msat));
    assert_eq!(told(world, &payout.payout_id, pb::PayoutEventKind::Accepted).await, 1);
    // A line that the kill ended has another payment, so alice may know more of them than bob.
    let after = Books::of(world).await;
    assert!(after.is_paid(&before, 5, total_msat), "{before:?}, then {after:?}");
}

/// Nothing goes on with a payout that waits: the answer is compared as it is, here and below.
pub async fn pause(world: &Arc<World>) {
    let id = waiting(world).await;
    let request =
        pb::PausePayoutRequest { idempotency_key: world.name("pause"), payout_id: id.clone() };
    let call = Call::new(ALICE, "Payouts/Pause", &request);
    let payout: pb::Payout = duplicates(world, call, whole).await.remove(0);
    assert_eq!(payout.state(), pb::PayoutState::Paused);
    assert_eq!(get(world, &id).await, payout);
    assert_eq!(told(world, &id, pb::PayoutEventKind::Paused).await, 1, "paused once");
}

pub async fn resume(world: &Arc<World>) {
    let id = waiting(world).await;
    let mut alice = PayoutsClient::new(world.door(ALICE).await);
    let request =
        pb::PausePayoutRequest { idempotency_key: world.name("pause"), payout_id: id.clone() };
    alice.pause(request).await.unwrap();
    let request =
        pb::ResumePayoutRequest { idempotency_key: world.name("resume"), payout_id: id.clone() };
    let call = Call::new(ALICE, "Payouts/Resume", &request);
    let payout: pb::Payout = duplicates(world, call, whole).await.remove(0);
    assert_eq!(payout.state(), pb::PayoutState::Scheduled);
    assert_eq!(get(world, &id).await, payout);
    assert_eq!(told(world, &id, pb::PayoutEventKind::Resumed).await, 1, "resumed once");
}

pub async fn cancel(world: &Arc<World>) {
    let id = waiting(world).await;
    let request =
        pb::CancelPayoutRequest { idempotency_key: world.name("cancel"), payout_id: id.clone() };
    let call = Call::new(ALICE, "Payouts/Cancel", &request);
    let payout: pb::Payout = duplicates(world, call, whole).await.remove(0);
    assert_eq!(payout.state(), pb::PayoutState::Cancelled);
    assert_eq!(get(world, &id).await, payout);
    assert_eq!(told(world, &id, pb::PayoutEventKind::Cancelled).await, 1, "cancelled once");
}

/// Pays an invoice that bob has withdrawn, which fails, and once more, which fails again. How far
/// the line came is not compared.
pub async fn retry(world: &Arc<World>) {
    let mut bob = PaymentsClient::new(world.door(BOB).await);
    let invoice = invoice_of(world, world.amount_msat());
    let invoice = bob.create_invoice(invoice).await.unwrap().into_inner();
    let withdrawn = pb::CancelHoldRequest {
        idempotency_key: world.name("withdrawn"),
        payment_hash: invoice.payment_hash,
    };
    bob.cancel_hold(withdrawn).await.unwrap();
    let lines = vec![pb::PayoutLineInput { target: invoice.bolt11, ..Default::default() }];
    let payout = made(world, lines, pb::PayoutSettings::default()).await;
    accepted(world, &payout).await;
    let id = payout.payout_id;
    let first = ended(world, &id).await;
    assert_eq!(first.progress.unwrap().failed_lines, 1, "{first:?}");
    let before = Books::of(world).await;
    let request = pb::RetryPayoutRequest {
        idempotency_key: world.name("retry"),
        payout_id: id.clone(),
        lines: Vec::new(),
    };
    let call = Call::new(ALICE, "Payouts/Retry", &request);
    let same = |answer: &[pb::Payout]| {
        let payout = whole(answer);
        (payout.payout_id, payout.settings, payout.quote, payout.accepted_unix_ms)
    };
    duplicates(world, call, same).await;
    let again = ended(world, &id).await;
    assert_eq!(again.progress.unwrap().failed_lines, 1, "{again:?}");
    assert_eq!(told(world, &id, pb::PayoutEventKind::Retried).await, 1, "retried once");
    assert_eq!(Books::of(world).await.bob(), before.bob(), "nothing was paid");
}
