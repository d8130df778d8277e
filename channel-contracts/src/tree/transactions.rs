//! All transactions of one tree, built in two steps around the batch transaction.
//!
//! [`PlannedTree`] needs keys and channels only and says what the root output is, so that the
//! batch transaction can be made; [`PlannedTree::fund`] takes that output's place and yields
//! every tree transaction. Both are recomputed from the same data by whoever has it. Signatures
//! live in [`musig::hub`](crate::musig::hub).
//!
//! Source: BATCHES §2; BIP 431 (version 3), BIP 433 (pay to anchor).

use std::ops::Range;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction,
};

use super::path::{Path, PathLevel};
use super::proposal::Proposal;
use super::shape::{Child, Radix, Shape, ShapeError, ShapeNode, UserSlot};
use crate::encoding::is_encodable;
use crate::musig::{AggregateError, AggregateKey};
use crate::script::anchor::pay_to_anchor;
use crate::script::batch_node::key_path_message;
use crate::script::{BatchNode, ExpiryLeaf};

/// Least value of a funding output: the dust limit of P2WSH and P2TR.
pub const FUNDING_VALUE_MIN: Amount = Amount::from_sat(330);

/// One user of a batch, as the tree sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its tree key, fresh for this attempt.
    pub tree_key: PublicKey,
    /// The funding output of its channel: P2WSH (or P2TR), at least 330 sat.
    pub funding: TxOut,
}

/// What is the same in every node of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeTerms {
    /// The hub's tree key, fresh for this attempt.
    pub hub_key: PublicKey,
    /// The leaf of every node.
    pub leaf: ExpiryLeaf,
    /// Most children of a transaction.
    pub radix: Radix,
}

/// Why a tree cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// There is no such shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Keys cannot be aggregated.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// A funding output is smaller than the network relays.
    #[error("channel of slot {slot} has {value}, the least is {min}", min = FUNDING_VALUE_MIN)]
    Dust {
        /// Whose channel.
        slot: UserSlot,
        /// Its value.
        value: Amount,
    },
    /// A funding output is neither P2WSH nor P2TR.
    #[error("channel of slot {slot} pays {script_pubkey}, which is neither P2WSH nor P2TR")]
    Script {
        /// Whose channel.
        slot: UserSlot,
        /// Its script.
        script_pubkey: ScriptBuf,
    },
    /// The channels together are worth more than there will ever be.
    #[error("channels add up to more than {max}", max = Amount::MAX_MONEY)]
    ValueOverflow,
    /// The root output stands too far back in its transaction.
    #[error("root output {outpoint} must be among the first 65,536")]
    RootIndex {
        /// Where it stands.
        outpoint: OutPoint,
    },
}

/// A tree whose root output is known and whose batch transaction is not.
#[derive(Debug, Clone)]
pub struct PlannedTree {
    shape: Shape,
    terms: TreeTerms,
    members: Vec<Member>,
    nodes: Vec<PlannedNode>,
}

#[derive(Debug, Clone)]
struct PlannedNode {
    shape: ShapeNode,
    node: BatchNode,
    key: AggregateKey,
    value: Amount,
}

/// All transactions of one tree, unsigned.
#[derive(Debug, Clone)]
pub struct BatchTree {
    shape: Shape,
    terms: TreeTerms,
    members: Vec<Member>,
    root: OutPoint,
    nodes: Vec<TreeNode>,
}

/// One tree transaction and the node output it spends.
#[derive(Debug, Clone)]
pub struct TreeNode {
    /// Its place and its users.
    pub shape: ShapeNode,
    /// The output it spends.
    pub node: BatchNode,
    /// The key that signs it.
    pub key: AggregateKey,
    /// Where the output stands.
    pub outpoint: OutPoint,
    /// The output.
    pub spent: TxOut,
    /// The transaction that spends it, without witness.
    pub transaction: Transaction,
    /// For each output but the anchor, the index of the node that spends it, if any does.
    pub children: Vec<Option<usize>>,
}

