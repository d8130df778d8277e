//! The plan as tables.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, BlockHash, FeeRate, OutPoint, ScriptBuf, TxOut, Txid, WScriptHash, absolute,
};
use channel_contracts::musig::reclaim::SweepSecret;
use channel_contracts::musig::{ReclaimPolicy, TreeSecret};
use channel_contracts::script::ExpiryLeaf;
use channel_contracts::tree::{BatchTree, Member, PlannedTree, Radix, TreeTerms, UserSlot};

use super::plan::{Goal, TreeOnChain, early_value_ppm};
use crate::chain::BlockRef;
use crate::chain::virtual_confirmation::NodeSpend;

const EXPIRY: u32 = 5_000;
const VALUE: Amount = Amount::from_sat(50_000);

/// Sixteen users, four below each child of the root.
fn tree() -> BatchTree {
    let secret = |number: u8| TreeSecret::from_bytes([number; 32]).unwrap();
    let expiry = absolute::Height::from_consensus(EXPIRY).unwrap();
    let sweep_key = SweepSecret::from_bytes([99; 32]).unwrap().public_key();
    let terms = TreeTerms {
        hub_key: secret(100).public_key(),
        leaf: ExpiryLeaf { expiry, sweep_key },
        radix: Radix::new(4).unwrap(),
    };
    let members = (1..=16).map(|number| Member {
        tree_key: secret(number).public_key(),
        funding: TxOut {
            value: VALUE,
            script_pubkey: ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([number; 32])),
        },
    });
    let planned = PlannedTree::new(terms, members.collect()).unwrap();
    planned.fund(OutPoint::new(Txid::from_byte_array([8; 32]), 0)).unwrap()
}

/// The node above the user `first` and the next three, or the root, which is node 0.
fn node(tree: &BatchTree, first: usize) -> usize {
    tree.nodes().iter().position(|node| node.shape.users == (first..first + 4)).unwrap()
}

/// What blocks spend: by the tree, or by another.
struct Chain(BTreeMap<OutPoint, NodeSpend>);

impl Chain {
    fn of(tree: &BatchTree, published: &[usize], taken: &[usize], height: u32) -> Self {
        let at = BlockRef { height, hash: BlockHash::from_byte_array([1; 32]) };
        let by_tree = published.iter().map(|node| {
            let node = &tree.nodes()[*node];
            (node.outpoint, node.transaction.compute_txid())
        });
        let by_us = taken
            .iter()
            .map(|node| (tree.nodes()[*node].outpoint, Txid::from_byte_array([77; 32])));
        let spends = by_tree.chain(by_us);
        Self(spends.map(|(outpoint, by)| (outpoint, NodeSpend { outpoint, by, at })).collect())
    }

    fn seen<'a>(&self, tree: &'a BatchTree) -> TreeOnChain<'a> {
        TreeOnChain::new(tree, |outpoint| self.0.get(&outpoint).copied())
    }
}

fn slots(of: impl IntoIterator<Item = u16>) -> BTreeSet<UserSlot> {
    of.into_iter().map(UserSlot).collect()
}

fn output(tree: &BatchTree, node: usize) -> OutPoint {
    OutPoint::new(tree.nodes()[node].transaction.compute_txid(), 0)
}

#[test]
fn a_hub_with_all_keys_takes_the_root_and_then_nothing() {
    let tree = tree();
    let all = ReclaimPolicy::Everything;
    let untouched = Chain::of(&tree, &[], &[], 0);
    let goal = untouched.seen(&tree).reclaim(&slots(0..16), &slots([]), all, true);
    assert_eq!(goal, Goal { take: vec![0], publish: BTreeSet::new() });
    let taken = Chain::of(&tree, &[], &[0], 700);
    assert_eq!(taken.seen(&tree).reclaim(&slots(0..16), &slots([]), all, true), Goal::default());
    assert_eq!(taken.seen(&tree).sweep(FeeRate::BROADCAST_MIN), Goal::default());
    assert_eq!(
        untouched.seen(&tree).reclaim(&slots([]), &slots([]), all, true).take,
        Vec::<usize>::new()
    );
}

