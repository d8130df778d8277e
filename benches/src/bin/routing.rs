//! Pathfinding against LDK's own, on the same requests.
//!
//! `cargo run --release -p benches --bin routing -- --snapshot FILE --queries 1000 --json`.
//! Without a file the network is generated. Payers and payees are drawn from the largest set of
//! nodes that can all pay each other. Costs are what LDK minimises, fees and the scorer's
//! penalties, worked out for both routes by one function.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use benches::network::{Graph, Known, Liquidity, Silent};
use benches::percentile_ms;
use bitcoin::secp256k1::PublicKey;
use clap::Parser;
use lightning::routing::gossip::NodeId;
use lightning::routing::router::{
    CandidateRouteHop, DefaultRouter, InFlightHtlcs, PaymentParameters, PublicHopCandidate, Route,
    RouteParameters, Router,
};
use lightning::routing::scoring::{
    ChannelUsage, ProbabilisticScorer, ProbabilisticScoringDecayParameters,
    ProbabilisticScoringFeeParameters, ScoreLookUp,
};
use lightning::sign::EntropySource;
use node::lightning::pathfinding::{FastRouter, JournalingScorer};
use serde::Serialize;
use simnet::random::Random;
use simnet::topology::generate::scale_free;
use simnet::topology::{Network, Node, snapshot};

/// What to measure.
#[derive(Debug, Parser)]
struct Arguments {
    /// A compressed gossip store; without it a network is generated.
    #[arg(long)]
    snapshot: Option<PathBuf>,
    /// Nodes of a generated network.
    #[arg(long, default_value_t = 5_000)]
    nodes: u32,
    /// Requests per measurement.
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Payments from which a scorer learns.
    #[arg(long, default_value_t = 2_000)]
    lessons: usize,
    /// Chooses the requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

type Scorer = JournalingScorer<ProbabilisticScorer<Arc<Graph>, Silent>>;
type Fast = FastRouter<Silent, Fixed, Scorer>;

/// The same "random" bytes always: one seed, one result.
#[derive(Clone, Copy)]
struct Fixed;

impl EntropySource for Fixed {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        [7; 32]
    }
}

/// A kind of payment.
#[derive(Clone, Copy)]
struct Payment {
    amount_msat: u64,
    in_parts: bool,
}

#[derive(Serialize)]
struct Report {
    nodes: u32,
    channels: usize,
    component_nodes: usize,
    snapshot_nodes: usize,
    snapshot_edges: usize,
    snapshot_bytes: usize,
    snapshot_build_ms: f64,
    refresh_unchanged_ms: f64,
    queries: usize,
    seed: u64,
    measurements: Vec<Measurement>,
}

#[derive(Serialize)]
struct Measurement {
    payers: &'static str,
    scorer: &'static str,
    amount_msat: u64,
    in_parts: bool,
    cost_no_worse_share: f64,
    cost_better_share: f64,
    worst_cost_ratio: f64,
    success_agreement: f64,
    ldk_found: usize,
    ours_found: usize,
    speed_ratio: f64,
    ldk_fees_msat: u64,
    ours_fees_msat: u64,
    ldk: Times,
    ours: Times,
}

#[derive(Serialize)]
struct Times {
    mean_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let total: Duration = times.iter().sum();
        Self {
            mean_ms: total.as_secs_f64() * 1_000.0 / times.len().max(1) as f64,
            p50_ms: percentile_ms(&times, 50),
            p99_ms: percentile_ms(&times, 99),
        }
    }
}

/// Both routers over one graph and one scorer.
struct Bench {
    known: Known,
    scorer: Arc<RwLock<Scorer>>,
    ldk: DefaultRouter<
        Arc<Graph>,
        Silent,
        Fixed,
        Arc<RwLock<Scorer>>,
        ProbabilisticScoringFeeParameters,
        Scorer,
    >,
    ours: Fast,
}

impl Bench {
    fn new(known: Known) -> Self {
        let graph = Arc::clone(&known.graph);
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = ProbabilisticScorer::new(decay, Arc::clone(&graph), Silent);
        let scorer = Arc::new(RwLock::new(JournalingScorer::new(scorer)));
        let fees = ProbabilisticScoringFeeParameters::default;
        let ldk =
            DefaultRouter::new(Arc::clone(&graph), Silent, Fixed, Arc::clone(&scorer), fees());
        let ours = FastRouter::new(graph, Silent, Fixed, Arc::clone(&scorer), fees());
        Self { known, scorer, ldk, ours }
    }

