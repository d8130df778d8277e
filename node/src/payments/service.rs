//! The payments service: calls and LDK's events in, records and effects out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::admission::Admission;
use super::invoices::invoice_event;
use super::machine::{Effect, Input, Rejection, Unfinished, decide, unfinished};
use super::probe::PaymentProbe;
use super::record::{PaymentKind, PaymentRecord, PaymentState, PaymentWatch};
use super::request::{HoldError, PayError, PayRequest, PaymentDefaults};
use super::retries::Retries;
use crate::environment::Entropy;
use crate::journal::{
    DomainEvent, Fingerprint, Idempotency, IdempotencyKey, Journal, Latest, PaymentEvent,
    PaymentRequestKind, millis,
};
use crate::lightning::types::{PaymentHash, PaymentId, Preimage};
use crate::lightning::{
    InboundKind, Lightning, LightningEvent, RouteEstimate, RouteQuery, RouteTarget, SendError,
    SendLimits,
};
use crate::store::{Batch, Committer, StoreError, Table};
use crate::tokens::{Ledger, Purse, Subject};

/// Blocks before its deadline at which a held payment is given back rather than lost on chain.
pub(super) const HOLD_MARGIN: u32 = 12;
/// Why a held payment was given back: its record's words when the operator asked for it.
pub const GIVEN_BACK_ON_REQUEST: &str = "cancelled by the operator";
/// Why a held payment was given back: its record's words when nobody asked for anything.
pub const GIVEN_BACK_AT_DEADLINE: &str = "its deadline came before the operator's word";
/// The payments service.
pub struct Payments {
    pub(super) journal: Journal,
    pub(super) committer: Committer,
    pub(super) lightning: Arc<Lightning>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) idempotency: Idempotency,
    pub(super) defaults: PaymentDefaults,
    pub(super) network: bitcoin::Network,
    ledger: Arc<Ledger>,
    pub(super) open: Mutex<HashMap<PaymentId, watch::Sender<Latest<PaymentRecord>>>>,
    /// Held while an invoice is made: of concurrent duplicates one is first.
    pub(super) making: Mutex<()>,
    pub(super) retries: Retries,
    pub(super) admission: Admission,
    pub(super) probe: PaymentProbe,
    /// Held payments that a service of the node decides about, by hash.
    kept: Mutex<HashSet<PaymentHash>>,
}

