//! Small networks for tests: nodes are numbers, and both routers look at the same graph.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::channel_state::{ChannelCounterparty, ChannelDetails};
use lightning::ln::msgs::UnsignedChannelUpdate;
use lightning::ln::types::ChannelId;
use lightning::routing::gossip::{NetworkGraph, NodeId};
use lightning::routing::router::{
    CandidateRouteHop, DefaultRouter, InFlightHtlcs, Payee, PaymentParameters, PublicHopCandidate,
    Route, RouteHint, RouteHintHop, RouteParameters, Router,
};
use lightning::routing::scoring::{
    ChannelUsage, ProbabilisticScorer, ProbabilisticScoringDecayParameters,
    ProbabilisticScoringFeeParameters, ScoreLookUp,
};
use lightning::sign::EntropySource;
use lightning::types::features::{ChannelFeatures, InitFeatures};
use lightning::types::routing::RoutingFees;
use lightning::util::logger::{Logger, Record};

use super::super::{FastRouter, JournalingScorer};

#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

#[derive(Debug, Clone, Copy)]
pub struct Fixed;

impl EntropySource for Fixed {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        [7; 32]
    }
}

pub type Graph = NetworkGraph<Silent>;
pub type Scorer = JournalingScorer<ProbabilisticScorer<Arc<Graph>, Silent>>;

/// What a direction of a channel announces.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub enabled: bool,
    pub base_msat: u32,
    pub ppm: u32,
    pub cltv: u16,
    pub minimum_msat: u64,
    pub maximum_msat: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            enabled: true,
            base_msat: 0,
            ppm: 0,
            cltv: 40,
            minimum_msat: 1,
            maximum_msat: 1_000_000_000,
        }
    }
}

pub fn key(node: u32) -> PublicKey {
    let mut secret = [0x22; 32];
    secret[..4].copy_from_slice(&node.to_be_bytes());
    PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&secret).unwrap())
}

pub fn id(node: u32) -> NodeId {
    NodeId::from_pubkey(&key(node))
}

pub struct World {
    pub graph: Arc<Graph>,
    pub scorer: Arc<RwLock<Scorer>>,
    pub ours: FastRouter<Silent, Fixed, Scorer>,
    pub ldk: DefaultRouter<
        Arc<Graph>,
        Silent,
        Fixed,
        Arc<RwLock<Scorer>>,
        ProbabilisticScoringFeeParameters,
        Scorer,
    >,
    updates: u32,
}

impl World {
    pub fn new() -> Self {
        let graph = Arc::new(Graph::new(Network::Regtest, Silent));
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = ProbabilisticScorer::new(decay, Arc::clone(&graph), Silent);
        let scorer = Arc::new(RwLock::new(JournalingScorer::new(scorer)));
        let fees = ProbabilisticScoringFeeParameters::default;
        let ldk =
            DefaultRouter::new(Arc::clone(&graph), Silent, Fixed, Arc::clone(&scorer), fees());
        let ours = FastRouter::new(Arc::clone(&graph), Silent, Fixed, Arc::clone(&scorer), fees());
        Self { graph, scorer, ours, ldk, updates: 0 }
    }

    /// Announces a channel; `terms` are for `ends[0]` to `ends[1]`, then back.
    pub fn channel(&mut self, scid: u64, ends: [u32; 2], sats: Option<u64>, terms: [Terms; 2]) {
        let ids = ends.map(id);
        let swapped = ids[0] > ids[1];
        let [one, two] = if swapped { [ids[1], ids[0]] } else { ids };
        let features = ChannelFeatures::empty();
        self.graph
            .add_channel_from_partial_announcement(scid, sats, self.now(), features, one, two)
            .unwrap();
        self.update(scid, ends, terms[0]);
        self.update(scid, [ends[1], ends[0]], terms[1]);
    }

    /// A channel with the same terms in both directions.
    pub fn simple(&mut self, scid: u64, ends: [u32; 2], terms: Terms) {
        self.channel(scid, ends, Some(1_000_000), [terms; 2]);
    }

    /// Announces new terms for a direction, and tells the router that something changed.
    pub fn update(&mut self, scid: u64, ends: [u32; 2], terms: Terms) {
        self.updates += 1;
        let side = u8::from(id(ends[0]) > id(ends[1]));
        self.graph
            .update_channel_unsigned(&UnsignedChannelUpdate {
                chain_hash: ChainHash::using_genesis_block(Network::Regtest),
                short_channel_id: scid,
                timestamp: u32::try_from(self.now()).unwrap() + self.updates,
                message_flags: 1,
                channel_flags: side | if terms.enabled { 0 } else { 2 },
                cltv_expiry_delta: terms.cltv,
                htlc_minimum_msat: terms.minimum_msat,
                htlc_maximum_msat: terms.maximum_msat,
                fee_base_msat: terms.base_msat,
                fee_proportional_millionths: terms.ppm,
                excess_data: vec![],
            })
            .unwrap();
        self.ours.changes().fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    #[expect(clippy::disallowed_methods, reason = "LDK refuses updates that look old to it")]
    fn now(&self) -> u64 {
        // An hour ago: later updates have room.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - 3_600
    }

    pub fn ours(&self, query: &Query) -> Result<Route, &'static str> {
        let own: Vec<&ChannelDetails> = query.own.iter().flatten().collect();
        let own = query.own.is_some().then_some(own.as_slice());
        self.ours.find_route(&key(query.payer), &query.request, own, query.in_flight.clone())
    }

