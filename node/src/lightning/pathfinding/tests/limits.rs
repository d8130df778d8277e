//! Each limit of a request, one by one. LDK's router answers beside ours.

use lightning::routing::router::Route;
use lightning::routing::scoring::ScoreUpdate;
use std::time::Duration;

use super::world::{Query, Terms, World, id, key};

/// 0 - 1 - 3 costs little, 0 - 2 - 3 more.
fn diamond() -> World {
    let mut world = World::new();
    let (cheap, dear) = (
        Terms { base_msat: 100, ..Terms::default() },
        Terms { base_msat: 5_000, ..Terms::default() },
    );
    world.simple(1, [0, 1], Terms::default());
    world.simple(2, [1, 3], cheap);
    world.simple(3, [0, 2], Terms::default());
    world.simple(4, [2, 3], dear);
    world
}

fn ways(route: &Route) -> Vec<Vec<u64>> {
    let way = |path: &lightning::routing::router::Path| {
        path.hops.iter().map(|hop| hop.short_channel_id).collect()
    };
    route.paths.iter().map(way).collect()
}

#[test]
fn the_cheaper_way_is_taken() {
    let world = diamond();
    let route = world.same(&Query::new(0, 3, 10_000)).unwrap();
    assert_eq!(ways(&route), [[1, 2]]);
    assert_eq!(route.get_total_fees(), 100);
    assert_eq!(world.ours.answers().snapshot, 1);
}

#[test]
fn a_failed_channel_is_not_tried_again() {
    let world = diamond();
    let mut query = Query::new(0, 3, 10_000);
    query.request.payment_params.previously_failed_channels = vec![2];
    assert_eq!(ways(&world.same(&query).unwrap()), [[3, 4]]);
}

#[test]
fn a_fee_limit_leaves_dear_ways_out() {
    let world = diamond();
    let mut query = Query::new(0, 3, 10_000);
    query.request.payment_params.previously_failed_channels = vec![2];
    query.request.max_total_routing_fee_msat = Some(5_000);
    assert!(world.same(&query).is_ok());
    query.request.max_total_routing_fee_msat = Some(4_999);
    assert!(world.same(&query).is_err());
}

#[test]
fn an_expiry_limit_leaves_slow_ways_out() {
    let mut world = diamond();
    world.update(2, [1, 3], Terms { cltv: 500, ..Terms::default() });
    let mut query = Query::new(0, 3, 10_000);
    query.request.payment_params.max_total_cltv_expiry_delta = 400;
    assert_eq!(ways(&world.same(&query).unwrap()), [[3, 4]]);
    query.request.payment_params.max_total_cltv_expiry_delta = 60;
    assert!(world.same(&query).is_err());
}

#[test]
fn a_length_limit_leaves_long_ways_out() {
    let mut world = diamond();
    world.simple(9, [3, 4], Terms::default());
    let mut query = Query::new(0, 4, 10_000);
    query.request.payment_params.max_path_length = 3;
    assert!(world.same(&query).is_ok());
    query.request.payment_params.max_path_length = 2;
    assert!(world.same(&query).is_err());
}

#[test]
fn a_quarter_of_a_channel_is_used_before_more_of_it() {
    let mut world = diamond();
    // A quarter of 1,000,000 sat is 250,000,000 msat, fees included.
    world.channel(5, [0, 5], Some(4_000_000), [Terms::default(); 2]);
    world.channel(
        6,
        [5, 3],
        Some(4_000_000),
        [Terms { base_msat: 900_000, ..Terms::default() }; 2],
    );
    let route = world.same(&Query::new(0, 3, 249_000_000)).unwrap();
    assert_eq!(ways(&route), [[1, 2]]);
    let route = world.same(&Query::new(0, 3, 250_000_001)).unwrap();
    assert_eq!(ways(&route), [[5, 6]]);
    let mut query = Query::new(0, 3, 900_000_000);
    query.request.payment_params.max_channel_saturation_power_of_half = 0;
    assert!(world.same(&query).is_ok());
}

#[test]
fn a_large_payment_is_split() {
    let mut world = diamond();
    for (scid, ends) in [(1, [0, 1]), (2, [1, 3]), (3, [0, 2]), (4, [2, 3])] {
        world.update(scid, ends, Terms { maximum_msat: 60_000_000, ..Terms::default() });
    }
    let query = Query::new(0, 3, 100_000_000);
    assert!(world.same(&query).is_err());
    let route = world.same(&query.in_parts(10)).unwrap();
    let mut found = ways(&route);
    found.sort();
    assert_eq!(found, [[1, 2], [3, 4]]);
    assert_eq!(route.get_total_amount(), 100_000_000);
}

