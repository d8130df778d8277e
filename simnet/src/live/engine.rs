//! A live run from its scenario to its record.
//!
//! Each run has a thread of its own, armed before anything on it draws a random number, and a
//! runtime whose clock jumps from timer to timer.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use node::chain::embedded::{EmbeddedChain, EmbeddedConfig};
use tokio::time::{Instant, sleep, sleep_until};

use super::LiveError;
use super::batches::BatchWatch;
use super::book::Book;
use super::checks::Checker;
use super::clock::SimClock;
use super::faults::{Faults, end_us};
use super::hosts::{Hosts, Outside};
use super::machine::{self, Armed};
use super::miner::Miner;
use super::net::SimNet;
use super::network::{self, Network};
use super::traffic::{Traffic, micros_since};
use super::transcript::Transcript;
use crate::bench::machine::Stopwatch;
use crate::model::Control;
use crate::report::{Recorder, Sample};
use crate::scenario::Scenario;
use crate::topology::Topology;
use crate::workload::{Intent, micros};

/// Bytes of the stack of a run's thread: nodes are built on it.
const STACK_BYTES: usize = 64 << 20;
/// How long payments may take after the last has begun and all faults are over.
const DRAIN: Duration = Duration::from_secs(3_600);
/// Blocks that money from closed channels may take to come to rest.
const RESOLVE_BLOCKS: u32 = 700;
/// What nodes have between two of those blocks: they look after claims every half a minute.
const RESOLVE_BLOCK: Duration = Duration::from_secs(61);
/// How long channels may take to come back after faults.
const COME_BACK: Duration = Duration::from_secs(300);
/// A network of so many nodes at most is started again from its disks at the end.
const REPLAY_NODES_MAX: u32 = 50;
/// Randomness of what the operating system gives.
const SYSTEM: u64 = 6;

/// What a run leaves.
#[derive(Debug, Clone)]
pub struct Run {
    /// Payments, samples, counts.
    pub recorder: Recorder,
    /// The hash of every message delivered and every block, in hexadecimal.
    pub transcript_hash: String,
    /// Messages delivered.
    pub messages: u64,
    /// Processor time of the thread from the scenario's zero to its end, in seconds: without the
    /// making of the network, with the checks.
    pub cpu_seconds: f64,
    /// Processor time that making the network took, in seconds.
    pub setup_cpu_seconds: f64,
}

/// Runs a scenario on real nodes. `workload` is by time.
///
/// # Errors
///
/// [`LiveError`]; [`LiveError::Violated`] if a rule was broken.
pub fn run(
    scenario: &Scenario,
    topology: &Topology,
    workload: impl Iterator<Item = Intent> + Send,
    control: &Control,
) -> Result<Run, LiveError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("simulation".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || on_this_thread(scenario, topology, workload, control))
            .map_err(LiveError::Thread)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn on_this_thread(
    scenario: &Scenario,
    topology: &Topology,
    workload: impl Iterator<Item = Intent>,
    control: &Control,
) -> Result<Run, LiveError> {
    let armed = machine::arm(crate::random::Random::stream(scenario.seed, SYSTEM).number());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(LiveError::Thread)?;
    runtime.block_on(play(scenario, topology, workload, control, &armed))
}

async fn play(
    scenario: &Scenario,
    topology: &Topology,
    workload: impl Iterator<Item = Intent>,
    control: &Control,
    armed: &Armed,
) -> Result<Run, LiveError> {
    let watch = Stopwatch::start();
    let clock = SimClock::start();
    armed.set_clock(clock);
    if !armed.is_interposed() {
        return Err(LiveError::NotInterposed);
    }
    let transcript = Arc::new(Transcript::default());
    let latencies = network::latencies(scenario, topology);
    let usual = Duration::from_secs_f64(scenario.links.latency_ms[1] / 1e3);
    let outside = Outside {
        chain: EmbeddedChain::new(chain_config(scenario, topology)?, Arc::new(clock)),
        net: SimNet::new(clock, Arc::clone(&transcript), latencies, usual),
        clock,
        commit: Duration::from_micros(micros(scenario.links.processing_ms / 1e3)),
    };
    let made = network::make(outside, scenario, topology).await?;
    let setup_cpu_seconds = watch.cpu().as_secs_f64();
    let watch = Stopwatch::start();
    let stage = Stage::new(scenario, topology, made, Arc::clone(&transcript)).await?;
    stage.act(scenario, workload, control).await?;
    stage.end(scenario).await?;
    let recorder = stage.traffic.record(std::mem::take);
    let cpu_seconds = watch.cpu().as_secs_f64();
    for number in stage.hosts.numbers() {
        stage.hosts.stop(number).await;
    }
    Ok(Run {
        recorder,
        transcript_hash: transcript.hash(),
        messages: transcript.messages(),
        cpu_seconds,
        setup_cpu_seconds,
    })
}