    pub fn ldk(&self, query: &Query) -> Result<Route, &'static str> {
        let own: Vec<&ChannelDetails> = query.own.iter().flatten().collect();
        let own = query.own.is_some().then_some(own.as_slice());
        self.ldk.find_route(&key(query.payer), &query.request, own, query.in_flight.clone())
    }

    /// Both find a route of the same cost, or none. Returns ours.
    #[track_caller]
    pub fn same(&self, query: &Query) -> Result<Route, &'static str> {
        self.ours.refresh();
        let (ours, theirs) = (self.ours(query), self.ldk(query));
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => {
                self.check(query, ours);
                assert_eq!(self.cost(query, ours), self.cost(query, theirs), "{ours}\n{theirs}");
            }
            (Err(_), Err(_)) => {}
            _ => panic!("ours {ours:?}, theirs {theirs:?}"),
        }
        ours
    }

    /// Fees, and the scorer's penalties of all public channels, msat.
    pub fn cost(&self, query: &Query, route: &Route) -> u64 {
        let scorer = self.scorer.read().unwrap();
        let parameters = ProbabilisticScoringFeeParameters::default();
        let graph = self.graph.read_only();
        let mut used: HashMap<(u64, NodeId), u64> = HashMap::new();
        let mut cost = route.get_total_fees();
        for path in &route.paths {
            let mut amount_msat = path.blinded_tail.as_ref().map_or(0, |t| t.final_value_msat);
            for (place, hop) in path.hops.iter().enumerate().rev() {
                amount_msat += hop.fee_msat;
                if place == 0 && query.own.is_some() {
                    continue;
                }
                let source = match place {
                    0 => id(query.payer),
                    _ => NodeId::from_pubkey(&path.hops[place - 1].pubkey),
                };
                let scid = hop.short_channel_id;
                let target = NodeId::from_pubkey(&hop.pubkey);
                let channel = graph.channel(scid).and_then(|c| c.as_directed_to(&target));
                let Some((info, _)) = channel else { continue };
                let used = used.entry((scid, source)).or_insert(0);
                let in_flight = query.in_flight.used_liquidity_msat(&source, &target, scid);
                let usage = ChannelUsage {
                    amount_msat,
                    inflight_htlc_msat: *used + in_flight.unwrap_or(0),
                    effective_capacity: info.effective_capacity(),
                };
                let hop = PublicHopCandidate { info, short_channel_id: scid };
                let candidate = CandidateRouteHop::PublicHop(hop);
                cost += scorer.channel_penalty_msat(&candidate, usage, &parameters);
                *used += amount_msat;
            }
        }
        cost
    }

    /// Asserts that a route keeps every limit of the request, the network and our channels.
    #[track_caller]
    pub fn check(&self, query: &Query, route: &Route) {
        let request = &query.request;
        let parameters = &request.payment_params;
        assert!(route.get_total_amount() >= request.final_value_msat);
        assert!(route.get_total_fees() <= request.max_total_routing_fee_msat.unwrap_or(u64::MAX));
        assert!(route.paths.len() <= parameters.max_path_count.into());
        assert_eq!(route.route_params.as_ref(), Some(request));
        let graph = self.graph.read_only();
        let mut sent: HashMap<(u64, NodeId), (u64, u64)> = HashMap::new();
        for path in &route.paths {
            assert!(path.hops.len() <= parameters.max_path_length.into());
            assert!(path.total_cltv_expiry_delta() <= parameters.max_total_cltv_expiry_delta);
            let mut amount_msat = path.blinded_tail.as_ref().map_or(0, |t| t.final_value_msat);
            let (mut owed_msat, mut delta) = (0, 0);
            for (place, hop) in path.hops.iter().enumerate().rev() {
                assert!(!parameters.previously_failed_channels.contains(&hop.short_channel_id));
                if place + 1 < path.hops.len() {
                    assert!(hop.fee_msat >= owed_msat, "hop {place} is paid too little");
                    assert_eq!(hop.cltv_expiry_delta, delta, "hop {place}");
                }
                amount_msat += hop.fee_msat;
                let target = NodeId::from_pubkey(&hop.pubkey);
                let own = query.own.iter().flatten().find(|own| {
                    place == 0 && own.get_outbound_payment_scid() == Some(hop.short_channel_id)
                });
                let source = match place {
                    0 => id(query.payer),
                    _ => NodeId::from_pubkey(&path.hops[place - 1].pubkey),
                };
                let sent = sent.entry((hop.short_channel_id, source)).or_default();
                sent.0 += amount_msat;
                if let Some(own) = own {
                    assert!(amount_msat >= own.next_outbound_htlc_minimum_msat);
                    sent.1 = own.next_outbound_htlc_limit_msat;
                } else if let Some(hint) = query.hint(hop.short_channel_id) {
                    assert!(amount_msat >= hint.htlc_minimum_msat.unwrap_or(0));
                    sent.1 = hint.htlc_maximum_msat.unwrap_or(u64::MAX);
                    owed_msat = fee(hint.fees, amount_msat);
                    delta = hint.cltv_expiry_delta.into();
                } else {
                    assert!(place > 0 || query.own.is_none(), "the first hop is ours");
                    let channel = graph.channel(hop.short_channel_id).unwrap();
                    let (info, from) = channel.as_directed_to(&target).unwrap();
                    assert_eq!(*from, source, "the path holds together");
                    let side = u8::from(channel.node_two == source);
                    let update = channel.get_directional_info(side).unwrap();
                    assert!(update.enabled && amount_msat >= update.htlc_minimum_msat);
                    assert!(amount_msat <= update.htlc_maximum_msat);
                    sent.1 = info.effective_capacity().as_msat();
                    owed_msat = fee(update.fees, amount_msat);
                    delta = update.cltv_expiry_delta.into();
                }
            }
        }
        assert!(sent.values().all(|(sent, most)| sent <= most), "{sent:?}");
    }
}

