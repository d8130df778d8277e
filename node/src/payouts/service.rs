//! Payouts made, accepted, changed and asked for. Each that has not ended has a task, see
//! `worker.rs`.
//!
//! A payout is made in one write: its lines, its record, and its caller's key. Lines come in one
//! message or in a stream, and a stream that breaks off leaves nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::check::{World, judge};
use super::error::PayoutError;
use super::line::{FileError, LineReason, Source};
use super::live::{Beside, Live, PayoutWatch, events};
use super::machine::{Input, Pending, decide};
use super::policy::PayoutPolicy;
use super::quote;
use super::reconcile::{Balance, reconcile};
use super::record::{
    self, LineRecord, LineState, PayoutRecord, PayoutState, Quote, Runs, Settings, Tally,
};
use crate::chain::follower::SyncState;
use crate::environment::{Clock, Entropy};
use crate::journal::{
    Fingerprint, Idempotency, IdempotencyKey, Journal, PayoutId, PayoutStep, millis,
};
use crate::lightning::types::{NodeId, PaymentHash};
use crate::lightning::{DecodeError, Decoded, Lightning};
use crate::onchain::OnChain;
use crate::payments::Payments;
use crate::runtime::Tasks;
use crate::store::cbor::{decode, encode};
use crate::store::{Batch, Committer, StoreError, Table};
use crate::tokens::{Ledger, Purse, Subject};

/// What the service needs.
pub struct Parts {
    /// The way to the store.
    pub committer: Committer,
    /// The log of events.
    pub journal: Journal,
    /// Payments.
    pub payments: Arc<Payments>,
    /// Decoding, and balances of channels.
    pub lightning: Arc<Lightning>,
    /// Coins.
    pub onchain: Arc<OnChain>,
    /// What tokens have set aside.
    pub ledger: Arc<Ledger>,
    /// Names of payouts.
    pub entropy: Arc<dyn Entropy>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// How far the chain was followed.
    pub sync: watch::Receiver<SyncState>,
    /// The network.
    pub network: Network,
    /// What is allowed.
    pub policy: PayoutPolicy,
    /// Where the tasks of payouts run.
    pub tasks: Tasks,
}

/// What is asked of a payout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To be paid as quoted.
    Accept {
        /// What the receivers get, as it was quoted, msat.
        total_msat: u64,
        /// The most it may cost beyond, as it was quoted, msat.
        max_fee_msat: u64,
        /// Whether bad lines are left out.
        skip_bad_lines: bool,
    },
    /// To begin nothing new.
    Pause,
    /// To go on.
    Resume,
    /// To begin nothing new, ever.
    Cancel,
    /// To pay these lines, which failed, anew; all that failed if empty.
    Retry {
        /// Their numbers.
        lines: Vec<u32>,
    },
}

/// The payouts of this node.
pub struct Payouts {
    pub(super) parts: Parts,
    open: Mutex<HashMap<PayoutId, Arc<Live>>>,
    /// Held while a payout is made: of concurrent duplicates one is first.
    making: tokio::sync::Mutex<()>,
}

