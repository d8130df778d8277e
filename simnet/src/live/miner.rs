//! Mines blocks, takes some away again, and counts what they carry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Script;
use futures::FutureExt;
use node::chain::ChainSource;
use node::chain::embedded::{BlockError, EmbeddedChain};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::clock::SimClock;
use super::transcript::Transcript;

/// Blocks between two halvings on regtest, and the first subsidy in sat.
const HALVING: u32 = 150;
const SUBSIDY_SAT: u64 = 50 * 100_000_000;

/// The miner of a run. Clones share it.
#[derive(Clone)]
pub struct Miner {
    chain: EmbeddedChain,
    clock: SimClock,
    transcript: Arc<Transcript>,
    /// Fees of the best chain's blocks by height, sat.
    fees: Arc<Mutex<BTreeMap<u32, u64>>>,
    /// Height and bytes when counting began.
    from: (u32, u64),
}

/// What the best chain carries since counting began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes, vB.
    pub vbytes: u64,
    /// Fees, sat.
    pub fees_sat: u64,
}

/// What a block at `height` may create, sat.
fn subsidy_sat(height: u32) -> u64 {
    SUBSIDY_SAT.checked_shr(height / HALVING).unwrap_or(0)
}

impl Miner {
    /// A miner that counts from the tip on.
    pub fn new(chain: EmbeddedChain, clock: SimClock, transcript: Arc<Transcript>) -> Self {
        let stats = chain.stats();
        Self { chain, clock, transcript, fees: Arc::default(), from: (stats.height, stats.vbytes) }
    }

    /// Mines what waits; the coinbase pays `script`.
    pub fn mine(&self, script: &Script) {
        self.chain.mine(1, script);
        self.look();
    }

    /// Mines a block every `every`, for ever.
    pub async fn run(&self, every: Duration) {
        loop {
            sleep(every).await;
            self.mine(&bitcoin::ScriptBuf::new_op_return([]));
        }
    }

    /// Replaces the last `depth` blocks by as many empty ones and one more.
    ///
    /// # Errors
    ///
    /// If the chain is shorter than that.
    pub fn reorg(&self, depth: u32) -> Result<(), BlockError> {
        let depth = depth.min(self.chain.best().height);
        self.chain.reorg(depth, depth + 1)?;
        self.look();
        Ok(())
    }

    /// What the best chain carries since counting began.
    pub fn carried(&self) -> Carried {
        let vbytes = self.chain.stats().vbytes.saturating_sub(self.from.1);
        Carried { vbytes, fees_sat: self.fees.lock().values().sum() }
    }

    /// Looks at the blocks above the last that is as it was.
    fn look(&self) {
        let tip = self.chain.best();
        let at_us = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.transcript.block(at_us, tip.hash);
        let mut fees = self.fees.lock();
        // Deeper reorgs than six blocks are refused by the scenario.
        let first = tip.height.saturating_sub(8).max(self.from.0) + 1;
        for height in first..=tip.height {
            let created_sat = self.created_sat(height).unwrap_or(0);
            fees.insert(height, created_sat.saturating_sub(subsidy_sat(height)));
        }
    }

    /// What the coinbase of the block at `height` creates: its subsidy and its fees. The embedded
    /// chain answers at once.
    fn created_sat(&self, height: u32) -> Option<u64> {
        let hash = self.chain.block_hash(height).now_or_never()?.ok()??;
        let block = self.chain.block(hash).now_or_never()?.ok()?;
        Some(block.txdata.first()?.output.iter().map(|output| output.value.to_sat()).sum())
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Amount, ScriptBuf};
    use node::chain::embedded::EmbeddedConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fees_of_blocks_are_counted_and_taken_back() {
        let clock = SimClock::start();
        let chain = EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(clock));
        let nobody = ScriptBuf::new_op_return([]);
        let miner = Miner::new(chain.clone(), clock, Arc::default());
        let script = ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash());
        chain.fund(&script, Amount::from_sat(100_000)).unwrap();
        miner.mine(&nobody);
        let fees_sat = miner.carried().fees_sat;
        assert!((100..1_000).contains(&fees_sat), "{fees_sat}");
        miner.mine(&nobody);
        assert_eq!(miner.carried().fees_sat, fees_sat);
        miner.reorg(2).unwrap();
        assert_eq!(miner.carried().fees_sat, 0, "the branch is empty");
        miner.mine(&nobody);
        assert_eq!(miner.carried().fees_sat, fees_sat, "what it took away came back");
    }
}
