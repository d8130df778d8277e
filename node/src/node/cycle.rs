//! The commit cycle of a node or tower: how it begins, and how everything ends.

use std::sync::Arc;

use crate::environment::{Committing, Environment};
use crate::runtime::Tasks;
use crate::store::Committer;

/// Begins the commit cycle. It outlives all tasks: the last batch is written after they have ended.
///
/// Once one of `tasks` panics nothing is written any more, and nothing leaves: what that task left
/// half done must not become durable.
pub(super) fn begin_commits(
    environment: &Environment,
    tasks: &Tasks,
) -> std::io::Result<Committer> {
    let committer = Committer::new(Arc::clone(&environment.store));
    let cycle = Tasks::new();
    match environment.committing {
        Committing::Thread => drop(committer.run_thread()?),
        Committing::Inline => cycle.spawn("commit", committer.clone().run_task()),
    }
    let (others, writer) = (tasks.clone(), committer.clone());
    tasks.spawn("panic watch", async move {
        let why = tokio::select! {
            biased;
            () = others.stopped() => return,
            why = others.broken() => why,
            why = cycle.broken() => why,
        };
        writer.give_up(&why);
    });
    Ok(committer)
}

/// Ends all tasks, then writes the last batch.
pub(super) async fn end(tasks: &Tasks, committer: &Committer) {
    tasks.stop().await;
    committer.stop();
    committer.stopped().await;
}
