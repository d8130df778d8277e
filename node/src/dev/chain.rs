//! The private chain: embedded in this process, or a bitcoind that this room runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bitcoin::{Amount, ScriptBuf, Transaction, Txid};
use parking_lot::Mutex;

use super::bitcoind::{Bitcoind, find_bitcoind};
use crate::chain::embedded::{BlockError, EmbeddedChain, EmbeddedConfig, FundError};
use crate::chain::{BlockRef, Broadcaster, ChainError, ChainSource, FeeSource, TxStatus};
use crate::environment::{Committing, Environment, OsEntropy, SystemClock, TcpLinks};
use crate::store::Store;

/// Why the private chain does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DevChainError {
    /// The faucet.
    #[error(transparent)]
    Fund(#[from] FundError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// There is no daemon to run.
    #[error("no bitcoind: set BITCOIND_EXE, put one on PATH, or run tests/support/bitcoind.sh")]
    NoBitcoind,
    /// The daemon does not run.
    #[error("{exe} does not run: {detail}")]
    Bitcoind {
        /// It.
        exe: PathBuf,
        /// Why.
        detail: String,
    },
    /// The daemon's faucet has no coin that large.
    #[error("the faucet has no coin of {wanted}, its largest is {available}")]
    FaucetDry {
        /// What was asked.
        wanted: Amount,
        /// Its largest coin.
        available: Amount,
    },
    /// The branch could not be made.
    #[error(transparent)]
    Branch(#[from] BlockError),
}

/// A regtest chain that mines on command. Cheap to clone.
#[derive(Clone)]
pub struct DevChain {
    backend: Backend,
    paid: Arc<Mutex<Paid>>,
    first_height: u32,
    /// Branches mined so far.
    reorgs: Arc<AtomicI64>,
}

#[derive(Clone)]
enum Backend {
    Embedded(EmbeddedChain),
    Bitcoind(Arc<Bitcoind>),
}

#[derive(Default)]
struct Paid {
    amount: Amount,
    transactions: Vec<Txid>,
}

impl DevChain {
    /// The chain inside this process.
    pub fn embedded() -> Self {
        let chain = EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(SystemClock));
        let first_height = chain.best().height;
        let backend = Backend::Embedded(chain);
        Self { backend, paid: Arc::default(), first_height, reorgs: Arc::default() }
    }

    /// A bitcoind of our own, `exe` or the first that is found, with its data in `dir`.
    ///
    /// # Errors
    ///
    /// [`DevChainError::NoBitcoind`] if none is found, [`DevChainError::Bitcoind`] if it does
    /// not run.
    pub async fn bitcoind(exe: Option<&Path>, dir: &Path) -> Result<Self, DevChainError> {
        let exe = exe.map(Path::to_owned).or_else(find_bitcoind);
        let exe = exe.ok_or(DevChainError::NoBitcoind)?;
        let bitcoind = Bitcoind::start(&exe, dir).await?;
        let first_height = bitcoind.chain.tip().await?.height;
        let backend = Backend::Bitcoind(Arc::new(bitcoind));
        Ok(Self { backend, paid: Arc::default(), first_height, reorgs: Arc::default() })
    }

    /// The embedded chain, if it is that.
    pub fn as_embedded(&self) -> Option<&EmbeddedChain> {
        match &self.backend {
            Backend::Embedded(chain) => Some(chain),
            Backend::Bitcoind(_) => None,
        }
    }

    /// Which it is, for people.
    pub fn name(&self) -> &'static str {
        match &self.backend {
            Backend::Embedded(_) => "embedded",
            Backend::Bitcoind(_) => "bitcoind",
        }
    }

    /// Its blocks, for a node.
    pub fn source(&self) -> Arc<dyn ChainSource> {
        match &self.backend {
            Backend::Embedded(chain) => Arc::new(chain.clone()),
            Backend::Bitcoind(bitcoind) => Arc::new(bitcoind.chain.clone()),
        }
    }

    /// Its mempool, for a node.
    pub fn broadcaster(&self) -> Arc<dyn Broadcaster> {
        match &self.backend {
            Backend::Embedded(chain) => Arc::new(chain.clone()),
            Backend::Bitcoind(bitcoind) => Arc::new(bitcoind.chain.clone()),
        }
    }

    /// Its feerates, for a node.
    pub fn fees(&self) -> Arc<dyn FeeSource> {
        match &self.backend {
            Backend::Embedded(chain) => Arc::new(chain.clone()),
            Backend::Bitcoind(bitcoind) => Arc::new(bitcoind.chain.clone()),
        }
    }

    /// The seams of a node or tower on this chain: everything real but the chain.
    pub fn environment(&self, store: Arc<dyn Store>) -> Environment {
        Environment {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            chain: self.source(),
            broadcaster: self.broadcaster(),
            fees: self.fees(),
            store,
            links: Arc::new(TcpLinks),
            committing: Committing::Thread,
        }
    }

    /// The height at which the nodes' history begins.
    pub fn first_height(&self) -> u32 {
        self.first_height
    }

    /// The tip.
    ///
    /// # Errors
    ///
    /// If the chain does not answer.
    pub async fn tip(&self) -> Result<BlockRef, DevChainError> {
        Ok(self.source().tip().await?)
    }

    /// Whether mempool or chain has a transaction.
    ///
    /// # Errors
    ///
    /// If the chain does not answer.
    pub async fn knows(&self, txid: Txid) -> Result<bool, DevChainError> {
        Ok(self.source().transaction_status(txid).await? != TxStatus::Unknown)
    }

    /// Mines blocks from the mempool; the miner is nobody's.
    ///
    /// # Errors
    ///
    /// If the chain does not answer.
    pub async fn mine(&self, blocks: u32) -> Result<(), DevChainError> {
        match &self.backend {
            Backend::Embedded(chain) => {
                chain.mine(blocks, &nobody());
            }
            Backend::Bitcoind(bitcoind) => bitcoind.generate(blocks, &nobody()).await?,
        }
        Ok(())
    }

    /// Mines one block with exactly `transactions`, whatever the mempool has: a double spend.
    ///
    /// # Errors
    ///
    /// If they break consensus, or the chain does not answer.
    pub async fn mine_exactly(&self, transactions: &[Transaction]) -> Result<(), DevChainError> {
        match &self.backend {
            Backend::Embedded(chain) => {
                chain.mine_block_with(transactions.to_vec(), &nobody())?;
            }
            Backend::Bitcoind(bitcoind) => {
                bitcoind.generate_exactly(transactions, &nobody()).await?;
            }
        }
        Ok(())
    }

    /// Pays from outside. The payments wait in the mempool.
    ///
    /// # Errors
    ///
    /// If the faucet is empty or the chain does not answer.
    pub async fn pay(&self, payments: &[(ScriptBuf, Amount)]) -> Result<(), DevChainError> {
        let transactions: Vec<Txid> = match &self.backend {
            Backend::Embedded(chain) => {
                chain.fund_many(payments)?.into_iter().map(|outpoint| outpoint.txid).collect()
            }
            Backend::Bitcoind(bitcoind) => vec![bitcoind.pay(payments).await?],
        };
        let mut paid = self.paid.lock();
        paid.amount += payments.iter().map(|(_, amount)| *amount).sum();
        paid.transactions.extend(transactions);
        Ok(())
    }

    /// What was paid from outside so far.
    pub fn paid_in(&self) -> Amount {
        self.paid.lock().amount
    }

    /// The transactions that paid it.
    pub fn payments(&self) -> Vec<Txid> {
        self.paid.lock().transactions.clone()
    }

    /// Stops what this room started.
    pub async fn stop(&self) {
        if let Backend::Bitcoind(bitcoind) = &self.backend {
            bitcoind.stop().await;
        }
    }

    /// Replaces the last `depth` blocks by one more new ones; what they confirmed goes back to
    /// the mempool and, as far as it is still valid, into the new blocks.
    ///
    /// # Errors
    ///
    /// If the chain is shorter or does not answer.
    pub async fn reorg(&self, depth: u32) -> Result<(), DevChainError> {
        match &self.backend {
            Backend::Embedded(chain) => {
                chain.invalidate(depth)?;
            }
            Backend::Bitcoind(bitcoind) => bitcoind.invalidate(depth).await?,
        }
        match &self.backend {
            Backend::Embedded(_) => self.mine(depth + 1).await,
            // To another miner: the same block in the same second would be the one just refused.
            Backend::Bitcoind(bitcoind) => {
                let miner = self.reorgs.fetch_add(1, Ordering::Relaxed);
                bitcoind.generate(depth + 1, &miner_of_branch(miner)).await
            }
        }
    }
}

/// As [`nobody`], another for each branch.
fn miner_of_branch(number: i64) -> ScriptBuf {
    let script = ScriptBuf::builder().push_opcode(bitcoin::opcodes::all::OP_RETURN);
    script.push_int(number).into_script().to_p2wsh()
}

/// A script that nobody can spend: coinbases must not look like anyone's money.
fn nobody() -> ScriptBuf {
    ScriptBuf::builder().push_opcode(bitcoin::opcodes::all::OP_RETURN).into_script().to_p2wsh()
}
