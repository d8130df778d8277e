//! One attempt of a hub to sign the tree of a batch.

use bitcoin::{Transaction, TxOut};
use channel_contracts::batch::{Attempt, Peer};
use channel_contracts::musig::{HubNonces, HubPartials, SignedTree};
use channel_contracts::tree::path::PathEnds;
use channel_contracts::tree::{BatchTree, UserSlot};

use crate::chain::virtual_confirmation::SignedLeaf;

/// One attempt to sign a tree.
pub(super) struct Round {
    pub attempt: Attempt,
    /// By slot. Whoever is left out meanwhile keeps the place: the attempt is over then.
    pub peers: Vec<Peer>,
    pub transaction: Transaction,
    pub session: Session,
}

pub(super) enum Session {
    /// The tree is built.
    Built(Box<BatchTree>),
    /// Nonces come in.
    Nonces(Box<HubNonces>),
    /// Partial signatures come in.
    Partials(Box<HubPartials>),
    /// All is signed.
    Signed(Box<SignedTree>),
    /// A step failed that cannot; the attempt will not end.
    Broken,
}

impl Round {
    pub fn slot(&self, peer: Peer) -> Option<UserSlot> {
        let place = self.peers.iter().position(|other| *other == peer)?;
        u16::try_from(place).ok().map(UserSlot)
    }
}

/// Every channel's path as the record takes it.
pub(super) fn leaves(signed: &SignedTree) -> Vec<SignedLeaf> {
    let tree = signed.tree();
    let root_output: &TxOut = &tree.nodes()[0].spent;
    tree.members()
        .iter()
        .zip(0..)
        .filter_map(|(member, slot)| {
            let slot = UserSlot(slot);
            Some(SignedLeaf {
                slot: tree.shape().leaf_slot(slot).ok()?,
                path: signed.path(slot).ok()?,
                ends: PathEnds {
                    root: tree.root(),
                    root_output: root_output.clone(),
                    expiry: tree.terms().leaf.expiry,
                    channel: member.funding.clone(),
                },
            })
        })
        .collect()
}
