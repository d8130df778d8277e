//! What senders remember of their failures.

use super::graph::EdgeId;
use crate::scenario::SenderSpec;
use crate::topology::Node;
use crate::workload::micros;

/// Most failures that a sender remembers; the oldest goes first.
const REMEMBERED_MAX: usize = 128;

/// After so many half-lives a failure is forgotten.
const HALVINGS_MAX: u64 = 16;

#[derive(Debug, Clone, Copy)]
struct Failure {
    edge: EdgeId,
    amount_msat: u64,
    at_us: u64,
}

/// Failures, by sender.
pub(super) struct Memory {
    failures: Vec<Vec<Failure>>,
    penalty_msat: u64,
    half_life_us: u64,
}

impl Memory {
    pub fn new(nodes: usize, spec: &SenderSpec) -> Self {
        Self {
            failures: vec![Vec::new(); nodes],
            penalty_msat: spec.failure_penalty_msat.into(),
            half_life_us: micros(spec.failure_half_life_s).max(1),
        }
    }

    /// `sender` saw `edge` fail for an amount.
    pub fn failed(&mut self, sender: Node, edge: EdgeId, amount_msat: u64, at_us: u64) {
        let failures = &mut self.failures[sender as usize];
        if let Some(place) = failures.iter().position(|failure| failure.edge == edge) {
            failures.remove(place);
        } else if failures.len() >= REMEMBERED_MAX {
            failures.remove(0);
        }
        failures.push(Failure { edge, amount_msat, at_us });
    }

    /// `sender` saw `edge` carry an amount: it failed for more than that at most.
    pub fn passed(&mut self, sender: Node, edge: EdgeId, amount_msat: u64) {
        for failure in &mut self.failures[sender as usize] {
            if failure.edge == edge {
                failure.amount_msat = failure.amount_msat.max(amount_msat + 1);
            }
        }
    }

    /// What `sender` holds against edges for an amount, msat.
    pub fn penalties(
        &mut self,
        sender: Node,
        amount_msat: u64,
        now_us: u64,
        mut penalise: impl FnMut(EdgeId, u32),
    ) {
        let (penalty, half_life) = (self.penalty_msat, self.half_life_us);
        self.failures[sender as usize].retain(|failure| {
            let age = now_us.saturating_sub(failure.at_us);
            let halvings = age / half_life;
            if halvings >= HALVINGS_MAX {
                return false;
            }
            // Linear between two halvings.
            let whole = penalty >> halvings;
            let aged = whole - whole / 2 * (age % half_life / 1_000) / (half_life / 1_000).max(1);
            let aged = if amount_msat < failure.amount_msat {
                // Less may well pass.
                u128::from(aged) * u128::from(amount_msat) / u128::from(failure.amount_msat)
            } else {
                u128::from(aged)
            };
            penalise(failure.edge, u32::try_from(aged).unwrap_or(u32::MAX - 1));
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalty(memory: &mut Memory, amount_msat: u64, seconds: u64) -> Option<u32> {
        let mut seen = None;
        memory.penalties(0, amount_msat, seconds * 1_000_000, |edge, penalty| {
            assert_eq!(edge, 9);
            seen = Some(penalty);
        });
        seen
    }

    #[test]
    fn a_failure_halves_with_time_and_weighs_less_for_less() {
        let spec = SenderSpec {
            failure_penalty_msat: 1_000,
            failure_half_life_s: 100.0,
            ..SenderSpec::default()
        };
        let mut memory = Memory::new(1, &spec);
        memory.failed(0, 9, 10_000, 0);
        assert_eq!(penalty(&mut memory, 10_000, 0), Some(1_000));
        assert_eq!(penalty(&mut memory, 10_000, 50), Some(750));
        assert_eq!(penalty(&mut memory, 20_000, 100), Some(500));
        assert_eq!(penalty(&mut memory, 5_000, 200), Some(125));
        memory.passed(0, 9, 19_999);
        assert_eq!(penalty(&mut memory, 10_000, 200), Some(125));
        assert_eq!(penalty(&mut memory, 10_000, 1_600), None);
        assert_eq!(penalty(&mut memory, 10_000, 0), None);
    }

    #[test]
    fn the_oldest_failure_is_forgotten_first() {
        let mut memory = Memory::new(1, &SenderSpec::default());
        for edge in 0..=REMEMBERED_MAX as u32 {
            memory.failed(0, edge, 1, u64::from(edge));
        }
        let mut edges = Vec::new();
        memory.penalties(0, 1, 0, |edge, _| edges.push(edge));
        assert_eq!((edges.len(), edges[0]), (REMEMBERED_MAX, 1));
    }
}
