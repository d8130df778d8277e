//! Mines blocks, takes some away again, and counts what they carry.
//!
//! A block has the scenario's room. Where more waits than fits, it takes what pays best, each
//! transaction with those that must come before it, and everybody is told a higher feerate: the
//! usual one, and as much of it again as the rest would fill of the next block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Block, FeeRate, OutPoint, Script, Transaction, Txid};
use futures::FutureExt;
use node::chain::ChainSource;
use node::chain::embedded::{BlockError, EmbeddedChain};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::clock::SimClock;
use super::transcript::Transcript;
use crate::scenario::ChainSpec;

/// The deepest reorg: the scenario refuses more.
const DEEPEST: u32 = 6;

/// The miner of a run. Clones share it.
#[derive(Clone)]
pub struct Miner {
    chain: EmbeddedChain,
    clock: SimClock,
    transcript: Arc<Transcript>,
    /// What a block has for transactions, vB.
    room_vb: u64,
    state: Arc<Mutex<State>>,
    /// Height and bytes when counting began.
    from: (u32, u64),
    /// What was in the last blocks then: a reorg may bring it into later ones, and it has paid.
    paid_before: Arc<BTreeSet<Txid>>,
}

struct State {
    /// Fees of the best chain's blocks by height, sat.
    fees: BTreeMap<u32, u64>,
    /// What a transaction pays where there is room, sat/vB.
    usual_sat_per_vb: u64,
    /// What did not fit into the last block, vB.
    backlog_vb: u64,
}

/// What the best chain carries since counting began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes, vB.
    pub vbytes: u64,
    /// Fees, sat.
    pub fees_sat: u64,
}

/// A transaction that waits.
struct Waiting {
    transaction: Transaction,
    vb: u64,
    fee_sat: u64,
}

impl Miner {
    /// A miner that counts from the tip on.
    pub fn new(
        chain: EmbeddedChain,
        clock: SimClock,
        transcript: Arc<Transcript>,
        spec: &ChainSpec,
    ) -> Self {
        let stats = chain.stats();
        let state = State {
            fees: BTreeMap::new(),
            usual_sat_per_vb: spec.feerate_sat_per_vb,
            backlog_vb: 0,
        };
        let (from, state) = ((stats.height, stats.vbytes), Arc::new(Mutex::new(state)));
        let room_vb = spec.room_vb;
        let paid_before = Arc::default();
        let mut this = Self { chain, clock, transcript, room_vb, state, from, paid_before };
        let last = stats.height.saturating_sub(DEEPEST)..=stats.height;
        let blocks = last.filter_map(|height| this.block_at(height));
        let paid_before = blocks.flat_map(|block| txids(&block).collect::<Vec<_>>()).collect();
        this.paid_before = Arc::new(paid_before);
        this
    }

    /// Mines what waits and fits; the coinbase pays `script`.
    pub fn mine(&self, script: &Script) {
        let waiting = self.waiting();
        let all_vb: u64 = waiting.values().map(|waiting| waiting.vb).sum();
        let chosen = if all_vb > self.room_vb { choose(&waiting, self.room_vb) } else { vec![] };
        let chosen_vb: u64 = chosen.iter().map(|txid| waiting[txid].vb).sum();
        if chosen.is_empty() {
            self.chain.mine(1, script);
        } else {
            let chosen = chosen.iter().map(|txid| waiting[txid].transaction.clone()).collect();
            if self.chain.mine_block_with(chosen, script).is_err() {
                self.chain.mine(1, script);
            }
        }
        let backlog_vb = if chosen_vb > 0 { all_vb - chosen_vb } else { 0 };
        let before_vb = std::mem::replace(&mut self.state.lock().backlog_vb, backlog_vb);
        if backlog_vb != before_vb {
            self.tell_feerate();
        }
        self.look();
    }

    /// Sets what a transaction pays where there is room, sat/vB.
    pub fn set_usual_feerate(&self, sat_per_vb: u64) {
        self.state.lock().usual_sat_per_vb = sat_per_vb;
        self.tell_feerate();
    }

    /// What a transaction pays now, msat/vB: the model's formula.
    pub fn feerate_msat_per_vb(&self) -> u64 {
        let state = self.state.lock();
        let usual = state.usual_sat_per_vb * 1_000;
        usual + usual * state.backlog_vb / self.room_vb
    }

    fn tell_feerate(&self) {
        let rate = FeeRate::from_sat_per_kwu(self.feerate_msat_per_vb().div_ceil(4));
        self.chain.set_fee_estimate(1, rate);
    }

    /// What waits, by id.
    fn waiting(&self) -> BTreeMap<Txid, Waiting> {
        // The embedded chain answers at once.
        let txids = self.chain.mempool().now_or_never().and_then(Result::ok).unwrap_or_default();
        let look = |txid: Txid| {
            let transaction = self.chain.transaction(txid)?;
            let (vb, fee_sat) = (transaction.vsize() as u64, self.fee_sat(&transaction));
            Some((txid, Waiting { transaction, vb, fee_sat }))
        };
        txids.into_iter().filter_map(look).collect()
    }