    fn request(&self, payee: Node, payment: Payment) -> RouteParameters {
        let payee = self.known.keys[payee as usize];
        let parameters = PaymentParameters::for_keysend(payee, 40, payment.in_parts);
        let mut request =
            RouteParameters::from_payment_params_and_value(parameters, payment.amount_msat);
        if !payment.in_parts {
            request.payment_params.max_path_count = 1;
        }
        request
    }

    /// Lets the scorer learn from payments whose fate hidden balances decide.
    fn teach(&self, pairs: &[(Node, Node)], payments: &[Payment], seed: u64) {
        let liquidity = Liquidity::new(seed);
        let mut now = Duration::from_secs(1_700_000_000);
        for (pair, payment) in pairs.iter().zip(payments.iter().cycle()) {
            let payer = self.known.keys[pair.0 as usize];
            let request = self.request(pair.1, *payment);
            let found = self.ours.find_route(&payer, &request, None, InFlightHtlcs::new());
            now += Duration::from_secs(1);
            for path in found.map(|route| route.paths).unwrap_or_default() {
                let mut scorer = self.scorer.write().expect("nobody panics with it");
                liquidity.send(&path, &payer, &self.known.graph, &mut *scorer, now);
            }
        }
    }

    /// What LDK minimises: fees, and the penalties of all channels, msat.
    fn cost(&self, payer: &PublicKey, route: &Route) -> u64 {
        let scorer = self.scorer.read().expect("nobody panics with it");
        let parameters = ProbabilisticScoringFeeParameters::default();
        let graph = self.known.graph.read_only();
        let mut used: HashMap<(u64, NodeId), u64> = HashMap::new();
        let mut cost = route.get_total_fees();
        for path in &route.paths {
            let mut amount_msat = 0;
            for (place, hop) in path.hops.iter().enumerate().rev() {
                amount_msat += hop.fee_msat;
                let target = NodeId::from_pubkey(&hop.pubkey);
                let source = match place.checked_sub(1) {
                    Some(before) => NodeId::from_pubkey(&path.hops[before].pubkey),
                    None => NodeId::from_pubkey(payer),
                };
                let short_channel_id = hop.short_channel_id;
                let used = used.entry((short_channel_id, source)).or_insert(0);
                let channel = graph.channel(short_channel_id).expect("a route uses known channels");
                let (info, _) = channel.as_directed_to(&target).expect("in both directions");
                let usage = ChannelUsage {
                    amount_msat,
                    inflight_htlc_msat: *used,
                    effective_capacity: info.effective_capacity(),
                };
                let hop = PublicHopCandidate { info, short_channel_id };
                let candidate = CandidateRouteHop::PublicHop(hop);
                let penalty = scorer.channel_penalty_msat(&candidate, usage, &parameters);
                cost = cost.saturating_add(penalty);
                *used += amount_msat;
            }
        }
        cost
    }