impl TreeNode {
    /// Returns what its cosigners sign.
    pub fn message(&self) -> [u8; 32] {
        key_path_message(&self.transaction, 0, std::slice::from_ref(&self.spent))
    }
}

impl PlannedTree {
    /// Plans the tree of `members`, whose order gives the slots.
    ///
    /// # Errors
    ///
    /// [`TreeError`] if their number, a channel or a key is not allowed.
    pub fn new(terms: TreeTerms, members: Vec<Member>) -> Result<Self, TreeError> {
        let shape = Shape::new(members.len(), terms.radix)?;
        for (index, member) in members.iter().enumerate() {
            check_funding(UserSlot::from_index(index), &member.funding)?;
        }
        let plan = |node: ShapeNode| -> Result<PlannedNode, TreeError> {
            let members = &members[node.users.clone()];
            let keys = members.iter().map(|member| member.tree_key);
            let cosigners: Vec<PublicKey> = keys.chain([terms.hub_key]).collect();
            let key = AggregateKey::new(&cosigners, terms.leaf.merkle_root())?;
            let value = sum(members.iter().map(|member| member.funding.value))?;
            let batch_node = BatchNode::new(key.internal_key(), terms.leaf)?;
            assert_eq!(batch_node.output_key(), key.output_key().to_x_only_public_key());
            Ok(PlannedNode { shape: node, node: batch_node, key, value })
        };
        let nodes = shape.nodes().into_iter().map(plan).collect::<Result<_, _>>()?;
        Ok(Self { shape, terms, members, nodes })
    }

    /// Returns the output that the batch transaction pays to.
    pub fn root_output(&self) -> TxOut {
        self.nodes[0].node.output(self.nodes[0].value)
    }

    /// Builds all transactions below the root output, which stands at `root`.
    ///
    /// # Errors
    ///
    /// [`TreeError::RootIndex`] if it is not among the first 65,536 outputs.
    pub fn fund(self, root: OutPoint) -> Result<BatchTree, TreeError> {
        if u16::try_from(root.vout).is_err() {
            return Err(TreeError::RootIndex { outpoint: root });
        }
        let Self { shape, terms, members, nodes: planned } = self;
        // Parents come first, so that a child finds where its output stands.
        let index_of = |users: &Range<usize>, level: usize| {
            let is_child =
                |node: &PlannedNode| node.shape.level == level && node.shape.users == *users;
            planned.iter().position(is_child).expect("a shape lists the node of each inner child")
        };
        let mut places = vec![root; planned.len()];
        let mut nodes = Vec::with_capacity(planned.len());
        for (index, plan) in planned.iter().enumerate() {
            let child_index = |child: &Child| match child {
                Child::Channel(_) => None,
                Child::Node(users) => Some(index_of(users, plan.shape.level + 1)),
            };
            let children: Vec<Option<usize>> =
                plan.shape.children.iter().map(child_index).collect();
            let outputs = children.iter().zip(&plan.shape.children).map(|(inner, child)| {
                match (inner, child) {
                    (Some(inner), _) => planned[*inner].node.output(planned[*inner].value),
                    (None, child) => members[child.users().start].funding.clone(),
                }
            });
            let transaction = tree_transaction(places[index], outputs.collect());
            let txid = transaction.compute_txid();
            for (vout, child) in (0..).zip(&children) {
                if let Some(child) = child {
                    places[*child] = OutPoint::new(txid, vout);
                }
            }
            let spent = plan.node.output(plan.value);
            assert_conserves(&transaction, spent.value);
            nodes.push(TreeNode {
                shape: plan.shape.clone(),
                node: plan.node,
                key: plan.key.clone(),
                outpoint: places[index],
                spent,
                transaction,
                children,
            });
        }
        Ok(BatchTree { shape, terms, members, root, nodes })
    }
}

impl BatchTree {
    /// Returns its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns what is the same in every node.
    pub fn terms(&self) -> &TreeTerms {
        &self.terms
    }

