//! Webhook endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use node::rpc::status::explain;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::webhooks_client::WebhooksClient;
use proto::v1::{self as pb};

use super::payments::{invoice_of, whole};
use crate::callers::{Call, duplicates};
use crate::process::wait_until;
use crate::world::{ALICE, World};

async fn all(world: &World) -> Vec<pb::Webhook> {
    let mut alice = WebhooksClient::new(world.door(ALICE).await);
    let request = pb::ListWebhooksRequest { page_size: Some(1_000), page_token: None };
    alice.list(request).await.unwrap().into_inner().webhooks
}

async fn get(world: &World, id: &[u8]) -> Result<pb::Webhook, String> {
    let mut alice = WebhooksClient::new(world.door(ALICE).await);
    let answer = alice.get(pb::GetWebhookRequest { endpoint_id: id.to_vec() }).await;
    answer.map(|webhook| webhook.into_inner()).map_err(|status| explain(&status).reason.unwrap())
}

/// An endpoint of its own at the receiver, under this name.
fn endpoint_of(world: &World, name: &str, kind: pb::EventKind) -> pb::CreateWebhookRequest {
    pb::CreateWebhookRequest {
        idempotency_key: world.name("endpoint"),
        url: world.receiver.url(name),
        description: "books".into(),
        kinds: vec![kind.into()],
        after_sequence: None,
    }
}

async fn made(world: &World, name: &str, kind: pb::EventKind) -> pb::WebhookSecret {
    let mut alice = WebhooksClient::new(world.door(ALICE).await);
    alice.create(endpoint_of(world, name, kind)).await.unwrap().into_inner()
}

async fn forget(world: &World, id: Vec<u8>) {
    let mut alice = WebhooksClient::new(world.door(ALICE).await);
    let request =
        pb::DeleteWebhookRequest { idempotency_key: world.name("forget"), endpoint_id: id };
    alice.delete(request).await.unwrap();
}

/// What is set of an endpoint. The rest counts deliveries.
fn settings(webhook: &pb::Webhook) -> (Vec<u8>, String, String, Vec<i32>, i32, u64) {
    let webhook = webhook.clone();
    let pb::Webhook { endpoint_id, url, description, kinds, state, created_at_ms, .. } = webhook;
    (endpoint_id, url, description, kinds, state, created_at_ms)
}

pub async fn create(world: &Arc<World>) {
    let before = all(world).await.len();
    let name = world.name("create");
    let request = endpoint_of(world, &name, pb::EventKind::Webhook);
    let call = Call::new(ALICE, "Webhooks/Create", &request);
    let same = |answer: &[pb::WebhookSecret]| {
        let made = whole(answer);
        (settings(&made.webhook.unwrap()), made.secret)
    };
    let made = duplicates(world, call, same).await.remove(0).webhook.unwrap();
    let listed = all(world).await;
    assert_eq!(listed.len(), before + 1, "one more endpoint");
    assert!(listed.iter().any(|webhook| settings(webhook) == settings(&made)));
    forget(world, made.endpoint_id).await;
}

pub async fn update(world: &Arc<World>) {
    let made = made(world, &world.name("update"), pb::EventKind::Webhook).await.webhook.unwrap();
    let before = all(world).await.len();
    let request = |description: &str| pb::UpdateWebhookRequest {
        idempotency_key: world.name("update"),
        endpoint_id: made.endpoint_id.clone(),
        description: Some(description.into()),
        enabled: Some(false),
        ..pb::UpdateWebhookRequest::default()
    };
    let first = request("ledger");
    let call = Call::new(ALICE, "Webhooks/Update", &first);
    let same = |answer: &[pb::Webhook]| settings(&whole(answer));
    let changed = duplicates(world, call, same).await.remove(0);
    assert_eq!(
        (changed.description.as_str(), changed.state()),
        ("ledger", pb::WebhookState::Disabled,)
    );
    assert_eq!(all(world).await.len(), before, "no more endpoints");
    // A repetition that comes late does not undo what came between.
    let mut alice = WebhooksClient::new(world.door(ALICE).await);
    alice.update(request("journal")).await.unwrap();
    alice.update(first).await.unwrap();
    let now = get(world, &made.endpoint_id).await.unwrap();
    assert_eq!(now.description, "journal", "a repetition changed it again");
    forget(world, made.endpoint_id).await;
}

async fn test(world: &World, id: &[u8], key: String) -> pb::TestDelivery {
    let mut alice = WebhooksClient::new(world.door(ALICE).await);
    let request = pb::SendTestRequest { idempotency_key: key, endpoint_id: id.to_vec() };
    alice.send_test(request).await.unwrap().into_inner()
}

