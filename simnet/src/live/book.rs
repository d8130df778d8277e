//! Which channel was funded with what: those of the topology, and those in later batches that
//! their users moved into.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bitcoin::OutPoint;
use parking_lot::Mutex;

use super::hosts::Hosts;
use super::network::Network;
use crate::topology::{Node, Topology};

/// Capacities by funding output, sat. Clones share them.
#[derive(Clone)]
pub struct Book {
    hosts: Hosts,
    /// Users of batches, with their hubs and the capacity of each one's channel.
    users: Arc<Vec<([Node; 2], u64)>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    capacities: HashMap<OutPoint, u64>,
    ends: HashMap<OutPoint, [Node; 2]>,
    /// Those that are outputs of trees.
    leaves: HashSet<OutPoint>,
}

impl Book {
    /// The channels of `made`, a network of `topology`.
    pub fn new(made: &Network, topology: &Topology, is_batched: bool) -> Self {
        let channels = &topology.network.channels;
        let mut state = State::default();
        for (place, (funding, channel)) in made.fundings.iter().zip(channels).enumerate() {
            state.capacities.insert(*funding, channel.capacity_sat);
            state.ends.insert(*funding, channel.ends);
            if is_batched && place >= topology.user_channel_start {
                state.leaves.insert(*funding);
            }
        }
        let users = channels.iter().skip(topology.user_channel_start).filter(|_| is_batched);
        let users = users.map(|channel| (channel.ends, channel.capacity_sat)).collect();
        let (users, state) = (Arc::new(users), Arc::new(Mutex::new(state)));
        Self { hosts: made.hosts.clone(), users, state }
    }

    /// Looks for channels of later batches. A user has one with its hub, whatever batch it is in.
    pub fn look(&self) {
        for (ends, capacity_sat) in &*self.users {
            let channels = self.hosts.ask(ends[1], |node| node.lightning.channels());
            let mut state = self.state.lock();
            for funding in channels.into_iter().flatten().filter_map(|channel| channel.funding) {
                let State { capacities, ends: known, leaves } = &mut *state;
                if let Entry::Vacant(place) = capacities.entry(funding) {
                    place.insert(*capacity_sat);
                    known.insert(funding, *ends);
                    leaves.insert(funding);
                }
            }
        }
    }

    /// What a channel was funded with, sat.
    pub fn capacity_sat(&self, funding: OutPoint) -> Option<u64> {
        self.state.lock().capacities.get(&funding).copied()
    }

    /// All funding outputs, ascending.
    pub fn fundings(&self) -> Vec<OutPoint> {
        let mut all: Vec<OutPoint> = self.state.lock().capacities.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// Funding outputs of channels that one of `nodes` has an end of.
    pub fn fundings_of(&self, nodes: &BTreeSet<Node>) -> BTreeSet<OutPoint> {
        let state = self.state.lock();
        let theirs = state.ends.iter().filter(|(_, ends)| ends.iter().any(|n| nodes.contains(n)));
        theirs.map(|(funding, _)| *funding).collect()
    }

    /// Users of batches.
    pub fn users(&self) -> impl Iterator<Item = Node> + '_ {
        self.users.iter().map(|(ends, _)| ends[1])
    }

    /// Whether a funding output is one of a tree that is not on chain.
    pub fn is_virtual(&self, funding: OutPoint) -> bool {
        self.state.lock().leaves.contains(&funding)
            && !self.hosts.outside().is_in_block(funding.txid)
    }
}
