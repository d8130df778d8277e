//! What wishes and batches look like to a caller.

use bitcoin::{Amount, FeeRate};
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use channel_contracts::tree::ExitCost;
use proto::v1;
use proto::v1::{HostedBatchState, MembershipState};

use super::convert::{outpoint, txid_bytes};
use crate::batches::{BatchView, JoinView};
use crate::chain::virtual_confirmation::SignedLeaf;
use crate::unroll::{self, UnrollState, UnrollView};

/// Writes a wish.
pub(super) fn membership(view: &JoinView, feerate: FeeRate) -> v1::BatchMembership {
    v1::BatchMembership {
        registration_id: view.registration.0.to_vec(),
        hub_node_id: view.hub.serialize().to_vec(),
        capacity_sat: view.capacity.to_sat(),
        state: state(view.state).into(),
        detail: detail(view.state),
        batch_id: view.batch.map(|batch| batch.0.to_vec()),
        fee_sat: view.fee.map(Amount::to_sat),
        expires_height: view.expiry.map(|height| height.to_consensus_u32()),
        deadline_height: view.deadline.map(|height| height.to_consensus_u32()),
        channel_record_id: view.channel.map(|channel| channel.0.to_vec()),
        root_outpoint: view.root.map(outpoint),
        funding_outpoint: view.funding.map(outpoint),
        exit: view.exit.as_ref().map(|exit| exit_cost(exit, view.capacity, feerate)),
        path: None,
        unroll: view.unroll.as_ref().map(unroll),
        follows_registration_id: view.follows.map(|wish| wish.0.to_vec()),
    }
}

/// Writes how far a path is on its way onto the chain.
fn unroll(view: &UnrollView) -> v1::BatchUnroll {
    let reason = match view.reason {
        unroll::Reason::Requested => v1::UnrollReason::Requested,
        unroll::Reason::Deadline => v1::UnrollReason::Deadline,
        unroll::Reason::Htlc => v1::UnrollReason::Htlc,
        unroll::Reason::Commitment => v1::UnrollReason::Commitment,
        unroll::Reason::Reclaim => v1::UnrollReason::Reclaim,
    };
    let mut written = v1::BatchUnroll {
        reason: reason.into(),
        levels: view.levels as u32,
        ..v1::BatchUnroll::default()
    };
    let state = match view.state {
        UnrollState::Wanted => v1::UnrollState::Wanted,
        UnrollState::AwaitsRoot => v1::UnrollState::AwaitsRoot,
        UnrollState::Publishing { level, txid, child, feerate } => {
            written.level = Some(level as u32);
            written.txid = Some(txid_bytes(txid));
            written.child_txid = Some(txid_bytes(child));
            written.feerate_sat_per_kwu = Some(feerate.to_sat_per_kwu());
            v1::UnrollState::Publishing
        }
        UnrollState::NoCoin { level, needed, largest } => {
            written.level = Some(level as u32);
            written.needed_sat = Some(needed.to_sat());
            written.largest_coin_sat = Some(largest.to_sat());
            v1::UnrollState::NoCoin
        }
        UnrollState::OnChain { confirmations } => {
            written.confirmations = Some(confirmations);
            v1::UnrollState::OnChain
        }
        UnrollState::Lost => v1::UnrollState::Lost,
    };
    written.set_state(state);
    written
}

pub(super) fn state(phase: UserPhase) -> MembershipState {
    match phase {
        UserPhase::Registering { .. } => MembershipState::Registering,
        UserPhase::Accepted { .. } => MembershipState::Accepted,
        UserPhase::Checking
        | UserPhase::Committing
        | UserPhase::AwaitingSign { .. }
        | UserPhase::Signing
        | UserPhase::AwaitingSigned { .. }
        | UserPhase::Completing
        | UserPhase::Leaf(LeafState::Proposed) => MembershipState::Signing,
        UserPhase::Leaf(LeafState::Signed) => MembershipState::Signed,
        UserPhase::Leaf(LeafState::Funded) => MembershipState::Funded,
        UserPhase::Leaf(LeafState::Confirmed { .. }) => MembershipState::Confirmed,
        UserPhase::Leaf(LeafState::Retired) => MembershipState::Retired,
        UserPhase::Leaf(LeafState::Dead) => MembershipState::Dead,
        UserPhase::Leaf(LeafState::Unrolled) => MembershipState::Unrolled,
        UserPhase::Leaf(LeafState::Dropped) => MembershipState::Dropped,
        UserPhase::Leaf(LeafState::Abandoned) | UserPhase::Over(_) => MembershipState::Over,
    }
}

