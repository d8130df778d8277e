//! Asks LDK's scorer what a hop is worth avoiding.
//!
//! The scorer is asked through its public API and never imitated. That API wants references into
//! LDK's graph; one channel is kept aside, and each hop is written into it before it is asked
//! about.

use lightning::routing::gossip::{ChannelInfo, EffectiveCapacity, NodeId};
use lightning::routing::router::{
    CandidateRouteHop, InFlightHtlcs, PublicHopCandidate, RouteParameters,
};
use lightning::routing::scoring::{ChannelUsage, ProbabilisticScoringFeeParameters, ScoreLookUp};
use lightning::types::routing::RoutingFees;

use super::hop::{Hop, HopId, HopKind};
use super::request::blinded_paths;

/// The scorers this room can ask: they judge public channels, and blinded paths by their limit.
/// Our own channels and private hints cost nothing.
pub trait Score: ScoreLookUp<ScoreParams = ProbabilisticScoringFeeParameters> {}

impl<S: ScoreLookUp<ScoreParams = ProbabilisticScoringFeeParameters>> Score for S {}

/// How a hop would be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// What goes over it, msat.
    pub amount_msat: u64,
    /// What other parts of the same payment send over it, msat.
    pub used_msat: u64,
}

/// The scorer, its parameters, and the HTLCs already under way.
pub(super) struct Penalties<'a, S> {
    scorer: &'a S,
    parameters: &'a ProbabilisticScoringFeeParameters,
    in_flight: Option<&'a InFlightHtlcs>,
    channel: Option<ChannelInfo>,
}

impl<'a, S: Score> Penalties<'a, S> {
    /// Asks `scorer`; without `in_flight` it answers for a channel nothing is under way on.
    /// `template` may be missing if there is no public channel to ask about.
    pub fn new(
        scorer: &'a S,
        parameters: &'a ProbabilisticScoringFeeParameters,
        in_flight: Option<&'a InFlightHtlcs>,
        template: Option<&ChannelInfo>,
    ) -> Self {
        Self { scorer, parameters, in_flight, channel: template.cloned() }
    }

    /// The penalty of a public channel from `source` to `target`, msat.
    pub fn of_public(&mut self, ends: [&NodeId; 2], hop: &Hop, usage: Usage) -> u64 {
        let [source, target] = ends;
        let (Some(channel), HopId::Channel(short_channel_id, _)) = (&mut self.channel, hop.id)
        else {
            return u64::MAX;
        };
        channel.node_one = *source;
        channel.node_two = *target;
        channel.capacity_sats = match hop.capacity {
            EffectiveCapacity::Total { capacity_msat, .. } => Some(capacity_msat / 1_000),
            _ => None,
        };
        if let Some(direction) = &mut channel.one_to_two {
            direction.htlc_minimum_msat = hop.htlc_minimum_msat;
            direction.htlc_maximum_msat = hop.htlc_maximum_msat(0);
            direction.cltv_expiry_delta = u16::try_from(hop.cltv_expiry_delta).unwrap_or(u16::MAX);
            direction.fees =
                RoutingFees { base_msat: hop.fee.base_msat, proportional_millionths: hop.fee.ppm };
        }
        let Some((info, _)) = channel.as_directed_from(source) else {
            return u64::MAX;
        };
        let candidate = CandidateRouteHop::PublicHop(PublicHopCandidate { info, short_channel_id });
        let in_flight = self
            .in_flight
            .and_then(|htlcs| htlcs.used_liquidity_msat(source, target, short_channel_id));
        let usage = ChannelUsage {
            amount_msat: usage.amount_msat,
            inflight_htlc_msat: usage.used_msat.saturating_add(in_flight.unwrap_or(0)),
            effective_capacity: hop.capacity,
        };
        self.scorer.channel_penalty_msat(&candidate, usage, self.parameters)
    }

    /// The penalty of any hop between `ends`, msat.
    pub fn of(
        &mut self,
        payment: &RouteParameters,
        ends: [&NodeId; 2],
        hop: &Hop,
        usage: Usage,
    ) -> u64 {
        match hop.kind {
            HopKind::Public(_) => self.of_public(ends, hop, usage),
            HopKind::First(_) | HopKind::Private(_) | HopKind::OneHopBlinded(_) => 0,
            HopKind::Blinded(path) => {
                let Some(path) = blinded_paths(payment).get(path as usize) else {
                    return u64::MAX;
                };
                let in_flight = self.in_flight.and_then(|htlcs| {
                    htlcs.used_blinded_liquidity_msat(*ends[0], path.blinding_point())
                });
                let total = usage
                    .amount_msat
                    .saturating_add(usage.used_msat)
                    .saturating_add(in_flight.unwrap_or(0));
                if usage.amount_msat > path.payinfo.htlc_maximum_msat {
                    u64::MAX
                } else if total > path.payinfo.htlc_maximum_msat {
                    self.parameters.considered_impossible_penalty_msat
                } else {
                    0
                }
            }
        }
    }
}
