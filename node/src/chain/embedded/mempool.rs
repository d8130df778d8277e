//! The mempool as a graph: entries, who spends what, ancestors, descendants, block template.
//!
//! Nothing here judges a transaction; `accept` does and then inserts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{Amount, Block, OutPoint, Transaction, Txid, Wtxid};

use super::linear::{self, Chunk, Item};
use super::rules::{MAX_BLOCK_SIGOPS_COST, MAX_BLOCK_WEIGHT};

/// Room kept in a block for header, coinbase and commitment.
const RESERVED_WEIGHT: u64 = 8_000;
const RESERVED_SIGOPS: usize = 400;

/// An accepted transaction.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub tx: Arc<Transaction>,
    pub wtxid: Wtxid,
    pub fee: Amount,
    /// Virtual bytes, signature operations taken into account.
    pub vsize: u64,
    pub sigops: usize,
    pub parents: BTreeSet<Txid>,
    pub children: BTreeSet<Txid>,
    sequence: u64,
}

impl Entry {
    pub(crate) fn new(tx: Arc<Transaction>, fee: Amount, vsize: u64, sigops: usize) -> Self {
        Self {
            wtxid: tx.compute_wtxid(),
            tx,
            fee,
            vsize,
            sigops,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            sequence: 0,
        }
    }
}

/// Transactions that wait for a block.
#[derive(Default)]
pub(crate) struct Mempool {
    entries: HashMap<Txid, Entry>,
    spenders: HashMap<OutPoint, Txid>,
    /// Order of arrival, so that nothing depends on the order of a hash map.
    arrivals: BTreeMap<u64, Txid>,
    next_sequence: u64,
}

impl Mempool {
    pub(crate) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    pub(crate) fn contains(&self, txid: &Txid) -> bool {
        self.entries.contains_key(txid)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the transaction that spends `outpoint`.
    pub(crate) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// Returns all ids by arrival.
    pub(crate) fn txids(&self) -> Vec<Txid> {
        self.arrivals.values().copied().collect()
    }

    /// Inserts a judged transaction and links it with parents and children already here.
    pub(crate) fn insert(&mut self, mut entry: Entry) {
        let txid = entry.tx.compute_txid();
        entry.sequence = self.next_sequence;
        self.next_sequence += 1;
        for input in &entry.tx.input {
            self.spenders.insert(input.previous_output, txid);
            if let Some(parent) = self.entries.get_mut(&input.previous_output.txid) {
                parent.children.insert(txid);
                entry.parents.insert(input.previous_output.txid);
            }
        }
        // A transaction that comes back from a block may find its children here.
        for vout in 0..entry.tx.output.len() as u32 {
            if let Some(child) = self.spender(&OutPoint::new(txid, vout)) {
                entry.children.insert(child);
                if let Some(child) = self.entries.get_mut(&child) {
                    child.parents.insert(txid);
                }
            }
        }
        self.arrivals.insert(entry.sequence, txid);
        self.entries.insert(txid, entry);
    }

    /// Takes one transaction out; its children stay.
    fn unlink(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        self.arrivals.remove(&entry.sequence);
        for input in &entry.tx.input {
            if self.spender(&input.previous_output) == Some(*txid) {
                self.spenders.remove(&input.previous_output);
            }
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(txid);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(txid);
            }
        }
        Some(entry)
    }

    /// Takes a transaction and everything that builds on it out.
    pub(crate) fn remove_with_descendants(&mut self, txid: &Txid) {
        for gone in self.descendants(&[*txid].into()) {
            self.unlink(&gone);
        }
    }

    /// Takes out what builds on the outputs of `tx`, which itself need not be here.
    pub(crate) fn remove_spenders_of(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for vout in 0..tx.output.len() as u32 {
            if let Some(spender) = self.spender(&OutPoint::new(txid, vout)) {
                self.remove_with_descendants(&spender);
            }
        }
    }

    /// Takes out what `block` confirms and what it makes impossible.
    pub(crate) fn remove_for_block(&mut self, block: &Block) {
        for tx in &block.txdata {
            self.unlink(&tx.compute_txid());
            for input in &tx.input {
                if let Some(rival) = self.spender(&input.previous_output) {
                    self.remove_with_descendants(&rival);
                }
            }
        }
    }

    /// Returns `roots` and all that build on them.
    pub(crate) fn descendants(&self, roots: &BTreeSet<Txid>) -> BTreeSet<Txid> {
        self.closure(roots, |entry| &entry.children)
    }