/// A chain whose faucet has what the network needs.
fn chain_config(scenario: &Scenario, topology: &Topology) -> Result<EmbeddedConfig, LiveError> {
    let needed_sat = network::coins_needed_sat(scenario, topology);
    // Coinbases: 50 BTC up to height 149, 25 up to 299. 100 of them wait.
    let (mut blocks, mut has_sat) = (10_u32, 0_u64);
    while has_sat < needed_sat + 100_000_000 {
        blocks += 1;
        has_sat = (1..=blocks).map(|h| (5_000_000_000_u64).checked_shr(h / 150).unwrap_or(0)).sum();
        if blocks > 1_000 {
            return Err(LiveError::TooRich { needed_sat, has_sat });
        }
    }
    Ok(EmbeddedConfig { premine: blocks + 100, ..EmbeddedConfig::default() })
}

/// Everything that acts in a run.
struct Stage {
    hosts: Hosts,
    miner: Miner,
    faults: Faults,
    traffic: Traffic,
    checker: Checker,
    transcript: Arc<Transcript>,
    zero: Instant,
    book: Book,
}

impl Stage {
    async fn new(
        scenario: &Scenario,
        topology: &Topology,
        made: Network,
        transcript: Arc<Transcript>,
    ) -> Result<Self, LiveError> {
        let book = Book::new(&made, topology, scenario.batches.is_some());
        let Network { hosts, .. } = made;
        let zero = Instant::now();
        let outside = hosts.outside();
        let miner = {
            let (chain, transcript) = (outside.chain.clone(), Arc::clone(&transcript));
            Miner::new(chain, outside.clock, transcript, &scenario.chain)
        };
        let recorder = Recorder {
            nodes: topology.network.nodes.into(),
            channels: topology.network.channels.len() as u64,
            ..Recorder::default()
        };
        let faults = Faults::new(scenario, topology, hosts.clone(), miner.clone(), zero);
        let traffic = Traffic::new(hosts.clone(), scenario.senders, zero, scenario.seed, recorder);
        let watch = || BatchWatch::new(hosts.clone(), book.clone(), topology.hubs.clone());
        let batches = scenario.batches.is_some().then(watch);
        let checker = Checker::new(hosts.clone(), miner.clone(), book.clone(), batches).await?;
        Ok(Self { hosts, miner, faults, traffic, checker, transcript, zero, book })
    }

    /// Payments, faults, blocks and samples, until payments and faults are over.
    async fn act(
        &self,
        scenario: &Scenario,
        workload: impl Iterator<Item = Intent>,
        control: &Control,
    ) -> Result<(), LiveError> {
        let foreground = async {
            let begun = self.traffic.begin_all(workload, control);
            let (faults, ()) = futures::future::join(self.faults.run(), begun).await;
            faults?;
            sleep_until(self.zero + Duration::from_micros(until_us(scenario))).await;
            self.traffic.finish(DRAIN).await;
            Ok(())
        };
        let blocks = self.miner.run(Duration::from_secs_f64(scenario.chain.block_s));
        let background = futures::future::join(blocks, self.sample_for_ever(scenario));
        tokio::pin!(foreground, background);
        let done = match select(foreground, background).await {
            Either::Left((done, _)) => done,
            Either::Right((((), sampled), _)) => sampled,
        };
        self.sample();
        let end_us = micros_since(self.zero);
        self.traffic.record(|recorder| {
            recorder.end_us = end_us;
            recorder.totals.events = self.transcript.messages();
        });
        done
    }

