//! Nodes as processes of their own, driven over gRPC as any client would.
//!
//! The chain is an embedded one that this process serves as bitcoind's RPC interface; nodes,
//! stores, peers' links and the API are the real ones. Everything stays on loopback.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::{Address, Amount, Network, ScriptBuf};
use node::dev::{DevChain, free_port};
use node::environment::OsEntropy;
use node::keys::{Keys, NewSeed, RecoveryPhrase, SealCost, WordCount};
use proto::v1 as pb;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::wallet_client::WalletClient;
use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status};

use crate::Failure;

const PASSWORD: &str = "a benchmark has no secrets";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);
/// LDK lets one peer have this many channels to us that are not confirmed.
const UNCONFIRMED_MAX: usize = 4;

/// Adds the node's token to each call.
#[derive(Clone)]
pub struct Token(AsciiMetadataValue);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connection to a node's API.
pub type Door = InterceptedService<Channel, Token>;

/// A node process.
pub struct NodeProcess {
    /// Its name.
    pub name: String,
    /// Where peers reach it.
    pub address: String,
    exe: PathBuf,
    dir: PathBuf,
    rpc: String,
    chain_rpc: String,
    child: Option<Child>,
}

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
}

impl Memory {
    fn read(status: &str) -> Result<Self, Failure> {
        let field = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(name)?;
            let kib = line.trim().trim_end_matches(" kB").parse::<u64>()?;
            Ok(kib * 1_024)
        };
        Ok(Self { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Bytes that went to the disk, by the kernel's count.
    pub disk_bytes: u64,
}

/// The `tributary` beside this program.
///
/// # Errors
///
/// If it has not been built.
pub fn tributary() -> Result<PathBuf, Failure> {
    let exe = std::env::current_exe()?.with_file_name("tributary");
    if exe.is_file() {
        return Ok(exe);
    }
    Err(format!(
        "{} is not there; build it first: cargo build --release -p node --bin tributary",
        exe.display()
    )
    .into())
}

impl NodeProcess {
    /// Makes a node's directory under `root` and starts the node. `cost` seals its seed.
    ///
    /// # Errors
    ///
    /// If a file cannot be written or the program does not start.
    pub fn create(
        exe: &Path,
        root: &Path,
        name: &str,
        chain_rpc: &str,
        cost: SealCost,
    ) -> Result<Self, Failure> {
        Self::configured(exe, root, name, chain_rpc, cost, "")
    }

    /// As [`NodeProcess::create`], with the text of a configuration.
    ///
    /// # Errors
    ///
    /// As [`NodeProcess::create`].
    pub fn configured(
        exe: &Path,
        root: &Path,
        name: &str,
        chain_rpc: &str,
        cost: SealCost,
        config: &str,
    ) -> Result<Self, Failure> {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("config.toml"), config)?;
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
        let seed = NewSeed { phrase: &phrase, passphrase: "", password: PASSWORD, cost };
        Keys::create(&dir, Network::Regtest, &seed, &OsEntropy)?;
        std::fs::write(dir.join("password"), PASSWORD)?;
        std::fs::write(dir.join("cookie"), "any:thing")?;
        let mut process = Self {
            name: name.to_owned(),
            address: free_address()?,
            exe: exe.to_owned(),
            dir,
            rpc: free_address()?,
            chain_rpc: chain_rpc.to_owned(),
            child: None,
        };
        process.start()?;
        Ok(process)
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn start(&mut self) -> Result<(), Failure> {
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.join("log.txt"))?;
        let child = Command::new(&self.exe)
            .arg("--data-dir")
            .arg(&self.dir)
            .args(["--rpc", &self.rpc, "node"])
            .args(["--network", "regtest", "--alias", &self.name])
            .args(["--listen", &self.address])
            .args(["--bitcoind-url", &self.chain_rpc])
            .arg("--bitcoind-cookie")
            .arg(self.dir.join("cookie"))
            .arg("--password-file")
            .arg(self.dir.join("password"))
            .args(["--log", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the process at once: what it has on disk is what it starts from.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until the node answers as ready, and returns the way in.
    ///
    /// # Errors
    ///
    /// If it does not within a minute; the end of its log is in the error.
    pub async fn door(&self) -> Result<Door, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(door) = self.try_door().await {
                return Ok(door);
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.join("log.txt")).unwrap_or_default();
                let tail = log.lines().rev().take(20).collect::<Vec<_>>();
                let tail: Vec<_> = tail.into_iter().rev().collect();
                return Err(format!("{} does not answer:\n{}", self.name, tail.join("\n")).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn try_door(&self) -> Option<Door> {
        let cert = std::fs::read(self.dir.join("tls.crt")).ok()?;
        let token = std::fs::read_to_string(self.dir.join("admin.token")).ok()?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(cert))
            .domain_name("localhost");
        let endpoint = Channel::from_shared(format!("https://{}", self.rpc)).ok()?;
        let channel = endpoint.tls_config(tls).ok()?.connect().await.ok()?;
        let token = Token(format!("Bearer {}", token.trim()).parse().ok()?);
        let door = InterceptedService::new(channel, token);
        NodeClient::new(door.clone()).get_info(pb::GetInfoRequest {}).await.ok()?;
        Some(door)
    }

    /// The node's id, 33 bytes.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn node_id(&self) -> Result<Vec<u8>, Failure> {
        let mut node = NodeClient::new(self.door().await?);
        Ok(node.get_info(pb::GetInfoRequest {}).await?.into_inner().node_id)
    }

    /// `count` fresh addresses.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn addresses(&self, count: usize) -> Result<Vec<ScriptBuf>, Failure> {
        let mut wallet = WalletClient::new(self.door().await?);
        let mut scripts = Vec::with_capacity(count);
        for coin in 0..count {
            let idempotency_key = format!("coin-{coin}");
            let request = pb::NewAddressRequest { idempotency_key };
            let address = wallet.new_address(request).await?.into_inner().address;
            let address: Address<_> = address.parse()?;
            scripts.push(address.assume_checked().script_pubkey());
        }
        Ok(scripts)
    }

    /// The node's channels.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn channels(&self, door: &Door) -> Result<Vec<pb::Channel>, Failure> {
        let mut client = ChannelsClient::new(door.clone());
        let request = pb::ListChannelsRequest {
            page_size: Some(1_000),
            ..pb::ListChannelsRequest::default()
        };
        Ok(client.list(request).await?.into_inner().channels)
    }

    /// What the process has in memory.
    ///
    /// # Errors
    ///
    /// If it does not run, or the system does not say.
    pub fn memory(&self) -> Result<Memory, Failure> {
        Memory::read(&self.proc_file("status")?)
    }

    /// What the process has used since its start.
    ///
    /// # Errors
    ///
    /// If it does not run, or the system does not say.
    pub fn usage(&self) -> Result<Usage, Failure> {
        let stat = self.proc_file("stat")?;
        // The command's name may hold blanks; fields are counted from behind it.
        let fields: Vec<&str> =
            stat.rsplit_once(')').ok_or("odd stat")?.1.split_whitespace().collect();
        let ticks = |at: usize| -> Result<u64, Failure> {
            Ok(fields.get(at).ok_or("short stat")?.parse()?)
        };
        // Linux reports in ticks of 10 ms on every platform it supports.
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 10);
        let io = self.proc_file("io")?;
        let disk_bytes = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes:"))
            .ok_or("odd io")?
            .trim()
            .parse()?;
        Ok(Usage { cpu, disk_bytes })
    }

