//! A bitcoind of our own on regtest: started, funded from its own coinbases, stopped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness, absolute, opcodes, transaction,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::chain::DevChainError;
use super::ports::free_port;
use crate::chain::bitcoind::{BitcoindChain, BitcoindConfig, BitcoindEndpoint, RpcAuth};
use crate::chain::bitcoind::{CallError, Endpoint};
use crate::chain::{ChainError, ChainSource};

/// How long the daemon may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to stop. It waits half a minute for idle RPC connections; its chain goes
/// with it, so it has nothing to lose.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Coinbases mined to the faucet; BIP 30's maturity leaves the first twenty spendable.
const PREMINE: u32 = 120;
/// Fee of a faucet payment with one input and `outputs` outputs, sat: above one sat per vbyte.
const fn faucet_fee(outputs: usize) -> u64 {
    400 + 60 * outputs as u64
}

/// A running daemon.
pub(super) struct Bitcoind {
    child: Mutex<Option<Child>>,
    endpoint: Endpoint,
    /// As a node sees it.
    pub(super) chain: BitcoindChain,
    coins: Mutex<Vec<(OutPoint, Amount)>>,
}

impl Bitcoind {
    /// Starts `exe` with its data in `dir` and mines the faucet's coins.
    pub(super) async fn start(exe: &Path, dir: &Path) -> Result<Self, DevChainError> {
        let failed = |detail: String| DevChainError::Bitcoind { exe: exe.to_owned(), detail };
        std::fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))?;
        let port = free_port().map_err(|error| failed(error.to_string()))?;
        let child = Command::new(exe)
            .arg("-regtest")
            .arg(format!("-datadir={}", dir.display()))
            .arg(format!("-rpcport={port}"))
            // The relay policy of the real network, no peers, and nothing to guess about fees.
            .args(["-listen=0", "-server=1", "-txindex=1", "-acceptnonstdtxn=0"])
            .args(["-rpcthreads=8", "-rpcworkqueue=256", "-printtoconsole=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut child = KillOnDrop(Some(child));
        let auth = RpcAuth::Cookie(dir.join("regtest").join(".cookie"));
        let url = format!("http://127.0.0.1:{port}");
        let endpoint =
            Endpoint::new(&url, auth.clone(), Duration::from_secs(60)).map_err(failed)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = call(&endpoint, "getblockcount", json!([])).await {
            let exited = child.0.as_mut().and_then(|child| child.try_wait().ok()).flatten();
            if Instant::now() > deadline || exited.is_some() {
                return Err(failed(format!("it does not answer: {error}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut config =
            BitcoindConfig::new(Network::Regtest, vec![BitcoindEndpoint { url, auth }]);
        config.poll = Duration::from_millis(20);
        let chain = BitcoindChain::connect(config).await?;
        let this =
            Self { child: Mutex::new(child.0.take()), endpoint, chain, coins: Mutex::default() };
        this.premine().await?;
        Ok(this)
    }

    async fn premine(&self) -> Result<(), DevChainError> {
        let first = self.chain.tip().await?.height + 1;
        self.generate(PREMINE, &faucet_script()).await?;
        let mut coins = Vec::new();
        for height in first..first + PREMINE - 100 {
            let Some(hash) = self.chain.block_hash(height).await? else {
                break;
            };
            let block = self.chain.block(hash).await?;
            let coinbase = &block.txdata[0];
            coins.push((
                OutPoint { txid: coinbase.compute_txid(), vout: 0 },
                coinbase.output[0].value,
            ));
        }
        *self.coins.lock() = coins;
        Ok(())
    }

    /// Mines blocks to `script`.
    pub(super) async fn generate(
        &self,
        blocks: u32,
        script: &ScriptBuf,
    ) -> Result<(), DevChainError> {
        self.call("generatetoaddress", json!([blocks, address(script)])).await?;
        Ok(())
    }

    /// Mines one block with `transactions` and no others.
    pub(super) async fn generate_exactly(
        &self,
        transactions: &[Transaction],
        script: &ScriptBuf,
    ) -> Result<(), DevChainError> {
        let raw: Vec<String> = transactions.iter().map(serialize_hex).collect();
        self.call("generateblock", json!([address(script), raw])).await?;
        Ok(())
    }

    /// Takes the last `depth` blocks off; their transactions go back to the mempool.
    pub(super) async fn invalidate(&self, depth: u32) -> Result<(), DevChainError> {
        let tip = self.chain.tip().await?;
        let height = tip.height.saturating_sub(depth) + 1;
        if let Some(hash) = self.chain.block_hash(height).await? {
            self.call("invalidateblock", json!([hash.to_string()])).await?;
        }
        Ok(())
    }

    /// Pays from the faucet's coins.
    pub(super) async fn pay(
        &self,
        payments: &[(ScriptBuf, Amount)],
    ) -> Result<Txid, DevChainError> {
        let mut outputs: Vec<TxOut> = payments
            .iter()
            .map(|(script, value)| TxOut { value: *value, script_pubkey: script.clone() })
            .collect();
        let wanted: Amount = outputs.iter().map(|output| output.value).sum();
        let fee = Amount::from_sat(faucet_fee(outputs.len() + 1));
        let (input, available) = {
            let mut coins = self.coins.lock();
            let at = coins.iter().position(|(_, value)| *value >= wanted + fee);
            let available = coins.iter().map(|(_, value)| *value).max().unwrap_or(Amount::ZERO);
            let at = at.ok_or(DevChainError::FaucetDry { wanted, available })?;
            coins.swap_remove(at)
        };
        let change = available - wanted - fee;
        outputs.push(TxOut { value: change, script_pubkey: faucet_script() });
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: input,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[anyone().as_bytes()]),
            }],
            output: outputs,
        };
        let txid = transaction.compute_txid();
        self.call("sendrawtransaction", json!([serialize_hex(&transaction)])).await?;
        let vout = u32::try_from(payments.len()).expect("a transaction has fewer outputs");
        self.coins.lock().push((OutPoint { txid, vout }, change));
        Ok(txid)
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, DevChainError> {
        Ok(call(&self.endpoint, method, params).await?)
    }

    /// Stops the daemon in good order.
    pub(super) async fn stop(&self) {
        let Some(mut child) = self.child.lock().take() else {
            return;
        };
        if let Err(error) = self.call("stop", json!([])).await {
            tracing::debug!(%error, "bitcoind is gone already");
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        drop(KillOnDrop(self.child.lock().take()));
    }
}

/// A daemon must not outlive the process that started it.
struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn call(endpoint: &Endpoint, method: &str, params: Value) -> Result<Value, ChainError> {
    let bad = |detail: String| ChainError::BadAnswer { call: method.to_owned(), detail };
    match endpoint.call(method, &params).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(bad(format!("{} ({})", error.message, error.code))),
        Err(CallError::Unavailable(detail)) => Err(ChainError::Unreachable(detail)),
        Err(CallError::Unauthorized) => Err(ChainError::Unauthorized { url: endpoint.url.clone() }),
        Err(CallError::Garbled(detail)) => Err(bad(detail)),
    }
}

fn address(script: &ScriptBuf) -> String {
    Address::from_script(script, Network::Regtest)
        .expect("the dev room mines to scripts that have an address")
        .to_string()
}

fn anyone() -> ScriptBuf {
    ScriptBuf::builder().push_opcode(opcodes::OP_TRUE).into_script()
}

/// Anyone may spend the faucet's coins: there is no key to keep, and no wallet watches it.
fn faucet_script() -> ScriptBuf {
    anyone().to_p2wsh()
}

/// Finds a bitcoind: `BITCOIND_EXE`, then `PATH`, then where the tests' support script keeps the
/// one it builds.
pub fn find_bitcoind() -> Option<PathBuf> {
    if let Some(exe) = std::env::var_os("BITCOIND_EXE") {
        return Some(PathBuf::from(exe));
    }
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("bitcoind")).find(|exe| exe.is_file())
    });
    on_path.or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
        let builds = std::fs::read_dir(cache.join("tributary").join("bitcoind")).ok()?;
        builds
            .filter_map(|build| Some(build.ok()?.path().join("bin").join("bitcoind")))
            .filter(|exe| exe.is_file())
            .max()
    })
}
