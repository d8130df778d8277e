//! What every room runs on: tasks with a common stop signal, and telemetry.
//!
//! All background work is spawned through [`Tasks`], so that a node can be stopped as a whole
//! and a simulation can see every task it has to drive.

pub mod metrics;
pub mod spans;
pub mod telemetry;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long [`Tasks::stop`] waits before it gives up on a task.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The background tasks of one node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Which task panicked first, and how.
    broken: watch::Sender<Option<Arc<str>>>,
}

impl Tasks {
    /// Makes an empty set of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns `task`. It should end soon after [`Tasks::stopped`] resolves. A panic in it is told
    /// by [`Tasks::broken`]: what it worked on may be half done, and others go on with it.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let broken = self.broken.clone();
        self.track(name, task, move |why| {
            broken.send_if_modified(|first| first.is_none() && first.replace(why.into()).is_none());
        });
    }

    /// As [`Tasks::spawn`], for a task that shares nothing it could leave half done, a stranger's
    /// connection say: a panic in it is logged and ends it alone.
    pub fn spawn_apart(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.track(name, task, |_| {});
    }

    #[allow(clippy::disallowed_methods, reason = "the one door to tokio::spawn")]
    fn track(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        panicked: impl FnOnce(String) + Send + 'static,
    ) {
        self.tracker.spawn(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) => tracing::trace!(name, "task ended"),
                Err(panic) => {
                    let why = format!("task \"{name}\" panicked: {}", text_of(&*panic));
                    tracing::error!("{why}");
                    panicked(why);
                }
            }
        });
    }

    /// Waits until a task panics; says which and how.
    pub async fn broken(&self) -> Arc<str> {
        let mut broken = self.broken.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let why = broken.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_default()
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

/// What a panic said.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_panic_is_told_and_a_strangers_is_not() {
        let tasks = Tasks::new();
        tasks.spawn("calm", async {});
        tasks.spawn_apart("stranger", async { panic!("nobody minds") });
        let quiet = tokio::time::timeout(Duration::from_millis(100), tasks.broken()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        let number = 7;
        tasks.spawn("worker", async move { panic!("state {number}") });
        assert_eq!(&*tasks.broken().await, "task \"worker\" panicked: state 7");
        tasks.spawn("late", async { panic!("too late") });
        tasks.stop().await;
        assert!(tasks.broken().await.contains("worker"));
    }
}
