//! A regtest chain inside the process: the default of `dev`, of tests and of the simulation.
//!
//! Blocks, mempool, reorgs and relay policy behave as Bitcoin Core's, and every input of every
//! transaction is judged by Core's own interpreter. There is no network and no disk: blocks
//! can be taken out with [`EmbeddedChain::export`] and given to [`EmbeddedChain::restore`].
//! Time comes from the clock given, so a simulation drives it. Start reading here, then
//! `ledger` (blocks) and `accept` (mempool).

mod accept;
mod faucet;
mod ledger;
mod linear;
mod mempool;
mod policy;
mod replace;
mod rules;
mod seams;
#[cfg(test)]
pub(crate) mod tests;
mod truc;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Amount, Block, BlockHash, FeeRate, OutPoint, Script, ScriptBuf, Transaction, Txid};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use faucet::FundError;
pub(crate) use rules::check_spends;

use self::accept::{Pool, Refusal};
use self::faucet::Faucet;
use self::ledger::Ledger;
use self::mempool::Mempool;
use self::policy::Feerates;
use super::{BlockRef, BroadcastError};
use crate::environment::Clock;

/// How an embedded chain starts and what its mempool takes.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Blocks mined to the faucet at start; those deeper than 100 can be paid out (50 BTC each
    /// up to block 149).
    pub premine: u32,
    /// Lowest feerate of a transaction or package [1 sat/vB].
    pub min_relay: FeeRate,
    /// What a replacement pays on top, for its own size [1 sat/vB].
    pub incremental_relay: FeeRate,
    /// The rate at which dust is reckoned [3 sat/vB].
    pub dust_relay: FeeRate,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            premine: 110,
            min_relay: FeeRate::from_sat_per_kwu(250),
            incremental_relay: FeeRate::from_sat_per_kwu(250),
            dust_relay: FeeRate::from_sat_per_kwu(750),
        }
    }
}

/// What the best chain carries beside coinbases and faucet payments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChainStats {
    /// Height of the tip.
    pub height: u32,
    /// Transactions confirmed.
    pub transactions: u64,
    /// Their virtual bytes.
    pub vbytes: u64,
    /// Transactions waiting, those of the faucet included.
    pub waiting: u64,
}

/// Why a block or a branch is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A consensus rule is broken; the reason is Bitcoin Core's word.
    #[error("block at height {height} was refused: {reason}")]
    Invalid {
        /// Its height.
        height: u32,
        /// The rule.
        reason: String,
    },
    /// The chain is not that long.
    #[error("cannot take {depth} blocks off a chain of height {height}; ask for fewer")]
    TooDeep {
        /// Blocks asked for.
        depth: u32,
        /// Height of the tip.
        height: u32,
    },
    /// A branch wins only if it is longer.
    #[error("a branch of {new_len} blocks does not beat {depth}; give more")]
    TooShort {
        /// Blocks to take off.
        depth: u32,
        /// Blocks to put on.
        new_len: u32,
    },
}

/// What a reorg did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reorg {
    /// The last block that both branches share.
    pub fork_point: BlockRef,
    /// Blocks that left the best chain, lowest first.
    pub disconnected: Vec<BlockHash>,
    /// Blocks that came instead, lowest first.
    pub connected: Vec<BlockHash>,
}

/// An in-process regtest chain; clones share it.
///
/// ```
/// use std::sync::Arc;
/// use bitcoin::{Amount, ScriptBuf};
/// use node::chain::embedded::{EmbeddedChain, EmbeddedConfig};
/// use node::environment::SystemClock;
///
/// let chain = EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(SystemClock));
/// let script = ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash());
/// let coin = chain.fund(&script, Amount::from_sat(100_000))?;
/// chain.mine(1, &script);
/// assert_eq!(chain.output(coin).map(|o| o.value), Some(Amount::from_sat(100_000)));
/// # Ok::<(), node::chain::embedded::FundError>(())
/// ```
#[derive(Clone)]
pub struct EmbeddedChain {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    tip: watch::Sender<BlockRef>,
    clock: Arc<dyn Clock>,
}

struct State {
    ledger: Ledger,
    mempool: Mempool,
    feerates: Feerates,
    estimates: BTreeMap<u16, FeeRate>,
    faucet: Faucet,
    stats: ChainStats,
}

