//! One request of somebody who means no good, or is merely broken; and what must be true of the
//! answer.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{HeaderMap, Request, StatusCode};
use node::rpc::status::explain;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

use super::messages::{Interface, Method};
use super::wire::{Answer, Body, Caller, Way, body, pieces};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(2);
/// How long one may take that only looks.
const LOOK_WAIT: Duration = Duration::from_secs(30);

/// What became of an attack: what to count it as, and what was wrong with the answer.
pub struct Verdict {
    pub count: String,
    pub wrong: Option<String>,
}

impl Verdict {
    fn of(count: impl Into<String>, wrong: Option<String>) -> Self {
        Self { count: count.into(), wrong }
    }
}

/// Attacks once.
pub async fn attack(caller: &mut Caller, interface: &Interface, rng: &mut StdRng) -> Verdict {
    match rng.random_range(0..100) {
        0..30 => grpc(caller, interface, rng).await,
        30..45 => web(caller, interface, rng).await,
        45..80 => rest(caller, interface, rng).await,
        80..88 => oversized(caller, interface, rng).await,
        88..97 => raw(caller, interface, rng).await,
        _ => garbage(caller, rng).await,
    }
}

/// Most tokens are good: nobody else comes far.
fn token(caller: &Caller, rng: &mut StdRng) -> Option<String> {
    let good = format!("Bearer {}", caller.target.token);
    match rng.random_range(0..40) {
        0 => None,
        1 => Some(good[..rng.random_range(0..good.len())].to_owned()),
        2 => Some(format!("Bearer {}", "00".repeat(32))),
        3 => Some("x".repeat(5_000)),
        4 => Some(format!("Bearer tributary_{}", "A".repeat(3_000))),
        _ => Some(good),
    }
}

/// A message in its frame, or something that is nearly that.
fn frame(message: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    match rng.random_range(0..12) {
        0 => frame.truncate(rng.random_range(0..frame.len())),
        1 => frame[0] = rng.random(),
        2 => frame[1] = rng.random(),
        3 => frame[4] = rng.random(),
        4 => frame.extend(frame.clone()),
        5 => {
            for _ in 0..8 {
                let index = rng.random_range(0..frame.len());
                frame[index] = rng.random();
            }
        }
        6 => frame = (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
        _ => {}
    }
    frame
}

fn some_method<'a>(interface: &'a Interface, rng: &mut StdRng) -> &'a Method {
    interface.methods.choose(rng).unwrap()
}

fn wait(method: &Method) -> Duration {
    if method.mutates || method.streams { WAIT } else { LOOK_WAIT }
}

async fn grpc(caller: &mut Caller, interface: &Interface, rng: &mut StdRng) -> Verdict {
    let method = some_method(interface, rng);
    let message = interface.request(method, rng).wire();
    let kinds = ["application/grpc", "application/grpc+proto", "application/grpc+json"];
    let mut request = Request::post(format!("https://localhost/{}", method.name))
        .header("content-type", *kinds.choose(rng).unwrap())
        .header("te", "trailers");
    if let Some(token) = token(caller, rng) {
        request = request.header("authorization", token);
    }
    match rng.random_range(0..20) {
        0 => request = request.header("grpc-encoding", *["gzip", "zstd", "x"].choose(rng).unwrap()),
        1 => {
            request = request.header(
                "grpc-timeout",
                *["1n", "5m", "x", "99999999H", "-1S", ""].choose(rng).unwrap(),
            )
        }
        2 => request = request.header("grpc-accept-encoding", "gzip"),
        _ => {}
    }
    // The whole, or in small pieces.
    let frame = frame(message, rng);
    let body = match rng.random_bool(0.8) {
        true => body(frame),
        false => pieces(frame.chunks(7).take(50).map(<[u8]>::to_vec).collect(), Duration::ZERO),
    };
    let way = if rng.random_bool(0.8) { Way::Rpc } else { Way::RestH2 };
    let Ok(request) = request.body(body) else { return Verdict::of("grpc unsendable", None) };
    let answer = caller.send(way, request, wait(method)).await;
    let Some(answer) = answer else { return Verdict::of("grpc broken", None) };
    let is_told = !answer.trailers.is_empty() || answer.headers.contains_key("grpc-status");
    let trailers = match answer.headers.contains_key("grpc-status") {
        true => answer.headers.clone(),
        false => answer.trailers.clone(),
    };
    judge("grpc", method, &answer, is_told.then_some(trailers))
}