    /// Returns its users, by slot.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns where the root output stands.
    pub fn root(&self) -> OutPoint {
        self.root
    }

    /// Returns all nodes, each parent before its children. The first spends the root output.
    pub fn nodes(&self) -> &[TreeNode] {
        &self.nodes
    }

    /// Returns the indices of the nodes from the root to the channel of `slot`.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn path_nodes(&self, slot: UserSlot) -> Result<Vec<usize>, ShapeError> {
        if slot.index() >= self.members.len() {
            return Err(ShapeError::Slot { slot, users: self.members.len() });
        }
        let above = |index: &usize| self.nodes[*index].shape.users.contains(&slot.index());
        Ok((0..self.nodes.len()).filter(above).collect())
    }

    /// Returns where the funding output of the channel of `slot` stands.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn funding_outpoint(&self, slot: UserSlot) -> Result<OutPoint, ShapeError> {
        let path = self.path_nodes(slot)?;
        let leaf = &self.nodes[*path.last().expect("a path has at least one transaction")];
        let position = leaf.shape.position(slot).expect("the last node of a path is the user's");
        Ok(OutPoint::new(leaf.transaction.compute_txid(), position as u32))
    }

    /// Returns the path of `slot`, unsigned.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn path(&self, slot: UserSlot) -> Result<Path, ShapeError> {
        let level = |index: usize| {
            let node = &self.nodes[index];
            let own = node.shape.position(slot).expect("the path leads to the user");
            let mut siblings = node.transaction.output.clone();
            siblings.pop();
            siblings.remove(own);
            PathLevel { internal_key: node.node.internal_key(), own: own as u8, siblings }
        };
        Ok(Path {
            leaf: self.terms.leaf,
            root: self.root,
            root_value: self.nodes[0].spent.value,
            levels: self.path_nodes(slot)?.into_iter().map(level).collect(),
            channel_script: self.members[slot.index()].funding.script_pubkey.clone(),
        })
    }

    /// Returns what the hub offers the user of `slot` to sign.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn proposal(&self, slot: UserSlot) -> Result<Proposal, ShapeError> {
        Ok(Proposal {
            hub_key: self.terms.hub_key,
            user_keys: self.members.iter().map(|member| member.tree_key).collect(),
            radix: self.terms.radix,
            slot,
            path: self.path(slot)?,
            leaf_txid: self.funding_outpoint(slot)?.txid,
        })
    }
}

/// Builds a tree transaction: version 3, no fee, one key-path input, a keyless anchor last.
pub(super) fn tree_transaction(input: OutPoint, mut output: Vec<TxOut>) -> Transaction {
    output.push(TxOut { value: Amount::ZERO, script_pubkey: pay_to_anchor() });
    Transaction {
        version: transaction::Version(3),
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: input,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }],
        output,
    }
}

/// Adds values up, to no more than there will ever be.
pub(crate) fn sum(values: impl IntoIterator<Item = Amount>) -> Result<Amount, TreeError> {
    values
        .into_iter()
        .try_fold(Amount::ZERO, Amount::checked_add)
        .filter(|total| *total <= Amount::MAX_MONEY)
        .ok_or(TreeError::ValueOverflow)
}

fn check_funding(slot: UserSlot, funding: &TxOut) -> Result<(), TreeError> {
    if funding.value < FUNDING_VALUE_MIN {
        return Err(TreeError::Dust { slot, value: funding.value });
    }
    if !is_encodable(&funding.script_pubkey) {
        return Err(TreeError::Script { slot, script_pubkey: funding.script_pubkey.clone() });
    }
    Ok(())
}

/// Child values sum to the input: a tree transaction pays no fee.
fn assert_conserves(transaction: &Transaction, input: Amount) {
    let outputs = sum(transaction.output.iter().map(|output| output.value));
    assert_eq!(outputs, Ok(input), "a tree transaction conserves value");
}
