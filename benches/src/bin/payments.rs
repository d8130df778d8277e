//! Payments per second over real nodes: processes of their own, durable stores, TCP between them.
//!
//! ```sh
//! cargo build --release -p node --bin tributary
//! cargo run --release -p benches --bin payments -- --nodes 2 --in-flight 100 --amount-msat 1000 --seconds 10 --json
//! ```
//!
//! LDK alone, in memory and on one core, is measured right after; with `--peer` also the program
//! of `benches/peers`.

use std::path::PathBuf;
use std::time::Duration;

use benches::line::{Line, Until};
use benches::{Comparison, Failure, Run, endurance, page, towered};
use clap::{Parser, Subcommand};

/// Measures payments through a line of nodes.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Nodes in the line, 2 or 3: the first pays the last by keysend.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// Payments under way at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Each payment, in millisatoshi.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    amount_msat: u64,
    /// How long to measure.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The built program of `benches/peers`, to measure ldk-node in the same run.
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Mode {
    /// Measure every combination and write the page of figures.
    Page(page::Args),
    /// Measure many payments on one channel, tenth by tenth.
    Endurance(endurance::Args),
    /// Measure what a watchtower costs: none, one that answers, one that is gone.
    Towered(towered::Args),
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    match &args.mode {
        Some(Mode::Page(args)) => return page::write(args).await,
        Some(Mode::Endurance(args)) => return endurance::measure(args).await,
        Some(Mode::Towered(args)) => return towered::measure(args).await,
        None => {}
    }
    let run = Run {
        nodes: args.nodes,
        in_flight: args.in_flight,
        amount_msat: args.amount_msat,
        seconds: args.seconds,
    };
    let line = Line::start(run.nodes, run.amount_msat).await?;
    let figures =
        line.measure(run.in_flight, Until::Elapsed(Duration::from_secs(run.seconds))).await?;
    let conserved = line.conserved().await?;
    line.stop().await;
    let report = Comparison::measure(figures, conserved, &run, args.peer.as_deref())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    if !report.conserved {
        return Err("the channels do not hold what the payments say".into());
    }
    Ok(())
}

fn print(report: &Comparison) {
    println!(
        "{:<28}{:>12}{:>10}{:>10}{:>12}{:>12}{:>10}",
        "", "payments/s", "p50 ms", "p99 ms", "syncs/paym.", "B/paym.", "CPU ms"
    );
    let optional = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for figures in report.all() {
        println!(
            "{:<28}{:>12.0}{:>10.1}{:>10.1}{:>12}{:>12}{:>10.2}",
            figures.program,
            figures.payments_per_second,
            figures.p50_ms,
            figures.p99_ms,
            optional(figures.fsyncs_per_payment, 3),
            optional(figures.disk_bytes_per_payment, 0),
            figures.cpu_ms_per_payment,
        );
    }
    println!("{:.2} of LDK alone", report.ratio_to_raw_ldk);
    if let Some(ratio) = report.ratio_to_peer {
        println!("{ratio:.1} times the peer");
    }
    if let Some(failure) = &report.peer_failed {
        println!("the peer has no figures: {failure}");
    }
}