    fn measure(
        &self,
        payers: &'static str,
        scorer: &'static str,
        pairs: &[(Node, Node)],
        payment: Payment,
    ) -> Measurement {
        let mut ldk_times = Vec::with_capacity(pairs.len());
        let mut our_times = Vec::with_capacity(pairs.len());
        let (mut agree, mut both, mut no_worse, mut better) = (0, 0, 0, 0);
        let (mut ldk_found, mut ours_found) = (0, 0);
        let (mut ldk_fees_msat, mut ours_fees_msat) = (0, 0);
        let mut worst_cost_ratio: f64 = 0.0;
        for (payer, payee) in pairs {
            let payer = self.known.keys[*payer as usize];
            let request = self.request(*payee, payment);
            let start = Instant::now();
            let theirs = self.ldk.find_route(&payer, &request, None, InFlightHtlcs::new());
            ldk_times.push(start.elapsed());
            let start = Instant::now();
            let ours = self.ours.find_route(&payer, &request, None, InFlightHtlcs::new());
            our_times.push(start.elapsed());
            agree += usize::from(theirs.is_ok() == ours.is_ok());
            ldk_found += usize::from(theirs.is_ok());
            ours_found += usize::from(ours.is_ok());
            let (Ok(theirs), Ok(ours)) = (theirs, ours) else { continue };
            let costs = (self.cost(&payer, &theirs), self.cost(&payer, &ours));
            both += 1;
            no_worse += usize::from(costs.1 <= costs.0);
            better += usize::from(costs.1 < costs.0);
            worst_cost_ratio = worst_cost_ratio.max(costs.1 as f64 / costs.0.max(1) as f64);
            ldk_fees_msat += theirs.get_total_fees();
            ours_fees_msat += ours.get_total_fees();
        }
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        let (ldk, ours) = (Times::of(ldk_times), Times::of(our_times));
        Measurement {
            payers,
            scorer,
            amount_msat: payment.amount_msat,
            in_parts: payment.in_parts,
            cost_no_worse_share: share(no_worse, both),
            cost_better_share: share(better, both),
            worst_cost_ratio,
            success_agreement: share(agree, pairs.len()),
            ldk_found,
            ours_found,
            speed_ratio: ldk.mean_ms / ours.mean_ms,
            ldk_fees_msat,
            ours_fees_msat,
            ldk,
            ours,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let network = match &arguments.snapshot {
        Some(path) => {
            let name = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
            let file = std::fs::read(path).map_err(|error| name(&error))?;
            snapshot::read(&file).map_err(|error| name(&error))?
        }
        None => scale_free(arguments.nodes, 8, arguments.seed),
    };
    let report = run(&arguments, &network)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn run(arguments: &Arguments, network: &Network) -> Result<Report, &'static str> {
    let component = network.largest_strong_component();
    if component.len() < 2 {
        return Err("no two nodes of this network can pay each other");
    }
    let mut random = Random::new(arguments.seed);
    let mut draw = |count: usize, from: Option<Node>| -> Vec<(Node, Node)> {
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let payer = from.unwrap_or_else(|| random.choose(&component));
            let payee = random.choose(&component);
            if payer != payee {
                pairs.push((payer, payee));
            }
        }
        pairs
    };
    let anybody = draw(arguments.queries, None);
    let payer = anybody[0].0;
    let from_one = draw(arguments.queries, Some(payer));
    let lessons = draw(arguments.lessons, None);
    let payments = [
        Payment { amount_msat: 10_000_000, in_parts: false },
        Payment { amount_msat: 100_000_000, in_parts: true },
    ];

    let known = Known::new(network);
    let start = Instant::now();
    let bench = Bench::new(known);
    let snapshot_build_ms = start.elapsed().as_secs_f64() * 1_000.0;
    let start = Instant::now();
    bench.ours.refresh();
    let refresh_unchanged_ms = start.elapsed().as_secs_f64() * 1_000.0;
    let mut measurements = Vec::new();
    for scorer in ["fresh", "learnt"] {
        if scorer == "learnt" {
            bench.teach(&lessons, &payments, arguments.seed);
        }
        for payment in payments {
            for (payers, pairs) in [("one", &from_one), ("any", &anybody)] {
                measurements.push(bench.measure(payers, scorer, pairs, payment));
            }
        }
    }
    let snapshot = bench.ours.snapshot();
    Ok(Report {
        nodes: network.nodes,
        channels: network.channels.len(),
        component_nodes: component.len(),
        snapshot_nodes: snapshot.node_count(),
        snapshot_edges: snapshot.edge_count(),
        snapshot_bytes: snapshot.memory_bytes(),
        snapshot_build_ms,
        refresh_unchanged_ms,
        queries: arguments.queries,
        seed: arguments.seed,
        measurements,
    })
}

fn print(report: &Report) {
    println!(
        "{} nodes, {} channels; snapshot of {} edges in {:.1} ms, {} bytes",
        report.nodes,
        report.channels,
        report.snapshot_edges,
        report.snapshot_build_ms,
        report.snapshot_bytes
    );
    for m in &report.measurements {
        println!(
            "{:>6} scorer, payer {:>3}, {:>9} sat{}: no worse {:.4} (better {:.4}, worst x{:.3}), \
             agree {:.4}, found {}/{}, x{:.1} (LDK {:.3}/{:.3}/{:.3} ms, ours {:.3}/{:.3}/{:.3} ms), \
             fees {} / {}",
            m.scorer,
            m.payers,
            m.amount_msat / 1_000,
            if m.in_parts { " in parts" } else { "" },
            m.cost_no_worse_share,
            m.cost_better_share,
            m.worst_cost_ratio,
            m.success_agreement,
            m.ours_found,
            m.ldk_found,
            m.speed_ratio,
            m.ldk.mean_ms,
            m.ldk.p50_ms,
            m.ldk.p99_ms,
            m.ours.mean_ms,
            m.ours.p50_ms,
            m.ours.p99_ms,
            m.ours_fees_msat,
            m.ldk_fees_msat,
        );
    }
}
