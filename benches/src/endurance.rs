//! Whether a payment costs the same after many: one channel, slice after slice.
//!
//! Each slice is printed as it ends; the document at the end compares the first with the last.

use std::time::Duration;

use serde::Serialize;

use crate::line::{Line, Until};
use crate::plot::number;
use crate::{Failure, Figures};

/// A channel that is renewed on the way needs blocks, as it would get them.
const BLOCK_PERIOD: Duration = Duration::from_secs(10);
/// Slices of the whole: the first and the last are compared.
const SLICES: u64 = 10;

/// How many, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Payments in all.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(SLICES..))]
    payments: u64,
    /// Payments under way at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Each payment, in millisatoshi. All of them must fit into one channel of 500,000,000 sat.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    amount_msat: u64,
    /// Print one JSON document at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Slice {
    figures: Figures,
    /// Of payer and payee, after the slice.
    data_bytes: Vec<u64>,
    resident_bytes: Vec<u64>,
}

#[derive(Serialize)]
struct Report {
    payments: u64,
    conserved: bool,
    /// Payments per second of the last tenth by those of the first.
    last_to_first: f64,
    /// The larger data directory at the end.
    data_bytes: u64,
    slices: Vec<Slice>,
}

/// Pays on one channel, tenth by tenth, and prints what each cost.
///
/// # Errors
///
/// If a node does not answer, or money is not where it should be.
pub async fn measure(args: &Args) -> Result<(), Failure> {
    let line = Line::start(2, args.amount_msat).await?;
    line.mine_every(BLOCK_PERIOD);
    let mut slices = Vec::new();
    for slice in 1..=SLICES {
        let end = Until::Payments(args.payments / SLICES);
        let figures = line.measure(args.in_flight, end).await?;
        let slice_of = Slice {
            figures,
            data_bytes: line.data_bytes()?,
            resident_bytes: line.resident_bytes()?,
        };
        eprintln!("{}", text(slice, &slice_of));
        slices.push(slice_of);
    }
    let conserved = line.conserved().await?;
    line.stop().await;
    let rate = |slice: Option<&Slice>| slice.map_or(0.0, |slice| slice.figures.payments_per_second);
    let last = slices.last();
    let report = Report {
        payments: slices.iter().map(|slice| slice.figures.payments).sum(),
        conserved,
        last_to_first: rate(last) / rate(slices.first()),
        data_bytes: last.and_then(|slice| slice.data_bytes.iter().max().copied()).unwrap_or(0),
        slices,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!(
            "{} payments, conserved: {}, the last tenth at {:.0} % of the first",
            number(report.payments as f64),
            report.conserved,
            report.last_to_first * 100.0
        );
    }
    if !report.conserved {
        return Err("the channel does not hold what the payments say".into());
    }
    Ok(())
}

fn text(number_of_slice: u64, slice: &Slice) -> String {
    let mib = |bytes: &Vec<u64>| {
        let texts: Vec<String> =
            bytes.iter().map(|&b| format!("{:.0}", b as f64 / 1_048_576.0)).collect();
        texts.join(" and ")
    };
    format!(
        "{number_of_slice:>2}/{SLICES}  {:>7} payments/s  p50 {:.0} ms  p99 {:.0} ms  {} MiB on disk  {} MiB resident",
        number(slice.figures.payments_per_second),
        slice.figures.p50_ms,
        slice.figures.p99_ms,
        mib(&slice.data_bytes),
        mib(&slice.resident_bytes),
    )
}
