//! What every room runs on: tasks with a common stop signal, and telemetry.
//!
//! All background work is spawned through [`Tasks`], so that a node can be stopped as a whole
//! and a simulation can see every task it has to drive.

pub mod telemetry;

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long [`Tasks::stop`] waits before it gives up on a task.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The background tasks of one node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Makes an empty set of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns `task`. It should end soon after [`Tasks::stopped`] resolves.
    #[allow(clippy::disallowed_methods, reason = "the one door to tokio::spawn")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            task.await;
            tracing::trace!(name, "task ended");
        });
    }

    /// The stop signal, for rooms that pass it on.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits for the stop signal.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the stop signal was given.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Gives the stop signal and waits for all tasks, at most ten seconds.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "tasks did not end in time");
        }
    }
}
