//! One endpoint's task: reads the log as far as there is room, sends what is due, and writes down
//! what became of it.
//!
//! What is decided is decided by the queue; here are time, the log, the store and the courier. How
//! far an endpoint came is written a few times a second at most, and nobody waits for it: after a
//! crash an endpoint hears the last moment twice, under the same names.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::body::Bytes;
use tokio::time::Instant;

use super::courier::Answer;
use super::endpoint::{Endpoint, State};
use super::message::{WriteError, body, message_id};
use super::object::Object;
use super::queue::{Failed, Pending};
use super::record::{self, DeadLetter, EndpointState};
use super::service::Webhooks;
use crate::journal::{DomainEvent, JournalError, WebhookEvent, WebhookTrouble, millis};
use crate::store::{Batch, StoreError};

/// Events read at once.
const STEP: usize = 64;
/// How often it is written down how far an endpoint came.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// How long a task sleeps at most: the wall clock may jump.
const NAP_MAX: Duration = Duration::from_secs(60);
/// Longest error kept with a dead letter, in characters.
const ERROR_LENGTH_MAX: usize = 300;
/// Statuses with which a receiver asks to be left alone for a while.
const BUSY: [u16; 2] = [429, 503];
/// The status of a receiver that wants nothing more.
const GONE: u16 = 410;

/// What a task does next.
#[derive(Default)]
struct Turn {
    /// Events to be sent now.
    start: Vec<u64>,
    /// Reads on once there is something after this place.
    read_after: Option<u64>,
    /// When the next event is due.
    wake_at_ms: Option<u64>,
    is_changed: bool,
}

/// What became of a delivery.
enum Outcome {
    Delivered,
    /// There is nothing to tell.
    Nothing,
    /// The event is gone from the log.
    Missed,
    /// The receiver wants nothing more.
    Gone,
    Failed {
        why: String,
        asked_ms: Option<u64>,
    },
    /// Nothing can be read any more.
    Broken(JournalError),
}

impl Webhooks {
    /// Serves one endpoint until it is deleted or the node stops.
    pub(super) async fn serve(self: Arc<Self>, endpoint: Arc<Endpoint>) {
        tokio::select! {
            biased;
            () = self.parts.tasks.stopped() => self.write(&endpoint),
            () = endpoint.stop.cancelled() => {}
            failed = self.deliver(&endpoint) => {
                let Err(error) = failed;
                tracing::error!(%error, endpoint = %endpoint.id, "webhook endpoint is not served any more");
            }
        }
    }

