//! Virtual wall-clock time: a fixed start plus tokio's paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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

    /// Virtual time since the Unix epoch.
    pub fn unix_time(&self) -> Duration {
        EPOCH + self.elapsed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixTime {
        self.unix_time()
    }
}

/// A host's own clock, which may be wrong. Clones share the error.
///
/// It is what the node asks. What LDK asks the system itself is right on every host: one process
/// has one system.
#[derive(Debug, Clone)]
pub struct HostClock {
    clock: SimClock,
    skew_ms: Arc<AtomicI64>,
}

impl HostClock {
    /// A clock that is right until it is told otherwise.
    pub fn new(clock: SimClock) -> Self {
        Self { clock, skew_ms: Arc::default() }
    }

    /// Sets how far it goes before the others, in milliseconds; behind them if negative.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now(&self) -> UnixTime {
        let right = self.clock.unix_time();
        let skew_ms = self.skew_ms.load(Ordering::Relaxed);
        let skew = Duration::from_millis(skew_ms.unsigned_abs());
        if skew_ms < 0 { right.saturating_sub(skew) } else { right + skew }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_skewed_clock_is_off_and_can_be_put_right() {
        let clock = SimClock::start();
        let host = HostClock::new(clock);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(host.now(), EPOCH + Duration::from_secs(5));
        host.set_skew_ms(-2_000);
        assert_eq!(host.now(), EPOCH + Duration::from_secs(3));
        host.set_skew_ms(2_000);
        assert_eq!(host.now(), EPOCH + Duration::from_secs(7));
        assert_eq!(clock.now(), EPOCH + Duration::from_secs(5));
    }
}
