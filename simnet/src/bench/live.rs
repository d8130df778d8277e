//! The live engine's speed: payments of three hops between users of different hubs.
//!
//! Every user has one private channel to its hub and all hubs have channels with each other, so
//! that a payment from one hub's user to another's has no shorter way.

use std::collections::BTreeMap;
use std::path::Path;

use super::machine::peak_rss_bytes;
use super::{BenchError, Figures, Options};
use crate::live::run;
use crate::model::Control;
use crate::random::Random;
use crate::report::{Identity, Summary};
use crate::scenario::{Document, Engine};
use crate::topology::{Node, Topology};
use crate::workload::{Intent, micros};

/// One node of so many is a hub.
const NODES_PER_HUB: u32 = 100;
/// Randomness of who pays whom.
const PAIRS: u64 = 7;

/// The scenario that is measured.
fn text(options: &Options) -> String {
    let hubs = (options.nodes / NODES_PER_HUB).max(2);
    let users = options.nodes.saturating_sub(hubs).max(2);
    format!(
        "name = \"bench\"\nengines = [\"live\"]\nseed = {}\n\
         [topology]\nkind = \"hub_and_spoke\"\nhubs = {hubs}\nusers = {users}\n\
         hub_channel = {{ capacity_sat = 100_000_000 }}\n\
         user_channel = {{ capacity_sat = 10_000_000 }}\n\
         [channels]\nbalances = \"even\"\n[measure]\nsample_s = 60.0\n[[workload]]\n\
         payments = {}\narrivals = {{ kind = \"even\", per_second = {:?} }}\n\
         amounts = {{ kind = \"fixed\", msat = {} }}\n\
         pairs = {{ kind = \"random\", senders = \"users\", receivers = \"users\" }}\n",
        options.seed, options.payments, options.per_second, options.amount_msat
    )
}

/// Payments between users of different hubs.
fn three_hops<'a>(
    options: &'a Options,
    topology: &'a Topology,
) -> impl Iterator<Item = Intent> + Send + 'a {
    let mut random = Random::stream(options.seed, PAIRS);
    let hub_of = |place: usize| {
        let ends = topology.network.channels[topology.user_channel_start + place].ends;
        if ends[0] == topology.users[place] { ends[1] } else { ends[0] }
    };
    (0..options.payments).map(move |number| {
        let from = random.place(topology.users.len());
        let mut to = random.place(topology.users.len());
        while hub_of(to) == hub_of(from) {
            to = random.place(topology.users.len());
        }
        let node = |place: usize| -> Node { topology.users[place] };
        Intent {
            at_us: micros(number as f64 / options.per_second),
            from: node(from),
            to: node(to),
            amount_msat: options.amount_msat,
            hold_us: 0,
        }
    })
}

/// Measures the live engine. Making the network is not part of the time.
///
/// # Errors
///
/// If a rule is broken, or the network cannot be made.
pub fn measure_live(options: &Options) -> Result<Figures, BenchError> {
    let document = Document::parse(Path::new("bench.toml"), text(options))?;
    let scenario = document.scenario()?;
    scenario.check(Engine::Live, &document)?;
    let topology = scenario.build(&document)?;
    let payments = three_hops(options, &topology);
    let run = run(&scenario, &topology, payments, &Control::default())?;
    let identity = Identity::new("bench", Engine::Live, scenario.seed, BTreeMap::new());
    let summary = Summary::new(identity, &run.recorder, &scenario.measure);
    let cpu_seconds = run.cpu_seconds.max(1e-3);
    Ok(Figures {
        nodes: summary.nodes,
        channels: summary.channels,
        nodes_paying: topology.users.len() as u64,
        payments: summary.payments,
        amount_msat: options.amount_msat,
        payments_per_cpu_second: summary.payments as f64 / cpu_seconds,
        cpu_seconds,
        events_per_cpu_second: Some(run.messages as f64 / cpu_seconds),
        peak_rss_bytes: peak_rss_bytes(),
        success_rate: summary.success_rate,
        latency_p50_ms: summary.latency_p50_ms,
        attempts: summary.attempts,
        setup_cpu_seconds: Some(run.setup_cpu_seconds),
        transcript_hash: Some(run.transcript_hash),
        seed: options.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payments_of_three_hops_are_measured() {
        let options = Options {
            snapshot: None,
            nodes: 8,
            payments: 20,
            amount_msat: 10_000_000,
            per_second: 10.0,
            seed: 1,
        };
        let figures = measure_live(&options).unwrap();
        assert_eq!((figures.nodes, figures.payments), (8, 20));
        assert!((figures.success_rate.unwrap().mean - 1.0).abs() < 1e-9);
        assert_eq!(figures.transcript_hash.unwrap().len(), 64);
    }
}