impl Payments {
    /// Loads what is not final from the store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(
        journal: Journal,
        committer: Committer,
        lightning: Arc<Lightning>,
        entropy: Arc<dyn Entropy>,
        defaults: PaymentDefaults,
        network: bitcoin::Network,
        ledger: Arc<Ledger>,
    ) -> Result<Self, StoreError> {
        let mut open = HashMap::new();
        let (from, to) = Table::PaymentOpen.range();
        committer.scan_steps(&from, &to, 1_000, |pairs| {
            for (key, _) in pairs {
                let id = Table::PaymentOpen.rest(&key).unwrap_or_default();
                let id = PaymentId::from_slice(id)
                    .map_err(|error| StoreError::Corrupt(format!("open payment: {error}")))?;
                let record = read_record(&committer, id)?
                    .ok_or_else(|| StoreError::Corrupt(format!("payment {id} has no record")))?;
                open.insert(id, watch::Sender::new((record, committer.now())));
            }
            Ok(())
        })?;
        let idempotency = Idempotency::new(committer.clone());
        Ok(Self {
            journal,
            committer,
            lightning,
            entropy,
            idempotency,
            defaults,
            network,
            ledger,
            open: Mutex::new(open),
            making: Mutex::new(()),
            retries: Retries::default(),
            admission: Admission::default(),
            probe: PaymentProbe::default(),
            kept: Mutex::default(),
        })
    }

    /// Resumes what a crash interrupted. Called once LDK has repeated its events.
    pub fn resume(&self) {
        let under_way: std::collections::HashSet<PaymentId> =
            self.lightning.payments_under_way().into_iter().collect();
        let records: Vec<PaymentRecord> =
            self.open.lock().values().map(|latest| latest.borrow().0.clone()).collect();
        for record in records {
            let known = under_way.contains(&record.id);
            match unfinished(&record, known, self.journal.now()) {
                Some(Unfinished::Do(effect)) => {
                    tracing::info!(id = %record.id, ?effect, "payment resumed after restart");
                    self.run(effect);
                }
                Some(Unfinished::Feed(input)) => {
                    tracing::info!(id = %record.id, "payment had not left before the restart");
                    self.feed_own(record.id, *input);
                }
                None => {}
            }
        }
    }

    /// Starts a payment. Returns as soon as it is recorded; follow it with the watch.
    ///
    /// A repetition under the same key follows the first payment.
    ///
    /// # Errors
    ///
    /// See [`PayError`].
    pub fn pay(
        &self,
        request: &PayRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<PaymentWatch, PayError> {
        self.begin(request, key, None, |_, _| {})
    }

    /// Starts a payment as its callers in `beside.rs` want it.
    pub(super) fn begin(
        &self,
        request: &PayRequest,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
        beside: impl FnOnce(PaymentId, &mut Batch),
    ) -> Result<PaymentWatch, PayError> {
        let fingerprint = Fingerprint::of(request);
        let now = self.journal.now();
        // A repetition is answered even if the same request would be refused by now.
        if let Some(answer) = self.idempotency.recall(key, fingerprint, now)? {
            return self.repeated(&answer);
        }
        let input = self.validate(request)?;
        let id = PaymentId(self.entropy.bytes());
        let decided = {
            let mut open = self.open.lock();
            if let Some(answer) = self.idempotency.recall(key, fingerprint, now)? {
                drop(open);
                return self.repeated(&answer);
            }
            if let Input::Pay { hash: Some(hash), request, .. } = &input
                && matches!(request, PaymentRequestKind::Bolt11 { .. })
                && let Some(before) = self.paid_before(&open, *hash)?
            {
                return Err(PayError::AlreadyPaid { hash: *hash, id: before });
            }
            let mut batch = Batch::default();
            let _until_it_is_enqueued = purse
                .map(|purse| {
                    let (payee, most_msat) = input.spends();
                    purse.reserve(Subject::Payment(id), payee, most_msat, &mut batch)
                })
                .transpose()?;
            let decision = decide(id, None, input).expect("a new id has no payment yet");
            self.idempotency.record(&mut batch, key, fingerprint, id.as_ref(), now);
            beside(id, &mut batch);
            self.record(&mut open, id, &decision.events, batch);
            decision.effects
        };
        for effect in decided {
            self.run(effect);
        }
        self.watch(id)?.ok_or_else(|| PayError::Store(StoreError::Corrupt("new payment".into())))
    }

    /// The payment that an earlier call under `key` started, if there is one.
    ///
    /// # Errors
    ///
    /// [`PayError::Idempotency`] if the key was used for another request.
    pub fn repetition(
        &self,
        request: &PayRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<PaymentWatch>, PayError> {
        let now = self.journal.now();
        self.idempotency
            .recall(key, Fingerprint::of(request), now)?
            .map(|answer| self.repeated(&answer))
            .transpose()
    }

    fn repeated(&self, answer: &[u8]) -> Result<PaymentWatch, PayError> {
        let corrupt = || StoreError::Corrupt("idempotency record without its payment".into());
        let id = PaymentId::from_slice(answer).map_err(|_| corrupt())?;
        Ok(self.watch(id)?.ok_or_else(corrupt)?)
    }

    /// The payment that pays or paid `hash`, unless it failed.
    pub(super) fn paid_before(
        &self,
        open: &HashMap<PaymentId, watch::Sender<Latest<PaymentRecord>>>,
        hash: PaymentHash,
    ) -> Result<Option<PaymentId>, StoreError> {
        let Some(bytes) = self.committer.get(&hash_key(hash))? else {
            return Ok(None);
        };
        let Ok(id) = PaymentId::from_slice(&bytes) else {
            return Ok(None);
        };
        let state = match open.get(&id) {
            Some(latest) => Some(latest.borrow().0.state),
            None => read_record(&self.committer, id)?.map(|record| record.state),
        };
        Ok((state.is_some() && state != Some(PaymentState::Failed)).then_some(id))
    }

    /// Follows a payment; `None` if there is no such payment.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn watch(&self, id: PaymentId) -> Result<Option<PaymentWatch>, StoreError> {
        let journal = self.journal.clone();
        if let Some(latest) = self.open.lock().get(&id) {
            return Ok(Some(PaymentWatch::new(latest.subscribe(), journal)));
        }
        let Some(record) = read_record(&self.committer, id)? else {
            return Ok(None);
        };
        Ok(Some(PaymentWatch::of_last(record, self.committer.now(), journal)))
    }

    /// Gives the preimage of a held payment.
    ///
    /// # Errors
    ///
    /// See [`HoldError`].
    pub async fn settle(&self, preimage: Preimage) -> Result<PaymentRecord, HoldError> {
        let hash = preimage.hash();
        self.decide_held(hash, Input::Settle { preimage }).await
    }

    /// Gives a held payment back to its sender.
    ///
    /// # Errors
    ///
    /// See [`HoldError`].
    pub async fn give_back(&self, hash: PaymentHash) -> Result<PaymentRecord, HoldError> {
        self.decide_held(hash, Input::GiveBack { why: GIVEN_BACK_ON_REQUEST.into() }).await
    }

    async fn decide_held(
        &self,
        hash: PaymentHash,
        input: Input,
    ) -> Result<PaymentRecord, HoldError> {
        let id = hash.inbound_id();
        self.feed(id, input)??;
        let mut watch = self.watch(id)?.ok_or(HoldError::Unknown(hash))?;
        Ok(watch.current().await?)
    }

    /// Looks for a route without paying, see [`Lightning::find_route`]. `max_fee_msat` and
    /// `max_parts` default to the node's settings.
    pub fn estimate_route(
        &self,
        target: RouteTarget,
        amount_msat: u64,
        max_fee_msat: Option<u64>,
        max_parts: Option<u8>,
    ) -> Option<RouteEstimate> {
        self.lightning.find_route(&RouteQuery {
            target,
            amount_msat,
            max_fee_msat: max_fee_msat.unwrap_or_else(|| self.default_fee_msat(amount_msat)),
            max_parts: max_parts.unwrap_or(self.defaults.max_parts),
        })
    }

    /// The most that paying `amount_msat` may cost if its request does not say, msat.
    pub fn default_fee_msat(&self, amount_msat: u64) -> u64 {
        self.defaults
            .max_fee_base_msat
            .saturating_add(amount_msat.saturating_mul(self.defaults.max_fee_ppm) / 1_000_000)
    }

    /// Keeps what is held for `hash` until LDK itself would fail it: a service of the node decides
    /// about it. To be said again after a restart.
    pub fn keep_held(&self, hash: PaymentHash) {
        self.kept.lock().insert(hash);
    }

    /// Ends [`Payments::keep_held`].
    pub fn let_go_of_held(&self, hash: PaymentHash) {
        self.kept.lock().remove(&hash);
    }

    /// Tells the service that a block came: held payments near their deadline are given back.
    pub fn block_connected(&self, height: u32) {
        let kept = self.kept.lock().clone();
        let due: Vec<PaymentId> = self
            .open
            .lock()
            .values()
            .map(|latest| latest.borrow().0.clone())
            .filter(|record| record.state == PaymentState::Held)
            .filter(|record| {
                let is_kept = record.hash.is_some_and(|hash| kept.contains(&hash));
                let margin = if is_kept { 0 } else { HOLD_MARGIN };
                record.claim_deadline.is_some_and(|deadline| height + margin >= deadline)
            })
            .map(|record| record.id)
            .collect();
        for id in due {
            let why = GIVEN_BACK_AT_DEADLINE.to_owned();
            self.feed_own(id, Input::GiveBack { why });
        }
    }

    /// Hears LDK.
    pub fn handle(&self, event: &LightningEvent) {
        match event {
            LightningEvent::Sent { id, preimage, amount_msat, fee_msat, parts } => {
                let (preimage, amount_msat, fee_msat) = (*preimage, *amount_msat, *fee_msat);
                self.feed_own(*id, Input::Sent { preimage, amount_msat, fee_msat, parts: *parts });
            }
            LightningEvent::Failed { id, temporary: true, .. }
                if self.has_time(*id) && self.retries.plan(*id) => {}
            LightningEvent::Failed { id, reason, .. } => {
                self.feed_own(*id, Input::SendFailed { reason: *reason });
            }
            LightningEvent::Claimable {
                hash, amount_msat, kind, preimage, claim_deadline, ..
            } => {
                let wanted = self.is_wanted(*hash, *kind);
                self.feed_own(
                    hash.inbound_id(),
                    Input::Claimable {
                        hash: *hash,
                        amount_msat: *amount_msat,
                        kind: *kind,
                        preimage: *preimage,
                        claim_deadline: *claim_deadline,
                        wanted,
                    },
                );
            }
            LightningEvent::HtlcsEnded => self.let_leave(),
            LightningEvent::Claimed { hash, amount_msat, parts } => self.feed_own(
                hash.inbound_id(),
                Input::Claimed { hash: *hash, amount_msat: *amount_msat, parts: *parts },
            ),
            LightningEvent::Forwarded { fee_msat, amount_msat, claimed_on_chain } => {
                self.probe.counts().forward(*amount_msat, *fee_msat, *claimed_on_chain);
                let event = PaymentEvent::Forwarded {
                    fee_msat: *fee_msat,
                    amount_msat: *amount_msat,
                    claimed_on_chain: *claimed_on_chain,
                };
                let _nobody_waits =
                    self.journal.append(&[DomainEvent::Payment(event)], Batch::default());
            }
            _ => {}
        }
    }

    /// Whether a payment may still be tried again.
    pub(super) fn has_time(&self, id: PaymentId) -> bool {
        let open = self.open.lock();
        open.get(&id).is_some_and(|latest| {
            let record = &latest.borrow().0;
            let until = record.created_ms.saturating_add(record.retry_seconds * 1_000);
            record.state == PaymentState::InFlight && millis(self.journal.now()) < until
        })
    }

    pub(super) fn amount_of(&self, id: PaymentId) -> Option<u64> {
        Some(self.open.lock().get(&id)?.borrow().0.amount_msat)
    }

    fn is_wanted(&self, hash: PaymentHash, kind: InboundKind) -> bool {
        match kind {
            InboundKind::Keysend => self.defaults.accept_keysend,
            InboundKind::Bolt12 => true,
            InboundKind::Bolt11 => match self.invoice(hash) {
                Ok(Some(invoice)) => !invoice.cancelled,
                // LDK verified that we made it; without its record it is still ours.
                Ok(None) => true,
                Err(error) => {
                    tracing::error!(%error, %hash, "invoice cannot be read; payment is taken");
                    true
                }
            },
        }
    }

    /// Feeds an input whose refusal can only be our own mistake or LDK's.
    pub(super) fn feed_own(&self, id: PaymentId, input: Input) {
        match self.feed(id, input) {
            Ok(Ok(())) => {}
            Ok(Err(rejection)) => {
                tracing::error!(%id, %rejection, "event does not fit its payment")
            }
            Err(error) => tracing::error!(%id, %error, "payment cannot be read"),
        }
    }

    fn feed(&self, id: PaymentId, input: Input) -> Result<Result<(), Rejection>, StoreError> {
        let effects = {
            let mut open = self.open.lock();
            let record = match open.get(&id) {
                Some(latest) => Some(latest.borrow().0.clone()),
                None => read_record(&self.committer, id)?,
            };
            match decide(id, record.as_ref(), input) {
                Ok(decision) => {
                    if !decision.events.is_empty() {
                        self.record_over(&mut open, id, record, &decision.events, Batch::default());
                    }
                    decision.effects
                }
                Err(rejection) => return Ok(Err(rejection)),
            }
        };
        for effect in effects {
            self.run(effect);
        }
        Ok(Ok(()))
    }

    fn record(
        &self,
        open: &mut HashMap<PaymentId, watch::Sender<Latest<PaymentRecord>>>,
        id: PaymentId,
        events: &[PaymentEvent],
        batch: Batch,
    ) {
        self.record_over(open, id, None, events, batch);
    }

    /// Applies `events` to `before`, and writes them and the new record as one batch.
    fn record_over(
        &self,
        open: &mut HashMap<PaymentId, watch::Sender<Latest<PaymentRecord>>>,
        id: PaymentId,
        before: Option<PaymentRecord>,
        events: &[PaymentEvent],
        mut batch: Batch,
    ) {
        let now = self.journal.now();
        let is_new = before.is_none();
        let was = before.as_ref().map(|record| record.state);
        let record = events
            .iter()
            .fold(before, |record, event| PaymentRecord::apply(record, event, now))
            .expect("an event of a payment leaves a record");
        write_record(&mut batch, &record, is_new);
        let mut told: Vec<DomainEvent> =
            events.iter().map(|event| DomainEvent::Payment(event.clone())).collect();
        told.extend(events.iter().filter_map(|event| invoice_event(event, &record)));
        let is_final = record.state.is_final();
        let settled = record
            .outbound_cost_msat()
            .map(|cost_msat| self.ledger.settle(Subject::Payment(id), Some(cost_msat), &mut batch));
        let ticket = self.journal.append(&told, batch);
        drop(settled);
        self.probe.recorded(was, &record, ticket, &self.committer);
        match open.get(&id) {
            Some(latest) => {
                let _before = latest.send_replace((record, ticket));
            }
            None => {
                open.insert(id, watch::Sender::new((record, ticket)));
            }
        }
        if is_final {
            self.retries.forget(id);
            // Watchers hold the last value; the store holds the record.
            open.remove(&id);
        }
    }

    pub(super) fn run(&self, effect: Effect) {
        match effect {
            Effect::Claim(preimage) => self.lightning.claim(preimage),
            Effect::FailBack(hash) => self.lightning.fail_back(hash),
            Effect::Send(id) => self.admit(id),
        }
    }

    pub(super) fn send(&self, id: PaymentId) -> Result<(), SendError> {
        let Some(record) = self.open.lock().get(&id).map(|latest| latest.borrow().0.clone()) else {
            return Ok(());
        };
        let limits = SendLimits {
            max_fee_msat: record.max_fee_msat,
            max_parts: record.max_parts,
            retry_for: Duration::from_secs(record.retry_seconds),
        };
        match (&record.request, record.kind) {
            (Some(PaymentRequestKind::Bolt11 { invoice, over: Some(channel) }), _) => {
                self.lightning.pay_invoice_over(id, invoice, record.amount_msat, *channel)
            }
            (Some(PaymentRequestKind::Bolt11 { invoice, over: None }), _) => {
                self.lightning.pay_invoice(id, invoice, Some(record.amount_msat), limits)
            }
            (Some(PaymentRequestKind::Bolt12 { offer, payer_note }), _) => self
                .lightning
                .pay_offer(id, offer, Some(record.amount_msat), payer_note.clone(), limits),
            (Some(PaymentRequestKind::Keysend { records }), _) => {
                let (Some(payee), Some(preimage)) = (record.payee, record.preimage) else {
                    return Err(SendError::Refused("record without payee or preimage".into()));
                };
                self.lightning.pay_keysend(
                    id,
                    payee,
                    record.amount_msat,
                    preimage,
                    records.clone(),
                    limits,
                )
            }
            (None, PaymentKind::Bolt11 | PaymentKind::Bolt12 | PaymentKind::Keysend) => {
                Err(SendError::Refused("record without its request".into()))
            }
        }
    }

    /// What counts and measures payments.
    pub fn probe(&self) -> &PaymentProbe {
        &self.probe
    }

    /// How many payments are not final.
    pub fn open_count(&self) -> usize {
        self.open.lock().len()
    }
}