    /// Returns `roots` and all they build on.
    pub(crate) fn ancestors(&self, roots: &BTreeSet<Txid>) -> BTreeSet<Txid> {
        self.closure(roots, |entry| &entry.parents)
    }

    /// Returns all that is connected with `roots` in either direction.
    pub(crate) fn clusters(&self, roots: &BTreeSet<Txid>) -> BTreeSet<Txid> {
        let mut found = roots.clone();
        loop {
            let before = found.len();
            found = self.ancestors(&found);
            found = self.descendants(&found);
            if found.len() == before {
                return found;
            }
        }
    }

    fn closure(
        &self,
        roots: &BTreeSet<Txid>,
        next: impl Fn(&Entry) -> &BTreeSet<Txid>,
    ) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut stack: Vec<Txid> = roots.iter().copied().collect();
        while let Some(txid) = stack.pop() {
            let Some(entry) = self.entries.get(&txid) else {
                continue;
            };
            if found.insert(txid) {
                stack.extend(next(entry).iter().copied());
            }
        }
        found
    }

    /// Sums fee and virtual size.
    pub(crate) fn totals(&self, txids: &BTreeSet<Txid>) -> (Amount, u64) {
        txids
            .iter()
            .filter_map(|txid| self.entries.get(txid))
            .fold((Amount::ZERO, 0), |(fee, vsize), entry| (fee + entry.fee, vsize + entry.vsize))
    }

    /// Returns entries as items, with their ids by index, ordered by arrival.
    pub(crate) fn items(&self, keep: impl Fn(&Txid) -> bool) -> (Vec<Txid>, Vec<Item>) {
        let txids: Vec<Txid> = self.arrivals.values().copied().filter(|t| keep(t)).collect();
        let index: HashMap<Txid, usize> = txids.iter().enumerate().map(|(i, t)| (*t, i)).collect();
        let items = txids
            .iter()
            .map(|txid| {
                let entry = &self.entries[txid];
                Item {
                    fee_sat: entry.fee.to_sat(),
                    vsize: entry.vsize,
                    parents: entry.parents.iter().filter_map(|p| index.get(p).copied()).collect(),
                }
            })
            .collect();
        (txids, items)
    }

    /// Takes out every chunk that pays less than `feerate` (fee over virtual bytes).
    pub(crate) fn evict_below(&mut self, feerate: (u64, u64)) {
        let (txids, items) = self.items(|_| true);
        for chunk in linear::chunks(&items) {
            if linear::compare_feerates((chunk.fee_sat, chunk.vsize), feerate).is_lt() {
                for member in chunk.members {
                    self.remove_with_descendants(&txids[member]);
                }
            }
        }
    }

    /// Chooses transactions for the next block, parents first; returns them with their fees.
    ///
    /// Chunks that pay less than 1 sat per 1,000 vB are left (Core's `blockmintxfee`).
    pub(crate) fn template(&self) -> (Vec<Transaction>, Amount) {
        let (txids, items) = self.items(|_| true);
        let mut chosen = Vec::new();
        let mut fees = Amount::ZERO;
        let mut weight = RESERVED_WEIGHT;
        let mut sigops = RESERVED_SIGOPS;
        let mut left_out: BTreeSet<Txid> = BTreeSet::new();
        for chunk in linear::chunks(&items) {
            let members: Vec<&Entry> =
                chunk.members.iter().map(|&i| &self.entries[&txids[i]]).collect();
            let chunk_weight: u64 = members.iter().map(|e| e.tx.weight().to_wu()).sum();
            let chunk_sigops: usize = members.iter().map(|e| e.sigops).sum();
            let fits = weight + chunk_weight <= MAX_BLOCK_WEIGHT
                && sigops + chunk_sigops <= MAX_BLOCK_SIGOPS_COST;
            let orphaned = members.iter().any(|e| e.parents.iter().any(|p| left_out.contains(p)));
            if !pays_a_miner(&chunk) || !fits || orphaned {
                left_out.extend(chunk.members.iter().map(|&i| txids[i]));
                continue;
            }
            weight += chunk_weight;
            sigops += chunk_sigops;
            fees += members.iter().map(|e| e.fee).sum::<Amount>();
            chosen.extend(members.iter().map(|e| Transaction::clone(&e.tx)));
        }
        (chosen, fees)
    }
}

fn pays_a_miner(chunk: &Chunk) -> bool {
    chunk.fee_sat >= chunk.vsize.div_ceil(1_000)
}
