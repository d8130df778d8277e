//! Side by side with a real Bitcoin Core: the same blocks, the same transactions, the same
//! answers. Skipped where `BITCOIND_EXE` and `PATH` have none.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bitcoin::consensus::encode::serialize_hex;

use super::super::*;
use crate::chain::embedded::EmbeddedChain;
use crate::chain::embedded::tests::bench::*;
use crate::chain::embedded::tests::cases;
use crate::chain::{Broadcaster, FeeSource};

/// A process that ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Daemon {
    _process: Process,
    chain: BitcoindChain,
    /// Height up to which it has the embedded chain's blocks.
    fed: u32,
    _folder: tempfile::TempDir,
}

fn executable() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BITCOIND_EXE") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("bitcoind")).find(|file| file.is_file())
}

impl Daemon {
    async fn start() -> Option<Self> {
        let Some(executable) = executable() else {
            eprintln!("skipped: no bitcoind");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(executable)
            .arg(format!("-datadir={}", folder.path().display()))
            .arg(format!("-rpcport={port}"))
            .args(["-regtest", "-server", "-listen=0", "-printtoconsole=0", "-dnsseed=0"])
            .args(["-acceptnonstdtxn=0", "-minrelaytxfee=0.00001", "-incrementalrelayfee=0.00001"])
            // The chain's time stands still in the past.
            .arg("-maxtipage=4000000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap();
        let endpoint = BitcoindEndpoint {
            url: format!("http://127.0.0.1:{port}"),
            auth: RpcAuth::Cookie(folder.path().join("regtest/.cookie")),
        };
        let config = BitcoindConfig {
            poll: Duration::from_millis(20),
            ..BitcoindConfig::new(Network::Regtest, vec![endpoint])
        };
        for _ in 0..600 {
            if let Ok(chain) = BitcoindChain::connect(config.clone()).await {
                return Some(Self { _process: process, chain, fed: 0, _folder: folder });
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("bitcoind does not answer within a minute");
    }

    /// Gives it the blocks of `chain` from height `from` on.
    async fn feed(&mut self, chain: &EmbeddedChain, from: u32) {
        for block in &chain.export()[from as usize - 1..] {
            let verdict =
                self.chain.ask("submitblock", json!([serialize_hex(block)]), sure).await.unwrap();
            let fine = verdict.is_null() || verdict == "inconclusive" || verdict == "duplicate";
            assert!(fine, "bitcoind says of our block: {verdict}");
        }
        self.fed = chain.best().height;
        assert_eq!(self.chain.tip().await.unwrap(), chain.best());
    }

    async fn follow(&mut self, chain: &EmbeddedChain) {
        self.feed(chain, self.fed + 1).await;
    }
}

/// Where the two may use different words for the same refusal.
fn same_word(ours: &str, theirs: &str) -> bool {
    match ours {
        // Decoding fails before the rule is looked at.
        "bad-txns-vin-empty" => theirs.starts_with("TX decode failed"),
        "package-not-sorted" | "package-not-child-with-parents" => {
            theirs.starts_with("package topology disallowed")
        }
        // Theirs adds the interpreter's reason.
        "mempool-script-verify-flag-failed" => theirs.starts_with(ours),
        _ => ours == theirs,
    }
}

#[tokio::test]
async fn embedded_policy_is_that_of_bitcoin_core() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let chain = chain();
    let cases = cases::all(&chain);
    daemon.follow(&chain).await;
    let mut steps = 0;
    let mut differences = Vec::new();
    for case in cases {
        for (step, (package, _)) in case.steps.iter().enumerate() {
            let ours = word(chain.accept(package));
            let theirs = word(daemon.chain.submit(package).await);
            if !same_word(&ours, &theirs) {
                let name = case.name;
                differences.push(format!("{name}, step {step}: ours {ours:?}, theirs {theirs:?}"));
            }
            steps += 1;
        }
        let mut ours = chain.mempool().await.unwrap();
        let mut theirs = daemon.chain.mempool().await.unwrap();
        ours.sort();
        theirs.sort();
        if ours != theirs {
            differences.push(format!("{}: the mempools differ", case.name));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    eprintln!("{steps} submissions, one verdict");
    // And it accepts our block of all that, and our reorg away from it.
    let before = chain.best().height;
    chain.mine(1, &sink());
    daemon.follow(&chain).await;
    assert!(daemon.chain.mempool().await.unwrap().is_empty());
    chain.reorg(2, 4).unwrap();
    daemon.feed(&chain, before).await;
}

#[tokio::test]
async fn bitcoind_answers_as_the_embedded_chain_does() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let chain = chain();
    let coins = coins(&chain, 100_000, 0..2);
    daemon.follow(&chain).await;
    let tx = spend(2, &[&coins[0]], vec![pay(1, 99_000)]);
    let txid = tx.compute_txid();
    let both: [&dyn ChainSource; 2] = [&chain, &daemon.chain];
    chain.submit(std::slice::from_ref(&tx)).await.unwrap();
    daemon.chain.submit(std::slice::from_ref(&tx)).await.unwrap();
    let best = chain.best();
    let unknown = chain.export()[0].txdata[0].compute_txid();
    let no_block = BlockHash::from_raw_hash(unknown.to_raw_hash());
    for source in both {
        assert_eq!(source.network(), Network::Regtest);
        assert_eq!(source.tip().await.unwrap(), best);
        assert_eq!(source.block_hash(best.height).await.unwrap(), Some(best.hash));
        assert_eq!(source.block_hash(best.height + 1).await.unwrap(), None);
        assert_eq!(source.height_of(best.hash).await.unwrap(), Some(best.height));
        assert_eq!(source.height_of(no_block).await.unwrap(), None);
        assert_eq!(source.block(best.hash).await.unwrap().block_hash(), best.hash);
        let error = source.block(no_block).await.unwrap_err();
        assert!(matches!(error, ChainError::UnknownBlock(h) if h == no_block), "{error}");
        assert_eq!(source.mempool().await.unwrap(), vec![txid]);
        assert_eq!(source.mempool_transaction(txid).await.unwrap(), Some(tx.clone()));
        assert_eq!(source.mempool_transaction(coins[0].outpoint.txid).await.unwrap(), None);
        assert_eq!(source.transaction_status(txid).await.unwrap(), TxStatus::Mempool);
        let confirmed = source.transaction_status(coins[0].outpoint.txid).await.unwrap();
        assert_eq!(confirmed, TxStatus::Confirmed(best));
        let nothing = Txid::from_raw_hash(best.hash.to_raw_hash());
        assert_eq!(source.transaction_status(nothing).await.unwrap(), TxStatus::Unknown);
        // The mempool does not count.
        let output = source.unspent_output(coins[0].outpoint).await.unwrap();
        assert_eq!(output, Some(pay(0, 100_000)));
        let missing = OutPoint::new(nothing, 0);
        assert_eq!(source.unspent_output(missing).await.unwrap(), None);
    }
    assert_eq!(daemon.chain.mempool_minimum().await.unwrap().to_sat_per_kwu(), 250);
    assert_eq!(daemon.chain.estimate(6).await.unwrap(), None);
    chain.mine(1, &sink());
    let waiting = tokio::spawn({
        let source = daemon.chain.clone();
        async move { source.changed(best.hash).await }
    });
    daemon.follow(&chain).await;
    waiting.await.unwrap();
    // Confirmed: submitting it again is no error, spent or not.
    daemon.chain.submit(&[tx]).await.unwrap();
    assert_eq!(daemon.chain.unspent_output(coins[0].outpoint).await.unwrap(), None);
    let lost = chain.best();
    chain.reorg(1, 2).unwrap();
    daemon.feed(&chain, lost.height).await;
    for source in [&chain as &dyn ChainSource, &daemon.chain] {
        assert_eq!(source.height_of(lost.hash).await.unwrap(), None);
        assert_eq!(source.block(lost.hash).await.unwrap().block_hash(), lost.hash);
        assert_eq!(source.transaction_status(txid).await.unwrap(), TxStatus::Mempool);
    }
}
