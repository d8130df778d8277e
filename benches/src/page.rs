//! Measures everything `benches/README.md` shows and writes it there: table, plots, figures.
//!
//! Each row is one after the other on the same machine: our nodes as processes, LDK alone, the
//! peer.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::line::{Line, Until};
use crate::plot::{Series, bars, number};
use crate::{Comparison, Failure, Figures, Run};

const IN_FLIGHT: [u32; 4] = [1, 10, 100, 400];
const AMOUNTS_MSAT: [u64; 2] = [1_000, 10_000_000];
const NODES: [u8; 2] = [2, 3];
const BEGIN: &str = "<!-- figures: written by `just bench-peers` -->";
const END: &str = "<!-- end of figures -->";

/// What the page is made from.
#[derive(clap::Args)]
pub struct Args {
    /// The built program of `benches/peers`; without it the peer is left out.
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Directory with the README.md that is written.
    #[arg(long, default_value = "benches", value_name = "DIR")]
    into: PathBuf,
}

#[derive(Serialize)]
struct Page {
    machine: String,
    rows: Vec<Comparison>,
}

/// Measures our nodes, LDK alone and the peer, and writes the page.
///
/// # Errors
///
/// If the page has no place for figures, a measurement fails, or money does.
pub async fn write(args: &Args) -> Result<(), Failure> {
    let readme = args.into.join("README.md");
    let text = std::fs::read_to_string(&readme)?;
    let (head, tail) = text
        .split_once(BEGIN)
        .and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)))
        .ok_or("the page has no place for figures")?;
    let mut rows = Vec::new();
    for nodes in NODES {
        for amount_msat in AMOUNTS_MSAT {
            let line = Line::start(nodes, amount_msat).await?;
            let first = rows.len();
            for in_flight in IN_FLIGHT {
                eprintln!("{nodes} nodes, {amount_msat} msat, {in_flight} in flight");
                let end = Until::Elapsed(Duration::from_secs(args.seconds));
                let ours = line.measure(in_flight, end).await?;
                // The line idles meanwhile: what is compared is measured within seconds.
                let run = Run { seconds: args.seconds, ..ours.run };
                rows.push(Comparison::measure(ours, true, &run, args.peer.as_deref())?);
            }
            let conserved = line.conserved().await?;
            line.stop().await;
            rows[first..].iter_mut().for_each(|row| row.conserved = conserved);
        }
    }
    let page = Page { machine: machine(), rows };
    write_plots(&args.into, &page)?;
    std::fs::write(args.into.join("figures.json"), serde_json::to_vec_pretty(&page)?)?;
    std::fs::write(&readme, format!("{head}{BEGIN}\n{}{END}{tail}", section(&page)?))?;
    if page.rows.iter().any(|row| !row.conserved) {
        return Err("the channels do not hold what the payments say".into());
    }
    Ok(())
}

/// What it was measured on: processors and memory, no name.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    format!("{cores} cores of {model}, {} GiB of memory", kib >> 20)
}

fn amount(msat: u64) -> String {
    format!("{} sat", number(msat as f64 / 1_000.0))
}

fn of(page: &Page, nodes: u8, amount_msat: u64) -> impl Iterator<Item = &Comparison> + Clone {
    page.rows
        .iter()
        .filter(move |row| row.ours.run.nodes == nodes && row.ours.run.amount_msat == amount_msat)
}

fn write_plots(into: &Path, page: &Page) -> Result<(), Failure> {
    let dir = into.join("plots");
    std::fs::create_dir_all(&dir)?;
    for nodes in NODES {
        for amount_msat in AMOUNTS_MSAT {
            let rows = of(page, nodes, amount_msat);
            let groups: Vec<String> =
                rows.clone().map(|row| format!("{} in flight", row.ours.run.in_flight)).collect();
            for (what, axis, pick) in [
                (
                    "throughput",
                    "payments per second",
                    (|f: &Figures| f.payments_per_second) as fn(&Figures) -> f64,
                ),
                ("latency", "p50, ms", |f: &Figures| f.p50_ms),
            ] {
                let values = |figures: fn(&Comparison) -> Option<&Figures>| {
                    rows.clone().map(|row| figures(row).map(pick)).collect()
                };
                let series = [
                    Series {
                        name: "Tributary, durable, processes",
                        colour: "#0969da",
                        values: values(|row| Some(&row.ours)),
                    },
                    Series {
                        name: "LDK alone, in memory",
                        colour: "#8c959f",
                        values: values(|row| Some(&row.raw_ldk)),
                    },
                    Series {
                        name: "ldk-node, SQLite",
                        colour: "#bf8700",
                        values: values(|row| row.peer.as_ref()),
                    },
                ];
                let title = format!("{nodes} nodes, {} each", amount(amount_msat));
                let name = format!("{what}-{nodes}-nodes-{amount_msat}-msat.svg");
                std::fs::write(dir.join(name), bars(&title, axis, &groups, &series))?;
            }
        }
    }
    Ok(())
}

/// The generated part of the page.
fn section(page: &Page) -> Result<String, Failure> {
    let mut text = format!("\nMeasured on {}, everything in one run.\n", page.machine);
    for nodes in NODES {
        for amount_msat in AMOUNTS_MSAT {
            writeln!(text, "\n### {nodes} nodes, {} each\n", amount(amount_msat))?;
            writeln!(
                text,
                "![payments per second](plots/throughput-{nodes}-nodes-{amount_msat}-msat.svg)\n\
                 ![median latency](plots/latency-{nodes}-nodes-{amount_msat}-msat.svg)\n"
            )?;
            text.push_str("| in flight | | payments/s | p50 ms | p99 ms | syncs per payment | disk bytes per payment | CPU ms per payment | ours to this |\n|---|---|---|---|---|---|---|---|---|\n");
            for row in of(page, nodes, amount_msat) {
                for figures in row.all() {
                    writeln!(text, "{}", line(&row.ours, figures))?;
                }
                if let Some(failure) = &row.peer_failed {
                    writeln!(text, "| {} | {failure} | | | | | | | |", row.ours.run.in_flight)?;
                }
            }
        }
    }
    text.push('\n');
    Ok(text)
}

fn line(ours: &Figures, figures: &Figures) -> String {
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let ratio = match ours.program == figures.program {
        true => String::new(),
        false => number(ours.ratio_to(figures)),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {ratio} |",
        figures.run.in_flight,
        figures.program,
        number(figures.payments_per_second),
        number(figures.p50_ms),
        number(figures.p99_ms),
        optional(figures.fsyncs_per_payment),
        optional(figures.disk_bytes_per_payment),
        number(figures.cpu_ms_per_payment),
    )
}
