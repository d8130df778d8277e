//! The router against Dijkstra's algorithm without any of its tricks.

use proptest::prelude::*;

use super::*;
use crate::random::Random;
use crate::topology::generate::scale_free;

/// Balances of the sender's own channels, drawn from a seed.
struct Drawn(u64);

impl Knowledge for Drawn {
    fn spendable_msat(&self, graph: &Graph, edge: EdgeId) -> u64 {
        Random::stream(self.0, u64::from(edge)).below(graph.edge(edge).capacity_msat + 1)
    }
}

/// The least cost, by the definition in the header of `mod.rs`.
fn least_cost(
    graph: &Graph,
    terms: &CostTerms,
    ask: &Ask,
    knowledge: &impl Knowledge,
    penalties: &[u32],
) -> Option<u64> {
    let amount = ask.amount_msat;
    let mut best = vec![u64::MAX; graph.nodes()];
    let mut done = vec![false; graph.nodes()];
    best[ask.from as usize] = 0;
    loop {
        let open = (0..graph.nodes()).filter(|node| !done[*node] && best[*node] < u64::MAX);
        let node = open.min_by_key(|node| best[*node])?;
        if node == ask.to as usize {
            return Some(best[node]);
        }
        done[node] = true;
        for edge in graph.outgoing(node as Node) {
            let penalty = penalties[edge as usize];
            let own = node == ask.from as usize;
            let spendable = !own || knowledge.spendable_msat(graph, edge) >= amount;
            if penalty == FORBIDDEN || !graph.edge(edge).takes(amount) || !spendable {
                continue;
            }
            let cost = if own { terms.own_hop() } else { terms.of(graph.edge(edge), amount) };
            let target = graph.edge(edge).target as usize;
            best[target] = best[target].min(best[node] + cost + u64::from(penalty));
        }
    }
}

/// The cost of a route; all its hops must be allowed.
fn cost_of(graph: &Graph, terms: &CostTerms, ask: &Ask, penalties: &[u32], route: &[Hop]) -> u64 {
    let mut node = ask.from;
    let mut cost = 0;
    for (place, hop) in route.iter().enumerate() {
        assert_eq!(graph.source(hop.edge), node);
        let edge = graph.edge(hop.edge);
        assert!(edge.takes(hop.amount_msat));
        assert_ne!(penalties[hop.edge as usize], FORBIDDEN);
        cost += if place == 0 { terms.own_hop() } else { terms.of(edge, ask.amount_msat) };
        cost += u64::from(penalties[hop.edge as usize]);
        let after = route.get(place + 1);
        let next = after.map_or(ask.amount_msat, |next| {
            next.amount_msat + graph.edge(next.edge).fee_msat(next.amount_msat)
        });
        assert_eq!(hop.amount_msat, next);
        node = edge.target;
    }
    assert_eq!(node, ask.to);
    cost
}

fn draw_penalties(graph: &Graph, random: &mut Random, count: u64) -> Vec<u32> {
    let mut penalties = vec![0; graph.edges().len()];
    for _ in 0..random.below(count + 1) {
        let edge = random.place(penalties.len());
        penalties[edge] = random.choose(&[FORBIDDEN, 1, 5_000, 1_000_000]);
    }
    penalties
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One router answers many payments, so that its kept searches are of every age.
    #[test]
    fn a_route_is_never_dearer_than_dijkstras(seed: u64, nodes in 2_u32..80, usual: bool) {
        let graph = Graph::new(&scale_free(nodes, 3, seed));
        let mut random = Random::new(seed);
        let terms = CostTerms::new(random.below(1_000), 15, random.choose(&[0, 30_000]));
        let usual_amounts: &[u64] = if usual { &[10_000_000] } else { &[] };
        // Room for a few searches only, so that some are forgotten.
        let mut router = Router::new(&graph, terms.clone(), usual_amounts, 10_000);
        let mut route = Vec::new();
        for _ in 0..40 {
            let amount_msat = match random.below(3) {
                0 => 10_000_000,
                1 => 1 << random.below(36),
                _ => 1 + random.below(100_000_000),
            };
            let from = random.below(nodes.into()) as Node;
            let to = random.below(nodes.into()) as Node;
            if from == to {
                continue;
            }
            let ask = Ask { from, to, amount_msat };
            let knowledge = Drawn(random.number());
            let mut penalties = draw_penalties(&graph, &mut random, 8);
            // Fees can make a hop too much; whatever the router had to forbid is forbidden here.
            for (edge, penalty) in (0..).zip(&penalties) {
                router.penalise(edge, *penalty);
            }
            let found = router.find(&graph, &ask, &knowledge, &mut route);
            let least = least_cost(&graph, &terms, &ask, &knowledge, &penalties);
            if found {
                let cost = cost_of(&graph, &terms, &ask, &penalties, &route);
                prop_assert!(cost >= least.unwrap());
                if cost > least.unwrap() {
                    // Only repairs explain that: forbid what the cheapest route breaks on.
                    prop_assert!(explained(&graph, &terms, &ask, &knowledge, &mut penalties, cost));
                }
            } else if least.is_some() {
                prop_assert!(
                    explained(&graph, &terms, &ask, &knowledge, &mut penalties, u64::MAX)
                );
            }
        }
    }
}

/// Whether a fresh router without kept searches says the same.
fn explained(
    graph: &Graph,
    terms: &CostTerms,
    ask: &Ask,
    knowledge: &Drawn,
    penalties: &mut [u32],
    cost: u64,
) -> bool {
    let mut route = Vec::new();
    for _ in 0..REPAIRS_MAX {
        let mut router = Router::new(graph, terms.clone(), &[ask.amount_msat], 1);
        for (edge, penalty) in (0..).zip(penalties.iter()) {
            router.penalise(edge, *penalty);
        }
        let class = router.class(graph, ask.amount_msat);
        if !router.search(graph, ask, class, knowledge, &mut route) {
            return cost == u64::MAX;
        }
        match too_narrow(graph, ask, knowledge, &mut route) {
            Some(edge) => penalties[edge as usize] = FORBIDDEN,
            None => return cost == cost_of(graph, terms, ask, penalties, &route),
        }
    }
    cost == u64::MAX
}

#[test]
fn a_closed_channel_is_avoided_by_kept_searches() {
    let network = scale_free(200, 4, 3);
    let mut graph = Graph::new(&network);
    let terms = CostTerms::new(100, 15, 30_000);
    let mut router = Router::new(&graph, terms.clone(), &[10_000_000], 1 << 20);
    let (mut route, mut closed) = (Vec::new(), 0);
    let component = network.largest_strong_component();
    let knowledge = Drawn(5);
    let ask = Ask { from: component[10], to: component[50], amount_msat: 10_000_000 };
    while router.find(&graph, &ask, &knowledge, &mut route) {
        let free = vec![0; graph.edges().len()];
        let least = least_cost(&graph, &terms, &ask, &knowledge, &free);
        assert_eq!(Some(cost_of(&graph, &terms, &ask, &free, &route)), least);
        let edge = route[route.len() - 1].edge;
        graph.close(graph.edge(edge).lane);
        router.close(&graph, edge);
        closed += 1;
    }
    assert!(closed > 0);
}
