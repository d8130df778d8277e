//! Makes the payments of a workload and writes down what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node::lightning::types::{PaymentHash, Preimage};
use node::lightning::{FailureReason, InvoiceDescription};
use node::payments::{
    CreateInvoice, PayError, PayRequest, PayTarget, PaymentRecord as NodePayment, PaymentState,
    PaymentWatch, Payments,
};
use node::runtime::Tasks;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::hosts::Hosts;
use crate::model::Control;
use crate::random::Random;
use crate::report::{Outcome, PaymentRecord, Recorder};
use crate::scenario::SenderSpec;
use crate::workload::Intent;

/// How long invoices are valid: longer than any scenario.
const EXPIRY: Duration = Duration::from_secs(366 * 24 * 3_600);
/// How often somebody looks whether a node is back, or a payment has come.
const LOOK: Duration = Duration::from_millis(250);
/// How long a receiver waits for a payment that it is to hold.
const HOLD_PATIENCE: Duration = Duration::from_secs(600);
/// Randomness of preimages that receivers draw themselves.
const PREIMAGES: u64 = 5;

/// A payment that its sender was told to have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Who paid.
    pub from: crate::topology::Node,
    /// Who was paid.
    pub to: crate::topology::Node,
    /// For which hash.
    pub hash: PaymentHash,
    /// What the receiver was to get, msat.
    pub amount_msat: u64,
}

/// Payments under way and those that are over. Clones share them.
#[derive(Clone)]
pub struct Traffic {
    hosts: Hosts,
    senders: SenderSpec,
    zero: Instant,
    tasks: Tasks,
    active: Arc<AtomicU64>,
    state: Arc<Mutex<State>>,
}

struct State {
    recorder: Recorder,
    made: Vec<Made>,
    random: Random,
    /// No payment is waited for any longer.
    is_over: bool,
}

/// What became of a payment, and what it cost.
struct End {
    outcome: Outcome,
    fee_msat: u64,
}

impl End {
    fn failed(outcome: Outcome) -> Self {
        Self { outcome, fee_msat: 0 }
    }
}

impl Traffic {
    /// Traffic between `hosts` from `zero` on, written into `recorder`.
    pub fn new(
        hosts: Hosts,
        senders: SenderSpec,
        zero: Instant,
        seed: u64,
        recorder: Recorder,
    ) -> Self {
        let random = Random::stream(seed, PREIMAGES);
        let state = State { recorder, made: Vec::new(), random, is_over: false };
        let (tasks, active) = (Tasks::new(), Arc::default());
        Self { hosts, senders, zero, tasks, active, state: Arc::new(Mutex::new(state)) }
    }

    /// Begins each payment at its time; returns when the last has begun, or `control` says stop.
    pub async fn begin_all(&self, workload: impl Iterator<Item = Intent>, control: &Control) {
        for intent in workload {
            sleep_until(self.zero + Duration::from_micros(intent.at_us)).await;
            if control.stop.load(Ordering::Relaxed) {
                self.state.lock().recorder.partial = true;
                return;
            }
            control.begun.fetch_add(1, Ordering::Relaxed);
            self.active.fetch_add(1, Ordering::Relaxed);
            let this = self.clone();
            self.tasks.spawn("payment", async move { this.pay(intent).await });
        }
    }

