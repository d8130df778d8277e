//! Orders transactions by what a miner earns: linearisation, chunks and feerate diagrams.
//!
//! One algorithm serves the block template, the eviction of the worst, and the question
//! whether a replacement makes the mempool strictly better. Pure: no mempool, no chain.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};

/// A transaction as a miner sees it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub fee_sat: u64,
    /// Virtual bytes, above 0.
    pub vsize: u64,
    /// Indices of the unconfirmed parents.
    pub parents: Vec<usize>,
}

/// Neighbours in the order that are mined together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub fee_sat: u64,
    pub vsize: u64,
    /// Indices of items, parents first.
    pub members: Vec<usize>,
}

/// Compares two feerates given as fee and size.
pub(crate) fn compare_feerates(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

/// A package's score in the heap; a greater one is mined earlier.
#[derive(PartialEq, Eq)]
struct Score {
    fee_sat: u64,
    vsize: u64,
    item: usize,
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_feerates((self.fee_sat, self.vsize), (other.fee_sat, other.vsize))
            .then_with(|| Reverse(self.item).cmp(&Reverse(other.item)))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Returns all items in mining order, parents before children, grouped into chunks of
/// falling feerate. Of equal feerates the lower index comes first.
///
/// Greedy by ancestor feerate: not optimal for every graph, the same for every run.
pub(crate) fn chunks(items: &[Item]) -> Vec<Chunk> {
    let ancestors = ancestor_sets(items);
    let mut children = vec![Vec::new(); items.len()];
    for (child, set) in ancestors.iter().enumerate() {
        for &ancestor in set {
            children[ancestor].push(child);
        }
    }
    // Fee and size of each item with those of its ancestors that are not yet placed.
    let mut packages: Vec<(u64, u64)> = (0..items.len())
        .map(|i| {
            ancestors[i].iter().fold((items[i].fee_sat, items[i].vsize), |sum, &a| {
                (sum.0 + items[a].fee_sat, sum.1 + items[a].vsize)
            })
        })
        .collect();
    let score = |packages: &[(u64, u64)], item: usize| Score {
        fee_sat: packages[item].0,
        vsize: packages[item].1,
        item,
    };
    let mut heap: BinaryHeap<Score> = (0..items.len()).map(|i| score(&packages, i)).collect();
    let mut placed = vec![false; items.len()];
    let mut result: Vec<Chunk> = Vec::new();
    while let Some(best) = heap.pop() {
        let stale = (best.fee_sat, best.vsize) != packages[best.item];
        if placed[best.item] || stale {
            continue;
        }
        let mut package: Vec<usize> = ancestors[best.item]
            .iter()
            .copied()
            .chain([best.item])
            .filter(|&i| !placed[i])
            .collect();
        // A parent has strictly fewer ancestors than its child.
        package.sort_by_key(|&i| (ancestors[i].len(), i));
        let mut touched = BTreeSet::new();
        for &item in &package {
            placed[item] = true;
            push_chunk(&mut result, items, item);
            for &child in &children[item] {
                packages[child].0 -= items[item].fee_sat;
                packages[child].1 -= items[item].vsize;
                touched.insert(child);
            }
        }
        for child in touched.into_iter().filter(|&c| !placed[c]) {
            heap.push(score(&packages, child));
        }
    }
    result
}

/// Appends an item; chunks that would rise in feerate merge.
fn push_chunk(chunks: &mut Vec<Chunk>, items: &[Item], item: usize) {
    let mut last =
        Chunk { fee_sat: items[item].fee_sat, vsize: items[item].vsize, members: vec![item] };
    while let Some(before) = chunks.last() {
        let rises = compare_feerates((last.fee_sat, last.vsize), (before.fee_sat, before.vsize))
            == Ordering::Greater;
        if !rises {
            break;
        }
        let mut merged = chunks.pop().expect("there is a last chunk");
        merged.fee_sat += last.fee_sat;
        merged.vsize += last.vsize;
        merged.members.append(&mut last.members);
        last = merged;
    }
    chunks.push(last);
}

/// All ancestors of each item, itself not counted.
fn ancestor_sets(items: &[Item]) -> Vec<BTreeSet<usize>> {
    let mut sets: Vec<Option<BTreeSet<usize>>> = vec![None; items.len()];
    for start in 0..items.len() {
        let mut stack = vec![start];
        while let Some(&item) = stack.last() {
            if sets[item].is_some() {
                stack.pop();
                continue;
            }
            let waiting: Vec<usize> =
                items[item].parents.iter().copied().filter(|&p| sets[p].is_none()).collect();
            if !waiting.is_empty() {
                stack.extend(waiting);
                continue;
            }
            let mut set = BTreeSet::new();
            for &parent in &items[item].parents {
                set.insert(parent);
                set.extend(sets[parent].as_ref().expect("parents were done first"));
            }
            sets[item] = Some(set);
            stack.pop();
        }
    }
    sets.into_iter().map(|set| set.expect("every item was visited")).collect()
}

/// Says whether the diagram of `new` lies nowhere below that of `old` and somewhere above.
///
/// The diagram is the fee collected by the best chunks over their size; beyond its last
/// chunk it stays level.
pub(crate) fn improves(old: &[Chunk], new: &[Chunk]) -> bool {
    let old_points = points(old);
    let new_points = points(new);
    let mut above = false;
    let sizes: BTreeSet<u64> = old_points.iter().chain(&new_points).map(|p| p.0).collect();
    for size in sizes {
        // Fees at `size` as fractions with a common denominator each.
        let (old_fee, old_by) = fee_at(&old_points, size);
        let (new_fee, new_by) = fee_at(&new_points, size);
        match (new_fee * old_by).cmp(&(old_fee * new_by)) {
            Ordering::Less => return false,
            Ordering::Greater => above = true,
            Ordering::Equal => {}
        }
    }
    above
}

fn points(chunks: &[Chunk]) -> Vec<(u64, u64)> {
    let mut sum = (0, 0);
    let mut result = vec![sum];
    for chunk in chunks {
        sum = (sum.0 + chunk.vsize, sum.1 + chunk.fee_sat);
        result.push(sum);
    }
    result
}

fn fee_at(points: &[(u64, u64)], size: u64) -> (u128, u128) {
    let last = points[points.len() - 1];
    if size >= last.0 {
        return (u128::from(last.1), 1);
    }
    let after = points.partition_point(|p| p.0 <= size);
    let (x0, y0) = points[after - 1];
    let (x1, y1) = points[after];
    let width = u128::from(x1 - x0);
    let fee = u128::from(y0) * width + u128::from(y1 - y0) * u128::from(size - x0);
    (fee, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(fee_sat: u64, vsize: u64, parents: &[usize]) -> Item {
        Item { fee_sat, vsize, parents: parents.to_vec() }
    }

    #[test]
    fn child_pays_for_parent_in_one_chunk() {
        let chunks = chunks(&[item(0, 100, &[]), item(500, 100, &[]), item(800, 100, &[0])]);
        assert_eq!(chunks[0].members, vec![1]);
        assert_eq!(chunks[1].members, vec![0, 2]);
        assert_eq!((chunks[1].fee_sat, chunks[1].vsize), (800, 200));
    }

    #[test]
    fn parents_come_first_whatever_their_index() {
        let chunks = chunks(&[item(900, 100, &[1]), item(1, 100, &[2]), item(1, 100, &[])]);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].members, vec![2, 1, 0]);
    }

    #[test]
    fn more_fee_at_less_feerate_does_not_improve() {
        let old = chunks(&[item(1_000, 300, &[])]);
        let larger = chunks(&[item(1_300, 1_000, &[])]);
        let better = chunks(&[item(1_300, 300, &[])]);
        assert!(!improves(&old, &larger));
        assert!(improves(&old, &better));
        assert!(!improves(&old, &old));
    }
}
