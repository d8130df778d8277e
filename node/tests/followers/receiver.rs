//! A webhook's receiver that fails half of the time, in every way there is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use proto::v1::EventKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::truth::{Truth, digest, json_digest};

/// How long the node waits for an answer, in milliseconds.
pub const TIMEOUT_MS: u64 = 300;
/// Most complaints.
const WRONG_MAX: usize = 4;
/// How far a delivery's time may be from ours, in seconds.
const CLOCK_SLACK: u64 = 30;

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Take,
    /// It is taken, and nobody hears of that.
    TakeUnheard,
    Refuse(u16),
    /// Refused with a wish to be left alone for no time at all.
    Busy,
    Hang,
    Close,
}

impl Mood {
    fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..40) {
            0..20 => Self::Take,
            20..22 => Self::TakeUnheard,
            22..27 => Self::Refuse(500),
            27..29 => Self::Refuse(302),
            29..32 => Self::Busy,
            32..35 => Self::Hang,
            _ => Self::Close,
        }
    }
}

/// What was received.
#[derive(Default)]
struct Heard {
    /// What a delivery's name and body were when it first came, by the event's sequence.
    bodies: HashMap<u64, u64>,
    /// The same as JSON of the event alone.
    documents: HashMap<u64, u64>,
    texts: BTreeMap<u64, String>,
    /// The events that were taken, each once, in the order in which they were taken first.
    taken: Vec<u64>,
    is_taken: HashSet<u64>,
    tried: u64,
    failed: u64,
    again: u64,
    wrong: Vec<String>,
}

/// A receiver on loopback.
pub struct Receiver {
    pub name: &'static str,
    pub kinds: Vec<EventKind>,
    pub url: String,
    /// The endpoint's id in hex, and its secret, once it is made.
    known_as: Mutex<(String, Vec<u8>)>,
    heard: Mutex<Heard>,
    rng: Mutex<StdRng>,
}

