//! The signing session of a whole tree, from the hub's side.
//!
//! ```text
//! HubNonces ──nonces of all users──► HubPartials ──partials of all users──► SignedTree
//!     (secret nonces live here)        (hub has signed)
//! ```
//!
//! Each step consumes the one before. What a user sends is checked at once: a wrong partial
//! signature is refused with the user and the level, and leaves the session as it was, so that
//! the caller can leave the user out and begin anew with fresh keys. The hub's nonces sign when
//! the last user's nonces are in, and are gone then. A session that ends early signs nothing.
//!
//! Source: BATCHES §3.4; BIP 327, "Nonce Aggregation", "Partial Signature Verification".

use secp256k1_musig::musig::{AggregatedNonce, PartialSignature, PublicNonce, Session};

use super::SchnorrSignature;
use super::key::{TreeSecret, newer, newer_x_only};
use super::nonce::{NonceSeed, OneTimeNonce};
use crate::tree::{BatchTree, ShapeError, SignedPath, UserSlot};

/// Why the session does not take what a user sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HubSessionError {
    /// The tree has no such place.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The hub's secret is not that of the tree.
    #[error("the secret is not that of the tree's hub key")]
    ForeignSecret,
    /// The user sent more or fewer values than its path has levels.
    #[error("user {slot} sent {actual} values, its path has {levels} levels")]
    Count {
        /// Who sent them.
        slot: UserSlot,
        /// How many came.
        actual: usize,
        /// How many it takes.
        levels: usize,
    },
    /// The user sent other values before.
    #[error("user {slot} sent other values before; the first count")]
    Changed {
        /// Who sent them.
        slot: UserSlot,
    },
    /// A partial signature is wrong.
    #[error("partial signature of user {slot} at level {level} is wrong; leave the user out")]
    WrongPartial {
        /// Who sent it.
        slot: UserSlot,
        /// The level on its path, 0 is the root.
        level: usize,
    },
    /// Somebody has not sent anything yet.
    #[error("user {slot} has not sent its values yet")]
    Missing {
        /// The first who has not.
        slot: UserSlot,
    },
    /// Verified shares do not add up to a signature. Cannot happen with BIP 327.
    #[error("aggregated signature of node {node} is wrong although all its shares are right")]
    Aggregate {
        /// Index of the node.
        node: usize,
    },
}

/// A session that gathers nonces.
#[derive(Debug)]
pub struct HubNonces {
    tree: BatchTree,
    secret: TreeSecret,
    own: Vec<(OneTimeNonce, PublicNonce)>,
    messages: Vec<[u8; 32]>,
    users: Vec<Option<Vec<PublicNonce>>>,
}

/// A session that gathers partial signatures.
#[derive(Debug)]
pub struct HubPartials {
    tree: BatchTree,
    sessions: Vec<NodeSession>,
    nonces: Vec<Vec<PublicNonce>>,
    users: Vec<Option<Vec<PartialSignature>>>,
}

#[derive(Debug)]
struct NodeSession {
    session: Session,
    aggregated: AggregatedNonce,
    own: PartialSignature,
    message: [u8; 32],
}

/// A tree whose every transaction has its final signature.
#[derive(Debug, Clone)]
pub struct SignedTree {
    tree: BatchTree,
    signatures: Vec<SchnorrSignature>,
}

impl HubNonces {
    /// Begins the session of `tree`: one nonce of the hub for each node, from a fresh `seed`.
    ///
    /// # Errors
    ///
    /// [`HubSessionError::ForeignSecret`] unless `secret` is that of the tree's hub key.
    pub fn begin(
        tree: BatchTree,
        secret: TreeSecret,
        seed: NonceSeed,
    ) -> Result<Self, HubSessionError> {
        if secret.public_key() != tree.terms().hub_key {
            return Err(HubSessionError::ForeignSecret);
        }
        let messages: Vec<_> = tree.nodes().iter().map(|node| node.message()).collect();
        let own = (0u32..)
            .zip(tree.nodes())
            .zip(&messages)
            .map(|((place, node), message)| {
                OneTimeNonce::new(&seed, place, &secret, &node.key, message)
            })
            .collect();
        let users = vec![None; tree.members().len()];
        Ok(Self { tree, secret, own, messages, users })
    }

