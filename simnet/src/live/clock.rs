//! Virtual wall-clock time: a fixed start plus tokio's paused clock.

use std::time::Duration;

use node::environment::{Clock, UnixTime};
use tokio::time::Instant;

/// When every simulation begins: 2026-01-01, so that nothing depends on the day it runs.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A clock that stands still until tokio's does not.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    started: Instant,
}

impl SimClock {
    /// Starts at the simulation's epoch. Call it inside the paused runtime.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixTime {
        EPOCH + self.elapsed()
    }
}
