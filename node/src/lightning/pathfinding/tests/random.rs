//! Random networks and requests, each known by its seed: our routes against LDK's.

use super::world::{Query, Terms, World, hint_hop, id, key, own};
use lightning::routing::router::RouteHint;
use lightning::routing::scoring::ScoreUpdate;
use std::time::Duration;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    fn node(&mut self, nodes: u32) -> u32 {
        u32::try_from(self.below(nodes.into())).unwrap()
    }

    fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

fn terms(random: &mut Random, sats: u64) -> Terms {
    let maximum_msat = match random.below(4) {
        0 => sats * 1_000,
        1 => sats * 500,
        2 => sats * 990,
        _ => (sats * 100).max(2_000),
    };
    Terms {
        enabled: !random.one_in(12),
        base_msat: random.choose(&[0, 0, 1, 100, 1_000, 1_000, 5_000]),
        ppm: random.choose(&[0, 1, 10, 100, 250, 1_000, 5_000]),
        cltv: random.choose(&[6, 34, 40, 80, 144, 300]),
        minimum_msat: random.choose(&[0, 1, 1, 1_000, 1_000, 10_000, 1_000_000]).min(maximum_msat),
        maximum_msat,
    }
}

fn world(random: &mut Random) -> (World, u32) {
    let nodes = 5 + random.node(56);
    let mut world = World::new();
    let channels = u64::from(nodes) * (2 + random.below(4));
    for scid in 1..=channels {
        let ends = [random.node(nodes), random.node(nodes)];
        if ends[0] == ends[1] {
            continue;
        }
        let sats = random.choose(&[20, 5_000, 50_000, 500_000, 2_000_000, 20_000_000]);
        let both = [terms(random, sats), terms(random, sats)];
        let known = (!random.one_in(6)).then_some(sats);
        world.channel(scid, ends, known, both);
    }
    (world, nodes)
}

fn query(random: &mut Random, nodes: u32) -> Query {
    const AMOUNTS: [u64; 9] =
        [1, 500, 1_000, 50_000, 1_000_000, 10_000_000, 100_000_000, 400_000_000, 2_000_000_000];
    let (payer, mut payee) = (random.node(nodes), random.node(nodes));
    let mut hints = Vec::new();
    if random.one_in(5) {
        payee = 500;
        for scid in 0..1 + random.below(3) {
            let hub = random.node(nodes);
            let last = hint_hop(9_000 + scid, hub, terms(random, 1_000_000));
            hints.push(RouteHint(vec![last]));
        }
    }
    let amount_msat = random.choose(&AMOUNTS) + random.below(50);
    let mut query = Query::new(payer, payee, amount_msat).hints(hints);
    let parameters = &mut query.request.payment_params;
    if random.one_in(2) {
        parameters.max_path_count = 1 + u8::try_from(random.below(12)).unwrap();
    }
    if random.one_in(6) {
        parameters.max_path_length = 2 + u8::try_from(random.below(4)).unwrap();
    }
    if random.one_in(6) {
        parameters.max_total_cltv_expiry_delta = 100 + u32::try_from(random.below(600)).unwrap();
    }
    if random.one_in(6) {
        parameters.max_channel_saturation_power_of_half = u8::try_from(random.below(4)).unwrap();
    }
    for _ in 0..random.below(4) {
        parameters.previously_failed_channels.push(1 + random.below(100));
    }
    if random.one_in(3) {
        query.request.max_total_routing_fee_msat = Some(amount_msat / 100 + 5_000);
    }
    for _ in 0..random.below(6) {
        let (source, target) = (id(random.node(nodes)), id(random.node(nodes)));
        let (scid, used) = (1 + random.below(100), random.below(300_000_000));
        query.in_flight.add_inflight_htlc(&source, &target, scid, used);
    }
    if random.one_in(2) {
        let own_channels = (0..1 + random.below(5))
            .map(|scid| {
                let mut peer = random.node(nodes);
                if peer == payer {
                    peer = 600;
                }
                let limit = random.choose(&[5_000, 1_000_000, 50_000_000, 800_000_000]);
                own(5_000 + scid, peer, random.choose(&[1, 1_000]), limit)
            })
            .collect();
        query = query.own(own_channels);
    }
    query
}

#[derive(Debug, Default)]
struct Tally {
    both: u32,
    neither: u32,
    only_ours: Vec<u64>,
    only_ldk: Vec<u64>,
    dearer: Vec<u64>,
    cheaper: u32,
    in_parts: u32,
}

fn run(seeds: std::ops::Range<u64>, queries_per_world: u32) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut random = Random(seed);
        let (world, nodes) = world(&mut random);
        world.ours.refresh();
        let mut now = Duration::from_secs(1_700_000_000);
        for _ in 0..queries_per_world {
            let query = query(&mut random, nodes);
            let (ours, theirs) = (world.ours(&query), world.ldk(&query));
            match (&ours, &theirs) {
                (Ok(ours), Ok(theirs)) => {
                    tally.both += 1;
                    tally.in_parts += u32::from(ours.paths.len() > 1);
                    let (our_cost, their_cost) =
                        (world.cost(&query, ours), world.cost(&query, theirs));
                    tally.cheaper += u32::from(our_cost < their_cost);
                    if our_cost > their_cost {
                        tally.dearer.push(seed);
                    }
                }
                (Ok(_), Err(_)) => tally.only_ours.push(seed),
                (Err(_), Ok(_)) => tally.only_ldk.push(seed),
                (Err(_), Err(_)) => tally.neither += 1,
            }
            let Ok(route) = ours else { continue };
            world.check(&query, &route);
            // The scorer learns, so that later requests of this world see it changed.
            now += Duration::from_secs(60);
            let path = &route.paths[0];
            let failed = random
                .choose(&path.hops.iter().map(|hop| hop.short_channel_id).collect::<Vec<_>>());
            let mut scorer = world.scorer.write().unwrap();
            match random.below(3) {
                0 => scorer.payment_path_successful(path, now),
                1 => scorer.payment_path_failed(path, failed, now),
                _ => {}
            }
        }
    }
    tally
}

#[test]
fn random_requests_are_answered_as_ldk_does() {
    let tally = run(0..300, 12);
    println!("{tally:?}");
    assert!(tally.both > 800 && tally.neither > 100 && tally.in_parts > 20, "{tally:?}");
    let answered = f64::from(tally.both + tally.neither);
    let disagree = tally.only_ours.len() + tally.only_ldk.len();
    assert!((disagree as f64) <= answered * 0.01, "{tally:?}");
    assert!(tally.dearer.len() as f64 <= f64::from(tally.both) * 0.01, "{tally:?}");
}

#[test]
fn one_seed_gives_one_route() {
    let routes = || {
        let mut random = Random(42);
        let (world, nodes) = world(&mut random);
        let queries: Vec<_> = (0..40).map(|_| query(&mut random, nodes)).collect();
        queries.iter().map(|query| world.ours(query)).collect::<Vec<_>>()
    };
    assert_eq!(routes(), routes());
    assert_ne!(key(1), key(2));
}
