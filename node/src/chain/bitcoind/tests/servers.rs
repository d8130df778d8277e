//! Failover, lies, credentials and time-outs, with HTTP servers of a few lines.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::consensus::encode::serialize_hex;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::super::*;
use crate::chain::embedded::EmbeddedChain;
use crate::chain::embedded::tests::bench::*;
use crate::chain::{BroadcastError, Broadcaster, FeeSource};

/// How a server behaves, changed while it runs.
struct Server {
    chain: EmbeddedChain,
    network: &'static str,
    dead: AtomicBool,
    mute: AtomicBool,
    /// Gives another block than the one asked for.
    swaps_blocks: AtomicBool,
    /// Gives the right header with another transaction.
    alters_blocks: AtomicBool,
    pair: Mutex<String>,
    calls: AtomicU32,
    connections: AtomicU32,
    /// Answers by method, instead of the chain's.
    canned: Mutex<Vec<(&'static str, Value)>>,
}

impl Server {
    async fn start(chain: &EmbeddedChain, network: &'static str) -> (Arc<Self>, String) {
        let server = Arc::new(Self {
            chain: chain.clone(),
            network,
            dead: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            swaps_blocks: AtomicBool::new(false),
            alters_blocks: AtomicBool::new(false),
            pair: Mutex::new("user:word".to_owned()),
            calls: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            canned: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn({
            let server = server.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    server.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(server.clone().serve(stream));
                }
            }
        });
        (server, url)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut length = 0;
            let mut credentials = String::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                let line = line.trim();
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(": ").unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.parse().unwrap();
                }
                if name.eq_ignore_ascii_case("authorization") {
                    credentials = value.to_owned();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.dead.load(Ordering::Relaxed) {
                return;
            }
            if self.mute.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            let expected = format!("Basic {}", BASE64_STANDARD.encode(&*self.pair.lock()));
            let (status, body) = if credentials == expected {
                let request: Value = serde_json::from_slice(&body).unwrap();
                let answer = self.answer(request["method"].as_str().unwrap(), &request["params"]);
                ("200 OK", answer.to_string())
            } else {
                ("401 Unauthorized", String::new())
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
        }
    }

