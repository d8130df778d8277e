//! Version 3: topologically restricted until confirmation (BIP 431).
//!
//! A version 3 transaction has at most one unconfirmed relative: one parent or one child, of
//! version 3 too, and the child is small.

use std::collections::BTreeSet;

use bitcoin::Txid;

use super::accept::Candidate;
use super::mempool::Mempool;
use super::policy::TRUC_VERSION;

const TRUC_MAX_VSIZE: u64 = 10_000;
const TRUC_CHILD_MAX_VSIZE: u64 = 1_000;

/// What the rules say of one transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Violation,
    /// Good if this other child of the parent can be replaced.
    EvictSibling(Txid),
}

fn is_truc(candidate: &Candidate) -> bool {
    candidate.tx.version.0 == TRUC_VERSION
}

/// Checks a transaction against its parents in the mempool.
pub(crate) fn check_single(mempool: &Mempool, candidate: &Candidate) -> Verdict {
    let truc = is_truc(candidate);
    let mixed = candidate
        .parents
        .iter()
        .filter_map(|p| mempool.get(p))
        .any(|parent| (parent.tx.version.0 == TRUC_VERSION) != truc);
    if mixed {
        return Verdict::Violation;
    }
    if !truc {
        return Verdict::Good;
    }
    if candidate.vsize > TRUC_MAX_VSIZE || candidate.parents.len() > 1 {
        return Verdict::Violation;
    }
    let Some(parent) = candidate.parents.iter().next().and_then(|p| mempool.get(p)) else {
        return Verdict::Good;
    };
    if !parent.parents.is_empty() || candidate.vsize > TRUC_CHILD_MAX_VSIZE {
        return Verdict::Violation;
    }
    let siblings: BTreeSet<Txid> = mempool.descendants(&parent.children);
    if siblings.is_empty() || siblings.iter().any(|s| candidate.conflicts.contains(s)) {
        return Verdict::Good;
    }
    match siblings.first().filter(|_| siblings.len() == 1) {
        // Only a sibling without other parents can go; more exist only after a reorg.
        Some(sibling) if mempool.get(sibling).is_some_and(|s| s.parents.len() == 1) => {
            Verdict::EvictSibling(*sibling)
        }
        _ => Verdict::Violation,
    }
}

/// Checks the members of a package against each other and the mempool.
pub(crate) fn check_package(mempool: &Mempool, candidates: &[Candidate]) -> Result<(), ()> {
    for candidate in candidates {
        let parents_here: Vec<&Candidate> =
            candidates.iter().filter(|other| spends_from(candidate, other)).collect();
        let truc = is_truc(candidate);
        if parents_here.iter().any(|parent| is_truc(parent) != truc) {
            return Err(());
        }
        if !truc {
            continue;
        }
        let count = candidate.parents.len() + parents_here.len();
        if count == 0 {
            continue;
        }
        let grandparents =
            candidate.parents.iter().filter_map(|p| mempool.get(p)).any(|p| !p.parents.is_empty());
        // A parent here may have a parent in the mempool: three in a row.
        let tall = parents_here.iter().any(|p| !p.parents.is_empty());
        if count > 1 || grandparents || tall || candidate.vsize > TRUC_CHILD_MAX_VSIZE {
            return Err(());
        }
        for other in candidates.iter().filter(|other| other.txid != candidate.txid) {
            let same_parent = parents_here.iter().any(|p| spends_from(other, p))
                || candidate.parents.iter().any(|p| other.parents.contains(p));
            if same_parent || spends_from(other, candidate) {
                return Err(());
            }
        }
        let has_child =
            candidate.parents.iter().filter_map(|p| mempool.get(p)).any(|p| !p.children.is_empty());
        if has_child {
            return Err(());
        }
    }
    Ok(())
}

fn spends_from(child: &Candidate, parent: &Candidate) -> bool {
    child.tx.input.iter().any(|input| input.previous_output.txid == parent.txid)
}
