//! `simnet bench`.

use std::process::ExitCode;

use simnet::bench::{Figures, Options, Report, measure_model};

use super::{BenchArguments, EngineArgument, Failure};

/// Measures and prints.
pub fn bench(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    let options = Options {
        snapshot: arguments.snapshot.clone(),
        nodes: arguments.nodes,
        payments: arguments.payments,
        amount_msat: arguments.amount_msat,
        per_second: arguments.per_second,
        seed: arguments.seed,
    };
    let report = match arguments.engine {
        EngineArgument::Model => Report { model: Some(measure_model(&options)?), live: None },
        EngineArgument::Live => return Err("the live engine is not measured yet".into()),
    };
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for (name, figures) in [("live", report.live), ("model", report.model)] {
            if let Some(figures) = figures {
                print(name, &figures);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(name: &str, figures: &Figures) {
    say!(
        "{name}: {:.0} payments per CPU second ({} payments of {} msat in {:.1} s)",
        figures.payments_per_cpu_second,
        figures.payments,
        figures.amount_msat,
        figures.cpu_seconds
    );
    say!(
        "  {} nodes ({} that can all pay each other), {} channels, {:.0} MB at most",
        figures.nodes,
        figures.nodes_paying,
        figures.channels,
        figures.peak_rss_bytes as f64 / 1e6
    );
    if let Some(success) = figures.success_rate {
        let half = success.half_width.unwrap_or(0.0);
        say!("  {:.2} % arrived, ± {:.2} %", success.mean * 100.0, half * 100.0);
    }
    if let Some(events) = figures.events_per_cpu_second {
        say!("  {events:.0} events per CPU second");
    }
}
