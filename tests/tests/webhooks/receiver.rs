//! A receiver: HTTP 1.1 by hand, with moods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::verifier::verifies;

/// What a receiver does with a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// Takes it.
    Take,
    /// Answers with this status, and these header lines.
    Status(u16, String),
    /// Says nothing for so long.
    Silent(Duration),
    /// Closes the connection without a word.
    Drop,
    /// Takes it, and then sends more than anybody wants to read.
    Endless,
}

/// A delivery as it arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    pub timestamp: String,
    pub signatures: String,
    pub body: Vec<u8>,
    /// Whether the receiver meant to take it.
    pub is_taken: bool,
}

impl Delivery {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Place of the event in the log.
    pub fn sequence(&self) -> u64 {
        self.json()["data"]["sequence"].as_u64().unwrap()
    }

    pub fn is_signed_with(&self, secret: &str) -> bool {
        verifies(secret, &self.id, &self.timestamp, &self.body, &self.signatures)
    }
}

type Decide = Box<dyn FnMut(&Delivery) -> Mood + Send>;

struct Shared {
    heard: Mutex<Vec<Delivery>>,
    decide: Mutex<Decide>,
    connections: Mutex<u64>,
    stop: CancellationToken,
}

/// A receiver on loopback.
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

impl Receiver {
    pub async fn new(decide: impl FnMut(&Delivery) -> Mood + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            heard: Mutex::default(),
            decide: Mutex::new(Box::new(decide)),
            connections: Mutex::new(0),
            stop: CancellationToken::new(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = serving.stop.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                *serving.connections.lock() += 1;
                let serving = Arc::clone(&serving);
                tokio::spawn(async move {
                    tokio::select! {
                        () = serving.stop.cancelled() => {}
                        _gone = serve(stream, &serving) => {}
                    }
                });
            }
        });
        Self { port, shared }
    }

    /// One that takes everything.
    pub async fn willing() -> Self {
        Self::new(|_| Mood::Take).await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?from=node", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Decides otherwise from now on.
    pub fn decide(&self, decide: impl FnMut(&Delivery) -> Mood + Send + 'static) {
        *self.shared.decide.lock() = Box::new(decide);
    }

    /// Everything that arrived, whatever became of it.
    pub fn heard(&self) -> Vec<Delivery> {
        self.shared.heard.lock().clone()
    }

    /// What was taken, in the order in which it was taken.
    pub fn taken(&self) -> Vec<Delivery> {
        self.shared.heard.lock().iter().filter(|one| one.is_taken).cloned().collect()
    }

    /// The events that were taken, each once, in the order in which they were taken first.
    pub fn events(&self) -> Vec<u64> {
        let mut first = Vec::new();
        for delivery in self.taken() {
            let sequence = delivery.sequence();
            if !first.contains(&sequence) {
                first.push(sequence);
            }
        }
        first
    }

    pub fn connections(&self) -> u64 {
        *self.shared.connections.lock()
    }

    /// Every delivery is signed, and what has one id is one event.
    pub fn check(&self, secret: &str) {
        let mut bodies = BTreeMap::new();
        for delivery in self.heard() {
            assert!(delivery.is_signed_with(secret), "{delivery:?}");
            let body = bodies.entry(delivery.id.clone()).or_insert_with(|| delivery.body.clone());
            assert_eq!(*body, delivery.body, "one id, one event");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Serves one connection until either side closes it.
async fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut delivery = read(&mut stream).await?;
        let mood = (shared.decide.lock())(&delivery);
        delivery.is_taken = matches!(mood, Mood::Take | Mood::Endless);
        shared.heard.lock().push(delivery);
        match mood {
            Mood::Take => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
            }
            Mood::Status(status, headers) => {
                let head = format!("HTTP/1.1 {status} So\r\n{headers}content-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok()?;
            }
            Mood::Silent(time) => {
                tokio::time::sleep(time).await;
                return None;
            }
            Mood::Drop => return None,
            Mood::Endless => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await.ok()?;
                let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
                loop {
                    stream.write_all(chunk.as_bytes()).await.ok()?;
                }
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Delivery> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    assert_eq!(line, "POST /hook?from=node HTTP/1.1\r\n");
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length: usize = headers["content-length"].parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    assert_eq!(headers["content-type"], "application/json");
    Some(Delivery {
        id: headers["webhook-id"].clone(),
        timestamp: headers["webhook-timestamp"].clone(),
        signatures: headers["webhook-signature"].clone(),
        body,
        is_taken: false,
    })
}