impl EmbeddedChain {
    /// Starts a chain and mines the first blocks to the faucet, ten minutes apart, the last
    /// one now.
    pub fn new(config: EmbeddedConfig, clock: Arc<dyn Clock>) -> Self {
        let chain = Self::empty(&config, clock);
        let now = chain.now();
        {
            let mut state = chain.shared.state.lock();
            let script = state.faucet.script().to_owned();
            for left in (0..config.premine).rev() {
                let time = now.saturating_sub(left.saturating_mul(600));
                state.mine(time, &script);
            }
            chain.announce(&state);
        }
        chain
    }

    /// Starts a chain from the blocks that [`Self::export`] gave.
    ///
    /// # Errors
    ///
    /// [`BlockError::Invalid`] if one of them does not connect.
    pub fn restore(
        config: EmbeddedConfig,
        clock: Arc<dyn Clock>,
        blocks: impl IntoIterator<Item = Block>,
    ) -> Result<Self, BlockError> {
        let chain = Self::empty(&config, clock);
        for block in blocks {
            chain.submit_block(block)?;
        }
        Ok(chain)
    }

    fn empty(config: &EmbeddedConfig, clock: Arc<dyn Clock>) -> Self {
        let ledger = Ledger::new();
        let tip = watch::Sender::new(ledger.tip());
        let state = State {
            ledger,
            mempool: Mempool::default(),
            feerates: Feerates {
                min_relay: config.min_relay,
                incremental: config.incremental_relay,
                dust_relay: config.dust_relay,
                mempool_minimum: FeeRate::ZERO,
            },
            estimates: BTreeMap::new(),
            faucet: Faucet::new(),
            stats: ChainStats::default(),
        };
        let state = Mutex::new(state);
        Self { shared: Arc::new(Shared { state, tip, clock }) }
    }

    fn now(&self) -> u32 {
        u32::try_from(self.shared.clock.now().as_secs()).unwrap_or(u32::MAX)
    }

    /// Tells those who wait in `changed`. Called with the lock held, so that order is kept.
    fn announce(&self, state: &State) {
        self.shared.tip.send_replace(state.ledger.tip());
    }

    /// Returns the tip of the best chain.
    pub fn best(&self) -> BlockRef {
        self.shared.state.lock().ledger.tip()
    }

    /// Returns the blocks of the best chain above genesis.
    pub fn export(&self) -> Vec<Block> {
        let state = self.shared.state.lock();
        (1..=state.ledger.height())
            .filter_map(|height| state.ledger.block(state.ledger.hash_at(height)?))
            .map(|block| Block::clone(block))
            .collect()
    }

