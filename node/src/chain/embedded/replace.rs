//! Replacement: who may push whom out of the mempool, alone or as a package of two.
//!
//! Full replace-by-fee: no opt-in is asked for. The rules are those of BIP 125 as Bitcoin Core
//! has them today, with the feerate diagram; two rules that version 31 dropped are kept
//! (no new unconfirmed inputs, a better feerate than each direct conflict).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use bitcoin::{Amount, Txid};

use super::accept::{Candidate, Hope, Refusal};
use super::linear::{self, Item};
use super::mempool::Mempool;
use super::policy::{Feerates, fee_ceil};

const MAX_REPLACED: usize = 100;

/// Checks a single replacement, or the eviction of a sibling.
pub(crate) fn check_single(
    mempool: &Mempool,
    feerates: &Feerates,
    candidate: &Candidate,
) -> Result<(), Refusal> {
    let refuse = |word: &'static str, hope| {
        let reason: Cow<'static, str> = if candidate.sibling_eviction {
            format!("{word} (including sibling eviction)").into()
        } else {
            word.into()
        };
        Err(Refusal { txid: candidate.txid, reason, hope })
    };
    let conflicts = &candidate.conflicts;
    if !mempool.ancestors(&candidate.parents).is_disjoint(conflicts) {
        return refuse("bad-txns-spends-conflicting-tx", Hope::None);
    }
    let known_parents: BTreeSet<Txid> = conflicts
        .iter()
        .filter_map(|c| mempool.get(c))
        .flat_map(|entry| entry.tx.input.iter().map(|i| i.previous_output.txid))
        .collect();
    if !candidate.parents.is_subset(&known_parents) {
        return refuse("replacement-adds-unconfirmed", Hope::None);
    }
    let replaced = mempool.descendants(conflicts);
    if replaced.len() > MAX_REPLACED {
        return refuse("too many potential replacements", Hope::None);
    }
    let better_than_each = conflicts.iter().filter_map(|c| mempool.get(c)).all(|entry| {
        let new = (candidate.fee.to_sat(), candidate.vsize);
        linear::compare_feerates(new, (entry.fee.to_sat(), entry.vsize)).is_gt()
    });
    let old_fee = mempool.totals(&replaced).0;
    if !pays_for_relay(feerates, candidate.fee, candidate.vsize, old_fee) || !better_than_each {
        return refuse("insufficient fee", Hope::Package);
    }
    if !improves_mempool(mempool, &replaced, std::slice::from_ref(candidate)) {
        return refuse("replacement-failed", Hope::Package);
    }
    Ok(())
}

/// Checks a package of a parent and its child that conflicts with the mempool.
pub(crate) fn check_package(
    mempool: &Mempool,
    feerates: &Feerates,
    candidates: &[Candidate],
) -> Result<(), Refusal> {
    let txid = candidates[candidates.len() - 1].txid;
    let refuse = |reason: &str| {
        Err(Refusal {
            txid,
            reason: format!("package RBF failed: {reason}").into(),
            hope: Hope::None,
        })
    };
    let [parent, child] = candidates else {
        return refuse("package must be 1-parent-1-child");
    };
    if !parent.parents.is_empty() || !child.parents.is_empty() {
        return refuse("new transaction cannot have mempool ancestors");
    }
    let conflicts: BTreeSet<Txid> = parent.conflicts.union(&child.conflicts).copied().collect();
    let replaced = mempool.descendants(&conflicts);
    if replaced.len() > MAX_REPLACED {
        return refuse("too many potential replacements");
    }
    let fee = parent.fee + child.fee;
    let vsize = parent.vsize + child.vsize;
    if !pays_for_relay(feerates, fee, vsize, mempool.totals(&replaced).0) {
        return refuse("insufficient anti-DoS fees");
    }
    let package = (fee.to_sat(), vsize);
    if linear::compare_feerates(package, (parent.fee.to_sat(), parent.vsize)).is_le() {
        return refuse("package feerate is less than or equal to parent feerate");
    }
    if !improves_mempool(mempool, &replaced, candidates) {
        return refuse("insufficient feerate: does not improve feerate diagram");
    }
    Ok(())
}

/// BIP 125 rules 3 and 4: no less fee than before, and its own relay on top.
fn pays_for_relay(feerates: &Feerates, fee: Amount, vsize: u64, old_fee: Amount) -> bool {
    fee.checked_sub(old_fee).is_some_and(|extra| extra >= fee_ceil(feerates.incremental, vsize))
}

/// Compares the feerate diagrams of the clusters concerned, before and after.
fn improves_mempool(
    mempool: &Mempool,
    replaced: &BTreeSet<Txid>,
    candidates: &[Candidate],
) -> bool {
    let mut roots = replaced.clone();
    roots.extend(candidates.iter().flat_map(|c| &c.parents));
    let concerned = mempool.clusters(&roots);
    let (_, before) = mempool.items(|txid| concerned.contains(txid));
    let (txids, mut after) =
        mempool.items(|txid| concerned.contains(txid) && !replaced.contains(txid));
    let mut index: HashMap<Txid, usize> =
        txids.into_iter().enumerate().map(|(i, txid)| (txid, i)).collect();
    for candidate in candidates {
        let mut parents: BTreeSet<usize> = BTreeSet::new();
        for input in &candidate.tx.input {
            parents.extend(index.get(&input.previous_output.txid));
        }
        index.insert(candidate.txid, after.len());
        after.push(Item {
            fee_sat: candidate.fee.to_sat(),
            vsize: candidate.vsize,
            parents: parents.into_iter().collect(),
        });
    }
    linear::improves(&linear::chunks(&before), &linear::chunks(&after))
}
