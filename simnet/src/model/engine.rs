//! The engine: takes events by time and lets them happen.
//!
//! `sender.rs` has what senders do, `htlc.rs` what happens to HTLCs, `world.rs` what happens to
//! nodes, `batches.rs` and `exits.rs` what happens to batches and on chain. All of them are
//! methods of [`Engine`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::batches::Batches;
use super::events::{Event, Queue};
use super::exits::Exits;
use super::graph::Graph;
use super::lanes::Lanes;
use super::memory::Memory;
use super::payments::Payments;
use super::router::{CostTerms, Hop, Router};
use super::world::World;
use crate::report::{Outcome, PaymentRecord, Recorder};
use crate::scenario::{Amounts, Scenario};
use crate::topology::Topology;
use crate::workload::{Intent, micros};

/// Bytes of kept searches that a run may have.
pub const SEARCH_BYTES: u64 = 128 << 20;

/// What a run is watched and stopped by.
#[derive(Debug, Default)]
pub struct Control {
    /// Set it to end the run early.
    pub stop: AtomicBool,
    /// Payments begun.
    pub begun: AtomicU64,
}

/// A run of the model.
///
/// ```
/// use std::path::Path;
///
/// use simnet::model::{Control, Engine};
/// use simnet::scenario::Document;
/// use simnet::workload::Workload;
///
/// let text = r#"
///     name = "three in a row"
///     engines = ["model"]
///     seed = 1
///     topology = { kind = "line", nodes = 3 }
///     channels = { balances = "even" }
///     [[workload]]
///     arrivals = { kind = "poisson", per_second = 10.0 }
///     amounts = { kind = "fixed", msat = 1000 }
///     pairs = { kind = "fixed", from = 0, to = 2 }
///     payments = 50
/// "#;
/// let document = Document::parse(Path::new("row.toml"), text.to_owned())?;
/// let scenario = document.scenario()?;
/// let topology = scenario.build(&document)?;
/// let workload = Workload::new(&scenario, &topology, document.folder())?;
/// let recorder = Engine::new(&scenario, &topology, 1 << 20).run(workload, &Control::default());
/// assert!(recorder.payments.iter().all(|payment| payment.succeeded() && payment.hops == 2));
/// # Ok::<(), simnet::scenario::ScenarioError>(())
/// ```
pub struct Engine<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) topology: &'a Topology,
    pub(super) now_us: u64,
    pub(super) graph: Graph,
    pub(super) router: Router,
    pub(super) lanes: Lanes,
    pub(super) memory: Memory,
    pub(super) payments: Payments,
    pub(super) queue: Queue,
    pub(super) world: World,
    pub(super) batches: Batches,
    pub(super) exits: Exits,
    pub(super) recorder: Recorder,
    pub(super) route: Vec<Hop>,
    pub(super) processing_us: u64,
    pub(super) block_us: u64,
}

impl<'a> Engine<'a> {
    /// Prepares a run. `scenario` and `topology` have been checked.
    pub fn new(scenario: &'a Scenario, topology: &'a Topology, search_bytes: u64) -> Self {
        let graph = Graph::new(&topology.network);
        let senders = &scenario.senders;
        let terms = CostTerms::new(
            senders.hop_penalty_msat,
            senders.risk_per_billion_and_block,
            senders.liquidity_penalty_msat,
        );
        let usual: Vec<u64> = scenario
            .workload
            .iter()
            .filter_map(|stream| match stream.amounts {
                Some(Amounts::Fixed { msat }) => Some(msat),
                _ => None,
            })
            .collect();
        let recorder = Recorder {
            nodes: topology.network.nodes.into(),
            channels: topology.network.channels.len() as u64,
            ..Recorder::default()
        };
        let mut engine = Self {
            scenario,
            topology,
            now_us: 0,
            router: Router::new(&graph, terms, &usual, search_bytes),
            lanes: Lanes::new(topology, &scenario.channels, &scenario.links, scenario.seed),
            memory: Memory::new(graph.nodes(), senders),
            graph,
            payments: Payments::default(),
            queue: Queue::default(),
            world: World::new(scenario, topology),
            batches: Batches::new(scenario, topology),
            exits: Exits::default(),
            recorder,
            route: Vec::new(),
            processing_us: micros(scenario.links.processing_ms / 1e3),
            block_us: micros(scenario.chain.block_s).max(1),
        };
        engine.schedule_world();
        engine
    }

    /// Runs to the end of `workload` and of what follows from it.
    pub fn run(mut self, workload: impl Iterator<Item = Intent>, control: &Control) -> Recorder {
        let mut workload = workload.peekable();
        let until_us = micros(self.scenario.measure.until_s);
        let mut partial = false;
        loop {
            if self.recorder.totals.events.is_multiple_of(1_024)
                && control.stop.load(Ordering::Relaxed)
            {
                partial = true;
                break;
            }
            let intent_at = workload.peek().map(|intent| intent.at_us);
            let event_at = self.queue.next_at();
            let idle = intent_at.is_none() && self.payments.active() == 0;
            let next_at = match (intent_at, event_at) {
                (None, None) => break,
                (Some(at), None) | (None, Some(at)) => at,
                (Some(one), Some(other)) => one.min(other),
            };
            if idle && next_at > until_us && !self.exits.are_waiting() {
                break;
            }
            self.now_us = next_at;
            self.recorder.totals.events += 1;
            // Events first: what is over at a moment is over for a payment that begins then.
            if event_at == Some(next_at) {
                if let Some((_, event)) = self.queue.pop() {
                    self.handle(event);
                }
            } else if let Some(intent) = workload.next() {
                control.begun.fetch_add(1, Ordering::Relaxed);
                self.begin(intent);
            }
        }
        self.finish(partial)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Locked { part, hop } => self.locked(part, hop),
            Event::Fulfilled { part, hop } => self.fulfilled(part, hop),
            Event::Failed { part, hop } => self.failed(part, hop),
            Event::Removed { lane, amount_msat } => self.lanes.unlock(lane, amount_msat, true),
            Event::Settle { payment, generation } => self.settle(payment, generation),
            Event::Impatient { part } => self.impatient(part),
            Event::Expiry { part, hop } => self.expiry(part, hop),
            Event::Toggle { node } => self.toggle(node),
            Event::Leave { node } => self.leave(node),
            Event::Return { node } => self.come_back(node),
            Event::Sample => self.sample(),
            Event::Block => self.block(),
            Event::Fault { place } => self.fault(place),
        }
    }

    fn finish(mut self, partial: bool) -> Recorder {
        assert!(self.lanes.is_conserved(), "a channel holds what it was funded with");
        let unfinished: Vec<PaymentRecord> = self
            .payments
            .undecided()
            .map(|payment| PaymentRecord {
                at_us: payment.intent.at_us,
                from: payment.intent.from,
                to: payment.intent.to,
                amount_msat: payment.intent.amount_msat,
                outcome: Outcome::Unfinished,
                latency_us: self.now_us - payment.intent.at_us,
                fee_msat: 0,
                attempts: payment.attempts.into(),
                parts: 0,
                hops: payment.hops_max,
            })
            .collect();
        self.recorder.payments.extend(unfinished);
        self.add_sample();
        self.recorder.end_us = self.now_us;
        self.recorder.partial = partial;
        self.recorder
    }
}
