//! Which channel was funded with what: those of the topology, and those in later batches that
//! their users moved into.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
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
    /// Users of batches, with the capacity of each one's channel.
    users: Arc<Vec<(Node, u64)>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    capacities: HashMap<OutPoint, u64>,
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
            if is_batched && place >= topology.user_channel_start {
                state.leaves.insert(*funding);
            }
        }
        let users = channels.iter().skip(topology.user_channel_start).filter(|_| is_batched);
        let users = users.map(|channel| (channel.ends[1], channel.capacity_sat)).collect();
        let (users, state) = (Arc::new(users), Arc::new(Mutex::new(state)));
        Self { hosts: made.hosts.clone(), users, state }
    }

    /// Looks for channels of later batches. A user has one with its hub, whatever batch it is in.
    pub fn look(&self) {
        for (user, capacity_sat) in &*self.users {
            let channels = self.hosts.ask(*user, |node| node.lightning.channels());
            let mut state = self.state.lock();
            for funding in channels.into_iter().flatten().filter_map(|channel| channel.funding) {
                let State { capacities, leaves } = &mut *state;
                if let Entry::Vacant(place) = capacities.entry(funding) {
                    place.insert(*capacity_sat);
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

    /// Users of batches.
    pub fn users(&self) -> impl Iterator<Item = Node> + '_ {
        self.users.iter().map(|(user, _)| *user)
    }

    /// Whether a funding output is one of a tree that is not on chain.
    pub fn is_virtual(&self, funding: OutPoint) -> bool {
        self.state.lock().leaves.contains(&funding)
            && !self.hosts.outside().is_in_block(funding.txid)
    }
}
