//! HTLCs that a node offered in channels which are closed now, and that nobody has taken yet.

use std::collections::HashSet;

use node::lightning::types::PaymentHash;
use node::lightning::{ClaimKind, Claimable};
use node::node::Node as RunningNode;

use super::batches::least_msat;

/// HTLCs on chain that come back to the node once their time is over, unless the other end takes
/// them before. LDK's sum counts none that is a payment of the node's own.
pub fn offered(node: &RunningNode) -> Vec<Claimable> {
    let open: HashSet<_> = node.lightning.channels().iter().map(|c| c.channel_id).collect();
    let mut offered = Vec::new();
    for (funding, channel) in node.channels.by_funding() {
        let record = node.channels.recorded(channel);
        let id = record.and_then(|record| record.channel_id).filter(|id| !open.contains(id));
        // A commitment of a batch that is not on chain is no matter of the chain's yet.
        if let Some(id) = id
            && node.confirmations.is_taken(funding.txid).is_none()
        {
            offered.extend(node.lightning.claimable(id));
        }
    }
    offered.retain(|claim| claim.kind == ClaimKind::HtlcTimeout);
    offered
}

/// Whether one of them is worth a transaction at this feerate: the node takes it back in time, or
/// hears that it was taken.
pub fn is_worth(offered: &[Claimable], msat_per_vb: u64) -> bool {
    offered.iter().any(|claim| claim.amount_sat * 1_000 > least_msat(msat_per_vb))
}

/// Whether what a node pays for `hash` lies in such HTLCs alone, and none of them is worth a
/// transaction: nobody takes them, and it never hears how the payment ended.
pub fn is_stuck(node: &RunningNode, hash: PaymentHash, msat_per_vb: u64) -> bool {
    let channels = node.lightning.channels();
    let mut of_hash = offered(node);
    of_hash.retain(|claim| claim.hash == Some(hash));
    let is_busy = channels.iter().any(|channel| channel.outbound_htlcs > 0);
    !is_busy && !of_hash.is_empty() && !is_worth(&of_hash, msat_per_vb)
}
