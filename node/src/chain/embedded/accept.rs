//! Judges transactions and packages for the mempool, as Bitcoin Core does.
//!
//! The order of the checks and the words of the refusals are Core's. Where versions 29 to 31
//! differ, the stricter answer is given, so that what passes here passes on all of them.
//! Replacement is in `replace`, the rules of version 3 in `truc`.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{Amount, Block, OutPoint, Transaction, Txid};

use super::ledger::Ledger;
use super::mempool::{Entry, Mempool};
use super::policy::{self, Feerates};
use super::rules::{self, Coin};
use super::{replace, truc};

/// Ancestors or descendants of one transaction, itself counted.
const MAX_CHAIN_COUNT: usize = 25;
/// Their virtual bytes.
const MAX_CHAIN_VSIZE: u64 = 101_000;
const MAX_PACKAGE_COUNT: usize = 25;
const MAX_PACKAGE_WEIGHT: u64 = 404_000;

/// What may change a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hope {
    /// Nothing.
    None,
    /// A child that pays more, in one package.
    Package,
    /// A parent that comes first.
    Parent,
}

/// Why a transaction is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub txid: Txid,
    /// Core's word.
    pub reason: Cow<'static, str>,
    pub hope: Hope,
}

/// How strictly to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On its own: it must pay its own way and may evict a sibling.
    Single,
    /// As part of a package: feerates are judged for the whole.
    Package,
    /// Back from a disconnected block, or from the faucet: no feerate, chain or TRUC limits.
    Exempt,
}

/// A transaction that passed the first checks.
pub(crate) struct Candidate {
    pub tx: Arc<Transaction>,
    pub txid: Txid,
    pub fee: Amount,
    pub vsize: u64,
    pub sigops: usize,
    pub coins: Vec<Coin>,
    /// Parents in the mempool.
    pub parents: BTreeSet<Txid>,
    /// Direct conflicts in the mempool, with an evicted sibling.
    pub conflicts: BTreeSet<Txid>,
    pub sibling_eviction: bool,
}

/// The mempool over its ledger, for the time of one judgement.
pub(crate) struct Pool<'a> {
    pub ledger: &'a mut Ledger,
    pub mempool: &'a mut Mempool,
    pub feerates: &'a Feerates,
}

