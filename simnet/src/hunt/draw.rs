//! Scenarios from a seed: small networks, short workloads, a few faults. Every fourth has users
//! in batches, which are about to roll over.

use crate::random::Random;
use crate::scenario::{
    Amounts, Arrivals, Balances, BatchSpec, ChainSpec, ChannelSpec, Engine, Fault, Hold, LinkSpec,
    MeasureSpec, Pairs, Scenario, SenderSpec, Stream, TermsSpec, TopologySpec, Who,
};

/// How long payments begin, in seconds of virtual time.
const LENGTH_S: f64 = 60.0;
/// Most faults of a scenario.
const FAULTS_MAX: u64 = 4;
/// Of so many seeds one has batches.
const BATCHES_EVERY: u64 = 4;
/// How long payments begin where there are batches.
const BATCHES_LENGTH_S: f64 = 300.0;
/// The life of those batches, in blocks.
const BATCHES_LIFE: u32 = 1_008;
/// The youngest and the oldest of them when the scenario begins. Some 498 blocks after its
/// confirmation users of a batch begin to move.
const BATCHES_AGE: [u32; 2] = [465, 496];
/// See [`BATCHES_AGE`].
const BATCHES_ROLL_AT: u32 = 498;

/// Whether the scenario of a seed has users in batches.
pub fn has_batches(seed: u64) -> bool {
    seed.is_multiple_of(BATCHES_EVERY)
}

/// The scenario of a seed.
pub fn draw(seed: u64) -> Scenario {
    if has_batches(seed) {
        return draw_batches(seed);
    }
    let mut random = Random::stream(seed, 0);
    let random = &mut random;
    let (topology, nodes) = topology(random);
    let faults = (0..random.below(FAULTS_MAX + 1)).map(|_| fault(random, nodes)).collect();
    Scenario {
        name: format!("hunt-{seed}"),
        about: String::new(),
        engines: vec![Engine::Live],
        seed,
        topology,
        channels: ChannelSpec {
            balances: random.choose(&[Balances::Even, Balances::Uniform]),
            htlc_slots: random.choose(&[5, 30, 114]),
            ..ChannelSpec::default()
        },
        links: LinkSpec {
            latency_ms: random.choose(&[[1.0, 1.0], [10.0, 80.0], [100.0, 400.0]]),
            processing_ms: random.choose(&[0.0, 2.0]),
        },
        senders: SenderSpec {
            parts_max: random.choose(&[1, 4]),
            retry_for_s: random.choose(&[5.0, 60.0]),
            ..SenderSpec::default()
        },
        batches: None,
        chain: ChainSpec {
            block_s: random.choose(&[10.0, 60.0, 600.0]),
            feerate_sat_per_vb: random.choose(&[1, 5, 50]),
            ..ChainSpec::default()
        },
        workload: (0..1 + random.below(2)).map(|_| stream(random)).collect(),
        faults,
        measure: MeasureSpec { sample_s: 1.0, until_s: LENGTH_S, ..MeasureSpec::default() },
    }
}

