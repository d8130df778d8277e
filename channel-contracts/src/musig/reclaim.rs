//! What the hub takes back of a batch: by key path with released keys, by the leaf from E on.
//!
//! A user whose channel is retired hands its tree secret over. Whoever holds every secret under
//! a node output spends it at once; where one user refuses, the hub publishes the transactions
//! above that user and takes the subtrees beside it. [`ReclaimPlan`] says which outputs, which
//! transactions and how many bytes, for any set of released users and whatever is on chain
//! already; [`ReclaimPolicy`] weighs that against waiting. The witnesses are made here for a
//! transaction of the caller's, since a settlement spends more than reclaimed outputs.
//!
//! When a user may release, and that its channel is empty, is checked by
//! [`batch`](crate::batch) and the shell.
//!
//! Source: BATCHES §8.1 to §8.3.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bitcoin::{Amount, FeeRate, Transaction, TxOut, Witness, XOnlyPublicKey, absolute};
use secp256k1_musig::Keypair;

use super::SchnorrSignature;
use super::key::{AggregateError, AggregateSecret, TreeSecret};
use crate::script::BatchNode;
use crate::script::batch_node::{key_path_message, script_path_message};
use crate::tree::cost::{FEE_CHILD_VB, expiry_sweep_vb, key_path_spend_vb, tree_transaction_vb};
use crate::tree::{BatchTree, Child, UserSlot};

/// A cooperative close of a channel to one P2WPKH output, in vB.
pub const CLOSING_VB: u64 = 138;

/// The hub's secret behind `S`. Prints as `[redacted]` and is erased when dropped.
pub struct SweepSecret(Keypair);

impl Drop for SweepSecret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl fmt::Debug for SweepSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SweepSecret([redacted])")
    }
}

impl SweepSecret {
    /// Takes 32 bytes, or `None` if they are zero or not below the order of the group.
    pub fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        Keypair::from_secret_bytes(bytes).ok().map(Self)
    }

    /// Returns `S`.
    pub fn public_key(&self) -> XOnlyPublicKey {
        let key = self.0.x_only_public_key().0.to_byte_array();
        XOnlyPublicKey::from_slice(&key).expect("both versions know the same points")
    }
}

/// Why the hub cannot take an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReclaimError {
    /// The tree has no such user.
    #[error("the tree has {users} users, no slot {slot}")]
    UnknownSlot {
        /// The slot named.
        slot: UserSlot,
        /// How many users the tree has.
        users: usize,
    },
    /// The tree has no such node.
    #[error("the tree has {nodes} nodes, no node {node}")]
    UnknownNode {
        /// The index named.
        node: usize,
        /// How many nodes the tree has.
        nodes: usize,
    },
    /// A released secret is not the user's.
    #[error(
        "secret released by user {slot} is not that of its tree key; keep the user's capital until E"
    )]
    WrongSecret {
        /// Who released it.
        slot: UserSlot,
    },
    /// A user under the node has not released its key.
    #[error("user {slot} under node {node} has not released its key")]
    Unreleased {
        /// The index of the node.
        node: usize,
        /// The first user who has not.
        slot: UserSlot,
    },
    /// The secrets do not make the key of the output.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// The sweep could not be mined yet or at all.
    #[error("sweep has locktime {lock_time} and needs {expiry} with a sequence that is not final")]
    LockTime {
        /// The locktime of the transaction.
        lock_time: absolute::LockTime,
        /// The expiry of the leaf.
        expiry: absolute::Height,
    },
    /// The secret is not that of the leaf.
    #[error("the secret is of another sweep key than that of the leaf, {expected}")]
    WrongSweepKey {
        /// The key in the leaf.
        expected: XOnlyPublicKey,
    },
}

/// The secrets that users of one tree have handed over.
#[derive(Debug, Clone, Default)]
pub struct ReleasedKeys(BTreeMap<UserSlot, TreeSecret>);

impl ReleasedKeys {
    /// Takes the secret of `slot`. The same again is nothing new.
    ///
    /// # Errors
    ///
    /// [`ReclaimError::WrongSecret`] unless it is the secret of that user's tree key;
    /// [`ReclaimError::UnknownSlot`] if the tree has no such user.
    pub fn insert(
        &mut self,
        tree: &BatchTree,
        slot: UserSlot,
        secret: TreeSecret,
    ) -> Result<(), ReclaimError> {
        let users = tree.members().len();
        let member =
            tree.members().get(slot.index()).ok_or(ReclaimError::UnknownSlot { slot, users })?;
        if secret.public_key() != member.tree_key {
            return Err(ReclaimError::WrongSecret { slot });
        }
        self.0.insert(slot, secret);
        Ok(())
    }

