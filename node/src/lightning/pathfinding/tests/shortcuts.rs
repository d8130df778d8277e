//! Payments to peers and through them.

use lightning::blinded_path::BlindedHop;
use lightning::blinded_path::payment::{BlindedPayInfo, BlindedPaymentPath};
use lightning::routing::router::{PaymentParameters, RouteHint};
use lightning::types::features::BlindedHopFeatures;

use super::super::RouteAnswers;
use super::world::{Query, Terms, World, hint_hop, key, own};

/// 1 is a hub with a public channel to 2; 3 is another hub.
fn hub() -> World {
    let mut world = World::new();
    world.simple(10, [0, 1], Terms::default());
    world.simple(11, [1, 2], Terms { base_msat: 1_000, ppm: 100, ..Terms::default() });
    world.simple(12, [0, 3], Terms::default());
    world.simple(13, [3, 2], Terms { base_msat: 9_000, ppm: 100, ..Terms::default() });
    world.simple(14, [1, 3], Terms::default());
    world
}

const DIRECT: RouteAnswers = RouteAnswers { direct: 1, hub: 0, snapshot: 0, fallback: 0 };
const HUB: RouteAnswers = RouteAnswers { direct: 0, hub: 1, snapshot: 0, fallback: 0 };
const SEARCH: RouteAnswers = RouteAnswers { direct: 0, hub: 0, snapshot: 1, fallback: 0 };

fn channels(route: &lightning::routing::router::Route) -> Vec<u64> {
    route.paths.iter().flat_map(|path| &path.hops).map(|hop| hop.short_channel_id).collect()
}

#[test]
fn a_peer_is_paid_over_the_smallest_channel_that_is_large_enough() {
    let world = hub();
    let channels_to_1 =
        vec![own(1, 1, 1, 50_000), own(2, 1, 1, 9_000_000), own(3, 1, 1, 4_000_000)];
    let query = Query::new(0, 1, 1_000_000).own(channels_to_1);
    let route = world.same(&query).unwrap();
    assert_eq!(channels(&route), [3]);
    assert_eq!(world.ours.answers(), DIRECT);
    assert_eq!(channels(&world.ldk(&query).unwrap()), [3]);
    assert_eq!(route.paths[0].hops[0].fee_msat, 1_000_000);
}

#[test]
fn a_peer_outside_the_public_network_is_paid_directly() {
    let world = hub();
    let query = Query::new(0, 77, 1_000).own(vec![own(1, 77, 1, 50_000), own(2, 1, 1, 50_000)]);
    assert_eq!(channels(&world.same(&query).unwrap()), [1]);
    assert_eq!(world.ours.answers(), DIRECT);
}

#[test]
fn a_peer_is_paid_over_several_channels_if_one_is_too_small() {
    let world = hub();
    let channels_to_1 = vec![own(1, 1, 1_000, 600_000), own(2, 1, 1_000, 500_000)];
    let query = Query::new(0, 1, 1_000_000).own(channels_to_1);
    let route = world.same(&query.clone().in_parts(5)).unwrap();
    assert_eq!((route.paths.len(), route.get_total_fees()), (2, 0));
    assert_eq!(route.get_total_amount(), 1_000_000);
    assert_eq!(world.ours.answers(), DIRECT);
    assert!(world.same(&query).is_err(), "in one part it does not fit");
}

#[test]
fn the_last_part_is_not_below_what_its_channel_takes() {
    let world = hub();
    let channels_to_1 = vec![own(1, 1, 1, 950_000), own(2, 1, 100_000, 500_000)];
    let query = Query::new(0, 1, 1_000_000).own(channels_to_1).in_parts(20);
    let route = world.ours(&query).unwrap();
    world.check(&query, &route);
    assert_eq!((route.get_total_amount(), route.get_total_fees()), (1_000_000, 0));
    assert_eq!(world.ours.answers(), DIRECT);
}

#[test]
fn what_direct_channels_lack_comes_by_other_ways() {
    let world = hub();
    let mine = vec![own(1, 2, 1, 600_000), own(2, 1, 1, 5_000_000)];
    let query = Query::new(0, 2, 1_000_000).own(mine).in_parts(5);
    let route = world.same(&query).unwrap();
    assert!(channels(&route).contains(&11));
    assert_eq!(world.ours.answers(), SEARCH);
}

#[test]
fn a_failed_channel_to_a_peer_is_not_tried_again() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 5_000_000), own(2, 1, 1, 9_000_000)];
    let mut query = Query::new(0, 1, 1_000_000).own(mine);
    query.request.payment_params.previously_failed_channels = vec![1];
    assert_eq!(channels(&world.same(&query).unwrap()), [2]);
    assert_eq!(world.ours.answers(), DIRECT);
}

#[test]
fn a_wallet_behind_our_peer_needs_no_search() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000), own(2, 3, 1, 50_000_000)];
    let terms = Terms { base_msat: 1_000, ppm: 100, cltv: 34, ..Terms::default() };
    let hint = RouteHint(vec![hint_hop(900, 1, terms)]);
    let query = Query::new(0, 77, 10_000_000).own(mine).hints(vec![hint]);
    let route = world.same(&query).unwrap();
    assert_eq!(channels(&route), [1, 900]);
    assert_eq!(route.get_total_fees(), 2_000);
    assert_eq!(route.paths[0].hops[0].cltv_expiry_delta, 34);
    assert_eq!(world.ours.answers(), HUB);
}