    /// Mines `n` blocks from the mempool, the coinbases paying `script`; returns their hashes.
    ///
    /// A block's time is the clock's, or one second above the median where the clock stands.
    pub fn mine(&self, n: u32, script: &Script) -> Vec<BlockHash> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        let hashes = (0..n).map(|_| state.mine(now, script)).collect();
        self.announce(&state);
        hashes
    }

    /// Mines a block from the mempool with exactly this header time, seconds since the epoch.
    ///
    /// # Errors
    ///
    /// [`BlockError::Invalid`] (`time-too-old`) if it is not above the median of the last 11.
    pub fn mine_block_at(&self, time: u32, script: &Script) -> Result<BlockHash, BlockError> {
        let mut state = self.shared.state.lock();
        let (transactions, fees) = state.mempool.template();
        let block = state.ledger.assemble(time, script, fees, transactions);
        let connected = state.connect(block)?;
        self.announce(&state);
        Ok(connected.hash)
    }

    /// Mines a block with exactly these transactions, whatever the mempool thinks of them.
    ///
    /// # Errors
    ///
    /// [`BlockError::Invalid`] if they break consensus.
    pub fn mine_block_with(
        &self,
        transactions: Vec<Transaction>,
        script: &Script,
    ) -> Result<BlockHash, BlockError> {
        let now = self.now();
        let mut state = self.shared.state.lock();
        let connected = state.mine_exactly(now, script, transactions)?;
        self.announce(&state);
        Ok(connected.hash)
    }

    /// Connects a foreign block to the tip.
    ///
    /// # Errors
    ///
    /// [`BlockError::Invalid`] with the broken rule.
    pub fn submit_block(&self, block: Block) -> Result<BlockHash, BlockError> {
        let mut state = self.shared.state.lock();
        let connected = state.connect(block)?;
        self.announce(&state);
        Ok(connected.hash)
    }

    /// Replaces the last `depth` blocks by `new_len` empty ones; what they confirmed goes back
    /// to the mempool.
    ///
    /// # Errors
    ///
    /// [`BlockError::TooShort`], [`BlockError::TooDeep`].
    pub fn reorg(&self, depth: u32, new_len: u32) -> Result<Reorg, BlockError> {
        self.reorg_with(depth, vec![Vec::new(); new_len as usize])
    }

    /// Replaces the last `depth` blocks by a branch that confirms exactly `branch`, one list
    /// for each block: the way to play a double spend.
    ///
    /// # Errors
    ///
    /// As [`Self::reorg`], and [`BlockError::Invalid`] if the branch breaks consensus; the old
    /// chain stands then.
    pub fn reorg_with(
        &self,
        depth: u32,
        branch: Vec<Vec<Transaction>>,
    ) -> Result<Reorg, BlockError> {
        let now = self.now();
        let new_len = branch.len() as u32;
        if new_len <= depth {
            return Err(BlockError::TooShort { depth, new_len });
        }
        let mut state = self.shared.state.lock();
        let reorg = state.reorg(now, depth, branch)?;
        self.announce(&state);
        Ok(reorg)
    }

    /// Takes the last `depth` blocks off and leaves the chain shorter (`invalidateblock`).
    ///
    /// # Errors
    ///
    /// [`BlockError::TooDeep`].
    pub fn invalidate(&self, depth: u32) -> Result<Reorg, BlockError> {
        let mut state = self.shared.state.lock();
        let reorg = state.reorg(0, depth, Vec::new())?;
        self.announce(&state);
        Ok(reorg)
    }

    /// Pays `amount` to `script` from the faucet; the payment waits in the mempool.
    ///
    /// # Errors
    ///
    /// [`FundError`].
    pub fn fund(&self, script: &Script, amount: Amount) -> Result<OutPoint, FundError> {
        let outpoints = self.fund_many(&[(script.to_owned(), amount)])?;
        Ok(outpoints[0])
    }

    /// Makes several payments in one transaction; returns one outpoint for each, in order.
    ///
    /// # Errors
    ///
    /// [`FundError`].
    pub fn fund_many(&self, payments: &[(ScriptBuf, Amount)]) -> Result<Vec<OutPoint>, FundError> {
        self.shared.state.lock().fund(payments)
    }

    /// Submits one transaction, or a child with its parents first; see
    /// [`Broadcaster`](super::Broadcaster).
    ///
    /// # Errors
    ///
    /// [`BroadcastError::Rejected`], [`BroadcastError::MissingInputs`].
    pub fn accept(&self, package: &[Transaction]) -> Result<(), BroadcastError> {
        self.shared.state.lock().accept(package)
    }

    /// Returns a transaction of mempool or best chain.
    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        let state = self.shared.state.lock();
        match state.mempool.get(&txid) {
            Some(entry) => Some(Transaction::clone(&entry.tx)),
            None => state.ledger.transaction(txid),
        }
    }

    /// Returns an output that is unspent in the best chain, mempool not counted.
    pub fn output(&self, outpoint: OutPoint) -> Option<bitcoin::TxOut> {
        let state = self.shared.state.lock();
        state.ledger.coin(&outpoint).map(|coin| coin.output.clone())
    }

    /// Returns who spends `outpoint`, in best chain or mempool.
    pub fn spender(&self, outpoint: OutPoint) -> Option<Txid> {
        let state = self.shared.state.lock();
        state.ledger.spender(&outpoint).or_else(|| state.mempool.spender(&outpoint))
    }

    /// Returns the sum of all unspent outputs.
    pub fn supply(&self) -> Amount {
        let state = self.shared.state.lock();
        state.ledger.coins().map(|(_, coin)| coin.output.value).sum()
    }

    /// Sets the lowest feerate for relay. What waits already stays.
    pub fn set_min_relay(&self, rate: FeeRate) {
        self.shared.state.lock().feerates.min_relay = rate;
    }

    /// Sets the floor of a full mempool and drops what pays less: a fee spike.
    pub fn set_mempool_minimum(&self, rate: FeeRate) {
        let mut state = self.shared.state.lock();
        state.feerates.mempool_minimum = rate;
        state.mempool.evict_below((rate.to_sat_per_kwu() * 4, 1_000));
    }

    /// Sets the estimate for `target_blocks` and, until a higher target is set, for those
    /// above it.
    pub fn set_fee_estimate(&self, target_blocks: u16, rate: FeeRate) {
        self.shared.state.lock().estimates.insert(target_blocks, rate);
    }

    /// Forgets all estimates.
    pub fn clear_fee_estimates(&self) {
        self.shared.state.lock().estimates.clear();
    }

    /// Returns what the best chain carries.
    pub fn stats(&self) -> ChainStats {
        let state = self.shared.state.lock();
        ChainStats {
            height: state.ledger.height(),
            waiting: state.mempool.len() as u64,
            ..state.stats
        }
    }
}

