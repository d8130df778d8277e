//! Webhook endpoints over the interface.

use proto::v1;
use proto::v1::webhooks_client::WebhooksClient;
use tonic::Code;

use super::super::status::explain;
use super::whole::{Api, Signed, reason};
use crate::dev::{Cluster, DevChain, NodeOptions};

fn create(key: &str, url: &str) -> v1::CreateWebhookRequest {
    v1::CreateWebhookRequest {
        idempotency_key: key.into(),
        url: url.into(),
        ..v1::CreateWebhookRequest::default()
    }
}

/// A name that is there on every machine, and no public one: nothing leaves it.
const URL: &str = "https://localhost:1/hook";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_made_once_listed_changed_and_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    cluster.add("alice", NodeOptions::default()).await.unwrap();
    let alice = Api::of(&cluster, "alice").await;
    let mut ours: WebhooksClient<Signed> = WebhooksClient::new(alice.signed());
    for (request, why) in [
        (create("", URL), "IDEMPOTENCY_KEY_MISSING"),
        (create("a", "http://shop.example/"), "WEBHOOK_URL_REFUSED"),
        (create("b", "https://169.254.169.254/"), "WEBHOOK_URL_REFUSED"),
        (create("c", "nonsense"), "WEBHOOK_URL_REFUSED"),
        (v1::CreateWebhookRequest { kinds: vec![99], ..create("d", URL) }, "FIELD_INVALID"),
        (
            v1::CreateWebhookRequest { description: "x".repeat(257), ..create("e", URL) },
            "FIELD_INVALID",
        ),
        (
            v1::CreateWebhookRequest { after_sequence: Some(1 << 40), ..create("f", URL) },
            "EVENTS_AHEAD",
        ),
    ] {
        let status = ours.create(request).await.unwrap_err();
        assert_eq!(reason(&status), why);
    }
    let made = ours.create(create("one", URL)).await.unwrap().into_inner();
    let again = ours.create(create("one", URL)).await.unwrap().into_inner();
    let id = |made: &v1::WebhookSecret| made.webhook.as_ref().unwrap().endpoint_id.clone();
    assert_eq!((&made.secret, id(&made)), (&again.secret, id(&again)));
    assert!(made.secret.starts_with("whsec_"));
    let id = made.webhook.unwrap().endpoint_id;
    for number in 0..3 {
        ours.create(create(&format!("more {number}"), URL)).await.unwrap();
    }
    let mut ids = Vec::new();
    let mut page_token = None;
    loop {
        let list = v1::ListWebhooksRequest { page_size: Some(3), page_token };
        let page = ours.list(list).await.unwrap().into_inner();
        ids.extend(page.webhooks.into_iter().map(|webhook| webhook.endpoint_id));
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 4);
    assert!(ids.is_sorted() && ids.contains(&id));

    let kinds = vec![v1::EventKind::Payment.into(), v1::EventKind::Swap.into()];
    let update = v1::UpdateWebhookRequest {
        idempotency_key: "off".into(),
        endpoint_id: id.clone(),
        description: Some("books".into()),
        filter: Some(v1::EventKinds { kinds: kinds.clone() }),
        enabled: Some(false),
        ..v1::UpdateWebhookRequest::default()
    };
    let changed = ours.update(update.clone()).await.unwrap().into_inner();
    assert_eq!(changed.state(), v1::WebhookState::Disabled);
    assert_eq!((changed.description.as_str(), changed.kinds), ("books", kinds));
    let on = v1::UpdateWebhookRequest {
        idempotency_key: "on".into(),
        endpoint_id: id.clone(),
        enabled: Some(true),
        ..v1::UpdateWebhookRequest::default()
    };
    ours.update(on).await.unwrap();
    // A repetition looks and changes nothing.
    let again = ours.update(update).await.unwrap().into_inner();
    assert_eq!(again.state(), v1::WebhookState::Enabled);

    let rotate = v1::RotateWebhookSecretRequest {
        idempotency_key: "rotate".into(),
        endpoint_id: id.clone(),
        grace_seconds: Some(60),
    };
    let rotated = ours.rotate_secret(rotate.clone()).await.unwrap().into_inner();
    assert_ne!(rotated.secret, made.secret);
    assert!(rotated.webhook.unwrap().previous_secret_until_ms.is_some());
    let again = ours.rotate_secret(rotate.clone()).await.unwrap().into_inner();
    assert_eq!(again.secret, rotated.secret, "one key, one secret");
    let long = v1::RotateWebhookSecretRequest {
        idempotency_key: "long".into(),
        grace_seconds: Some(u32::MAX),
        ..rotate
    };
    assert_eq!(reason(&ours.rotate_secret(long).await.unwrap_err()), "FIELD_INVALID");

    let test = v1::SendTestRequest { idempotency_key: "test".into(), endpoint_id: id.clone() };
    let tested = ours.send_test(test.clone()).await.unwrap().into_inner();
    assert_eq!(tested.http_status, None);
    assert!(tested.error.as_ref().unwrap().contains("loopback"), "{tested:?}");
    assert_eq!(ours.send_test(test).await.unwrap().into_inner(), tested, "sent once");

    let letters = v1::ListDeadLettersRequest { endpoint_id: id.clone(), ..Default::default() };
    assert!(ours.list_dead_letters(letters).await.unwrap().into_inner().dead_letters.is_empty());
    let replay = |key: &str, what| v1::ReplayWebhookRequest {
        idempotency_key: key.into(),
        endpoint_id: id.clone(),
        what,
    };
    use v1::replay_webhook_request::What;
    for (key, what, why) in [
        ("g", None, "FIELD_INVALID"),
        ("h", Some(What::DeadLetters(false)), "FIELD_INVALID"),
        ("i", Some(What::AfterSequence(1 << 40)), "EVENTS_AHEAD"),
    ] {
        assert_eq!(reason(&ours.replay(replay(key, what)).await.unwrap_err()), why);
    }
    let replayed = ours.replay(replay("j", Some(What::AfterSequence(0)))).await.unwrap();
    assert_eq!(replayed.into_inner().endpoint_id, id);

    let delete = |key: &str| v1::DeleteWebhookRequest {
        idempotency_key: key.into(),
        endpoint_id: id.clone(),
    };
    ours.delete(delete("gone")).await.unwrap();
    ours.delete(delete("gone")).await.unwrap();
    let status = ours.delete(delete("again")).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "WEBHOOK_UNKNOWN"));
    assert_eq!(explain(&status).metadata["endpoint_id"], hex::encode(&id));
    let get = v1::GetWebhookRequest { endpoint_id: id.clone() };
    assert_eq!(reason(&ours.get(get).await.unwrap_err()), "WEBHOOK_UNKNOWN");
    let status = ours.create(create("one", URL)).await.unwrap_err();
    assert_eq!(reason(&status), "WEBHOOK_UNKNOWN", "made under this key before, and deleted");
    let short = v1::GetWebhookRequest { endpoint_id: vec![1] };
    assert_eq!(reason(&ours.get(short).await.unwrap_err()), "FIELD_INVALID");
    cluster.shut_down().await;
}
