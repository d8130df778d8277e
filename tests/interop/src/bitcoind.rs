//! A bitcoind on regtest: the process, and the RPC calls that the scenarios need.
//!
//! The daemon needs no wallet: blocks are mined to addresses of the nodes, or to no one.

use std::path::{Path, PathBuf};
use std::process::Command;

use hyper::Method;
use serde_json::{Value, json};

use crate::http::Http;
use crate::process::{Process, directory, free_address};
use crate::wait::{Failure, until};

/// How the nodes sign in; the daemon listens on loopback only.
pub const USER: &str = "interop";
/// The password beside [`USER`].
pub const PASSWORD: &str = "interop";
/// `USER:PASSWORD` in base64.
const AUTHORIZATION: &str = "Basic aW50ZXJvcDppbnRlcm9w";
/// An output that nobody needs a key for.
const ANYONE: &str = "raw(51)";
/// Blocks until a coinbase output may be spent.
const MATURITY: u32 = 100;

/// A running daemon. Dropping it stops it.
pub struct Bitcoind {
    process: Process,
    http: Http,
    dir: PathBuf,
}

impl Bitcoind {
    /// Starts `exe` on an empty chain below `root` and waits until it answers. Its miner leaves
    /// packages out that pay less than `block_min_sat_per_vb`.
    ///
    /// # Errors
    ///
    /// If it does not start, or ends, or does not answer in time.
    pub async fn start(
        exe: &Path,
        root: &Path,
        block_min_sat_per_vb: u64,
    ) -> Result<Self, Failure> {
        let dir = directory(root, "bitcoind")?;
        let rpc = free_address()?;
        // A decimal of bitcoin per 1,000 virtual bytes.
        let block_min_fee = format!("0.{:08}", block_min_sat_per_vb * 1_000);
        let mut command = Command::new(exe);
        command
            .arg(format!("-datadir={}", dir.display()))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-txindex=1"])
            .args(["-fallbackfee=0.0001", "-printtoconsole=0", "-acceptnonstdtxn=0"])
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-rpcthreads=16"])
            .args(["-rpcworkqueue=256"])
            .arg(format!("-blockmintxfee={block_min_fee}"))
            .arg(format!("-rpcport={}", rpc.port()))
            .arg(format!("-rpcuser={USER}"))
            .arg(format!("-rpcpassword={PASSWORD}"));
        let process = Process::new(root.join("bitcoind.log"));
        process.start(command)?;
        let daemon = Self { process, http: Http::new(rpc, Some(AUTHORIZATION.to_owned())), dir };
        until("bitcoind's first answer", async || {
            if daemon.process.has_ended() {
                return Err(format!("bitcoind ended: {}", daemon.process.tail(5)).into());
            }
            Ok(daemon.height().await.is_ok())
        })
        .await?;
        Ok(daemon)
    }

    /// Where the RPC interface is.
    pub fn rpc(&self) -> std::net::SocketAddr {
        self.http.server()
    }

    /// A file with `USER:PASSWORD`, as a cookie of the daemon would be.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn cookie(&self) -> Result<PathBuf, Failure> {
        let file = self.dir.join("interop.cookie");
        std::fs::write(&file, format!("{USER}:{PASSWORD}"))?;
        Ok(file)
    }

    /// Height of the tip.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub async fn height(&self) -> Result<u32, Failure> {
        let height = self.call("getblockcount", json!([])).await?;
        Ok(u32::try_from(height.as_u64().ok_or("getblockcount is no number")?)?)
    }

    /// Mines one block for each of `addresses` and makes what they pay spendable.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub async fn endow(&self, addresses: &[String]) -> Result<(), Failure> {
        for address in addresses {
            self.call("generatetoaddress", json!([1, address])).await?;
        }
        self.mine(MATURITY).await
    }

    /// Mines `count` blocks that pay to no one.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub async fn mine(&self, count: u32) -> Result<(), Failure> {
        self.call("generatetodescriptor", json!([count, ANYONE])).await.map(drop)
    }

    /// Mines `count` blocks without any transaction of the mempool.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub async fn mine_empty(&self, count: u32) -> Result<(), Failure> {
        for _ in 0..count {
            self.call("generateblock", json!([ANYONE, []])).await?;
        }
        Ok(())
    }

    /// Takes the newest `count` blocks off the chain for good.
    ///
    /// # Errors
    ///
    /// If the daemon refuses.
    pub async fn unmine(&self, count: u32) -> Result<(), Failure> {
        let lowest = self.height().await? + 1 - count;
        let hash = self.call("getblockhash", json!([lowest])).await?;
        self.call("invalidateblock", json!([hash])).await.map(drop)
    }

    /// Ids of the transactions that wait to be mined.
    ///
    /// # Errors
    ///
    /// If the daemon does not say.
    pub async fn mempool(&self) -> Result<Vec<String>, Failure> {
        let answer = self.call("getrawmempool", json!([])).await?;
        Ok(serde_json::from_value(answer)?)
    }

    /// What the mempool knows of a transaction: its own fee and that of its package; none if it is
    /// not there.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub async fn mempool_entry(&self, txid: &str) -> Result<Option<MempoolEntry>, Failure> {
        let Ok(entry) = self.call("getmempoolentry", json!([txid])).await else {
            return Ok(None);
        };
        let sat = |value: &Value| -> Result<u64, Failure> {
            let bitcoin = value.as_f64().ok_or("a fee is no number")?;
            Ok((bitcoin * 1e8).round() as u64)
        };
        Ok(Some(MempoolEntry {
            vsize: entry["vsize"].as_u64().ok_or("no vsize")?,
            fee_sat: sat(&entry["fees"]["base"])?,
            package_vsize: entry["descendantsize"].as_u64().ok_or("no descendantsize")?,
            package_fee_sat: sat(&entry["fees"]["descendant"])?,
        }))
    }

    /// Confirmations of a transaction; 0 if it is not in a block of the chain.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub async fn confirmations(&self, txid: &str) -> Result<u64, Failure> {
        let answer = self.call("getrawtransaction", json!([txid, true])).await;
        Ok(answer.ok().and_then(|tx| tx["confirmations"].as_u64()).unwrap_or(0))
    }

    /// The transaction that spends output `index` of `txid`, in mempool or chain, if one does.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub async fn spender(&self, txid: &str, index: u32) -> Result<Option<String>, Failure> {
        for candidate in self.mempool().await? {
            let Ok(tx) = self.call("getrawtransaction", json!([candidate, true])).await else {
                continue;
            };
            let spends = |input: &Value| input["txid"] == txid && input["vout"] == index;
            if tx["vin"].as_array().is_some_and(|inputs| inputs.iter().any(spends)) {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let failed = |error: Failure| -> Failure { format!("bitcoind, {method}: {error}").into() };
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let mut answer = self.http.call(Method::POST, "/", Some(&body)).await.map_err(failed)?;
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(failed(error.to_string().into())),
        }
    }

    /// Asks the daemon to stop and waits for it.
    pub async fn stop(&self) {
        let _ = self.call("stop", json!([])).await;
        self.process.ended();
    }
}

/// A transaction in the mempool, and what waits on it.
#[derive(Debug, Clone, Copy)]
pub struct MempoolEntry {
    /// Virtual bytes.
    pub vsize: u64,
    /// Its own fee.
    pub fee_sat: u64,
    /// Virtual bytes with all descendants.
    pub package_vsize: u64,
    /// Fee with all descendants.
    pub package_fee_sat: u64,
}
