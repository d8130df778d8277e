//! How mutations run: to their end, and once per key.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::server::RpcParts;
use super::status::{Reason, Refusal};
use crate::journal::{Fingerprint, IdempotencyKey};
use crate::runtime::Tasks;
use crate::store::Batch;

/// Runs `work` to its end, also when the caller hangs up: a dropped call must not leave a
/// mutation between two of its steps.
pub(super) async fn to_the_end<T: Send + 'static>(
    tasks: &Tasks,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let (done, answer) = oneshot::channel();
    tasks.spawn("mutation", async move {
        // The caller may be gone; the work is done all the same.
        let _gone = done.send(work.await);
    });
    answer.await.unwrap_or_else(|_| {
        Err(Refusal::new(Reason::Internal, "the call broke off; repeat it with the same key")
            .money_may_have_moved(true))
    })
}

/// Runs a mutation that changes nothing when it is done twice, once per `key`.
///
/// A repetition is answered by `again`, which only looks: doing the work again could undo what
/// came between. The key is recorded after the work; a crash between both leaves work that may
/// be repeated.
pub(super) async fn once<T: Send + 'static>(
    parts: &Arc<RpcParts>,
    key: IdempotencyKey,
    body: &impl Debug,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    again: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let fingerprint = Fingerprint::of(body);
    let idempotency = parts.idempotency();
    if idempotency.recall(Some(&key), fingerprint, parts.clock.now())?.is_some() {
        return again.await;
    }
    let shared = Arc::clone(parts);
    to_the_end(&parts.tasks, async move {
        let answer = work.await?;
        let mut batch = Batch::default();
        idempotency.record(&mut batch, Some(&key), fingerprint, &[], shared.clock.now());
        let ticket = shared.committer.enqueue(batch);
        shared
            .committer
            .durable(ticket)
            .await
            .map_err(|error| Refusal::new(Reason::StoreFailed, error).money_may_have_moved(true))?;
        Ok(answer)
    })
    .await
}

/// As [`once`], for work that cannot be looked at afterwards: its answer is recorded with the key.
pub(super) async fn once_answered<T: prost::Message + Default + 'static>(
    parts: &Arc<RpcParts>,
    key: IdempotencyKey,
    body: &impl Debug,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let fingerprint = Fingerprint::of(body);
    let idempotency = parts.idempotency();
    if let Some(answer) = idempotency.recall(Some(&key), fingerprint, parts.clock.now())? {
        return T::decode(&answer[..]).map_err(|error| Refusal::new(Reason::Internal, error));
    }
    let shared = Arc::clone(parts);
    to_the_end(&parts.tasks, async move {
        let answer = work.await?;
        let mut batch = Batch::default();
        let recorded = answer.encode_to_vec();
        idempotency.record(&mut batch, Some(&key), fingerprint, &recorded, shared.clock.now());
        let ticket = shared.committer.enqueue(batch);
        shared.committer.durable(ticket).await?;
        Ok(answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_who_hangs_up_does_not_stop_the_work() {
        let tasks = Tasks::new();
        let (go, wait) = oneshot::channel::<()>();
        let (done, seen) = oneshot::channel::<()>();
        let work = async move {
            let _go = wait.await;
            let _seen = done.send(());
            Ok(())
        };
        {
            let call = to_the_end(&tasks, work);
            tokio::pin!(call);
            // The first poll starts the work; then the caller is gone.
            assert!(futures::poll!(call.as_mut()).is_pending());
        }
        go.send(()).unwrap();
        seen.await.unwrap();
    }

    #[tokio::test]
    async fn work_that_panics_may_have_moved_money() {
        let tasks = Tasks::new();
        let refusal = to_the_end::<()>(&tasks, async { panic!("for the test") }).await.unwrap_err();
        let read = super::super::status::explain(&refusal.into());
        assert_eq!(read.reason.as_deref(), Some("INTERNAL"));
        assert_eq!(read.money_may_have_moved, Some(true));
    }
}
