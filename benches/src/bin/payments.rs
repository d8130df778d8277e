//! Payments per second over real nodes: own stores on disk, TCP between them, one process.
//!
//! ```sh
//! cargo run --release -p benches --bin payments -- --nodes 2 --in-flight 100 --amount-msat 1000 --seconds 10
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use benches::{Failure, percentile_ms};
use bitcoin::Amount;
use clap::Parser;
use futures::future::join_all;
use node::dev::{Cluster, DevChain, NodeOptions};
use node::payments::{PayRequest, PayTarget, PaymentState};
use serde::Serialize;
use tokio::time::Instant;

/// What every wallet gets, and every channel holds of it.
const FUNDS: Amount = Amount::from_sat(1_000_000_000);
const CAPACITY_SAT: u64 = 500_000_000;

/// Measures payments through a line of nodes.
#[derive(Parser)]
struct Args {
    /// Nodes in the line, 2 or 3: the first pays the last by keysend.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// Payments under way at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Each payment, in millisatoshi.
    #[arg(long, default_value_t = 1_000)]
    amount_msat: u64,
    /// How long to measure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Print one JSON document (the only form there is).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    nodes: u8,
    in_flight: u32,
    amount_msat: u64,
    payments: u64,
    failed: u64,
    payments_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Durable batches, one sync each, of all nodes together.
    fsyncs_per_payment: f64,
    /// Bytes of keys and values written, of all nodes together.
    written_bytes_per_payment: f64,
    conserved: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let dir = tempfile::tempdir()?;
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    let names: Vec<String> = (0..args.nodes).map(|number| format!("n{number}")).collect();
    for name in &names {
        net.add(name, NodeOptions::default()).await?;
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    net.fund(&all, FUNDS, 1).await?;
    for pair in all.windows(2) {
        net.open_channel(pair[0], pair[1], CAPACITY_SAT, 0).await?;
    }
    let (first, last) = (all[0], all[all.len() - 1]);
    // Through a hub the receiver is reached by invoices, which carry a route hint.
    let by_invoice = args.nodes > 2;

    let before: Vec<_> = all.iter().map(|name| net.node(name).committer.stats()).collect();
    let failed = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let payers = (0..args.in_flight).map(|_| {
        pay_until(&net, first, last, args.amount_msat, until, Arc::clone(&failed), by_invoice)
    });
    let mut times: Vec<Duration> = join_all(payers).await.concat();
    let elapsed = began.elapsed();
    times.sort_unstable();
    let conserved = net.audit().await?.conserved();
    let after: Vec<_> = all.iter().map(|name| net.node(name).committer.stats()).collect();
    let written = |pick: fn(&node::store::CommitStats) -> u64| {
        let sum: u64 = before.iter().zip(&after).map(|(b, a)| pick(a) - pick(b)).sum();
        sum as f64 / times.len().max(1) as f64
    };
    let figures = Figures {
        nodes: args.nodes,
        in_flight: args.in_flight,
        amount_msat: args.amount_msat,
        payments: times.len() as u64,
        failed: failed.load(Ordering::Relaxed),
        payments_per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: percentile_ms(&times, 50),
        p99_ms: percentile_ms(&times, 99),
        fsyncs_per_payment: written(|stats| stats.batches),
        written_bytes_per_payment: written(|stats| stats.bytes),
        conserved,
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    net.shut_down().await;
    Ok(())
}

async fn pay_until(
    net: &Cluster,
    from: &str,
    to: &str,
    amount_msat: u64,
    until: Instant,
    failed: Arc<AtomicU64>,
    by_invoice: bool,
) -> Vec<Duration> {
    let payee = net.node(to).lightning.node_id();
    let mut times = Vec::new();
    while Instant::now() < until {
        let target = if by_invoice {
            let create = node::payments::CreateInvoice {
                amount_msat: Some(amount_msat),
                description: node::lightning::InvoiceDescription::Text(String::new()),
                expiry: Duration::from_secs(3_600),
                min_final_cltv_expiry_delta: None,
                hash: None,
            };
            match net.node(to).payments.create_invoice(create, None).await {
                Ok(invoice) => PayTarget::Request(invoice.invoice),
                Err(_) => break,
            }
        } else {
            PayTarget::Keysend { payee, records: Vec::new() }
        };
        let request = PayRequest {
            target,
            amount_msat: (!by_invoice).then_some(amount_msat),
            max_fee_msat: None,
            retry_for: None,
            max_parts: None,
            payer_note: None,
        };
        let began = Instant::now();
        let outcome = match net.node(from).payments.pay(&request, None) {
            Ok(mut payment) => payment.outcome().await.map(|record| record.state),
            Err(_) => Ok(PaymentState::Failed),
        };
        match outcome {
            Ok(PaymentState::Succeeded) => times.push(began.elapsed()),
            _ => {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    times
}
