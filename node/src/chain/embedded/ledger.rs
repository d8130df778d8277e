//! Blocks, the best chain and its unspent outputs; whole-block rules.
//!
//! A block is checked completely before anything changes, so a refused block leaves no trace.
//! Which transactions go into a block is decided in `linear` and `mempool`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::consensus::Params;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, Script, ScriptBuf, Sequence,
    Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, WitnessMerkleNode, Wtxid, absolute,
    transaction,
};

use super::rules::{self, Coin};
use crate::chain::BlockRef;

/// The easiest target: one hash in two meets it.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// Script results kept; above it the cache starts anew.
const VERIFIED_MAX: usize = 200_000;

/// The best chain, every block ever seen, and the unspent outputs.
pub(crate) struct Ledger {
    blocks: HashMap<BlockHash, Arc<Block>>,
    heights: HashMap<BlockHash, u32>,
    best: Vec<BlockHash>,
    /// Header times of the best chain.
    times: Vec<u32>,
    coins: HashMap<OutPoint, Coin>,
    /// What the blocks of the best chain spent, in order.
    undo: Vec<Vec<(OutPoint, Coin)>>,
    confirmed: HashMap<Txid, u32>,
    spenders: HashMap<OutPoint, Txid>,
    /// Transactions whose scripts passed. The wtxid commits to all a script can see, except
    /// the spent outputs, which the txids of the inputs commit to.
    verified: HashSet<Wtxid>,
    /// Makes each coinbase unique, also on competing branches.
    extra_nonce: i64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let genesis = genesis_block(Network::Regtest);
        let hash = genesis.block_hash();
        Self {
            heights: HashMap::from([(hash, 0)]),
            best: vec![hash],
            times: vec![genesis.header.time],
            coins: HashMap::new(),
            undo: vec![Vec::new()],
            confirmed: HashMap::new(),
            spenders: HashMap::new(),
            verified: HashSet::new(),
            extra_nonce: 0,
            blocks: HashMap::from([(hash, Arc::new(genesis))]),
        }
    }

    pub(crate) fn height(&self) -> u32 {
        self.best.len() as u32 - 1
    }

    pub(crate) fn tip(&self) -> BlockRef {
        BlockRef {
            height: self.height(),
            hash: *self.best.last().expect("genesis is never disconnected"),
        }
    }

    pub(crate) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.best.get(height as usize).copied()
    }

    /// Returns the height of `hash` in the best chain.
    pub(crate) fn best_height_of(&self, hash: BlockHash) -> Option<u32> {
        let height = *self.heights.get(&hash)?;
        (self.hash_at(height) == Some(hash)).then_some(height)
    }

    pub(crate) fn block(&self, hash: BlockHash) -> Option<&Arc<Block>> {
        self.blocks.get(&hash)
    }

    pub(crate) fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// Iterates over the unspent outputs, in no order that may be relied on.
    pub(crate) fn coins(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.coins.iter()
    }

    pub(crate) fn confirmed_height(&self, txid: Txid) -> Option<u32> {
        self.confirmed.get(&txid).copied()
    }

    pub(crate) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// Returns a transaction of the best chain.
    pub(crate) fn transaction(&self, txid: Txid) -> Option<Transaction> {
        let hash = self.hash_at(self.confirmed_height(txid)?)?;
        let block = self.blocks.get(&hash)?;
        block.txdata.iter().find(|tx| tx.compute_txid() == txid).cloned()
    }

    /// Returns the median time past of the best chain's block at `height` (BIP 113).
    pub(crate) fn median_time(&self, height: u32) -> u32 {
        let end = (height as usize + 1).min(self.times.len());
        let mut window = self.times[end.saturating_sub(11)..end].to_vec();
        window.sort_unstable();
        window[window.len() / 2]
    }

    /// Runs the scripts of `tx` unless they passed before; `false` if one fails.
    pub(crate) fn scripts_pass(&mut self, tx: &Transaction, coins: &[Coin]) -> bool {
        let wtxid = tx.compute_wtxid();
        if self.verified.contains(&wtxid) {
            return true;
        }
        if rules::check_scripts(tx, coins).is_err() {
            return false;
        }
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(wtxid);
        true
    }

    /// Builds and solves a block on the tip.
    ///
    /// `time` is taken as it is; [`Self::connect`] refuses one that is not above the median.
    pub(crate) fn assemble(
        &mut self,
        time: u32,
        script: &Script,
        fees: Amount,
        transactions: Vec<Transaction>,
    ) -> Block {
        let height = self.height() + 1;
        self.extra_nonce += 1;
        let mut witness = Witness::new();
        witness.push([0u8; 32]);
        let mut coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                // BIP 34: the height comes first.
                script_sig: ScriptBuf::builder()
                    .push_int(i64::from(height))
                    .push_int(self.extra_nonce)
                    .into_script(),
                sequence: Sequence::MAX,
                witness,
            }],
            output: vec![TxOut {
                value: rules::subsidy(height) + fees,
                script_pubkey: script.to_owned(),
            }],
        };
        // A height below 17 is one byte, and a coinbase script must have two.
        if coinbase.input[0].script_sig.len() < 2 {
            coinbase.input[0].script_sig.push_opcode(bitcoin::opcodes::all::OP_PUSHBYTES_0);
        }
        coinbase.output.push(witness_commitment(&transactions));
        let mut txdata = Vec::with_capacity(transactions.len() + 1);
        txdata.push(coinbase);
        txdata.extend(transactions);
        let mut block = Block {
            header: Header {
                version: Version::NO_SOFT_FORK_SIGNALLING,
                prev_blockhash: self.tip().hash,
                merkle_root: TxMerkleNode::all_zeros(),
                time,
                bits: CompactTarget::from_consensus(REGTEST_BITS),
                nonce: 0,
            },
            txdata,
        };
        block.header.merkle_root =
            block.compute_merkle_root().expect("a block has at least its coinbase");
        let target = block.header.target();
        while block.header.validate_pow(target).is_err() {
            block.header.nonce += 1;
        }
        block
    }

    /// Checks a block on the tip completely and connects it.
    ///
    /// # Errors
    ///
    /// Bitcoin Core's word for the broken rule; nothing has changed then.
    pub(crate) fn connect(&mut self, block: Block) -> Result<BlockRef, &'static str> {
        let tip = self.tip();
        let height = tip.height + 1;
        check_block_alone(&block, tip.hash, height)?;
        let median_time = self.median_time(tip.height);
        if block.header.time <= median_time {
            return Err("time-too-old");
        }
        let mut created: HashMap<OutPoint, Coin> = HashMap::new();
        let mut spent: Vec<(OutPoint, Coin)> = Vec::new();
        let mut gone: HashSet<OutPoint> = HashSet::new();
        let mut fees = Amount::ZERO;
        let mut sigops = 0;
        for (index, tx) in block.txdata.iter().enumerate() {
            rules::check_shape(tx)?;
            if !rules::is_final(tx, height, median_time) {
                return Err("bad-txns-nonfinal");
            }
            let mut coins = Vec::with_capacity(tx.input.len());
            if index > 0 {
                for input in &tx.input {
                    let outpoint = input.previous_output;
                    let coin = created
                        .get(&outpoint)
                        .or_else(|| self.coins.get(&outpoint))
                        .filter(|_| !gone.contains(&outpoint))
                        .ok_or("bad-txns-inputs-missingorspent")?
                        .clone();
                    gone.insert(outpoint);
                    spent.push((outpoint, coin.clone()));
                    coins.push(coin);
                }
                let fee = rules::check_values(tx, &coins, height)?;
                fees = fees.checked_add(fee).ok_or("bad-txns-accumulated-fee-outofrange")?;
                if !rules::sequence_locks_met(tx, &coins, height, |h| self.median_time(h)) {
                    return Err("bad-txns-nonfinal");
                }
                if !self.scripts_pass(tx, &coins) {
                    return Err("block-script-verify-flag-failed");
                }
            }
            sigops += rules::sigops_cost(tx, &coins);
            if sigops > rules::MAX_BLOCK_SIGOPS_COST {
                return Err("bad-blk-sigops");
            }
            let txid = tx.compute_txid();
            for (vout, output) in tx.output.iter().enumerate() {
                if is_unspendable(&output.script_pubkey) {
                    continue;
                }
                let outpoint = OutPoint::new(txid, vout as u32);
                if self.coins.contains_key(&outpoint) {
                    return Err("bad-txns-BIP30");
                }
                let coinbase = index == 0;
                created.insert(outpoint, Coin { output: output.clone(), height, coinbase });
            }
        }
        let reward = block.txdata[0].output.iter().map(|o| o.value).sum::<Amount>();
        if reward > rules::subsidy(height) + fees {
            return Err("bad-cb-amount");
        }

        self.coins.extend(created);
        for (outpoint, _) in &spent {
            self.coins.remove(outpoint);
        }
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.confirmed.insert(txid, height);
            for input in tx.input.iter().filter(|i| !i.previous_output.is_null()) {
                self.spenders.insert(input.previous_output, txid);
            }
        }
        let hash = block.block_hash();
        self.undo.push(spent);
        self.best.push(hash);
        self.times.push(block.header.time);
        self.heights.insert(hash, height);
        self.blocks.insert(hash, Arc::new(block));
        Ok(BlockRef { height, hash })
    }

    /// Takes the tip off the best chain and returns it; `None` at genesis.
    pub(crate) fn disconnect(&mut self) -> Option<Arc<Block>> {
        if self.height() == 0 {
            return None;
        }
        let hash = self.best.pop().expect("height is above genesis");
        self.times.pop();
        let spent = self.undo.pop().expect("every block has its undo data");
        let block = self.blocks[&hash].clone();
        // An output made and spent in this block comes back first and then goes with the rest.
        for (outpoint, coin) in spent {
            self.spenders.remove(&outpoint);
            self.coins.insert(outpoint, coin);
        }
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.confirmed.remove(&txid);
            for vout in 0..tx.output.len() as u32 {
                self.coins.remove(&OutPoint::new(txid, vout));
            }
        }
        Some(block)
    }
}

