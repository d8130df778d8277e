//! From paths to LDK's `Route`: checks each hop against the live graph and fills in what a
//! search does not need.
//!
//! A snapshot is as old as its last refresh. Here each public hop is looked up once more: a
//! channel that was closed, disabled or changed since then is never used.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;
use lightning::routing::gossip::{ChannelInfo, NetworkGraph, NodeId, ReadOnlyNetworkGraph};
use lightning::routing::router::{BlindedTail, Path, Payee, Route, RouteHop};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::util::logger::Logger;

use super::hop::{HopId, HopKind};
use super::paths::{PaidStep, PaymentPath};
use super::request::{Limits, Question, Terminals, blinded_paths};
use super::snapshot::{Edge, Snapshot};

/// The network is no longer what the snapshot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stale;

/// What a route is made from, beside its paths.
pub(super) struct Ingredients<'a> {
    pub question: Question<'a>,
    pub snapshot: &'a Snapshot,
    pub terminals: &'a Terminals,
    pub limits: Limits,
}

/// Makes the route. `seed` chooses the offset that hides how far the payee is.
pub(super) fn route<L: Logger>(
    from: &Ingredients<'_>,
    paths: &[PaymentPath],
    graph: &NetworkGraph<L>,
    seed: &[u8; 32],
) -> Result<Route, Stale> {
    let payment = from.question.payment;
    // Our own channels, and private hops to nodes that are not public, need nothing of the graph.
    let is_known = |paid: &PaidStep| match paid.step.hop.kind {
        HopKind::Public(_) => false,
        HopKind::Private(_) => !from.terminals.is_public(paid.step.hop.target),
        HopKind::First(_) | HopKind::Blinded(_) | HopKind::OneHopBlinded(_) => true,
    };
    let needs_graph = !paths.iter().flat_map(|path| &path.steps).all(is_known);
    let mut made = Vec::with_capacity(paths.len());
    {
        let graph = needs_graph.then(|| graph.read_only());
        for path in paths {
            made.push(one_path(from, path, graph.as_ref())?);
        }
    }
    let features = payee_features(&payment.payment_params.payee);
    for (path, salt) in made.iter_mut().zip(0_u64..) {
        if let (Some(features), Some(last)) = (&features, path.hops.last_mut()) {
            last.node_features = features.clone();
        }
        add_shadow(path, from, seed, salt);
    }
    Ok(Route { paths: made, route_params: Some(payment.clone()) })
}

fn one_path(
    from: &Ingredients<'_>,
    path: &PaymentPath,
    graph: Option<&ReadOnlyNetworkGraph<'_>>,
) -> Result<Path, Stale> {
    let mut hops = Vec::with_capacity(path.steps.len());
    let mut blinded_tail = None;
    for paid in &path.steps {
        match paid.step.hop.kind {
            HopKind::Blinded(place) | HopKind::OneHopBlinded(place) => {
                let paths = blinded_paths(from.question.payment);
                let blinded = paths.get(place as usize).ok_or(Stale)?;
                blinded_tail = Some(BlindedTail {
                    trampoline_hops: vec![],
                    hops: blinded.blinded_hops().to_vec(),
                    blinding_point: blinded.blinding_point(),
                    excess_final_cltv_expiry_delta: 0,
                    final_value_msat: paid.fee_msat,
                });
            }
            _ => hops.push(one_hop(from, paid, graph)?),
        }
    }
    // Each hop carries the delta that the node it reaches wants; the last, the payee's.
    let mut delta = from.limits.final_cltv_expiry_delta;
    if blinded_tail.is_some() {
        delta = path.steps.last().map_or(0, |paid| paid.step.hop.cltv_expiry_delta);
    }
    for hop in hops.iter_mut().rev() {
        std::mem::swap(&mut hop.cltv_expiry_delta, &mut delta);
    }
    Ok(Path { hops, blinded_tail })
}

fn one_hop(
    from: &Ingredients<'_>,
    paid: &PaidStep,
    graph: Option<&ReadOnlyNetworkGraph<'_>>,
) -> Result<RouteHop, Stale> {
    let hop = &paid.step.hop;
    let (source, target) = (
        from.terminals.node(from.snapshot, hop.source),
        from.terminals.node(from.snapshot, hop.target),
    );
    let HopId::Channel(short_channel_id, _) = hop.id else { return Err(Stale) };
    if let HopKind::First(place) = hop.kind {
        let own = from.question.first_hops.and_then(|own| own.get(place as usize)).ok_or(Stale)?;
        return Ok(own_hop(own, short_channel_id, paid.fee_msat));
    }
    let mut made = RouteHop {
        pubkey: PublicKey::from_slice(target.as_slice()).map_err(|_| Stale)?,
        node_features: node_features(graph, target),
        short_channel_id,
        channel_features: ChannelFeatures::empty(),
        fee_msat: paid.fee_msat,
        cltv_expiry_delta: hop.cltv_expiry_delta,
        maybe_announced_channel: true,
    };
    if let HopKind::Public(edge) = hop.kind {
        let channel = graph.and_then(|graph| graph.channel(short_channel_id)).ok_or(Stale)?;
        if !is_current(from.snapshot.edge(edge), channel, target) {
            return Err(Stale);
        }
        made.channel_features = channel.features.clone();
    } else {
        made.maybe_announced_channel =
            graph.is_some_and(|graph| has_public_channel(graph, source, target));
    }
    Ok(made)
}