    /// What a transaction pays.
    fn fee_sat(&self, transaction: &Transaction) -> u64 {
        let value_sat = |spent: &OutPoint| {
            let before = self.chain.transaction(spent.txid)?;
            Some(before.output.get(spent.vout as usize)?.value.to_sat())
        };
        let inputs = transaction.input.iter().filter_map(|input| value_sat(&input.previous_output));
        let paid: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        inputs.sum::<u64>().saturating_sub(paid)
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

    /// The height at which counting began.
    pub fn counts_from(&self) -> u32 {
        self.from.0
    }

    /// What the best chain carries since counting began.
    pub fn carried(&self) -> Carried {
        let vbytes = self.chain.stats().vbytes.saturating_sub(self.from.1);
        Carried { vbytes, fees_sat: self.state.lock().fees.values().sum() }
    }

    /// Looks at the blocks above the last that is as it was.
    fn look(&self) {
        let tip = self.chain.best();
        let at_us = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.transcript.block(at_us, tip.hash);
        let first = tip.height.saturating_sub(DEEPEST + 2).max(self.from.0) + 1;
        for height in first..=tip.height {
            let fees_sat = self.fees_of_block(height).unwrap_or(0);
            self.state.lock().fees.insert(height, fees_sat);
        }
    }

    fn block_at(&self, height: u32) -> Option<Arc<Block>> {
        let hash = self.chain.block_hash(height).now_or_never()?.ok()??;
        self.chain.block(hash).now_or_never()?.ok()
    }

    /// What the transactions of the block at `height` pay. A coinbase may take less.
    fn fees_of_block(&self, height: u32) -> Option<u64> {
        let block = self.block_at(height)?;
        let is_new =
            |transaction: &&Transaction| !self.paid_before.contains(&transaction.compute_txid());
        let all = block.txdata.iter().skip(1).filter(is_new);
        Some(all.map(|transaction| self.fee_sat(transaction)).sum())
    }
}

fn txids(block: &Block) -> impl Iterator<Item = Txid> + '_ {
    block.txdata.iter().map(Transaction::compute_txid)
}

/// What goes into `room_vb`, parents first: again and again the transaction that pays best
/// together with what must come before it.
fn choose(waiting: &BTreeMap<Txid, Waiting>, room_vb: u64) -> Vec<Txid> {
    let mut chosen: Vec<Txid> = Vec::new();
    let mut left_vb = room_vb;
    let mut open: BTreeSet<Txid> = waiting.keys().copied().collect();
    loop {
        let mut best: Option<(u64, u64, Vec<Txid>)> = None;
        for txid in &open {
            let mut package = Vec::new();
            add_with_parents(*txid, waiting, &open, &mut package);
            let vb: u64 = package.iter().map(|txid| waiting[txid].vb).sum();
            let fee_sat: u64 = package.iter().map(|txid| waiting[txid].fee_sat).sum();
            let is_better = best.as_ref().is_none_or(|(best_fee_sat, best_vb, _)| {
                u128::from(fee_sat) * u128::from(*best_vb)
                    > u128::from(*best_fee_sat) * u128::from(vb)
            });
            if fee_sat > 0 && vb <= left_vb && is_better {
                best = Some((fee_sat, vb, package));
            }
        }
        let Some((_, vb, package)) = best else { return chosen };
        left_vb -= vb;
        for txid in package {
            open.remove(&txid);
            chosen.push(txid);
        }
    }
}

/// Adds a transaction after those of `open` that it spends.
fn add_with_parents(
    txid: Txid,
    waiting: &BTreeMap<Txid, Waiting>,
    open: &BTreeSet<Txid>,
    package: &mut Vec<Txid>,
) {
    if !open.contains(&txid) || package.contains(&txid) {
        return;
    }
    for input in &waiting[&txid].transaction.input {
        add_with_parents(input.previous_output.txid, waiting, open, package);
    }
    package.push(txid);
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
        let spec = ChainSpec { room_vb: 400, ..ChainSpec::default() };
        let miner = Miner::new(chain.clone(), clock, Arc::default(), &spec);
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
    #[tokio::test(start_paused = true)]
    async fn a_block_takes_what_pays_best_and_the_rest_makes_the_next_dearer() {
        let clock = SimClock::start();
        let config = EmbeddedConfig { premine: 120, ..EmbeddedConfig::default() };
        let chain = EmbeddedChain::new(config, Arc::new(clock));
        let nobody = ScriptBuf::new_op_return([]);
        let spec = ChainSpec { room_vb: 400, ..ChainSpec::default() };
        let miner = Miner::new(chain.clone(), clock, Arc::default(), &spec);
        let script = ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash());
        for _ in 0..5 {
            chain.fund(&script, Amount::from_sat(100_000)).unwrap();
        }
        let waiting = miner.waiting();
        let all_vb: u64 = waiting.values().map(|waiting| waiting.vb).sum();
        assert!(all_vb > 400, "{all_vb}");
        let chosen = choose(&waiting, 400);
        let vb: u64 = chosen.iter().map(|txid| waiting[txid].vb).sum();
        assert!(!chosen.is_empty() && vb <= 400);
        miner.mine(&nobody);
        assert_eq!(chain.stats().waiting as usize, waiting.len() - chosen.len());
        assert_eq!(miner.feerate_msat_per_vb(), 5_000 + 5_000 * (all_vb - vb) / 400);
        while chain.stats().waiting > 0 {
            miner.mine(&nobody);
        }
        assert_eq!(miner.feerate_msat_per_vb(), 5_000);
        let fees_sat: u64 = waiting.values().map(|waiting| waiting.fee_sat).sum();
        assert_eq!(miner.carried().fees_sat, fees_sat);
    }
}
