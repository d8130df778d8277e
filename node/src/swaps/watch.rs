//! What blocks say of the outputs of swaps: where each stands, and what spent it.
//!
//! Both sides know the output before it exists, so it is found by its form; a swap's keys are
//! fresh, so no other transaction has it by chance. What was found is durable with the block it
//! was found in, and after a restart the follower goes on from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Block, OutPoint, Transaction, TxOut, Witness};
use channel_contracts::batch::SwapId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::chain::follower::ChainListener;
use crate::chain::{BlockRef, Positions};
use crate::store::cbor::{corrupt, decode, encode};
use crate::store::{Batch, Committer, StoreError, Table};

/// An output of a swap on chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// Where it stands.
    pub outpoint: OutPoint,
    /// The height of its block.
    pub at: u32,
    /// What spent it.
    pub spend: Option<SpentBy>,
}

/// What spent an output of a swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpentBy {
    #[serde(with = "serde_bytes")]
    transaction: Vec<u8>,
    input: usize,
    /// The height of its block.
    pub at: u32,
}

impl SpentBy {
    pub fn new(transaction: &Transaction, input: usize, at: u32) -> Self {
        Self { transaction: serialize(transaction), input, at }
    }

    /// The transaction.
    pub fn transaction(&self) -> Option<Transaction> {
        deserialize(&self.transaction).ok()
    }

    /// The witness that spent it.
    pub fn witness(&self) -> Option<Witness> {
        Some(self.transaction()?.input.get(self.input)?.witness.clone())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watched {
    output: TxOut,
    found: Option<Found>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    positions: Positions,
    swaps: Vec<(SwapId, Watched)>,
}

#[derive(Default)]
struct State {
    positions: Positions,
    swaps: BTreeMap<SwapId, Watched>,
}

/// Watches the outputs of swaps.
pub struct SwapWatch {
    committer: Committer,
    state: Mutex<State>,
}

impl SwapWatch {
    /// Reads what was seen.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn load(committer: Committer) -> Result<Self, StoreError> {
        let value = committer.get(&Table::SwapSeen.key([]))?;
        let seen: Option<Seen> = value.map(|value| decode(Table::SwapSeen, &value)).transpose()?;
        let Seen { positions, swaps } = seen.unwrap_or_default();
        let mut state = State { positions, swaps: BTreeMap::new() };
        for (id, watched) in swaps {
            let spend = watched.found.as_ref().and_then(|found| found.spend.as_ref());
            if spend.is_some_and(|spend| spend.witness().is_none()) {
                return Err(corrupt(Table::SwapSeen, &"the transaction that spends an output"));
            }
            state.swaps.insert(id, watched);
        }
        Ok(Self { committer, state: Mutex::new(state) })
    }

    /// Watches for the output of `swap` from the next block on. Durable before whatever is written
    /// after.
    pub(super) fn watch(&self, swap: SwapId, output: TxOut) {
        let mut state = self.state.lock();
        state.swaps.entry(swap).or_insert(Watched { output, found: None });
        self.write(&state);
    }

    /// Watches for it no more.
    pub(super) fn forget(&self, swap: SwapId) {
        let mut state = self.state.lock();
        if state.swaps.remove(&swap).is_some() {
            self.write(&state);
        }
    }

    /// The swaps whose outputs are watched.
    pub(super) fn watched(&self) -> Vec<SwapId> {
        self.state.lock().swaps.keys().copied().collect()
    }

    /// Where the output of `swap` stands; `None` while it is in no block.
    pub(super) fn found(&self, swap: SwapId) -> Option<Found> {
        self.state.lock().swaps.get(&swap)?.found.clone()
    }

    fn write(&self, state: &State) {
        let swaps = state.swaps.iter().map(|(id, watched)| (*id, watched.clone())).collect();
        let seen = Seen { positions: state.positions.clone(), swaps };
        let mut writes = Batch::default();
        writes.put(Table::SwapSeen.key([]), encode(&seen));
        let _a_restart_reads_the_block_again = self.committer.enqueue(writes);
    }
}

impl Watched {
    fn connect(&mut self, transaction: &Transaction, at: u32) {
        if self.found.is_none()
            && let Some(vout) = (0..).zip(&transaction.output).find(|(_, o)| **o == self.output)
        {
            let outpoint = OutPoint { txid: transaction.compute_txid(), vout: vout.0 };
            self.found = Some(Found { outpoint, at, spend: None });
        }
        let Some(found) = self.found.as_mut().filter(|found| found.spend.is_none()) else { return };
        let spends = |input: &bitcoin::TxIn| input.previous_output == found.outpoint;
        if let Some(input) = transaction.input.iter().position(spends) {
            found.spend = Some(SpentBy::new(transaction, input, at));
        }
    }

