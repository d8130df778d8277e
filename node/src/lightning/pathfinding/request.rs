//! One search as asked for: between whom, over which own channels and hints, within what limits.
//!
//! Nodes outside the public network (wallets behind us, private nodes of an invoice) get places
//! after those of the snapshot, for this request only.

use lightning::blinded_path::IntroductionNode;
use lightning::blinded_path::payment::BlindedPaymentPath;
use lightning::ln::channel_state::ChannelDetails;
use lightning::routing::gossip::{EffectiveCapacity, NetworkGraph, NodeId};
use lightning::routing::router::{MAX_PATH_LENGTH_ESTIMATE, Payee, RouteHint, RouteParameters};
use lightning::util::logger::Logger;

use super::hop::{Fee, Hop, HopId, HopKind, NOBODY};
use super::snapshot::Snapshot;

/// Blocks that LDK sets aside for the random offset at the end of a route.
const SHADOW_RESERVE: u32 = 2 * 40;
/// All bitcoin there will be, msat.
const VALUE_MAX_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;
/// How much more than the amount is collected before the cheapest paths are chosen.
const PROVISION: u64 = 3;

/// Whom a payment goes from and to, and over what.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// Who pays.
    pub payer: NodeId,
    /// What, to whom, within what limits.
    pub payment: &'a RouteParameters,
    /// Our channels; `None` takes the public network's view of them.
    pub first_hops: Option<&'a [&'a ChannelDetails]>,
}

impl Question<'_> {
    /// Whether an earlier attempt of this payment failed there.
    pub fn has_failed_before(&self, id: HopId) -> bool {
        let parameters = &self.payment.payment_params;
        match id {
            HopId::Channel(id, _) => parameters.previously_failed_channels.contains(&id),
            HopId::Blinded(place) => {
                parameters.previously_failed_blinded_path_idxs.contains(&u64::from(place))
            }
        }
    }
}

/// The limits a path has to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// What is to arrive, msat.
    pub value_msat: u64,
    /// Least that one path may bring, msat.
    pub contribution_min_msat: u64,
    /// When to stop collecting paths, msat.
    pub recommended_msat: u64,
    /// Most fees in total, msat.
    pub fee_max_msat: u64,
    /// Most blocks before the final hop's own.
    pub cltv_max: u32,
    /// What the payee asks for.
    pub final_cltv_expiry_delta: u32,
    /// Most hops.
    pub length_max: u8,
    /// A path uses up to 1/2^this of a public channel, if that is possible.
    pub saturation_shift: u8,
    /// Whether the payment may be split.
    pub in_parts: bool,
}

/// A request this room leaves to LDK, which knows why it cannot be done, or does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// The ends of a request. Its memory is used again by the next one.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    public_nodes: u32,
    extra_nodes: Vec<NodeId>,
    /// Who pays.
    pub payer: u32,
    /// Who is paid; [`NOBODY`] behind blinded paths.
    pub payee: u32,
    /// Our channels, those to one peer together, in LDK's order of preference.
    pub own: Vec<Hop>,
    /// Hops of the invoice's hints.
    pub hints: Vec<Hop>,
    /// Blinded paths to the payee.
    pub blinded: Vec<Hop>,
    /// Whether a hint has hops of which one is not next to the payee.
    pub has_long_hints: bool,
}

impl Terminals {
    /// Reads a request. The graph is locked only for a blinded path that begins at a channel
    /// rather than at a node.
    pub fn read<L: Logger>(
        &mut self,
        question: Question<'_>,
        snapshot: &Snapshot,
        graph: &NetworkGraph<L>,
    ) -> Result<Limits, Odd> {
        self.public_nodes = u32::try_from(snapshot.node_count()).map_err(|_| Odd)?;
        self.extra_nodes.clear();
        self.own.clear();
        self.hints.clear();
        self.blinded.clear();
        self.has_long_hints = false;
        self.payer = self.place_or_add(snapshot, &question.payer);
        self.payee = NOBODY;
        match &question.payment.payment_params.payee {
            Payee::Clear { node_id, route_hints, .. } => {
                let payee = NodeId::from_pubkey(node_id);
                self.payee = self.place_or_add(snapshot, &payee);
                for hop in route_hints.iter().flat_map(|hint| &hint.0) {
                    if hop.src_node_id == *node_id {
                        return Err(Odd);
                    }
                    self.place_or_add(snapshot, &NodeId::from_pubkey(&hop.src_node_id));
                }
                self.read_hints(question, route_hints, &payee, snapshot);
            }
            Payee::Blinded { route_hints, .. } => {
                self.read_blinded(question, route_hints, snapshot, graph)?;
            }
        }
        let limits = self.limits(question, snapshot)?;
        self.read_own(question, snapshot, limits.recommended_msat)?;
        Ok(limits)
    }

    /// How many places there are.
    pub fn node_count(&self) -> usize {
        self.public_nodes as usize + self.extra_nodes.len()
    }

    /// Whether `node` is part of the public network.
    pub fn is_public(&self, node: u32) -> bool {
        node < self.public_nodes
    }

