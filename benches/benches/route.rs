//! Finding a route over a network of 2,000 nodes: ours, and LDK's on the same request.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::{Arc, RwLock};

use benches::network::{Known, Silent};
use criterion::{Criterion, criterion_group, criterion_main};
use lightning::routing::router::{
    DefaultRouter, InFlightHtlcs, PaymentParameters, RouteParameters, Router,
};
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::EntropySource;
use node::lightning::pathfinding::{FastRouter, JournalingScorer};
use simnet::random::Random;
use simnet::topology::generate::scale_free;

/// The same "random" bytes always: one seed, one result.
#[derive(Clone, Copy)]
struct Fixed;

impl EntropySource for Fixed {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        [7; 32]
    }
}

fn route(criterion: &mut Criterion) {
    let network = scale_free(2_000, 8, 1);
    let component = network.largest_strong_component();
    let known = Known::new(&network);
    let graph = Arc::clone(&known.graph);
    let decay = ProbabilisticScoringDecayParameters::default();
    let scorer = ProbabilisticScorer::new(decay, Arc::clone(&graph), Silent);
    let scorer = Arc::new(RwLock::new(JournalingScorer::new(scorer)));
    let fees = ProbabilisticScoringFeeParameters::default;
    let ldk = DefaultRouter::new(Arc::clone(&graph), Silent, Fixed, Arc::clone(&scorer), fees());
    let ours = FastRouter::new(graph, Silent, Fixed, scorer, fees());
    let payer = known.keys[component[0] as usize];
    let find = |router: &dyn Fn(&RouteParameters) -> bool, random: &mut Random| {
        let payee = known.keys[random.choose(&component[1..]) as usize];
        let parameters = PaymentParameters::for_keysend(payee, 40, false);
        router(&RouteParameters::from_payment_params_and_value(parameters, 10_000_000))
    };
    let mut group = criterion.benchmark_group("route");
    group.sample_size(30);
    group.bench_function("ours", |bench| {
        let mut random = Random::new(1);
        let route = |request: &RouteParameters| {
            ours.find_route(&payer, request, None, InFlightHtlcs::new()).is_ok()
        };
        bench.iter(|| find(&route, &mut random));
    });
    group.bench_function("LDK", |bench| {
        let mut random = Random::new(1);
        let route = |request: &RouteParameters| {
            ldk.find_route(&payer, request, None, InFlightHtlcs::new()).is_ok()
        };
        bench.iter(|| find(&route, &mut random));
    });
    group.finish();
}

criterion_group!(benches, route);
criterion_main!(benches);