    async fn sample_for_ever(&self, scenario: &Scenario) -> Result<(), LiveError> {
        let every = Duration::from_secs_f64(scenario.measure.sample_s);
        loop {
            self.sample();
            self.checker.step(&self.faults.excused())?;
            sleep(every).await;
        }
    }

    fn sample(&self) {
        let mut sample = Sample {
            at_us: micros_since(self.zero),
            payments_active: self.traffic.active(),
            ..Sample::default()
        };
        let (mut sum, mut sides) = (0.0, 0_u32);
        for number in self.hosts.numbers() {
            let Some(channels) = self.hosts.ask(number, |node| node.lightning.channels()) else {
                continue;
            };
            sample.nodes_online += 1;
            for channel in channels {
                let Some(capacity_sat) =
                    channel.funding.and_then(|funding| self.book.capacity_sat(funding))
                else {
                    continue;
                };
                let capacity_msat = capacity_sat * 1_000;
                let local = channel.local_msat as f64 / capacity_msat as f64;
                sum += (2.0 * local - 1.0).abs();
                sides += 1;
                // Each HTLC is outbound at one end.
                sample.htlcs += u64::from(channel.outbound_htlcs);
                if channel.outbound {
                    let at_rest = channel.local_msat + channel.remote_msat;
                    sample.htlc_msat += capacity_msat.saturating_sub(at_rest);
                }
            }
        }
        sample.imbalance = sum / f64::from(sides.max(1));
        if let Some(batches) = self.checker.batches() {
            sample.capital_locked_sat = batches.trees.held_sat();
            sample.exits_waiting = batches.exits_waiting();
        }
        let carried = self.miner.carried();
        sample.chain_vb = carried.vbytes;
        sample.chain_fee_sat = carried.fees_sat;
        sample.feerate_msat_per_vb = self.miner.feerate_msat_per_vb();
        self.traffic.record(|recorder| recorder.sample(sample));
    }

    /// Lets everything come to rest and looks whether all is there.
    async fn end(&self, scenario: &Scenario) -> Result<(), LiveError> {
        let excused = self.faults.excused();
        self.checker.comes_back(&excused, COME_BACK).await?;
        let mut blocks = 0;
        loop {
            // HTLCs that were on their way when payments ended.
            sleep(Duration::from_secs(5)).await;
            let exits = self.faults.exits().under_way;
            let under_way = match exits {
                0 => self.checker.under_way(&excused).await?,
                _ => Some(format!("{exits} users on their way out of batches")),
            };
            let Some(under_way) = under_way else { break };
            blocks += 1;
            if blocks > RESOLVE_BLOCKS {
                let what = format!("rest after {RESOLVE_BLOCKS} blocks ({under_way})");
                let seconds = u64::from(RESOLVE_BLOCKS) * RESOLVE_BLOCK.as_secs();
                return Err(LiveError::Late { what, seconds });
            }
            self.miner.mine(&bitcoin::ScriptBuf::new_op_return([]));
            sleep(RESOLVE_BLOCK).await;
        }
        let made = self.traffic.made();
        let cheated = self.faults.cheated();
        self.checker.at_rest(&made, &excused, &cheated).await?;
        if let Some(batches) = self.checker.batches() {
            let mut totals = self.traffic.record(|recorder| recorder.totals);
            batches.count(&mut totals).await?;
            let exits = self.faults.exits();
            totals.exits_done = exits.done;
            totals.exits_not_worth = exits.not_worth;
            totals.exits_late = exits.late;
            self.traffic.record(|recorder| recorder.totals = totals);
        }
        let count = cheated.len() as u64;
        self.traffic.record(|recorder| {
            recorder.totals.cheats = count;
            // Had one not been, the checker would not have let it pass.
            recorder.totals.cheats_punished = count;
        });
        if !scenario.faults.is_empty() && self.hosts.count() <= REPLAY_NODES_MAX {
            for number in self.hosts.numbers().filter(|number| !excused.contains(number)) {
                self.checker.replays(number).await?;
            }
        }
        Ok(())
    }
}

/// When the run ends at the earliest.
fn until_us(scenario: &Scenario) -> u64 {
    if scenario.faults.is_empty() {
        return micros(scenario.measure.until_s);
    }
    end_us(scenario).max(micros(scenario.measure.until_s))
}
