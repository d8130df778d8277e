//! One payout's task: begins lines as far as there is room, and writes down what became of them.
//!
//! A line's record names its payment in the batch of the payment's first record. After a crash a
//! line is therefore either not begun, or its payment says what became of it. What passes (no
//! channel, no route, a receiver who is away) makes lines wait and come again; only the payout's
//! time limit, or what cannot pass, gives a line up.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::chain::ChainWork;
use super::line::{LineKind, LineReason};
use super::live::{Beside, Live, State};
use super::machine::{Decision, Input, decide};
use super::record::{self, LineRecord, LineState, PayoutState};
use super::service::Payouts;
use crate::lightning::FailureReason;
use crate::payments::{PayError, PayRequest, PayTarget, PaymentRecord, PaymentState, PaymentWatch};
use crate::store::{Batch, StoreError};

/// How long a task sleeps at most: the wall clock may jump.
pub(super) const NAP_MAX: Duration = Duration::from_secs(60);
/// How long it sleeps while the chain is not followed.
const NAP_SHORT: Duration = Duration::from_secs(1);
/// Lines begun before outcomes are looked at again.
const BEGIN_STEP: usize = 8;
/// Lines in a row that the channels have too little for, before all wait.
const DRY_AFTER: u32 = 20;

/// What a task has in hand.
#[derive(Default)]
pub(super) struct Work {
    ready: VecDeque<u32>,
    /// Lines that wait for another attempt.
    delayed: BTreeSet<(Instant, u32)>,
    /// How often each of them has waited without being begun.
    waits: HashMap<u32, u32>,
    flights: FuturesUnordered<BoxFuture<'static, (u32, Result<PaymentRecord, StoreError>)>>,
    pub chain: ChainWork,
    /// Lines in a row that could not be begun, and until when none is.
    dry: u32,
    dry_until: Option<Instant>,
    is_loaded: bool,
}

/// What became of the wish to begin a line.
enum Begun {
    /// It is under way.
    Flies(PaymentWatch),
    /// It was begun or ended before, or none is begun now.
    Not,
    /// It has its end.
    Ended,
    /// The channels have too little for it.
    Short,
    /// There is no channel at all.
    Dry,
}

impl Payouts {
    /// Serves one payout until it has ended or the node stops.
    pub(super) async fn serve(self: Arc<Self>, live: Arc<Live>) {
        let is_schedule = live.state.lock().record.is_schedule();
        let served = async {
            match is_schedule {
                true => self.make_runs(&live).await,
                false => self.pay_lines(&live).await,
            }
        };
        tokio::select! {
            biased;
            () = self.parts.tasks.stopped() => {}
            served = served => if let Err(error) = served {
                tracing::error!(%error, payout = %live.id, "payout stands still until a restart");
            },
        }
    }

    async fn pay_lines(&self, live: &Live) -> Result<(), StoreError> {
        let mut work = Work::default();
        let mut sync = self.parts.sync.clone();
        loop {
            if self.let_go(live) {
                return Ok(());
            }
            self.load(live, &mut work)?;
            self.look_at_time(live)?;
            let synced = sync.borrow_and_update().clone();
            let is_synced = synced.is_current();
            self.look_at_chain(live, &mut work.chain, synced.synced)?;
            let mut has_more = false;
            if is_synced {
                self.pay_on_chain(live, &mut work.chain).await?;
                has_more = self.begin_some(live, &mut work)?;
            }
            if self.let_go(live) {
                return Ok(());
            }
            let wake_at = match (is_synced, has_more) {
                // The follower wakes it.
                (false, _) => Instant::now() + NAP_SHORT,
                (true, true) => Instant::now(),
                (true, false) => self.wake_at(live, &work),
            };
            let is_flying = !work.flights.is_empty();
            tokio::select! {
                biased;
                () = live.wake.notified() => {}
                Some((number, outcome)) = work.flights.next(), if is_flying => {
                    self.land(live, &mut work, number, outcome?)?;
                }
                changed = sync.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = tokio::time::sleep_until(wake_at) => {}
            }
            // A long file must not keep the worker.
            tokio::task::yield_now().await;
        }
    }

