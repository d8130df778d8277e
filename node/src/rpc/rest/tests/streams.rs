//! Calls with many answers.

use std::time::Duration;

use http_body_util::Full;
use serde_json::{Value, json};

use super::client::{Client, Reading};
use super::{alone, paid, pair, reason};

/// Opens a stream with these headers.
async fn reading(client: &Client, path: &str, headers: &[(&str, &str)]) -> Reading {
    let mut request = client.request("GET", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reading::new(client.open(request.body(Full::default()).unwrap()).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_taken_up_where_they_were_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, alice, bob) = pair(&directory).await;
    paid(&alice, &bob, "before", 1_000).await;
    let path = "Events/Subscribe?after_sequence=0";
    let mut events = reading(&alice, path, &[]).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = events.event().await.unwrap();
        assert_eq!(event.id, event.data["sequence"].as_u64());
        assert_eq!(event.kind, "", "a plain message, as browsers expect");
        seen.push(event.id.unwrap());
    }
    drop(events);
    // A browser sends its first URL again, and the last id it has.
    let mut events = reading(&alice, path, &[("last-event-id", "3")]).await;
    let payment = paid(&alice, &bob, "after", 2_000).await;
    loop {
        let event = events.event().await.unwrap();
        assert_eq!(event.id, Some(seen.len() as u64 + 1), "nothing twice, nothing left out");
        seen.push(event.id.unwrap());
        let told = &event.data["payment"];
        if told["payment_id"] == payment["payment_id"] && told["state"] == "SUCCEEDED" {
            break;
        }
    }
    let kinds = "Events/Subscribe?after_sequence=0&kinds=PAYMENT";
    let mut lines = reading(&alice, kinds, &[("accept", "application/x-ndjson")]).await;
    let line: Value = serde_json::from_str(&lines.next("\n").await.unwrap()).unwrap();
    assert_eq!(line["payment"]["amount_msat"], 1_000);

    // A stream that is over says so.
    let watch =
        format!("Payments/WatchPayment?payment_id={}", payment["payment_id"].as_str().unwrap());
    let mut states = reading(&alice, &watch, &[]).await;
    let state = states.event().await.unwrap();
    assert_eq!((state.id, state.data), (None, payment));
    assert_eq!(states.event().await.unwrap().kind, "end");
    assert!(states.event().await.is_none());
    let lines = [("accept", "text/html, application/x-ndjson;q=0.9")];
    let mut lines = reading(&alice, &watch, &lines).await;
    assert!(lines.next("\n").await.unwrap().contains("SUCCEEDED"));
    assert!(lines.next("\n").await.is_none());

    // What is refused at once has a status of HTTP.
    let ahead = alice.get("Events/Subscribe?after_sequence=1000000").await;
    assert_eq!((ahead.status, &*reason(&ahead)), (400, "EVENTS_AHEAD"));
    let wrong = alice.post("Events/Subscribe", json!({ "kinds": ["NOTHING"] })).await;
    assert_eq!((wrong.status, &*reason(&wrong)), (400, "FIELD_INVALID"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_deadline_and_with_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let (mut cluster, alice) = alone(&directory, |_| {}).await;
    let mut short = reading(&alice, "Events/Subscribe", &[("x-timeout-ms", "200")]).await;
    let last = loop {
        let event = short.event().await.unwrap();
        if event.kind == "error" {
            break event;
        }
    };
    assert_eq!((&*last.kind, &last.data["error"]["reason"]), ("error", &json!("DEADLINE_PASSED")));
    assert_eq!(last.data["error"]["money_may_have_moved"], false);
    assert!(short.event().await.is_none());

    let mut long = reading(&alice, "Events/Subscribe", &[]).await;
    let lines = [("accept", "application/x-ndjson")];
    let mut lines = reading(&alice, "Events/Subscribe", &lines).await;
    let stopping = tokio::time::timeout(Duration::from_secs(8), cluster.stop("alice"));
    stopping.await.expect("streams do not keep a node").unwrap();
    loop {
        let event = long.event().await.expect("the reason comes before the end");
        if event.kind == "error" {
            assert_eq!(event.data["error"]["reason"], "STOPPING");
            break;
        }
    }
    let mut last = String::new();
    while let Some(line) = lines.next("\n").await {
        last = line;
    }
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["error"]["reason"], "STOPPING");
}