#[test]
fn around_a_user_who_refuses_paths_come_first_and_one_transaction_takes_the_rest() {
    let tree = tree();
    let first = node(&tree, 0);
    let rest: Vec<usize> = [4, 8, 12].map(|user| node(&tree, user)).into();
    let reclaim = |chain: &Chain| {
        let mut goal =
            chain.seen(&tree).reclaim(&slots(1..16), &slots([]), ReclaimPolicy::Everything, true);
        goal.take.sort_unstable();
        goal
    };
    let both = Goal { take: vec![], publish: [output(&tree, 0), output(&tree, first)].into() };
    assert_eq!(reclaim(&Chain::of(&tree, &[], &[], 0)), both);
    let second = Goal { take: vec![], publish: [output(&tree, first)].into() };
    assert_eq!(reclaim(&Chain::of(&tree, &[0], &[], 700)), second);
    let taking = Goal { take: rest.clone(), publish: BTreeSet::new() };
    assert_eq!(reclaim(&Chain::of(&tree, &[0, first], &[], 700)), taking);
    // A neighbour's exit spends one of them; what is taken already is not taken twice.
    let fewer = Goal { take: vec![rest[1]], publish: BTreeSet::new() };
    assert_eq!(reclaim(&Chain::of(&tree, &[0, first, rest[0]], &[rest[2]], 700)), fewer);
    // Not worth it: publishing costs more than what it frees is worth now.
    let dear = ReclaimPolicy::Worth {
        feerate: FeeRate::from_sat_per_vb(10).unwrap(),
        early_value_ppm: 5_000,
    };
    let chain = Chain::of(&tree, &[], &[], 0);
    assert_eq!(chain.seen(&tree).reclaim(&slots(1..16), &slots([]), dear, true), Goal::default());
}

#[test]
fn a_live_neighbour_is_left_in_peace_and_others_get_time() {
    let tree = tree();
    let all = ReclaimPolicy::Everything;
    let first = node(&tree, 0);
    let rest: BTreeSet<usize> = [4, 8, 12].map(|user| node(&tree, user)).into();
    let reclaim = |chain: &Chain, may_publish| {
        chain.seen(&tree).reclaim(&slots(1..16), &slots([0]), all, may_publish)
    };
    let untouched = Chain::of(&tree, &[], &[], 0);
    assert_eq!(reclaim(&untouched, false), Goal::default());
    // The root's transaction funds no channel; that of the live one's leaf stays off the chain.
    let top = Goal { take: vec![], publish: [output(&tree, 0)].into() };
    assert_eq!(reclaim(&untouched, true), top);
    let published = Chain::of(&tree, &[0], &[], 700);
    let goal = reclaim(&published, true);
    assert_eq!((goal.take.into_iter().collect(), goal.publish.len()), (rest.clone(), 0));
    // What is there is taken without waiting, and what others have published too.
    let goal = reclaim(&published, false);
    assert_eq!(goal.take.into_iter().collect::<BTreeSet<_>>(), rest);
    let goal = reclaim(&Chain::of(&tree, &[0, first], &[], 700), true);
    assert_eq!(goal.take.into_iter().collect::<BTreeSet<_>>(), rest);
}

#[test]
fn at_the_expiry_whatever_is_there_is_swept_unless_it_is_dust_at_that_feerate() {
    let tree = tree();
    let first = node(&tree, 0);
    let sweep = |chain: &Chain, sat_per_vb| {
        chain.seen(&tree).sweep(FeeRate::from_sat_per_vb(sat_per_vb).unwrap()).take
    };
    assert_eq!(sweep(&Chain::of(&tree, &[], &[], 0), 1), [0]);
    let children = Chain::of(&tree, &[0], &[first], 700);
    assert_eq!(sweep(&children, 1), [4, 8, 12].map(|user| node(&tree, user)));
    // 76 vB of input against 200,000 sat.
    assert_eq!(sweep(&children, 2_600).len(), 3);
    assert_eq!(sweep(&children, 2_640).len(), 0);
}

#[test]
fn a_tree_is_settled_when_nothing_of_it_is_left_and_all_is_buried() {
    let tree = tree();
    let nodes = [0, 4, 8, 12].map(|user| node(&tree, user));
    #[rustfmt::skip]
    let table: [(&[usize], &[usize], u32, bool); 7] = [
        // Published, taken in block 700, the best block.
        (&[], &[], 800, false),
        (&[], &[0], 704, false),
        (&[], &[0], 705, true),
        (&[0], &nodes[..3], 800, false),
        (&[0], &nodes, 704, false),
        (&[0], &nodes, 705, true),
        (&[0, nodes[0], nodes[1], nodes[2], nodes[3]], &[], 705, true),
    ];
    for (row, (published, taken, best, expected)) in table.into_iter().enumerate() {
        let chain = Chain::of(&tree, published, taken, 700);
        assert_eq!(chain.seen(&tree).is_settled(best), expected, "row {row}");
    }
}

#[test]
fn having_coins_early_is_worth_less_as_the_expiry_comes() {
    let expiry = absolute::Height::from_consensus(EXPIRY).unwrap();
    for (best, ppm) in
        [(0, 8_000), (1_000, 8_000), (3_000, 4_000), (4_999, 2), (5_000, 0), (9_000, 0)]
    {
        assert_eq!(early_value_ppm(8_000, 4_000, best, expiry), ppm, "{best}");
    }
    assert_eq!(early_value_ppm(1_000_000, 0, 1, expiry), 0);
}
