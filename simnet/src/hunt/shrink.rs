//! Makes a scenario that fails smaller, as long as it fails the same way.

use super::Failure;
use crate::scenario::{Fault, Hold, Scenario, TopologySpec};

/// A scenario that fails and cannot be made smaller.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// It.
    pub scenario: Scenario,
    /// How it fails.
    pub failure: Failure,
    /// Runs that were needed.
    pub runs: u32,
}

/// Tries smaller scenarios with `run`, which tells how one fails, if it does; at most `runs_max`
/// of them.
pub fn shrink(
    scenario: Scenario,
    failure: Failure,
    runs_max: u32,
    mut run: impl FnMut(&Scenario) -> Option<Failure>,
) -> Shrunk {
    let kind = failure.kind();
    let mut best = Shrunk { scenario, failure, runs: 0 };
    'smaller: loop {
        for candidate in candidates(&best.scenario) {
            if best.runs == runs_max {
                return best;
            }
            best.runs += 1;
            if let Some(failure) = run(&candidate).filter(|failure| failure.kind() == kind) {
                best = Shrunk { scenario: candidate, failure, runs: best.runs };
                continue 'smaller;
            }
        }
        return best;
    }
}

/// Scenarios that are a step smaller, the largest steps first.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut smaller = scenario.clone();
        change(&mut smaller);
        if smaller != *scenario && can_run(&smaller) {
            found.push(smaller);
        }
    };
    for place in 0..scenario.faults.len() {
        add(&|smaller| drop(smaller.faults.remove(place)));
    }
    if scenario.workload.len() > 1 {
        for place in 0..scenario.workload.len() {
            add(&|smaller| drop(smaller.workload.remove(place)));
        }
    }
    for place in 0..scenario.workload.len() {
        for divisor in [8, 2] {
            add(&|smaller| {
                let payments = &mut smaller.workload[place].payments;
                *payments = payments.map(|payments| (payments / divisor).max(1));
            });
        }
        add(&|smaller| smaller.workload[place].hold = Hold::None);
    }
    add(&|smaller| smaller.batches = None);
    add(&|smaller| fewer_nodes(&mut smaller.topology));
    add(&|smaller| {
        if let TopologySpec::HubAndSpoke { hubs, .. } = &mut smaller.topology {
            *hubs = 1;
        }
    });
    add(&|smaller| {
        if let Some(batches) = &mut smaller.batches {
            batches.users_max = 8;
        }
    });
    add(&|smaller| smaller.senders.parts_max = 1);
    add(&|smaller| smaller.links.latency_ms = [10.0, 10.0]);
    add(&|smaller| smaller.links.processing_ms = 0.0);
    for place in 0..scenario.faults.len() {
        add(&|smaller| simpler(&mut smaller.faults[place]));
    }
    found
}

fn fewer_nodes(topology: &mut TopologySpec) {
    match topology {
        TopologySpec::Line { nodes, .. } => *nodes -= 1,
        TopologySpec::HubAndSpoke { users, .. } => *users -= 1,
        _ => {}
    }
}

fn simpler(fault: &mut Fault) {
    match fault {
        Fault::Crash { write, .. } => *write = 0,
        Fault::Cut { one_way, .. } => *one_way = false,
        Fault::Reorg { depth, .. } => *depth = 1,
        Fault::MassExit { share_ppm, .. } => *share_ppm = 300_000,
        _ => {}
    }
}

/// Whether every fault still has its node, and payments have two ends.
fn can_run(scenario: &Scenario) -> bool {
    let nodes = match scenario.topology {
        TopologySpec::Line { nodes, .. } if nodes >= 2 => nodes,
        TopologySpec::HubAndSpoke { hubs, users, .. } if users >= 2 => hubs + users,
        TopologySpec::Lattice { width, height, .. } => width * height,
        _ => return false,
    };
    let of_batches = |fault: &Fault| matches!(fault, Fault::MassExit { .. });
    if scenario.batches.is_none() && scenario.faults.iter().any(of_batches) {
        return false;
    }
    scenario.faults.iter().flat_map(Fault::nodes).all(|node| node < nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hunt::draw;

    #[test]
    fn what_does_not_matter_falls_away() {
        let seed = (0..1_000)
            .find(|seed| {
                let faults = draw(*seed).faults;
                faults.len() > 2 && faults.iter().any(|fault| fault.name() == "crash")
            })
            .unwrap();
        let failure = Failure { text: "at 3 s: it broke".to_owned() };
        let other = Failure { text: "something else".to_owned() };
        let shrunk = shrink(draw(seed), failure.clone(), 500, |scenario| {
            match scenario.faults.iter().filter(|fault| fault.name() == "crash").count() {
                0 => Some(other.clone()),
                _ => Some(failure.clone()),
            }
        });
        assert_eq!(shrunk.failure, failure);
        assert_eq!(shrunk.scenario.faults.len(), 1);
        assert_eq!(shrunk.scenario.workload.len(), 1);
        assert_eq!(shrunk.scenario.workload[0].payments, Some(1));
    }

    #[test]
    fn no_more_runs_than_allowed() {
        let failure = Failure { text: "x".to_owned() };
        let mut runs = 0;
        let shrunk = shrink(draw(3), failure.clone(), 5, |_| {
            runs += 1;
            Some(failure.clone())
        });
        assert!(runs <= 5 && shrunk.runs == runs);
    }
}