fn fee(fees: RoutingFees, amount_msat: u64) -> u64 {
    amount_msat * u64::from(fees.proportional_millionths) / 1_000_000 + u64::from(fees.base_msat)
}

/// A request, and who asks.
#[derive(Clone)]
pub struct Query {
    pub payer: u32,
    pub request: RouteParameters,
    pub own: Option<Vec<ChannelDetails>>,
    pub in_flight: InFlightHtlcs,
}

impl Query {
    /// Over the public view of our channels, in one part.
    pub fn new(payer: u32, payee: u32, amount_msat: u64) -> Self {
        let mut payee = PaymentParameters::for_keysend(key(payee), 40, true);
        payee.max_path_count = 1;
        let request = RouteParameters {
            payment_params: payee,
            final_value_msat: amount_msat,
            max_total_routing_fee_msat: None,
        };
        Self { payer, request, own: None, in_flight: InFlightHtlcs::new() }
    }

    pub fn in_parts(mut self, parts: u8) -> Self {
        self.request.payment_params.max_path_count = parts;
        self
    }

    pub fn own(mut self, own: Vec<ChannelDetails>) -> Self {
        self.own = Some(own);
        self
    }

    pub fn hints(mut self, hints: Vec<RouteHint>) -> Self {
        if let Payee::Clear { route_hints, .. } = &mut self.request.payment_params.payee {
            *route_hints = hints;
        }
        self
    }

    fn hint(&self, scid: u64) -> Option<&RouteHintHop> {
        let Payee::Clear { route_hints, .. } = &self.request.payment_params.payee else {
            return None;
        };
        route_hints.iter().flat_map(|hint| &hint.0).find(|hop| hop.short_channel_id == scid)
    }
}

/// A private channel from `source`, as an invoice names it.
pub fn hint_hop(scid: u64, source: u32, terms: Terms) -> RouteHintHop {
    RouteHintHop {
        src_node_id: key(source),
        short_channel_id: scid,
        fees: RoutingFees { base_msat: terms.base_msat, proportional_millionths: terms.ppm },
        cltv_expiry_delta: terms.cltv,
        htlc_minimum_msat: Some(terms.minimum_msat),
        htlc_maximum_msat: Some(terms.maximum_msat),
    }
}

/// A channel of ours.
pub fn own(scid: u64, peer: u32, minimum_msat: u64, limit_msat: u64) -> ChannelDetails {
    let mut features = InitFeatures::empty();
    features.set_basic_mpp_optional();
    ChannelDetails {
        channel_id: ChannelId([u8::try_from(scid % 251).unwrap(); 32]),
        counterparty: ChannelCounterparty {
            node_id: key(peer),
            features,
            unspendable_punishment_reserve: 0,
            forwarding_info: None,
            outbound_htlc_minimum_msat: None,
            outbound_htlc_maximum_msat: None,
        },
        funding_txo: None,
        funding_redeem_script: None,
        channel_type: None,
        short_channel_id: Some(scid),
        outbound_scid_alias: None,
        inbound_scid_alias: None,
        channel_value_satoshis: limit_msat / 1_000,
        unspendable_punishment_reserve: None,
        user_channel_id: 0,
        feerate_sat_per_1000_weight: None,
        outbound_capacity_msat: limit_msat,
        next_outbound_htlc_limit_msat: limit_msat,
        next_outbound_htlc_minimum_msat: minimum_msat,
        next_splice_out_maximum_sat: 0,
        inbound_capacity_msat: 0,
        confirmations_required: None,
        confirmations: None,
        force_close_spend_delay: None,
        is_outbound: true,
        is_channel_ready: true,
        channel_shutdown_state: None,
        is_usable: true,
        is_announced: true,
        inbound_htlc_minimum_msat: None,
        inbound_htlc_maximum_msat: None,
        config: None,
        pending_inbound_htlcs: vec![],
        pending_outbound_htlcs: vec![],
        current_dust_exposure_msat: None,
        splice_details: None,
    }
}
