//! What goes wrong in a live run, when, and how.
//!
//! A scenario's faults become a list of deeds by time. Several faults may want one host down at
//! once: it runs when the last of them is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, ScriptBuf};
use node::runtime::Tasks;
use node::store::{DiskFault, MemoryDisk};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::LiveError;
use super::exits::{ExitCounts, Exits};
use super::hosts::Hosts;
use super::miner::Miner;
use crate::random::Random;
use crate::scenario::{Fault, Scenario, members};
use crate::topology::{Node, Topology};
use crate::workload::micros;

/// Randomness of nodes that come and go.
const CHURN: u64 = 1 << 41;
/// How long a crash waits for the write that it is to come in the middle of.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);
/// How often a crash looks whether it has come.
const WRITE_LOOK: Duration = Duration::from_millis(5);
/// How long a cheater stays out of reach before a block: its commitments are in that.
const CHEATER_HIDES: Duration = Duration::from_secs(30);
/// Blocks for which it does at most.
const CHEATER_BLOCKS_MAX: u32 = 8;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
enum Deed {
    Leave(Node),
    Return(Node),
    Crash { node: Node, for_us: u64, write: u64, kept: bool },
    Cut { from: Node, to: Node, is_cut: bool },
    Lie(Node),
    ForgetLies(Node),
    Copy { node: Node, fault: usize },
    Cheat { node: Node, fault: usize },
    Skew { node: Node, offset_ms: i64 },
    Reorg { depth: u32 },
    Feerate { sat_per_vb: u64 },
    SlowDisk { node: Node, sync: Option<Duration> },
    MassExit { share_ppm: u32, fault: usize },
}

/// The faults of a run. Clones share them.
#[derive(Clone)]
pub struct Faults {
    hosts: Hosts,
    miner: Miner,
    zero: Instant,
    tasks: Tasks,
    deeds: Arc<Vec<(u64, Deed)>>,
    state: Arc<Mutex<State>>,
    exits: Exits,
    users: Arc<Vec<Node>>,
    seed: u64,
}

/// A revoked state that reached the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cheated {
    /// Whose channel it was too.
    pub victim: Node,
    /// What the cheater owned of it in truth, msat: the victim's now.
    pub forfeit_msat: u64,
}

/// A copy of a disk, and what each channel of its host was worth to it at that moment, by funding
/// output, as the peer sees it.
struct Copy {
    disk: MemoryDisk,
    channels: HashMap<OutPoint, (Node, u64)>,
}

#[derive(Default)]
struct State {
    copies: HashMap<usize, Copy>,
    cheated: Vec<Cheated>,
    /// Nodes that broke the rules or stood on a disk that did.
    excused: BTreeSet<Node>,
    failed: Option<LiveError>,
    crashes_under_way: u32,
}

impl Faults {
    /// The faults of `scenario`, from `zero` on.
    pub fn new(
        scenario: &Scenario,
        topology: &Topology,
        hosts: Hosts,
        miner: Miner,
        zero: Instant,
    ) -> Self {
        let mut deeds = Vec::new();
        let end_us = end_us(scenario);
        for (place, fault) in scenario.faults.iter().enumerate() {
            let usual = scenario.chain.feerate_sat_per_vb;
            add_deeds(&mut deeds, place, fault, usual);
            if let Fault::Churn { share_ppm, among, mean_up_s, mean_down_s } = fault {
                let mut draw = Random::stream(scenario.seed, CHURN + place as u64);
                for node in members(topology, *among) {
                    let random = Random::stream(draw.number(), u64::from(node));
                    if draw.below(1_000_000) < u64::from(*share_ppm) {
                        add_churn(&mut deeds, random, node, [*mean_up_s, *mean_down_s], end_us);
                    }
                }
            }
        }
        deeds.sort_by_key(|(at_us, _)| *at_us);
        let (exits, users) = (Exits::new(hosts.clone()), Arc::new(topology.users.clone()));
        let (tasks, state, deeds) = (Tasks::new(), Arc::default(), Arc::new(deeds));
        Self { hosts, miner, zero, tasks, deeds, state, exits, users, seed: scenario.seed }
    }

    /// What became of users who left their batches.
    pub fn exits(&self) -> ExitCounts {
        self.exits.counts()
    }

    /// Lets everything happen at its time; returns after the last.
    ///
    /// # Errors
    ///
    /// [`LiveError`] if a node does not start again.
    pub async fn run(&self) -> Result<(), LiveError> {
        for (at_us, deed) in &*self.deeds {
            sleep_until(self.zero + Duration::from_micros(*at_us)).await;
            self.happen(deed).await?;
        }
        while self.state.lock().crashes_under_way > 0 {
            sleep(Duration::from_millis(250)).await;
        }
        self.state.lock().failed.take().map_or(Ok(()), Err)
    }

    /// Revoked states that reached the chain.
    pub fn cheated(&self) -> Vec<Cheated> {
        self.state.lock().cheated.clone()
    }

    /// Nodes for whom nothing is promised.
    pub fn excused(&self) -> BTreeSet<Node> {
        self.state.lock().excused.clone()
    }