    /// Bytes of its store's files.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn data_bytes(&self) -> Result<u64, Failure> {
        bytes_below(&self.dir.join("store"))
    }

    fn proc_file(&self, name: &str) -> Result<String, Failure> {
        let child = self.child.as_ref().ok_or("the process does not run")?;
        Ok(std::fs::read_to_string(format!("/proc/{}/{name}", child.id()))?)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Pays `count` coins of `each` to `process` and waits until it counts them.
///
/// # Errors
///
/// If the chain or the node refuses.
pub async fn fund(
    chain: &DevChain,
    process: &NodeProcess,
    each: Amount,
    count: usize,
) -> Result<(), Failure> {
    let coins: Vec<_> =
        process.addresses(count).await?.into_iter().map(|script| (script, each)).collect();
    for some in coins.chunks(50) {
        chain.pay(some).await?;
    }
    chain.mine(1).await?;
    let mut wallet = WalletClient::new(process.door().await?);
    until("coins", async || {
        let balance = wallet.get_balance(pb::GetBalanceRequest {}).await?.into_inner();
        Ok(balance.confirmed_sat >= each.to_sat() * count as u64)
    })
    .await
}

fn bytes_below(dir: &Path) -> Result<u64, Failure> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file of the store may go while it is looked at.
        let Ok(about) = entry.metadata() else { continue };
        sum += if about.is_dir() { bytes_below(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}

/// Opens `count` channels from `from` to `to`, announced if `public`, and waits until all are active at both ends.
///
/// # Errors
///
/// If a node refuses.
pub async fn open(
    chain: &DevChain,
    from: &NodeProcess,
    to: &NodeProcess,
    capacity_sat: u64,
    count: usize,
    public: bool,
) -> Result<(), Failure> {
    let node_id = to.node_id().await?;
    let (here, there) = (from.door().await?, to.door().await?);
    let (before_here, before_there) =
        (from.channels(&here).await?.len(), to.channels(&there).await?.len());
    let mut client = ChannelsClient::new(here.clone());
    let active = |channels: Vec<pb::Channel>| {
        let state = pb::ChannelState::Active as i32;
        channels.iter().filter(|channel| channel.state == state).count()
    };
    for number in 1..=count {
        let request = pb::OpenChannelRequest {
            idempotency_key: format!("{}-{}-{number}", from.name, to.name),
            node_id: node_id.clone(),
            address: Some(to.address.clone()),
            capacity_sat,
            public,
            ..pb::OpenChannelRequest::default()
        };
        client.open(request).await?;
        let unconfirmed = (number - 1) % UNCONFIRMED_MAX + 1;
        until("a funding transaction", async || {
            Ok(chain.source().mempool().await?.len() == unconfirmed)
        })
        .await?;
        if unconfirmed == UNCONFIRMED_MAX || number == count {
            chain.mine(6).await?;
            until("active channels", async || {
                Ok(active(from.channels(&here).await?) == before_here + number
                    && active(to.channels(&there).await?) == before_there + number)
            })
            .await?;
        }
    }
    Ok(())
}

/// Waits until `done` says so.
///
/// # Errors
///
/// If `done` fails, or does not say so within a minute.
pub async fn until(
    what: &str,
    mut done: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !done().await? {
        if Instant::now() > deadline {
            return Err(format!("{what} did not come within {} s", PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn free_address() -> std::io::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}
