//! What an operator does with endpoints, and what endpoints do to themselves.

use std::time::Duration;

use node::journal::{EventKind, IdempotencyKey};
use node::store::{Batch, Table};
use node::webhooks::{EndpointChange, EndpointState, NewEndpoint, Replay, WebhookError};

use crate::receiver::{Delivery, Mood, Receiver};
use crate::stage::{Stage, event, policy, until};

fn key(method: &'static str, name: &str) -> IdempotencyKey {
    IdempotencyKey::new(method, name).unwrap().unwrap()
}

fn enabled(is_enabled: bool) -> EndpointChange {
    EndpointChange { is_enabled: Some(is_enabled), ..EndpointChange::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_makes_one_endpoint_also_after_a_crash() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let new = NewEndpoint {
        url: receiver.url(),
        description: "shop".to_owned(),
        kinds: vec![EventKind::Swap],
        after: None,
    };
    let key = key("Create", "a");
    let (first, secret) = stage.webhooks().create(new.clone(), Some(&key)).await.unwrap();
    stage.crash(0).await;
    let (again, same) = stage.webhooks().create(new.clone(), Some(&key)).await.unwrap();
    assert_eq!((first.id, secret.reveal()), (again.id, same.reveal()));
    let other = NewEndpoint { description: "other".to_owned(), ..new.clone() };
    let refused = stage.webhooks().create(other, Some(&key)).await;
    assert!(matches!(refused, Err(WebhookError::Idempotency(_))));
    let (third, another) = stage.webhooks().create(new, None).await.unwrap();
    assert_ne!(third.id, first.id);
    assert_ne!(*another.reveal(), *secret.reveal());
    assert_eq!(stage.webhooks().list().len(), 2);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_so_many_endpoints_and_no_more() {
    let mut policy = policy();
    policy.endpoints_max = 1;
    let mut stage = Stage::new(policy).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    let new = |after, description: String| NewEndpoint {
        url: receiver.url(),
        description,
        kinds: Vec::new(),
        after,
    };
    let create = async |new| stage.webhooks().create(new, None).await;
    assert!(matches!(create(new(None, String::new())).await, Err(WebhookError::Full { max: 1 })));
    stage.webhooks().delete(id, Batch::default()).await.unwrap();
    assert!(matches!(stage.webhooks().get(id), Err(WebhookError::Unknown(_))));
    assert!(matches!(
        create(new(None, "x".repeat(257))).await,
        Err(WebhookError::Description { bytes: 257 })
    ));
    assert!(matches!(create(new(Some(99), String::new())).await, Err(WebhookError::Ahead { .. })));
    create(new(Some(0), String::new())).await.unwrap();
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_endpoint_hears_nothing_more_and_leaves_nothing() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::new(|_| Mood::Status(500, String::new())).await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    stage.append(&[event(1), event(2)]).await.unwrap();
    until("tries", || receiver.heard().len() > 4).await;
    stage.webhooks().delete(id, Batch::default()).await.unwrap();
    stage.stop().await;
    let heard = receiver.heard().len();
    stage.start();
    assert!(stage.webhooks().list().is_empty());
    for table in [Table::Webhook, Table::WebhookProgress, Table::WebhookPending, Table::WebhookDead]
    {
        assert_eq!(stage.committer().scan_all(table, []).unwrap(), [], "{}", table.name());
    }
    stage.append(&[event(1)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.heard().len(), heard);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_leaves_out_what_is_not_wanted() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    let kinds = |kind| EndpointChange { kinds: Some(vec![kind]), ..EndpointChange::default() };
    stage.webhooks().update(id, kinds(EventKind::Payment)).await.unwrap();
    stage.append(&[event(1), event(2)]).await.unwrap();
    until("the end of the log", || stage.view(id).behind == 0).await;
    stage.webhooks().update(id, kinds(EventKind::Swap)).await.unwrap();
    stage.append(&[event(1)]).await.unwrap();
    until("the third", || !receiver.events().is_empty()).await;
    let newest = stage.journal().last_durable();
    assert_eq!(receiver.events(), [newest]);
    assert_eq!(receiver.taken()[0].json()["type"], "swap.test");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gone_disables_an_endpoint_until_it_is_enabled() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::new(|_| Mood::Status(410, String::new())).await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    stage.append(&[event(1)]).await.unwrap();
    until("the end", || stage.view(id).record.state != EndpointState::Enabled).await;
    assert!(matches!(stage.view(id).record.state, EndpointState::Gone { .. }));
    until("the news", || stage.told() == ["Disabled"]).await;
    stage.append(&[event(2), event(1)]).await.unwrap();
    stage.stop().await;
    stage.start();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.heard().len(), 1, "it wants nothing more");
    receiver.decide(|_| Mood::Take);
    stage.webhooks().update(id, enabled(true)).await.unwrap();
    // Three swaps, and the news of its own end.
    until("what happened meanwhile", || receiver.events().len() == 4).await;
    assert_eq!(stage.view(id).last_error, None);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_disabled_everything_waits_in_the_log() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    stage.webhooks().update(id, enabled(false)).await.unwrap();
    stage.append(&[event(1), event(1), event(2)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((receiver.heard().len(), stage.view(id).behind), (0, 3));
    stage.webhooks().update(id, enabled(true)).await.unwrap();
    until("all of it", || receiver.events().len() == 3).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_kept_told_once_and_can_be_replayed() {
    let mut policy = policy();
    policy.retry.give_up_ms = 50;
    policy.dead_letters_max = 5;
    let mut stage = Stage::new(policy).await;
    let receiver = Receiver::new(|_| Mood::Status(500, String::new())).await;
    let (id, secret) = stage.endpoint(&receiver.url()).await;
    for number in 0..8 {
        stage.append(&[event(number % 2)]).await.unwrap();
    }
    // Eight swaps, and the news that the first was given up.
    let done = |stage: &Stage| {
        let progress = stage.view(id).progress;
        (progress.dead_letters, progress.dropped) == (5, 4)
    };
    until("nine dead letters, four of them dropped", || done(&stage)).await;
    assert_eq!(stage.told().len(), 1, "{:?}", stage.told());
    assert!(stage.told()[0].starts_with("GaveUp"), "{:?}", stage.told());
    stage.stop().await;
    stage.start();
    let letters = stage.webhooks().dead_letters(id, 0, 100).unwrap();
    assert_eq!(letters.len(), 5);
    assert!(letters.iter().all(|letter| letter.tries > 0 && letter.last_error == "status 500"));
    let sequences: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
    let second = stage.webhooks().dead_letters(id, sequences[0], 2).unwrap();
    assert_eq!(second.iter().map(|l| l.sequence).collect::<Vec<_>>(), sequences[1..3]);
    receiver.decide(|_| Mood::Take);
    stage.webhooks().replay(id, Replay::DeadLetters, Batch::default()).await.unwrap();
    until("the dead letters", || receiver.events().len() == 5).await;
    assert_eq!(stage.view(id).progress.dead_letters, 0);
    assert!(stage.webhooks().dead_letters(id, 0, 100).unwrap().is_empty());
    receiver.check(&secret.reveal());
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_brings_the_same_events_under_the_same_ids() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    for object in [1, 1, 2, 1] {
        stage.append(&[event(object)]).await.unwrap();
    }
    until("all", || receiver.taken().len() == 4).await;
    until("the last word", || stage.view(id).progress.delivered == 4).await;
    // Objects may overtake each other.
    let mut first = receiver.taken();
    first.sort_by_key(Delivery::sequence);
    stage
        .webhooks()
        .replay(id, Replay::After(first[0].sequence()), Batch::default())
        .await
        .unwrap();
    until("three again", || receiver.taken().len() == 7).await;
    let mut again = receiver.taken().split_off(4);
    again.sort_by_key(Delivery::sequence);
    let ids = |all: &[Delivery]| all.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&first[1..]));
    let refused = stage.webhooks().replay(id, Replay::After(1 << 40), Batch::default()).await;
    assert!(matches!(refused, Err(WebhookError::Ahead { .. })));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_pruned_past_an_endpoint_is_noticed_told_and_counted() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    stage.webhooks().update(id, enabled(false)).await.unwrap();
    for object in 0..10 {
        stage.append(&[event(object)]).await.unwrap();
    }
    let mut writes = Batch::default();
    for sequence in 1..=7_u64 {
        writes.delete(Table::Journal.key(sequence.to_be_bytes()));
    }
    let ticket = stage.committer().enqueue(writes);
    stage.committer().durable(ticket).await.unwrap();
    stage.webhooks().update(id, enabled(true)).await.unwrap();
    // Its place was 1; 8 to 11 are left, and 12 says what is missing.
    until("what is left", || receiver.events().len() == 5).await;
    assert_eq!(receiver.events().iter().min(), Some(&8));
    assert_eq!(stage.view(id).progress.missed, 6);
    let told = receiver.taken().into_iter().find(|one| one.sequence() == 12).unwrap();
    assert_eq!(told.json()["data"]["about"]["what"], "Missed { first: 2, last: 7 }");
    let refused = stage.webhooks().replay(id, Replay::After(0), Batch::default()).await;
    assert!(matches!(refused, Err(WebhookError::Journal(_))), "what is gone is not promised");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_secret_signs_as_well_for_a_while() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, old) = stage.endpoint(&receiver.url()).await;
    let key = key("Rotate", "a");
    let (_, new) = stage.webhooks().rotate(id, None, Some(&key)).await.unwrap();
    let (_, same) = stage.webhooks().rotate(id, None, Some(&key)).await.unwrap();
    assert_eq!(new.reveal(), same.reveal(), "one key, one secret");
    stage.append(&[event(1)]).await.unwrap();
    until("it", || receiver.taken().len() == 1).await;
    let signed = receiver.taken().remove(0);
    assert!(signed.is_signed_with(&old.reveal()) && signed.is_signed_with(&new.reveal()));
    assert_eq!(signed.signatures.split(' ').count(), 2);
    // Others may know it: at once.
    let grace = Some(Duration::ZERO);
    let (_, newest) = stage.webhooks().rotate(id, grace, None).await.unwrap();
    stage.crash(0).await;
    stage.append(&[event(1)]).await.unwrap();
    until("it", || receiver.events().len() == 2).await;
    let signed = receiver.taken().pop().unwrap();
    assert!(signed.is_signed_with(&newest.reveal()));
    assert!(!signed.is_signed_with(&new.reveal()) && !signed.is_signed_with(&old.reveal()));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_goes_out_now_and_once() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, secret) = stage.endpoint(&receiver.url()).await;
    stage.webhooks().update(id, enabled(false)).await.unwrap();
    let outcome = stage.webhooks().test(id).await.unwrap();
    assert_eq!((outcome.status, outcome.error), (Some(200), None));
    let heard = receiver.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].json()["type"], "webhook.test");
    assert!(heard[0].is_signed_with(&secret.reveal()));
    receiver.decide(|_| Mood::Status(404, String::new()));
    let outcome = stage.webhooks().test(id).await.unwrap();
    assert_eq!((outcome.status, outcome.error.as_deref()), (Some(404), Some("status 404")));
    receiver.decide(|_| Mood::Silent(Duration::from_secs(60)));
    let outcome = stage.webhooks().test(id).await.unwrap();
    assert_eq!(outcome.status, None);
    assert!(outcome.error.unwrap().contains("within 0.4 s"));
    stage.stop().await;
}
