//! One endpoint does not feel another.

use std::time::{Duration, Instant};

use crate::receiver::{Mood, Receiver};
use crate::stage::{Stage, event, policy, until};

/// Events for both.
const EVENTS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_slows_neither_the_log_nor_a_living_one() {
    let mut policy = policy();
    policy.timeout = Duration::from_secs(100);
    policy.concurrency = 2;
    policy.waiting_max = 40;
    let mut stage = Stage::new(policy).await;
    let never = |_: &_| Mood::Silent(Duration::from_secs(1_000));
    let (dead, alive) = (Receiver::new(never).await, Receiver::willing().await);
    let (dead_id, _) = stage.endpoint(&dead.url()).await;
    let (alive_id, _) = stage.endpoint(&alive.url()).await;
    let began = Instant::now();
    for number in 0..EVENTS {
        stage.append(&[event(number as u8)]).await.unwrap();
    }
    until("everything at the living one", || alive.taken().len() >= EVENTS).await;
    // Far less than one time-out of the dead one.
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    until("the last word", || stage.view(alive_id).progress.delivered == EVENTS as u64).await;
    let view = stage.view(dead_id);
    assert_eq!((view.progress.delivered, dead.heard().len()), (0, 2), "as many as may be at once");
    assert!(view.waiting <= 40 && view.behind as usize >= EVENTS - 40, "{view:?}");
    // A stop waits for neither.
    let began = Instant::now();
    stage.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_that_is_refused_does_not_hold_up_others() {
    let mut stage = Stage::new(policy()).await;
    // Sequences of the object 7 are refused.
    let receiver = Receiver::new(|delivery| match delivery.json()["data"]["about"]["swap"] {
        ref swap if swap == 7 => Mood::Status(400, String::new()),
        _ => Mood::Take,
    })
    .await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    for object in [7, 1, 7, 2, 7, 3, 1, 2, 3] {
        stage.append(&[event(object)]).await.unwrap();
    }
    until("the others", || receiver.events().len() == 6).await;
    let refused: Vec<u64> =
        receiver.heard().iter().filter(|one| !one.is_taken).map(|one| one.sequence()).collect();
    assert!(refused.iter().all(|sequence| *sequence == refused[0]), "{refused:?}");
    until("what waits", || stage.view(id).waiting == 3).await;
    until("why", || stage.view(id).last_error.as_deref() == Some("status 400")).await;
    // What waits, waits over a restart, and comes in order.
    stage.stop().await;
    stage.start();
    assert_eq!(stage.view(id).waiting, 3);
    receiver.decide(|_| Mood::Take);
    until("the rest", || receiver.events().len() == 9).await;
    assert!(receiver.events()[6..].is_sorted(), "{:?}", receiver.events());
    stage.stop().await;
}
