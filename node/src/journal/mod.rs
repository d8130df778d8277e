//! The journal: every domain event as a durable record with a sequence number.
//!
//! A service appends the events of one decision together with whatever it stores beside them
//! (its state records, an idempotency record) as one batch, so that all of it is durable or none.
//! Readers see durable events only, in order, and resume after any sequence number.

mod event;
mod follow;
mod idempotency;
mod notice;
mod payout;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use event::{
    BatchEvent, ChannelEvent, DomainEvent, EndpointId, EventKind, InvoiceEvent, NodeEvent,
    PaymentEvent, PaymentRequestKind, SwapEvent, SwapKind, SwapState, WebhookEvent, WebhookTrouble,
};
pub use follow::{Ends, Follow, Latest};
pub use idempotency::{Fingerprint, Idempotency, IdempotencyError, IdempotencyKey};
pub use notice::{ChainEvent, SecurityEvent, TowerEvent, TowerStep, WalletEvent, WalletStep};
pub use payout::{PayoutEvent, PayoutId, PayoutStep};

use crate::environment::Clock;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

/// An event with its place and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: 1 is the first, without gaps.
    #[serde(skip)]
    pub sequence: u64,
    /// When it was recorded, in ms since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub event: DomainEvent,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what was written.
    #[error("journal record {sequence} cannot be read: {detail}; restore a backup")]
    Unreadable {
        /// Its place.
        sequence: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// The events asked for are gone.
    #[error("events up to {first_kept} exclusive were pruned; ask after {first_kept} minus one")]
    Pruned {
        /// The first event that is still there.
        first_kept: u64,
    },
}

/// The node's journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    committer: Committer,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    appended: Notify,
}

struct State {
    /// The last sequence given out.
    last: u64,
    /// The last sequence known to be durable.
    durable: u64,
    /// Appends that may not be durable yet: ticket and last sequence.
    pending: VecDeque<(Ticket, u64)>,
}

impl State {
    /// Takes note that everything up to `durable` is.
    fn settle(&mut self, durable: Ticket) {
        while let Some((ticket, last)) = self.pending.front().copied() {
            if ticket > durable {
                break;
            }
            self.durable = last;
            self.pending.pop_front();
        }
    }
}

impl Journal {
    /// Opens the journal in `committer`'s store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(committer: Committer, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let (from, to) = Table::Journal.range();
        let last = match committer.scan_back(&from, &to, 1)?.first() {
            Some((key, _)) => sequence_of(key)?,
            None => 0,
        };
        let state = Mutex::new(State { last, durable: last, pending: VecDeque::new() });
        Ok(Self { shared: Arc::new(Shared { committer, clock, state, appended: Notify::new() }) })
    }

    /// The time records are made at.
    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    /// Records `events` together with the writes of `beside`, all or nothing.
    pub fn append(&self, events: &[DomainEvent], mut beside: Batch) -> Ticket {
        let at_ms = millis(self.now());
        let durable = self.shared.committer.last_durable();
        // Sequence and queue order must agree, so both happen under one lock.
        let mut state = self.shared.state.lock();
        // Nobody may be reading, and what is pending must not grow until somebody does.
        state.settle(durable);
        for event in events {
            state.last += 1;
            let mut value = Vec::with_capacity(160);
            let record = EntryRef { at_ms, event };
            ciborium::into_writer(&record, &mut value).expect("writing to memory cannot fail");
            beside.put(Table::Journal.key(state.last.to_be_bytes()), value);
        }
        let ticket = self.shared.committer.enqueue(beside);
        if !events.is_empty() {
            let last = state.last;
            state.pending.push_back((ticket, last));
            drop(state);
            self.shared.appended.notify_waiters();
        }
        ticket
    }

    /// Waits until `ticket` is durable.
    ///
    /// # Errors
    ///
    /// If the store failed first.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.shared.committer.durable(ticket).await
    }

    /// The last durable sequence; 0 if there is none.
    pub fn last_durable(&self) -> u64 {
        let durable = self.shared.committer.last_durable();
        let mut state = self.shared.state.lock();
        state.settle(durable);
        state.durable
    }

    /// The oldest sequence that is kept; `None` while there is none.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn oldest(&self) -> Result<Option<u64>, JournalError> {
        let (from, to) = Table::Journal.range();
        let first = self.shared.committer.scan(&from, &to, 1)?;
        let oldest = first.first().map(|(key, _)| sequence_of(key)).transpose()?;
        Ok(oldest.filter(|sequence| *sequence <= self.last_durable()))
    }

    /// Waits until there is a durable event after `sequence`.
    ///
    /// # Errors
    ///
    /// If the store failed first.
    pub async fn beyond(&self, sequence: u64) -> Result<(), StoreError> {
        loop {
            let appended = self.shared.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            if self.last_durable() > sequence {
                return Ok(());
            }
            let next = {
                let state = self.shared.state.lock();
                state.pending.iter().find(|(_, last)| *last > sequence).map(|(ticket, _)| *ticket)
            };
            match next {
                Some(ticket) => self.durable(ticket).await?,
                None => appended.await,
            }
        }
    }

    /// Reads at most `limit` durable events after `sequence`, in order.
    ///
    /// # Errors
    ///
    /// [`JournalError::Pruned`] if the next event is gone: never a silent gap.
    pub fn read(&self, after: u64, limit: usize) -> Result<Vec<Entry>, JournalError> {
        let durable = self.last_durable();
        let from = Table::Journal.key((after.saturating_add(1)).to_be_bytes());
        let to = Table::Journal.key((durable.saturating_add(1)).to_be_bytes());
        if from >= to {
            return Ok(Vec::new());
        }
        let pairs = self.shared.committer.scan(&from, &to, limit)?;
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let sequence = sequence_of(&key)?;
            if entries.is_empty() && sequence != after + 1 {
                return Err(JournalError::Pruned { first_kept: sequence });
            }
            let mut entry: Entry = ciborium::from_reader(&value[..]).map_err(|error| {
                JournalError::Unreadable { sequence, detail: error.to_string() }
            })?;
            entry.sequence = sequence;
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[derive(Serialize)]
struct EntryRef<'a> {
    at_ms: u64,
    event: &'a DomainEvent,
}

/// Milliseconds since the Unix epoch.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn sequence_of(key: &[u8]) -> Result<u64, JournalError> {
    Table::Journal
        .rest(key)
        .and_then(|rest| rest.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| JournalError::Unreadable { sequence: 0, detail: "its key is odd".into() })
}
