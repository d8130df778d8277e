//! The towers of this node, and the tasks that bring them what they are to have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use channel_contracts::tower::{Mode, RegistrationReceipt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::link::{LinkFailure, TowerLink, TowerLinks};
use super::make::state_of;
use super::record::{self, TowerRecord};
use crate::environment::Clock;
use crate::journal::{DomainEvent, Journal, TowerEvent, TowerStep, millis};
use crate::keys::TowerSecrets;
use crate::lightning::JusticeLog;
use crate::lightning::types::ChannelId;
use crate::runtime::Tasks;
use crate::store::{Batch, Committer, StoreError, Ticket};
use crate::wallet::Wallet;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Entries that are passed over at once when too many wait.
const MISSED_AT_ONCE: usize = 1_000;

/// What the service needs.
pub struct Parts {
    /// The outbox.
    pub log: Arc<JusticeLog>,
    /// The way to the store.
    pub committer: Committer,
    /// Where it is told how towers do.
    pub journal: Journal,
    /// The way to towers.
    pub links: Arc<dyn TowerLinks>,
    /// This node's keys at towers.
    pub secrets: TowerSecrets,
    /// Whose addresses are paid.
    pub wallet: Arc<Wallet>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// The most that may wait for towers, bytes.
    pub bytes_max: u64,
    /// Where the tasks of towers run.
    pub tasks: Tasks,
}