    /// Returns who has released.
    pub fn slots(&self) -> BTreeSet<UserSlot> {
        self.0.keys().copied().collect()
    }
}

/// Signs `input` of `transaction`, which spends the output of `node` by key path.
///
/// # Errors
///
/// [`ReclaimError::Unreleased`] names the first user whose key is missing.
///
/// # Panics
///
/// Unless `spent` has one output for each input of the transaction.
pub fn key_path_witness(
    tree: &BatchTree,
    node: usize,
    hub: &TreeSecret,
    released: &ReleasedKeys,
    (transaction, input, spent): (&Transaction, usize, &[TxOut]),
) -> Result<Witness, ReclaimError> {
    let nodes = tree.nodes().len();
    let tree_node = tree.nodes().get(node).ok_or(ReclaimError::UnknownNode { node, nodes })?;
    let mut secrets = vec![hub];
    for slot in tree_node.shape.users.clone().map(UserSlot::from_index) {
        secrets.push(released.0.get(&slot).ok_or(ReclaimError::Unreleased { node, slot })?);
    }
    let root = tree.terms().leaf.merkle_root();
    let secret = AggregateSecret::new(&secrets, root, tree_node.node.output_key())?;
    let signature = secret.sign(&key_path_message(transaction, input, spent));
    Ok(tree_node.node.key_witness(&signature))
}

/// Signs `input` of `transaction`, which spends the output of `node` by its expiry leaf.
///
/// # Errors
///
/// [`ReclaimError::LockTime`] unless the transaction's locktime and the input's sequence satisfy
/// the leaf; [`ReclaimError::WrongSweepKey`] if the secret is another's.
///
/// # Panics
///
/// Unless `spent` has one output for each input of the transaction.
pub fn sweep_witness(
    node: &BatchNode,
    sweep: &SweepSecret,
    (transaction, input, spent): (&Transaction, usize, &[TxOut]),
) -> Result<Witness, ReclaimError> {
    let leaf = node.leaf();
    let expected = leaf.sweep_key;
    if sweep.public_key() != expected {
        return Err(ReclaimError::WrongSweepKey { expected });
    }
    let lock_time = transaction.lock_time;
    let sequence = transaction.input[input].sequence;
    if !leaf.lock_time().is_implied_by(lock_time) || !sequence.enables_absolute_lock_time() {
        return Err(ReclaimError::LockTime { lock_time, expiry: leaf.expiry });
    }
    let message = script_path_message(transaction, input, spent, leaf.leaf_hash());
    let signature = SchnorrSignature(sweep.0.sign_schnorr_no_aux_rand(&message).to_byte_array());
    Ok(node.expiry_witness(&signature))
}

/// How eager the hub is to have its capital before E.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimPolicy {
    /// Take all that can be taken, at any cost.
    Everything,
    /// Publish a transaction only if what it frees is worth its fee.
    Worth {
        /// The feerate to be paid now.
        feerate: FeeRate,
        /// What having a satoshi now instead of at E is worth, in millionths of it.
        early_value_ppm: u32,
    },
}

/// What the hub takes now, what it publishes to get there, and what it leaves.
///
/// All lists hold each node or user at most once. Nodes are indices into the tree's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReclaimPlan {
    /// Node outputs spent at once by key path, all in one transaction.
    pub key_path: Vec<usize>,
    /// Node outputs whose tree transaction is published, each parent before its children, one
    /// level per block.
    pub publish: Vec<usize>,
    /// Node outputs left to be swept by the leaf from E on, or spent by their users' exits.
    pub waiting: Vec<usize>,
    /// Released users whose funding output comes on chain because a neighbour refuses: their
    /// parked closing transaction pays the hub.
    pub closings: Vec<UserSlot>,
    /// Users who have not released and whose channel becomes an ordinary one.
    pub unrolled: Vec<UserSlot>,
    /// Value of the outputs taken by key path.
    pub freed: Amount,
    /// Value of the channels closed by a parked transaction.
    pub closed: Amount,
    /// The transaction that takes them to one output, in vB; 0 if there is none.
    pub spend_vb: u64,
    /// Tree transactions with their fee children, in vB.
    pub publish_vb: u64,
    /// Closing transactions, in vB.
    pub closing_vb: u64,
}

impl ReclaimPlan {
    /// Plans for the users in `released`; `published` are the nodes whose tree transaction is on
    /// chain already, whoever put it there.
    pub fn new(
        tree: &BatchTree,
        released: &BTreeSet<UserSlot>,
        published: &BTreeSet<usize>,
        policy: ReclaimPolicy,
    ) -> Self {
        let planner = Planner { tree, released, published, policy };
        let (_, mut plan) = planner.node(0);
        plan.publish.sort_unstable();
        if !plan.key_path.is_empty() {
            plan.spend_vb = key_path_spend_vb(plan.key_path.len(), 0);
        }
        plan
    }

