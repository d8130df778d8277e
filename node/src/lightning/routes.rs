//! Looking for a route without paying: what a payment would cost now.

use lightning::routing::router::{PaymentParameters, RouteParameters, Router as _};

use super::pathfinding::RouteAnswers;
use super::payments::parse_invoice;
use super::room::Lightning;
use super::types::NodeId;

/// What a recipient needs in blocks when nothing else is known: BOLT 11's default.
const FINAL_CLTV_EXPIRY_DELTA: u32 = 18;

/// To whom a route is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// The payee of a BOLT 11 invoice, over its private hops if need be.
    Invoice(String),
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
        let mut payee = match &query.target {
            RouteTarget::Invoice(text) => {
                PaymentParameters::from_bolt11_invoice(&parse_invoice(text).ok()?)
            }
            RouteTarget::Node(node_id) => PaymentParameters::for_keysend(
                *node_id,
                FINAL_CLTV_EXPIRY_DELTA,
                query.max_parts > 1,
            ),
        };
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
        let parts: Vec<PartRoute> = route
            .paths
            .iter()
            .map(|path| {
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
            })
            .collect();
        let blocks = |path: &lightning::routing::router::Path| {
            path.hops.iter().map(|hop| hop.cltv_expiry_delta).sum::<u32>()
        };
        Some(RouteEstimate {
            amount_msat: query.amount_msat,
            fee_msat: route.get_total_fees(),
            total_cltv_expiry_delta: route.paths.iter().map(blocks).max().unwrap_or(0),
            parts,
        })
    }
}
