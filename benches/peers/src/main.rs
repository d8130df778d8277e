//! The work of the `payments` benchmark, done by ldk-node: own stores on disk, TCP between the
//! nodes, one process. The chain is a real bitcoind on regtest.
//!
//! ```sh
//! just bench-peers --nodes 2 --in-flight 100 --amount-msat 1000 --seconds 10
//! ```
//!
//! Absolute figures of a shared machine move from hour to hour: compare within one run.

mod bitcoind;
mod count;
mod nodes;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::bitcoind::Bitcoind;
use crate::count::Usage;
use crate::nodes::Line;

/// Why a measurement could not be made.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is measured; the manifest pins the version.
const PEER: &str = "ldk-node 0.7.1";
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Payers and timers run on as many threads as in ldk-node's own benchmark.
const WORKERS: usize = 4;

/// Measures payments through a line of ldk-node nodes.
#[derive(Parser)]
struct Args {
    /// Nodes in the line: with 2 the payments are keysends, with 3 invoices paid through the hub.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// Payments under way at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Each payment, in millisatoshi.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    amount_msat: u64,
    /// How long to measure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the nodes keep their state.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// The daemon [default: the newest that the project's tests have built].
    #[arg(long, env = "BITCOIND_EXE")]
    bitcoind: Option<PathBuf>,
    /// Print one JSON document (the only form there is).
    #[arg(long)]
    json: bool,
}

/// A store that ldk-node brings.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Store {
    /// One SQLite database for each node, ldk-node's default.
    Sqlite,
    /// One file for each key.
    Files,
}

#[derive(Serialize)]
struct Figures {
    program: String,
    nodes: u8,
    in_flight: u32,
    amount_msat: u64,
    payments: u64,
    failed: u64,
    payments_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Calls of `fsync` and `fdatasync`, of all nodes together.
    fsyncs_per_payment: f64,
    /// Bytes that went to the disk, by the kernel's count, of all nodes together.
    disk_bytes_per_payment: f64,
    /// User and system time of this process, without bitcoind.
    cpu_ms_per_payment: f64,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<String, Failure> {
    let exe = args.bitcoind.clone().map_or_else(bitcoind::find, Ok)?;
    let dir = tempfile::tempdir()?;
    // Things stop in the reverse order: the nodes before the runtime, the chain and the directory.
    let chain = Bitcoind::start(&exe, &dir.path().join("bitcoind"))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let line = Line::start(args.nodes, args.store, dir.path(), &chain, &runtime)?;
    line.fund(&chain)?;
    line.open(&chain)?;

    let before = Usage::now()?;
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let payer = line.payer(args.amount_msat);
    let payers: Vec<_> =
        (0..args.in_flight).map(|_| runtime.spawn(payer.clone().pay_until(until))).collect();
    // All of them end before the first error is told: none holds a node when the nodes stop.
    let ended: Vec<_> = payers.into_iter().map(|payer| runtime.block_on(payer)).collect();
    let elapsed = began.elapsed();
    let used = Usage::now()?.since(before);

    let (mut times, mut failed) = (Vec::new(), 0);
    for payer in ended {
        let (succeeded_in, failures) = payer??;
        times.extend(succeeded_in);
        failed += failures;
    }
    if !times.is_empty() && used.syncs == 0 {
        return Err("payments were made without one sync: the counter is not linked in".into());
    }
    times.sort_unstable();
    let per_payment = |sum: f64| sum / times.len().max(1) as f64;
    let store = match args.store {
        Store::Sqlite => "SQLite",
        Store::Files => "files",
    };
    let figures = Figures {
        program: format!("{PEER}, {store}"),
        nodes: args.nodes,
        in_flight: args.in_flight,
        amount_msat: args.amount_msat,
        payments: times.len() as u64,
        failed,
        payments_per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: percentile_ms(&times, 50),
        p99_ms: percentile_ms(&times, 99),
        fsyncs_per_payment: per_payment(used.syncs as f64),
        disk_bytes_per_payment: per_payment(used.disk_bytes as f64),
        cpu_ms_per_payment: per_payment(used.cpu.as_secs_f64() * 1_000.0),
    };
    Ok(serde_json::to_string_pretty(&figures)?)
}

/// Waits until `done` says so.
///
/// # Errors
///
/// If `done` fails, or does not say so in time.
fn until(what: &str, mut done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            return Err(format!("no {what} within {} s", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The time that `percent` of sorted `times` do not exceed (nearest rank), in ms.
fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_carries_the_pinned_version() {
        let version = PEER.strip_prefix("ldk-node ").unwrap();
        let pin = format!("ldk-node = \"={version}\"");
        assert!(include_str!("../Cargo.toml").contains(&pin));
    }

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let times: Vec<_> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(&times, 50), 5.0);
        assert_eq!(percentile_ms(&times, 99), 10.0);
        assert_eq!(percentile_ms(&[], 50), 0.0);
    }
}