pub(super) fn detail(phase: UserPhase) -> String {
    match phase {
        UserPhase::Registering { .. } => "the hub was asked".into(),
        UserPhase::Accepted { .. } => "the hub has a place; the batch gathers users".into(),
        UserPhase::Checking => "checking the path that the hub proposes".into(),
        UserPhase::Committing => "drawing nonces".into(),
        UserPhase::AwaitingSign { .. } => "waiting for everybody's nonces".into(),
        UserPhase::Signing => "signing the path".into(),
        UserPhase::AwaitingSigned { .. } => "waiting for everybody's signatures".into(),
        UserPhase::Completing => "verifying and storing the signed path".into(),
        UserPhase::Over(reason) => reason.to_string(),
        UserPhase::Leaf(leaf) => match leaf {
            LeafState::Proposed => "the path is proposed".into(),
            LeafState::Signed => "the signed path is stored; both sides sign commitments".into(),
            LeafState::Funded => "waiting for the batch transaction to confirm".into(),
            LeafState::Confirmed { at } => format!("confirmed in block {at}"),
            LeafState::Retired => "closed by agreement, off the chain".into(),
            LeafState::Dead => "the hub has taken the output back".into(),
            LeafState::Unrolled => "an ordinary channel on chain".into(),
            LeafState::Abandoned => "the batch did not come about".into(),
            LeafState::Dropped => "the hub says that the batch came to nothing; join another. \
                 The path is kept, in case its transaction is confirmed after all"
                .into(),
        },
    }
}

/// Whether nothing can change any more.
pub(super) fn is_final(state: MembershipState) -> bool {
    matches!(state, MembershipState::Over | MembershipState::Dead)
}

/// Writes what leaving would cost the owner of `capacity`.
pub(super) fn exit_cost(cost: &ExitCost, capacity: Amount, feerate: FeeRate) -> v1::BatchExitCost {
    v1::BatchExitCost {
        levels: cost.levels as u32,
        blocks: cost.blocks as u32,
        vbytes: cost.total_vb(),
        feerate_sat_per_vb: feerate.to_sat_per_vb_ceil(),
        fee_sat: cost.fee(feerate).map_or(u64::MAX, Amount::to_sat),
        is_worth: cost.is_worth(capacity, feerate),
    }
}

/// Writes a signed path and what it begins and ends with.
pub(super) fn path(leaf: &SignedLeaf) -> v1::BatchPath {
    let (root, channel) = (&leaf.ends.root_output, &leaf.ends.channel);
    v1::BatchPath {
        root_value_sat: root.value.to_sat(),
        root_script: root.script_pubkey.to_bytes(),
        channel_value_sat: channel.value.to_sat(),
        channel_script: channel.script_pubkey.to_bytes(),
        encoded: leaf.path.encode(),
    }
}

/// Writes a batch of this hub.
pub(super) fn hosted(view: &BatchView) -> v1::HostedBatch {
    let (state, detail) = hosted_state(view.phase);
    v1::HostedBatch {
        batch_id: view.batch.0.to_vec(),
        state: state.into(),
        detail,
        expires_height: view.expiry.to_consensus_u32(),
        user_node_ids: view.users.iter().map(|user| user.serialize().to_vec()).collect(),
        left_out: view
            .left_out
            .iter()
            .map(|(peer, reason)| v1::LeftOutMember {
                node_id: peer.serialize().to_vec(),
                reason: reason.clone(),
            })
            .collect(),
        txid: view.txid.map(txid_bytes),
    }
}

pub(super) fn hosted_state(phase: HubPhase) -> (HostedBatchState, String) {
    let forming = |step: &str| (HostedBatchState::Forming, step.to_owned());
    match phase {
        HubPhase::Gathering { .. } => (HostedBatchState::Gathering, String::new()),
        HubPhase::Opening { .. } => forming("opening channels"),
        HubPhase::Building => forming("building the tree"),
        HubPhase::Nonces { .. } => forming("gathering nonces"),
        HubPhase::Aggregating => forming("aggregating nonces"),
        HubPhase::Partials { .. } => forming("gathering signatures"),
        HubPhase::Finishing => forming("aggregating signatures"),
        HubPhase::Storing { .. } => forming("users store their paths"),
        HubPhase::Funding { .. } => (HostedBatchState::Funding, String::new()),
        HubPhase::Publishing | HubPhase::Confirming => {
            (HostedBatchState::Confirming, String::new())
        }
        HubPhase::Live { at } => (HostedBatchState::Live, format!("confirmed in block {at}")),
        HubPhase::Expiring { .. } => (HostedBatchState::Expiring, String::new()),
        HubPhase::Settled => (HostedBatchState::Settled, String::new()),
        HubPhase::Failed { reason } => (HostedBatchState::Failed, reason.to_string()),
    }
}
