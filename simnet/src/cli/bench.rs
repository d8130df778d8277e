//! `simnet bench`.

use std::process::{Command, ExitCode, Stdio};

use simnet::bench::{Figures, Options, Report, measure_model};
use simnet::scenario::Engine;

use super::{BenchArguments, EngineArgument, Failure};

/// Measures and prints. Of both engines each is measured in a process of its own: memory is
/// counted by process.
pub fn bench(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    let report = match arguments.engine {
        EngineArgument::Both => {
            Report { live: child(arguments, "live")?.live, model: child(arguments, "model")?.model }
        }
        EngineArgument::Model => {
            let model = measure_model(&options(arguments, Engine::Model))?;
            Report { model: Some(model), live: None }
        }
        EngineArgument::Live => Report { live: Some(live(arguments)?), model: None },
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

fn options(arguments: &BenchArguments, engine: Engine) -> Options {
    let (nodes, payments, per_second) = match engine {
        Engine::Live => (1_000, 5_000, 2_000.0),
        Engine::Model => (10_000, 50_000, 100.0),
    };
    Options {
        snapshot: arguments.snapshot.clone(),
        nodes: arguments.nodes.unwrap_or(nodes),
        payments: arguments.payments.unwrap_or(payments),
        amount_msat: arguments.amount_msat,
        per_second: arguments.per_second.unwrap_or(per_second),
        seed: arguments.seed,
    }
}

#[cfg(feature = "live")]
fn live(arguments: &BenchArguments) -> Result<Figures, Failure> {
    Ok(simnet::bench::measure_live(&options(arguments, Engine::Live))?)
}

#[cfg(not(feature = "live"))]
fn live(_: &BenchArguments) -> Result<Figures, Failure> {
    Err("this program was built without the live engine (cargo feature `live`)".into())
}

/// Measures one engine in a process of its own.
fn child(arguments: &BenchArguments, engine: &str) -> Result<Report, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--json", "--engine", engine]);
    command.args(["--seed", &arguments.seed.to_string()]);
    command.args(["--amount-msat", &arguments.amount_msat.to_string()]);
    for (name, value) in
        [("--nodes", arguments.nodes.map(u64::from)), ("--payments", arguments.payments)]
    {
        if let Some(value) = value {
            command.args([name, &value.to_string()]);
        }
    }
    if let Some(per_second) = arguments.per_second {
        command.args(["--per-second", &per_second.to_string()]);
    }
    if let Some(snapshot) = &arguments.snapshot {
        command.arg("--snapshot").arg(snapshot);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the {engine} engine was not measured").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
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
