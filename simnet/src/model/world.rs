//! What happens to nodes: they come and go; and what is looked at from time to time.

use super::engine::Engine;
use super::events::{Event, PartRef};
use crate::random::Random;
use crate::report::Sample;
use crate::scenario::{Fault, Scenario, members};
use crate::topology::{Node, Topology};
use crate::workload::micros;

/// Randomness of nodes that come and go.
const CHURN: u64 = 1 << 40;

/// A node that comes and goes.
struct Restless {
    node: Node,
    random: Random,
    mean_up_us: f64,
    mean_down_us: f64,
    up: bool,
}

/// Who is there, and what waits for whom.
pub(super) struct World {
    /// Reasons for which a node is away.
    away: Vec<u16>,
    waiting: Vec<Vec<Event>>,
    restless: Vec<Restless>,
    spikes: Vec<(u64, u64, u64)>,
}

impl World {
    pub fn new(scenario: &Scenario, topology: &Topology) -> Self {
        let nodes = topology.network.nodes as usize;
        let (mut restless, mut spikes) = (Vec::new(), Vec::new());
        for (place, fault) in (0..).zip(&scenario.faults) {
            match fault {
                Fault::Churn { share_ppm, among, mean_up_s, mean_down_s } => {
                    let mut draw = Random::stream(scenario.seed, CHURN + place);
                    for node in members(topology, *among) {
                        let random = Random::stream(draw.number(), u64::from(node));
                        if draw.below(1_000_000) < u64::from(*share_ppm) {
                            let (mean_up_us, mean_down_us) = (mean_up_s * 1e6, mean_down_s * 1e6);
                            restless.push(Restless {
                                node,
                                random,
                                mean_up_us,
                                mean_down_us,
                                up: true,
                            });
                        }
                    }
                }
                Fault::FeeSpike { from_s, to_s, sat_per_vb } => {
                    spikes.push((micros(*from_s), micros(*to_s), *sat_per_vb));
                }
                _ => {}
            }
        }
        Self { away: vec![0; nodes], waiting: vec![Vec::new(); nodes], restless, spikes }
    }

    pub fn is_online(&self, node: Node) -> bool {
        self.away[node as usize] == 0
    }

    /// Keeps an event until a node is back.
    pub fn wait(&mut self, node: Node, event: Event) {
        self.waiting[node as usize].push(event);
    }

    /// Forgets that a failure of `part` at `hop` waits for somebody; tells whether it did.
    pub fn drop_failed(&mut self, part: PartRef, hop: u8) -> bool {
        let wanted = Event::Failed { part, hop };
        for events in &mut self.waiting {
            if let Some(place) = events.iter().position(|event| *event == wanted) {
                events.remove(place);
                return true;
            }
        }
        false
    }

    fn feerate_sat_per_vb(&self, usual: u64, now_us: u64) -> u64 {
        let active = self.spikes.iter().filter(|(from, to, _)| (*from..*to).contains(&now_us));
        active.map(|(_, _, rate)| *rate).fold(usual, u64::max)
    }
}

impl Engine<'_> {
    /// Puts into the queue what happens by itself.
    pub(super) fn schedule_world(&mut self) {
        self.queue.push(0, Event::Sample);
        for place in 0..self.world.restless.len() {
            self.schedule_toggle(place);
        }
        for (place, fault) in (0..).zip(&self.scenario.faults) {
            match fault {
                Fault::Offline { nodes, from_s, to_s } => {
                    for node in nodes {
                        self.queue.push(micros(*from_s), Event::Leave { node: *node });
                        self.queue.push(micros(*to_s), Event::Return { node: *node });
                    }
                }
                Fault::MassExit { at_s, .. } | Fault::Cheat { at_s, .. } => {
                    self.queue.push(micros(*at_s), Event::Fault { place });
                }
                _ => {}
            }
        }
        if self.scenario.batches.is_some() {
            self.open_first_batches();
            self.queue.push(self.block_us, Event::Block);
        }
    }

    fn schedule_toggle(&mut self, place: usize) {
        let restless = &mut self.world.restless[place];
        let mean_us = if restless.up { restless.mean_up_us } else { restless.mean_down_us };
        let stays_us = restless.random.exponential(mean_us).max(1.0) as u64;
        let at_us = self.now_us.saturating_add(stays_us);
        self.queue.push(at_us, Event::Toggle { node: place as u32 });
    }

    /// A node that comes and goes does so. `place` is its place among those.
    pub(super) fn toggle(&mut self, place: u32) {
        let restless = &mut self.world.restless[place as usize];
        restless.up = !restless.up;
        let (node, up) = (restless.node, restless.up);
        self.schedule_toggle(place as usize);
        if up { self.come_back(node) } else { self.leave(node) }
    }

    /// A node is away from now on.
    pub(super) fn leave(&mut self, node: Node) {
        self.world.away[node as usize] += 1;
    }

    /// A reason to be away is over.
    pub(super) fn come_back(&mut self, node: Node) {
        let away = &mut self.world.away[node as usize];
        *away = away.saturating_sub(1);
        if *away == 0 {
            for event in std::mem::take(&mut self.world.waiting[node as usize]) {
                self.resume(event);
            }
        }
    }

    /// What a transaction pays now, msat/vB: more where many wait for room.
    pub(super) fn feerate(&self) -> u64 {
        let chain = &self.scenario.chain;
        let plain = self.world.feerate_sat_per_vb(chain.feerate_sat_per_vb, self.now_us) * 1_000;
        plain + plain * self.exits.backlog_vb() / chain.room_vb
    }

    /// Takes a sample and asks for the next.
    pub(super) fn sample(&mut self) {
        self.add_sample();
        let every_us = micros(self.scenario.measure.sample_s).max(1);
        self.queue.push(self.now_us + every_us, Event::Sample);
    }

    pub(super) fn add_sample(&mut self) {
        let (htlcs, htlc_msat) = self.lanes.pending();
        let online = self.world.away.iter().filter(|reasons| **reasons == 0).count();
        let sample = Sample {
            at_us: self.now_us,
            payments_active: self.payments.active() as u64,
            htlcs,
            htlc_msat,
            imbalance: self.lanes.imbalance(),
            capital_locked_sat: self.batches.locked_sat(),
            chain_vb: self.exits.chain_vb(),
            chain_fee_sat: self.exits.chain_fee_sat(),
            feerate_msat_per_vb: self.feerate(),
            nodes_online: online as u64,
            exits_waiting: self.exits.waiting() as u64,
        };
        self.recorder.sample(sample);
    }
}
