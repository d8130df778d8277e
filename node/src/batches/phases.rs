//! How long batches of this hub stay in each phase.

use std::collections::HashMap;

use channel_contracts::batch::{BatchId, HubPhase};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::runtime::metrics::{Counter, Histogram, Probe, Scale};

/// Every phase by its name, in their order.
pub const PHASES: [&str; 15] = [
    "gathering",
    "opening",
    "building",
    "nonces",
    "aggregating",
    "partials",
    "finishing",
    "storing",
    "funding",
    "publishing",
    "confirming",
    "live",
    "expiring",
    "settled",
    "failed",
];

/// The place of `phase` among [`PHASES`].
fn place(phase: &HubPhase) -> usize {
    match phase {
        HubPhase::Gathering { .. } => 0,
        HubPhase::Opening { .. } => 1,
        HubPhase::Building => 2,
        HubPhase::Nonces { .. } => 3,
        HubPhase::Aggregating => 4,
        HubPhase::Partials { .. } => 5,
        HubPhase::Finishing => 6,
        HubPhase::Storing { .. } => 7,
        HubPhase::Funding { .. } => 8,
        HubPhase::Publishing => 9,
        HubPhase::Confirming => 10,
        HubPhase::Live { .. } => 11,
        HubPhase::Expiring { .. } => 12,
        HubPhase::Settled => 13,
        HubPhase::Failed { .. } => 14,
    }
}

/// The name of a phase.
pub fn phase_name(phase: &HubPhase) -> &'static str {
    PHASES[place(phase)]
}

struct Armed {
    /// In the order of [`PHASES`].
    times: [Histogram; PHASES.len()],
    /// Since when each batch is where it is.
    since: Mutex<HashMap<BatchId, (usize, Instant)>>,
}

/// Counts phases; measures them once it is armed.
#[derive(Default)]
pub struct PhaseProbe {
    entered: [Counter; PHASES.len()],
    armed: Probe<Armed>,
}

impl PhaseProbe {
    /// Measures from now on: what is under way, from its next phase.
    pub fn arm(&self) {
        let times = PHASES.map(|_| Histogram::new(Scale::PHASES));
        self.armed.arm(Armed { times, since: Mutex::default() });
    }

    /// How often each phase was entered since the start, by name.
    pub fn entered(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PHASES.into_iter().zip(self.entered.iter().map(Counter::get))
    }

    /// How long batches stayed, by name; if it was armed.
    pub fn times(&self) -> Option<impl Iterator<Item = (&'static str, &Histogram)>> {
        let armed = self.armed.get()?;
        Some(PHASES.into_iter().zip(armed.times.iter()))
    }

    pub(super) fn enter(&self, batch: BatchId, phase: &HubPhase) {
        let entered = place(phase);
        self.entered[entered].increment();
        let Some(armed) = self.armed.get() else { return };
        let now = Instant::now();
        let is_over = matches!(phase, HubPhase::Settled | HubPhase::Failed { .. });
        let mut since = armed.since.lock();
        let before = match is_over {
            true => since.remove(&batch),
            false => since.insert(batch, (entered, now)),
        };
        if let Some((left, begun)) = before {
            armed.times[left].took(now.saturating_duration_since(begun));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_between_two_phases_is_that_of_the_first() {
        let probe = PhaseProbe::default();
        let batch = BatchId([1; 32]);
        probe.enter(batch, &HubPhase::Building);
        assert!(probe.times().is_none());
        probe.arm();
        probe.enter(batch, &HubPhase::Aggregating);
        tokio::time::advance(Duration::from_secs(2)).await;
        probe.enter(batch, &HubPhase::Settled);
        let counted: Vec<&str> = probe
            .times()
            .unwrap()
            .filter(|(_, times)| times.count() > 0)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(counted, ["aggregating"], "what was under way before is not known");
        let entered: u64 = probe.entered().map(|(_, count)| count).sum();
        assert_eq!(entered, 3);
    }
}