    /// Returns the tree.
    pub fn tree(&self) -> &BatchTree {
        &self.tree
    }

    /// Takes the nonces of `slot`, one for each level from the root down. The same again is
    /// nothing new.
    ///
    /// # Errors
    ///
    /// [`HubSessionError::Count`] or [`HubSessionError::Changed`], which name the user. The
    /// session is unchanged then.
    pub fn add(&mut self, slot: UserSlot, nonces: Vec<PublicNonce>) -> Result<(), HubSessionError> {
        take(&self.tree, &mut self.users, slot, nonces)
    }

    /// Returns who has not sent nonces yet.
    pub fn missing(&self) -> Vec<UserSlot> {
        missing(&self.users)
    }

    /// Aggregates all nonces and signs with the hub's, which are consumed.
    ///
    /// # Errors
    ///
    /// [`HubSessionError::Missing`] if somebody's are not in; the session comes back with it.
    pub fn aggregate(self) -> Result<HubPartials, (Box<Self>, HubSessionError)> {
        if let Some(slot) = self.missing().first().copied() {
            return Err((Box::new(self), HubSessionError::Missing { slot }));
        }
        let Self { tree, secret, own, messages, users } = self;
        let nonces: Vec<Vec<PublicNonce>> = users.into_iter().flatten().collect();
        let sessions = tree
            .nodes()
            .iter()
            .zip(own)
            .zip(messages)
            .map(|((node, (own, own_public)), message)| {
                let level = node.shape.level;
                let below = nonces[node.shape.users.clone()].iter().map(|nonces| &nonces[level]);
                let all: Vec<&PublicNonce> = below.chain([&own_public]).collect();
                let aggregated = AggregatedNonce::new(&all);
                let session = Session::new(node.key.cache(), aggregated, &message);
                let own = own.sign(&secret, &node.key, &session);
                NodeSession { session, aggregated, own, message }
            })
            .collect();
        let users = vec![None; tree.members().len()];
        Ok(HubPartials { tree, sessions, nonces, users })
    }
}

impl HubPartials {
    /// Returns the tree.
    pub fn tree(&self) -> &BatchTree {
        &self.tree
    }

    /// Returns the aggregated nonces of the path of `slot`, from the root down.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn aggregated(&self, slot: UserSlot) -> Result<Vec<AggregatedNonce>, ShapeError> {
        let path = self.tree.path_nodes(slot)?;
        Ok(path.into_iter().map(|node| self.sessions[node].aggregated).collect())
    }

    /// Takes the partial signatures of `slot`, one for each level from the root down, and
    /// verifies each. The same again is nothing new.
    ///
    /// # Errors
    ///
    /// [`HubSessionError::WrongPartial`] names the user and the level; also
    /// [`HubSessionError::Count`] and [`HubSessionError::Changed`]. The session is unchanged.
    pub fn add(
        &mut self,
        slot: UserSlot,
        partials: Vec<PartialSignature>,
    ) -> Result<(), HubSessionError> {
        let path = self.tree.path_nodes(slot)?;
        if path.len() != partials.len() {
            let (actual, levels) = (partials.len(), path.len());
            return Err(HubSessionError::Count { slot, actual, levels });
        }
        let key = newer(&self.tree.members()[slot.index()].tree_key);
        for (level, (node, partial)) in path.into_iter().zip(&partials).enumerate() {
            let cache = self.tree.nodes()[node].key.cache();
            let nonce = &self.nonces[slot.index()][level];
            if !self.sessions[node].session.partial_verify(cache, partial, nonce, key) {
                return Err(HubSessionError::WrongPartial { slot, level });
            }
        }
        take(&self.tree, &mut self.users, slot, partials)
    }

    /// Returns who has not sent partial signatures yet.
    pub fn missing(&self) -> Vec<UserSlot> {
        missing(&self.users)
    }

    /// Aggregates all partial signatures.
    ///
    /// # Errors
    ///
    /// [`HubSessionError::Missing`] if somebody's are not in; the session comes back with it.
    pub fn finish(self) -> Result<SignedTree, (Box<Self>, HubSessionError)> {
        if let Some(slot) = self.missing().first().copied() {
            return Err((Box::new(self), HubSessionError::Missing { slot }));
        }
        let sign = |index: usize| {
            let (node, session) = (&self.tree.nodes()[index], &self.sessions[index]);
            let level = node.shape.level;
            let users = self.users[node.shape.users.clone()].iter().flatten();
            let below = users.map(|partials| &partials[level]);
            let all: Vec<&PartialSignature> = below.chain([&session.own]).collect();
            let key = newer_x_only(&node.node.output_key());
            let aggregated = session.session.partial_sig_agg(&all);
            let signature = aggregated.verify(&key, &session.message).ok()?;
            Some(SchnorrSignature(signature.to_byte_array()))
        };
        let mut signatures = Vec::with_capacity(self.sessions.len());
        for node in 0..self.sessions.len() {
            match sign(node) {
                Some(signature) => signatures.push(signature),
                None => return Err((Box::new(self), HubSessionError::Aggregate { node })),
            }
        }
        Ok(SignedTree { tree: self.tree, signatures })
    }
}