#[test]
fn the_least_amount_of_a_channel_is_met_by_paying_more() {
    let mut world = World::new();
    world.simple(1, [0, 1], Terms::default());
    world.simple(2, [1, 2], Terms { minimum_msat: 1_000, ..Terms::default() });
    world.simple(3, [2, 3], Terms::default());
    // In one part LDK never pays more; if it may split, it does.
    assert!(world.same(&Query::new(0, 3, 900)).is_err());
    let route = world.same(&Query::new(0, 3, 900).in_parts(10)).unwrap();
    assert_eq!(route.get_total_fees(), 100);
    assert_eq!(route.get_total_amount(), 900);
}

#[test]
fn what_is_under_way_makes_a_channel_dearer() {
    let world = diamond();
    let mut query = Query::new(0, 3, 10_000_000);
    assert_eq!(ways(&world.same(&query).unwrap()), [[1, 2]]);
    query.in_flight.add_inflight_htlc(&id(1), &id(3), 2, 900_000_000);
    assert_eq!(ways(&world.same(&query).unwrap()), [[3, 4]]);
}

#[test]
fn a_disabled_channel_is_never_used_again() {
    let mut world = diamond();
    let query = Query::new(0, 3, 10_000);
    assert_eq!(ways(&world.ours(&query).unwrap()), [[1, 2]]);
    let off = Terms { enabled: false, ..Terms::default() };
    world.update(2, [1, 3], off);
    // Nobody refreshed the snapshot.
    assert_eq!(ways(&world.ours(&query).unwrap()), [[3, 4]]);
    world.update(4, [2, 3], off);
    assert!(world.ours(&query).is_err());
    assert!(!world.ours.refresh(), "the search already has");
    // And a way that opens is seen when there is none.
    world.update(4, [2, 3], Terms::default());
    assert_eq!(ways(&world.ours(&query).unwrap()), [[3, 4]]);
}

#[test]
fn a_closed_channel_is_never_used_again() {
    let world = diamond();
    let query = Query::new(0, 3, 10_000);
    assert_eq!(ways(&world.ours(&query).unwrap()), [[1, 2]]);
    world.graph.channel_failed_permanent(2);
    assert_eq!(ways(&world.ours(&query).unwrap()), [[3, 4]]);
    world.graph.node_failed_permanent(&key(2));
    assert!(world.ours(&query).is_err());
}

#[test]
fn what_the_scorer_learns_is_followed() {
    let world = diamond();
    let query = Query::new(0, 3, 10_000_000);
    let route = world.same(&query).unwrap();
    assert_eq!(ways(&route), [[1, 2]]);
    let now = Duration::from_secs(1_700_000_000);
    world.scorer.write().unwrap().payment_path_failed(&route.paths[0], 2, now);
    let other = world.same(&query).unwrap();
    assert_eq!(ways(&other), [[3, 4]]);
    // The other way turns out worse; the first is tried again once its failure is old.
    world.scorer.write().unwrap().payment_path_failed(&other.paths[0], 3, now);
    world.scorer.write().unwrap().time_passed(now + Duration::from_secs(86_400 * 365));
    assert_eq!(ways(&world.same(&query).unwrap()), [[1, 2]]);
}

#[test]
fn requests_that_make_no_sense_get_ldks_answer() {
    let world = diamond();
    let mut queries =
        vec![Query::new(0, 0, 1_000), Query::new(0, 3, 0), Query::new(0, 3, u64::MAX)];
    queries.push(Query::new(0, 3, 1_000).in_parts(0));
    queries.push(Query::new(0, 3, 1_000).own(vec![]));
    let mut hasty = Query::new(0, 3, 1_000);
    hasty.request.payment_params.max_total_cltv_expiry_delta = 40;
    queries.push(hasty);
    for query in &queries {
        assert_eq!(world.ours(query).unwrap_err(), world.ldk(query).unwrap_err());
    }
    assert_eq!(world.ours.answers().fallback, queries.len() as u64);
}

#[test]
fn a_channel_of_ours_without_id_is_refused() {
    let world = diamond();
    let mut pending = super::world::own(7, 3, 1, 1_000_000);
    pending.short_channel_id = None;
    assert!(world.ours(&Query::new(0, 3, 1_000).own(vec![pending])).is_err());
}

#[test]
fn an_empty_network_has_no_routes() {
    let world = World::new();
    assert!(world.same(&Query::new(0, 3, 1_000)).is_err());
}