impl Pool<'_> {
    /// Takes a package whose last transaction spends from all others, or a single one.
    ///
    /// What is already here counts as taken. Parts that stand on their own stay in even if
    /// the rest is refused, as with `submitpackage`.
    pub(crate) fn accept_package(&mut self, package: &[Arc<Transaction>]) -> Result<(), Refusal> {
        check_package(package)?;
        let mut refused: Vec<(Arc<Transaction>, Refusal)> = Vec::new();
        let mut hopeless = false;
        for tx in package {
            if self.mempool.contains(&tx.compute_txid()) {
                continue;
            }
            if let Err(refusal) = self.accept_single(tx, Mode::Single) {
                hopeless |= refusal.hope == Hope::None || package.len() == 1;
                refused.push((tx.clone(), refusal));
            }
        }
        let Some((_, first)) = refused.first() else {
            return Ok(());
        };
        if hopeless {
            let worst = refused.iter().find(|(_, r)| r.hope == Hope::None);
            return Err(worst.map_or(first, |(_, r)| r).clone());
        }
        let rest: Vec<Arc<Transaction>> = refused.iter().map(|(tx, _)| tx.clone()).collect();
        match &rest[..] {
            [tx] => self.accept_single(tx, Mode::Single),
            _ => self.accept_together(&rest),
        }
    }

    /// Takes one transaction on its own.
    pub(crate) fn accept_single(
        &mut self,
        tx: &Arc<Transaction>,
        mode: Mode,
    ) -> Result<(), Refusal> {
        let candidate = self.examine(tx, mode, &HashMap::new())?;
        if !candidate.conflicts.is_empty() {
            replace::check_single(self.mempool, self.feerates, &candidate)?;
        }
        let candidates = [candidate];
        if mode != Mode::Exempt {
            self.check_chain_limits(&candidates)?;
            self.check_dust_spent(&candidates)?;
        }
        self.check_scripts(&candidates)?;
        self.insert(candidates);
        Ok(())
    }

    fn accept_together(&mut self, txs: &[Arc<Transaction>]) -> Result<(), Refusal> {
        let mut outputs = HashMap::new();
        let mut candidates = Vec::with_capacity(txs.len());
        for tx in txs {
            let candidate = self.examine(tx, Mode::Package, &outputs)?;
            let height = self.ledger.height() + 1;
            for (vout, output) in tx.output.iter().enumerate() {
                let coin = Coin { output: output.clone(), height, coinbase: false };
                outputs.insert(OutPoint::new(candidate.txid, vout as u32), coin);
            }
            candidates.push(candidate);
        }
        let child = candidates[candidates.len() - 1].txid;
        let refuse =
            |reason: &'static str, hope| Refusal { txid: child, reason: reason.into(), hope };
        truc::check_package(self.mempool, &candidates)
            .map_err(|()| refuse("TRUC-violation", Hope::None))?;
        let fee = candidates.iter().map(|c| c.fee).sum();
        let vsize = candidates.iter().map(|c| c.vsize).sum();
        policy::check_feerate(self.feerates, fee, vsize)
            .map_err(|reason| refuse(reason, Hope::Package))?;
        if candidates.iter().any(|c| !c.conflicts.is_empty()) {
            replace::check_package(self.mempool, self.feerates, &candidates)?;
        }
        self.check_chain_limits(&candidates)?;
        self.check_dust_spent(&candidates)?;
        self.check_scripts(&candidates)?;
        self.insert(candidates);
        Ok(())
    }

    /// All checks but scripts that concern one transaction.
    fn examine(
        &self,
        tx: &Arc<Transaction>,
        mode: Mode,
        package_outputs: &HashMap<OutPoint, Coin>,
    ) -> Result<Candidate, Refusal> {
        let txid = tx.compute_txid();
        let refuse =
            |reason: &'static str| Refusal { txid, reason: reason.into(), hope: Hope::None };
        let dust_relay = self.feerates.dust_relay;
        rules::check_shape(tx).map_err(refuse)?;
        if tx.is_coinbase() {
            return Err(refuse("coinbase"));
        }
        policy::check_standard(tx, dust_relay).map_err(refuse)?;
        let tip = self.ledger.height();
        let height = tip + 1;
        if !rules::is_final(tx, height, self.ledger.median_time(tip)) {
            return Err(refuse("non-final"));
        }
        if let Some(known) = self.mempool.get(&txid) {
            return Err(refuse(if known.wtxid == tx.compute_wtxid() {
                "txn-already-in-mempool"
            } else {
                "txn-same-nonwitness-data-in-mempool"
            }));
        }
        let conflicts: BTreeSet<Txid> =
            tx.input.iter().filter_map(|i| self.mempool.spender(&i.previous_output)).collect();
        let coins = self.coins_of(tx, package_outputs).ok_or_else(|| {
            if self.ledger.confirmed_height(txid).is_some() {
                refuse("txn-already-known")
            } else {
                Refusal { hope: Hope::Parent, ..refuse("bad-txns-inputs-missingorspent") }
            }
        })?;
        if !rules::sequence_locks_met(tx, &coins, height, |h| self.ledger.median_time(h)) {
            return Err(refuse("non-BIP68-final"));
        }
        let fee = rules::check_values(tx, &coins, height).map_err(refuse)?;
        let (sigops, vsize) = policy::measure(tx, &coins);
        policy::check_inputs(tx, &coins, sigops).map_err(refuse)?;
        // A fee would be a reason to mine it without the child that sweeps the dust.
        if fee > Amount::ZERO && policy::has_dust(tx, dust_relay) {
            return Err(refuse("dust"));
        }
        if mode == Mode::Single {
            policy::check_feerate(self.feerates, fee, vsize)
                .map_err(|reason| Refusal { hope: Hope::Package, ..refuse(reason) })?;
        }
        let parents = tx
            .input
            .iter()
            .map(|i| i.previous_output.txid)
            .filter(|parent| self.mempool.contains(parent))
            .collect();
        let mut candidate = Candidate {
            tx: tx.clone(),
            txid,
            fee,
            vsize,
            sigops,
            coins,
            parents,
            conflicts,
            sibling_eviction: false,
        };
        if mode != Mode::Exempt {
            match truc::check_single(self.mempool, &candidate) {
                truc::Verdict::Good => {}
                truc::Verdict::EvictSibling(sibling) if mode == Mode::Single => {
                    candidate.conflicts.insert(sibling);
                    candidate.sibling_eviction = true;
                }
                _ => return Err(refuse("TRUC-violation")),
            }
        }
        Ok(candidate)
    }

    /// Finds the outputs that `tx` spends, in chain, mempool or package.
    fn coins_of(
        &self,
        tx: &Transaction,
        package_outputs: &HashMap<OutPoint, Coin>,
    ) -> Option<Vec<Coin>> {
        tx.input
            .iter()
            .map(|input| {
                let outpoint = &input.previous_output;
                let here = self.ledger.coin(outpoint).or_else(|| package_outputs.get(outpoint));
                here.cloned().or_else(|| {
                    let parent = self.mempool.get(&outpoint.txid)?;
                    let output = parent.tx.output.get(outpoint.vout as usize)?.clone();
                    let height = self.ledger.height() + 1;
                    Some(Coin { output, height, coinbase: false })
                })
            })
            .collect()
    }

    fn check_chain_limits(&self, candidates: &[Candidate]) -> Result<(), Refusal> {
        let mut roots: BTreeSet<Txid> = BTreeSet::new();
        let mut replaced: BTreeSet<Txid> = BTreeSet::new();
        for candidate in candidates {
            roots.extend(&candidate.parents);
            replaced.extend(&candidate.conflicts);
        }
        let replaced = self.mempool.descendants(&replaced);
        let added_vsize: u64 = candidates.iter().map(|c| c.vsize).sum();
        let fits = |mut txids: BTreeSet<Txid>| {
            txids.retain(|t| !replaced.contains(t));
            txids.len() + candidates.len() <= MAX_CHAIN_COUNT
                && self.mempool.totals(&txids).1 + added_vsize <= MAX_CHAIN_VSIZE
        };
        let ancestors = self.mempool.ancestors(&roots);
        let all_fit =
            ancestors.iter().all(|ancestor| fits(self.mempool.descendants(&[*ancestor].into())));
        if all_fit && fits(ancestors) {
            return Ok(());
        }
        Err(Refusal {
            txid: candidates[candidates.len() - 1].txid,
            reason: "too-long-mempool-chain".into(),
            hope: Hope::None,
        })
    }

    /// Whoever spends from a parent with dust must spend that dust too.
    fn check_dust_spent(&self, candidates: &[Candidate]) -> Result<(), Refusal> {
        let dust_relay = self.feerates.dust_relay;
        for candidate in candidates {
            let spent: BTreeSet<OutPoint> =
                candidate.tx.input.iter().map(|i| i.previous_output).collect();
            for parent_id in spent.iter().map(|o| o.txid) {
                let parent = match self.mempool.get(&parent_id) {
                    Some(entry) => &entry.tx,
                    None => match candidates.iter().find(|c| c.txid == parent_id) {
                        Some(other) => &other.tx,
                        None => continue,
                    },
                };
                let left = parent.output.iter().enumerate().any(|(vout, output)| {
                    policy::is_dust(output, dust_relay)
                        && !spent.contains(&OutPoint::new(parent_id, vout as u32))
                });
                if left {
                    return Err(Refusal {
                        txid: candidate.txid,
                        reason: "missing-ephemeral-spends".into(),
                        hope: Hope::None,
                    });
                }
            }
        }
        Ok(())
    }

    fn check_scripts(&mut self, candidates: &[Candidate]) -> Result<(), Refusal> {
        for candidate in candidates {
            if !self.ledger.scripts_pass(&candidate.tx, &candidate.coins) {
                return Err(Refusal {
                    txid: candidate.txid,
                    reason: "mempool-script-verify-flag-failed".into(),
                    hope: Hope::None,
                });
            }
        }
        Ok(())
    }

    fn insert(&mut self, candidates: impl IntoIterator<Item = Candidate>) {
        let candidates: Vec<Candidate> = candidates.into_iter().collect();
        for conflict in candidates.iter().flat_map(|c| &c.conflicts) {
            self.mempool.remove_with_descendants(conflict);
        }
        for candidate in candidates {
            let Candidate { tx, fee, vsize, sigops, .. } = candidate;
            self.mempool.insert(Entry::new(tx, fee, vsize, sigops));
        }
    }

    /// Brings the transactions of disconnected blocks back and drops what no longer holds.
    ///
    /// `disconnected` is ordered by height, lowest first; the new branch is connected already.
    pub(crate) fn resurrect(&mut self, disconnected: &[Arc<Block>]) {
        for tx in disconnected.iter().flat_map(|block| block.txdata.iter().skip(1)) {
            let txid = tx.compute_txid();
            if self.ledger.confirmed_height(txid).is_some() {
                continue;
            }
            if self.accept_single(&Arc::new(tx.clone()), Mode::Exempt).is_err() {
                self.mempool.remove_spenders_of(tx);
            }
        }
        // Disconnected coinbases are gone for good.
        for coinbase in disconnected.iter().filter_map(|block| block.coinbase()) {
            self.mempool.remove_spenders_of(coinbase);
        }
        let tip = self.ledger.height();
        let median_time = self.ledger.median_time(tip);
        for txid in self.mempool.txids() {
            let Some(entry) = self.mempool.get(&txid) else {
                continue;
            };
            let tx = entry.tx.clone();
            let holds = self.coins_of(&tx, &HashMap::new()).is_some_and(|coins| {
                rules::is_final(&tx, tip + 1, median_time)
                    && rules::check_values(&tx, &coins, tip + 1).is_ok()
                    && rules::sequence_locks_met(&tx, &coins, tip + 1, |h| {
                        self.ledger.median_time(h)
                    })
            });
            if !holds {
                self.mempool.remove_with_descendants(&txid);
            }
        }
    }
}