impl SignedTree {
    /// Returns the tree.
    pub fn tree(&self) -> &BatchTree {
        &self.tree
    }

    /// Returns the signatures, one for each node, in the tree's order.
    pub fn signatures(&self) -> &[SchnorrSignature] {
        &self.signatures
    }

    /// Returns the signed path of `slot`.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn path(&self, slot: UserSlot) -> Result<SignedPath, ShapeError> {
        let nodes = self.tree.path_nodes(slot)?;
        let signatures = nodes.into_iter().map(|node| self.signatures[node]).collect();
        Ok(SignedPath { path: self.tree.path(slot)?, signatures })
    }

    /// Returns the signed transaction of the node of `index`, ready to be published.
    ///
    /// # Panics
    ///
    /// If the tree has no such node.
    pub fn transaction(&self, index: usize) -> bitcoin::Transaction {
        let node = &self.tree.nodes()[index];
        let mut transaction = node.transaction.clone();
        transaction.input[0].witness = node.node.key_witness(&self.signatures[index]);
        transaction
    }

    /// Puts stored signatures back to the tree they belong to.
    ///
    /// # Errors
    ///
    /// [`HubSessionError::Aggregate`] names the first node whose signature is absent or wrong.
    pub fn restore(
        tree: BatchTree,
        signatures: Vec<SchnorrSignature>,
    ) -> Result<Self, HubSessionError> {
        for (index, node) in tree.nodes().iter().enumerate() {
            let valid = signatures.get(index).is_some_and(|signature| {
                signature.is_valid(&node.message(), &node.node.output_key())
            });
            if !valid {
                return Err(HubSessionError::Aggregate { node: index });
            }
        }
        Ok(Self { tree, signatures })
    }
}

/// Stores what `slot` sent unless something else of it is there.
fn take<T: PartialEq>(
    tree: &BatchTree,
    users: &mut [Option<Vec<T>>],
    slot: UserSlot,
    values: Vec<T>,
) -> Result<(), HubSessionError> {
    let levels = tree.path_nodes(slot)?.len();
    if values.len() != levels {
        return Err(HubSessionError::Count { slot, actual: values.len(), levels });
    }
    match &users[slot.index()] {
        Some(known) if *known != values => Err(HubSessionError::Changed { slot }),
        Some(_) => Ok(()),
        None => {
            users[slot.index()] = Some(values);
            Ok(())
        }
    }
}

fn missing<T>(users: &[Option<Vec<T>>]) -> Vec<UserSlot> {
    let absent = users.iter().enumerate().filter(|(_, values)| values.is_none());
    absent.map(|(index, _)| UserSlot::from_index(index)).collect()
}