    /// Takes in what the store has of lines that are not at their end.
    fn load(&self, live: &Live, work: &mut Work) -> Result<(), StoreError> {
        if !std::mem::take(&mut live.state.lock().has_more_lines) {
            return Ok(());
        }
        let is_first = !std::mem::replace(&mut work.is_loaded, true);
        let is_open =
            |line: &LineRecord| matches!(line.state, LineState::Pending | LineState::Paying);
        let delayed: BTreeSet<u32> = work.delayed.iter().map(|(_, number)| *number).collect();
        work.ready.clear();
        work.chain.ready.clear();
        for line in record::lines(&self.parts.committer, live.id, is_open)?.into_values() {
            let number = line.number;
            match (line.state, line.kind) {
                (LineState::Pending, LineKind::Address) => work.chain.ready.push_back(number),
                (LineState::Pending, _) if delayed.contains(&number) => {}
                (LineState::Pending, _) => work.ready.push_back(number),
                (_, LineKind::Address) => work.chain.take_up(&line),
                (_, _) if is_first => {
                    let watch = line.payment.map(|id| self.parts.payments.watch(id)).transpose()?;
                    match watch.flatten() {
                        Some(watch) => work.flights.push(flight(number, watch)),
                        None => {
                            tracing::error!(payout = %live.id, number, "line without its payment")
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells the machine what the clock says.
    fn look_at_time(&self, live: &Live) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let mut state = live.state.lock();
        let record = &state.record;
        let not_before_ms = record.settings.not_before_ms.unwrap_or(0);
        if record.state == PayoutState::Scheduled && not_before_ms <= now_ms {
            self.feed(live, &mut state, Input::Due, Batch::default());
        }
        let record = &state.record;
        let is_late = record.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
        if record.state == PayoutState::Running && is_late && record.tally.pending > 0 {
            let mut batch = Batch::default();
            self.end_pending(live.id, LineState::Failed, &mut batch)?;
            self.feed(live, &mut state, Input::Deadline, batch);
        }
        Ok(())
    }

    /// Begins lines while there is room; whether there are more to begin at once.
    fn begin_some(&self, live: &Live, work: &mut Work) -> Result<bool, StoreError> {
        let now = Instant::now();
        while let Some((at, number)) = work.delayed.first().copied().filter(|(at, _)| *at <= now) {
            work.delayed.remove(&(at, number));
            work.ready.push_back(number);
        }
        if work.dry_until.is_some_and(|until| until > now) {
            return Ok(false);
        }
        work.dry_until = None;
        let room = {
            let state = live.state.lock();
            if state.record.state != PayoutState::Running {
                return Ok(false);
            }
            let most = state.record.settings.concurrency as usize;
            most.saturating_sub(work.flights.len())
        };
        for _ in 0..room.min(BEGIN_STEP) {
            let Some(number) = work.ready.pop_front() else { return Ok(false) };
            match self.begin(live, number)? {
                Begun::Flies(watch) => {
                    work.dry = 0;
                    work.waits.remove(&number);
                    work.flights.push(flight(number, watch));
                }
                Begun::Not => {}
                Begun::Ended => work.dry = 0,
                Begun::Short => {
                    work.dry += 1;
                    let waits = work.waits.entry(number).or_default();
                    *waits += 1;
                    work.delayed.insert((now + self.parts.policy.wait_after(*waits), number));
                    if work.dry.is_multiple_of(DRY_AFTER) {
                        let wait = self.parts.policy.wait_after(work.dry / DRY_AFTER);
                        work.dry_until = Some(now + wait);
                        return Ok(false);
                    }
                }
                Begun::Dry => {
                    work.dry += 1;
                    work.ready.push_front(number);
                    work.dry_until = Some(now + self.parts.policy.wait_after(work.dry));
                    return Ok(false);
                }
            }
        }
        Ok(room > BEGIN_STEP && !work.ready.is_empty())
    }

    /// Begins the payment of a line: both are recorded in one batch.
    fn begin(&self, live: &Live, number: u32) -> Result<Begun, StoreError> {
        let mut state = live.state.lock();
        let line = record::line(&self.parts.committer, live.id, number)?;
        let Some(line) = line.filter(|line| line.state == LineState::Pending) else {
            return Ok(Begun::Not);
        };
        if state.record.state != PayoutState::Running {
            return Ok(Begun::Not);
        }
        let now_ms = self.now_ms();
        let mut begun = None;
        let started = self.parts.payments.pay_beside(&request(&line), |payment, batch| {
            let line = LineRecord {
                state: LineState::Paying,
                payment: Some(payment),
                attempts: line.attempts.saturating_add(1),
                begun_ms: Some(now_ms),
                reason: None,
                detail: String::new(),
                ..line.clone()
            };
            let mut after = state.record.clone();
            after.tally.moved(LineState::Pending, LineState::Paying);
            after.detail.clear();
            line.put(live.id, batch);
            after.put(batch);
            begun = Some(after);
        });
        if let Some(after) = begun {
            let ticket = self.parts.committer.now();
            live.changed(&mut state, after, ticket);
        }
        let error = match started {
            Ok(watch) => return Ok(Begun::Flies(watch)),
            Err(error) => error,
        };
        let (reason, wait) = match &error {
            PayError::Store(_) | PayError::Idempotency(_) => {
                return Err(StoreError::Failed(error.to_string()));
            }
            PayError::NoUsableChannel => (LineReason::Liquidity, Some(Begun::Dry)),
            PayError::InsufficientBalance { .. } => (LineReason::Liquidity, Some(Begun::Short)),
            PayError::Expired { .. } => (LineReason::Expired, None),
            PayError::AlreadyPaid { .. } => (LineReason::AlreadyPaid, None),
            PayError::PaysItself => (LineReason::PaysItself, None),
            PayError::WrongNetwork { .. } => (LineReason::WrongNetwork, None),
            PayError::Decode(_) => (LineReason::Unreadable, None),
            PayError::AmountMismatch { .. } => (LineReason::AmountMismatch, None),
            PayError::AmountMissing => (LineReason::AmountMissing, None),
            PayError::ZeroAmount | PayError::AmountTooHigh { .. } => {
                (LineReason::AmountOutOfRange, None)
            }
            PayError::Token(_) => (LineReason::Unexpected, None),
        };
        if let Some(wait) = wait {
            self.say(live, &mut state, &error.to_string());
            if let Begun::Short = wait {
                self.waits(live, &line, reason, &error.to_string());
            }
            return Ok(wait);
        }
        let line = LineRecord {
            state: LineState::Failed,
            reason: Some(reason),
            detail: error.to_string(),
            ended_ms: Some(now_ms),
            ..line
        };
        self.line(live, &mut state, LineState::Pending, &line);
        Ok(Begun::Ended)
    }

    /// Takes note of the outcome of a payment.
    fn land(
        &self,
        live: &Live,
        work: &mut Work,
        number: u32,
        outcome: PaymentRecord,
    ) -> Result<(), StoreError> {
        let mut state = live.state.lock();
        let line = record::line(&self.parts.committer, live.id, number)?;
        let is_its =
            |line: &LineRecord| line.state == LineState::Paying && line.payment == Some(outcome.id);
        let Some(mut line) = line.filter(is_its) else { return Ok(()) };
        line.ended_ms = Some(self.now_ms());
        if outcome.state == PaymentState::Succeeded {
            line.state = LineState::Paid;
            line.paid_msat = outcome.amount_msat;
            line.fee_msat = outcome.fee_msat;
            line.preimage = outcome.preimage;
            (line.reason, line.detail) = (None, String::new());
            self.line(live, &mut state, LineState::Paying, &line);
            return Ok(());
        }
        let (reason, passes, detail) = failure(outcome.failure);
        line.reason = Some(reason);
        line.detail = outcome.failure_detail.unwrap_or_else(|| detail.to_owned());
        line.state = match state.record.state {
            PayoutState::Running | PayoutState::Paused if passes => LineState::Pending,
            PayoutState::Cancelling if passes => LineState::Cancelled,
            _ => LineState::Failed,
        };
        if line.state == LineState::Pending {
            line.ended_ms = None;
            let wait = self.parts.policy.wait_after(line.attempts);
            work.delayed.insert((Instant::now() + wait, number));
        }
        self.line(live, &mut state, LineState::Paying, &line);
        Ok(())
    }

    /// Writes a line that changed, and counts it.
    pub(super) fn line(&self, live: &Live, state: &mut State, from: LineState, line: &LineRecord) {
        let (paid_msat, fee_msat) = match line.state {
            LineState::Paid => (line.paid_msat, line.fee_msat),
            _ => (0, 0),
        };
        let mut batch = Batch::default();
        line.put(live.id, &mut batch);
        let (number, to) = (line.number, line.state);
        self.feed(live, state, Input::Line { number, from, to, paid_msat, fee_msat }, batch);
    }

    /// Feeds what the machine never refuses.
    pub(super) fn feed(&self, live: &Live, state: &mut State, input: Input, batch: Batch) {
        let decision = self.decided(state, input);
        // Whoever looks waits for it; nothing leaves by it.
        let _ticket = self.commit(live, state, decision, Beside { batch, ..Beside::default() });
    }

    fn decided(&self, state: &State, input: Input) -> Decision {
        decide(&state.record, input, self.now_ms())
            .expect("only what callers ask for is ever refused")
    }

    /// Notes why a line waits, if that is new. Called under the payout's lock.
    pub(super) fn waits(&self, live: &Live, line: &LineRecord, reason: LineReason, detail: &str) {
        if line.reason == Some(reason) {
            return;
        }
        let detail = detail.to_owned();
        let mut batch = Batch::default();
        LineRecord { reason: Some(reason), detail, ..line.clone() }.put(live.id, &mut batch);
        // Whoever looks waits for it; nothing leaves by it.
        let _ticket = self.parts.committer.enqueue(batch);
    }

    /// Says why nothing goes on, if it was not said before.
    pub(super) fn say(&self, live: &Live, state: &mut State, detail: &str) {
        if state.record.detail == detail {
            return;
        }
        let mut after = state.record.clone();
        detail.clone_into(&mut after.detail);
        let mut batch = Batch::default();
        after.put(&mut batch);
        let ticket = self.parts.committer.enqueue(batch);
        live.changed(state, after, ticket);
    }

    /// When the task looks again although nothing has happened.
    fn wake_at(&self, live: &Live, work: &Work) -> Instant {
        let now = Instant::now();
        let record = live.state.lock().record.clone();
        let at_ms = match record.state {
            PayoutState::Scheduled => record.settings.not_before_ms,
            PayoutState::Running => record.deadline_ms.filter(|_| record.tally.pending > 0),
            _ => None,
        };
        let nap = at_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(self.now_ms())));
        let mut at = now + nap.unwrap_or(NAP_MAX).min(NAP_MAX);
        if record.state == PayoutState::Running {
            let next = match (work.dry_until, work.delayed.first()) {
                (Some(until), _) => Some(until),
                (None, Some((next, _))) => Some(*next),
                (None, None) => None,
            };
            at = next.into_iter().chain(work.chain.wake_at()).fold(at, Instant::min);
        }
        at
    }
}

fn flight(
    number: u32,
    mut watch: PaymentWatch,
) -> BoxFuture<'static, (u32, Result<PaymentRecord, StoreError>)> {
    Box::pin(async move { (number, watch.outcome().await) })
}

/// A line as payments take it.
fn request(line: &LineRecord) -> PayRequest {
    let target = match (line.kind, line.payee) {
        (LineKind::Keysend, Some(payee)) => PayTarget::Keysend { payee, records: Vec::new() },
        _ => PayTarget::Request(line.target.clone()),
    };
    PayRequest {
        target,
        amount_msat: Some(line.amount_msat),
        max_fee_msat: Some(line.max_fee_msat),
        retry_for: None,
        max_parts: None,
        payer_note: Some(line.note.clone()).filter(|note| !note.is_empty()),
    }
}

/// What a failure means for a line: its reason, whether it may pass, and what it is in words.
fn failure(reason: Option<FailureReason>) -> (LineReason, bool, &'static str) {
    use FailureReason as F;
    match reason.unwrap_or(F::Unexpected) {
        F::RouteNotFound => (LineReason::NoRoute, true, "no route within the fee limit"),
        F::RetriesExhausted => (LineReason::NoRoute, true, "every route that was tried failed"),
        F::NeverSent => (LineReason::NoRoute, true, "a restart came before it had left"),
        F::InvoiceRequestExpired => {
            (LineReason::NoAnswer, true, "the offer's issuer did not answer in time")
        }
        F::InvoiceRequestRejected => {
            (LineReason::Rejected, false, "the offer's issuer refused to give an invoice")
        }
        F::RecipientRejected => (LineReason::Rejected, false, "the receiver refused it"),
        F::UnknownFeatures => {
            (LineReason::Rejected, false, "the receiver asks for features this node has not")
        }
        F::Expired => (LineReason::Expired, false, "the invoice expired before it was paid"),
        F::Abandoned => (LineReason::Unexpected, false, "it was abandoned"),
        F::Unexpected => (LineReason::Unexpected, false, "it failed; see the node's log"),
    }
}