    async fn happen(&self, deed: &Deed) -> Result<(), LiveError> {
        match *deed {
            Deed::Leave(node) => {
                self.hosts.leave(node);
                self.hosts.settle(node).await?;
            }
            Deed::Return(node) => {
                self.hosts.come_back(node);
                self.hosts.settle(node).await?;
            }
            Deed::Crash { node, for_us, write, kept } => {
                self.state.lock().crashes_under_way += 1;
                let this = self.clone();
                self.tasks.spawn("crash", async move {
                    let crashed = this.crash(node, for_us, write, kept).await;
                    let mut state = this.state.lock();
                    state.crashes_under_way -= 1;
                    if let Err(error) = crashed {
                        state.failed.get_or_insert(error);
                    }
                });
            }
            Deed::Cut { from, to, is_cut } => self.hosts.outside().net.cut(from, to, is_cut),
            Deed::Lie(node) => {
                self.state.lock().excused.insert(node);
                let disk = self.hosts.disk(node);
                disk.lose_syncs_from(Some(disk.commits() + 1));
            }
            Deed::ForgetLies(node) => {
                self.hosts.leave(node);
                self.hosts.cut_power(node, 0).await;
                self.hosts.disk(node).lose_syncs_from(None);
                self.hosts.come_back(node);
                self.hosts.settle(node).await?;
            }
            Deed::Copy { node, fault } => {
                let disk = self.hosts.copy_disk(node)?;
                let copy = Copy { disk, channels: self.channels_of(node) };
                self.state.lock().copies.insert(fault, copy);
            }
            Deed::Cheat { node, fault } => self.cheat(node, fault).await?,
            Deed::Skew { node, offset_ms } => self.hosts.clock(node).set_skew_ms(offset_ms),
            Deed::Reorg { depth } => self.miner.reorg(depth)?,
            Deed::Feerate { sat_per_vb } => self.miner.set_usual_feerate(sat_per_vb),
            Deed::SlowDisk { node, sync } => self.hosts.outside().net.slow_disk(node, sync),
            Deed::MassExit { share_ppm, fault } => {
                self.exits.begin(&self.users, share_ppm, self.seed, fault);
            }
        }
        Ok(())
    }

    async fn crash(
        &self,
        node: Node,
        for_us: u64,
        write: u64,
        kept: bool,
    ) -> Result<(), LiveError> {
        if write > 0 && self.hosts.runs(node) {
            let disk = self.hosts.disk(node);
            let at = disk.commits() + write;
            disk.fault_at(at, DiskFault::FailSync);
            // From that write on the node says nothing more: a moment later is as good.
            let deadline = Instant::now() + WRITE_PATIENCE;
            while disk.commits() < at && Instant::now() < deadline {
                sleep(WRITE_LOOK).await;
            }
            disk.clear_faults();
        }
        self.hosts.leave(node);
        self.hosts.cut_power(node, usize::from(kept)).await;
        sleep(Duration::from_micros(for_us)).await;
        self.hosts.come_back(node);
        self.hosts.settle(node).await
    }

    /// Starts a node from an old copy and lets it publish what it knows, unseen by its peers.
    async fn cheat(&self, node: Node, fault: usize) -> Result<(), LiveError> {
        let Some(copy) = self.state.lock().copies.remove(&fault) else { return Ok(()) };
        self.state.lock().excused.insert(node);
        let others: Vec<Node> = self.hosts.numbers().filter(|other| *other != node).collect();
        let net = &self.hosts.outside().net;
        let hide = |is_cut| {
            for other in &others {
                net.cut(node, *other, is_cut);
                net.cut(*other, node, is_cut);
            }
        };
        hide(true);
        let in_truth = self.channels_of(node);
        self.hosts.leave(node);
        self.hosts.cut_power(node, 0).await;
        self.hosts.replace_disk(node, copy.disk);
        self.hosts.come_back(node);
        self.hosts.settle(node).await?;
        let services =
            |node: &node::node::Node| (Arc::clone(&node.channels), node.lightning.channels());
        if let Some((channels, open)) = self.hosts.ask(node, services) {
            for channel in open {
                // A channel that refuses is on its way out already.
                let _published = channels.close(channel.channel, true, None, None).await;
            }
        }
        let outside = self.hosts.outside();
        for _ in 0..CHEATER_BLOCKS_MAX {
            sleep(CHEATER_HIDES).await;
            self.miner.mine(&ScriptBuf::new_op_return([]));
            // In a batch a path comes first, a transaction in each block.
            let is_hidden = |funding: &OutPoint| !outside.is_in_block(funding.txid);
            let spent = |funding: &OutPoint| outside.chain.output(*funding).is_none();
            if copy.channels.keys().all(|funding| !is_hidden(funding) && spent(funding)) {
                break;
            }
        }
        for (funding, (victim, forfeit_msat)) in in_truth {
            // A balance that has changed was committed to anew, and the old commitment revoked.
            let before = copy.channels.get(&funding);
            let is_revoked = before.is_some_and(|(_, msat)| *msat != forfeit_msat);
            let is_spent =
                outside.is_in_block(funding.txid) && outside.chain.output(funding).is_none();
            if is_revoked && is_spent {
                self.state.lock().cheated.push(Cheated { victim, forfeit_msat });
            }
        }
        hide(false);
        Ok(())
    }

