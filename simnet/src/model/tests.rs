//! The engine against closed forms, and its own accounts.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::report::{Outcome, Recorder};
use crate::scenario::{Document, Engine as EngineName};
use crate::stats::closed_forms::{balanced_walk_fails, erlang_b, passes};
use crate::workload::Workload;

/// Runs the scenario that `text` says.
fn run(text: &str) -> Recorder {
    let text = format!("name = \"test\"\nengines = [\"model\"]\n{text}");
    let document = Document::parse(Path::new("test.toml"), text).unwrap();
    let scenario = document.scenario().unwrap();
    scenario.check(EngineName::Model, &document).unwrap();
    let topology = scenario.build(&document).unwrap();
    let workload = Workload::new(&scenario, &topology, Path::new("")).unwrap();
    Engine::new(&scenario, &topology, 1 << 20).run(workload, &Control::default())
}

fn success(recorder: &Recorder) -> f64 {
    let succeeded = recorder.payments.iter().filter(|payment| payment.succeeded()).count();
    succeeded as f64 / recorder.payments.len() as f64
}

#[test]
fn one_hop_succeeds_as_often_as_its_balance_allows() {
    // Each channel of a star is paid through once: 2,000 independent balances.
    for share in [0.1, 0.5, 0.9] {
        let capacity_sat = 100_000_u64;
        let amount_msat = (capacity_sat as f64 * 1e3 * share) as u64;
        let mut succeeded = 0;
        for seed in 0..4 {
            let mut text = format!(
                "seed = {seed}\nchannels = {{ reserve_ppm = 0 }}\nsenders = {{ attempts_max = 1 }}
                [topology]\nkind = \"hub_and_spoke\"\nhubs = 1\nusers = 500
                user_channel = {{ capacity_sat = {capacity_sat} }}\n"
            );
            for user in 1..=500 {
                text += &format!(
                    "[[workload]]\npayments = 1
                    arrivals = {{ kind = \"even\", per_second = 1.0 }}
                    amounts = {{ kind = \"fixed\", msat = {amount_msat} }}
                    pairs = {{ kind = \"fixed\", from = {user}, to = 0 }}\n"
                );
            }
            let recorder = run(&text);
            succeeded += recorder.payments.iter().filter(|payment| payment.succeeded()).count();
        }
        let expected = passes(amount_msat, capacity_sat * 1_000);
        let deviation = (expected * (1.0 - expected) / 2_000.0).sqrt();
        let measured = succeeded as f64 / 2_000.0;
        assert!((measured - expected).abs() < 3.0 * deviation, "{share}: {measured}");
    }
}

#[test]
fn slots_block_as_erlang_says() {
    // Held for 1 s on average, 8 per second, 8 slots; money comes back round by a second stream
    // that does not use the slots of the first.
    let recorder =
        run("seed = 5\nchannels = { htlc_slots = 8, reserve_ppm = 0, balances = \"first\" }
        links = { latency_ms = [0.0, 0.0], processing_ms = 0.0 }
        senders = { attempts_max = 1, hop_penalty_msat = 1 }
        measure = { sample_s = 1000.0 }
        [topology]\nkind = \"line\"\nnodes = 2\nchannel = { capacity_sat = 100000000 }
        [[workload]]\npayments = 60000
        arrivals = { kind = \"poisson\", per_second = 8.0 }
        amounts = { kind = \"fixed\", msat = 1000 }
        pairs = { kind = \"fixed\", from = 0, to = 1 }
        hold = { kind = \"exponential\", mean_ms = 1000.0 }");
    let blocked = 1.0 - success(&recorder);
    let expected = erlang_b(8.0, 8);
    assert!((blocked - expected).abs() < 0.01, "{blocked}, not {expected}");
}

#[test]
fn a_channel_paid_through_both_ways_fails_like_a_walk_between_two_walls() {
    let stream = |from: u32, to: u32| {
        format!(
            "[[workload]]\npayments = 40000
            arrivals = {{ kind = \"poisson\", per_second = 1.0 }}
            amounts = {{ kind = \"fixed\", msat = 1000000 }}
            pairs = {{ kind = \"fixed\", from = {from}, to = {to} }}\n"
        )
    };
    let recorder = run(&format!(
        "seed = 5\nchannels = {{ reserve_ppm = 0, balances = \"even\" }}
        links = {{ latency_ms = [0.0, 0.0], processing_ms = 0.0 }}
        measure = {{ sample_s = 10000.0 }}
        topology = {{ kind = \"line\", nodes = 2, channel = {{ capacity_sat = 10000 }} }}
        {}{}",
        stream(0, 1),
        stream(1, 0)
    ));
    let (failed, expected) = (1.0 - success(&recorder), balanced_walk_fails(10));
    assert!((failed - expected).abs() < 0.01, "{failed}, not {expected}");
}

#[test]
fn a_drain_ends_when_the_balance_is_spent() {
    let recorder = run("seed = 1\nchannels = { reserve_ppm = 10000, balances = \"first\" }
        topology = { kind = \"line\", nodes = 2, channel = { capacity_sat = 1000 } }
        [[workload]]\npayments = 200
        arrivals = { kind = \"even\", per_second = 1.0 }
        amounts = { kind = \"fixed\", msat = 10000 }
        pairs = { kind = \"fixed\", from = 0, to = 1 }");
    // 1,000 sat without the reserve of 10, by 10 each.
    let succeeded = recorder.payments.iter().filter(|payment| payment.succeeded()).count();
    assert_eq!(succeeded, 99);
    assert!(recorder.payments[..99].iter().all(|payment| payment.succeeded()));
    assert!(recorder.payments[99..].iter().all(|p| p.outcome == Outcome::NoRoute));
}

#[test]
fn latency_is_three_flights_a_hop_and_one_back() {
    for (nodes, hops) in [(2, 1), (3, 2), (5, 4)] {
        let recorder = run(&format!(
            "seed = 1\nchannels = {{ balances = \"even\" }}
            links = {{ latency_ms = [20.0, 20.0], processing_ms = 1.0 }}
            topology = {{ kind = \"line\", nodes = {nodes} }}
            [[workload]]\npayments = 1
            arrivals = {{ kind = \"even\", per_second = 1.0 }}
            amounts = {{ kind = \"fixed\", msat = 1000 }}
            pairs = {{ kind = \"fixed\", from = 0, to = {} }}",
            nodes - 1
        ));
        let payment = recorder.payments[0];
        assert!(payment.succeeded(), "{payment:?}");
        assert_eq!(payment.hops, hops);
        assert_eq!(payment.latency_us, u64::from(hops) * (4 * 20_000 + 2 * 1_000));
        // Routing nodes take 1,000 msat and 100 ppm each; the sender's own hop is free.
        assert_eq!(payment.fee_msat, u64::from(hops - 1) * 1_000);
    }
}

#[test]
fn a_failure_comes_back_and_another_way_is_tried() {
    // Two ways of two hops; on the cheaper one the second hop has nothing.
    let folder = tempfile::tempdir().unwrap();
    let node = |key: &str, fee: u32| {
        format!(
            "{{\"pubkey\": \"{key}\", \"min_htlc_size_msat\": 1, \"max_htlc_size_msat\": 1000000,
            \"cltv_expiry_delta\": 40, \"base_fee\": {fee}, \"fee_rate_prop\": 0}}"
        )
    };
    let channel = |one: &str, other: &str, fee: u32| {
        let (one, other) = (node(one, fee), node(other, fee));
        format!("{{\"capacity_msat\": 1000000, \"node_1\": {one}, \"node_2\": {other}}}")
    };
    let channels =
        [channel("a", "b", 1), channel("d", "b", 1), channel("a", "c", 9), channel("c", "d", 9)];
    let path = folder.path().join("net.json");
    std::fs::write(&path, format!("[{}]", channels.join(","))).unwrap();
    let recorder = run(&format!(
        "seed = 1\nchannels = {{ balances = \"first\" }}
        links = {{ latency_ms = [10.0, 10.0], processing_ms = 0.0 }}
        topology = {{ kind = \"file\", format = \"sim_ln\", path = \"{}\" }}
        [[workload]]\npayments = 1
        arrivals = {{ kind = \"even\", per_second = 1.0 }}
        amounts = {{ kind = \"fixed\", msat = 500000 }}
        pairs = {{ kind = \"fixed\", from = 0, to = 2 }}",
        path.display()
    ));
    let payment = recorder.payments[0];
    assert!(payment.succeeded(), "{payment:?}");
    assert_eq!((payment.attempts, payment.fee_msat), (2, 9));
    assert_eq!(recorder.totals.failed_balance, 1);
    // There and back over one hop, then two hops.
    assert_eq!(payment.latency_us, 30_000 + 30_000 + 2 * 40_000);
}

#[test]
fn a_payment_too_large_for_each_way_goes_in_parts() {
    let recorder = run(
        "seed = 1\nchannels = { balances = \"even\", reserve_ppm = 0 }
        senders = { parts_max = 4, attempts_max = 20 }
        topology = { kind = \"lattice\", width = 2, height = 2, channel = { capacity_sat = 100000 } }
        [[workload]]\npayments = 1
        arrivals = { kind = \"even\", per_second = 1.0 }
        amounts = { kind = \"fixed\", msat = 80000000 }
        pairs = { kind = \"fixed\", from = 0, to = 3 }",
    );
    let payment = recorder.payments[0];
    assert!(payment.succeeded() && payment.parts == 2, "{payment:?}");
}

#[test]
fn an_htlc_that_waits_too_long_closes_its_channel() {
    // The middle node leaves when it holds the HTLC, for longer than the HTLC lasts.
    let recorder = run("seed = 1\nchannels = { balances = \"even\" }
        links = { latency_ms = [100.0, 100.0], processing_ms = 0.0 }
        measure = { until_s = 200000.0, sample_s = 10000.0 }
        topology = { kind = \"line\", nodes = 3 }
        [[workload]]\npayments = 1
        arrivals = { kind = \"even\", per_second = 1.0 }
        amounts = { kind = \"fixed\", msat = 1000000 }
        pairs = { kind = \"fixed\", from = 0, to = 2 }
        [[faults]]\nkind = \"offline\"\nnodes = [1]\nfrom_s = 0.2\nto_s = 150000.0");
    assert_eq!(recorder.totals.expired, 1);
    assert!(!recorder.payments[0].succeeded());
    // 42 blocks of the receiver and 80 of the middle node.
    assert_eq!(recorder.payments[0].latency_us, 122 * 600 * 1_000_000);
    assert!(recorder.samples.last().unwrap().chain_vb > 300);
    assert_eq!(recorder.samples.last().unwrap().htlcs, 0);
}

#[test]
fn an_htlc_waits_for_a_node_that_comes_back_in_time() {
    let recorder = run("seed = 1\nchannels = { balances = \"even\" }
        links = { latency_ms = [100.0, 100.0], processing_ms = 0.0 }
        topology = { kind = \"line\", nodes = 3 }
        [[workload]]\npayments = 1
        arrivals = { kind = \"even\", per_second = 1.0 }
        amounts = { kind = \"fixed\", msat = 1000000 }
        pairs = { kind = \"fixed\", from = 0, to = 2 }
        [[faults]]\nkind = \"offline\"\nnodes = [1]\nfrom_s = 0.2\nto_s = 60.0");
    assert!(recorder.payments[0].succeeded());
    assert_eq!(recorder.payments[0].latency_us, 60_000_000 + 300_000 + 200_000);
    assert_eq!(recorder.totals.expired, 0);
}

/// A busy network with everything that can happen to HTLCs.
fn busy(seed: u64, payments: u64) -> String {
    format!(
        "seed = {seed}\nsenders = {{ parts_max = 4 }}\nchain = {{ block_s = 1.0 }}
        topology = {{ kind = \"scale_free\", nodes = 60, channels_per_node = 3 }}
        [[workload]]\npayments = {payments}
        arrivals = {{ kind = \"poisson\", per_second = 40.0 }}
        amounts = {{ kind = \"log_uniform\", min_msat = 1, max_msat = 3000000000 }}
        pairs = {{ kind = \"zipf\", exponent = 1.0 }}
        hold = {{ kind = \"exponential\", mean_ms = 300.0 }}
        [[faults]]\nkind = \"churn\"\nshare_ppm = 500000\nmean_up_s = 20.0\nmean_down_s = 30.0"
    )
}

#[test]
fn one_seed_gives_one_result() {
    let (one, other) = (run(&busy(3, 500)), run(&busy(3, 500)));
    assert_eq!(one, other);
    assert_ne!(one.payments, run(&busy(4, 500)).payments);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The engine itself asserts at its end that every channel holds what it was funded with.
    #[test]
    fn whatever_happens_every_payment_ends_and_every_channel_keeps_its_sum(seed: u64) {
        let recorder = run(&busy(seed >> 1, 400));
        prop_assert_eq!(recorder.payments.len(), 400);
        let unfinished =
            recorder.payments.iter().filter(|payment| payment.outcome == Outcome::Unfinished);
        prop_assert_eq!(unfinished.count(), 0);
    }
}
