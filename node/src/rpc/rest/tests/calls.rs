//! Calls with one answer.

use http_body_util::Full;
use serde_json::json;

use super::{alone, paid, pair, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_asked_for_made_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, alice, bob) = pair(&directory).await;
    let info = alice.get("Node/GetInfo").await.ok();
    assert_eq!(info, {
        let mut again = alice.post("Node/GetInfo", json!({})).await.ok();
        again["uptime_seconds"] = info["uptime_seconds"].clone();
        again["store"] = info["store"].clone();
        again
    });
    assert_eq!((&info["alias"], &info["network"]), (&json!("alice"), &json!("REGTEST")));
    assert_eq!(info["node_id"].as_str().unwrap().len(), 66, "ids are hex");

    // The key comes by header or by body; both are one key.
    let ask = |key: Option<&str>, document: &str| {
        let mut request = bob.request("POST", "Payments/CreateInvoice");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        request.body(Full::from(document.to_owned())).unwrap()
    };
    let first = bob.send(ask(Some("one"), r#"{"amount_msat": 7000}"#)).await.ok();
    let again = r#"{"amount_msat": "7000", "idempotency_key": "one"}"#;
    assert_eq!(bob.send(ask(None, again)).await.ok(), first);
    assert_eq!(bob.send(ask(Some("one"), again)).await.ok(), first);
    let differs = bob.send(ask(Some("two"), again)).await;
    assert_eq!((differs.status, &*reason(&differs)), (400, "FIELD_INVALID"));
    let other = bob.send(ask(Some("one"), r#"{"amount_msat": 8000}"#)).await;
    assert_eq!(reason(&other), "IDEMPOTENCY_KEY_REUSED");
    let without = bob.send(ask(None, r#"{"amount_msat": 7000}"#)).await;
    assert_eq!(reason(&without), "IDEMPOTENCY_KEY_MISSING");

    let pay = json!({"bolt11_invoice": first["bolt11"], "wait": "WAIT", "idempotency_key": "p"});
    let payment = alice.post("Payments/Pay", pay.clone()).await.ok();
    assert_eq!((&payment["state"], &payment["amount_msat"]), (&json!("SUCCEEDED"), &json!(7000)));
    assert_eq!(alice.post("Payments/Pay", pay).await.ok()["payment_id"], payment["payment_id"]);
    let twice = json!({"bolt11_invoice": first["bolt11"], "idempotency_key": "q"});
    let twice = alice.post("Payments/Pay", twice).await;
    assert_eq!((twice.status, &*reason(&twice)), (409, "INVOICE_ALREADY_PAID"));
    let error = &twice.json()["error"];
    assert_eq!(error["money_may_have_moved"], true, "by the first");
    assert_eq!(error["details"][0]["metadata"]["payment_id"], payment["payment_id"]);

    let id = payment["payment_id"].as_str().unwrap();
    let found = alice.get(&format!("Payments/GetPayment?payment_id={id}")).await.ok();
    assert_eq!(found, payment);
    paid(&alice, &bob, "more", 1).await;
    let list = "Payments/ListPayments?filter.states=SUCCEEDED&filter.states=FAILED&page_size=1";
    let page = alice.get(list).await.ok();
    assert_eq!(page["payments"][0]["amount_msat"], 1);
    let token = page["next_page_token"].as_str().unwrap();
    let page = alice.get(&format!("{list}&page_token={token}")).await.ok();
    assert_eq!(page["payments"][0], payment);
    let unknown = alice.get(&format!("Payments/GetPayment?payment_id={}", "00".repeat(32))).await;
    assert_eq!((unknown.status, &*reason(&unknown)), (404, "PAYMENT_UNKNOWN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, alice) = alone(&directory, |config| config.rest.request_max_kib = 4).await;
    let nobody = alice.holding("");
    for (path, status, expected) in [
        ("Node/Nothing", 404, "METHOD_UNKNOWN"),
        ("Watchtower/GetTerms", 404, "METHOD_UNKNOWN"),
        ("", 404, "METHOD_UNKNOWN"),
        ("Node/ListPeers?page_size=x", 400, "FIELD_INVALID"),
        ("Node/ListPeers?page_size=0", 400, "PAGE_SIZE_OUT_OF_RANGE"),
        ("Node/ListPeers?size=1", 400, "FIELD_INVALID"),
        ("Node/ListPeers?page_size=1&page_size=2", 400, "HTTP_REQUEST_INVALID"),
        ("Node/ListPeers?page_token=%zz", 400, "HTTP_REQUEST_INVALID"),
    ] {
        let answer = alice.get(path).await;
        assert_eq!((answer.status, &*reason(&answer)), (status, expected), "{path}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    let stranger = nobody.get("Node/GetInfo").await;
    assert_eq!((stranger.status, &*reason(&stranger)), (401, "TOKEN_INVALID"));
    assert_eq!(stranger.headers["www-authenticate"], "Bearer");
    let wrong = alice.get("Payments/Pay").await;
    assert_eq!((wrong.status, &*reason(&wrong)), (405, "HTTP_REQUEST_INVALID"));
    assert_eq!(wrong.headers["allow"], "POST");
    for (text, expected) in [
        ("{", "JSON_INVALID"),
        ("[]", "FIELD_INVALID"),
        (r#"{"address": 1}"#, "FIELD_INVALID"),
        (r#"{"keep": true, "keep": true}"#, "JSON_INVALID"),
        (r#"{"idempotency_key": "k", "node_id": "00"}"#, "NODE_ID_INVALID"),
    ] {
        let answer = alice.post_text("Node/ConnectPeer", text).await;
        assert_eq!((answer.status, &*reason(&answer)), (400, expected), "{text}");
    }
    let long = format!(r#"{{"address": "{}"}}"#, "x".repeat(4_096));
    let answer = alice.post_text("Node/ConnectPeer", &long).await;
    assert_eq!((answer.status, &*reason(&answer)), (413, "REQUEST_TOO_LARGE"));
    let form = alice.request("POST", "Node/GetInfo").header("content-type", "text/plain");
    let answer = alice.send(form.body(Full::from("{}")).unwrap()).await;
    assert_eq!((answer.status, &*reason(&answer)), (415, "HTTP_REQUEST_INVALID"));
    for (name, value) in
        [("x-timeout-ms", "soon"), ("x-timeout-ms", "0"), ("x-timeout-ms", "100000000")]
    {
        let request = alice.request("GET", "Node/GetInfo").header(name, value);
        let answer = alice.send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.status, &*reason(&answer)), (400, "HTTP_REQUEST_INVALID"), "{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_limits_and_deadlines_are_those_of_the_gate() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, alice) =
        alone(&directory, |config| config.rpc.method_calls_per_second = 2).await;
    let bake = json!({
        "idempotency_key": "bake",
        "name": "books",
        "restrictions": { "role": "READ_ONLY" },
    });
    let baked = alice.post("Tokens/BakeToken", bake).await.ok();
    let reader = alice.holding(baked["text"].as_str().unwrap());
    let denied = reader.post("Wallet/NewAddress", json!({ "idempotency_key": "a" })).await;
    assert_eq!((denied.status, &*reason(&denied)), (403, "METHOD_DENIED"));
    for _ in 0..2 {
        reader.get("Node/GetInfo").await.ok();
    }
    let often = reader.get("Node/GetInfo").await;
    assert_eq!((often.status, &*reason(&often)), (429, "RATE_LIMITED"));
    assert_eq!(often.headers["retry-after"], "1");
    assert!(often.json()["error"]["retry_after_ms"].as_u64().unwrap() <= 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_needs_no_token_and_pages_of_known_origins_may_call() {
    let directory = tempfile::tempdir().unwrap();
    let origin = "https://shop.example";
    let (_cluster, alice) = alone(&directory, |config| {
        config.rest.allowed_origins = vec!["https://shop.example".into()]
    })
    .await;
    let described = alice.holding("").get("openapi.json").await.ok();
    assert_eq!(described["openapi"], "3.1.0");
    let ask = |origin: &str| {
        let request = alice.request("OPTIONS", "Payments/Pay").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.body(Full::default()).unwrap()
    };
    let allowed = alice.send(ask(origin)).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.headers["access-control-allow-origin"], origin);
    assert!(
        allowed.headers["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("idempotency-key")
    );
    let other = alice.send(ask("https://evil.example")).await;
    assert_eq!((other.status, &*reason(&other)), (403, "HTTP_REQUEST_INVALID"));
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    for (from, may) in [(origin, true), ("https://evil.example", false), ("null", false)] {
        let request = alice.request("GET", "Node/GetInfo").header("origin", from);
        let answer = alice.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.headers.contains_key("access-control-allow-origin"), may, "{from}");
        assert_eq!(answer.headers["vary"], "origin", "caches must tell them apart");
    }
}