    /// The node at `place`; the payer for a place that is none.
    pub fn node<'a>(&'a self, snapshot: &'a Snapshot, place: u32) -> &'a NodeId {
        if self.is_public(place) {
            return snapshot.node(place);
        }
        let extra = place.wrapping_sub(self.public_nodes) as usize;
        self.extra_nodes.get(extra).unwrap_or_else(|| self.node(snapshot, self.payer))
    }

    /// Our channels to `peer`.
    pub fn own_to(&self, peer: u32) -> &[Hop] {
        let from = self.own.partition_point(|hop| hop.target < peer);
        let length = self.own[from..].iter().take_while(|hop| hop.target == peer).count();
        &self.own[from..from + length]
    }

    fn place(&self, snapshot: &Snapshot, id: &NodeId) -> Option<u32> {
        snapshot.place(id).or_else(|| {
            let extra = self.extra_nodes.iter().position(|extra| extra == id)?;
            Some(self.public_nodes + u32::try_from(extra).ok()?)
        })
    }

    fn place_or_add(&mut self, snapshot: &Snapshot, id: &NodeId) -> u32 {
        self.place(snapshot, id).unwrap_or_else(|| {
            self.extra_nodes.push(*id);
            self.public_nodes + u32::try_from(self.extra_nodes.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn limits(&self, question: Question<'_>, snapshot: &Snapshot) -> Result<Limits, Odd> {
        let payment = question.payment;
        let parameters = &payment.payment_params;
        let value_msat = payment.final_value_msat;
        let final_cltv_expiry_delta = match &parameters.payee {
            Payee::Clear { final_cltv_expiry_delta, .. } => *final_cltv_expiry_delta,
            Payee::Blinded { .. } => 0,
        };
        if value_msat == 0
            || value_msat > VALUE_MAX_MSAT
            || parameters.max_path_count == 0
            || parameters.max_total_cltv_expiry_delta <= final_cltv_expiry_delta
            || self.payee == self.payer
        {
            return Err(Odd);
        }
        let announced = self.is_public(self.payee) && snapshot.takes_parts(self.payee);
        let in_parts =
            parameters.max_path_count > 1 && (asks_for_parts(&parameters.payee) || announced);
        let parts_max = if in_parts { u64::from(parameters.max_path_count) } else { 1 };
        let cltv = parameters.max_total_cltv_expiry_delta - final_cltv_expiry_delta;
        let cltv_max = cltv.checked_sub(SHADOW_RESERVE).unwrap_or(cltv).min(u32::from(u16::MAX));
        Ok(Limits {
            value_msat,
            contribution_min_msat: value_msat.div_ceil(parts_max),
            recommended_msat: value_msat * PROVISION,
            fee_max_msat: payment.max_total_routing_fee_msat.unwrap_or(u64::MAX),
            cltv_max,
            final_cltv_expiry_delta,
            length_max: parameters.max_path_length.min(MAX_PATH_LENGTH_ESTIMATE),
            saturation_shift: parameters.max_channel_saturation_power_of_half,
            in_parts,
        })
    }

    /// Our channels to nodes that a search can come to: public ones, and ends of this request.
    fn read_own(
        &mut self,
        question: Question<'_>,
        snapshot: &Snapshot,
        recommended_msat: u64,
    ) -> Result<(), Odd> {
        let Some(first_hops) = question.first_hops else {
            return Ok(());
        };
        if first_hops.is_empty() {
            return Err(Odd);
        }
        for (place, details) in (0..).zip(first_hops) {
            let peer = NodeId::from_pubkey(&details.counterparty.node_id);
            if peer == question.payer {
                return Err(Odd);
            }
            let short_channel_id = details.get_outbound_payment_scid().ok_or(Odd)?;
            if let Some(target) = self.place(snapshot, &peer) {
                let id = HopId::Channel(short_channel_id, question.payer < peer);
                self.own.push(first_hop(details, place, id, [self.payer, target]));
            }
        }
        sort_own(&mut self.own, recommended_msat);
        Ok(())
    }

    /// Hints of channels that the snapshot has are left out: the search sees those anyway, as the
    /// network announces them.
    fn read_hints(
        &mut self,
        question: Question<'_>,
        hints: &[RouteHint],
        payee: &NodeId,
        snapshot: &Snapshot,
    ) {
        let mut place: u32 = 0;
        for hint in hints {
            self.has_long_hints |= hint.0.len() > 1;
            let mut target_id = *payee;
            for hop in hint.0.iter().rev() {
                place += 1;
                let scid = hop.short_channel_id;
                let is_own = |own: &&ChannelDetails| {
                    (own.outbound_scid_alias == Some(scid) || own.short_channel_id == Some(scid))
                        && NodeId::from_pubkey(&own.counterparty.node_id) == target_id
                };
                if question.first_hops.is_some_and(|own| own.iter().any(is_own)) {
                    break;
                }
                let source_id = NodeId::from_pubkey(&hop.src_node_id);
                let source = self.place_or_add(snapshot, &source_id);
                let target = self.place_or_add(snapshot, &target_id);
                let edges = snapshot.edges_of_channel(scid);
                if !edges.iter().any(|edge| snapshot.target_of(*edge) == target) {
                    let capacity =
                        hop.htlc_maximum_msat.map_or(EffectiveCapacity::Infinite, |amount_msat| {
                            EffectiveCapacity::HintMaxHTLC { amount_msat }
                        });
                    self.hints.push(Hop {
                        kind: HopKind::Private(place - 1),
                        id: HopId::Channel(scid, source_id < target_id),
                        source,
                        target,
                        fee: Fee {
                            base_msat: hop.fees.base_msat,
                            ppm: hop.fees.proportional_millionths,
                        },
                        cltv_expiry_delta: u32::from(hop.cltv_expiry_delta),
                        htlc_minimum_msat: hop.htlc_minimum_msat.unwrap_or(0),
                        capacity,
                    });
                }
                target_id = source_id;
            }
        }
    }

    fn read_blinded<L: Logger>(
        &mut self,
        question: Question<'_>,
        paths: &[BlindedPaymentPath],
        snapshot: &Snapshot,
        graph: &NetworkGraph<L>,
    ) -> Result<(), Odd> {
        let mut one_hop_introduction = None;
        for (place, path) in (0..).zip(paths) {
            let Some(introduction) = introduction(question, path, graph) else { continue };
            let hops = path.blinded_hops().len();
            if hops == 0 {
                return Err(Odd);
            }
            if hops == 1 && *one_hop_introduction.get_or_insert(introduction) != introduction {
                return Err(Odd);
            }
            if introduction == question.payer {
                continue;
            }
            let source = self.place_or_add(snapshot, &introduction);
            let mut hop = Hop {
                kind: HopKind::OneHopBlinded(place),
                id: HopId::Blinded(place),
                source,
                target: NOBODY,
                fee: Fee::NONE,
                cltv_expiry_delta: 0,
                htlc_minimum_msat: 0,
                capacity: EffectiveCapacity::Infinite,
            };
            if hops > 1 {
                let terms = &path.payinfo;
                hop.kind = HopKind::Blinded(place);
                hop.fee =
                    Fee { base_msat: terms.fee_base_msat, ppm: terms.fee_proportional_millionths };
                hop.cltv_expiry_delta = u32::from(terms.cltv_expiry_delta);
                hop.htlc_minimum_msat = terms.htlc_minimum_msat;
                hop.capacity =
                    EffectiveCapacity::HintMaxHTLC { amount_msat: terms.htlc_maximum_msat };
            }
            self.blinded.push(hop);
        }
        if self.blinded.is_empty() { Err(Odd) } else { Ok(()) }
    }
}

/// The blinded paths a payment may end with.
pub(super) fn blinded_paths(payment: &RouteParameters) -> &[BlindedPaymentPath] {
    match &payment.payment_params.payee {
        Payee::Blinded { route_hints, .. } => route_hints,
        Payee::Clear { .. } => &[],
    }
}

/// Whether the payee's own words say that it takes payments in parts.
pub(super) fn asks_for_parts(payee: &Payee) -> bool {
    match payee {
        Payee::Clear { features, .. } => {
            features.as_ref().is_some_and(|features| features.supports_basic_mpp())
        }
        Payee::Blinded { features, .. } => {
            features.as_ref().is_some_and(|features| features.supports_basic_mpp())
        }
    }
}

/// One of our channels as a hop; `ends` are our place and the peer's.
pub(super) fn first_hop(details: &ChannelDetails, place: u32, id: HopId, ends: [u32; 2]) -> Hop {
    Hop {
        kind: HopKind::First(place),
        id,
        source: ends[0],
        target: ends[1],
        fee: Fee::NONE,
        cltv_expiry_delta: 0,
        htlc_minimum_msat: details.next_outbound_htlc_minimum_msat,
        capacity: EffectiveCapacity::ExactLiquidity {
            liquidity_msat: details.next_outbound_htlc_limit_msat,
        },
    }
}

/// Sorts by peer, then by preference: the smallest channel that carries `recommended_msat`, and
/// below that the largest first, so as to need few parts.
pub(super) fn sort_own(own: &mut [Hop], recommended_msat: u64) {
    own.sort_by_key(|hop| {
        let limit = hop.htlc_maximum_msat(0);
        let rank = if limit < recommended_msat { u64::MAX - limit } else { limit };
        (hop.target, limit < recommended_msat, rank)
    });
}

/// Where a blinded path begins, if that is known.
fn introduction<L: Logger>(
    question: Question<'_>,
    path: &BlindedPaymentPath,
    graph: &NetworkGraph<L>,
) -> Option<NodeId> {
    match path.introduction_node() {
        IntroductionNode::NodeId(id) => Some(NodeId::from_pubkey(id)),
        IntroductionNode::DirectedShortChannelId(direction, scid) => {
            let public = path.public_introduction_node_id(&graph.read_only()).copied();
            public.or_else(|| {
                let own = question.first_hops?;
                let over = own.iter().find(|c| c.get_outbound_payment_scid() == Some(*scid))?;
                let peer = NodeId::from_pubkey(&over.counterparty.node_id);
                Some(direction.select_node_id(question.payer, peer))
            })
        }
    }
}
