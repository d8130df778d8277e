//! Where nothing is sent, and answers that are not believed.

use std::time::{Duration, Instant};

use node::webhooks::{NewEndpoint, UrlError, WebhookError};

use crate::receiver::{Mood, Receiver};
use crate::stage::{Stage, event, policy, until};

fn new(url: &str) -> NewEndpoint {
    NewEndpoint { url: url.to_owned(), description: String::new(), kinds: Vec::new(), after: None }
}

/// Each class of addresses is tried in the guard's own tests; here is that the guard is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_receivers_are_refused_unless_they_are_allowed() {
    let mut policy = policy();
    policy.allow_private = false;
    let mut stage = Stage::new(policy).await;
    let receiver = Receiver::willing().await;
    let port = receiver.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::1]:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://10.0.0.1/".to_owned(),
    ] {
        let refused = stage.webhooks().create(new(&url), None).await;
        assert!(matches!(refused, Err(WebhookError::Url(_))), "{url}");
    }
    // Names are judged when they are resolved, and so are numbers that resolvers understand.
    for host in ["localhost", "2130706433", "0x7f000001", "127.1"] {
        let url = format!("https://{host}:{port}/hook?from=node");
        let (view, _) = stage.webhooks().create(new(&url), None).await.unwrap();
        let outcome = stage.webhooks().test(view.id).await.unwrap();
        let error = outcome.error.unwrap();
        let is_refused = error.contains("loopback") || error.contains("cannot resolve");
        assert!(is_refused, "{host}: {error}");
        if host == "localhost" {
            assert!(error.contains("loopback"), "{error}");
            stage.append(&[event(1)]).await.unwrap();
            until("a try", || stage.view(view.id).last_error.is_some()).await;
            assert!(stage.view(view.id).last_error.unwrap().contains("loopback"));
        }
    }
    assert_eq!(receiver.connections(), 0, "nobody knocked");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_allowed_once_is_judged_anew() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    assert_eq!(stage.webhooks().test(id).await.unwrap().error, None);
    assert_eq!(receiver.connections(), 1);
    stage.forbid_private().await;
    let outcome = stage.webhooks().test(id).await.unwrap();
    assert_eq!(outcome.error, Some(UrlError::PlainText.to_string()));
    assert_eq!(receiver.connections(), 1);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed() {
    let mut stage = Stage::new(policy()).await;
    let elsewhere = Receiver::willing().await;
    let location = format!("location: {}\r\n", elsewhere.url());
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let receiver = Receiver::new(move |_| Mood::Status(status, location.clone())).await;
        let (id, _) = stage.endpoint(&receiver.url()).await;
        let outcome = stage.webhooks().test(id).await.unwrap();
        assert_eq!(outcome.status, Some(status));
        assert_eq!(outcome.error, Some(format!("status {status}")));
    }
    assert_eq!(elsewhere.connections(), 0);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_read_up_to_a_bound() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::new(|_| Mood::Endless).await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    for _ in 0..5 {
        stage.append(&[event(1)]).await.unwrap();
    }
    until("all of them", || stage.view(id).progress.delivered == 5).await;
    assert_eq!(receiver.connections(), 5, "a connection that is full of it is closed");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_for_the_next_delivery() {
    let mut stage = Stage::new(policy()).await;
    let receiver = Receiver::willing().await;
    let (id, _) = stage.endpoint(&receiver.url()).await;
    for number in 1..=20 {
        // One after the other: all of one object.
        stage.append(&[event(1)]).await.unwrap();
        until("it", || stage.view(id).progress.delivered == number).await;
    }
    assert!(receiver.connections() < 5, "{} connections", receiver.connections());
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_receiver_is_left_alone_for_as_long_as_it_asks() {
    let mut policy = policy();
    policy.retry.longest_ms = 10_000;
    let mut stage = Stage::new(policy).await;
    let mut answers = 0;
    let receiver = Receiver::new(move |_| {
        answers += 1;
        match answers {
            1 => Mood::Status(429, "retry-after: 2\r\n".to_owned()),
            _ => Mood::Take,
        }
    })
    .await;
    stage.endpoint(&receiver.url()).await;
    let began = Instant::now();
    stage.append(&[event(1)]).await.unwrap();
    until("it", || receiver.taken().len() == 1).await;
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    stage.stop().await;
}
