//! Workloads have the distributions they say, and repeat.

use std::collections::HashMap;

use super::*;
use crate::scenario::{Amounts, Arrivals, Hold, Pairs, Stream, Who};
use crate::topology::generate::scale_free;

fn stream(arrivals: Arrivals, amounts: Amounts, pairs: Pairs) -> Stream {
    Stream {
        arrivals,
        amounts: Some(amounts),
        pairs: Some(pairs),
        payments: Some(20_000),
        duration_s: None,
        start_s: 0.0,
        hold: Hold::None,
    }
}

const RANDOM: Pairs = Pairs::Random { senders: Who::All, receivers: Who::All };
const FIXED: Amounts = Amounts::Fixed { msat: 7 };
const POISSON: Arrivals = Arrivals::Poisson { per_second: 50.0 };

fn draw(stream: &Stream, seed: u64) -> Vec<Intent> {
    let topology = Topology::from(scale_free(100, 3, 1));
    draw::Drawn::new(stream, &topology, seed, 0).collect()
}

#[test]
fn one_seed_draws_one_workload() {
    let stream = stream(POISSON, FIXED, RANDOM);
    assert_eq!(draw(&stream, 1), draw(&stream, 1));
    assert_ne!(draw(&stream, 1), draw(&stream, 2));
}

#[test]
fn poisson_arrivals_have_mean_and_variance_of_their_rate() {
    let intents = draw(&stream(POISSON, FIXED, RANDOM), 3);
    let mut per_second: HashMap<u64, f64> = HashMap::new();
    for intent in &intents {
        *per_second.entry(intent.at_us / 1_000_000).or_default() += 1.0;
    }
    let seconds = intents.last().unwrap().at_us / 1_000_000;
    let counts = (0..seconds).map(|second| per_second.get(&second).copied().unwrap_or(0.0));
    let mean = counts.clone().sum::<f64>() / seconds as f64;
    let variance = counts.map(|count| (count - mean).powi(2)).sum::<f64>() / seconds as f64;
    assert!((mean - 50.0).abs() < 1.5, "{mean}");
    assert!((variance / mean - 1.0).abs() < 0.2, "{variance}");
}

#[test]
fn bursts_begin_together() {
    let arrivals = Arrivals::Burst { size: 5, every_s: 2.0 };
    let mut burst = stream(arrivals, FIXED, RANDOM);
    burst.payments = None;
    burst.duration_s = Some(5.0);
    burst.start_s = 1.0;
    let times: Vec<u64> = draw(&burst, 1).iter().map(|intent| intent.at_us / 1_000_000).collect();
    assert_eq!(times, [1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5]);
}

#[test]
fn amounts_span_from_a_millisatoshi_to_whole_coins() {
    let amounts = Amounts::LogUniform { min_msat: 1, max_msat: 500_000_000_000 };
    let mut drawn: Vec<u64> = draw(&stream(POISSON, amounts, RANDOM), 1)
        .iter()
        .map(|intent| intent.amount_msat)
        .collect();
    drawn.sort_unstable();
    assert!(drawn[0] < 10 && drawn[drawn.len() - 1] > 100_000_000_000);
    // The median is the geometric mean of the ends.
    let median = drawn[drawn.len() / 2] as f64;
    assert!((median / 707_106.0).ln().abs() < 0.3, "{median}");
    let normal = Amounts::LogNormal { median_msat: 1_000, sigma: 1.0, max_msat: 1_000_000 };
    let mut drawn: Vec<u64> =
        draw(&stream(POISSON, normal, RANDOM), 1).iter().map(|intent| intent.amount_msat).collect();
    drawn.sort_unstable();
    assert!((900..1_100).contains(&drawn[drawn.len() / 2]));
}

#[test]
fn zipf_pays_the_first_twice_as_often_as_the_second() {
    let pairs = Pairs::Zipf { senders: Who::All, receivers: Who::All, exponent: 1.0 };
    let mut counts: HashMap<Node, u32> = HashMap::new();
    for intent in draw(&stream(POISSON, FIXED, pairs), 1) {
        *counts.entry(intent.to).or_default() += 1;
        assert_ne!(intent.from, intent.to);
    }
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    let ratio = f64::from(counts[0]) / f64::from(counts[1]);
    assert!((ratio - 2.0).abs() < 0.25, "{ratio}");
}

#[test]
fn in_a_ring_everybody_gets_what_it_pays() {
    let pairs = Pairs::Ring { among: Who::All, size: 4 };
    let mut net: HashMap<Node, i64> = HashMap::new();
    for intent in draw(&stream(POISSON, FIXED, pairs), 1) {
        *net.entry(intent.from).or_default() -= 1;
        *net.entry(intent.to).or_default() += 1;
    }
    assert_eq!(net.len(), 100);
    assert!(net.values().all(|net| *net == 0));
}

#[test]
fn streams_are_merged_by_time() {
    let scenario: Scenario = toml::from_str(
        r#"
        name = "x"
        engines = ["model"]
        seed = 1
        topology = { kind = "line", nodes = 3 }
        [[workload]]
        arrivals = { kind = "even", per_second = 1.0 }
        amounts = { kind = "fixed", msat = 1 }
        pairs = { kind = "fixed", from = 0, to = 1 }
        payments = 3
        [[workload]]
        arrivals = { kind = "even", per_second = 2.0 }
        amounts = { kind = "fixed", msat = 2 }
        pairs = { kind = "fixed", from = 1, to = 2 }
        duration_s = 1.0
        start_s = 0.25
        "#,
    )
    .unwrap();
    let topology = Topology::from(scale_free(3, 1, 1));
    let workload = Workload::new(&scenario, &topology, Path::new("")).unwrap();
    assert_eq!(expected(&scenario, Path::new("")), Some(5));
    let times: Vec<(u64, u64)> =
        workload.map(|intent| (intent.at_us / 1_000, intent.amount_msat)).collect();
    assert_eq!(times, [(0, 1), (250, 2), (750, 2), (1_000, 1), (2_000, 1)]);
}

#[test]
fn a_trace_names_what_is_wrong_by_line() {
    let mut topology = Topology::from(scale_free(3, 1, 1));
    topology.names = ["alice", "bob", "carol"].map(String::from).to_vec();
    let stream = stream(POISSON, FIXED, RANDOM);
    let read = |text: &str| trace::Trace::parse(text, &topology, &stream);
    let good = "amount_msat,from,to,at_s\n5,alice,2,2.5\n\n6,1,carol,0.5\n";
    let intents: Vec<Intent> = read(good).unwrap().collect();
    assert_eq!(intents[0], Intent { at_us: 500_000, from: 1, to: 2, amount_msat: 6, hold_us: 0 });
    assert_eq!((intents[1].from, intents[1].at_us), (0, 2_500_000));
    for (wrong, line, value) in [
        (good.replace("alice", "dave"), 2, "dave"),
        (good.replace("6,1", "0,1"), 4, "`0`"),
        (good.replace("0.5", "soon"), 4, "soon"),
        (good.replace("at_s", "when"), 1, "at_s"),
    ] {
        let (at, detail) = read(&wrong).unwrap_err();
        assert_eq!(at, line, "{detail}");
        assert!(detail.contains(value), "{detail}");
    }
}