/// Rules that need only the block, its predecessor's hash and its height.
fn check_block_alone(block: &Block, parent: BlockHash, height: u32) -> Result<(), &'static str> {
    let header = &block.header;
    if header.prev_blockhash != parent {
        return Err("bad-prevblk");
    }
    if header.bits.to_consensus() != REGTEST_BITS {
        return Err("bad-diffbits");
    }
    if header.validate_pow(Params::REGTEST.max_attainable_target).is_err() {
        return Err("high-hash");
    }
    match block.txdata.split_first() {
        Some((first, rest)) if first.is_coinbase() => {
            if rest.iter().any(Transaction::is_coinbase) {
                return Err("bad-cb-multiple");
            }
        }
        _ => return Err("bad-cb-missing"),
    }
    if !block.check_merkle_root() {
        return Err("bad-txnmrklroot");
    }
    // BIP 34 as Core checks it: the script begins as a push of the height would.
    let push = ScriptBuf::builder().push_int(i64::from(height)).into_script();
    let coinbase_script = &block.txdata[0].input[0].script_sig;
    if !coinbase_script.as_bytes().starts_with(push.as_bytes()) {
        return Err("bad-cb-height");
    }
    if !block.check_witness_commitment() {
        return Err("bad-witness-merkle-match");
    }
    if block.weight().to_wu() > rules::MAX_BLOCK_WEIGHT {
        return Err("bad-blk-weight");
    }
    Ok(())
}

/// The coinbase output that commits to all witnesses (BIP 141).
fn witness_commitment(transactions: &[Transaction]) -> TxOut {
    let leaves = std::iter::once(WitnessMerkleNode::all_zeros())
        .chain(transactions.iter().map(|tx| tx.compute_wtxid().to_raw_hash().into()));
    let root = bitcoin::merkle_tree::calculate_root(leaves).expect("the coinbase is a leaf");
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    let mut bytes = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    bytes.extend_from_slice(commitment.as_byte_array());
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(bytes) }
}

/// Outputs that can never be spent are not kept.
pub(crate) fn is_unspendable(script: &Script) -> bool {
    script.is_op_return() || script.len() > 10_000
}