    /// Payments under way.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Waits at most `patience` for payments under way; the rest is unfinished.
    pub async fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.active() > 0 && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        self.state.lock().is_over = true;
    }

    /// Works on what was recorded.
    pub fn record<T>(&self, work: impl FnOnce(&mut Recorder) -> T) -> T {
        work(&mut self.state.lock().recorder)
    }

    /// Payments that their senders were told to have made.
    pub fn made(&self) -> Vec<Made> {
        self.state.lock().made.clone()
    }

    async fn pay(&self, intent: Intent) {
        let end = self.pay_once(&intent).await;
        let at_us = micros_since(self.zero);
        let mut state = self.state.lock();
        state.recorder.payment(PaymentRecord {
            at_us: intent.at_us,
            from: intent.from,
            to: intent.to,
            amount_msat: intent.amount_msat,
            outcome: end.outcome,
            latency_us: at_us.saturating_sub(intent.at_us),
            fee_msat: end.fee_msat,
            // A node does not tell these to callers; 0 says so.
            attempts: 0,
            parts: 0,
            hops: 0,
        });
        drop(state);
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    async fn pay_once(&self, intent: &Intent) -> End {
        let service = |host| self.hosts.ask(host, |node| Arc::clone(&node.payments));
        let Some(payer) = service(intent.from) else { return End::failed(Outcome::SenderAway) };
        // A receiver that is away gives no invoice; the model's sender fails at its door.
        let Some(payee) = service(intent.to) else { return End::failed(Outcome::AttemptsSpent) };
        let preimage = (intent.hold_us > 0).then(|| self.preimage());
        let create = CreateInvoice {
            amount_msat: Some(intent.amount_msat),
            description: InvoiceDescription::Text(String::new()),
            expiry: EXPIRY,
            min_final_cltv_expiry_delta: None,
            hash: preimage.map(Preimage::hash),
        };
        let Ok(invoice) = payee.create_invoice(create, None).await else {
            return End::failed(Outcome::AttemptsSpent);
        };
        let senders = &self.senders;
        let share = u128::from(intent.amount_msat) * u128::from(senders.fee_max_ppm) / 1_000_000;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let request = PayRequest {
            target: PayTarget::Request(invoice.invoice),
            amount_msat: None,
            max_fee_msat: Some(share.saturating_add(senders.fee_max_msat)),
            retry_for: Some(Duration::from_secs_f64(senders.retry_for_s)),
            max_parts: Some(u8::try_from(senders.parts_max).unwrap_or(u8::MAX)),
            payer_note: None,
        };
        if let Some(preimage) = preimage {
            let this = self.clone();
            let (to, hold_us) = (intent.to, intent.hold_us);
            let settle = async move { this.settle(to, preimage, hold_us).await };
            self.tasks.spawn("receiver", settle);
        }
        let watch = match payer.pay(&request, None) {
            Ok(watch) => watch,
            Err(PayError::NoUsableChannel | PayError::InsufficientBalance { .. }) => {
                return End::failed(Outcome::NoRoute);
            }
            Err(_) => return End::failed(Outcome::AttemptsSpent),
        };
        drop((payer, payee));
        match self.follow(intent.from, watch).await {
            Ok(Some(record)) => self.end(intent, &record),
            Ok(None) => End::failed(Outcome::AttemptsSpent),
            Err(Over) => End::failed(Outcome::Unfinished),
        }
    }

    fn preimage(&self) -> Preimage {
        let mut bytes = [0; 32];
        let mut state = self.state.lock();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&state.random.number().to_le_bytes());
        }
        Preimage(bytes)
    }

    fn end(&self, intent: &Intent, record: &NodePayment) -> End {
        if record.state == PaymentState::Succeeded {
            if let Some(hash) = record.hash {
                let Intent { from, to, amount_msat, .. } = *intent;
                self.state.lock().made.push(Made { from, to, hash, amount_msat });
            }
            return End { outcome: Outcome::Succeeded, fee_msat: record.fee_msat };
        }
        End::failed(match record.failure {
            Some(FailureReason::RouteNotFound) => Outcome::NoRoute,
            Some(FailureReason::Expired) => Outcome::TimeSpent,
            _ => Outcome::AttemptsSpent,
        })
    }

    /// The final record of a payment, also if its node starts again meanwhile; none if a crash
    /// took it before anybody was promised anything.
    async fn follow(
        &self,
        from: crate::topology::Node,
        mut watch: PaymentWatch,
    ) -> Result<Option<NodePayment>, Over> {
        let Ok(first) = watch.current().await else { return Ok(None) };
        loop {
            if let Ok(record) = self.unless_over(watch.outcome()).await? {
                return Ok(Some(record));
            }
            watch = loop {
                if self.state.lock().is_over {
                    return Err(Over);
                }
                sleep(LOOK).await;
                let look = |payments: &Payments| payments.watch(first.id);
                match self.hosts.ask(from, |node| look(&node.payments)) {
                    Some(Ok(Some(watch))) => break watch,
                    Some(Ok(None)) => return Ok(None),
                    Some(Err(_)) | None => {}
                }
            };
        }
    }

    /// Waits for `work` until nothing is waited for any more.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Result<T, Over> {
        tokio::pin!(work);
        loop {
            match tokio::time::timeout(Duration::from_secs(5), &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) if self.state.lock().is_over => return Err(Over),
                Err(_) => {}
            }
        }
    }

    /// Takes a held payment a while after it came.
    async fn settle(&self, to: crate::topology::Node, preimage: Preimage, hold_us: u64) {
        let id = preimage.hash().inbound_id();
        let deadline = Instant::now() + HOLD_PATIENCE;
        loop {
            let found = self.hosts.ask(to, |node| node.payments.recorded(id));
            let state = found.and_then(Result::ok).flatten().map(|record| record.state);
            match state {
                Some(PaymentState::Held) => break,
                Some(state) if state.is_final() => return,
                _ if Instant::now() > deadline => return,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
        sleep(Duration::from_micros(hold_us)).await;
        while Instant::now() < deadline {
            let payee = self.hosts.ask(to, |node| Arc::clone(&node.payments));
            match payee {
                Some(payee) if payee.settle(preimage).await.is_ok() => return,
                _ => sleep(LOOK).await,
            }
        }
    }
}

/// Nothing is waited for any more.
struct Over;

/// Virtual time since `zero`.
pub fn micros_since(zero: Instant) -> u64 {
    u64::try_from(zero.elapsed().as_micros()).unwrap_or(u64::MAX)
}
