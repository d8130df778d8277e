//! A bitcoind on regtest: the process, and the few RPC calls that are needed of it.
//!
//! The daemon needs no wallet: blocks are mined to addresses of the nodes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::{Failure, until};

/// How the nodes sign in.
pub(crate) const USER: &str = "peers";
/// The password beside [`USER`]; the daemon listens on loopback only.
pub(crate) const PASSWORD: &str = "peers";
/// `USER:PASSWORD` in base64.
const AUTHORIZATION: &str = "cGVlcnM6cGVlcnM=";
const RPC_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// An output that nobody needs a key for.
const ANYONE: &str = "raw(51)";

/// A running daemon. Dropping it stops it.
pub(crate) struct Bitcoind {
    child: Child,
    rpc: SocketAddr,
}

impl Bitcoind {
    /// Starts `exe` on an empty chain below `dir` and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it does not start, or ends, or does not answer in time.
    pub(crate) fn start(exe: &Path, dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let rpc = free_address()?;
        let child = Command::new(exe)
            .arg(format!("-datadir={}", dir.display()))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-txindex=0"])
            .args(["-fallbackfee=0.0001", "-printtoconsole=0"])
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"])
            .arg(format!("-rpcport={}", rpc.port()))
            .arg(format!("-rpcuser={USER}"))
            .arg(format!("-rpcpassword={PASSWORD}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", exe.display()))?;
        let mut daemon = Self { child, rpc };
        until("bitcoind's first answer", || {
            if let Some(status) = daemon.child.try_wait()? {
                return Err(format!("bitcoind ended at its start: {status}").into());
            }
            Ok(daemon.call("getblockchaininfo", &json!([])).is_ok())
        })?;
        Ok(daemon)
    }

    /// Where the RPC interface is.
    pub(crate) fn rpc(&self) -> SocketAddr {
        self.rpc
    }

    /// Mines `count` blocks that pay to `address`.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub(crate) fn mine_to(&self, address: &str, count: u32) -> Result<(), Failure> {
        self.call("generatetoaddress", &json!([count, address])).map(drop)
    }

    /// Mines `count` blocks that pay to no one.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub(crate) fn mine(&self, count: u32) -> Result<(), Failure> {
        self.call("generatetodescriptor", &json!([count, ANYONE])).map(drop)
    }

    /// How many transactions wait to be mined.
    ///
    /// # Errors
    ///
    /// If the daemon does not say.
    pub(crate) fn mempool_size(&self) -> Result<usize, Failure> {
        let answer = self.call("getrawmempool", &json!([]))?;
        Ok(answer.as_array().ok_or("getrawmempool is not a list")?.len())
    }

    fn call(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let failed = |error: Failure| -> Failure { format!("bitcoind, {method}: {error}").into() };
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let answer = self.post(&body.to_string()).map_err(failed)?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(|e| failed(e.into()))?;
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(failed(error.to_string().into())),
        }
    }

    /// One HTTP request with a connection of its own.
    fn post(&self, body: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect_timeout(&self.rpc, RPC_PATIENCE)?;
        stream.set_read_timeout(Some(RPC_PATIENCE))?;
        stream.set_write_timeout(Some(RPC_PATIENCE))?;
        let length = body.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {AUTHORIZATION}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}",
            self.rpc
        );
        stream.write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or("no HTTP response")?;
        if body.is_empty() {
            return Err(head.lines().next().unwrap_or("an empty response").into());
        }
        Ok(body.to_owned())
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        let asked = self.call("stop", &json!([])).is_ok();
        let deadline = Instant::now() + STOP_PATIENCE;
        while asked && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The newest daemon that the project's tests have built.
///
/// # Errors
///
/// If there is none.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join("tributary/bitcoind");
    let built = |exe: &Path| -> Option<SystemTime> {
        exe.metadata().ok().filter(|file| file.is_file())?.modified().ok()
    };
    let versions = std::fs::read_dir(&cache).into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin/bitcoind"))
        .filter_map(|exe| Some((built(&exe)?, exe)))
        .max()
        .map(|(_, exe)| exe)
        .ok_or_else(|| {
            format!(
                "no bitcoind below {}; build one with `just bitcoind`, or name one with --bitcoind",
                cache.display()
            )
            .into()
        })
}

/// An address on loopback that nothing listens on.
///
/// # Errors
///
/// If the system has none.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