#[test]
fn the_cheaper_of_two_hubs_is_taken() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000), own(2, 3, 1, 50_000_000)];
    let hint = |scid, hub, base_msat| {
        RouteHint(vec![hint_hop(scid, hub, Terms { base_msat, ..Terms::default() })])
    };
    let hints = vec![hint(900, 1, 3_000), hint(901, 3, 2_000)];
    let query = Query::new(0, 77, 10_000_000).own(mine).hints(hints);
    assert_eq!(channels(&world.same(&query).unwrap()), [2, 901]);
    assert_eq!(world.ours.answers(), HUB);
}

#[test]
fn a_hub_that_asks_too_much_is_compared_with_other_ways() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000)];
    let hint = |scid, hub, base_msat| {
        RouteHint(vec![hint_hop(scid, hub, Terms { base_msat, ..Terms::default() })])
    };
    // 3 is no peer of ours, but cheap, and reached over 1.
    let hints = vec![hint(900, 1, 200_000), hint(901, 3, 10)];
    let query = Query::new(0, 77, 10_000_000).own(mine).hints(hints);
    assert_eq!(channels(&world.same(&query).unwrap()), [1, 14, 901]);
    assert_eq!(world.ours.answers(), SEARCH);
}

#[test]
fn a_node_one_channel_beyond_a_peer_needs_no_search() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000), own(2, 3, 1, 50_000_000)];
    let query = Query::new(0, 2, 10_000_000).own(mine);
    assert_eq!(channels(&world.same(&query).unwrap()), [1, 11]);
    assert_eq!(world.ours.answers(), HUB);
}

#[test]
fn a_disabled_channel_beyond_a_peer_is_not_used() {
    let mut world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000), own(2, 3, 1, 50_000_000)];
    let query = Query::new(0, 2, 10_000_000).own(mine);
    world.ours.refresh();
    world.update(11, [1, 2], Terms { enabled: false, ..Terms::default() });
    assert_eq!(channels(&world.ours(&query).unwrap()), [2, 13]);
}

#[test]
fn hints_of_several_hops_are_followed() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000)];
    let hint = RouteHint(vec![
        hint_hop(900, 2, Terms { base_msat: 50, ..Terms::default() }),
        hint_hop(901, 88, Terms { base_msat: 70, ..Terms::default() }),
    ]);
    let query = Query::new(0, 77, 10_000_000).own(mine).hints(vec![hint]);
    let route = world.same(&query).unwrap();
    assert_eq!(channels(&route), [1, 11, 900, 901]);
    assert_eq!(world.ours.answers(), SEARCH);
}

fn blinded(introduction: u32, hops: u8, base_msat: u32) -> BlindedPaymentPath {
    let hop = |place: u8| BlindedHop {
        blinded_node_id: key(1_000 + u32::from(place)),
        encrypted_payload: vec![place; 40],
    };
    BlindedPaymentPath::from_blinded_path_and_payinfo(
        key(introduction),
        key(2_000),
        (0..hops).map(hop).collect(),
        BlindedPayInfo {
            fee_base_msat: base_msat,
            fee_proportional_millionths: 10,
            cltv_expiry_delta: 60,
            htlc_minimum_msat: 1,
            htlc_maximum_msat: 40_000_000,
            features: BlindedHopFeatures::empty(),
        },
    )
}

fn to_blinded(paths: Vec<BlindedPaymentPath>, amount_msat: u64) -> Query {
    let mut query = Query::new(0, 77, amount_msat);
    query.request.payment_params = PaymentParameters::blinded(paths);
    query
}

#[test]
fn a_blinded_path_from_our_peer_needs_no_search() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000), own(2, 3, 1, 50_000_000)];
    let query = to_blinded(vec![blinded(1, 3, 700)], 10_000_000).own(mine);
    let route = world.same(&query).unwrap();
    assert_eq!(channels(&route), [1]);
    assert_eq!(route.get_total_fees(), 800);
    let tail = route.paths[0].blinded_tail.as_ref().unwrap();
    assert_eq!((tail.final_value_msat, tail.hops.len()), (10_000_000, 3));
    assert!(route.paths[0].hops[0].cltv_expiry_delta >= 60 + tail.excess_final_cltv_expiry_delta);
    assert_eq!(world.ours.answers(), HUB);
}

#[test]
fn a_blinded_path_further_away_is_found() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 50_000_000)];
    for hops in [1, 2] {
        let query = to_blinded(vec![blinded(2, hops, 700)], 10_000_000).own(mine.clone());
        let route = world.same(&query).unwrap();
        assert_eq!(channels(&route), [1, 11]);
    }
    let failed = |mut query: Query| {
        query.request.payment_params.previously_failed_blinded_path_idxs = vec![0];
        query
    };
    let query = failed(to_blinded(vec![blinded(2, 2, 7)], 10_000).own(mine));
    assert!(world.same(&query).is_err());
}

#[test]
fn blinded_paths_are_judged_by_their_limit_and_what_is_under_way() {
    let world = hub();
    let mine = vec![own(1, 1, 1, 90_000_000), own(2, 3, 1, 90_000_000)];
    let paths = vec![blinded(1, 3, 700), blinded(3, 3, 900)];
    let mut query = to_blinded(paths, 30_000_000).own(mine);
    assert_eq!(channels(&world.same(&query).unwrap()), [1]);
    let first = world.ldk(&query).unwrap();
    query.in_flight.process_path(&first.paths[0], key(0));
    assert_eq!(channels(&world.ours(&query).unwrap()), [2]);
    // LDK asks no scorer about a blinded path from a peer, and would add to the first.
    assert_eq!(channels(&world.ldk(&query).unwrap()), [1]);
    query.request.final_value_msat = 50_000_000;
    assert!(world.same(&query).is_err());
}