/// A delivery as it arrived.
struct Delivery {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Receiver {
    pub async fn new(name: &'static str, kinds: &[EventKind], seed: u64) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Arc::new(Self {
            name,
            kinds: kinds.to_vec(),
            url: format!("http://{}/{name}", listener.local_addr().unwrap()),
            known_as: Mutex::default(),
            heard: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
        });
        let serving = Arc::clone(&receiver);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = Arc::clone(&serving);
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        receiver
    }

    /// Tells it how the node calls it, and the secret as the node showed it.
    pub fn is_known_as(&self, endpoint: &[u8], secret: &str) {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        *self.known_as.lock().unwrap() = (hex::encode(endpoint), key);
    }

    /// Deliveries that came, those that failed, and those of events it had taken before.
    pub fn tally(&self) -> (u64, u64, u64) {
        let heard = self.heard.lock().unwrap();
        (heard.tried, heard.failed, heard.again)
    }

    /// How many events it has taken.
    pub fn taken(&self) -> usize {
        self.heard.lock().unwrap().taken.len()
    }

    /// Serves one connection until either side closes it.
    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let delivery = read(&mut stream).await?;
            // The node may be quicker than its own answer that says how it signs.
            if self.known_as.lock().unwrap().1.is_empty() {
                return None;
            }
            let mood = Mood::draw(&mut self.rng.lock().unwrap());
            self.hear(&delivery, mood);
            let head = match mood {
                Mood::Take => "200 OK\r\n".to_owned(),
                Mood::Refuse(status) => {
                    format!("{status} No\r\nlocation: http://127.0.0.1:1/\r\n")
                }
                Mood::Busy => "503 Busy\r\nretry-after: 0\r\n".to_owned(),
                Mood::Hang => {
                    tokio::time::sleep(Duration::from_millis(TIMEOUT_MS * 2)).await;
                    return None;
                }
                Mood::Close | Mood::TakeUnheard => return None,
            };
            let answer = format!("HTTP/1.1 {head}content-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    fn hear(&self, delivery: &Delivery, mood: Mood) {
        let checked = self.check(delivery);
        let mut heard = self.heard.lock().unwrap();
        heard.tried += 1;
        heard.failed += u64::from(mood != Mood::Take);
        let (sequence, event) = match checked {
            Ok(checked) => checked,
            Err(wrong) => return heard.complain(wrong),
        };
        let id = &delivery.headers["webhook-id"];
        let body = digest(&[id.as_bytes(), &delivery.body].concat());
        if *heard.bodies.entry(sequence).or_insert(body) != body {
            let first = heard.texts.get(&sequence).cloned().unwrap_or_default();
            heard.complain(format!("{id} was\n{first}\nand is\n{event}\n"));
        }
        heard.documents.entry(sequence).or_insert_with(|| json_digest(&event));
        if event["channel"].is_object() {
            heard.texts.entry(sequence).or_insert_with(|| event.to_string());
        }
        if matches!(mood, Mood::Take | Mood::TakeUnheard) {
            match heard.is_taken.insert(sequence) {
                true => heard.taken.push(sequence),
                false => heard.again += 1,
            }
        }
    }

    /// Whether it is signed, named and dated as it should be; the event and its sequence.
    fn check(&self, delivery: &Delivery) -> Result<(u64, Value), String> {
        let header = |name: &str| {
            let value = delivery.headers.get(name).cloned();
            value.ok_or_else(|| format!("no {name}: {:?}", delivery.headers))
        };
        let (id, time) = (header("webhook-id")?, header("webhook-timestamp")?);
        let signatures = header("webhook-signature")?;
        let (endpoint, key) = &*self.known_as.lock().unwrap();
        let mut engine = HmacEngine::<sha256::Hash>::new(key);
        engine.input(format!("{id}.{time}.").as_bytes());
        engine.input(&delivery.body);
        let tag = Hmac::from_engine(engine).to_byte_array();
        let is_signed = signatures.split(' ').any(|one| {
            let signature = one.strip_prefix("v1,").map(|text| STANDARD.decode(text));
            signature.is_some_and(|bytes| bytes.is_ok_and(|bytes| bytes == tag))
        });
        if !is_signed {
            return Err(format!("{id} is signed {signatures}"));
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        if !time.parse::<u64>().is_ok_and(|time| time.abs_diff(now) <= CLOCK_SLACK) {
            return Err(format!("{id} is of {time}, and it is {now}"));
        }
        let mut body: Value = serde_json::from_slice(&delivery.body)
            .map_err(|error| format!("{id} is no JSON: {error}"))?;
        let event = body["data"].take();
        let sequence = event["sequence"].as_u64().unwrap_or(0);
        if id != format!("evt_{endpoint}_{sequence}") {
            return Err(format!("{id} is event {sequence}"));
        }
        Ok((sequence, event))
    }

    /// Whether it has taken every event that it is to be told of.
    pub fn is_done(&self, truth: &Truth) -> bool {
        let heard = self.heard.lock().unwrap();
        let mut told = truth.of(&self.kinds).filter(|fact| fact.is_told);
        told.all(|fact| heard.is_taken.contains(&fact.sequence))
    }

    /// Compares what came with the truth: every event, the same, in the order of its object.
    pub fn judge(&self, truth: &Truth) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let mut wrong = heard.wrong.clone();
        let mut complain = |what| {
            if wrong.len() < WRONG_MAX {
                wrong.push(what);
            }
        };
        for fact in truth.of(&self.kinds).filter(|fact| fact.is_told) {
            if !heard.is_taken.contains(&fact.sequence) {
                complain(format!("{} was never delivered", fact.sequence));
            } else if heard.documents[&fact.sequence] != fact.json {
                let text = heard.texts.get(&fact.sequence).cloned().unwrap_or_default();
                let is = truth.texts.get(&fact.sequence).map(|texts| texts[1].clone());
                let (sequence, is) = (fact.sequence, is.unwrap_or_default());
                complain(format!("{sequence} was told as\n{text}\nand now is\n{is}\n"));
            }
        }
        let mut last = HashMap::new();
        for sequence in heard.taken.iter().filter(|sequence| **sequence <= truth.last()) {
            let fact = &truth.facts[*sequence as usize - 1];
            if !(self.kinds.is_empty() || self.kinds.contains(&fact.kind)) || !fact.is_told {
                complain(format!("{sequence} was not to be delivered"));
            }
            let Some(object) = fact.object else { continue };
            if let Some(before) = last.insert(object, *sequence)
                && before > *sequence
            {
                complain(format!("{sequence} came after {before} of the same"));
            }
        }
        wrong.into_iter().map(|what| format!("{}: {what}", self.name)).collect()
    }
}

impl Heard {
    fn complain(&mut self, what: String) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(what);
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Delivery> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Delivery { headers, body })
}