    async fn deliver(&self, endpoint: &Endpoint) -> Result<Infallible, JournalError> {
        let mut flights = FuturesUnordered::new();
        let mut epoch = 0;
        let mut written = Instant::now();
        loop {
            let now_epoch = endpoint.state.lock().epoch;
            if now_epoch != epoch {
                flights.clear();
                epoch = now_epoch;
            }
            let turn = self.turn(endpoint, epoch, flights.len())?;
            for sequence in turn.start {
                flights.push(async move { (sequence, self.fly(endpoint, sequence).await) });
            }
            if turn.is_changed && written.elapsed() >= WRITE_EVERY {
                self.write(endpoint);
                written = Instant::now();
            }
            let write_at = turn.is_changed.then(|| written + WRITE_EVERY);
            let more = async {
                match turn.read_after {
                    Some(after) => self.parts.journal.beyond(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = endpoint.changed.notified() => {}
                Some((sequence, outcome)) = flights.next(), if !flights.is_empty() => {
                    self.land(endpoint, epoch, sequence, outcome)?;
                }
                durable = more => durable?,
                () = tokio::time::sleep_until(self.wake_at(turn.wake_at_ms, write_at)) => {}
            }
            // A log that is long, or a receiver that is quick, must not keep the worker.
            tokio::task::yield_now().await;
        }
    }

    /// Takes in what the log has, as far as there is room, and says what is due.
    fn turn(&self, endpoint: &Endpoint, epoch: u64, flying: usize) -> Result<Turn, JournalError> {
        let now_ms = millis(self.now());
        let place = endpoint.state.lock().place(self, now_ms);
        let mut entries = Vec::new();
        if let Some((after, room)) = place {
            match self.parts.journal.read(after, room.min(STEP)) {
                Ok(read) => entries = read,
                Err(JournalError::Pruned { first_kept }) => {
                    self.missed(endpoint, after + 1, first_kept - 1);
                }
                Err(error) => return Err(error),
            }
        }
        let mut state = endpoint.state.lock();
        if state.epoch != epoch {
            // Whoever changed it has woken this task.
            return Ok(Turn::default());
        }
        for entry in entries {
            let kind = entry.event.kind();
            let is_wanted = state.record.kinds.is_empty() || state.record.kinds.contains(&kind);
            match is_wanted {
                true => state.queue.push(entry.sequence, Object::of(&entry.event), now_ms),
                false => state.queue.pass(entry.sequence),
            }
        }
        let mut turn = Turn::default();
        if state.is_enabled() {
            let free = self.parts.policy.concurrency.saturating_sub(flying);
            turn.start = std::iter::from_fn(|| state.queue.start(now_ms)).take(free).collect();
            // With no place free, the next landing wakes this task.
            turn.wake_at_ms = state.queue.next_due_ms().filter(|_| turn.start.len() < free);
        }
        turn.read_after = state.place(self, now_ms).map(|(after, _)| after);
        turn.is_changed = state.queue.is_changed();
        Ok(turn)
    }

    fn wake_at(&self, due_ms: Option<u64>, write_at: Option<Instant>) -> Instant {
        let now_ms = millis(self.now());
        let nap = due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
        let due_at = Instant::now() + nap.unwrap_or(NAP_MAX).min(NAP_MAX);
        write_at.map_or(due_at, |write_at| write_at.min(due_at))
    }

    /// Sends one event.
    async fn fly(&self, endpoint: &Endpoint, sequence: u64) -> Outcome {
        let entry = match self.parts.journal.read(sequence - 1, 1) {
            Ok(entries) => entries.into_iter().next(),
            Err(JournalError::Pruned { .. }) => None,
            Err(error) => return Outcome::Broken(error),
        };
        let Some(entry) = entry else { return Outcome::Missed };
        let failed = |why: String| Outcome::Failed { why, asked_ms: None };
        let written = match self.parts.writer.write(&entry) {
            Ok(Some(written)) => written,
            Ok(None) => return Outcome::Nothing,
            Err(WriteError::Store(error)) => return Outcome::Broken(error.into()),
            Err(error @ WriteError::Format(_)) => return failed(error.to_string()),
        };
        let name = message_id(endpoint.id, sequence);
        let body = Bytes::from(body(&written, entry.at_ms));
        let (target, parcel) = self.pack(endpoint, name, body);
        let target = match target {
            Ok(target) => target,
            Err(error) => return failed(error.to_string()),
        };
        match self.courier.post(&target, &endpoint.connections, &parcel).await {
            Ok(answer) => Outcome::of(answer),
            Err(error) => failed(error.to_string()),
        }
    }

    /// Takes note of what became of a delivery.
    fn land(
        &self,
        endpoint: &Endpoint,
        epoch: u64,
        sequence: u64,
        outcome: Outcome,
    ) -> Result<(), JournalError> {
        let mut state = endpoint.state.lock();
        if state.epoch != epoch {
            return Ok(());
        }
        match outcome {
            Outcome::Delivered => {
                state.queue.finish(sequence);
                state.progress.delivered += 1;
                state.progress.delivered_ms = Some(millis(self.now()));
                state.last_error = None;
                state.is_failing = false;
            }
            Outcome::Nothing => {
                state.queue.finish(sequence);
            }
            Outcome::Missed => {
                state.queue.finish(sequence);
                self.tell_missed(endpoint, &mut state, sequence, sequence);
            }
            Outcome::Gone => self.disable(endpoint, &mut state),
            Outcome::Failed { why, asked_ms } => {
                self.failed(endpoint, &mut state, sequence, why, asked_ms)?;
            }
            Outcome::Broken(error) => return Err(error),
        }
        Ok(())
    }

    fn failed(
        &self,
        endpoint: &Endpoint,
        state: &mut State,
        sequence: u64,
        why: String,
        asked_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        let now_ms = millis(self.now());
        let random = u64::from_be_bytes(self.parts.entropy.bytes());
        let policy = &self.parts.policy.retry;
        let failed = state.queue.failed(sequence, now_ms, policy, asked_ms, random);
        match failed {
            Failed::Again { due_ms } => {
                let retry_in_ms = due_ms.saturating_sub(now_ms);
                match state.last_error {
                    None => {
                        tracing::warn!(endpoint = %endpoint.id, sequence, why, retry_in_ms, "webhook is not delivered");
                    }
                    Some(_) => {
                        tracing::debug!(endpoint = %endpoint.id, sequence, why, retry_in_ms, "webhook is not delivered");
                    }
                }
            }
            Failed::GivenUp(pending) => self.give_up(endpoint, state, sequence, pending, &why)?,
            Failed::Unknown => {}
        }
        state.last_error = Some(why);
        Ok(())
    }

    /// Makes a dead letter of an event.
    fn give_up(
        &self,
        endpoint: &Endpoint,
        state: &mut State,
        sequence: u64,
        pending: Pending,
        why: &str,
    ) -> Result<(), StoreError> {
        tracing::error!(endpoint = %endpoint.id, sequence, why, "webhook is given up; it can be replayed");
        let id = endpoint.id;
        let mut writes = Batch::default();
        let Pending { object, tries, since_ms, .. } = pending;
        let (at_ms, last_error) =
            (millis(self.now()), why.chars().take(ERROR_LENGTH_MAX).collect());
        DeadLetter { sequence, object, tries, since_ms, at_ms, last_error }.put(id, &mut writes);
        if state.progress.dead_letters < self.parts.policy.dead_letters_max {
            state.progress.dead_letters += 1;
        } else if let Some(oldest) = record::dead_letters(&self.parts.committer, id, 0, 1)?.first()
        {
            tracing::error!(endpoint = %id, sequence = oldest.sequence, "too many dead letters; the oldest is dropped");
            DeadLetter::delete(id, oldest.sequence, &mut writes);
            state.progress.dropped += 1;
        }
        state.write(id, &mut writes);
        // News of webhooks that are not delivered make no further news: they would never end.
        let is_news = !matches!(object, Some(Object::Endpoint(_)));
        let tells = is_news && !std::mem::replace(&mut state.is_failing, true);
        self.append(endpoint, tells.then_some(WebhookTrouble::GaveUp { sequence }), writes);
        Ok(())
    }

    fn disable(&self, endpoint: &Endpoint, state: &mut State) {
        tracing::error!(endpoint = %endpoint.id, "webhook endpoint says it is gone; it is disabled");
        state.record.state = EndpointState::Gone { at_ms: millis(self.now()) };
        state.last_error = Some(format!("status {GONE}: the receiver wants nothing more"));
        state.interrupt();
        let mut writes = Batch::default();
        state.record.put(endpoint.id, &mut writes);
        state.write(endpoint.id, &mut writes);
        self.append(endpoint, Some(WebhookTrouble::Disabled), writes);
    }

    /// Comes past events that are gone from the log.
    fn missed(&self, endpoint: &Endpoint, first: u64, last: u64) {
        let mut state = endpoint.state.lock();
        if state.queue.read_to() + 1 == first {
            state.queue.pass(last);
            self.tell_missed(endpoint, &mut state, first, last);
        }
    }

    fn tell_missed(&self, endpoint: &Endpoint, state: &mut State, first: u64, last: u64) {
        tracing::error!(endpoint = %endpoint.id, first, last, "events were gone before they could be delivered");
        state.progress.missed = state.progress.missed.saturating_add(last - first + 1);
        let mut writes = Batch::default();
        state.write(endpoint.id, &mut writes);
        self.append(endpoint, Some(WebhookTrouble::Missed { first, last }), writes);
    }

    fn append(&self, endpoint: &Endpoint, what: Option<WebhookTrouble>, writes: Batch) {
        let event = |what| DomainEvent::Webhook(WebhookEvent { endpoint: endpoint.id, what });
        let events: Vec<DomainEvent> = what.map(event).into_iter().collect();
        let _nobody_waits = self.parts.journal.append(&events, writes);
    }

    fn write(&self, endpoint: &Endpoint) {
        let mut state = endpoint.state.lock();
        if state.queue.is_changed() {
            let mut writes = Batch::default();
            state.write(endpoint.id, &mut writes);
            let _heard_again_after_a_crash = self.parts.committer.enqueue(writes);
        }
    }
}

impl State {
    /// Where the log is to be read, and how much of it; `None` while enough is ready.
    fn place(&self, webhooks: &Webhooks, now_ms: u64) -> Option<(u64, usize)> {
        let policy = &webhooks.parts.policy;
        let room = self.queue.room(policy.waiting_max);
        let is_hungry = self.queue.ready(now_ms, policy.concurrency) < policy.concurrency;
        (self.is_enabled() && room > 0 && is_hungry).then(|| (self.queue.read_to(), room))
    }
}

impl Outcome {
    fn of(answer: Answer) -> Self {
        let status = answer.status;
        match status {
            _ if answer.is_success() => Self::Delivered,
            GONE => Self::Gone,
            _ => {
                let asked = answer.retry_after.filter(|_| BUSY.contains(&status));
                Self::Failed { why: format!("status {status}"), asked_ms: asked.map(millis) }
            }
        }
    }
}
