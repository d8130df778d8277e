//! Endpoints: made, changed, asked for, and told anew. Each has a task, see `worker.rs`, and its
//! state is in `endpoint.rs`.
//!
//! What an operator changes is durable when the call returns. An endpoint's state is under one
//! lock, and what it writes is enqueued under it, so that writes come in the order of changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::courier::{Connections, Courier, Parcel};
use super::endpoint::{Endpoint, EndpointChange, EndpointView, NewEndpoint, State};
use super::figures::DeliveryFigures;
use super::message::{EventWriter, Written, body};
use super::policy::WebhookPolicy;
use super::queue::Queue;
use super::record::{self, DeadLetter, EndpointRecord, EndpointState, Progress, Stored};
use super::signature::{self, SigningSecret};
use super::target::{Target, UrlError};
use crate::environment::{Clock, Entropy};
use crate::journal::{
    EndpointId, Fingerprint, Idempotency, IdempotencyError, IdempotencyKey, Journal, JournalError,
    millis,
};
use crate::keys::WebhookSecrets;
use crate::runtime::Tasks;
use crate::store::{Batch, Committer, StoreError};

/// Longest description, in bytes.
const DESCRIPTION_LENGTH_MAX: usize = 256;

/// What the service needs.
pub struct Parts {
    /// The way to the store.
    pub committer: Committer,
    /// The log of events.
    pub journal: Journal,
    /// Who writes events as callers see them.
    pub writer: Arc<dyn EventWriter>,
    /// What deliveries are signed with.
    pub secrets: WebhookSecrets,
    /// Ids of endpoints, and how long a wait is exactly.
    pub entropy: Arc<dyn Entropy>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// What is allowed.
    pub policy: WebhookPolicy,
    /// Where the tasks of endpoints run.
    pub tasks: Tasks,
}

/// What is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Everything after this place in the log.
    After(u64),
    /// All dead letters.
    DeadLetters,
}

/// What became of a test event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// What the receiver answered with, if it did.
    pub status: Option<u16>,
    /// Why it does not count as delivered.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why an endpoint is not made, changed or found.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// There is none of this name.
    #[error("there is no webhook endpoint {0}; see the list of endpoints")]
    Unknown(EndpointId),
    /// Nothing is sent there.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// There are as many as there may be.
    #[error("there are {max} webhook endpoints, as many as webhook.endpoints_max allows")]
    Full {
        /// How many that is.
        max: usize,
    },
    /// It is longer than we keep.
    #[error("description has {bytes} bytes, at most {DESCRIPTION_LENGTH_MAX} are allowed")]
    Description {
        /// Its length.
        bytes: usize,
    },
    /// That place in the log is yet to come.
    #[error("sequence {after} is yet to come, the newest is {newest}")]
    Ahead {
        /// The place.
        after: u64,
        /// The newest there is.
        newest: u64,
    },
    /// The log cannot be read from there.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The key cannot be used.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The webhook endpoints of this node.
pub struct Webhooks {
    pub(super) parts: Parts,
    pub(super) courier: Courier,
    pub(super) figures: DeliveryFigures,
    endpoints: Mutex<BTreeMap<EndpointId, Arc<Endpoint>>>,
}

