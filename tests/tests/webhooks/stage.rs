//! The service alone: a log, a disk that can fail, and endpoints.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use channel_contracts::batch::SwapId;
use node::environment::{OsEntropy, SystemClock};
use node::journal::{
    DomainEvent, EndpointId, Entry, Journal, NodeEvent, SwapEvent, SwapKind, SwapState,
    WebhookEvent,
};
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::runtime::Tasks;
use node::store::{Batch, Committer, MemoryDisk, PowerCut, StoreError};
use node::webhooks::{
    EndpointView, EventWriter, NewEndpoint, Parts, RetryPolicy, SigningSecret, WebhookPolicy,
    Webhooks, WriteError, Written,
};
use serde_json::json;

/// How long anything may take before it counts as never.
const WAIT: Duration = Duration::from_secs(120);

/// What tests need: receivers on loopback, and waits of milliseconds.
pub fn policy() -> WebhookPolicy {
    let mut policy = WebhookPolicy::new(&Default::default());
    policy.allow_private = true;
    policy.timeout = Duration::from_millis(400);
    policy.retry = RetryPolicy { first_ms: 5, longest_ms: 200, give_up_ms: 600_000 };
    policy
}

/// Writes events for receivers of these tests.
struct Texts;

impl EventWriter for Texts {
    fn write(&self, entry: &Entry) -> Result<Option<Written>, WriteError> {
        let (name, about) = match &entry.event {
            DomainEvent::Swap(event) => ("swap.test", json!({ "swap": event.swap.0[0] })),
            DomainEvent::Webhook(event) => ("webhook.test", json!({ "what": what(event) })),
            // As an event that callers are not told of.
            _ => return Ok(None),
        };
        let event = json!({ "sequence": entry.sequence, "about": about });
        Ok(Some(Written { name: name.to_owned(), event }))
    }
}

fn what(event: &WebhookEvent) -> String {
    format!("{:?}", event.what)
}

/// An event of the object with this number.
pub fn event(object: u8) -> DomainEvent {
    let key = SecretKey::from_slice(&[1; 32]).unwrap();
    DomainEvent::Swap(SwapEvent {
        swap: SwapId([object; 32]),
        peer: PublicKey::from_secret_key(&Secp256k1::signing_only(), &key),
        kind: SwapKind::Deposit,
        state: SwapState::Done,
        amount_sat: 1,
    })
}

struct Running {
    committer: Committer,
    journal: Journal,
    webhooks: Arc<Webhooks>,
    tasks: Tasks,
}

/// The service and what is below it.
pub struct Stage {
    pub disk: MemoryDisk,
    policy: WebhookPolicy,
    keys: Keys,
    running: Option<Running>,
}

impl Stage {
    pub async fn new(policy: WebhookPolicy) -> Self {
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
        let keys = Keys::in_memory(Network::Regtest, &phrase, "");
        let mut stage = Self { disk: MemoryDisk::new(), policy, keys, running: None };
        stage.start();
        // A log that begins with something nobody is told of.
        stage.append(&[DomainEvent::Node(NodeEvent::Stopping)]).await.unwrap();
        stage
    }

    pub fn start(&mut self) {
        let committer = Committer::new(Arc::new(self.disk.open()));
        drop(committer.run_thread().unwrap());
        let tasks = Tasks::new();
        let journal = Journal::open(committer.clone(), Arc::new(SystemClock)).unwrap();
        let webhooks = Webhooks::open(Parts {
            committer: committer.clone(),
            journal: journal.clone(),
            writer: Arc::new(Texts),
            secrets: self.keys.webhook_secrets(),
            entropy: Arc::new(OsEntropy),
            clock: Arc::new(SystemClock),
            policy: self.policy.clone(),
            tasks: tasks.clone(),
        });
        let webhooks = Arc::new(webhooks.unwrap());
        webhooks.start();
        self.running = Some(Running { committer, journal, webhooks, tasks });
    }

    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.tasks.stop().await;
            running.committer.stop();
            running.committer.stopped().await;
        }
    }

    /// Cuts the power, and starts again from what is left.
    pub async fn crash(&mut self, kept: usize) {
        self.disk.cut_power(PowerCut { kept, torn_writes: 0 });
        self.stop().await;
        self.disk.clear_faults();
        self.start();
    }

    /// Starts again without `webhook.allow_private`.
    pub async fn forbid_private(&mut self) {
        self.stop().await;
        self.policy.allow_private = false;
        self.start();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn webhooks(&self) -> &Arc<Webhooks> {
        &self.running().webhooks
    }

    pub fn committer(&self) -> &Committer {
        &self.running().committer
    }

    pub fn journal(&self) -> &Journal {
        &self.running().journal
    }

    pub async fn append(&self, events: &[DomainEvent]) -> Result<(), StoreError> {
        let ticket = self.journal().append(events, Batch::default());
        self.journal().durable(ticket).await
    }

    /// An endpoint for everything that is yet to come.
    pub async fn endpoint(&self, url: &str) -> (EndpointId, SigningSecret) {
        let new = NewEndpoint {
            url: url.to_owned(),
            description: String::new(),
            kinds: Vec::new(),
            after: None,
        };
        let (view, secret) = self.webhooks().create(new, None).await.unwrap();
        (view.id, secret)
    }

    pub fn view(&self, id: EndpointId) -> EndpointView {
        self.webhooks().get(id).unwrap()
    }

    /// All of the log.
    pub fn log(&self) -> Vec<Entry> {
        self.journal().read(0, usize::MAX).unwrap()
    }

    /// What the log tells of endpoints.
    pub fn told(&self) -> Vec<String> {
        let told = |entry: &Entry| match &entry.event {
            DomainEvent::Webhook(event) => Some(what(event)),
            _ => None,
        };
        self.log().iter().filter_map(told).collect()
    }
}

/// Waits until `done` holds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + WAIT;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