impl Payouts {
    /// Reads which payouts have not ended.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let ticket = parts.committer.now();
        let live = |record: PayoutRecord| (record.id, Arc::new(Live::new(record, ticket)));
        let open = record::load_open(&parts.committer)?.into_iter().map(live).collect();
        Ok(Self { parts, open: Mutex::new(open), making: tokio::sync::Mutex::new(()) })
    }

    /// What is allowed.
    pub fn policy(&self) -> &PayoutPolicy {
        &self.parts.policy
    }

    /// Starts a task for each of them. Called once interrupted payments are resumed.
    pub fn start(self: &Arc<Self>) {
        let open: Vec<Arc<Live>> = self.open.lock().values().cloned().collect();
        for live in open {
            self.spawn(live);
        }
    }

    /// Reads, judges and quotes lines, and makes a payout of them that waits to be accepted.
    ///
    /// A repetition under the same key is answered with the first one, as it was made.
    ///
    /// # Errors
    ///
    /// See [`PayoutError`].
    pub async fn create(
        self: &Arc<Self>,
        settings: Settings,
        source: Source,
        key: &IdempotencyKey,
    ) -> Result<PayoutRecord, PayoutError> {
        let fingerprint = Fingerprint::of(&(&settings, source.digest()));
        let _one_at_a_time = self.making.lock().await;
        if let Some(first) = self.repetition(key, fingerprint).await? {
            return Ok(first);
        }
        let max = self.parts.policy.open_max;
        if self.open.lock().len() >= max {
            return Err(PayoutError::Full { max });
        }
        // Thousands of signatures are verified: the work of a second, beside other calls.
        let (shared, judged_by) = (Arc::clone(self), settings.clone());
        let judging = move || shared.judge(source, &judged_by);
        let judged = tokio::task::spawn_blocking(judging).await;
        let (lines, quote) = judged.map_err(|error| {
            PayoutError::File(FileError::Format(format!("the check broke off: {error}")))
        })??;
        let record = self.new_record(PayoutId(self.parts.entropy.bytes()), settings, quote);
        let mut batch = Batch::default();
        record.put_new(&mut batch);
        for line in &lines {
            line.put(record.id, &mut batch);
        }
        let answer = encode(&record);
        let now = self.parts.journal.now();
        self.idempotency().record(&mut batch, Some(key), fingerprint, &answer, now);
        let created = vec![created(&record)];
        let ticket = self.parts.journal.append(&events(record.id, created), batch);
        self.add(Live::new(record.clone(), ticket));
        self.parts.journal.durable(ticket).await?;
        Ok(record)
    }

    fn judge(
        &self,
        source: Source,
        settings: &Settings,
    ) -> Result<(Vec<LineRecord>, Quote), PayoutError> {
        let rows = source.rows(self.parts.policy.lines_max)?;
        let (mut lines, mut quote) = judge(rows, settings, &Surroundings(&self.parts))?;
        let Parts { onchain, payments, lightning, .. } = &self.parts;
        // A feerate out of range is refused where settings are read.
        let feerate = onchain.feerate_of(settings.feerate_sat_per_vb);
        let feerate = feerate.or_else(|_| onchain.feerate_of(None));
        let feerate = feerate.unwrap_or(bitcoin::FeeRate::BROADCAST_MIN);
        quote::price(&mut lines, &mut quote, feerate);
        let spendable_msat = lightning.spendable().msat;
        quote::estimate(&lines, &mut quote, feerate, payments, onchain, spendable_msat);
        Ok((lines, quote))
    }

    /// A payout that waits to be accepted.
    pub(super) fn new_record(
        &self,
        id: PayoutId,
        settings: Settings,
        quote: Quote,
    ) -> PayoutRecord {
        let pending = if settings.recurrence.is_some() { 0 } else { quote.good_lines };
        PayoutRecord {
            id,
            settings,
            quote,
            state: PayoutState::Quoted,
            skips_bad_lines: false,
            tally: Tally { pending, ..Tally::default() },
            runs: Runs::default(),
            parent: None,
            created_ms: self.now_ms(),
            accepted_ms: None,
            started_ms: None,
            ended_ms: None,
            deadline_ms: None,
            charged_msat: 0,
            detail: String::new(),
        }
    }

    /// Changes a payout, once per key. A repetition is answered as the first call was.
    ///
    /// What it may cost is set aside in `purse`, in the batch of the change.
    ///
    /// # Errors
    ///
    /// See [`PayoutError`].
    pub async fn change(
        self: &Arc<Self>,
        id: PayoutId,
        ask: &Ask,
        key: &IdempotencyKey,
        purse: Option<&Purse>,
    ) -> Result<PayoutRecord, PayoutError> {
        let fingerprint = Fingerprint::of(&(id, ask));
        // Also of a payout that has ended since.
        if let Some(first) = self.repetition(key, fingerprint).await? {
            return Ok(first);
        }
        let (record, ticket) = self.change_now(id, ask, key, fingerprint, purse)?;
        self.parts.journal.durable(ticket).await?;
        Ok(record)
    }

    fn change_now(
        self: &Arc<Self>,
        id: PayoutId,
        ask: &Ask,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
        purse: Option<&Purse>,
    ) -> Result<(PayoutRecord, crate::store::Ticket), PayoutError> {
        let committer = &self.parts.committer;
        loop {
            let live = self.live(id)?;
            let mut state = live.state.lock();
            if state.is_gone {
                continue;
            }
            let now = self.parts.journal.now();
            if let Some(answer) = self.idempotency().recall(Some(key), fingerprint, now)? {
                return Ok((decode(Table::Idempotency, &answer)?, committer.now()));
            }
            let is_failed = |line: &LineRecord| line.state == LineState::Failed;
            let wanted = match ask {
                Ask::Retry { lines } => {
                    self.known_lines(id, lines)?;
                    let is_named = |number| lines.is_empty() || lines.contains(&number);
                    let takes = |line: &LineRecord| is_failed(line) && is_named(line.number);
                    record::lines(committer, id, takes)?
                }
                Ask::Accept { .. } => {
                    record::lines(committer, id, |line| line.state == LineState::Pending)?
                }
                _ => Default::default(),
            };
            let decision = decide(&state.record, input(ask, wanted.len()), self.now_ms())?;
            let mut batch = Batch::default();
            let costs = wanted.values().map(|line| (line.payee, line.most_msat()));
            // What a payout that goes on may cost is set aside since it was accepted.
            let is_charged = match ask {
                Ask::Accept { .. } => Some(state.record.most_msat()),
                Ask::Retry { .. } if state.record.state.is_final() => {
                    Some(wanted.values().map(LineRecord::most_msat).fold(0, u64::saturating_add))
                }
                _ => None,
            };
            let _until_it_is_enqueued = match (purse, is_charged) {
                (Some(purse), Some(most_msat)) => {
                    Some(purse.reserve_all(Subject::Payout(id), costs, most_msat, &mut batch)?)
                }
                _ => None,
            };
            if let Ask::Retry { .. } = ask {
                for line in wanted.into_values() {
                    let line = LineRecord {
                        state: LineState::Pending,
                        attempts: 0,
                        ended_ms: None,
                        ..line
                    };
                    line.put(id, &mut batch);
                }
                state.has_more_lines = true;
            }
            if decision.pending == Pending::Cancel && !state.record.is_schedule() {
                self.end_pending(id, LineState::Cancelled, &mut batch)?;
            }
            let beside = Beside { batch, key: Some((key, fingerprint)), ..Beside::default() };
            let changed = self.commit(&live, &mut state, decision, beside);
            live.wake.notify_one();
            return Ok(changed);
        }
    }

    /// Refuses numbers of lines that are not there.
    fn known_lines(&self, payout: PayoutId, numbers: &[u32]) -> Result<(), PayoutError> {
        for line in numbers.iter().copied() {
            if record::line(&self.parts.committer, payout, line)?.is_none() {
                return Err(PayoutError::UnknownLine { payout, line });
            }
        }
        Ok(())
    }

    /// Writes the end of all lines that are pending.
    pub(super) fn end_pending(
        &self,
        id: PayoutId,
        end: LineState,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let pending =
            record::lines(&self.parts.committer, id, |line| line.state == LineState::Pending)?;
        for mut line in pending.into_values() {
            line.state = end;
            line.ended_ms = Some(self.now_ms());
            if end == LineState::Failed {
                line.reason = Some(LineReason::TimedOut);
                if line.detail.is_empty() {
                    line.detail = "it could not be begun within the time limit".to_owned();
                }
            }
            line.put(id, batch);
        }
        Ok(())
    }

    async fn repetition(
        &self,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> Result<Option<PayoutRecord>, PayoutError> {
        let now = self.parts.journal.now();
        let Some(answer) = self.idempotency().recall(Some(key), fingerprint, now)? else {
            return Ok(None);
        };
        self.parts.committer.durable(self.parts.committer.now()).await?;
        Ok(Some(decode(Table::Idempotency, &answer)?))
    }

    /// The payout in memory; one that was completed comes back to it.
    fn live(self: &Arc<Self>, id: PayoutId) -> Result<Arc<Live>, PayoutError> {
        if let Some(live) = self.open.lock().get(&id) {
            return Ok(Arc::clone(live));
        }
        let record = record::read(&self.parts.committer, id)?.ok_or(PayoutError::Unknown(id))?;
        Ok(self.add(Live::new(record, self.parts.committer.now())))
    }

    /// Keeps a payout in memory and starts its task, unless it is there already.
    pub(super) fn add(self: &Arc<Self>, live: Live) -> Arc<Live> {
        let mut open = self.open.lock();
        if let Some(there) = open.get(&live.id) {
            return Arc::clone(there);
        }
        let live = Arc::new(live);
        open.insert(live.id, Arc::clone(&live));
        drop(open);
        self.spawn(Arc::clone(&live));
        live
    }

    fn spawn(self: &Arc<Self>, live: Arc<Live>) {
        self.parts.tasks.spawn("payout", Arc::clone(self).serve(live));
    }

    /// Lets go of a payout that has ended; false if it has not.
    pub(super) fn let_go(&self, live: &Live) -> bool {
        let mut open = self.open.lock();
        let mut state = live.state.lock();
        let is_over = state.record.state.is_final();
        if is_over {
            state.is_gone = true;
            open.remove(&live.id);
        }
        is_over
    }

    /// One payout, durable.
    ///
    /// # Errors
    ///
    /// [`PayoutError::Unknown`], or the store.
    pub async fn get(&self, id: PayoutId) -> Result<PayoutRecord, PayoutError> {
        Ok(self.watch(id)?.current().await?)
    }

    /// Follows a payout.
    ///
    /// # Errors
    ///
    /// [`PayoutError::Unknown`], or the store.
    pub fn watch(&self, id: PayoutId) -> Result<PayoutWatch, PayoutError> {
        let journal = self.parts.journal.clone();
        if let Some(live) = self.open.lock().get(&id) {
            return Ok(live.subscribe(journal));
        }
        let record = record::read(&self.parts.committer, id)?.ok_or(PayoutError::Unknown(id))?;
        Ok(PayoutWatch::ended(record, self.parts.committer.now(), journal))
    }

    /// Lists at most `limit` payouts that `takes` takes, newest first, from `page` on, and where
    /// the next page begins.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn list(
        &self,
        takes: impl Fn(&PayoutRecord) -> bool,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<PayoutRecord>, Option<Vec<u8>>), PayoutError> {
        let found = record::list(&self.parts.committer, takes, page, limit)?;
        self.parts.committer.durable(self.parts.committer.now()).await?;
        Ok(found)
    }

    /// Lists at most `limit` lines of a payout in one of `states`, any if empty, after `after`.
    ///
    /// # Errors
    ///
    /// [`PayoutError::Unknown`], or the store.
    pub async fn lines(
        &self,
        id: PayoutId,
        states: &[LineState],
        after: u32,
        limit: usize,
    ) -> Result<Vec<LineRecord>, PayoutError> {
        let committer = &self.parts.committer;
        record::read(committer, id)?.ok_or(PayoutError::Unknown(id))?;
        let mut found = Vec::new();
        record::each_line(committer, id, after, |line| {
            if states.is_empty() || states.contains(&line.state) {
                found.push(line);
            }
            found.len() < limit
        })?;
        committer.durable(committer.now()).await?;
        Ok(found)
    }

    /// Compares what the lines of a payout say with what payments and wallet say.
    ///
    /// # Errors
    ///
    /// [`PayoutError::Mismatch`] if they do not agree to the millisatoshi.
    pub async fn reconcile(self: &Arc<Self>, id: PayoutId) -> Result<Balance, PayoutError> {
        let shared = Arc::clone(self);
        let compare = move || {
            let committer = &shared.parts.committer;
            // A line changes in one write with the sums, and under this lock.
            let live = shared.open.lock().get(&id).cloned();
            let _nothing_changes = live.as_ref().map(|live| live.state.lock());
            let record = record::read(committer, id)?.ok_or(PayoutError::Unknown(id))?;
            reconcile(&record, &shared.parts)
        };
        // Thousands of records are read, beside other calls.
        let compared = tokio::task::spawn_blocking(compare).await;
        let balance = compared.map_err(|error| StoreError::Failed(error.to_string()))??;
        self.parts.committer.durable(self.parts.committer.now()).await?;
        Ok(balance)
    }

    pub(super) fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.parts.committer.clone())
    }

    pub(super) fn now_ms(&self) -> u64 {
        millis(self.parts.clock.now())
    }
}

