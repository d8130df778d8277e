//! Requests that nobody should send, to every method by every door of a real node process: random
//! and at the edges of what the descriptors allow, malformed, oversized, cut off, slow.
//!
//! At the end the node is as before: it answers, opens a channel and pays, its memory is bounded,
//! its log tells of no panic; and whatever it refused, it gave a reason that is not its own error.
//!
//! `FUZZ_SECONDS` sets how long [20], `FUZZ_SEED` repeats a run's random choices. The node's
//! directory stays when it fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

mod attacks;
mod messages;
#[path = "../support/process.rs"]
mod process;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use node::dev::DevChain;
use node::runtime::Tasks;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::{self as pb};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use attacks::{Verdict, attack};
use messages::Interface;
use process::{Process, Root, fund, info, make, open, wait_until};
use wire::{Caller, Target};

/// Callers at once.
const CALLERS: u64 = 12;
/// What the node's memory may grow by after its first quarter, MiB.
const GROWTH_MAX_MIB: u64 = 192;
/// What it may have at any time, MiB.
const MEMORY_MAX_MIB: u64 = 1_024;

#[derive(Default)]
struct Tally {
    counts: BTreeMap<String, u64>,
    wrong: BTreeSet<String>,
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        *self.counts.entry(verdict.count).or_default() += 1;
        // A few of each are enough.
        if let Some(mut wrong) = verdict.wrong.filter(|_| self.wrong.len() < 40) {
            let end = wrong.char_indices().nth(600).map_or(wrong.len(), |(at, _)| at);
            wrong.truncate(end);
            self.wrong.insert(wrong);
        }
    }
}

/// What a process has in memory, and the most it had, MiB.
fn memory_mib(id: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let word = line.and_then(|line| line.split_whitespace().nth(1));
        word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    (kib("VmRSS:") / 1_024, kib("VmHWM:") / 1_024)
}

async fn pays(from: &Process, to: &Process) {
    let deadline = Instant::now() + Duration::from_secs(60);
    for attempt in 0.. {
        let mut payee = PaymentsClient::new(to.door().await);
        let mut payer = PaymentsClient::new(from.door().await);
        let request = pb::CreateInvoiceRequest {
            idempotency_key: format!("after-{attempt}-{}", process::free_address()),
            amount_msat: Some(1_000),
            ..pb::CreateInvoiceRequest::default()
        };
        let invoice = payee.create_invoice(request).await.unwrap().into_inner();
        let request = pb::PayRequest {
            idempotency_key: format!("after-{attempt}-{}", process::free_address()),
            target: Some(pb::pay_request::Target::Bolt11Invoice(invoice.bolt11)),
            wait: pb::PayWait::Wait.into(),
            timeout_seconds: Some(20),
            ..pb::PayRequest::default()
        };
        match payer.pay(request).await.map(|payment| payment.into_inner()) {
            Ok(payment) if payment.state() == pb::PaymentState::Succeeded => return,
            other => assert!(Instant::now() < deadline, "the node does not pay: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_harms_a_node() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = setting("FUZZ_SECONDS").unwrap_or(20);
    let seed = setting("FUZZ_SEED").unwrap_or_else(rand::random);
    println!("FUZZ_SEED={seed} FUZZ_SECONDS={seconds}");
    let root = Root::new();
    let tasks = Tasks::new();
    let chain = DevChain::embedded();
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await.unwrap());
    let mut alice = make("alice", root.path(), &chain_rpc);
    let mut bob = make("bob", root.path(), &chain_rpc);
    alice.with_rest();
    alice.start();
    bob.start();
    chain.mine(1).await.unwrap();
    fund(&chain, &[&alice, &bob], 10_000_000).await;
    open(&chain, &alice, &bob, 5_000_000).await;
    pays(&alice, &bob).await;

    let cert = std::fs::read(alice.dir.join("tls.crt")).unwrap();
    let token = std::fs::read_to_string(alice.dir.join("admin.token")).unwrap();
    let target = Target::new(&alice.rpc, &alice.rest, token.trim(), &cert);
    let interface = Arc::new(Interface::new());
    let tally = Arc::new(Mutex::new(Tally::default()));
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let mut caller = Caller::new(target.clone());
        let (interface, tally) = (Arc::clone(&interface), Arc::clone(&tally));
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(number));
        callers.spawn(async move {
            while Instant::now() < end {
                let verdict = attack(&mut caller, &interface, &mut rng).await;
                tally.lock().unwrap().add(verdict);
            }
        });
    }
    let mut warm = 0;
    let mut told = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let elapsed = begin.elapsed().as_secs();
        if warm == 0 && elapsed * 4 >= seconds {
            warm = memory_mib(alice.id()).0;
        }
        if elapsed / 60 > told {
            told = elapsed / 60;
            let (now, most) = memory_mib(alice.id());
            let calls: u64 = tally.lock().unwrap().counts.values().sum();
            println!("{told} min: {calls} attacks, {now} MiB, at most {most} MiB");
            // Blocks come meanwhile, as they do.
            chain.mine(1).await.unwrap();
        }
        assert!(alice.runs(), "the node is gone:\n{}", alice.tail());
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    // What was under way comes to its end.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (after, most) = memory_mib(alice.id());
    let tally = std::mem::take(&mut *tally.lock().unwrap());
    let calls: u64 = tally.counts.values().sum();
    println!(
        "{calls} attacks; memory {warm} MiB after a quarter, {after} MiB at the end, {most} MiB at most"
    );
    for (what, count) in &tally.counts {
        println!("  {count:>8}  {what}");
    }
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    let log = std::fs::read_to_string(alice.dir.join("log.txt")).unwrap();
    let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    assert!(after <= warm + GROWTH_MAX_MIB, "memory grew from {warm} to {after} MiB");
    assert!(most <= MEMORY_MAX_MIB, "{most} MiB at some time");

    let healthy = info(&alice).await;
    assert!(healthy.chain.is_some_and(|chain| chain.synced), "it does not follow the chain");
    chain.mine(1).await.unwrap();
    wait_until("the tip", || async { info(&alice).await.chain.is_some_and(|chain| chain.synced) })
        .await;
    fund(&chain, &[&alice], 3_000_000).await;
    open(&chain, &alice, &bob, 2_000_000).await;
    pays(&alice, &bob).await;
    assert!(calls > seconds, "only {calls} attacks");
    tasks.stop().await;
}