async fn web(caller: &mut Caller, interface: &Interface, rng: &mut StdRng) -> Verdict {
    let method = some_method(interface, rng);
    let message = interface.request(method, rng).wire();
    let is_text = rng.random_bool(0.4);
    let kind = if is_text { "application/grpc-web-text" } else { "application/grpc-web+proto" };
    let mut frame = frame(message, rng);
    if is_text {
        frame = STANDARD.encode(frame).into_bytes();
        if rng.random_bool(0.1) && !frame.is_empty() {
            let index = rng.random_range(0..frame.len());
            frame[index] = rng.random();
        }
    }
    let mut request = Request::post(format!("https://localhost/{}", method.name))
        .header("host", "localhost")
        .header("content-type", kind)
        .header("accept", kind)
        .header("x-grpc-web", "1");
    if let Some(token) = token(caller, rng) {
        request = request.header("authorization", token);
    }
    let Ok(request) = request.body(body(frame)) else { return Verdict::of("web unsendable", None) };
    let way = if rng.random_bool(0.5) { Way::RestH1 } else { Way::RestH2 };
    let Some(answer) = caller.send(way, request, wait(method)).await else {
        return Verdict::of("web broken", None);
    };
    let trailers = match answer.headers.contains_key("grpc-status") {
        true => Some(answer.headers.clone()),
        false => web_trailers(&answer.body, is_text),
    };
    judge("web", method, &answer, trailers)
}

/// The trailers in the body of an answer by grpc-web.
fn web_trailers(body: &[u8], is_text: bool) -> Option<HeaderMap> {
    let decoded: Vec<u8> = match is_text {
        false => body.to_vec(),
        // Pieces are padded one by one.
        true => body.chunks(4).flat_map(|four| STANDARD.decode(four).unwrap_or_default()).collect(),
    };
    let mut rest = decoded.as_slice();
    loop {
        let (head, after) = rest.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (data, after) = after.split_at_checked(length)?;
        rest = after;
        if head[0] & 0x80 == 0 {
            continue;
        }
        let mut trailers = HeaderMap::new();
        for line in std::str::from_utf8(data).ok()?.lines() {
            let (name, value) = line.split_once(':')?;
            let name: hyper::header::HeaderName = name.trim().parse().ok()?;
            trailers.insert(name, value.trim().parse().ok()?);
        }
        return Some(trailers);
    }
}

/// Whatever is refused has a reason, and no reason is an error of the node.
fn judge(door: &str, method: &Method, answer: &Answer, trailers: Option<HeaderMap>) -> Verdict {
    let count = |what: &str| format!("{door} {what}");
    let name = &method.name;
    if answer.status == StatusCode::REQUEST_TIMEOUT || !answer.is_whole {
        let waits = method.mutates || method.streams;
        let wrong = (!waits).then(|| format!("{door} {name}: no answer in {LOOK_WAIT:?}"));
        return Verdict::of(count("waits"), wrong);
    }
    let Some(status) = trailers.as_ref().and_then(Status::from_header_map) else {
        let wrong = format!("{door} {name}: no status in {answer:?}");
        return Verdict::of(count("?"), Some(wrong));
    };
    let said = explain(&status);
    let wrong = match (said.code, said.reason.as_deref()) {
        (Code::Ok, _) => None,
        (_, Some("INTERNAL" | "STORE_FAILED")) => Some(format!("{door} {name}: {said:?}")),
        (_, Some(_)) => None,
        // The server's own clock may strike before the gate's: the caller is gone by then.
        (Code::Cancelled, None) if status.message() == "Timeout expired" => None,
        (_, None) => Some(format!("{door} {name}: no reason in {status:?}")),
    };
    Verdict::of(count(said.reason.as_deref().unwrap_or(said.code.description())), wrong)
}

