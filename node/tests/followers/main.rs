//! Followers of a node's log under load: subscribers that disconnect at random, and webhook
//! receivers that fail half of the time.
//!
//! Two real processes on a chain served by this one pay each other, make invoices, hold payments,
//! open, renew and close channels, while alice is killed now and then. Her log is followed by
//! gRPC, by server-sent events and by webhooks; every way to her breaks. At the end the log is
//! read once more from its beginning: each subscriber has seen every event of its kinds once, in
//! order, as it is; each receiver has taken every event, in the order of its object.
//!
//! `FOLLOW_SECONDS` sets how long [15], `FOLLOW_SEED` repeats a run's random choices,
//! `FOLLOW_RENEW_KIB` from which weight channels are renewed [32; 0: never], `KILL_LOG` the nodes'
//! log level [info]. The nodes' directories stay when it fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

mod doors;
mod follower;
mod frail;
mod load;
#[path = "../support/process.rs"]
mod process;
mod receiver;
mod subscribers;
mod truth;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use node::dev::DevChain;
use node::runtime::Tasks;
use proto::v1::EventKind;
use proto::v1::events_client::EventsClient;
use proto::v1::webhooks_client::WebhooksClient;
use proto::v1::{self as pb};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use doors::Doors;
use follower::{Follower, Form, Goal};
use load::{ALICE, BOB, CAPACITY_SAT, Counts, Load};
use process::{PATIENCE, Process, Root, fund, info, make, open};
use receiver::{Receiver, TIMEOUT_MS};
use truth::Truth;

/// Callers at once.
const CALLERS: u64 = 6;
/// How long the log must stand still to count as quiet.
const QUIET: Duration = Duration::from_secs(3);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Everybody who follows alice's log.
struct Followers {
    fickle: Vec<Arc<Follower>>,
    slow: Arc<Follower>,
    browser: Arc<Follower>,
    receivers: Vec<(Arc<Receiver>, Vec<u8>)>,
    /// Connections that were cut on their way.
    cuts: Arc<AtomicU64>,
    at_work: JoinSet<()>,
}

impl Followers {
    async fn start(doors: &Doors, seed: u64, goal: &Goal) -> Self {
        let payments = [EventKind::Payment];
        let rest = [EventKind::Invoice, EventKind::Channel, EventKind::Node];
        let fickle = vec![
            Follower::new("all by gRPC", Form::Wire, &[]),
            Follower::new("all by gRPC, too", Form::Wire, &[]),
            Follower::new("payments", Form::Wire, &payments),
            Follower::new("all but payments", Form::Wire, &rest),
        ];
        let slow = Follower::new("slow", Form::Wire, &[]);
        let browser = Follower::new("server-sent events", Form::Json, &[]);
        let cuts = Arc::new(AtomicU64::new(0));
        let mut at_work = JoinSet::new();
        for (follower, number) in fickle.iter().zip(0..) {
            let way = frail::way(&doors.rpc, seed + number, Arc::clone(&cuts)).await;
            // The second lets go by itself only: all of its streams share few connections.
            let way = if number == 1 { doors.clone() } else { doors.at(&way, "") };
            let rng = StdRng::seed_from_u64(seed + number);
            at_work.spawn(subscribers::fickle(Arc::clone(follower), way, rng, goal.clone()));
        }
        let rng = StdRng::seed_from_u64(seed + 10);
        at_work.spawn(subscribers::slow(Arc::clone(&slow), doors.clone(), rng, goal.clone()));
        let way = frail::way(&doors.rest, seed + 11, Arc::clone(&cuts)).await;
        let rng = StdRng::seed_from_u64(seed + 11);
        let way = doors.at("", &way);
        at_work.spawn(subscribers::browser(Arc::clone(&browser), way, rng, goal.clone()));
        let receivers = vec![
            hook(doors, "books", &[], seed + 20).await,
            hook(doors, "shop", &[EventKind::Payment, EventKind::Channel], seed + 21).await,
        ];
        Self { fickle, slow, browser, receivers, cuts, at_work }
    }

    fn subscribers(&self) -> impl Iterator<Item = &Arc<Follower>> {
        self.fickle.iter().chain([&self.slow, &self.browser])
    }

    /// How much they have done altogether.
    fn done(&self) -> usize {
        let seen: usize = self.subscribers().map(|follower| follower.count()).sum();
        let taken: usize = self.receivers.iter().map(|(receiver, _)| receiver.taken()).sum();
        seen + taken
    }