    /// Returns everything the plan puts on chain, in vB.
    pub fn total_vb(&self) -> u64 {
        self.spend_vb + self.publish_vb + self.closing_vb
    }

    /// Returns what waiting for E would cost instead: one sweep of `outputs` node outputs, in vB.
    pub fn waiting_vb(outputs: usize) -> u64 {
        expiry_sweep_vb(outputs)
    }

    fn merge(&mut self, other: Self) {
        self.key_path.extend(other.key_path);
        self.publish.extend(other.publish);
        self.waiting.extend(other.waiting);
        self.closings.extend(other.closings);
        self.unrolled.extend(other.unrolled);
        // Parts of one tree: their values add up to at most the root's.
        self.freed += other.freed;
        self.closed += other.closed;
        self.publish_vb += other.publish_vb;
        self.closing_vb += other.closing_vb;
    }
}

struct Planner<'a> {
    tree: &'a BatchTree,
    released: &'a BTreeSet<UserSlot>,
    published: &'a BTreeSet<usize>,
    policy: ReclaimPolicy,
}

impl Planner<'_> {
    /// Returns the best plan for the output of a node and what it is worth, in millionths of a
    /// satoshi. Waiting is worth nothing and costs nothing.
    fn node(&self, index: usize) -> (i128, ReclaimPlan) {
        let node = &self.tree.nodes()[index];
        let waiting = ReclaimPlan { waiting: vec![index], ..ReclaimPlan::default() };
        if self.published.contains(&index) {
            return self.children(index);
        }
        if node.shape.users.clone().all(|user| self.is_released(UserSlot::from_index(user))) {
            // What one more input adds to the transaction that takes them all.
            let input_vb = key_path_spend_vb(2, 0) - key_path_spend_vb(1, 0);
            let gain = self.gain(node.spent.value, input_vb);
            let freed = node.spent.value;
            let taken = ReclaimPlan { key_path: vec![index], freed, ..ReclaimPlan::default() };
            return if gain > 0 { (gain, taken) } else { (0, waiting) };
        }
        let (below, mut plan) = self.children(index);
        let vb = tree_transaction_vb(node.shape.children.len()) + FEE_CHILD_VB;
        let gain = below + self.gain(Amount::ZERO, vb);
        if gain <= 0 {
            return (0, waiting);
        }
        plan.publish.push(index);
        plan.publish_vb += vb;
        (gain, plan)
    }

    /// Plans for the outputs of a node's transaction.
    fn children(&self, index: usize) -> (i128, ReclaimPlan) {
        let node = &self.tree.nodes()[index];
        let mut total = 0;
        let mut plan = ReclaimPlan::default();
        for (child, inner) in node.shape.children.iter().zip(&node.children) {
            let (gain, part) = match (child, inner) {
                (_, Some(inner)) => self.node(*inner),
                (Child::Channel(slot), None) => self.channel(*slot),
                (Child::Node(_), None) => unreachable!("every inner child has its node"),
            };
            total += gain;
            plan.merge(part);
        }
        (total, plan)
    }

    /// Plans for a funding output that is, or comes, on chain.
    fn channel(&self, slot: UserSlot) -> (i128, ReclaimPlan) {
        if !self.is_released(slot) {
            return (0, ReclaimPlan { unrolled: vec![slot], ..ReclaimPlan::default() });
        }
        let closed = self.tree.members()[slot.index()].funding.value;
        let gain = self.gain(closed, CLOSING_VB);
        let closings = vec![slot];
        let plan =
            ReclaimPlan { closings, closed, closing_vb: CLOSING_VB, ..ReclaimPlan::default() };
        (gain.max(0), plan)
    }

    fn is_released(&self, slot: UserSlot) -> bool {
        self.released.contains(&slot)
    }

    /// Values having `value` now at the cost of `vb`, in millionths of a satoshi.
    fn gain(&self, value: Amount, vb: u64) -> i128 {
        let value = i128::from(value.to_sat());
        match self.policy {
            ReclaimPolicy::Everything => value * 1_000_000,
            ReclaimPolicy::Worth { feerate, early_value_ppm } => {
                // A feerate counts satoshi per 1,000 weight units, four to the vB.
                let fee = i128::from(feerate.to_sat_per_kwu()) * i128::from(vb) * 4 * 1_000;
                value * i128::from(early_value_ppm) - fee
            }
        }
    }
}
