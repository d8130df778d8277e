//! What a hub takes back of one tree, and for how much. Pure.

use std::collections::BTreeSet;

use bitcoin::{FeeRate, OutPoint, Weight, absolute};
use channel_contracts::musig::{ReclaimPlan, ReclaimPolicy};
use channel_contracts::tree::shape::Child;
use channel_contracts::tree::{BatchTree, UserSlot};

use crate::chain::BURIED_DEPTH;
use crate::chain::virtual_confirmation::NodeSpend;

/// A tree and what blocks say of its node outputs. Its root is in a block.
pub(super) struct TreeOnChain<'a> {
    tree: &'a BatchTree,
    /// By node.
    spends: Vec<Option<NodeSpend>>,
}

/// What is to be done about a tree now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Goal {
    /// Node outputs, unspent on chain, to be taken in one transaction.
    pub take: Vec<usize>,
    /// Outputs of tree transactions that must be on chain first.
    pub publish: BTreeSet<OutPoint>,
}

impl<'a> TreeOnChain<'a> {
    /// Looks each node output up.
    pub fn new(tree: &'a BatchTree, spend_of: impl Fn(OutPoint) -> Option<NodeSpend>) -> Self {
        let spends = tree.nodes().iter().map(|node| spend_of(node.outpoint)).collect();
        Self { tree, spends }
    }

    /// The nodes whose tree transaction is in a block.
    pub fn published(&self) -> BTreeSet<usize> {
        self.nodes().filter(|node| self.is_published(*node)).collect()
    }

    /// The nodes whose output is in a block and unspent.
    pub fn unspent(&self) -> Vec<usize> {
        let there = |node: &usize| match self.parent(*node) {
            None => true,
            Some(parent) => self.is_published(parent),
        };
        self.nodes().filter(there).filter(|node| self.spends[*node].is_none()).collect()
    }

    /// Whether every node output that ever was on chain is spent, for good at `best`. What is
    /// left of the batch then are ordinary channels.
    pub fn is_settled(&self, best: u32) -> bool {
        let is_buried = |spend: &NodeSpend| spend.confirmations(best) >= BURIED_DEPTH;
        self.unspent().is_empty() && self.spends.iter().flatten().all(is_buried)
    }

    fn nodes(&self) -> std::ops::Range<usize> {
        0..self.tree.nodes().len()
    }

    fn is_published(&self, node: usize) -> bool {
        let tree = self.tree.nodes()[node].transaction.compute_txid();
        self.spends[node].is_some_and(|spend| spend.by == tree)
    }

    fn parent(&self, node: usize) -> Option<usize> {
        let nodes = self.tree.nodes();
        nodes.iter().position(|other| other.children.contains(&Some(node)))
    }

    /// Before E: what the keys of `released` users open, if `policy` finds it worth its fees
    /// (§8.2). While transactions must be published first nothing is taken, so that one
    /// transaction takes all of it.
    ///
    /// Nothing is published that puts the channel of a user of `live` on chain: those have not
    /// refused anything yet.
    pub fn reclaim(
        &self,
        released: &BTreeSet<UserSlot>,
        live: &BTreeSet<UserSlot>,
        policy: ReclaimPolicy,
        may_publish: bool,
    ) -> Goal {
        let kept = self.behind(live);
        let released: BTreeSet<UserSlot> = released.difference(&kept).copied().collect();
        let plan = ReclaimPlan::new(self.tree, &released, &self.published(), policy);
        let unspent: BTreeSet<usize> = self.unspent().into_iter().collect();
        let publish = plan.publish.into_iter().filter(|node| may_publish && !self.is_gone(*node));
        let publish: BTreeSet<OutPoint> = publish.map(|node| self.output_of(node)).collect();
        let take = match publish.is_empty() {
            true => plan.key_path.into_iter().filter(|node| unspent.contains(node)).collect(),
            false => vec![],
        };
        Goal { take, publish }
    }

    /// The users who are reached only through a transaction that funds a channel of `live`.
    fn behind(&self, live: &BTreeSet<UserSlot>) -> BTreeSet<UserSlot> {
        let funds_live = |node: &usize| {
            let children = &self.tree.nodes()[*node].shape.children;
            let funds = |child: &Child| matches!(child, Child::Channel(s) if live.contains(s));
            !self.is_published(*node) && children.iter().any(funds)
        };
        let below = |node: usize| {
            let users = self.tree.nodes()[node].shape.users.clone();
            users.filter_map(|user| u16::try_from(user).ok().map(UserSlot))
        };
        self.nodes().filter(funds_live).flat_map(below).collect()
    }

    /// Whether the output of a node, or one above it, was taken.
    fn is_gone(&self, node: usize) -> bool {
        let mut above = std::iter::successors(Some(node), |node| self.parent(*node));
        above.any(|node| self.spends[node].is_some() && !self.is_published(node))
    }

    /// From E on: whatever is there and worth more than the input that takes it (§8.3).
    pub fn sweep(&self, feerate: FeeRate) -> Goal {
        let is_worth = |node: &usize| {
            let node = &self.tree.nodes()[*node];
            let input = input_weight(node.node.expiry_witness_weight());
            feerate.fee_wu(input).is_some_and(|fee| fee < node.spent.value)
        };
        Goal {
            take: self.unspent().into_iter().filter(is_worth).collect(),
            publish: BTreeSet::new(),
        }
    }

    fn output_of(&self, node: usize) -> OutPoint {
        OutPoint { txid: self.tree.nodes()[node].transaction.compute_txid(), vout: 0 }
    }
}

/// Weight of an input with an empty script and `witness`.
fn input_weight(witness: Weight) -> Weight {
    Weight::from_non_witness_data_size(36 + 1 + 4) + witness
}

/// What it is worth to have a satoshi at `best` instead of at `expiry`, in millionths: all of
/// `per_life` a whole `life` before.
pub(super) fn early_value_ppm(
    per_life: u32,
    life: u32,
    best: u32,
    expiry: absolute::Height,
) -> u32 {
    let left = expiry.to_consensus_u32().saturating_sub(best).min(life);
    let scaled = u64::from(per_life) * u64::from(left) / u64::from(life.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX)
}