/// Deliveries are signed with the new secret and the one before it: were there a second new one, the
/// first would not sign any more.
pub async fn rotate_secret(world: &Arc<World>) {
    let name = world.name("rotate");
    let made = made(world, &name, pb::EventKind::Webhook).await;
    let id = made.webhook.unwrap().endpoint_id;
    let request = pb::RotateWebhookSecretRequest {
        idempotency_key: world.name("rotate"),
        endpoint_id: id.clone(),
        grace_seconds: Some(600),
    };
    let call = Call::new(ALICE, "Webhooks/RotateSecret", &request);
    let same = |answer: &[pb::WebhookSecret]| {
        let rotated = whole(answer);
        let webhook = rotated.webhook.unwrap();
        (settings(&webhook), webhook.previous_secret_until_ms, rotated.secret)
    };
    let rotated = duplicates(world, call, same).await.remove(0);
    assert_ne!(rotated.secret, made.secret);
    assert_eq!(test(world, &id, world.name("test")).await.http_status, Some(200));
    let delivery = world.receiver.heard(&name).pop().unwrap();
    assert!(delivery.is_signed_with(&rotated.secret), "{delivery:?}");
    assert!(delivery.is_signed_with(&made.secret), "it was replaced twice: {delivery:?}");
    forget(world, id).await;
}

/// A delivery cannot be one write with its record: if the kill comes between both, the test is sent
/// once more. It is never sent twice by one process.
pub async fn send_test(world: &Arc<World>) {
    let name = world.name("send-test");
    let id = made(world, &name, pb::EventKind::Webhook).await.webhook.unwrap().endpoint_id;
    let request =
        pb::SendTestRequest { idempotency_key: world.name("test"), endpoint_id: id.clone() };
    let call = Call::new(ALICE, "Webhooks/SendTest", &request);
    let delivery: pb::TestDelivery = duplicates(world, call, whole).await.remove(0);
    assert_eq!(delivery.http_status, Some(200));
    let heard = world.receiver.heard(&name).len();
    assert!((1..=2).contains(&heard), "the test was sent {heard} times");
    forget(world, id).await;
}

/// Deliveries come at least once: each is there once before, once by the replay, and once more if
/// the kill came before it was recorded.
pub async fn replay(world: &Arc<World>) {
    let name = world.name("replay");
    let id = made(world, &name, pb::EventKind::Invoice).await.webhook.unwrap().endpoint_id;
    let log = world.newest_event(ALICE).await;
    let mut alice = PaymentsClient::new(world.door(ALICE).await);
    for _ in 0..5 {
        alice.create_invoice(invoice_of(world, 1_000)).await.unwrap();
    }
    let is_quiet = || async {
        let webhook = get(world, &id).await.unwrap();
        webhook.behind == 0 && webhook.waiting == 0
    };
    wait_until("five deliveries", || async { world.receiver.heard(&name).len() >= 5 }).await;
    wait_until("nothing that waits", is_quiet).await;
    let before = world.receiver.heard(&name).len();
    let request = pb::ReplayWebhookRequest {
        idempotency_key: world.name("replay"),
        endpoint_id: id.clone(),
        what: Some(pb::replay_webhook_request::What::AfterSequence(log)),
    };
    let call = Call::new(ALICE, "Webhooks/Replay", &request);
    let same = |answer: &[pb::Webhook]| settings(&whole(answer));
    duplicates(world, call, same).await;
    wait_until("nothing that waits", is_quiet).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for delivery in world.receiver.heard(&name).drain(before..) {
        *times.entry(delivery.id).or_default() += 1;
    }
    assert_eq!(times.len(), 5, "every event came again: {times:?}");
    assert!(times.values().all(|times| *times <= 2), "more often than once more: {times:?}");
    forget(world, id).await;
}

pub async fn delete(world: &Arc<World>) {
    let made = made(world, &world.name("delete"), pb::EventKind::Webhook).await.webhook.unwrap();
    let before = all(world).await.len();
    let request = pb::DeleteWebhookRequest {
        idempotency_key: world.name("delete"),
        endpoint_id: made.endpoint_id.clone(),
    };
    let call = Call::new(ALICE, "Webhooks/Delete", &request);
    let _empty: Vec<pb::DeleteWebhookResponse> = duplicates(world, call, whole).await;
    assert_eq!(all(world).await.len(), before - 1, "one less");
    assert_eq!(get(world, &made.endpoint_id).await, Err("WEBHOOK_UNKNOWN".to_owned()));
}
