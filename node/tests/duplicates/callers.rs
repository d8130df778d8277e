//! Many callers with one request, and the death of the node they ask in the middle.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use node::rpc::status::explain;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use rand::Rng;
use tokio::task::{JoinHandle, JoinSet};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use crate::process::{Door, PATIENCE};
use crate::world::World;

/// Connections that the callers share.
const CONNECTIONS: usize = 8;
/// The kill comes within so long of the first call, or after an answer.
const KILL_MAX: Duration = Duration::from_millis(15);
/// Characters of answers that are shown before and after the place where they differ.
const BEFORE: usize = 40;
const AFTER: usize = 60;
/// How often it is looked whether it is time to kill.
const LOOK: Duration = Duration::from_micros(200);
/// How long a caller waits before it repeats itself.
const PAUSE: Duration = Duration::from_millis(40);
/// What any node says that is on its way up or down.
const AWAY: [&str; 2] = ["STARTING", "STOPPING"];
/// What a node says until it is back among its peers. Nothing was done; the same key counts.
pub const NOT_BACK: &[&str] =
    &["CHAIN_NOT_SYNCED", "PEER_OFFLINE", "LIQUIDITY_INSUFFICIENT", "NOT_REACHABLE"];

/// A request, to be sent many times.
#[derive(Clone)]
pub struct Call {
    pub who: usize,
    pub method: &'static str,
    messages: Vec<Vec<u8>>,
    not_yet: &'static [&'static str],
    lost: Option<&'static str>,
    ends_the_node: bool,
}

impl Call {
    pub fn new(who: usize, method: &'static str, request: &impl Message) -> Self {
        let messages = vec![request.encode_to_vec()];
        Self { who, method, messages, not_yet: &[], lost: None, ends_the_node: false }
    }

    /// In many messages.
    pub fn in_pieces(who: usize, method: &'static str, pieces: &[impl Message]) -> Self {
        let messages = pieces.iter().map(Message::encode_to_vec).collect();
        Self { who, method, messages, not_yet: &[], lost: None, ends_the_node: false }
    }

    /// Reasons which after the restart mean that the node is not back yet: callers go on.
    pub fn not_yet(self, not_yet: &'static [&'static str]) -> Self {
        Self { not_yet, ..self }
    }

    /// For what a restart ends: with this reason all may be refused, if none was answered.
    pub fn or_lost(self, reason: &'static str) -> Self {
        Self { lost: Some(reason), ..self }
    }

    /// It ends the process, which is then started again.
    pub fn ends_the_node(self) -> Self {
        Self { ends_the_node: true, ..self }
    }
}

/// What became of one mutation, for the table.
pub struct Line {
    pub method: &'static str,
    /// Callers who had their answer when the node was killed.
    pub before: usize,
    /// Callers who got it from the next process.
    pub after: usize,
    /// Calls that broke off, or came while the node was away.
    pub broken: usize,
    pub took: Duration,
}

/// What a caller heard in the end.
enum Heard {
    Answer(Vec<Vec<u8>>),
    Refused { reason: String, message: String },
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    broken: AtomicUsize,
    kills: AtomicUsize,
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; from.remaining()];
        from.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// Calls once and reads all messages of the answer, of which most methods have one.
async fn call_once(door: Door, call: &Call) -> Result<Vec<Vec<u8>>, Status> {
    let mut client = tonic::client::Grpc::new(door);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path: PathAndQuery = format!("/tributary.v1.{}", call.method).parse().unwrap();
    let messages = tokio_stream::iter(call.messages.clone());
    let answer = client.streaming(Request::new(messages), path, Raw).await?;
    let mut stream = answer.into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.push(message);
    }
    Ok(all)
}

