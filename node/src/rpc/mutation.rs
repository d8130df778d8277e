//! How mutations run: to their end, and once per key.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::server::RpcParts;
use super::status::{Reason, Refusal};
use crate::journal::{Fingerprint, IdempotencyKey};
use crate::runtime::Tasks;
use crate::store::{Batch, Ticket};

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

/// Keys whose mutation is under way. Of calls under one key one works, and the others wait for it.
#[derive(Default)]
pub struct UnderWay(Mutex<HashMap<IdempotencyKey, Arc<tokio::sync::Mutex<()>>>>);

impl UnderWay {
    /// Waits until no other call under `key` works.
    async fn alone(&self, key: &IdempotencyKey) -> Alone<'_> {
        let turn = Arc::clone(self.0.lock().entry(key.clone()).or_default());
        Alone { all: self, key: key.clone(), turn: Some(turn.lock_owned().await) }
    }
}

/// One call's turn.
struct Alone<'a> {
    all: &'a UnderWay,
    key: IdempotencyKey,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.turn = None;
        let mut all = self.all.0.lock();
        // The last one takes the entry away: nobody else has it, and nobody can get it now.
        if all.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            all.remove(&self.key);
        }
    }
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
    again: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let fingerprint = Fingerprint::of(body);
    let shared = Arc::clone(parts);
    to_the_end(&parts.tasks, async move {
        let _alone = shared.under_way.alone(&key).await;
        if shared.recall(&key, fingerprint)?.is_some() {
            return again.await;
        }
        let answer = work.await?;
        let ticket = shared.committer.enqueue(shared.record(&key, fingerprint, &[]));
        durable(&shared, ticket).await?;
        Ok(answer)
    })
    .await
}

/// As [`once`], for work that could not be done again after a crash: it gets a batch with the
/// key's record, and puts what it does into that.
pub(super) async fn once_beside<T: Send + 'static, W>(
    parts: &Arc<RpcParts>,
    key: IdempotencyKey,
    body: &impl Debug,
    work: impl FnOnce(Batch) -> W + Send + 'static,
    again: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal>
where
    W: Future<Output = Result<T, Refusal>> + Send + 'static,
{
    let fingerprint = Fingerprint::of(body);
    let shared = Arc::clone(parts);
    to_the_end(&parts.tasks, async move {
        let _alone = shared.under_way.alone(&key).await;
        if shared.recall(&key, fingerprint)?.is_some() {
            // What it did was told to nobody before it was durable.
            durable(&shared, shared.committer.now()).await?;
            return again.await;
        }
        work(shared.record(&key, fingerprint, &[])).await
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
    let shared = Arc::clone(parts);
    to_the_end(&parts.tasks, async move {
        let _alone = shared.under_way.alone(&key).await;
        if let Some(answer) = shared.recall(&key, fingerprint)? {
            return T::decode(&answer[..]).map_err(|error| Refusal::new(Reason::Internal, error));
        }
        let answer = work.await?;
        let record = shared.record(&key, fingerprint, &answer.encode_to_vec());
        let ticket = shared.committer.enqueue(record);
        durable(&shared, ticket).await?;
        Ok(answer)
    })
    .await
}

async fn durable(parts: &RpcParts, ticket: Ticket) -> Result<(), Refusal> {
    let failed = |error| Refusal::new(Reason::StoreFailed, error).money_may_have_moved(true);
    parts.committer.durable(ticket).await.map_err(failed)
}

impl RpcParts {
    fn recall(
        &self,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.idempotency().recall(Some(key), fingerprint, self.clock.now())?)
    }

    /// A batch with the record of a key.
    fn record(&self, key: &IdempotencyKey, fingerprint: Fingerprint, answer: &[u8]) -> Batch {
        let mut batch = Batch::default();
        let now = self.clock.now();
        self.idempotency().record(&mut batch, Some(key), fingerprint, answer, now);
        batch
    }
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
    #[tokio::test]
    async fn calls_under_one_key_take_turns_and_leave_nothing_behind() {
        let all = Arc::new(UnderWay::default());
        let [a, b] = ["a", "b"].map(|text| IdempotencyKey::own("Test", text));
        let first = all.alone(&a).await;
        let other = all.alone(&b).await;
        let mut waits = Box::pin(all.alone(&a));
        assert!(futures::poll!(waits.as_mut()).is_pending(), "one works already");
        // Who gives up while it waits keeps nobody.
        let mut gone = Box::pin(all.alone(&a));
        assert!(futures::poll!(gone.as_mut()).is_pending());
        drop(gone);
        drop((first, other));
        drop(waits.await);
        assert!(all.0.lock().is_empty());
    }
}