impl State {
    fn pool(&mut self) -> Pool<'_> {
        Pool { ledger: &mut self.ledger, mempool: &mut self.mempool, feerates: &self.feerates }
    }

    fn mine(&mut self, now: u32, script: &Script) -> BlockHash {
        let (transactions, fees) = self.mempool.template();
        let time = now.max(self.earliest_time());
        let block = self.ledger.assemble(time, script, fees, transactions);
        self.connect(block)
            .expect("a block of accepted transactions above the median time is valid")
            .hash
    }

    fn earliest_time(&self) -> u32 {
        self.ledger.median_time(self.ledger.height()) + 1
    }

    fn mine_exactly(
        &mut self,
        now: u32,
        script: &Script,
        transactions: Vec<Transaction>,
    ) -> Result<BlockRef, BlockError> {
        let time = now.max(self.earliest_time());
        // The miner forgoes the fees: what was not judged has no known fee.
        let block = self.ledger.assemble(time, script, Amount::ZERO, transactions);
        self.connect(block)
    }

    fn connect(&mut self, block: Block) -> Result<BlockRef, BlockError> {
        let height = self.ledger.height() + 1;
        let connected = self
            .ledger
            .connect(block)
            .map_err(|reason| BlockError::Invalid { height, reason: reason.to_owned() })?;
        let block = self.ledger.block(connected.hash).expect("it was just connected").clone();
        self.mempool.remove_for_block(&block);
        self.count(&block, true);
        Ok(connected)
    }

    fn reorg(
        &mut self,
        now: u32,
        depth: u32,
        branch: Vec<Vec<Transaction>>,
    ) -> Result<Reorg, BlockError> {
        let height = self.ledger.height();
        if depth > height {
            return Err(BlockError::TooDeep { depth, height });
        }
        let mut disconnected = Vec::new();
        for _ in 0..depth {
            disconnected.extend(self.disconnect());
        }
        disconnected.reverse();
        let fork_point = self.ledger.tip();
        let script = self.faucet.script().to_owned();
        let mut connected = Vec::new();
        let mut refused = None;
        for transactions in branch {
            match self.mine_exactly(now, &script, transactions) {
                Ok(block) => connected.push(block.hash),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = refused {
            let mut branch = Vec::new();
            for _ in 0..connected.len() {
                branch.extend(self.disconnect());
            }
            branch.reverse();
            for block in disconnected {
                self.connect(Block::clone(&block)).expect("it was connected here before");
            }
            // What the branch pushed out of the mempool is lost; what it confirmed is not.
            self.pool().resurrect(&branch);
            return Err(error);
        }
        self.pool().resurrect(&disconnected);
        Ok(Reorg {
            fork_point,
            disconnected: disconnected.iter().map(|b| b.block_hash()).collect(),
            connected,
        })
    }

    fn disconnect(&mut self) -> Option<Arc<Block>> {
        let block = self.ledger.disconnect()?;
        self.count(&block, false);
        Some(block)
    }

    fn count(&mut self, block: &Block, connected: bool) {
        self.faucet.observe(block, connected);
        for tx in block.txdata.iter().skip(1) {
            if self.faucet.paid(&tx.compute_txid()) {
                continue;
            }
            let vbytes = tx.vsize() as u64;
            if connected {
                self.stats.transactions += 1;
                self.stats.vbytes += vbytes;
            } else {
                self.stats.transactions -= 1;
                self.stats.vbytes -= vbytes;
            }
        }
    }

    fn accept(&mut self, package: &[Transaction]) -> Result<(), BroadcastError> {
        let unknown: Vec<Arc<Transaction>> = package
            .iter()
            .filter(|tx| self.ledger.confirmed_height(tx.compute_txid()).is_none())
            .map(|tx| Arc::new(tx.clone()))
            .collect();
        self.pool().accept_package(&unknown).map_err(BroadcastError::from)
    }
}

impl From<Refusal> for BroadcastError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { txid, reason, .. } = refusal;
        if reason == "bad-txns-inputs-missingorspent" {
            Self::MissingInputs { txid }
        } else {
            Self::Rejected { txid, reason: reason.into_owned() }
        }
    }
}