fn input(ask: &Ask, lines: usize) -> Input {
    match ask {
        Ask::Accept { total_msat, max_fee_msat, skip_bad_lines } => Input::Accept {
            total_msat: *total_msat,
            max_fee_msat: *max_fee_msat,
            skip_bad_lines: *skip_bad_lines,
        },
        Ask::Pause => Input::Pause,
        Ask::Resume => Input::Resume,
        Ask::Cancel => Input::Cancel,
        Ask::Retry { .. } => Input::Retry { lines: u32::try_from(lines).unwrap_or(u32::MAX) },
    }
}

/// The first step of a payout.
pub(super) fn created(record: &PayoutRecord) -> PayoutStep {
    let Quote { good_lines, bad_lines, total_msat, .. } = record.quote;
    PayoutStep::Created { good_lines, bad_lines, total_msat }
}

/// The node, as lines are judged by it.
struct Surroundings<'a>(&'a Parts);

impl World for Surroundings<'_> {
    fn now(&self) -> Duration {
        self.0.clock.now()
    }

    fn network(&self) -> Network {
        self.0.network
    }

    fn node_id(&self) -> NodeId {
        self.0.lightning.node_id()
    }

    fn decode(&self, text: &str) -> Result<Decoded, DecodeError> {
        self.0.lightning.decode(text)
    }

    fn is_paid(&self, hash: PaymentHash) -> Result<bool, StoreError> {
        Ok(self.0.payments.payment_of(hash)?.is_some())
    }

    fn owns(&self, script: &bitcoin::Script) -> bool {
        self.0.onchain.wallet().owns(script)
    }

    fn default_fee_msat(&self, amount_msat: u64) -> u64 {
        self.0.payments.default_fee_msat(amount_msat)
    }
}