    fn line(&self) -> String {
        let sum = |of: fn(&Follower) -> &AtomicU64| -> u64 {
            self.subscribers().map(|follower| of(follower).load(Ordering::Relaxed)).sum()
        };
        let (mut tried, mut failed) = (0, 0);
        for (receiver, _) in &self.receivers {
            tried += receiver.tally().0;
            failed += receiver.tally().1;
        }
        format!(
            "{} streams, {} let go of, {} broken; {} connections cut; {tried} deliveries, {failed} failed",
            sum(|follower| &follower.streams),
            sum(|follower| &follower.dropped),
            sum(|follower| &follower.broken),
            self.cuts.load(Ordering::Relaxed),
        )
    }

    /// Waits until everybody has everything.
    async fn finish(&mut self, truth: &Truth) {
        let (mut before, mut deadline) = (0, Instant::now() + PATIENCE);
        loop {
            while let Some(ended) = self.at_work.try_join_next() {
                ended.unwrap();
            }
            let told = self.receivers.iter().all(|(receiver, _)| receiver.is_done(truth));
            if self.at_work.is_empty() && told {
                return;
            }
            let done = self.done();
            if done > before {
                (before, deadline) = (done, Instant::now() + PATIENCE);
            }
            if Instant::now() > deadline {
                // What is missing is told below.
                return self.at_work.abort_all();
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Makes an endpoint for a receiver of its own, from the beginning of the log.
async fn hook(
    doors: &Doors,
    name: &'static str,
    kinds: &[EventKind],
    seed: u64,
) -> (Arc<Receiver>, Vec<u8>) {
    let receiver = Receiver::new(name, kinds, seed).await;
    let request = pb::CreateWebhookRequest {
        idempotency_key: name.to_owned(),
        url: receiver.url.clone(),
        description: name.to_owned(),
        kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
        after_sequence: Some(0),
    };
    let mut client = WebhooksClient::new(doors.lazy());
    let made = client.create(doors.call(request)).await.unwrap().into_inner();
    let id = made.webhook.unwrap().endpoint_id;
    receiver.is_known_as(&id, &made.secret);
    (receiver, id)
}

/// A process with REST, webhooks to loopback, and channels that are renewed early.
fn prepared(name: &'static str, root: &Root, chain_rpc: &str, renew_kib: u64) -> Process {
    let mut process = make(name, root.path(), chain_rpc);
    process.rest = process::free_address();
    let settings = format!(
        "[lightning]\nrenew_monitor_kib = {renew_kib}\n\n\
         [rest]\nlisten = {:?}\n\n\
         [webhook]\nallow_private = true\ntimeout_ms = {TIMEOUT_MS}\nretry_first_ms = 20\n\
         retry_longest_seconds = 1\n",
        process.rest
    );
    std::fs::write(process.dir.join("config.toml"), settings).unwrap();
    process.start();
    process
}

/// The newest event of a log.
async fn newest(doors: &Doors) -> u64 {
    let mut client = EventsClient::new(doors.lazy());
    let request = pb::ListEventsRequest { page_size: Some(1), ..pb::ListEventsRequest::default() };
    let page = client.list(doors.call(request)).await.unwrap().into_inner();
    page.newest_sequence.unwrap_or(0)
}

/// Waits until the log stands still.
async fn quiet(doors: &Doors) {
    let end = Instant::now() + 2 * PATIENCE;
    let (mut last, mut since) = (newest(doors).await, Instant::now());
    while since.elapsed() < QUIET {
        assert!(Instant::now() < end, "the log does not come to rest");
        sleep(Duration::from_millis(200)).await;
        let now = newest(doors).await;
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// What the node itself says of its endpoints: nothing waits, nothing was given up or missed.
async fn endpoints_are_empty(doors: &Doors, followers: &Followers) {
    let mut client = WebhooksClient::new(doors.lazy());
    for (receiver, id) in &followers.receivers {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = pb::GetWebhookRequest { endpoint_id: id.clone() };
            let view = client.get(doors.call(request)).await.unwrap().into_inner();
            assert_eq!((view.dead_letters, view.dropped, view.missed), (0, 0, 0), "{view:?}");
            if view.waiting == 0 && view.behind == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{}: {view:?}", receiver.name);
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn summary(load: &Load, followers: &Followers, truth: &Truth) {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &load.counts;
    println!(
        "{} events; {} payments, {} refused, {} holds; {} channels; {} sent; {} blocks; {} kills",
        truth.last(),
        get(&counts.payments),
        get(&counts.refused),
        get(&counts.holds),
        get(&counts.channels),
        get(&counts.sends),
        get(&counts.blocks),
        get(&counts.kills),
    );
    for (name, count) in &truth.counts {
        println!("  {count:>8}  {name}");
    }
    println!("{}", followers.line());
    for follower in followers.subscribers() {
        println!(
            "  {}: {} events, {} streams, {} let go of, {} broken",
            follower.name,
            follower.count(),
            get(&follower.streams),
            get(&follower.dropped),
            get(&follower.broken),
        );
    }
    for (receiver, _) in &followers.receivers {
        let (tried, failed, again) = receiver.tally();
        let taken = receiver.taken();
        println!(
            "  webhook {}: {taken} events, {tried} deliveries, {failed} failed, {again} of what it had",
            receiver.name
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_miss_and_repeat_nothing() {
    let seconds = setting("FOLLOW_SECONDS").unwrap_or(15);
    let seed = setting("FOLLOW_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let renew_kib = setting("FOLLOW_RENEW_KIB").unwrap_or(32);
    println!("FOLLOW_SEED={seed} FOLLOW_SECONDS={seconds} FOLLOW_RENEW_KIB={renew_kib}");
    let root = Root::new();
    let tasks = Tasks::new();
    let chain = Arc::new(DevChain::embedded());
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await.unwrap());
    let alice = prepared("alice", &root, &chain_rpc, renew_kib);
    let bob = prepared("bob", &root, &chain_rpc, renew_kib);
    chain.mine(1).await.unwrap();
    fund(&chain, &[&alice, &bob], 10_000_000).await;
    open(&chain, &alice, &bob, CAPACITY_SAT).await;
    open(&chain, &bob, &alice, CAPACITY_SAT).await;

    let doors = [Doors::of(&alice), Doors::of(&bob)];
    let logs = [alice.dir.join("log.txt"), bob.dir.join("log.txt")];
    let (tell, goal) = watch::channel(None);
    let mut followers = Followers::start(&doors[ALICE], seed, &goal).await;
    let load = Arc::new(Load {
        calls: [doors[ALICE].lazy(), doors[BOB].lazy()],
        doors: doors.clone(),
        bob_id: info(&bob).await.node_id,
        bob_address: bob.p2p.clone(),
        processes: [Mutex::new(alice), Mutex::new(bob)],
        chain: Arc::clone(&chain),
        counts: Counts::default(),
        stop: AtomicBool::new(false),
        next: AtomicU64::new(0),
    });
    let rng = |number: u64| StdRng::seed_from_u64(seed + number);
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(Arc::clone(&load).errands(rng(100 + number)));
    }
    callers.spawn(Arc::clone(&load).blocks(rng(200)));
    callers.spawn(Arc::clone(&load).channels(rng(201)));
    callers.spawn(Arc::clone(&load).kills(rng(202)));
    let (begin, mut told) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        sleep(Duration::from_millis(200)).await;
        // Who ends before the load is over has failed.
        if let Some(ended) = callers.try_join_next() {
            ended.unwrap();
        }
        if begin.elapsed().as_secs() / 60 > told {
            told += 1;
            let last = followers.subscribers().map(|one| one.last()).max().unwrap_or(0);
            let kills = load.counts.kills.load(Ordering::Relaxed);
            println!("{told} min: {last} events, {kills} kills; {}", followers.line());
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }

    quiet(&doors[ALICE]).await;
    let truth = Arc::new(Truth::read(&doors[ALICE]).await);
    tell.send(Some(Arc::clone(&truth))).unwrap();
    followers.finish(&truth).await;
    summary(&load, &followers, &truth);
    let mut wrong = Vec::new();
    for follower in followers.subscribers() {
        wrong.extend(follower.judge(&truth));
    }
    for (receiver, _) in &followers.receivers {
        wrong.extend(receiver.judge(&truth));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    endpoints_are_empty(&doors[ALICE], &followers).await;
    for log in logs {
        let log = std::fs::read_to_string(log).unwrap();
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
    }

    // All of it has happened.
    assert!(truth.last() > seconds * 5, "only {} events", truth.last());
    let kills = load.counts.kills.load(Ordering::Relaxed);
    assert!(kills > 0, "nobody was killed");
    let is_renewed = truth.counts.contains_key("SPLICE locked: true");
    assert!(is_renewed || renew_kib == 0 || seconds < 60, "no channel was renewed");
    for follower in followers.fickle.iter().chain([&followers.browser]) {
        assert!(follower.streams.load(Ordering::Relaxed) > 3, "{} stayed", follower.name);
    }
    // Nobody is cut off for being slow.
    let broken = followers.slow.broken.load(Ordering::Relaxed);
    assert!(broken <= kills, "the slow one was cut off {broken} times, {kills} kills");
    for (receiver, _) in &followers.receivers {
        let (tried, failed, _) = receiver.tally();
        assert!(failed * 3 > tried, "only {failed} of {tried} deliveries failed");
    }
    tasks.stop().await;
}