/// Takes what we know of our own channel and its peer.
fn own_hop(own: &ChannelDetails, short_channel_id: u64, fee_msat: u64) -> RouteHop {
    RouteHop {
        pubkey: own.counterparty.node_id,
        node_features: own.counterparty.features.to_context(),
        short_channel_id,
        channel_features: own.counterparty.features.to_context(),
        fee_msat,
        cltv_expiry_delta: 0,
        maybe_announced_channel: own.is_announced,
    }
}

/// Whether the live network still says of the channel what the snapshot does.
fn is_current(edge: &Edge, channel: &ChannelInfo, target: &NodeId) -> bool {
    let Some((info, _)) = channel.as_directed_to(target) else { return false };
    let update = if channel.node_two == *target {
        channel.one_to_two.as_ref()
    } else {
        channel.two_to_one.as_ref()
    };
    update.is_some_and(|update| {
        update.enabled
            && update.fees.base_msat == edge.fee.base_msat
            && update.fees.proportional_millionths == edge.fee.ppm
            && update.cltv_expiry_delta == edge.cltv_expiry_delta
            && update.htlc_minimum_msat == edge.htlc_minimum_msat
            && info.effective_capacity() == edge.capacity()
    })
}

fn node_features(graph: Option<&ReadOnlyNetworkGraph<'_>>, node: &NodeId) -> NodeFeatures {
    let node = graph.and_then(|graph| graph.node(node));
    let announced = node.and_then(|node| node.announcement_info.as_ref());
    announced.map_or_else(
        || {
            let mut features = NodeFeatures::empty();
            features.set_variable_length_onion_optional();
            features
        },
        |info| info.features().clone(),
    )
}

/// An invoice's channel may be a public one under another name.
fn has_public_channel(graph: &ReadOnlyNetworkGraph<'_>, source: &NodeId, target: &NodeId) -> bool {
    graph.node(target).is_some_and(|node| {
        node.channels.iter().any(|id| {
            graph.channel(*id).is_some_and(|channel| channel.as_directed_from(source).is_some())
        })
    })
}

/// The payee's features by its own words, if it gave any.
fn payee_features(payee: &Payee) -> Option<NodeFeatures> {
    match payee {
        Payee::Clear { features, .. } => features.as_ref().map(|f| f.to_context()),
        Payee::Blinded { features, .. } => features.as_ref().map(|f| f.to_context()),
    }
}

/// Offsets the last expiry as if the route went on for one to three hops, so that a node on the
/// way cannot tell from the rest of the time who is paid.
///
/// Source: BOLT 7, "Recommendations for Routing", shadow routes; the limits are LDK's.
fn add_shadow(path: &mut Path, from: &Ingredients<'_>, seed: &[u8; 32], salt: u64) {
    const USUAL_DELTA: u32 = 40;
    const OFFSET_MAX: u32 = 3 * 144;
    let snapshot = from.snapshot;
    let mut engine = sha256::Hash::engine();
    engine.input(seed);
    engine.input(&salt.to_be_bytes());
    let random = sha256::Hash::from_engine(engine).to_byte_array();
    let mut words = random.chunks_exact(8);
    let mut next = |below: usize| {
        let bytes = words.next().unwrap_or(&[]);
        let number = bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        number.checked_rem(below).unwrap_or(0)
    };

    let place = |hop: &RouteHop| snapshot.place(&NodeId::from_pubkey(&hop.pubkey));
    let mut avoid: Vec<u32> = path.hops.iter().rev().take(3).filter_map(place).collect();
    let mut here = path.hops.iter().rev().find_map(place);
    let mut offset = 0;
    for _ in 0..=next(3) {
        let mut delta = USUAL_DELTA;
        if let Some(node) = here {
            let edges = snapshot.incoming(node);
            let choice = next(edges.len());
            if let Some(edge) = edges.clone().nth(choice).map(|edge| snapshot.edge(edge))
                && !avoid.contains(&edge.source)
            {
                avoid.push(edge.source);
                here = Some(edge.source);
                delta = u32::from(edge.cltv_expiry_delta);
            }
        }
        offset += delta;
    }
    let limit = from.question.payment.payment_params.max_total_cltv_expiry_delta;
    let free = limit.saturating_sub(path.total_cltv_expiry_delta());
    let free = (free - free % USUAL_DELTA).max(free % USUAL_DELTA);
    let offset = offset.min(OFFSET_MAX).min(free);
    if let Some(tail) = &mut path.blinded_tail {
        tail.excess_final_cltv_expiry_delta += offset;
    }
    if let Some(last) = path.hops.last_mut() {
        last.cltv_expiry_delta += offset;
    }
}
