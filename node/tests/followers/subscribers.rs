//! Subscribers that come and go: by gRPC, and by server-sent events.
//!
//! Each takes up the log after the last event it has processed, whatever more it was sent.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use proto::v1::event::Kind;
use proto::v1::events_client::EventsClient;
use proto::v1::{self as pb};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::doors::{Doors, is_lost};
use crate::follower::{Follower, Goal, LISTEN_ON};
use crate::truth::{json_digest, wire_digest};

/// How much of a stream may be under way to the slow one, in bytes.
const SLOW_WINDOW: u32 = 2_048;
/// Events that the slow one reads at a time.
const SLOW_READS: std::ops::Range<u64> = 20..300;
/// How long it reads nothing, in milliseconds.
const SLOW_PAUSE_MS: std::ops::Range<u64> = 500..5_000;

/// How a stream ended.
enum End {
    /// There is no more to come.
    Done,
    /// It was let go of.
    Dropped,
    /// It broke.
    Broken,
}

/// When a subscriber lets go of a stream.
struct Whim {
    at: Instant,
    left: u64,
}

impl Whim {
    fn new(rng: &mut StdRng) -> Self {
        let life = Duration::from_millis(rng.random_range(20..4_000));
        Self { at: Instant::now() + life, left: rng.random_range(1..300) }
    }
}

/// Waits before it calls again: mostly a moment, sometimes so long that the log grows.
async fn rest(rng: &mut StdRng) {
    let most_ms = if rng.random_bool(0.2) { 1_500 } else { 60 };
    sleep(Duration::from_millis(rng.random_range(0..most_ms))).await;
}

/// Follows by gRPC, and lets go of the stream, and of the connection, whenever it likes.
pub async fn fickle(follower: Arc<Follower>, doors: Doors, mut rng: StdRng, mut goal: Goal) {
    let mut kept: Option<Channel> = None;
    while !follower.is_done(&goal) {
        let channel = match kept.take() {
            Some(channel) => channel,
            None => match doors.grpc(None).await {
                Some(channel) => channel,
                None => {
                    rest(&mut rng).await;
                    continue;
                }
            },
        };
        if let Some(mut stream) = subscribe(&follower, &doors, &channel).await {
            let whim = Whim::new(&mut rng);
            match read(&follower, &mut stream, whim, &mut goal).await {
                End::Done => return,
                End::Dropped => {
                    Follower::count_up(&follower.dropped);
                    kept = rng.random_bool(0.6).then_some(channel);
                }
                End::Broken => {}
            }
        }
        rest(&mut rng).await;
    }
}

/// Follows by gRPC and reads in bursts, so that the node must wait for it.
pub async fn slow(follower: Arc<Follower>, doors: Doors, mut rng: StdRng, mut goal: Goal) {
    while !follower.is_done(&goal) {
        let stream = match doors.grpc(Some(SLOW_WINDOW)).await {
            Some(channel) => subscribe(&follower, &doors, &channel).await,
            None => None,
        };
        let Some(mut stream) = stream else {
            rest(&mut rng).await;
            continue;
        };
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            let whim = Whim { at: far, left: rng.random_range(SLOW_READS) };
            match read(&follower, &mut stream, whim, &mut goal).await {
                End::Done => return,
                End::Broken => break,
                // Not dropped at all: it only reads nothing for a while.
                End::Dropped => {}
            }
            if goal.borrow().is_none() {
                sleep(Duration::from_millis(rng.random_range(SLOW_PAUSE_MS))).await;
            }
        }
    }
}

async fn subscribe(
    follower: &Follower,
    doors: &Doors,
    channel: &Channel,
) -> Option<Streaming<pb::Event>> {
    let request = pb::SubscribeRequest {
        after_sequence: Some(follower.last()),
        kinds: follower.kinds.iter().map(|kind| (*kind).into()).collect(),
    };
    let mut client = EventsClient::new(channel.clone());
    match timeout(Duration::from_secs(10), client.subscribe(doors.call(request))).await {
        Ok(Ok(stream)) => {
            Follower::count_up(&follower.streams);
            Some(stream.into_inner())
        }
        Ok(Err(status)) => {
            if !is_lost(&status) {
                follower.complain(format!("after {}: {status:?}", follower.last()));
            }
            None
        }
        Err(_) => None,
    }
}

