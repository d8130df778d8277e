//! Real node processes on a chain that the test serves.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::{Address, Amount, Network};
use node::dev::{DevChain, free_port};
use node::environment::OsEntropy;
use node::keys::{Keys, NewSeed, RecoveryPhrase, SealCost, WordCount};
use proto::v1::channels_client::ChannelsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::wallet_client::WalletClient;
use proto::v1::{self as pb};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status};

/// How long anything may take before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Token(AsciiMetadataValue);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub type Door = tonic::service::interceptor::InterceptedService<Channel, Token>;

/// A node process and how to talk to it.
pub struct Process {
    pub name: &'static str,
    pub dir: PathBuf,
    pub p2p: String,
    pub rpc: String,
    /// REST, where `with_rest` asked for it.
    pub rest: String,
    chain_rpc: String,
    child: Option<Child>,
}

impl Process {
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log.txt"))
            .unwrap();
        let child = Command::new(executable())
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

    /// Serves REST as well, from the next start on.
    pub fn with_rest(&mut self) {
        self.rest = free_address();
        let setting = format!("[rest]\nlisten = {:?}\n", self.rest);
        std::fs::write(self.dir.join("config.toml"), setting).unwrap();
    }

    /// The process, while it runs.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Whether it has not ended by itself.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// SIGKILL: nothing of the process runs after this.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub async fn door(&self) -> Door {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(door) = self.try_door().await {
                return door;
            }
            assert!(Instant::now() < deadline, "{} does not answer:\n{}", self.name, self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn try_door(&self) -> Option<Door> {
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

    pub fn tail(&self) -> String {
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

/// The program that is tried: the one built beside the test, or the one `TRIBUTARY_EXE` names.
fn executable() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_tributary");
    std::env::var_os("TRIBUTARY_EXE").map_or_else(|| built.into(), PathBuf::from)
}

pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

pub fn make(name: &'static str, root: &Path, chain_rpc: &str) -> Process {
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
        rest: String::new(),
        chain_rpc: chain_rpc.to_owned(),
        child: None,
    }
}

pub async fn info(process: &Process) -> pb::NodeInfo {
    let mut node = NodeClient::new(process.door().await);
    node.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner()
}

pub async fn channels(process: &Process) -> Vec<pb::Channel> {
    let mut client = ChannelsClient::new(process.door().await);
    let list = client.list(pb::ListChannelsRequest::default()).await.unwrap().into_inner();
    list.channels
}

pub async fn wait_until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn open(chain: &DevChain, from: &Process, to: &Process, capacity_sat: u64) {
    let node_id = info(to).await.node_id;
    let mut client = ChannelsClient::new(from.door().await);
    let request = pb::OpenChannelRequest {
        idempotency_key: format!("{}-{}-{}", from.name, to.name, free_address()),
        node_id,
        address: Some(to.p2p.clone()),
        capacity_sat,
        ..pb::OpenChannelRequest::default()
    };
    let record_id = client.open(request).await.unwrap().into_inner().record_id;
    wait_until("funding transaction", || async {
        !chain.source().mempool().await.unwrap().is_empty()
    })
    .await;
    chain.mine(6).await.unwrap();
    wait_until("active channel", || async {
        let active = pb::ChannelState::Active as i32;
        let here = channels(from).await;
        here.iter().any(|channel| channel.record_id == record_id && channel.state == active)
    })
    .await;
}

/// Gives each two coins of so many satoshis.
pub async fn fund(chain: &DevChain, processes: &[&Process], coin_sat: u64) {
    let mut funds = Vec::new();
    let mut before = Vec::new();
    for process in processes {
        let mut wallet = WalletClient::new(process.door().await);
        let balance = wallet.get_balance(pb::GetBalanceRequest {}).await.unwrap().into_inner();
        before.push(balance.confirmed_sat);
        for _ in 0..2 {
            let request = pb::NewAddressRequest { idempotency_key: free_address() };
            let address = wallet.new_address(request).await.unwrap().into_inner().address;
            let address: Address<_> = address.parse().unwrap();
            funds.push((address.assume_checked().script_pubkey(), Amount::from_sat(coin_sat)));
        }
    }
    chain.pay(&funds).await.unwrap();
    chain.mine(1).await.unwrap();
    for (process, before) in processes.iter().zip(before) {
        wait_until("coins", || async {
            let mut wallet = WalletClient::new(process.door().await);
            let balance = wallet.get_balance(pb::GetBalanceRequest {}).await.unwrap();
            balance.into_inner().confirmed_sat >= before + 2 * coin_sat
        })
        .await;
    }
}

/// The nodes' directories, removed at the end unless the test failed.
pub struct Root(Option<tempfile::TempDir>);

impl Root {
    pub fn new() -> Self {
        Self(Some(tempfile::tempdir().unwrap()))
    }

    pub fn path(&self) -> &Path {
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