/// The key under which the newest payment of a hash is found.
fn hash_key(hash: PaymentHash) -> Vec<u8> {
    Table::PaymentHash.key(hash)
}

fn write_record(batch: &mut Batch, record: &PaymentRecord, is_new: bool) {
    let mut value = Vec::with_capacity(512);
    ciborium::into_writer(record, &mut value).expect("writing to memory cannot fail");
    batch.put(Table::Payment.key(record.id), value);
    if is_new {
        let mut index = record.created_ms.to_be_bytes().to_vec();
        index.extend_from_slice(record.id.as_ref());
        batch.put(Table::PaymentIndex.key(index), Vec::new());
        if let (Some(hash), super::Direction::Outbound) = (record.hash, record.direction) {
            batch.put(hash_key(hash), record.id.0.to_vec());
        }
    }
    if record.state.is_final() {
        if !is_new {
            batch.delete(Table::PaymentOpen.key(record.id));
        }
    } else if is_new {
        batch.put(Table::PaymentOpen.key(record.id), Vec::new());
    }
}

/// Reads a payment's record.
pub(super) fn read_record(
    committer: &Committer,
    id: PaymentId,
) -> Result<Option<PaymentRecord>, StoreError> {
    committer
        .get(&Table::Payment.key(id))?
        .map(|bytes| {
            ciborium::from_reader(&bytes[..])
                .map_err(|error| StoreError::Corrupt(format!("payment {id}: {error}")))
        })
        .transpose()
}
