//! A payout that has not ended, in memory: its record, who follows it, and its task's bell.
//!
//! What changes it holds its lock until the batch is enqueued, so that records are written in the
//! order in which they were made. Under that lock payments, wallet and tokens are asked; none of
//! them asks back.

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::machine::Decision;
use super::record::PayoutRecord;
use super::service::Payouts;
use crate::journal::{
    DomainEvent, Fingerprint, IdempotencyKey, Journal, PayoutEvent, PayoutId, PayoutStep,
};
use crate::store::cbor::encode;
use crate::store::{Batch, StoreError, Ticket};
use crate::tokens::Subject;

/// A payout's newest record, and the ticket after which it may be shown.
type Latest = (PayoutRecord, Ticket);

/// A payout that has not ended.
pub(super) struct Live {
    pub id: PayoutId,
    pub state: Mutex<State>,
    pub wake: Notify,
    latest: watch::Sender<Latest>,
}

/// What its lock guards.
pub(super) struct State {
    pub record: PayoutRecord,
    /// Lines were put back among those that are pending.
    pub has_more_lines: bool,
    /// Its task has ended: whoever wants something of it looks it up anew.
    pub is_gone: bool,
}

impl Live {
    pub(super) fn new(record: PayoutRecord, ticket: Ticket) -> Self {
        Self {
            id: record.id,
            latest: watch::Sender::new((record.clone(), ticket)),
            state: Mutex::new(State { record, has_more_lines: true, is_gone: false }),
            wake: Notify::new(),
        }
    }

    pub(super) fn subscribe(&self, journal: Journal) -> PayoutWatch {
        PayoutWatch { latest: self.latest.subscribe(), journal }
    }

    /// Takes note of a record that was written beside another's.
    pub(super) fn changed(&self, state: &mut State, after: PayoutRecord, ticket: Ticket) {
        state.record = after.clone();
        let _before = self.latest.send_replace((after, ticket));
    }
}

/// Follows one payout; yields durable records only. What changes in between is left out.
pub struct PayoutWatch {
    latest: watch::Receiver<Latest>,
    journal: Journal,
}

impl PayoutWatch {
    /// Of a payout that has ended.
    pub(super) fn ended(record: PayoutRecord, ticket: Ticket, journal: Journal) -> Self {
        Self { latest: watch::Sender::new((record, ticket)).subscribe(), journal }
    }

    /// The record now, once it is durable.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn current(&mut self) -> Result<PayoutRecord, StoreError> {
        let (record, ticket) = self.latest.borrow_and_update().clone();
        self.journal.durable(ticket).await?;
        Ok(record)
    }

    /// The next record that differs; `None` after a final one.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn next(&mut self) -> Result<Option<PayoutRecord>, StoreError> {
        if self.latest.borrow().0.state.is_final() || self.latest.changed().await.is_err() {
            return Ok(None);
        }
        self.current().await.map(Some)
    }

    /// The final record.
    ///
    /// # Errors
    ///
    /// If the store fails first, or the node stops.
    pub async fn outcome(&mut self) -> Result<PayoutRecord, StoreError> {
        let (record, ticket) = match self.latest.wait_for(|(r, _)| r.state.is_final()).await {
            Ok(latest) => latest.clone(),
            Err(_) => return Err(StoreError::Failed("node is stopping".into())),
        };
        self.journal.durable(ticket).await?;
        Ok(record)
    }
}

/// What is written in the batch of a decision.
#[derive(Default)]
pub(super) struct Beside<'a> {
    pub batch: Batch,
    /// Events of others; the payout's own come after them.
    pub events: Vec<DomainEvent>,
    /// The key of the call that it answers.
    pub key: Option<(&'a IdempotencyKey, Fingerprint)>,
}

impl Payouts {
    /// Writes what was decided, and what belongs to it.
    ///
    /// Where the payout ends, what a token set aside for it and it did not cost is given back.
    pub(super) fn commit(
        &self,
        live: &Live,
        state: &mut State,
        decision: Decision,
        beside: Beside<'_>,
    ) -> (PayoutRecord, Ticket) {
        let Decision { mut after, steps, .. } = decision;
        let Beside { mut batch, events: mut all, key } = beside;
        all.extend(events(live.id, steps));
        let ends = after.state.is_final() && !state.record.state.is_final();
        let _until_it_is_enqueued = ends.then(|| {
            let cost_msat = after.cost_msat();
            let new_msat = cost_msat.saturating_sub(after.charged_msat);
            after.charged_msat = cost_msat;
            self.parts.ledger.settle(Subject::Payout(live.id), Some(new_msat), &mut batch)
        });
        after.put(&mut batch);
        if after.state.is_final() != state.record.state.is_final() {
            after.put_open(&mut batch);
        }
        if let Some((key, fingerprint)) = key {
            let now = self.parts.journal.now();
            let answer = encode(&after);
            self.idempotency().record(&mut batch, Some(key), fingerprint, &answer, now);
        }
        let ticket = self.parts.journal.append(&all, batch);
        live.changed(state, after.clone(), ticket);
        (after, ticket)
    }
}

/// Steps as the journal has them.
pub(super) fn events(payout: PayoutId, steps: Vec<PayoutStep>) -> Vec<DomainEvent> {
    let event = |what| DomainEvent::Payout(PayoutEvent { payout, what });
    steps.into_iter().map(event).collect()
}
