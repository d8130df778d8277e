//! Looking for a route without paying: what a payment would cost now.

use lightning::blinded_path::IntroductionNode;
use lightning::routing::gossip::NodeId as GraphNode;
use lightning::routing::router::{Path, PaymentParameters, RouteParameters, Router as _};
use lightning::routing::scoring::ProbabilisticScoringFeeParameters;

use super::pathfinding::RouteAnswers;
use super::payments::{parse_invoice, parse_offer};
use super::room::Lightning;
use super::types::NodeId;

/// What a recipient needs in blocks when nothing else is known: BOLT 11's default.
const FINAL_CLTV_EXPIRY_DELTA: u32 = 18;

/// To whom a route is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// The payee of a BOLT 11 invoice, over its private hops if need be.
    Invoice(String),
    /// Where the way to the issuer of a BOLT 12 offer is still public: the issuer, or where a
    /// blinded path to it begins.
    Offer(String),
    /// A public node.
    Node(NodeId),
}

/// What route is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteQuery {
    /// To whom.
    pub target: RouteTarget,
    /// What is to arrive, msat.
    pub amount_msat: u64,
    /// Most it may cost, msat.
    pub max_fee_msat: u64,
    /// Most parts.
    pub max_parts: u8,
}

/// A route, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEstimate {
    /// What arrives, msat.
    pub amount_msat: u64,
    /// What it costs beyond that, msat.
    pub fee_msat: u64,
    /// Blocks until the first HTLC would time out.
    pub total_cltv_expiry_delta: u32,
    /// How likely all parts arrive at the first try, as the scorer sees it, millionths. Channels
    /// of ours, which have the money, count as certain.
    pub success_probability_millionths: u32,
    /// Hops that nobody can judge, and that are not counted in it: private and blinded ones.
    pub unjudged_hops: u32,
    /// Whether it ends before the recipient: the rest is hidden, and so is its fee.
    pub partial: bool,
    /// The parts.
    pub parts: Vec<PartRoute>,
}

/// The route of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRoute {
    /// What it brings, msat.
    pub amount_msat: u64,
    /// What it costs, msat.
    pub fee_msat: u64,
    /// Its hops, the payee last.
    pub hops: Vec<Hop>,
}

/// One hop of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The node reached.
    pub node_id: NodeId,
    /// Over which channel.
    pub short_channel_id: u64,
    /// What the node takes to forward further, msat; 0 for the payee.
    pub fee_msat: u64,
    /// Blocks this hop adds.
    pub cltv_expiry_delta: u32,
}

impl Lightning {
    /// How requests for routes were answered so far: those of payments and of
    /// [`Lightning::find_route`].
    pub fn route_answers(&self) -> RouteAnswers {
        self.parts.router.answers()
    }

    /// Looks for a route over what is known and free now. `None` if there is none within the
    /// limits.
    pub fn find_route(&self, query: &RouteQuery) -> Option<RouteEstimate> {
        let to_node = |node_id: NodeId| {
            PaymentParameters::for_keysend(node_id, FINAL_CLTV_EXPIRY_DELTA, query.max_parts > 1)
        };
        match &query.target {
            RouteTarget::Invoice(text) => {
                let payee = PaymentParameters::from_bolt11_invoice(&parse_invoice(text).ok()?);
                self.route_to(payee, query, false)
            }
            RouteTarget::Node(node_id) => self.route_to(to_node(*node_id), query, false),
            RouteTarget::Offer(text) => {
                let (nodes, partial) = self.ways_to_issuer(text)?;
                nodes.into_iter().find_map(|node| self.route_to(to_node(node), query, partial))
            }
        }
    }