/// Checks what a package must be whatever the mempool holds.
fn check_package(package: &[Arc<Transaction>]) -> Result<(), Refusal> {
    let Some(child) = package.last() else {
        return Ok(());
    };
    let refuse = |reason: &'static str| {
        Err(Refusal { txid: child.compute_txid(), reason: reason.into(), hope: Hope::None })
    };
    if package.len() > MAX_PACKAGE_COUNT {
        return refuse("package-too-many-transactions");
    }
    let weight: u64 = package.iter().map(|tx| tx.weight().to_wu()).sum();
    if package.len() > 1 && weight > MAX_PACKAGE_WEIGHT {
        return refuse("package-too-large");
    }
    let txids: Vec<Txid> = package.iter().map(|tx| tx.compute_txid()).collect();
    if txids.iter().collect::<BTreeSet<_>>().len() != txids.len() {
        return refuse("package-contains-duplicates");
    }
    let mut spent = BTreeSet::<OutPoint>::new();
    for (index, tx) in package.iter().enumerate() {
        let own: BTreeSet<OutPoint> = tx.input.iter().map(|i| i.previous_output).collect();
        if own.iter().any(|o| txids[index..].contains(&o.txid)) {
            return refuse("package-not-sorted");
        }
        let before = spent.len();
        spent.extend(&own);
        if spent.len() != before + own.len() {
            return refuse("conflict-in-package");
        }
    }
    let parents: BTreeSet<Txid> = child.input.iter().map(|i| i.previous_output.txid).collect();
    let (_, before_child) = txids.split_last().expect("a package has a child");
    let parents_related = package[..before_child.len()]
        .iter()
        .flat_map(|tx| &tx.input)
        .any(|input| before_child.contains(&input.previous_output.txid));
    if parents_related || !before_child.iter().all(|t| parents.contains(t)) {
        return refuse("package-not-child-with-parents");
    }
    Ok(())
}