/// Repeats the call until there is an answer.
async fn caller(door: Door, call: Arc<Call>, counts: Arc<Counts>) -> Heard {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call_once(door.clone(), &call).await {
            Ok(answer) => {
                counts.answered.fetch_add(1, Ordering::SeqCst);
                return Heard::Answer(answer);
            }
            Err(status) => {
                let said = explain(&status);
                let is_killed = counts.kills.load(Ordering::SeqCst) > 0;
                let again = match said.reason.as_deref() {
                    // Nothing that the node said: the connection broke, or there is none.
                    None => true,
                    Some(reason) => {
                        AWAY.contains(&reason) || is_killed && call.not_yet.contains(&reason)
                    }
                };
                let late = Instant::now() > deadline;
                if !again || late {
                    counts.answered.fetch_add(1, Ordering::SeqCst);
                    let reason = said.reason.unwrap_or_else(|| "no answer in time".to_owned());
                    return Heard::Refused { reason, message: said.message };
                }
                counts.broken.fetch_add(1, Ordering::SeqCst);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sends the request from as many callers as there are to be, kills the node in the middle, starts
/// it again, and returns what all say: all messages of the answer; none if all were refused as they
/// may be.
///
/// # Panics
///
/// If two answers differ in what `same` takes of them, or one caller is refused and another is not.
pub async fn duplicates<R, K>(world: &World, call: Call, same: impl Fn(&[R]) -> K) -> Vec<R>
where
    R: Message + Default,
    K: PartialEq + Debug,
{
    let began = Instant::now();
    let mut doors = Vec::new();
    for _ in 0..CONNECTIONS {
        doors.push(world.door(call.who).await);
    }
    let call = Arc::new(call);
    let counts = Arc::new(Counts::default());
    let killing = kill(world, &call, &counts).await;
    let mut callers = JoinSet::new();
    for number in 0..world.callers {
        let door = doors[number % CONNECTIONS].clone();
        callers.spawn(caller(door, Arc::clone(&call), Arc::clone(&counts)));
    }
    let before = killing.await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < world.callers {
        tokio::select! {
            one = callers.join_next() => heard.push(one.unwrap().unwrap()),
            () = tokio::time::sleep(Duration::from_millis(20)) => revive(world, &call).await,
        }
    }
    revive(world, &call).await;
    world.lines.lock().unwrap().push(Line {
        method: call.method,
        before,
        after: world.callers - before,
        broken: counts.broken.load(Ordering::SeqCst),
        took: began.elapsed(),
    });
    judge(&call, &heard, same)
}

/// When the node is killed: after so many answers, and after so long if there are not so many.
fn moment(world: &World) -> (usize, Duration) {
    let mut rng = world.rng.lock().unwrap();
    match rng.random_bool(0.5) {
        true => (world.callers, rng.random_range(Duration::ZERO..KILL_MAX)),
        false => (rng.random_range(1..=world.callers), PATIENCE),
    }
}

/// Kills the node and starts it again. How many callers had their answer.
///
/// On a thread of its own, which does not wait for those who call.
async fn kill(world: &World, call: &Arc<Call>, counts: &Arc<Counts>) -> JoinHandle<usize> {
    let (answers, wait) = moment(world);
    let mut process = Arc::clone(&world.nodes[call.who]).write_owned().await;
    let (call, counts) = (Arc::clone(call), Arc::clone(counts));
    let end = Instant::now() + wait;
    tokio::task::spawn_blocking(move || {
        let is_time = || Instant::now() >= end || counts.answered.load(Ordering::SeqCst) >= answers;
        while !is_time() && process.runs() {
            std::thread::sleep(LOOK);
        }
        assert!(call.ends_the_node || process.runs(), "the node is gone:\n{}", process.tail());
        process.kill();
        let before = counts.answered.load(Ordering::SeqCst);
        counts.kills.fetch_add(1, Ordering::SeqCst);
        process.start();
        before
    })
}

/// Starts a node again that was asked to end.
pub async fn revive(world: &World, call: &Call) {
    let mut process = world.nodes[call.who].write().await;
    if !process.runs() {
        assert!(call.ends_the_node, "the node is gone:\n{}", process.tail());
        process.kill();
        process.start();
    }
}

fn judge<R, K>(call: &Call, heard: &[Heard], same: impl Fn(&[R]) -> K) -> Vec<R>
where
    R: Message + Default,
    K: PartialEq + Debug,
{
    let mut refusals: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut answers = Vec::new();
    for one in heard {
        match one {
            Heard::Refused { reason, message } => {
                refusals.entry(reason).or_insert((0, message)).0 += 1;
            }
            Heard::Answer(messages) => {
                let read = messages.iter().map(|message| R::decode(&message[..]).unwrap());
                answers.push(read.collect::<Vec<R>>());
            }
        }
    }
    if answers.is_empty() && refusals.len() == 1 && refusals.keys().next().copied() == call.lost {
        return Vec::new();
    }
    assert!(
        refusals.is_empty(),
        "{} callers are answered, and refused are {refusals:?}",
        answers.len()
    );
    let first = answers.swap_remove(0);
    let said = same(&first);
    let others: Vec<K> = answers.iter().map(|answer| same(answer)).collect();
    if let Some(other) = others.iter().find(|other| **other != said) {
        let count = others.iter().filter(|other| **other != said).count();
        let (some, others) = apart(&format!("{said:?}"), &format!("{other:?}"));
        panic!("{count} are answered otherwise than the first: {others} for {some}");
    }
    first
}

/// What two texts say where they begin to differ.
fn apart(one: &str, other: &str) -> (String, String) {
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let from = |text: &str| {
        let end = text.chars().skip(same.saturating_sub(BEFORE)).take(BEFORE + AFTER);
        format!("…{}…", end.collect::<String>())
    };
    (from(one), from(other))
}