    /// The last public nodes on the ways to an offer's issuer, and whether more follows them.
    fn ways_to_issuer(&self, offer: &str) -> Option<(Vec<NodeId>, bool)> {
        let offer = parse_offer(offer).ok()?;
        if offer.paths().is_empty() {
            return Some((offer.issuer_signing_pubkey().into_iter().collect(), false));
        }
        let graph = self.parts.graph.read_only();
        let begins = |path: &lightning::blinded_path::message::BlindedMessagePath| match path
            .introduction_node()
        {
            IntroductionNode::NodeId(node_id) => Some(*node_id),
            IntroductionNode::DirectedShortChannelId(..) => {
                path.public_introduction_node_id(&graph)?.as_pubkey().ok()
            }
        };
        Some((offer.paths().iter().filter_map(begins).collect(), true))
    }

    fn route_to(
        &self,
        mut payee: PaymentParameters,
        query: &RouteQuery,
        partial: bool,
    ) -> Option<RouteEstimate> {
        payee.max_path_count = query.max_parts.max(1);
        let parameters = RouteParameters {
            payment_params: payee,
            final_value_msat: query.amount_msat,
            max_total_routing_fee_msat: Some(query.max_fee_msat),
        };
        let first_hops = self.parts.manager.list_usable_channels();
        let first_hops: Vec<_> = first_hops.iter().collect();
        let in_flight = self.parts.manager.compute_inflight_htlcs();
        let route = self
            .parts
            .router
            .find_route(&self.node_id(), &parameters, Some(&first_hops), in_flight)
            .inspect_err(|why| tracing::debug!(why, "no route"))
            .ok()?;
        let blocks = |path: &Path| path.hops.iter().map(|hop| hop.cltv_expiry_delta).sum::<u32>();
        let (success_probability_millionths, unjudged_hops) = self.chances(&route.paths);
        Some(RouteEstimate {
            amount_msat: query.amount_msat,
            fee_msat: route.get_total_fees(),
            total_cltv_expiry_delta: route.paths.iter().map(blocks).max().unwrap_or(0),
            success_probability_millionths,
            unjudged_hops,
            partial,
            parts: route.paths.iter().map(part).collect(),
        })
    }

    /// How likely all `paths` carry their amounts, in millionths, and how many hops were left out.
    fn chances(&self, paths: &[Path]) -> (u32, u32) {
        let parameters = ProbabilisticScoringFeeParameters::default();
        let scorer = self.parts.scorer.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let scorer = scorer.scorer();
        let (mut chance, mut unjudged) = (1.0, 0_u32);
        for path in paths {
            // LDK counts the amount as the last hop's fee: what a hop carries is the sum from it on.
            let mut amount_msat = path.final_value_msat();
            if path.blinded_tail.is_some() {
                amount_msat =
                    amount_msat.saturating_add(path.hops.last().map_or(0, |h| h.fee_msat));
                unjudged += 1;
            }
            for (at, hop) in path.hops.iter().enumerate().rev() {
                if at == 0 {
                    break;
                }
                let target = GraphNode::from_pubkey(&hop.pubkey);
                let scid = hop.short_channel_id;
                let known = scorer
                    .historical_estimated_payment_success_probability(
                        scid,
                        &target,
                        amount_msat,
                        &parameters,
                        true,
                    )
                    .or_else(|| {
                        scorer.live_estimated_payment_success_probability(
                            scid,
                            &target,
                            amount_msat,
                            &parameters,
                        )
                    });
                match known {
                    Some(known) => chance *= known,
                    None => unjudged += 1,
                }
                amount_msat = amount_msat.saturating_add(path.hops[at - 1].fee_msat);
            }
        }
        ((chance.clamp(0.0, 1.0) * 1_000_000.0) as u32, unjudged)
    }
}

fn part(path: &Path) -> PartRoute {
    let last = path.hops.len().saturating_sub(1);
    let hop = |(at, hop): (usize, &lightning::routing::router::RouteHop)| Hop {
        node_id: hop.pubkey,
        short_channel_id: hop.short_channel_id,
        // LDK counts the amount itself as the last hop's fee.
        fee_msat: if at == last { 0 } else { hop.fee_msat },
        cltv_expiry_delta: hop.cltv_expiry_delta,
    };
    PartRoute {
        amount_msat: path.final_value_msat(),
        fee_msat: path.fee_msat(),
        hops: path.hops.iter().enumerate().map(hop).collect(),
    }
}