/// A hub or two, a few users in batches, and faults where these roll over.
fn draw_batches(seed: u64) -> Scenario {
    let mut random = Random::stream(seed, 0);
    let random = &mut random;
    let (hubs, users) = (1 + u32::from(random.below(5) == 0), 2 + random.below(5) as u32);
    let capacity_sat = random.choose(&[50_000, 200_000, 1_000_000]);
    let user_channel = TermsSpec { capacity_sat, cltv_expiry_delta: 96, ..TermsSpec::default() };
    let hub_channel = TermsSpec { capacity_sat: capacity_sat * 10, ..TermsSpec::default() };
    let [youngest, oldest] = BATCHES_AGE;
    let age_blocks = youngest + random.below(u64::from(oldest - youngest) + 1) as u32;
    let block_s = random.choose(&[2.0, 5.0, 10.0]);
    let rolls_at_s = f64::from(BATCHES_ROLL_AT - age_blocks) * block_s;
    let count = 1 + random.below(FAULTS_MAX);
    let faults = (0..count).map(|_| batch_fault(random, hubs, hubs + users, rolls_at_s)).collect();
    Scenario {
        name: format!("hunt-{seed}"),
        about: String::new(),
        engines: vec![Engine::Live],
        seed,
        topology: TopologySpec::HubAndSpoke { hubs, users, hub_channel, user_channel },
        channels: ChannelSpec {
            balances: random.choose(&[
                Balances::Even,
                Balances::Uniform,
                Balances::First,
                Balances::Second,
            ]),
            htlc_slots: random.choose(&[30, 114]),
            ..ChannelSpec::default()
        },
        links: LinkSpec {
            latency_ms: random.choose(&[[1.0, 1.0], [10.0, 80.0], [100.0, 400.0]]),
            processing_ms: random.choose(&[0.0, 2.0]),
        },
        senders: SenderSpec { retry_for_s: 5.0, ..SenderSpec::default() },
        batches: Some(BatchSpec {
            users_max: random.choose(&[2, 3, 8]),
            lifetime_blocks: BATCHES_LIFE,
            age_blocks,
            tower_ppm: 0,
            ..BatchSpec::default()
        }),
        chain: ChainSpec {
            block_s,
            feerate_sat_per_vb: random.choose(&[1, 2, 10]),
            ..ChainSpec::default()
        },
        workload: vec![Stream {
            arrivals: Arrivals::Poisson { per_second: random.choose(&[0.1, 0.5, 1.0]) },
            amounts: Some(Amounts::LogUniform { min_msat: 1, max_msat: 20_000_000 }),
            pairs: Some(Pairs::Random { senders: Who::All, receivers: Who::All }),
            payments: None,
            duration_s: Some(BATCHES_LENGTH_S),
            start_s: 0.0,
            hold: match random.below(4) {
                0 => Hold::Exponential { mean_ms: 5_000.0 },
                _ => Hold::None,
            },
        }],
        faults,
        measure: MeasureSpec { sample_s: 5.0, until_s: BATCHES_LENGTH_S, ..MeasureSpec::default() },
    }
}

/// A fault, most often while users roll over: `rolls_at_s` is when they begin to.
fn batch_fault(random: &mut Random, hubs: u32, nodes: u32, rolls_at_s: f64) -> Fault {
    let tenths = |random: &mut Random, most: u64| random.below(most * 10 + 1) as f64 / 10.0;
    // Whole tenths: what is printed is what is read.
    let round = |seconds: f64| libm::round(seconds * 10.0) / 10.0;
    let is_near = random.below(4) > 0;
    let from_s = match is_near {
        true => round((rolls_at_s - 5.0).max(0.1) + tenths(random, 60)),
        false => round(0.1 + tenths(random, BATCHES_LENGTH_S as u64 - 60)),
    };
    let to_s = round(from_s + 0.5 + tenths(random, 59));
    // A hub has a part in everything.
    let node = match random.below(2) {
        0 => random.below(hubs.into()) as u32,
        _ => random.below(nodes.into()) as u32,
    };
    let other = (node + 1 + random.below(u64::from(nodes) - 1) as u32) % nodes;
    match random.below(13) {
        0..=4 => Fault::Crash {
            node,
            at_s: from_s,
            for_s: tenths(random, 20),
            write: random.below(60),
            kept: random.below(2) == 0,
        },
        5 => Fault::Cut { nodes: [node, other], from_s, to_s, one_way: random.below(2) == 0 },
        6 => Fault::Offline { nodes: vec![node], from_s, to_s },
        7 => Fault::SlowDisk { node, from_s, to_s, sync_ms: round(0.1 + tenths(random, 400)) },
        8 | 9 => Fault::Reorg { at_s: from_s, depth: 1 + random.below(6) as u32 },
        10 => Fault::FeeSpike { from_s, to_s, sat_per_vb: random.choose(&[20, 60]) },
        11 if node >= hubs => Fault::OldSnapshot { node, at_s: to_s, age_s: round(to_s - from_s) },
        _ => Fault::MassExit { at_s: from_s, share_ppm: random.choose(&[300_000, 1_000_000]) },
    }
}

