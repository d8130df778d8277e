//! A receiver of webhooks that takes everything, and remembers it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::hmac::{Hmac, HmacEngine};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A delivery as it arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    timestamp: String,
    signatures: String,
    body: Vec<u8>,
    path: String,
}

impl Delivery {
    /// Whether one of its signatures is by this secret (Standard Webhooks 1.0.0).
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
        let mut engine = HmacEngine::<sha256::Hash>::new(&key);
        engine.input(format!("{}.{}.", self.id, self.timestamp).as_bytes());
        engine.input(&self.body);
        let mac = Hmac::<sha256::Hash>::from_engine(engine).to_byte_array();
        let expected = format!("v1,{}", BASE64_STANDARD.encode(mac));
        self.signatures.split(' ').any(|signature| signature == expected)
    }
}

/// A receiver on loopback.
pub struct Receiver {
    port: u16,
    heard: Arc<Mutex<Vec<Delivery>>>,
}

impl Receiver {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::default());
        let all = Arc::clone(&heard);
        tokio::task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                tokio::task::spawn(async move { serve(stream, &all).await });
            }
        });
        Self { port, heard }
    }

    /// An address of its own for an endpoint.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// What arrived there, in order.
    pub fn heard(&self, name: &str) -> Vec<Delivery> {
        let all = self.heard.lock().unwrap();
        all.iter().filter(|delivery| delivery.path == format!("/{name}")).cloned().collect()
    }
}

/// Serves one connection until either side closes it.
async fn serve(stream: TcpStream, all: &Mutex<Vec<Delivery>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
        let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
        all.lock().unwrap().push(Delivery {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signatures: header("webhook-signature"),
            body,
            path,
        });
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
    }
}
