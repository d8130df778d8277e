//! `kill -9` of node processes in the middle of a burst, over and over.
//!
//! Three real processes on a chain served by this one: alice pays bob through the hub without a
//! pause while one of the three is killed at a random moment and started again. At the end no
//! channel was closed, every payment has exactly one outcome on which payer and receiver agree,
//! and balances say the same to the millisatoshi.
//!
//! `KILLS` sets how many [50], `KILL_SEED` repeats a run's random choices, `KILL_LOG` the nodes'
//! log level [info]. The nodes' directories stay when it fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bitcoin::{Address, Amount, Network};
use node::dev::{DevChain, free_port};
use node::environment::OsEntropy;
use node::keys::{Keys, NewSeed, RecoveryPhrase, SealCost, WordCount};
use node::runtime::Tasks;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::wallet_client::WalletClient;
use proto::v1::{self as pb};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status};

const NAMES: [&str; 3] = ["alice", "hub", "bob"];
const CAPACITY_SAT: u64 = 5_000_000;
const IN_FLIGHT: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Token(AsciiMetadataValue);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Door = tonic::service::interceptor::InterceptedService<Channel, Token>;

/// A node process and how to talk to it.
struct Process {
    name: &'static str,
    dir: PathBuf,
    p2p: String,
    rpc: String,
    chain_rpc: String,
    child: Option<Child>,
}