    fn answer(&self, method: &str, params: &Value) -> Value {
        if let Some((_, canned)) = self.canned.lock().iter().find(|(m, _)| *m == method) {
            return canned.clone();
        }
        let tip = self.chain.best();
        let blocks = self.chain.export();
        let result = match method {
            "getblockchaininfo" => json!({
                "chain": self.network, "blocks": tip.height, "bestblockhash": tip.hash
            }),
            "getbestblockhash" => json!(tip.hash),
            "getblockhash" => json!(blocks[params[0].as_u64().unwrap() as usize - 1].block_hash()),
            "getblock" => {
                let asked = params[0].as_str().unwrap();
                let mut block =
                    blocks.iter().find(|b| b.block_hash().to_string() == asked).unwrap().clone();
                if self.swaps_blocks.load(Ordering::Relaxed) {
                    block = blocks[5].clone();
                }
                if self.alters_blocks.load(Ordering::Relaxed) {
                    block.txdata[0].output[0].value = Amount::from_sat(1);
                }
                json!(serialize_hex(&block))
            }
            other => panic!("no answer to {other}"),
        };
        json!({ "result": result, "error": null })
    }
}

fn password(url: &str) -> BitcoindEndpoint {
    BitcoindEndpoint {
        url: url.to_owned(),
        auth: RpcAuth::UserPassword {
            user: "user".to_owned(),
            password: Zeroizing::new("word".to_owned()),
        },
    }
}

fn config(urls: &[&str]) -> BitcoindConfig {
    BitcoindConfig {
        timeout: Duration::from_millis(500),
        poll: Duration::from_millis(5),
        ..BitcoindConfig::new(Network::Regtest, urls.iter().map(|url| password(url)).collect())
    }
}

#[tokio::test]
async fn second_endpoint_takes_over_and_the_first_may_return() {
    let chain = chain();
    let (first, one) = Server::start(&chain, "regtest").await;
    let (second, two) = Server::start(&chain, "regtest").await;
    let source = BitcoindChain::connect(config(&[&one, &two])).await.unwrap();
    for _ in 0..5 {
        assert_eq!(source.tip().await.unwrap(), chain.best());
    }
    // The first is preferred, and one connection carries all calls.
    assert_eq!(second.calls.load(Ordering::Relaxed), 1);
    assert_eq!(first.connections.load(Ordering::Relaxed), 1);
    first.dead.store(true, Ordering::Relaxed);
    assert_eq!(source.tip().await.unwrap(), chain.best());
    let health = source.health();
    assert!(health[0].failures > 0 && health[1].preferred, "{health:?}");
    // It rests: the next calls do not knock there.
    let knocks = first.calls.load(Ordering::Relaxed);
    source.tip().await.unwrap();
    assert_eq!(first.calls.load(Ordering::Relaxed), knocks);
    second.dead.store(true, Ordering::Relaxed);
    let error = source.tip().await.unwrap_err().to_string();
    assert!(error.contains(&two) && error.contains("no chain endpoint answers"), "{error}");
    first.dead.store(false, Ordering::Relaxed);
    assert_eq!(source.tip().await.unwrap(), chain.best());
    assert!(source.health()[0].preferred);
}

#[tokio::test]
async fn lying_endpoint_is_left() {
    let chain = chain();
    let (liar, one) = Server::start(&chain, "regtest").await;
    let (_, two) = Server::start(&chain, "regtest").await;
    let hash = chain.best().hash;
    for lie in [&liar.swaps_blocks, &liar.alters_blocks] {
        lie.store(true, Ordering::Relaxed);
        let both = BitcoindChain::connect(config(&[&one, &two])).await.unwrap();
        assert_eq!(both.block(hash).await.unwrap().block_hash(), hash);
        let health = both.health();
        assert!(health[0].last_error.as_ref().unwrap().contains("bad answer to getblock"));
        assert!(health[1].preferred);
        let alone = BitcoindChain::connect(config(&[&one])).await.unwrap();
        let error = alone.block(hash).await.unwrap_err();
        assert!(matches!(error, ChainError::BadAnswer { .. }), "{error}");
        lie.store(false, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn settings_that_no_waiting_cures_stop_the_start() {
    let chain = chain();
    let (good, one) = Server::start(&chain, "regtest").await;
    let (_, other) = Server::start(&chain, "main").await;
    let error = BitcoindChain::connect(config(&[&one, &other])).await.err().unwrap();
    assert!(error.to_string().contains("is on main, this node is on regtest"), "{error}");
    *good.pair.lock() = "user:another".to_owned();
    let error = BitcoindChain::connect(config(&[&one])).await.err().unwrap();
    assert!(matches!(error, ChainError::Unauthorized { .. }), "{error}");
    for url in ["https://localhost:1", "http://user:word@localhost:1", "localhost:1", "x y"] {
        let error = BitcoindChain::connect(config(&[url])).await.err().unwrap();
        assert!(error.to_string().contains("http://host:port"), "{error}");
    }
    let nobody = BitcoindChain::connect(config(&["http://127.0.0.1:1"])).await.err().unwrap();
    assert!(matches!(nobody, ChainError::Unreachable(_)), "{nobody}");
}

#[tokio::test]
async fn cookie_is_read_again_after_a_restart_of_bitcoind() {
    let chain = chain();
    let (server, url) = Server::start(&chain, "regtest").await;
    let folder = tempfile::tempdir().unwrap();
    let cookie = folder.path().join(".cookie");
    std::fs::write(&cookie, "__cookie__:first\n").unwrap();
    *server.pair.lock() = "__cookie__:first".to_owned();
    let endpoint = BitcoindEndpoint { url, auth: RpcAuth::Cookie(cookie.clone()) };
    let source = BitcoindChain::connect(BitcoindConfig::new(Network::Regtest, vec![endpoint]))
        .await
        .unwrap();
    *server.pair.lock() = "__cookie__:second".to_owned();
    std::fs::write(&cookie, "__cookie__:second").unwrap();
    assert_eq!(source.tip().await.unwrap(), chain.best());
    std::fs::remove_file(&cookie).unwrap();
    *server.pair.lock() = "__cookie__:third".to_owned();
    let error = source.tip().await.unwrap_err().to_string();
    assert!(error.contains("cookie file"), "{error}");
    assert!(!format!("{:?}", password("http://x").auth).contains("word\""));
}

#[tokio::test]
async fn silent_endpoint_runs_into_the_time_limit() {
    let chain = chain();
    let (mute, one) = Server::start(&chain, "regtest").await;
    let (_, two) = Server::start(&chain, "regtest").await;
    let source = BitcoindChain::connect(config(&[&one, &two])).await.unwrap();
    mute.mute.store(true, Ordering::Relaxed);
    assert_eq!(source.tip().await.unwrap(), chain.best());
    let error = source.health()[0].last_error.clone().unwrap();
    assert!(error.contains("no answer to getblockchaininfo"), "{error}");
}

#[tokio::test]
async fn answers_to_packages_and_fees_are_read() {
    let chain = chain();
    let coins = coins(&chain, 100_000, 0..2);
    let parent = spend(3, &[&coins[0]], vec![pay(1, 100_000), anchor(0)]);
    let child = spend(3, &[&coins[1], &anchor_coin(&parent, 1)], vec![pay(2, 99_000)]);
    let package = [parent.clone(), child.clone()];
    let (server, url) = Server::start(&chain, "regtest").await;
    let (other, two) = Server::start(&chain, "regtest").await;
    let source = BitcoindChain::connect(config(&[&url, &two])).await.unwrap();
    let results = |parent_error: Value, child_error: Value, message: &str| {
        let one = json!({ "txid": parent.compute_txid(), "error": parent_error });
        let two = json!({ "txid": child.compute_txid(), "error": child_error });
        json!({ "result": { "package_msg": message, "tx-results": { "a": one, "b": two } } })
    };
    let low = "min relay fee not met, 0 < 110";
    let refused = results(low.into(), "TRUC-violation, too big".into(), "transaction failed");
    *server.canned.lock() = vec![("submitpackage", refused.clone())];
    *other.canned.lock() = vec![("submitpackage", refused)];
    match source.submit(&package).await {
        Err(BroadcastError::Rejected { txid, reason }) => {
            assert_eq!((txid, reason.as_str()), (child.compute_txid(), "TRUC-violation"));
        }
        other => panic!("{other:?}"),
    }
    // One endpoint that takes it is enough; a confirmed parent is no obstacle.
    let taken = results("txn-already-known".into(), Value::Null, "transaction failed");
    *other.canned.lock() = vec![("submitpackage", taken)];
    source.submit(&package).await.unwrap();
    let off = json!({ "error": { "code": -32603, "message": "Fee estimation disabled" } });
    let info = json!({ "result": { "mempoolminfee": 0.00000123, "minrelaytxfee": 0.00001 } });
    *server.canned.lock() = vec![("estimatesmartfee", off), ("getmempoolinfo", info)];
    assert_eq!(source.estimate(6).await.unwrap(), None);
    assert_eq!(source.mempool_minimum().await.unwrap().to_sat_per_kwu(), 250);
    let known = json!({ "result": { "feerate": 0.00012345, "blocks": 6 } });
    *server.canned.lock() = vec![("estimatesmartfee", known)];
    let rate = source.estimate(6).await.unwrap().unwrap();
    assert_eq!(rate.to_sat_per_kwu(), 3_087);
}