impl Webhooks {
    /// Reads which endpoints there are.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let policy = &parts.policy;
        let courier = Courier::new(
            policy.allow_private,
            policy.ca_file.clone(),
            policy.timeout,
            parts.tasks.clone(),
        );
        let stored = record::load(&parts.committer)?;
        let endpoints = stored.into_iter().map(|stored| {
            let endpoint = Endpoint::new(stored, policy.allow_private);
            (endpoint.id, Arc::new(endpoint))
        });
        let endpoints = Mutex::new(endpoints.collect());
        Ok(Self { courier, figures: DeliveryFigures::default(), endpoints, parts })
    }

    /// Starts a task for each endpoint.
    pub fn start(self: &Arc<Self>) {
        let endpoints: Vec<Arc<Endpoint>> = self.endpoints.lock().values().cloned().collect();
        for endpoint in endpoints {
            self.spawn(endpoint);
        }
    }

    fn spawn(self: &Arc<Self>, endpoint: Arc<Endpoint>) {
        self.parts.tasks.spawn("webhook", Arc::clone(self).serve(endpoint));
    }

    /// What became of deliveries.
    pub fn figures(&self) -> &DeliveryFigures {
        &self.figures
    }

    /// The endpoints, by id.
    pub fn list(&self) -> Vec<EndpointView> {
        let endpoints: Vec<Arc<Endpoint>> = self.endpoints.lock().values().cloned().collect();
        endpoints.iter().map(|endpoint| self.view(endpoint)).collect()
    }

    /// One endpoint.
    ///
    /// # Errors
    ///
    /// [`WebhookError::Unknown`].
    pub fn get(&self, id: EndpointId) -> Result<EndpointView, WebhookError> {
        let endpoint = self.endpoint(id)?;
        Ok(self.view(&endpoint))
    }

    /// Makes an endpoint, once per key, and returns it with its secret.
    ///
    /// # Errors
    ///
    /// See [`WebhookError`].
    pub async fn create(
        self: &Arc<Self>,
        new: NewEndpoint,
        key: Option<&IdempotencyKey>,
    ) -> Result<(EndpointView, SigningSecret), WebhookError> {
        let fingerprint = Fingerprint::of(&new);
        let allow_private = self.parts.policy.allow_private;
        let (endpoint, ticket) = {
            let mut endpoints = self.endpoints.lock();
            if let Some(answer) = self.idempotency().recall(key, fingerprint, self.now())? {
                let id = EndpointId(answered(&answer)?);
                let endpoint = endpoints.get(&id).ok_or(WebhookError::Unknown(id))?;
                return Ok((self.view(endpoint), self.secret(id, 0)));
            }
            Target::parse(&new.url, allow_private)?;
            check_description(&new.description)?;
            let max = self.parts.policy.endpoints_max;
            if endpoints.len() >= max {
                return Err(WebhookError::Full { max });
            }
            let read_to = match new.after {
                Some(after) => self.kept(after)?,
                None => self.parts.journal.last_durable(),
            };
            let id = EndpointId(self.parts.entropy.bytes());
            let record = EndpointRecord {
                url: new.url,
                description: new.description,
                kinds: new.kinds,
                state: EndpointState::Enabled,
                created_ms: millis(self.now()),
                secret: 0,
                previous_until_ms: None,
            };
            let mut writes = Batch::default();
            record.put(id, &mut writes);
            let (progress, queue) = (Progress::default(), Queue::new(read_to));
            let stored = Stored { id, record, progress, queue };
            let endpoint = Arc::new(Endpoint::new(stored, allow_private));
            endpoint.state.lock().write(id, &mut writes);
            self.idempotency().record(&mut writes, key, fingerprint, &id.0, self.now());
            endpoints.insert(id, Arc::clone(&endpoint));
            (endpoint, self.parts.committer.enqueue(writes))
        };
        self.parts.committer.durable(ticket).await?;
        self.spawn(Arc::clone(&endpoint));
        tracing::info!(endpoint = %endpoint.id, "webhook endpoint made");
        Ok((self.view(&endpoint), self.secret(endpoint.id, 0)))
    }

    /// Changes an endpoint.
    ///
    /// # Errors
    ///
    /// See [`WebhookError`].
    pub async fn update(
        &self,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<EndpointView, WebhookError> {
        let endpoint = self.endpoint(id)?;
        let parse = |url: &String| Target::parse(url, self.parts.policy.allow_private);
        let target = change.url.as_ref().map(parse).transpose()?;
        change.description.as_deref().map(check_description).transpose()?;
        self.change(&endpoint, |state, writes| {
            if let (Some(url), Some(target)) = (change.url, target) {
                state.record.url = url;
                state.target = Ok(target);
                state.interrupt();
                endpoint.connections.clear();
            }
            if let Some(description) = change.description {
                state.record.description = description;
            }
            if let Some(kinds) = change.kinds {
                state.record.kinds = kinds;
            }
            match change.is_enabled {
                Some(true) if state.record.state != EndpointState::Enabled => {
                    state.record.state = EndpointState::Enabled;
                    state.queue.begin_anew(millis(self.now()));
                }
                Some(false) => {
                    state.record.state = EndpointState::Disabled;
                    state.interrupt();
                }
                Some(true) | None => {}
            }
            state.record.put(id, writes);
            Ok(())
        })
        .await?;
        Ok(self.view(&endpoint))
    }

    /// Forgets an endpoint, with everything that waits for it.
    ///
    /// # Errors
    ///
    /// See [`WebhookError`].
    pub async fn delete(&self, id: EndpointId, beside: Batch) -> Result<(), WebhookError> {
        let ticket = {
            let mut endpoints = self.endpoints.lock();
            let endpoint = endpoints.get(&id).ok_or(WebhookError::Unknown(id))?;
            let mut state = endpoint.state.lock();
            let mut writes = beside;
            record::delete(&self.parts.committer, id, &mut writes)?;
            state.is_deleted = true;
            endpoint.stop.cancel();
            let ticket = self.parts.committer.enqueue(writes);
            drop(state);
            endpoints.remove(&id);
            ticket
        };
        Ok(self.parts.committer.durable(ticket).await?)
    }

    /// Gives an endpoint a new secret, once per key. The one before signs as well for `grace`.
    ///
    /// # Errors
    ///
    /// See [`WebhookError`].
    pub async fn rotate(
        &self,
        id: EndpointId,
        grace: Option<Duration>,
        key: Option<&IdempotencyKey>,
    ) -> Result<(EndpointView, SigningSecret), WebhookError> {
        let fingerprint = Fingerprint::of(&(id, grace));
        let endpoint = self.endpoint(id)?;
        let mut number = 0;
        self.change(&endpoint, |state, writes| {
            if let Some(answer) = self.idempotency().recall(key, fingerprint, self.now())? {
                number = u32::from_be_bytes(answered(&answer)?);
                return Ok(());
            }
            let until = self.now() + grace.unwrap_or(self.parts.policy.rotation_grace);
            number = state.record.secret.wrapping_add(1);
            state.record.secret = number;
            state.record.previous_until_ms = Some(millis(until));
            state.record.put(id, writes);
            let answer = number.to_be_bytes();
            self.idempotency().record(writes, key, fingerprint, &answer, self.now());
            Ok(())
        })
        .await?;
        Ok((self.view(&endpoint), self.secret(id, number)))
    }

    /// Delivers again what was delivered or given up. Receivers know it by its names.
    ///
    /// # Errors
    ///
    /// See [`WebhookError`].
    pub async fn replay(
        &self,
        id: EndpointId,
        replay: Replay,
        beside: Batch,
    ) -> Result<EndpointView, WebhookError> {
        let endpoint = self.endpoint(id)?;
        let from = match replay {
            Replay::After(after) => self.kept(after)?,
            Replay::DeadLetters => 0,
        };
        self.change(&endpoint, |state, writes| {
            let letters = record::dead_letters(&self.parts.committer, id, from, usize::MAX)?;
            writes.append(beside);
            if let Replay::After(after) = replay {
                state.interrupt();
                state.queue.rewind(after);
            }
            for letter in letters {
                // After a way back it comes by itself.
                state.queue.put_back(letter.sequence, letter.object, millis(self.now()));
                DeadLetter::delete(id, letter.sequence, writes);
                state.progress.dead_letters = state.progress.dead_letters.saturating_sub(1);
            }
            Ok(())
        })
        .await?;
        Ok(self.view(&endpoint))
    }

    /// At most `limit` dead letters after the place `after`, oldest first.
    ///
    /// # Errors
    ///
    /// See [`WebhookError`].
    pub fn dead_letters(
        &self,
        id: EndpointId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, WebhookError> {
        self.endpoint(id)?;
        Ok(record::dead_letters(&self.parts.committer, id, after, limit)?)
    }

    /// Sends an event of the type `webhook.test`, now and once, also to an endpoint that is
    /// disabled.
    ///
    /// # Errors
    ///
    /// [`WebhookError::Unknown`]. What the receiver says is no error here.
    pub async fn test(&self, id: EndpointId) -> Result<TestOutcome, WebhookError> {
        let endpoint = self.endpoint(id)?;
        let number: [u8; 8] = self.parts.entropy.bytes();
        let event = json!({ "endpoint_id": id.to_string() });
        let written = Written { name: "webhook.test".to_owned(), event };
        let name = format!("test_{id}_{}", hex::encode(number));
        let body = Bytes::from(body(&written, millis(self.now())));
        let began = Instant::now();
        let (target, parcel) = self.pack(&endpoint, name, body);
        let answer = match target {
            Ok(target) => {
                let answer = self.courier.post(&target, &Connections::default(), &parcel).await;
                answer.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let took = began.elapsed();
        Ok(match answer {
            Err(error) => TestOutcome { status: None, error: Some(error), took },
            Ok(answer) => {
                let error = (!answer.is_success()).then(|| format!("status {}", answer.status));
                TestOutcome { status: Some(answer.status), error, took }
            }
        })
    }

    /// Signs `body` with what an endpoint's receiver knows now.
    pub(super) fn pack(
        &self,
        endpoint: &Endpoint,
        id: String,
        body: Bytes,
    ) -> (Result<Target, UrlError>, Parcel) {
        let now = self.now();
        let (target, number, previous_until_ms) = {
            let state = endpoint.state.lock();
            (state.target.clone(), state.record.secret, state.record.previous_until_ms)
        };
        let mut secrets = vec![self.secret(endpoint.id, number)];
        if previous_until_ms.is_some_and(|until_ms| millis(now) < until_ms) {
            secrets.push(self.secret(endpoint.id, number.wrapping_sub(1)));
        }
        let unix_seconds = now.as_secs();
        let signature = signature::header(&secrets, &id, unix_seconds, &body);
        (target, Parcel { id, unix_seconds, signature, body })
    }

    pub(super) fn now(&self) -> Duration {
        self.parts.clock.now()
    }

    fn secret(&self, id: EndpointId, number: u32) -> SigningSecret {
        SigningSecret::new(Zeroizing::new(self.parts.secrets.secret(&id.0, number).to_vec()))
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.parts.committer.clone())
    }

    fn endpoint(&self, id: EndpointId) -> Result<Arc<Endpoint>, WebhookError> {
        self.endpoints.lock().get(&id).cloned().ok_or(WebhookError::Unknown(id))
    }

    /// Checks that the log can be read after this place.
    fn kept(&self, after: u64) -> Result<u64, WebhookError> {
        let newest = self.parts.journal.last_durable();
        if after > newest {
            return Err(WebhookError::Ahead { after, newest });
        }
        self.parts.journal.read(after, 1)?;
        Ok(after)
    }

    /// Changes an endpoint's state and makes that durable.
    async fn change(
        &self,
        endpoint: &Endpoint,
        change: impl FnOnce(&mut State, &mut Batch) -> Result<(), WebhookError>,
    ) -> Result<(), WebhookError> {
        let ticket = {
            let mut state = endpoint.state.lock();
            if state.is_deleted {
                return Err(WebhookError::Unknown(endpoint.id));
            }
            let mut writes = Batch::default();
            change(&mut state, &mut writes)?;
            state.write(endpoint.id, &mut writes);
            self.parts.committer.enqueue(writes)
        };
        endpoint.changed.notify_one();
        Ok(self.parts.committer.durable(ticket).await?)
    }

    fn view(&self, endpoint: &Endpoint) -> EndpointView {
        let newest = self.parts.journal.last_durable();
        let state = endpoint.state.lock();
        EndpointView {
            id: endpoint.id,
            record: state.record.clone(),
            progress: Progress { read_to: state.queue.read_to(), ..state.progress.clone() },
            waiting: state.queue.len(),
            behind: newest.saturating_sub(state.queue.read_to()),
            last_error: state.last_error.clone(),
        }
    }
}

fn check_description(description: &str) -> Result<(), WebhookError> {
    match description.len() {
        bytes if bytes > DESCRIPTION_LENGTH_MAX => Err(WebhookError::Description { bytes }),
        _ => Ok(()),
    }
}

/// Reads what an idempotency record of this room says.
fn answered<const N: usize>(answer: &[u8]) -> Result<[u8; N], StoreError> {
    answer.try_into().map_err(|_| StoreError::Corrupt("idempotency record of a webhook".into()))
}
