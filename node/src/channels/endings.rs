//! What blocks say of the funding outputs of channels: which transaction spent each.
//!
//! LDK knows how a channel ended and not, once that is buried, by which transaction. So blocks are
//! read for it. What was found is durable with the block it was found in, and after a restart the
//! follower goes on from there. A splice spends a funding output too, and ends nothing: whoever
//! asks knows its transaction.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Block, OutPoint, Txid};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::record::ChannelRecord;
use crate::chain::follower::ChainListener;
use crate::chain::{BlockRef, Positions};
use crate::store::cbor::{corrupt, decode, encode};
use crate::store::{Batch, Committer, StoreError, Table};

/// What spent a funding output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spend {
    txid: Txid,
    /// The height of its block.
    at: u32,
}

#[derive(Default)]
struct State {
    positions: Positions,
    /// The funding outputs of all channels that ever were.
    fundings: HashMap<OutPoint, Option<Spend>>,
}

/// Watches the funding outputs of channels.
pub struct Endings {
    committer: Committer,
    state: Mutex<State>,
}

impl Endings {
    /// Reads what was seen, and the channels.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn load(committer: Committer) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (_, value) in committer.scan_all(Table::Channel, [])? {
            let record: ChannelRecord = decode(Table::Channel, &value)?;
            state.fundings.extend(fundings(&record).map(|funding| (funding, None)));
        }
        for (key, value) in committer.scan_all(Table::FundingSpent, [])? {
            match Table::FundingSpent.rest(&key).unwrap_or_default() {
                [] => state.positions = decode(Table::FundingSpent, &value)?,
                outpoint => {
                    let outpoint = deserialize(outpoint)
                        .map_err(|error| corrupt(Table::FundingSpent, &error))?;
                    let spend = decode(Table::FundingSpent, &value)?;
                    state.fundings.insert(outpoint, Some(spend));
                }
            }
        }
        Ok(Self { committer, state: Mutex::new(state) })
    }

    /// Watches the funding output of `record`, and that of its splice, from the next block on.
    pub(super) fn watch(&self, record: &ChannelRecord) {
        let mut state = self.state.lock();
        for funding in fundings(record) {
            state.fundings.entry(funding).or_default();
        }
    }

    /// The transaction in a block that ended the channel of `record`.
    pub fn of(&self, record: &ChannelRecord) -> Option<Txid> {
        let state = self.state.lock();
        let spent = |funding: OutPoint| Some((*state.fundings.get(&funding)?)?.txid);
        let txid = spent(record.funding?)?;
        match record.splice.map(|splice| splice.funding) {
            // The splice was not locked when the channel ended.
            Some(spliced) if spliced.txid == txid => spent(spliced),
            _ => Some(txid),
        }
    }

    fn write(&self, state: &State, mut writes: Batch) {
        writes.put(Table::FundingSpent.key([]), encode(&state.positions));
        let _a_restart_reads_the_block_again = self.committer.enqueue(writes);
    }
}

fn fundings(record: &ChannelRecord) -> impl Iterator<Item = OutPoint> {
    record.funding.into_iter().chain(record.splice.map(|splice| splice.funding))
}

impl ChainListener for Endings {
    fn name(&self) -> &str {
        "endings of channels"
    }

    fn positions(&self) -> Vec<BlockRef> {
        self.state.lock().positions.blocks()
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let mut state = self.state.lock();
        state.positions.connect(block, height);
        let mut writes = Batch::default();
        for transaction in &block.txdata {
            for input in &transaction.input {
                let Some(spend) = state.fundings.get_mut(&input.previous_output) else { continue };
                let found = Spend { txid: transaction.compute_txid(), at: height };
                *spend = Some(found);
                let key = Table::FundingSpent.key(serialize(&input.previous_output));
                writes.put(key, encode(&found));
            }
        }
        self.write(&state, writes);
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        let mut state = self.state.lock();
        state.positions.disconnect(fork_point);
        let mut writes = Batch::default();
        for (funding, spend) in &mut state.fundings {
            if spend.take_if(|spend| spend.at > fork_point.height).is_some() {
                writes.delete(Table::FundingSpent.key(serialize(funding)));
            }
        }
        self.write(&state, writes);
    }
}

#[cfg(test)]
mod tests;