    /// The channels of a node as its peers see them: the peer, and what is the node's, msat.
    fn channels_of(&self, node: Node) -> HashMap<OutPoint, (Node, u64)> {
        let id = self.hosts.node_id(node);
        let mut found = HashMap::new();
        for peer in self.hosts.numbers() {
            let channels = self.hosts.ask(peer, |peer| peer.lightning.channels());
            for channel in channels.unwrap_or_default() {
                if let Some(funding) = channel.funding.filter(|_| channel.peer == id) {
                    found.insert(funding, (peer, channel.remote_msat));
                }
            }
        }
        found
    }
}

fn add_deeds(deeds: &mut Vec<(u64, Deed)>, place: usize, fault: &Fault, usual: u64) {
    let mut add = |at_s: f64, deed| deeds.push((micros(at_s), deed));
    match fault {
        Fault::Offline { nodes, from_s, to_s } => {
            for node in nodes {
                add(*from_s, Deed::Leave(*node));
                add(*to_s, Deed::Return(*node));
            }
        }
        Fault::Crash { node, at_s, for_s, write, kept } => {
            let (node, write, kept) = (*node, *write, *kept);
            add(*at_s, Deed::Crash { node, for_us: micros(*for_s), write, kept });
        }
        Fault::Cut { nodes: [one, other], from_s, to_s, one_way } => {
            let both = [(*one, *other), (*other, *one)];
            for (from, to) in both.into_iter().take(if *one_way { 1 } else { 2 }) {
                add(*from_s, Deed::Cut { from, to, is_cut: true });
                add(*to_s, Deed::Cut { from, to, is_cut: false });
            }
        }
        Fault::LostSync { node, at_s, for_s } => {
            add(*at_s, Deed::Lie(*node));
            add(at_s + for_s, Deed::ForgetLies(*node));
        }
        Fault::OldSnapshot { node, at_s, age_s } => {
            add(at_s - age_s, Deed::Copy { node: *node, fault: place });
            add(*at_s, Deed::Cheat { node: *node, fault: place });
        }
        Fault::ClockSkew { node, from_s, to_s, offset_s } => {
            let offset_ms = libm::round(offset_s * 1e3) as i64;
            add(*from_s, Deed::Skew { node: *node, offset_ms });
            add(*to_s, Deed::Skew { node: *node, offset_ms: 0 });
        }
        Fault::Reorg { at_s, depth } => add(*at_s, Deed::Reorg { depth: *depth }),
        Fault::FeeSpike { from_s, to_s, sat_per_vb } => {
            add(*from_s, Deed::Feerate { sat_per_vb: *sat_per_vb });
            add(*to_s, Deed::Feerate { sat_per_vb: usual });
        }
        Fault::SlowDisk { node, from_s, to_s, sync_ms } => {
            let sync = Some(Duration::from_micros(micros(sync_ms / 1e3)));
            add(*from_s, Deed::SlowDisk { node: *node, sync });
            add(*to_s, Deed::SlowDisk { node: *node, sync: None });
        }
        Fault::MassExit { at_s, share_ppm } => {
            add(*at_s, Deed::MassExit { share_ppm: *share_ppm, fault: place });
        }
        // Drawn by the caller, or refused before.
        Fault::Churn { .. } | Fault::Cheat { .. } => {}
    }
}

fn add_churn(
    deeds: &mut Vec<(u64, Deed)>,
    mut random: Random,
    node: Node,
    means_s: [f64; 2],
    end_us: u64,
) {
    let mut at_us = 0_u64;
    for up in [true, false].into_iter().cycle() {
        let stays_us = random.exponential(means_s[usize::from(!up)] * 1e6).max(1.0) as u64;
        at_us = at_us.saturating_add(stays_us);
        // Whoever is away at the end comes back then.
        if at_us >= end_us && up {
            break;
        }
        let deed = if up { Deed::Leave(node) } else { Deed::Return(node) };
        deeds.push((at_us.min(end_us), deed));
    }
}

/// When the last payment of a scenario begins at the latest, and nodes stop to come and go.
pub fn end_us(scenario: &Scenario) -> u64 {
    let ends = scenario.workload.iter().map(|stream| {
        let by_time = stream.duration_s.unwrap_or(f64::INFINITY);
        let by_count = match (&stream.arrivals, stream.payments) {
            (
                crate::scenario::Arrivals::Poisson { per_second }
                | crate::scenario::Arrivals::Even { per_second },
                Some(payments),
            ) => payments as f64 / per_second,
            (crate::scenario::Arrivals::Burst { size, every_s }, Some(payments)) => {
                payments.div_ceil(*size) as f64 * every_s
            }
            _ => f64::INFINITY,
        };
        let length = by_time.min(by_count);
        stream.start_s + if length.is_finite() { length } else { 3_600.0 }
    });
    micros(ends.fold(scenario.measure.until_s, f64::max))
}