impl Process {
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log.txt"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["--data-dir", self.dir.to_str().unwrap()])
            .args(["--rpc", &self.rpc])
            .arg("node")
            .args(["--network", "regtest", "--alias", self.name])
            .args(["--listen", &self.p2p])
            .args(["--bitcoind-url", &self.chain_rpc])
            .args(["--bitcoind-cookie", self.dir.join("cookie").to_str().unwrap()])
            .args(["--password-file", self.dir.join("password").to_str().unwrap()])
            .args(["--log", &std::env::var("KILL_LOG").unwrap_or_else(|_| "info".to_owned())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL: nothing of the process runs after this.
    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    async fn door(&self) -> Door {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(door) = self.try_door().await {
                return door;
            }
            assert!(Instant::now() < deadline, "{} does not answer:\n{}", self.name, self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn try_door(&self) -> Option<Door> {
        let cert = std::fs::read(self.dir.join("tls.crt")).ok()?;
        let token = std::fs::read_to_string(self.dir.join("admin.token")).ok()?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(cert))
            .domain_name("localhost");
        let channel = Channel::from_shared(format!("https://{}", self.rpc))
            .ok()?
            .tls_config(tls)
            .ok()?
            .connect()
            .await
            .ok()?;
        let token = Token(format!("Bearer {}", token.trim()).parse().ok()?);
        let door = tonic::service::interceptor::InterceptedService::new(channel, token);
        NodeClient::new(door.clone()).get_info(pb::GetInfoRequest {}).await.ok()?;
        Some(door)
    }

    fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log.txt")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

fn make(name: &'static str, root: &Path, chain_rpc: &str) -> Process {
    let dir = root.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
    let seed = NewSeed {
        phrase: &phrase,
        passphrase: "",
        password: "kill dash nine",
        cost: SealCost::insecure_for_tests(),
    };
    Keys::create(&dir, Network::Regtest, &seed, &OsEntropy).unwrap();
    std::fs::write(dir.join("password"), "kill dash nine").unwrap();
    std::fs::write(dir.join("cookie"), "any:thing").unwrap();
    Process {
        name,
        dir,
        p2p: free_address(),
        rpc: free_address(),
        chain_rpc: chain_rpc.to_owned(),
        child: None,
    }
}

async fn info(process: &Process) -> pb::NodeInfo {
    let mut node = NodeClient::new(process.door().await);
    node.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner()
}

async fn channels(process: &Process) -> Vec<pb::Channel> {
    let mut client = ChannelsClient::new(process.door().await);
    let list = client.list(pb::ListChannelsRequest::default()).await.unwrap().into_inner();
    list.channels
}

async fn wait_until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open(chain: &DevChain, from: &Process, to: &Process) {
    let node_id = info(to).await.node_id;
    let mut client = ChannelsClient::new(from.door().await);
    let request = pb::OpenChannelRequest {
        idempotency_key: format!("{}-{}", from.name, to.name),
        node_id,
        address: Some(to.p2p.clone()),
        capacity_sat: CAPACITY_SAT,
        ..pb::OpenChannelRequest::default()
    };
    client.open(request).await.unwrap();
    wait_until("funding transaction", || async {
        !chain.source().mempool().await.unwrap().is_empty()
    })
    .await;
    chain.mine(6).await.unwrap();
    wait_until("active channel", || async {
        let active = pb::ChannelState::Active as i32;
        let here = channels(from).await;
        !here.is_empty() && here.iter().all(|channel| channel.state == active)
    })
    .await;
}

/// Everything of one node's payment list, all pages.
async fn payments(process: &Process) -> Vec<pb::Payment> {
    let mut client = PaymentsClient::new(process.door().await);
    let mut all = Vec::new();
    let mut page_token = None;
    loop {
        let request = pb::ListPaymentsRequest {
            page_size: Some(1_000),
            page_token,
            ..pb::ListPaymentsRequest::default()
        };
        let page = client.list_payments(request).await.unwrap().into_inner();
        all.extend(page.payments);
        page_token = page.next_page_token;
        if page_token.is_none() {
            return all;
        }
    }
}

/// Pays without a pause until told to stop; every call that fails is tried again under its key.
async fn keep_paying(
    alice: Arc<tokio::sync::RwLock<Process>>,
    bob: Arc<tokio::sync::RwLock<Process>>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let invoice = retry(|| async {
            let mut client = PaymentsClient::new(bob.read().await.try_door().await?);
            let request = pb::CreateInvoiceRequest {
                idempotency_key: format!("invoice-{number}"),
                amount_msat: Some(1_000 + number % 900),
                ..pb::CreateInvoiceRequest::default()
            };
            client.create_invoice(request).await.ok().map(|invoice| invoice.into_inner().bolt11)
        })
        .await;
        let started = retry(|| async {
            let mut client = PaymentsClient::new(alice.read().await.try_door().await?);
            let request = pb::PayRequest {
                idempotency_key: format!("payment-{number}"),
                target: Some(pb::pay_request::Target::Bolt11Invoice(invoice.clone())),
                timeout_seconds: Some(20),
                ..pb::PayRequest::default()
            };
            match client.pay(request).await {
                Ok(_) => Some(true),
                // The channel is down for the moment: nothing was started under this key.
                Err(status) if status.code() == tonic::Code::FailedPrecondition => Some(false),
                Err(_) => None,
            }
        })
        .await;
        if !started {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn retry<T, F: Future<Output = Option<T>>>(call: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = call().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "a node did not come back in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The nodes' directories, removed at the end unless the test failed.
struct Root(Option<tempfile::TempDir>);

impl Root {
    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            println!("the nodes' directories and logs: {}", dir.keep().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_nodes_lose_and_double_nothing() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let seed: u64 =
        std::env::var("KILL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(rand::random);
    println!("KILL_SEED={seed} KILLS={kills}");
    let mut rng = StdRng::seed_from_u64(seed);
    let root = Root(Some(tempfile::tempdir().unwrap()));
    let tasks = Tasks::new();
    let chain = DevChain::embedded();
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await.unwrap());
    let mut processes = Vec::new();
    for name in NAMES {
        let mut process = make(name, root.path(), &chain_rpc);
        process.start();
        processes.push(process);
    }

    let mut funds = Vec::new();
    for process in &processes {
        let mut wallet = WalletClient::new(process.door().await);
        for coin in 0..2 {
            let request = pb::NewAddressRequest { idempotency_key: format!("coin-{coin}") };
            let address = wallet.new_address(request).await.unwrap().into_inner().address;
            let address: Address<_> = address.parse().unwrap();
            funds.push((address.assume_checked().script_pubkey(), Amount::from_sat(10_000_000)));
        }
    }
    chain.pay(&funds).await.unwrap();
    chain.mine(1).await.unwrap();
    for process in &processes {
        wait_until("coins", || async {
            let mut wallet = WalletClient::new(process.door().await);
            let balance = wallet.get_balance(pb::GetBalanceRequest {}).await.unwrap();
            balance.into_inner().confirmed_sat == 20_000_000
        })
        .await;
    }
    let [alice, hub, bob] = <[Process; 3]>::try_from(processes).ok().unwrap();
    open(&chain, &alice, &hub).await;
    open(&chain, &hub, &bob).await;

    let shared = [alice, hub, bob].map(|process| Arc::new(tokio::sync::RwLock::new(process)));
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let mut payers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (alice, bob) = (Arc::clone(&shared[0]), Arc::clone(&shared[2]));
        payers.spawn(keep_paying(alice, bob, Arc::clone(&stop), Arc::clone(&next)));
    }
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..600))).await;
        let victim = &shared[rng.random_range(0..3)];
        let mut process = victim.write().await;
        process.kill();
        if rng.random_bool(0.3) {
            // Sometimes the world goes on without it for a while.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
        }
        process.start();
        // The write lock is held until it answers: a node that does not come back fails here.
        process.door().await;
        if kill % 10 == 9 {
            println!("{} kills, {} payments begun", kill + 1, next.load(Ordering::Relaxed));
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(payer) = payers.join_next().await {
        payer.unwrap();
    }

    let [alice, hub, bob] = shared;
    let (alice, hub, bob) = (alice.read().await, hub.read().await, bob.read().await);
    let in_flight = pb::PaymentState::InFlight as i32;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = payments(&alice).await;
        let open: Vec<_> = list.iter().filter(|payment| payment.state == in_flight).collect();
        if open.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            for process in [&alice, &hub, &bob] {
                println!("{}: {:#?}", process.name, channels(process).await);
            }
            panic!("{} payments without an outcome: {open:#?}", open.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_until("quiet channels", || async {
        let all = [channels(&alice).await, channels(&hub).await, channels(&bob).await].concat();
        all.iter().all(|channel| channel.htlcs_offered == 0 && channel.htlcs_received == 0)
    })
    .await;

    let succeeded = pb::PaymentState::Succeeded as i32;
    let sent: HashMap<Vec<u8>, pb::Payment> = payments(&alice)
        .await
        .into_iter()
        .filter(|payment| payment.state == succeeded)
        .map(|payment| (payment.payment_hash.clone().unwrap(), payment))
        .collect();
    let received: HashMap<Vec<u8>, pb::Payment> = payments(&bob)
        .await
        .into_iter()
        .filter(|payment| payment.state == succeeded)
        .map(|payment| (payment.payment_hash.clone().unwrap(), payment))
        .collect();
    println!(
        "{} payments begun, {} arrived; {kills} kills",
        next.load(Ordering::Relaxed),
        sent.len()
    );
    assert!(sent.len() > kills as usize, "too few payments to show anything");
    for (hash, payment) in &sent {
        let theirs = received.get(hash).expect("what the payer says arrived, arrived");
        assert_eq!(theirs.amount_msat, payment.amount_msat);
    }
    assert_eq!(sent.len(), received.len(), "what arrived, the payer knows of");

    let total: u64 = sent.values().map(|payment| payment.amount_msat).sum();
    let fees: u64 = sent.values().map(|payment| payment.fee_msat.unwrap_or(0)).sum();
    let active = pb::ChannelState::Active as i32;
    let mut held = HashMap::new();
    for (process, count) in [(&*alice, 1), (&*hub, 2), (&*bob, 1)] {
        let channels = channels(process).await;
        assert_eq!(channels.len(), count, "{}", process.name);
        for channel in &channels {
            assert_eq!(channel.state, active, "no channel was closed: {channel:?}");
        }
        let balance: u64 = channels.iter().map(|channel| channel.holder_balance_msat).sum();
        held.insert(process.name, balance);
    }
    assert_eq!(held["alice"], CAPACITY_SAT * 1_000 - total - fees);
    assert_eq!(held["hub"], CAPACITY_SAT * 1_000 + fees);
    assert_eq!(held["bob"], total);
    drop((alice, hub, bob));
    tasks.stop().await;
}