fn topology(random: &mut Random) -> (TopologySpec, u32) {
    let capacity_sat = random.choose(&[100_000, 1_000_000, 10_000_000]);
    let terms = TermsSpec { capacity_sat, ..TermsSpec::default() };
    match random.below(3) {
        0 => {
            let nodes = 2 + random.below(4) as u32;
            (TopologySpec::Line { nodes, channel: terms }, nodes)
        }
        1 => {
            let (hubs, users) = (1 + random.below(2) as u32, 2 + random.below(4) as u32);
            let kind = TopologySpec::HubAndSpoke {
                hubs,
                users,
                hub_channel: TermsSpec { capacity_sat: capacity_sat * 10, ..terms },
                user_channel: terms,
            };
            (kind, hubs + users)
        }
        _ => (TopologySpec::Lattice { width: 2, height: 2, channel: terms }, 4),
    }
}

fn stream(random: &mut Random) -> Stream {
    let most = random.choose(&[100_000, 5_000_000, 40_000_000]);
    Stream {
        arrivals: match random.below(3) {
            0 => Arrivals::Burst { size: 1 + random.below(20), every_s: 5.0 },
            _ => Arrivals::Poisson { per_second: random.choose(&[0.5, 2.0, 8.0]) },
        },
        amounts: Some(Amounts::LogUniform { min_msat: 1, max_msat: most }),
        pairs: Some(Pairs::Random { senders: Who::All, receivers: Who::All }),
        payments: Some(20 + random.below(200)),
        duration_s: Some(LENGTH_S),
        start_s: 0.0,
        hold: match random.below(4) {
            0 => Hold::Exponential { mean_ms: 3_000.0 },
            _ => Hold::None,
        },
    }
}

fn fault(random: &mut Random, nodes: u32) -> Fault {
    // Whole tenths: what is printed is what is read.
    let tenths = |random: &mut Random, from: u64, to: u64| {
        (from * 10 + random.below((to - from) * 10 + 1)) as f64 / 10.0
    };
    let from_s = tenths(random, 1, 50);
    let to_s = from_s + tenths(random, 1, 40);
    let node = random.below(nodes.into()) as u32;
    let other = (node + 1 + random.below(u64::from(nodes) - 1) as u32) % nodes;
    match random.below(10) {
        0 | 1 => Fault::Crash {
            node,
            at_s: from_s,
            for_s: tenths(random, 0, 20),
            write: random.below(8),
            kept: random.below(2) == 0,
        },
        2 => Fault::Cut { nodes: [node, other], from_s, to_s, one_way: false },
        3 => Fault::Cut { nodes: [node, other], from_s, to_s, one_way: true },
        4 => Fault::Offline { nodes: vec![node], from_s, to_s },
        5 => Fault::SlowDisk { node, from_s, to_s, sync_ms: tenths(random, 1, 400) },
        6 => Fault::Reorg { at_s: from_s, depth: 1 + random.below(6) as u32 },
        7 => Fault::FeeSpike { from_s, to_s, sat_per_vb: random.choose(&[20, 200]) },
        8 => Fault::ClockSkew { node, from_s, to_s, offset_s: tenths(random, 0, 600) - 300.0 },
        _ => match random.below(2) {
            0 => Fault::LostSync { node, at_s: from_s, for_s: tenths(random, 1, 10) },
            _ => Fault::OldSnapshot { node, at_s: to_s, age_s: to_s - from_s + 0.5 },
        },
    }
}
