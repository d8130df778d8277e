//! What the hub offers a user to sign, and every check the user makes before it does.
//!
//! The proposal carries the keys of all users by slot. From them the user computes the shape,
//! the cosigners of each node on its path, and their aggregate; it signs only what it computed
//! itself. `leaf_txid` commits to every byte of every transaction on the path, siblings
//! included, so that two sides that see different trees notice before a nonce is made.
//!
//! Source: BATCHES §3.3.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, TxOut, Txid, absolute};

use super::path::{Path, PathEnds, PathError};
use super::shape::{LeafSlot, Radix, Shape, ShapeError, UserSlot};
use crate::musig::{AggregateError, AggregateKey};
use crate::script::BatchNode;
use crate::script::batch_node::key_path_message;

/// A path with all that is needed to check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The hub's tree key.
    pub hub_key: PublicKey,
    /// Every user's tree key, by slot.
    pub user_keys: Vec<PublicKey>,
    /// Most children of a transaction.
    pub radix: Radix,
    /// The user's place.
    pub slot: UserSlot,
    /// The user's path, unsigned.
    pub path: Path,
    /// The id of the transaction that funds the channel.
    pub leaf_txid: Txid,
}

/// What the user knows by itself and the proposal must agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The user's own tree key of this attempt.
    pub own_key: PublicKey,
    /// Where the root output is announced to stand.
    pub root: OutPoint,
    /// The root output announced.
    pub root_output: TxOut,
    /// The expiry promised when the hub accepted.
    pub expiry: absolute::Height,
    /// The channel's funding output, from the channel's own negotiation.
    pub channel: TxOut,
}

/// Why a user refuses a proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// The batch has no such shape or place.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The path is wrong in itself or leads elsewhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The keys cannot be aggregated.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// The slot is another user's.
    #[error("slot {slot} has key {actual}, not ours; without it others could move the money")]
    ForeignSlot {
        /// The slot.
        slot: UserSlot,
        /// The key there.
        actual: PublicKey,
    },
    /// The path has not the form that size, radix and slot give it.
    #[error("level {level} of the path has not the form of slot {slot} among {users}")]
    WrongShape {
        /// The first level that differs.
        level: usize,
        /// The slot.
        slot: UserSlot,
        /// The number of users.
        users: usize,
    },
    /// A node is not owned by the users below it and the hub.
    #[error(
        "key of level {level} is not that of its cosigners; the hub left a key out or put one in"
    )]
    WrongCosigners {
        /// The level.
        level: usize,
    },
    /// The transactions are not those the hub means.
    #[error("path ends in transaction {actual}, the hub announces {announced}")]
    WrongLeaf {
        /// The id computed.
        actual: Txid,
        /// The id announced.
        announced: Txid,
    },
}

/// A path that the user checked and will sign.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgreedPath {
    /// The user's tree key, which is among the cosigners of every level.
    pub own_key: PublicKey,
    /// The transactions, from the root down.
    pub levels: Vec<AgreedLevel>,
    /// The path itself, to be completed by signatures.
    pub path: Path,
    /// What it begins and ends with.
    pub ends: PathEnds,
    /// Where the channel's funding output stands.
    pub funding: OutPoint,
    /// The number of the transaction that funds the channel among those of the tree.
    pub leaf_slot: LeafSlot,
}

/// One transaction of an agreed path.
#[derive(Debug, Clone)]
pub struct AgreedLevel {
    /// The output it spends.
    pub node: BatchNode,
    /// The key that signs it, the user's own among its cosigners.
    pub key: AggregateKey,
    /// The transaction, without witness.
    pub transaction: Transaction,
    /// What its cosigners sign.
    pub message: [u8; 32],
}

impl Proposal {
    /// Checks everything of BATCHES §3.3 and returns what may be signed.
    ///
    /// Own key in every aggregate, the expiry leaf in every node, values conserve, the last
    /// output exactly the channel's value and script, E as promised, the root as announced.
    ///
    /// # Errors
    ///
    /// [`ProposalError`] naming the first thing that is wrong.
    pub fn verify(&self, terms: &Terms) -> Result<AgreedPath, ProposalError> {
        let shape = Shape::new(self.user_keys.len(), self.radix)?;
        let nodes = shape.path(self.slot)?;
        let actual = self.user_keys[self.slot.index()];
        if actual != terms.own_key {
            return Err(ProposalError::ForeignSlot { slot: self.slot, actual });
        }
        let wrong_shape = |level| {
            let (slot, users) = (self.slot, shape.users());
            ProposalError::WrongShape { level, slot, users }
        };
        for (index, node) in nodes.iter().enumerate() {
            let fits = self.path.levels.get(index).is_some_and(|level| {
                level.siblings.len() + 1 == node.children.len()
                    && Some(usize::from(level.own)) == node.position(self.slot)
            });
            if !fits {
                return Err(wrong_shape(index));
            }
        }
        if self.path.levels.len() != nodes.len() {
            return Err(wrong_shape(nodes.len()));
        }

        let ends = PathEnds {
            root: terms.root,
            root_output: terms.root_output.clone(),
            expiry: terms.expiry,
            channel: terms.channel.clone(),
        };
        let transactions = self.path.check_ends(&ends)?;
        let last = transactions.last().expect("check_ends refuses an empty path");
        let leaf_txid = last.transaction.compute_txid();
        if leaf_txid != self.leaf_txid {
            let announced = self.leaf_txid;
            return Err(ProposalError::WrongLeaf { actual: leaf_txid, announced });
        }

        let mut levels = Vec::with_capacity(nodes.len());
        for (level, (step, node)) in transactions.into_iter().zip(&nodes).enumerate() {
            let users = self.user_keys[node.users.clone()].iter().copied();
            let cosigners: Vec<PublicKey> = users.chain([self.hub_key]).collect();
            let key = AggregateKey::new(&cosigners, self.path.leaf.merkle_root())?;
            if key.internal_key() != step.node.internal_key() {
                return Err(ProposalError::WrongCosigners { level });
            }
            let message = key_path_message(&step.transaction, 0, std::slice::from_ref(&step.spent));
            levels.push(AgreedLevel {
                node: step.node,
                key,
                transaction: step.transaction,
                message,
            });
        }
        let own = self.path.levels.last().map_or(0, |level| u32::from(level.own));
        Ok(AgreedPath {
            own_key: terms.own_key,
            levels,
            path: self.path.clone(),
            ends,
            funding: OutPoint::new(leaf_txid, own),
            leaf_slot: shape.leaf_slot(self.slot)?,
        })
    }
}
