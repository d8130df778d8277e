//! Many payments at once while somebody pulls a plug.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use node::dev::Cluster;
use node::lightning::types::PaymentId;
use node::payments::{PayError, PayRequest, PaymentState, Payments};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{WAIT, invoice, pay_request};

/// Payments under way at once.
const IN_FLIGHT: usize = 20;

/// Payments that were started and may still be under way.
pub struct Burst {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    /// Payments whose first record was durable before the caller heard of them.
    started: Mutex<BTreeSet<PaymentId>>,
    succeeded: AtomicUsize,
    ended: AtomicUsize,
}

/// Starts paying `count` invoices of `payee`'s from `payer`, [`IN_FLIGHT`] at a time, the first
/// of 1,000 msat and each 1 msat more.
///
/// # Panics
///
/// If an invoice cannot be made.
pub async fn burst(net: &Cluster, payer: &str, payee: &str, count: u64) -> Burst {
    let mut requests = Vec::new();
    for number in 0..count {
        let invoice = invoice(net, payee, Some(1_000 + number)).await;
        requests.push(pay_request(&invoice.invoice, None));
    }
    let shared = Arc::new(Shared {
        started: Mutex::default(),
        succeeded: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
    });
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for request in requests {
        let payments = Arc::clone(&net.node(payer).payments);
        let (shared, slots, stop) = (Arc::clone(&shared), Arc::clone(&slots), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = one(&payments, &request, &shared, &slots) => {}
            }
        });
    }
    Burst { tasks, shared, stop }
}

async fn one(payments: &Payments, request: &PayRequest, shared: &Shared, slots: &Semaphore) {
    let Ok(_slot) = slots.acquire().await else {
        return;
    };
    let mut watch = loop {
        match payments.pay(request, None) {
            Ok(watch) => break watch,
            // The neighbour is away: nothing was recorded, so the same can be asked again.
            Err(PayError::NoUsableChannel | PayError::InsufficientBalance { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(_) => return,
        }
    };
    let Ok(first) = watch.current().await else {
        return;
    };
    shared.started.lock().insert(first.id);
    if let Ok(last) = watch.outcome().await {
        if last.state == PaymentState::Succeeded {
            shared.succeeded.fetch_add(1, Ordering::Relaxed);
        }
        shared.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Burst {
    /// Waits until `count` payments have ended.
    ///
    /// # Panics
    ///
    /// If that does not come about in time.
    pub async fn ended(&self, net: &Cluster, count: usize) {
        net.wait("first payments of a burst", WAIT, || {
            self.shared.ended.load(Ordering::Relaxed) >= count
        })
        .await
        .expect("payments go through");
    }

    /// Waits until all have ended, and returns the ids of those that were started.
    ///
    /// # Panics
    ///
    /// If that does not come about in time.
    pub async fn finished(mut self) -> BTreeSet<PaymentId> {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(WAIT, all).await.expect("a burst ends in time");
        self.shared.started.lock().clone()
    }

    /// Stops following, as a caller whose node has gone, and returns the ids of those that were
    /// started.
    pub async fn abandoned(mut self) -> BTreeSet<PaymentId> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.shared.started.lock().clone()
    }
}