async fn rest(caller: &mut Caller, interface: &Interface, rng: &mut StdRng) -> Verdict {
    let method = some_method(interface, rng);
    let tree = interface.request(method, rng);
    let by_query = rng.random_bool(0.3);
    let mut text = tree.json().to_string();
    match rng.random_range(0..20) {
        0 => {
            let end = rng.random_range(0..text.len());
            let end = (end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        1 => text = format!("{{\"filter\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000)),
        2 => text = text.replacen('{', "{\"idempotency_key\":1,", 1),
        3 => text = text.replace(':', ": "),
        4 => text = (0..rng.random_range(0..300)).map(|_| rng.random_range(' '..'~')).collect(),
        5 => text = format!("[{}]", "{},".repeat(100_000)),
        6 => text = "1e999999".to_owned(),
        _ => {}
    }
    let path = match rng.random_range(0..30) {
        0 => format!("{}x", method.rest_path()),
        1 => format!("/{}", method.name),
        2 => "/v1/../v1/Node/GetInfo".to_owned(),
        3 => format!("/v1/{}", "a/".repeat(500)),
        4 => "/".to_owned(),
        _ => method.rest_path(),
    };
    let verbs = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    let verb = match rng.random_range(0..15) {
        0 => *verbs.choose(rng).unwrap(),
        _ if by_query => "GET",
        _ => "POST",
    };
    let query = if by_query { format!("?{}", tree.query()) } else { String::new() };
    let query = if query.len() > 30_000 { String::new() } else { query };
    let kinds = ["application/json", "application/json; charset=utf-8"];
    let other_kinds = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/grpc",
        "application/grpc-web",
        "",
    ];
    let kind = match rng.random_bool(0.95) {
        true => *kinds.choose(rng).unwrap(),
        false => *other_kinds.choose(rng).unwrap(),
    };
    let mut request = Request::builder()
        .method(verb)
        .uri(format!("https://localhost{path}{query}"))
        .header("host", "localhost")
        .header("content-type", kind);
    if let Some(token) = token(caller, rng) {
        request = request.header("authorization", token);
    }
    match rng.random_range(0..20) {
        0 => {
            request = request.header(
                "x-timeout-ms",
                *["1", "50", "x", "99999999999999999999"].choose(rng).unwrap(),
            )
        }
        1 => {
            request =
                request.header("idempotency-key", *["a", "", "key-1", "ü"].choose(rng).unwrap())
        }
        2 => {
            request = request.header(
                "last-event-id",
                *["0", "1", "18446744073709551615", "x"].choose(rng).unwrap(),
            )
        }
        3 => request = request.header("accept", "application/x-ndjson"),
        4 => request = request.header("origin", "https://evil.example"),
        5 => request = request.header("expect", "100-continue"),
        _ => {}
    }
    let body = match verb == "GET" || rng.random_bool(0.8) {
        true if verb == "GET" => body(""),
        true => body(text),
        false => {
            let chunks = text.as_bytes().chunks(1 + text.len() / 5).map(<[u8]>::to_vec).collect();
            pieces(chunks, Duration::from_millis(rng.random_range(0..20)))
        }
    };
    let Ok(request) = request.body(body) else { return Verdict::of("rest unsendable", None) };
    let way = if rng.random_bool(0.5) { Way::RestH1 } else { Way::RestH2 };
    let Some(answer) = caller.send(way, request, wait(method)).await else {
        return Verdict::of("rest broken", None);
    };
    if answer.status == StatusCode::OK
        && !method.streams
        && let Ok(document) = serde_json::from_slice(&answer.body)
    {
        interface.hear(&document, rng);
    }
    judge_rest(method, &answer, kind, verb)
}

fn judge_rest(method: &Method, answer: &Answer, kind: &str, verb: &str) -> Verdict {
    let name = &method.name;
    if answer.status == StatusCode::REQUEST_TIMEOUT || !answer.is_whole {
        let waits = method.mutates || method.streams;
        // Who is refused while it still sends may lose the end of the answer.
        let sends = verb != "GET" && answer.status != StatusCode::REQUEST_TIMEOUT;
        let wrong = (!waits && !sends).then(|| {
            format!("rest {verb} {name}: no whole answer in {LOOK_WAIT:?}: {}", answer.status)
        });
        return Verdict::of("rest waits", wrong);
    }
    // gRPC's own errors travel beside a good status; an answer to HEAD has no body.
    // What is too long a head for HTTP itself is refused before anybody reads it.
    let is_http = answer.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    if answer.status.is_success()
        || is_http
        || verb == "HEAD"
        || kind.starts_with("application/grpc")
    {
        return Verdict::of(format!("rest {}", answer.status.as_u16()), None);
    }
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Some(reason) = document["error"]["reason"].as_str() else {
        let text = String::from_utf8_lossy(&answer.body);
        let wrong = format!("rest {verb} {name}: {} without a reason: {text}", answer.status);
        return Verdict::of("rest ?", Some(wrong));
    };
    let internal = reason == "INTERNAL" || reason == "STORE_FAILED";
    let wrong = internal.then(|| format!("rest {verb} {name}: {document}"));
    Verdict::of(format!("rest {reason}"), wrong)
}

/// Bodies far above what is taken, known beforehand or not.
async fn oversized(caller: &mut Caller, interface: &Interface, rng: &mut StdRng) -> Verdict {
    let method = some_method(interface, rng);
    let size = *[1 << 20, 2 << 20, 5 << 20, 9 << 20].choose(rng).unwrap();
    let token = format!("Bearer {}", caller.target.token);
    let is_grpc = rng.random_bool(0.5);
    let (path, kind) = match is_grpc {
        true => (format!("/{}", method.name), "application/grpc"),
        false => (method.rest_path(), "application/json"),
    };
    let mut start = match is_grpc {
        true => [&[0][..], &(size as u32).to_be_bytes()].concat(),
        false => b"{\"idempotency_key\": \"".to_vec(),
    };
    start.resize(size, b'1');
    let body: Body = match rng.random_bool(0.5) {
        true => body(start),
        false => pieces(start.chunks(64 << 10).map(<[u8]>::to_vec).collect(), Duration::ZERO),
    };
    let way = match (is_grpc, rng.random_bool(0.5)) {
        (true, true) => Way::Rpc,
        (false, true) => Way::RestH1,
        _ => Way::RestH2,
    };
    let request = Request::post(format!("https://localhost{path}"))
        .header("host", "localhost")
        .header("content-type", kind)
        .header("authorization", token)
        .body(body)
        .unwrap();
    // Who sends on while being refused may lose the connection before reading why.
    let Some(answer) = caller.send(way, request, LOOK_WAIT).await else {
        return Verdict::of("oversized broken", None);
    };
    let count = format!("oversized {}", answer.status.as_u16());
    let taken = !is_grpc && answer.status.is_success() && size > (1 << 20);
    Verdict::of(count, taken.then(|| format!("{} took {size} bytes", method.name)))
}

/// What no client of HTTP would do, on a TLS connection.
async fn raw(caller: &mut Caller, interface: &Interface, rng: &mut StdRng) -> Verdict {
    let target = caller.target.clone();
    let is_rpc = rng.random_bool(0.3);
    let address = if is_rpc { target.rpc.clone() } else { target.rest.clone() };
    let Some(mut stream) = target.raw(&address, is_rpc || rng.random_bool(0.3)).await else {
        return Verdict::of("raw no connection", None);
    };
    let method = some_method(interface, rng).rest_path();
    let head = format!(
        "POST {method} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n",
        target.token
    );
    let (count, text): (&str, Vec<u8>) = match rng.random_range(0..9) {
        0 => ("raw half a head", head[..rng.random_range(1..head.len())].into()),
        1 => ("raw half a body", format!("{head}content-length: 1000\r\n\r\n{{\"").into()),
        2 => ("raw many headers", {
            let many: String = (0..5_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
            format!("{head}{many}\r\n").into()
        }),
        3 => ("raw long header", format!("{head}x: {}\r\n\r\n", "y".repeat(1 << 20)).into()),
        4 => ("raw long path", format!("GET /{} HTTP/1.1\r\n\r\n", "p".repeat(1 << 18)).into()),
        5 => (
            "raw chunks",
            format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{{").into(),
        ),
        6 => (
            "raw two lengths",
            format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}").into(),
        ),
        7 => ("raw noise", (0..2_000).map(|_| rng.random()).collect()),
        _ => {
            // Events that nobody reads, for a moment.
            let head = head
                .replace("POST", "GET")
                .replace(&method, "/v1/Events/Subscribe?after_sequence=0");
            ("raw slow reader", format!("{head}\r\n").into())
        }
    };
    // Slowly, in one go, or dropped at once.
    let step = if rng.random_bool(0.2) { 64 } else { text.len().max(1) };
    for piece in text.chunks(step).take(20) {
        if stream.write_all(piece).await.is_err() {
            return Verdict::of(count, None);
        }
        if step == 64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let _ = stream.flush().await;
    match rng.random_range(0..3) {
        0 => tokio::time::sleep(Duration::from_millis(500)).await,
        1 => {
            // Half closed: it waits for an answer and says no more.
            let _ = stream.shutdown().await;
            let mut answer = [0; 1_000];
            let _ = tokio::time::timeout(WAIT, stream.read(&mut answer)).await;
        }
        _ => {}
    }
    Verdict::of(count, None)
}

/// No TLS at all.
async fn garbage(caller: &mut Caller, rng: &mut StdRng) -> Verdict {
    let address = match rng.random_bool(0.5) {
        true => caller.target.rpc.clone(),
        false => caller.target.rest.clone(),
    };
    if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
        let noise: Vec<u8> = (0..rng.random_range(0..5_000)).map(|_| rng.random()).collect();
        let plain = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
        let bytes = if rng.random_bool(0.5) { noise } else { plain };
        let _ = stream.write_all(&bytes).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
    }
    Verdict::of("garbage", None)
}
