//! How many unary calls a node answers over TLS, and what the interface adds to a payment.
//!
//! ```sh
//! cargo build --release -p node --bin tributary
//! cargo run --release -p benches --bin api
//! ```
//!
//! Two node processes with channels between them; this process has all clients, on the same
//! machine. `Health.Check` stands before the gate and does next to nothing: it is what gRPC over
//! TLS reaches here, and `GetInfo` is held against it in the same run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use benches::process::{self, Door, NodeProcess};
use benches::{Failure, percentile_ms};
use bitcoin::Amount;
use clap::Parser;
use futures::future::try_join;
use node::dev::DevChain;
use node::keys::SealCost;
use node::runtime::Tasks;
use proto::v1 as pb;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use serde::Serialize;
use tokio::time::Instant;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CAPACITY_SAT: u64 = 10_000_000;
const COIN: Amount = Amount::from_sat(10_100_000);
/// Kept by the wallet to bump force-closes.
const RESERVE: Amount = Amount::from_sat(50_000_000);
const AMOUNT_MSAT: u64 = 10_000;
/// Clients that ask for the node's state while others pay.
const ASKING: usize = 16;

/// Measures the interface.
#[derive(Parser)]
struct Args {
    /// Clients, each with one call at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: u16,
    /// Connections that they share.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// How long each kind of call is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
    /// Channels of the node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=400))]
    channels: u16,
    /// Print one JSON document (the only form there is).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    clients: u16,
    connections: u16,
    channels: u16,
    health: Calls,
    get_info: Calls,
    /// `GetInfo` to `Health.Check`, calls a second.
    get_info_to_health: f64,
    pay: Payments,
    /// The same while others ask for the node's state as fast as they can.
    pay_beside_get_info: Payments,
}

#[derive(Serialize)]
struct Calls {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Serialize)]
struct Payments {
    per_second: f64,
    call_p50_ms: f64,
    call_p99_ms: f64,
    /// From the payment's first record to its outcome, as the node noted it.
    payment_p50_ms: f64,
    payment_p99_ms: f64,
    /// What a call took longer than its payment, which is noted in whole milliseconds.
    added_p50_ms: f64,
    added_p99_ms: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let exe = process::tributary()?;
    let dir = tempfile::tempdir()?;
    let tasks = Tasks::new();
    let chain = DevChain::embedded();
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await?);
    let make = |name| {
        NodeProcess::create(&exe, dir.path(), name, &chain_rpc, SealCost::insecure_for_tests())
    };
    let (alice, bob) = (make("alice")?, make("bob")?);
    let channels = usize::from(args.channels);
    process::fund(&chain, &alice, RESERVE, 1).await?;
    process::fund(&chain, &bob, RESERVE, 1).await?;
    process::fund(&chain, &alice, COIN, channels).await?;
    process::open(&chain, &alice, &bob, CAPACITY_SAT, channels, false).await?;

    let mut doors = Vec::new();
    for _ in 0..args.connections {
        doors.push(alice.door().await?);
    }
    let clients = usize::from(args.clients);
    let time = Duration::from_secs(args.seconds.into());
    let health = calls(&doors, clients, time, check).await?;
    let get_info = calls(&doors, clients, time, ask).await?;
    let payee = bob.door().await?;
    let alone = pay(&doors, &payee, clients, time).await?;
    let (pay_beside_get_info, _) =
        try_join(pay(&doors, &payee, clients, time), calls(&doors, ASKING, time, ask)).await?;

    let get_info_to_health = get_info.per_second / health.per_second;
    let figures = Figures {
        clients: args.clients,
        connections: args.connections,
        channels: args.channels,
        health,
        get_info,
        get_info_to_health,
        pay: alone,
        pay_beside_get_info,
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    tasks.stop().await;
    Ok(())
}

async fn check(door: Door) -> Result<(), Status> {
    HealthClient::new(door).check(HealthCheckRequest::default()).await.map(drop)
}

async fn ask(door: Door) -> Result<(), Status> {
    NodeClient::new(door).get_info(pb::GetInfoRequest {}).await.map(drop)
}

/// Runs `clients` tasks, each with one of `doors`, and returns all that they measured.
async fn spread<T, F>(
    doors: &[Door],
    clients: usize,
    client: impl Fn(Door) -> F,
) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<Vec<T>, Status>> + Send + 'static,
{
    let tasks =
        (0..clients).map(|number| tokio::spawn(client(doors[number % doors.len()].clone())));
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await??);
    }
    Ok(all)
}

/// Calls as often as `clients` can, for `time`.
async fn calls<F>(
    doors: &[Door],
    clients: usize,
    time: Duration,
    call: fn(Door) -> F,
) -> Result<Calls, Failure>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let began = Instant::now();
    let client = |door: Door| async move {
        let mut times = Vec::new();
        while began.elapsed() < time {
            let asked = Instant::now();
            call(door.clone()).await?;
            times.push(asked.elapsed());
        }
        Ok(times)
    };
    let mut times = spread(doors, clients, client).await?;
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok(Calls { per_second, p50_ms: percentile_ms(&times, 50), p99_ms: percentile_ms(&times, 99) })
}

/// Pays invoices of `payee` for `time`, `clients` at once. Making an invoice is not measured.
async fn pay(
    doors: &[Door],
    payee: &Door,
    clients: usize,
    time: Duration,
) -> Result<Payments, Failure> {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let began = Instant::now();
    let client = |door: Door| {
        let (mut ours, mut theirs) =
            (PaymentsClient::new(door), PaymentsClient::new(payee.clone()));
        async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let key = format!("bench-{}", KEYS.fetch_add(1, Ordering::Relaxed));
                let invoice = theirs
                    .create_invoice(pb::CreateInvoiceRequest {
                        idempotency_key: key.clone(),
                        amount_msat: Some(AMOUNT_MSAT),
                        ..pb::CreateInvoiceRequest::default()
                    })
                    .await?
                    .into_inner();
                let request = pb::PayRequest {
                    idempotency_key: key,
                    target: Some(pb::pay_request::Target::Bolt11Invoice(invoice.bolt11)),
                    wait: pb::PayWait::Wait as i32,
                    ..pb::PayRequest::default()
                };
                let asked = Instant::now();
                let paid = ours.pay(request).await?.into_inner();
                let call = asked.elapsed();
                if paid.state != pb::PaymentState::Succeeded as i32 {
                    let why = paid.failure.map(|failure| failure.text).unwrap_or_default();
                    return Err(Status::aborted(format!("a payment failed: {why}")));
                }
                let resolved_ms = paid.resolved_unix_ms.unwrap_or(paid.created_unix_ms);
                let itself = Duration::from_millis(resolved_ms - paid.created_unix_ms);
                times.push((call, itself, call.saturating_sub(itself)));
            }
            Ok(times)
        }
    };
    let times = spread(doors, clients, client).await?;
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    let sorted = |time: fn(&(Duration, Duration, Duration)) -> Duration| {
        let mut all: Vec<Duration> = times.iter().map(time).collect();
        all.sort_unstable();
        all
    };
    let (call, itself, added) = (sorted(|t| t.0), sorted(|t| t.1), sorted(|t| t.2));
    Ok(Payments {
        per_second,
        call_p50_ms: percentile_ms(&call, 50),
        call_p99_ms: percentile_ms(&call, 99),
        payment_p50_ms: percentile_ms(&itself, 50),
        payment_p99_ms: percentile_ms(&itself, 99),
        added_p50_ms: percentile_ms(&added, 50),
        added_p99_ms: percentile_ms(&added, 99),
    })
}
