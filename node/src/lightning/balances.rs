//! What each side of a channel owns, from the capacities that LDK shows.

use lightning::ln::channel_state::ChannelDetails;

use super::splice::pending_splice;

/// LDK's dust limit, the least a reserve can be.
const MIN_DUST_LIMIT_SAT: u64 = 354;

/// What each side owns, msat: ours, then the counterparty's. HTLCs in flight belong to neither.
///
/// LDK shows capacities, which are balances less the reserve, never below zero, and less the
/// anchors' value on the opener's side. A side above its reserve gives its balance away exactly;
/// the rest of the channel is the other side's.
///
/// While a splice is pending LDK shows the lower of both fundings' capacities. The side that a
/// splice takes from seems to have less already, and the other side's figure is the one to go by;
/// beside a side that puts in, the other seems to have less by what its reserve grows.
pub(super) fn balances(details: &ChannelDetails) -> (u64, u64) {
    let anchors_msat = match &details.channel_type {
        Some(features) if features.supports_anchor_zero_fee_commitments() => 0,
        // BOLT 3: two anchors of 330 sat, paid by the opener.
        Some(features) if features.supports_anchors_zero_fee_htlc_tx() => 660_000,
        _ => 0,
    };
    let inbound = details.pending_inbound_htlcs.iter().map(|htlc| htlc.amount_msat);
    let outbound = details.pending_outbound_htlcs.iter().map(|htlc| htlc.amount_msat);
    let in_flight: u64 = inbound.chain(outbound).sum();
    let settled = (details.channel_value_satoshis * 1_000).saturating_sub(in_flight);
    let splice = Splice::of(details);
    let takes_ours = splice.is_some_and(|splice| splice.by_us && splice.added_sat < 0);
    let by_ours = match takes_ours {
        true => details.inbound_capacity_msat == 0,
        false => details.outbound_capacity_msat > 0,
    };
    // What is missing in a side's capacity.
    let kept_msat = |reserve: u64, ours: bool| {
        let kept = splice.map_or(reserve, |splice| splice.kept(reserve, ours));
        kept * 1_000 + if details.is_outbound == ours { anchors_msat } else { 0 }
    };
    if by_ours {
        let reserve = details.unspendable_punishment_reserve.unwrap_or(0);
        let local = details.outbound_capacity_msat + kept_msat(reserve, true);
        (local, settled.saturating_sub(local))
    } else {
        let reserve = details.counterparty.unspendable_punishment_reserve;
        let remote = details.inbound_capacity_msat + kept_msat(reserve, false);
        (settled.saturating_sub(remote), remote)
    }
}

/// A splice that is negotiated and not locked.
#[derive(Clone, Copy)]
struct Splice {
    by_us: bool,
    added_sat: i64,
    capacity_sat: u64,
}

impl Splice {
    fn of(details: &ChannelDetails) -> Option<Self> {
        let splice = pending_splice(details).filter(|splice| splice.txid.is_some())?;
        let capacity_sat = splice.capacity_sat?;
        let before_sat = i64::try_from(details.channel_value_satoshis).ok()?;
        let added_sat = i64::try_from(capacity_sat).ok()? - before_sat;
        Some(Self { by_us: splice.fee_sat.is_some(), added_sat, capacity_sat })
    }

    /// What a side cannot spend of its balance under the funding that leaves it less.
    fn kept(self, reserve: u64, ours: bool) -> u64 {
        let next = match reserve {
            0 => 0,
            // BOLT 2: after a splice the reserve is a hundredth of the new capacity.
            _ => (self.capacity_sat / 100).max(MIN_DUST_LIMIT_SAT),
        };
        let taken = if self.by_us == ours { self.added_sat.saturating_neg() } else { 0 };
        reserve.max(next.saturating_add_signed(taken))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Txid;
    use bitcoin::hashes::Hash;
    use lightning::ln::channel_state::{
        SpliceCandidateDetails, SpliceCandidateStatus, SpliceDetails,
    };

    use super::*;
    use crate::lightning::pathfinding::tests::world::own;

    const RESERVE_SAT: u64 = 100_000;

    /// A channel of 10,000,000 sat as LDK shows it: of each funding's capacities the lower.
    fn shown(ours_sat: u64, spliced_to: Option<u64>, theirs_added: i64) -> ChannelDetails {
        let mut details = own(1, 2, 1, 10_000_000_000);
        let theirs_sat = 10_000_000 - ours_sat;
        details.unspendable_punishment_reserve = Some(RESERVE_SAT);
        details.counterparty.unspendable_punishment_reserve = RESERVE_SAT;
        let reserve = spliced_to.map_or(RESERVE_SAT, |capacity| capacity / 100);
        let spendable = |sat: u64, next: u64| {
            sat.saturating_sub(RESERVE_SAT).min(next.saturating_sub(reserve)) * 1_000
        };
        details.outbound_capacity_msat = spendable(ours_sat, ours_sat);
        details.inbound_capacity_msat =
            spendable(theirs_sat, theirs_sat.saturating_add_signed(theirs_added));
        details.splice_details = spliced_to.map(|new_channel_value_satoshis| SpliceDetails {
            candidates: vec![SpliceCandidateDetails {
                contribution: None,
                status: SpliceCandidateStatus::Negotiated {
                    txid: Txid::all_zeros(),
                    new_channel_value_satoshis,
                },
            }],
            confirmed_candidate: None,
            received_splice_locked_txid: None,
        });
        details
    }

    #[test]
    fn a_splice_of_the_counterparty_changes_nobodys_balance_before_it_is_locked() {
        for ours_sat in [4_000_000, 200_000, 9_950_000] {
            let expected = (ours_sat * 1_000, (10_000_000 - ours_sat) * 1_000);
            assert_eq!(balances(&shown(ours_sat, None, 0)), expected);
            // A hundredth of what it adds goes into our reserve.
            assert_eq!(balances(&shown(ours_sat, Some(10_500_000), 500_000)), expected);
        }
        let ours_sat = 4_000_000;
        let expected = (ours_sat * 1_000, (10_000_000 - ours_sat) * 1_000);
        assert_eq!(balances(&shown(ours_sat, Some(9_000_000), -1_000_000)), expected);
    }
}
