//! What callers see of wishes and batches.

use bitcoin::{Amount, OutPoint, Txid, absolute};
use channel_contracts::batch::{BatchId, HubPhase, LeafState, RegistrationId, UserPhase};
use channel_contracts::tree::{ExitCost, SignedPath};

use super::Parts;
use super::hub::HubLife;
use super::user::UserLife;
use crate::lightning::types::{ChannelRef, NodeId};
use crate::unroll::UnrollView;

/// Where a wish stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinView {
    /// Its name.
    pub registration: RegistrationId,
    /// The hub.
    pub hub: NodeId,
    /// The wish whose channel rolls over into this one's.
    pub follows: Option<RegistrationId>,
    /// What was asked for.
    pub capacity: Amount,
    /// The batch, once the hub accepted.
    pub batch: Option<BatchId>,
    /// What the place costs, once the hub accepted.
    pub fee: Option<Amount>,
    /// When the batch expires.
    pub expiry: Option<absolute::Height>,
    /// Where it stands.
    pub state: JoinState,
    /// The channel, once there is one.
    pub channel: Option<ChannelRef>,
    /// Its funding output.
    pub funding: Option<OutPoint>,
    /// The output on chain that the batch hangs from.
    pub root: Option<OutPoint>,
    /// By when the channel must be rolled over, or leave.
    pub deadline: Option<absolute::Height>,
    /// What leaving alone would cost at most.
    pub exit: Option<ExitCost>,
    /// The way onto the chain, while the path is on it and until it is buried.
    pub unroll: Option<UnrollView>,
}

/// Where a wish stands, in words of the protocol.
pub type JoinState = UserPhase;

/// Where a batch of this hub stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    /// Its name.
    pub batch: BatchId,
    /// Where it stands.
    pub phase: HubPhase,
    /// When it expires.
    pub expiry: absolute::Height,
    /// Its users.
    pub users: Vec<NodeId>,
    /// Who was left out, and why.
    pub left_out: Vec<(NodeId, String)>,
    /// The batch transaction, once there is one.
    pub txid: Option<Txid>,
}

/// A channel of a batch that lives, as one who guards it must know it.
#[derive(Debug, Clone)]
pub struct LiveLeaf {
    /// Its funding output.
    pub funding: OutPoint,
    /// The way onto the chain.
    pub path: SignedPath,
    /// The height at which it must be published if the channel is not retired.
    pub deadline: absolute::Height,
}

/// The channel of a wish, if it lives and is not on chain.
pub(super) fn live_leaf(parts: &Parts, life: &UserLife) -> Option<LiveLeaf> {
    let UserPhase::Leaf(LeafState::Confirmed { .. }) = life.machine.phase() else { return None };
    let funding = life.funding()?;
    let path = parts.confirmations.path_to(funding.txid)?;
    let deadline = life.machine.deadlines()?.user_deadline();
    Some(LiveLeaf { funding, path, deadline })
}

/// What a caller sees of a wish.
pub(super) fn join_view(parts: &Parts, life: &UserLife) -> JoinView {
    let (request, place, agreed) =
        (life.machine.request(), life.machine.place(), life.machine.agreed());
    let path = life.funding().and_then(|funding| parts.confirmations.path_to(funding.txid));
    JoinView {
        registration: request.registration,
        hub: life.hub,
        follows: life.follows,
        capacity: request.capacity,
        batch: place.map(|place| place.batch),
        fee: place.map(|place| place.fee),
        expiry: place.map(|place| place.expiry),
        state: life.machine.phase(),
        channel: life.channel,
        funding: life.funding(),
        root: agreed.map(|agreed| agreed.root),
        deadline: life.machine.deadlines().map(|deadlines| deadlines.user_deadline()),
        exit: path.and_then(|path| ExitCost::of_path(&path.path)),
        unroll: life.funding().and_then(|funding| parts.unroller.unroll(funding)),
    }
}

/// What a caller sees of a batch.
pub(super) fn batch_view(life: &HubLife) -> BatchView {
    let left_out = life.machine.left_out().iter();
    BatchView {
        batch: life.machine.id(),
        phase: life.machine.phase(),
        expiry: life.machine.expiry(),
        users: life.machine.members().keys().map(|peer| peer.0).collect(),
        left_out: left_out.map(|(peer, reason)| (peer.0, reason.to_string())).collect(),
        txid: life.machine.tree().map(|tree| tree.root.txid),
    }
}