    fn disconnect(&mut self, above: u32) {
        self.found.take_if(|found| found.at > above);
        if let Some(found) = &mut self.found {
            found.spend.take_if(|spend| spend.at > above);
        }
    }
}

impl ChainListener for SwapWatch {
    fn name(&self) -> &str {
        "swaps"
    }

    fn positions(&self) -> Vec<BlockRef> {
        self.state.lock().positions.blocks()
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let mut state = self.state.lock();
        state.positions.connect(block, height);
        for watched in state.swaps.values_mut() {
            for transaction in &block.txdata {
                watched.connect(transaction, height);
            }
        }
        self.write(&state);
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        let mut state = self.state.lock();
        state.positions.disconnect(fork_point);
        for watched in state.swaps.values_mut() {
            watched.disconnect(fork_point.height);
        }
        self.write(&state);
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf, TxIn, Txid, absolute, block, transaction};

    use super::*;
    use crate::store::MemoryDisk;

    const SWAP: SwapId = SwapId([7; 32]);

    fn output(sat: u64) -> TxOut {
        let script_pubkey = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::all_zeros());
        TxOut { value: Amount::from_sat(sat), script_pubkey }
    }

    fn transaction(spent: OutPoint, output: Vec<TxOut>) -> Transaction {
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn { previous_output: spent, ..TxIn::default() }],
            output,
        }
    }

    fn block(txdata: Vec<Transaction>) -> Arc<Block> {
        let header = block::Header {
            version: block::Version::TWO,
            prev_blockhash: bitcoin::BlockHash::all_zeros(),
            merkle_root: bitcoin::TxMerkleNode::all_zeros(),
            time: 0,
            bits: bitcoin::CompactTarget::from_consensus(0),
            nonce: 0,
        };
        Arc::new(Block { header, txdata })
    }

    fn fork(height: u32) -> BlockRef {
        BlockRef { height, hash: bitcoin::BlockHash::all_zeros() }
    }

    #[tokio::test]
    async fn an_output_and_its_spend_come_go_and_survive_a_restart() {
        let disk = MemoryDisk::new();
        let committer = Committer::new(std::sync::Arc::new(disk.open()));
        let watch = SwapWatch::load(committer.clone()).unwrap();
        watch.watch(SWAP, output(5_000));
        let elsewhere = OutPoint { txid: Txid::all_zeros(), vout: 9 };
        let funding = transaction(elsewhere, vec![output(4_999), output(5_000)]);
        let spend = transaction(OutPoint { txid: funding.compute_txid(), vout: 1 }, vec![]);
        watch.block_connected(&block(vec![transaction(elsewhere, vec![output(1)])]), 100);
        assert_eq!(watch.found(SWAP), None);

        // Funded and spent in one block.
        watch.block_connected(&block(vec![funding.clone(), spend.clone()]), 101);
        let found = watch.found(SWAP).unwrap();
        assert_eq!((found.outpoint, found.at), (spend.input[0].previous_output, 101));
        assert_eq!(found.spend.unwrap().transaction(), Some(spend.clone()));
        watch.blocks_disconnected(fork(100));
        assert_eq!(watch.found(SWAP), None);
        assert_eq!(watch.positions()[0].height, 100);

        watch.block_connected(&block(vec![funding]), 101);
        watch.block_connected(&block(vec![spend.clone()]), 102);
        assert_eq!(watch.found(SWAP).unwrap().spend.unwrap().at, 102);
        watch.blocks_disconnected(fork(101));
        assert_eq!(watch.found(SWAP).unwrap().spend, None);
        watch.block_connected(&block(vec![spend.clone()]), 102);

        let written = tokio::spawn(committer.clone().run_task(std::time::Duration::ZERO));
        committer.durable(committer.now()).await.unwrap();
        let again = SwapWatch::load(committer.clone()).unwrap();
        assert_eq!(again.found(SWAP), watch.found(SWAP));
        assert_eq!(again.found(SWAP).unwrap().spend.unwrap().witness(), Some(Witness::new()));
        assert_eq!(again.positions(), watch.positions());
        again.forget(SWAP);
        assert_eq!(again.watched(), vec![]);
        committer.stop();
        written.await.unwrap();
    }
}
