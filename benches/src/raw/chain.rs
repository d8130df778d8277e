//! A chain of blocks made by hand, and the channels that it confirms.
//!
//! Nothing is validated: a block says what happened, and funding spends a coin out of thin air.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::transaction;
use bitcoin::{
    Amount, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use lightning::chain::{BlockLocator, Listen};
use node::lightning::ChannelPolicy;

use super::party::{GENESIS_TIME, Notice, Party};
use super::wire;
use crate::Failure;

/// What every channel holds, sat: enough for half a million payments of 10,000 sat.
pub(crate) const CAPACITY_SAT: u64 = 10_000_000_000;
/// What the acceptor gets of it at once, msat: both sides stay above their reserve.
const PUSH_MSAT: u64 = CAPACITY_SAT / 2 * 1_000;

/// The chain as every party knows it.
pub(crate) struct Chain {
    tip: BlockHash,
    height: u32,
    /// Coins that were made for funding.
    coins: u32,
}

impl Chain {
    /// Starts at the genesis block of regtest.
    pub(crate) fn new() -> Self {
        Self { tip: genesis_block(Network::Regtest).block_hash(), height: 0, coins: 0 }
    }

    /// Where it stands.
    pub(crate) fn tip(&self) -> BlockLocator {
        BlockLocator::new(self.tip, self.height)
    }

    /// Adds a block with `transactions` and shows it to everybody.
    fn mine(&mut self, parties: &[Party], transactions: &[Transaction]) {
        let height = self.height + 1;
        let header = Header {
            version: Version::NO_SOFT_FORK_SIGNALLING,
            prev_blockhash: self.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: GENESIS_TIME + height,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        // The coinbase would be number 0.
        let numbered: Vec<_> = (1..).zip(transactions).collect();
        for party in parties {
            party.manager.filtered_block_connected(&header, &numbered, height);
            party.monitors.filtered_block_connected(&header, &numbered, height);
        }
        self.tip = header.block_hash();
        self.height = height;
    }

    /// Opens a channel from the party at `opener` to the one at `acceptor` and confirms it.
    ///
    /// # Errors
    ///
    /// One of them refuses.
    pub(crate) fn open_channel(
        &mut self,
        parties: &[Party],
        opener: usize,
        acceptor: usize,
    ) -> Result<(), Failure> {
        let (from, to) = (&parties[opener], &parties[acceptor]);
        wire::connect(from, to)?;
        from.manager
            .create_channel(to.id, CAPACITY_SAT, PUSH_MSAT, 0, None, None)
            .map_err(|error| format!("the channel was not opened: {error:?}"))?;
        let funding = wire::settle(parties)?
            .into_iter()
            .find_map(|notice| match notice {
                Notice::FundingNeeded { temporary_id, peer, capacity_sat, script } => {
                    Some((temporary_id, peer, self.funding(capacity_sat, script)))
                }
                Notice::Paid { .. } | Notice::Forwarded { .. } => None,
            })
            .ok_or("the acceptor did not answer")?;
        let (temporary_id, peer, transaction) = funding;
        from.manager
            .funding_transaction_generated(temporary_id, peer, transaction)
            .map_err(|error| format!("the funding was refused: {error:?}"))?;
        wire::settle(parties)?;

        let transactions = from.take_broadcasts();
        if transactions.is_empty() {
            return Err("the funding was not broadcast".into());
        }
        self.mine(parties, &transactions);
        for _ in 1..ChannelPolicy::default().minimum_depth {
            self.mine(parties, &[]);
        }
        wire::settle(parties)?;
        for (party, peer) in [(from, to), (to, from)] {
            let channels = party.manager.list_usable_channels();
            if !channels.iter().any(|channel| channel.counterparty.node_id == peer.id) {
                return Err("the channel is not usable".into());
            }
        }
        Ok(())
    }

    /// Makes a transaction that pays `script`.
    fn funding(&mut self, capacity_sat: u64, script: ScriptBuf) -> Transaction {
        let coin = OutPoint { txid: Txid::all_zeros(), vout: self.coins };
        self.coins += 1;
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                // LDK wants a witness, and does not look into it.
                witness: Witness::from_slice(&[[1]]),
            }],
            output: vec![TxOut { value: Amount::from_sat(capacity_sat), script_pubkey: script }],
        }
    }
}