async fn read(
    follower: &Follower,
    stream: &mut Streaming<pb::Event>,
    mut whim: Whim,
    goal: &mut Goal,
) -> End {
    let mut listens_until = None;
    loop {
        if listens_until.is_none() && follower.is_done(goal) {
            listens_until = Some(Instant::now() + LISTEN_ON);
        }
        let (at, end) = match listens_until {
            Some(until) => (until, End::Done),
            None => (whim.at, End::Dropped),
        };
        let next = tokio::select! {
            biased;
            next = stream.message() => next,
            _ = goal.changed(), if goal.borrow().is_none() => continue,
            () = tokio::time::sleep_until(at) => return end,
        };
        match next {
            Ok(Some(event)) => {
                let is_channel = matches!(event.kind, Some(Kind::Channel(_)));
                let text = is_channel.then(|| format!("{event:?}"));
                follower.process(event.sequence, wire_digest(&event), text);
            }
            Ok(None) => {
                follower.complain(format!("the stream ended after {}", follower.last()));
                return End::Broken;
            }
            Err(status) => {
                if !is_lost(&status) {
                    follower.complain(format!("after {}: {status:?}", follower.last()));
                }
                Follower::count_up(&follower.broken);
                return End::Broken;
            }
        }
        whim.left = whim.left.saturating_sub(1);
        if whim.left == 0 && listens_until.is_none() {
            return End::Dropped;
        }
    }
}

/// Follows by server-sent events, as a browser does: the first address again, and the last id.
pub async fn browser(follower: Arc<Follower>, doors: Doors, mut rng: StdRng, mut goal: Goal) {
    while !follower.is_done(&goal) {
        if let Some(body) = open(&follower, &doors).await {
            Follower::count_up(&follower.streams);
            let whim = Whim::new(&mut rng);
            match read_pieces(&follower, body, whim, &mut goal).await {
                End::Done => return,
                End::Dropped => Follower::count_up(&follower.dropped),
                End::Broken => {}
            }
        }
        rest(&mut rng).await;
    }
}

async fn open(follower: &Follower, doors: &Doors) -> Option<Incoming> {
    let mut sender = doors.http().await?;
    let mut request = doors.get("Events/Subscribe?after_sequence=0");
    if follower.last() > 0 {
        request = request.header("last-event-id", follower.last().to_string());
    }
    let request = request.body(Full::default()).unwrap();
    let answer = timeout(Duration::from_secs(10), sender.send_request(request)).await.ok()?.ok()?;
    match answer.status().as_u16() {
        200 => Some(answer.into_body()),
        // It is starting.
        503 => None,
        status => {
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            let body = String::from_utf8_lossy(&body);
            follower.complain(format!("after {}: {status} {body}", follower.last()));
            None
        }
    }
}

async fn read_pieces(
    follower: &Follower,
    mut body: Incoming,
    mut whim: Whim,
    goal: &mut Goal,
) -> End {
    let mut read = Vec::new();
    let mut listens_until = None;
    loop {
        if listens_until.is_none() && follower.is_done(goal) {
            listens_until = Some(Instant::now() + LISTEN_ON);
        }
        let (at, end) = match listens_until {
            Some(until) => (until, End::Done),
            None => (whim.at, End::Dropped),
        };
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            _ = goal.changed(), if goal.borrow().is_none() => continue,
            () = tokio::time::sleep_until(at) => return end,
        };
        let Some(Ok(frame)) = frame else {
            if frame.is_none() {
                follower.complain(format!("the answer ended after {}", follower.last()));
            }
            Follower::count_up(&follower.broken);
            return End::Broken;
        };
        read.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = read.windows(2).position(|pair| pair == b"\n\n") {
            let piece: Vec<u8> = read.drain(..end + 2).collect();
            if let Err(wrong) = process(follower, &String::from_utf8(piece).unwrap()) {
                follower.complain(wrong);
                Follower::count_up(&follower.broken);
                return End::Broken;
            }
            whim.left = whim.left.saturating_sub(1);
            if whim.left == 0 && listens_until.is_none() {
                return End::Dropped;
            }
        }
    }
}

/// Processes one piece of a stream of server-sent events.
fn process(follower: &Follower, piece: &str) -> Result<(), String> {
    let (mut id, mut document) = (None, None);
    for line in piece.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("id", text)) => id = text.parse::<u64>().ok(),
            Some(("data", text)) => document = serde_json::from_str::<Value>(text).ok(),
            // A sign of life.
            Some(("", _)) => return Ok(()),
            _ => return Err(format!("after {} came {piece:?}", follower.last())),
        }
    }
    let (Some(id), Some(document)) = (id, document) else {
        return Err(format!("after {} came {piece:?}", follower.last()));
    };
    if document["sequence"] != id {
        return Err(format!("the id is not the sequence: {piece:?}"));
    }
    let text = document["channel"].is_object().then(|| document.to_string());
    follower.process(id, json_digest(&document), text);
    Ok(())
}