/// Why a tower is not added. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum AddTowerError {
    /// The address is none.
    #[error("{address:?} is no address of a tower: {why}")]
    Address {
        /// It.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// It cannot be reached.
    #[error("tower at {address} cannot be reached: {why}; check the address and that it runs")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        why: String,
    },
    /// Another tower is there.
    #[error("at {address} is tower {found}, not {expected}; check key and address")]
    Other {
        /// Where.
        address: String,
        /// Who is there.
        found: PublicKey,
        /// Who should be.
        expected: PublicKey,
    },
    /// It refuses this client.
    #[error("tower refuses this node: {0}")]
    Refused(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a tower is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveTowerError {
    /// It guards nothing of this node.
    #[error("tower {0} does not guard this node; see the list of towers")]
    Unknown(PublicKey),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A tower, as the operator sees it.
#[derive(Debug, Clone)]
pub struct GuardView {
    /// What is recorded.
    pub record: TowerRecord,
    /// Entries that it does not have yet.
    pub backlog: u64,
    /// What went wrong last, if nothing went right since.
    pub last_error: Option<String>,
    /// This node's key there.
    pub client: PublicKey,
    /// Paths of batches that it publishes when their time comes.
    pub paths: usize,
}

/// The towers of this node.
pub struct Towers {
    pub(super) parts: Parts,
    pub(super) secp: Secp256k1<All>,
    guards: Mutex<BTreeMap<PublicKey, Guarding>>,
}

struct Guarding {
    record: TowerRecord,
    last_error: Option<String>,
    stop: CancellationToken,
}

impl Towers {
    /// Reads which towers there are.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let guards: BTreeMap<PublicKey, Guarding> = record::load(&parts.committer)?
            .into_iter()
            .map(|record| (record.tower, Guarding::new(record)))
            .collect();
        parts.log.set_wanted(!guards.is_empty());
        Ok(Self { parts, secp: Secp256k1::new(), guards: Mutex::new(guards) })
    }

    /// Starts a task for each tower.
    pub fn start(self: &Arc<Self>) {
        let towers: Vec<PublicKey> = self.guards.lock().keys().copied().collect();
        for tower in towers {
            self.spawn(tower);
        }
    }

    /// The towers, by key.
    pub fn list(&self) -> Vec<GuardView> {
        let newest = *self.parts.log.next().borrow();
        let view = |guarding: &Guarding| GuardView {
            last_error: guarding.last_error.clone(),
            ..self.view(&guarding.record, newest.saturating_sub(guarding.record.next))
        };
        self.guards.lock().values().map(view).collect()
    }

    /// Bytes that wait for the slowest tower.
    pub fn outbox_bytes(&self) -> u64 {
        self.parts.log.bytes_waiting()
    }

    /// Registers with a tower and hands it all that is revealed from now on. Durable when it
    /// returns.
    ///
    /// # Errors
    ///
    /// See [`AddTowerError`].
    pub async fn add(
        self: &Arc<Self>,
        tower: PublicKey,
        address: &str,
        mode: Mode,
    ) -> Result<GuardView, AddTowerError> {
        let bad = |why| AddTowerError::Address { address: address.to_owned(), why };
        let link = self.parts.links.link(tower, address).map_err(bad)?;
        let failed = |failure: LinkFailure| match failure {
            LinkFailure::Unreachable(why) => {
                AddTowerError::Unreachable { address: address.to_owned(), why }
            }
            LinkFailure::Subscription(why)
            | LinkFailure::Conflict(why)
            | LinkFailure::Refused(why) => AddTowerError::Refused(why),
        };
        let terms = in_time(link.terms()).await.map_err(failed)?;
        if terms.tower != tower {
            let (address, found) = (address.to_owned(), terms.tower);
            return Err(AddTowerError::Other { address, found, expected: tower });
        }
        if mode == Mode::Trusted && !terms.takes_trusted {
            return Err(AddTowerError::Refused("it takes no remedies with secrets".into()));
        }
        let promised = self.register(&*link, tower).await.map_err(failed)?;
        let (record, ticket) = {
            let mut guards = self.guards.lock();
            // From here on states are kept: before the place in the outbox is chosen, so that none
            // falls in between.
            self.parts.log.set_wanted(true);
            let mut record = TowerRecord {
                tower,
                address: address.to_owned(),
                trusted: mode == Mode::Trusted,
                next: *self.parts.log.next().borrow(),
                delivered: 0,
                refused: 0,
                missed: 0,
                expires: promised.expiry.to_consensus_u32(),
                fee_budget_sat: promised.fee_budget.to_sat(),
                last_receipt_ms: None,
            };
            if let Some(known) = guards.remove(&tower) {
                known.stop.cancel();
                let TowerRecord { next, delivered, refused, missed, last_receipt_ms, .. } =
                    known.record;
                record =
                    TowerRecord { next, delivered, refused, missed, last_receipt_ms, ..record };
            }
            guards.insert(tower, Guarding::new(record.clone()));
            let mut writes = Batch::default();
            record.put(&mut writes);
            (record, self.tell(tower, TowerStep::Added, writes))
        };
        self.parts.committer.durable(ticket).await?;
        self.spawn(tower);
        tracing::info!(%tower, address, "tower guards this node");
        Ok(self.view(&record, 0))
    }

    fn view(&self, record: &TowerRecord, backlog: u64) -> GuardView {
        let tower = &record.tower;
        GuardView {
            client: self.parts.secrets.client(tower).public_key(&self.secp),
            paths: self.guarded_paths(tower).map_or(0, |paths| paths.len()),
            record: record.clone(),
            backlog,
            last_error: None,
        }
    }

    /// Forgets a tower. Durable when it returns.
    ///
    /// # Errors
    ///
    /// See [`RemoveTowerError`].
    pub async fn remove(&self, tower: &PublicKey, beside: Batch) -> Result<(), RemoveTowerError> {
        let ticket = {
            let mut guards = self.guards.lock();
            let known = guards.remove(tower).ok_or(RemoveTowerError::Unknown(*tower))?;
            known.stop.cancel();
            self.parts.log.set_wanted(!guards.is_empty());
            let mut writes = beside;
            TowerRecord::delete(tower, &mut writes);
            self.forget_paths(tower, &mut writes)?;
            self.tell(*tower, TowerStep::Removed, writes)
        };
        self.parts.committer.durable(ticket).await?;
        self.forget_delivered()?;
        Ok(())
    }

    fn spawn(self: &Arc<Self>, tower: PublicKey) {
        let this = Arc::clone(self);
        self.parts.tasks.spawn("tower", async move {
            let Some(stop) = this.guards.lock().get(&tower).map(|known| known.stop.clone()) else {
                return;
            };
            tokio::select! {
                biased;
                () = this.parts.tasks.stopped() => {}
                () = stop.cancelled() => {}
                () = this.deliver(tower) => {}
            }
        });
    }

    /// Registers, and returns what the tower signed for.
    pub(super) async fn register(
        &self,
        link: &dyn TowerLink,
        tower: PublicKey,
    ) -> Result<RegistrationReceipt, LinkFailure> {
        let client = self.parts.secrets.client(&tower).public_key(&self.secp);
        let registration = in_time(link.register(client)).await?;
        let receipt = registration.receipt;
        let signed = receipt.verify(&self.secp, &registration.signature);
        if receipt.tower != tower || receipt.client != client || signed.is_err() {
            return Err(LinkFailure::Unreachable("its receipt is not its own".into()));
        }
        if let Some(known) = self.guards.lock().get_mut(&tower) {
            known.record.expires = receipt.expiry.to_consensus_u32();
            known.record.fee_budget_sat = receipt.fee_budget.to_sat();
        }
        Ok(receipt)
    }

    /// Where a tower pays what it takes back for `channel`: one address for all its states.
    pub(super) fn sweep_script(&self, channel: ChannelId) -> Result<ScriptBuf, StoreError> {
        if let Some(script) = record::sweep_script(&self.parts.committer, channel)? {
            return Ok(script);
        }
        let (script, _durable_before_it_is_sent) = self.parts.wallet.shutdown_script();
        let mut writes = Batch::default();
        record::put_sweep_script(channel, &script, &mut writes);
        let _durable_before_it_is_sent = self.parts.committer.enqueue(writes);
        Ok(script)
    }

    pub(super) fn record(&self, tower: &PublicKey) -> Option<TowerRecord> {
        self.guards.lock().get(tower).map(|known| known.record.clone())
    }

    pub(super) fn note(&self, tower: &PublicKey, error: Option<String>) {
        let mut guards = self.guards.lock();
        let Some(known) = guards.get_mut(tower) else { return };
        let step = match (&known.last_error, &error) {
            (None, Some(why)) => Some(TowerStep::Behind { why: why.clone() }),
            (Some(_), None) => Some(TowerStep::Reached),
            _ => None,
        };
        known.last_error = error;
        if let Some(step) = step {
            let _nobody_waits = self.tell(*tower, step, Batch::default());
        }
    }

    /// Writes `beside` and tells what happened, all or nothing.
    fn tell(&self, tower: PublicKey, step: TowerStep, beside: Batch) -> Ticket {
        let event = DomainEvent::Tower(TowerEvent { tower, step });
        self.parts.journal.append(&[event], beside)
    }

    /// Notes how far a tower came, and forgets what all have.
    pub(super) fn advance(
        &self,
        tower: &PublicKey,
        next: u64,
        delivered: u64,
        refused: u64,
    ) -> Result<(), StoreError> {
        let mut writes = Batch::default();
        if let Some(known) = self.guards.lock().get_mut(tower) {
            known.record.next = next;
            known.record.delivered = known.record.delivered.saturating_add(delivered);
            known.record.refused = known.record.refused.saturating_add(refused);
            if delivered > 0 {
                known.record.last_receipt_ms = Some(millis(self.parts.clock.now()));
            }
            known.record.put(&mut writes);
            // After a crash the tower hears some of it twice, which it does not mind. Enqueued under
            // the lock: a tower that was removed does not come back.
            let _repeated_after_a_crash = self.parts.committer.enqueue(writes);
        }
        self.forget_delivered()
    }

    /// Lets a tower that holds everything up miss the oldest of what waits, once that is more than
    /// may.
    pub(super) fn keep_bound(&self, tower: &PublicKey) -> Result<(), StoreError> {
        while self.parts.log.bytes_waiting() > self.parts.bytes_max {
            let Some(record) = self.record(tower) else { return Ok(()) };
            let slowest = self.guards.lock().values().map(|known| known.record.next).min();
            let entries = self.parts.log.read(record.next, MISSED_AT_ONCE)?;
            let Some((last, _)) = entries.last().filter(|_| slowest == Some(record.next)) else {
                return Ok(());
            };
            let states = entries.iter().filter(|(_, revealed)| state_of(revealed).is_some());
            let missed = states.count() as u64;
            tracing::error!(%tower, missed, "too much waits; this tower will never hear of some revoked states");
            if let Some(known) = self.guards.lock().get_mut(tower) {
                known.record.missed = known.record.missed.saturating_add(missed);
            }
            if missed > 0 {
                let step = TowerStep::Missed { states: missed };
                let _before_its_place_moves = self.tell(*tower, step, Batch::default());
            }
            self.advance(tower, last + 1, 0, 0)?;
        }
        Ok(())
    }

    fn forget_delivered(&self) -> Result<(), StoreError> {
        let guards = self.guards.lock();
        let slowest = guards.values().map(|known| known.record.next).min();
        let newest = *self.parts.log.next().borrow();
        drop(guards);
        self.parts.log.forget_before(slowest.unwrap_or(newest))
    }
}

impl Guarding {
    fn new(record: TowerRecord) -> Self {
        Self { record, last_error: None, stop: CancellationToken::new() }
    }
}

pub(super) async fn in_time<T>(
    call: impl Future<Output = Result<T, LinkFailure>>,
) -> Result<T, LinkFailure> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(LinkFailure::Unreachable(format!(
            "no answer within {} seconds",
            PATIENCE.as_secs()
        ))),
    }
}
