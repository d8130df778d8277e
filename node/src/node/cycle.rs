//! The commit cycle of a node or tower: how it begins, and how everything ends.

use std::sync::Arc;

use crate::environment::{Committing, Environment};
use crate::runtime::Tasks;
use crate::store::Committer;

/// Begins the commit cycle. It outlives all tasks: the last batch is written after they have ended.
pub(super) fn begin_commits(environment: &Environment) -> std::io::Result<Committer> {
    let committer = Committer::new(Arc::clone(&environment.store));
    match environment.committing {
        Committing::Thread => drop(committer.run_thread()?),
        Committing::Inline => Tasks::new().spawn("commit", committer.clone().run_task()),
    }
    Ok(committer)
}

/// Ends all tasks, then writes the last batch.
pub(super) async fn end(tasks: &Tasks, committer: &Committer) {
    tasks.stop().await;
    committer.stop();
    committer.stopped().await;
}
