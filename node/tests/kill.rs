//! `kill -9` of node processes in the middle of a burst, over and over.
//!
//! Three real processes on a chain served by this one: alice pays bob through the hub without a
//! pause while one of the three is killed at a random moment and started again. At the end no
//! channel was closed, every payment has exactly one outcome on which payer and receiver agree,
//! and balances say the same to the millisatoshi.
//!
//! `KILLS` sets how many [50], `KILL_SEED` repeats a run's random choices, `KILL_LOG` the nodes'
//! log level [info]. The nodes' directories stay when it fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "support/process.rs"]
mod process;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use node::dev::DevChain;
use node::runtime::Tasks;
use process::{PATIENCE, Process, Root, channels, fund, make, open, wait_until};
use proto::v1::payments_client::PaymentsClient;
use proto::v1::{self as pb};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

const NAMES: [&str; 3] = ["alice", "hub", "bob"];
const CAPACITY_SAT: u64 = 5_000_000;
const IN_FLIGHT: usize = 20;

/// Everything of one node's payment list, all pages.
async fn payments(process: &Process) -> Vec<pb::Payment> {
    let mut client = PaymentsClient::new(process.door().await);
    let mut all = Vec::new();
    let mut page_token = None;
    loop {
        let request = pb::ListPaymentsRequest {
            page_size: Some(1_000),
            page_token,
            ..pb::ListPaymentsRequest::default()
        };
        let page = client.list_payments(request).await.unwrap().into_inner();
        all.extend(page.payments);
        page_token = page.next_page_token;
        if page_token.is_none() {
            return all;
        }
    }
}

/// Pays without a pause until told to stop; every call that fails is tried again under its key.
async fn keep_paying(
    alice: Arc<tokio::sync::RwLock<Process>>,
    bob: Arc<tokio::sync::RwLock<Process>>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
) {
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let invoice = retry(|| async {
            let mut client = PaymentsClient::new(bob.read().await.try_door().await?);
            let request = pb::CreateInvoiceRequest {
                idempotency_key: format!("invoice-{number}"),
                amount_msat: Some(1_000 + number % 900),
                ..pb::CreateInvoiceRequest::default()
            };
            client.create_invoice(request).await.ok().map(|invoice| invoice.into_inner().bolt11)
        })
        .await;
        let started = retry(|| async {
            let mut client = PaymentsClient::new(alice.read().await.try_door().await?);
            let request = pb::PayRequest {
                idempotency_key: format!("payment-{number}"),
                target: Some(pb::pay_request::Target::Bolt11Invoice(invoice.clone())),
                timeout_seconds: Some(20),
                ..pb::PayRequest::default()
            };
            match client.pay(request).await {
                Ok(_) => Some(true),
                // The channel is down for the moment: nothing was started under this key.
                Err(status) if status.code() == tonic::Code::FailedPrecondition => Some(false),
                Err(_) => None,
            }
        })
        .await;
        if !started {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn retry<T, F: Future<Output = Option<T>>>(call: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = call().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "a node did not come back in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_nodes_lose_and_double_nothing() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let seed: u64 =
        std::env::var("KILL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(rand::random);
    println!("KILL_SEED={seed} KILLS={kills}");
    let mut rng = StdRng::seed_from_u64(seed);
    let root = Root::new();
    let tasks = Tasks::new();
    let chain = DevChain::embedded();
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await.unwrap());
    let mut processes = Vec::new();
    for name in NAMES {
        let mut process = make(name, root.path(), &chain_rpc);
        process.start();
        processes.push(process);
    }

    fund(&chain, &processes.iter().collect::<Vec<_>>(), 10_000_000).await;
    let [alice, hub, bob] = <[Process; 3]>::try_from(processes).ok().unwrap();
    open(&chain, &alice, &hub, CAPACITY_SAT).await;
    open(&chain, &hub, &bob, CAPACITY_SAT).await;

    let shared = [alice, hub, bob].map(|process| Arc::new(tokio::sync::RwLock::new(process)));
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let mut payers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (alice, bob) = (Arc::clone(&shared[0]), Arc::clone(&shared[2]));
        payers.spawn(keep_paying(alice, bob, Arc::clone(&stop), Arc::clone(&next)));
    }
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..600))).await;
        let victim = &shared[rng.random_range(0..3)];
        let mut process = victim.write().await;
        process.kill();
        if rng.random_bool(0.3) {
            // Sometimes the world goes on without it for a while.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
        }
        process.start();
        // The write lock is held until it answers: a node that does not come back fails here.
        process.door().await;
        if kill % 10 == 9 {
            println!("{} kills, {} payments begun", kill + 1, next.load(Ordering::Relaxed));
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(payer) = payers.join_next().await {
        payer.unwrap();
    }

    let [alice, hub, bob] = shared;
    let (alice, hub, bob) = (alice.read().await, hub.read().await, bob.read().await);
    let in_flight = pb::PaymentState::InFlight as i32;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = payments(&alice).await;
        let open: Vec<_> = list.iter().filter(|payment| payment.state == in_flight).collect();
        if open.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            for process in [&alice, &hub, &bob] {
                println!("{}: {:#?}", process.name, channels(process).await);
            }
            panic!("{} payments without an outcome: {open:#?}", open.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_until("quiet channels", || async {
        let all = [channels(&alice).await, channels(&hub).await, channels(&bob).await].concat();
        all.iter().all(|channel| channel.htlcs_offered == 0 && channel.htlcs_received == 0)
    })
    .await;

    let succeeded = pb::PaymentState::Succeeded as i32;
    let sent: HashMap<Vec<u8>, pb::Payment> = payments(&alice)
        .await
        .into_iter()
        .filter(|payment| payment.state == succeeded)
        .map(|payment| (payment.payment_hash.clone().unwrap(), payment))
        .collect();
    let received: HashMap<Vec<u8>, pb::Payment> = payments(&bob)
        .await
        .into_iter()
        .filter(|payment| payment.state == succeeded)
        .map(|payment| (payment.payment_hash.clone().unwrap(), payment))
        .collect();
    println!(
        "{} payments begun, {} arrived; {kills} kills",
        next.load(Ordering::Relaxed),
        sent.len()
    );
    assert!(sent.len() > kills as usize, "too few payments to show anything");
    for (hash, payment) in &sent {
        let theirs = received.get(hash).expect("what the payer says arrived, arrived");
        assert_eq!(theirs.amount_msat, payment.amount_msat);
    }
    assert_eq!(sent.len(), received.len(), "what arrived, the payer knows of");

    let total: u64 = sent.values().map(|payment| payment.amount_msat).sum();
    let fees: u64 = sent.values().map(|payment| payment.fee_msat.unwrap_or(0)).sum();
    let active = pb::ChannelState::Active as i32;
    let mut held = HashMap::new();
    for (process, count) in [(&*alice, 1), (&*hub, 2), (&*bob, 1)] {
        let channels = channels(process).await;
        assert_eq!(channels.len(), count, "{}", process.name);
        for channel in &channels {
            assert_eq!(channel.state, active, "no channel was closed: {channel:?}");
        }
        let balance: u64 = channels.iter().map(|channel| channel.holder_balance_msat).sum();
        held.insert(process.name, balance);
    }
    assert_eq!(held["alice"], CAPACITY_SAT * 1_000 - total - fees);
    assert_eq!(held["hub"], CAPACITY_SAT * 1_000 + fees);
    assert_eq!(held["bob"], total);
    drop((alice, hub, bob));
    tasks.stop().await;
}
