//! The wallet on real blocks, its signatures judged by Bitcoin Core's interpreter.
//!
//! `chain.rs` tries blocks, reorgs and restarts, `spending.rs` and `anchor.rs` what leaves the
//! wallet, `news.rs` what is told of it, `model.rs` random histories of blocks and spending.

mod anchor;
mod chain;
mod model;
mod news;
mod spending;

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{
    CompactTarget, FeeRate, Network, Sequence, TxIn, TxMerkleNode, TxOut, Witness, constants,
};
use parking_lot::Mutex;

use super::*;
use crate::environment::{OsEntropy, UnixTime};
use crate::keys::RecoveryPhrase;
use crate::store::{Batch, Op, Pair, Store, Table, Term};

const PHRASE: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// An address of somebody else, and one of another network.
const FOREIGN: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const MAINNET: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

/// A clock that stands still: the wallet must order events without it.
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> UnixTime {
        Duration::from_secs(1_700_000_000)
    }
}

/// The store's contract in memory.
#[derive(Default)]
struct MemoryStore(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Store for MemoryStore {
    fn engine(&self) -> &'static str {
        "memory"
    }
    fn term(&self) -> Term {
        Term(1)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().get(key).cloned())
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let map = self.0.lock();
        let range = map.range(from.to_vec()..to.to_vec());
        Ok(range.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = self.scan(from, to, usize::MAX)?;
        pairs.reverse();
        pairs.truncate(limit);
        Ok(pairs)
    }
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut map = self.0.lock();
        for op in batch.ops.clone() {
            match op {
                Op::Put { key, value } => map.insert(key, value),
                Op::Delete { key } => map.remove(&key),
            };
        }
        Ok(())
    }
    fn snapshot(
        &self,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.0.lock().iter().try_for_each(|(k, v)| visit(k, v))
    }
    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// A wallet, the store below it, and the chain above it.
pub(crate) struct World {
    store: Arc<MemoryStore>,
    committer: Committer,
    pub(crate) wallet: Arc<Wallet>,
    blocks: Vec<Block>,
    salt: u64,
}

fn open_with(
    store: &Arc<MemoryStore>,
    phrase: &str,
    network: Network,
) -> Result<(Committer, Wallet), OpenWalletError> {
    let committer = Committer::new(store.clone());
    let wallet = open_telling(&committer, Arc::new(committer.clone()), phrase, network)?;
    Ok((committer, wallet))
}

fn open_telling(
    committer: &Committer,
    book: Arc<dyn Book>,
    phrase: &str,
    network: Network,
) -> Result<Wallet, OpenWalletError> {
    let keys = Keys::in_memory(network, &RecoveryPhrase::parse(phrase).unwrap(), "");
    Wallet::open(WalletParams {
        keys: Arc::new(keys),
        committer: committer.clone(),
        book,
        clock: Arc::new(StoppedClock),
        entropy: Arc::new(OsEntropy),
        anchor_reserve_per_channel: Amount::from_sat(10_000),
        birthday: None,
        lookahead: 25,
    })
}

impl World {
    pub(crate) fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let (committer, wallet) = open_with(&store, PHRASE, Network::Regtest).unwrap();
        Self {
            store,
            committer,
            wallet: Arc::new(wallet),
            blocks: vec![constants::genesis_block(Network::Regtest)],
            salt: 0,
        }
    }

    /// Mines a block of `txs` on the tip and feeds it.
    fn mine(&mut self, txs: Vec<Transaction>) -> &Block {
        let height = self.blocks.len() as u32;
        self.salt += 1;
        let coinbase = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                script_sig: bitcoin::script::Builder::new()
                    .push_int(height.into())
                    .push_int(self.salt as i64)
                    .into_script(),
                ..TxIn::default()
            }],
            output: vec![TxOut {
                value: Amount::from_sat(5_000_000_000),
                script_pubkey: foreign(),
            }],
        };
        let block = self.block_with(coinbase, txs);
        self.wallet.block_connected(&Arc::new(block.clone()), height).unwrap();
        self.blocks.push(block);
        self.blocks.last().unwrap()
    }

    fn block_with(&self, coinbase: Transaction, mut txs: Vec<Transaction>) -> Block {
        txs.insert(0, coinbase);
        let mut block = Block {
            header: Header {
                version: BlockVersion::TWO,
                prev_blockhash: self.blocks.last().unwrap().block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: 1_700_000_000 + self.salt as u32,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata: txs,
        };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        block
    }

    /// Pays each amount to a fresh address, in one transaction of somebody else.
    fn payment(&mut self, amounts: &[u64]) -> Transaction {
        self.salt += 1;
        let input = OutPoint::new(Txid::from_byte_array([self.salt as u8; 32]), 0);
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: input,
                sequence: Sequence::MAX,
                ..TxIn::default()
            }],
            output: amounts
                .iter()
                .map(|sat| TxOut {
                    value: Amount::from_sat(*sat),
                    script_pubkey: self.wallet.new_address().0.script_pubkey(),
                })
                .collect(),
        }
    }

    /// As [`World::payment`], in a block.
    fn deposit(&mut self, amounts: &[u64]) -> Transaction {
        let payment = self.payment(amounts);
        self.mine(vec![payment.clone()]);
        payment
    }

    /// Ends the process and starts it again from what is durable.
    fn restart(&mut self) {
        let (committer, wallet) = open_with(&self.store, PHRASE, Network::Regtest).unwrap();
        self.committer = committer;
        self.wallet = Arc::new(wallet);
    }

    /// Checks every input by consensus rules and that the fee is what `built` says.
    fn assert_valid(&self, built: &Built) {
        let tx = &built.transaction;
        let spent: Vec<TxOut> = tx
            .input
            .iter()
            .map(|input| {
                let outpoint = input.previous_output;
                let parent = self.wallet.previous_transaction(outpoint).unwrap();
                parent.output[outpoint.vout as usize].clone()
            })
            .collect();
        verify(tx, &spent, &(0..spent.len()).collect::<Vec<_>>());
        let inputs: Amount = spent.iter().map(|output| output.value).sum();
        let outputs: Amount = tx.output.iter().map(|output| output.value).sum();
        assert_eq!(outputs + built.fee, inputs);
    }
}

fn verify(tx: &Transaction, spent: &[TxOut], inputs: &[usize]) {
    let utxos: Vec<bitcoinconsensus::Utxo> = spent
        .iter()
        .map(|output| bitcoinconsensus::Utxo {
            script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: output.script_pubkey.len() as u32,
            value: output.value.to_sat() as i64,
        })
        .collect();
    for index in inputs {
        bitcoinconsensus::verify(
            spent[*index].script_pubkey.as_bytes(),
            spent[*index].value.to_sat(),
            &serialize(tx),
            Some(&utxos),
            *index,
        )
        .unwrap();
    }
}

fn foreign() -> ScriptBuf {
    use std::str::FromStr;
    Address::from_str(FOREIGN).unwrap().assume_checked().script_pubkey()
}

fn sat_vb(rate: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(rate).unwrap()
}

fn sat(amount: u64) -> Amount {
    Amount::from_sat(amount)
}

fn funding(amount: u64, new_channels: u32) -> FundingRequest {
    FundingRequest {
        outputs: vec![TxOut { value: sat(amount), script_pubkey: foreign() }],
        feerate: sat_vb(5),
        new_channels,
    }
}

fn rate_of(built: &Built) -> f64 {
    built.fee.to_sat() as f64 / built.transaction.vsize() as f64
}
