//! `simnet run` and `simnet check`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use simnet::model::Control;
use simnet::report::compare;
use simnet::report::files::Timing;
use simnet::report::plot::number;
use simnet::report::{Outcome, Summary};
use simnet::run::{Done, Limits, RunError, expected_payments};
use simnet::scenario::{Document, Engine, Setting, Variant, variants};
use simnet::stats::Estimate;
use simnet::workload::Workload;

use super::{Failure, RunArguments};

/// How often the bar moves.
const REFRESH: Duration = Duration::from_millis(100);
/// The code of programs that were interrupted.
const INTERRUPTED: u8 = 130;

/// A run as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    timing: &'a Timing,
}

/// Runs and prints.
pub fn run(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let document = Document::read(&arguments.file)?;
    let scenario = document.scenario()?;
    let made_for = |engine: &Engine| scenario.engines.contains(engine);
    let engines = match arguments.engine {
        Some(argument) => argument.engines(),
        None if made_for(&Engine::Model) => &[Engine::Model],
        None => &[Engine::Live],
    };
    let settings: Vec<Vec<Setting>> =
        arguments.settings.iter().map(|text| Setting::parse(text)).collect::<Result<_, _>>()?;
    let seeds: Vec<u64> = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (scenario.seed..).take(usize::try_from(count)?).collect(),
        (None, None) => vec![],
    };
    let variants = variants(&settings, &seeds);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        jobs: arguments.jobs.unwrap_or(cores),
        memory: arguments.memory_limit.map(|megabytes| megabytes.saturating_mul(1_000_000)),
        program: std::env::current_exe().ok(),
    };
    let control = Arc::new(Control::default());
    stop_at_interrupt(&control)?;
    let expected = expected_payments(&document, &variants)?;
    let mut by_engine = Vec::new();
    for engine in engines {
        control.begun.store(0, Ordering::Relaxed);
        let folder = arguments.out.as_deref().map(|folder| match engines {
            [_] => folder.to_owned(),
            _ => folder.join(engine.name()),
        });
        let bar = progress(expected, arguments.quiet);
        let done = with_progress(&bar, &control, || {
            simnet::run::run(
                *engine,
                &document,
                &variants,
                limits.clone(),
                folder.as_deref(),
                &control,
            )
        })?;
        report(arguments, folder.as_deref(), &variants, &done)?;
        by_engine.push(done);
    }
    if let ([live, model], false) = (&by_engine[..], arguments.json) {
        for (live, model) in live.iter().zip(model) {
            let divergence = compare::divergence(&live.summary, &model.summary)?;
            super::compare::print_divergence(&divergence);
        }
    }
    let stopped = control.stop.load(Ordering::Relaxed);
    Ok(if stopped { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// The first interrupt ends runs, which then report what they have; the second ends the program.
fn stop_at_interrupt(control: &Arc<Control>) -> Result<(), Failure> {
    let control = Arc::clone(control);
    ctrlc::set_handler(move || {
        if control.stop.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        eprintln!("simnet: stopping; the report will be partial");
    })?;
    Ok(())
}

fn progress(expected: Option<u64>, quiet: bool) -> ProgressBar {
    let bar = match expected {
        _ if quiet => ProgressBar::hidden(),
        Some(expected) => ProgressBar::new(expected),
        None => ProgressBar::no_length(),
    };
    let template = "{bar:30} {human_pos}/{human_len} payments, {elapsed}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn with_progress(
    bar: &ProgressBar,
    control: &Control,
    work: impl FnOnce() -> Result<Vec<Done>, RunError> + Send,
) -> Result<Vec<Done>, RunError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        while !worker.is_finished() {
            bar.set_position(control.begun.load(Ordering::Relaxed));
            std::thread::sleep(REFRESH);
        }
        bar.finish_and_clear();
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn report(
    arguments: &RunArguments,
    folder: Option<&Path>,
    variants: &[Variant],
    done: &[Done],
) -> Result<(), Failure> {
    let printed: Vec<Printed<'_>> =
        done.iter().map(|done| Printed { summary: &done.summary, timing: &done.timing }).collect();
    match (&printed[..], arguments.json) {
        ([one], true) if variants.len() == 1 => say!("{}", serde_json::to_string_pretty(one)?),
        (many, true) => say!("{}", serde_json::to_string_pretty(many)?),
        (many, false) => {
            for one in many {
                print(one);
            }
        }
    }
    if done.len() < variants.len() {
        eprintln!(
            "simnet: {} of {} runs were left out",
            variants.len() - done.len(),
            variants.len()
        );
    }
    if let Some(folder) = folder.filter(|_| !arguments.json && !done.is_empty()) {
        let first = if variants.len() > 1 { folder.join("run-1") } else { folder.to_owned() };
        say!("results in {}, e.g. {}", folder.display(), first.join("report.html").display());
    }
    Ok(())
}

fn print(printed: &Printed<'_>) {
    let summary = printed.summary;
    let settings = summary.identity.settings.iter();
    let settings: Vec<String> = settings.map(|(key, value)| format!(", {key} = {value}")).collect();
    let partial = if summary.partial { " (partial)" } else { "" };
    say!(
        "{}, {} engine, seed {}{}{partial}: {} payments in {} s",
        summary.identity.scenario,
        summary.identity.engine.name(),
        summary.identity.seed,
        settings.concat(),
        summary.payments,
        number(summary.duration_s)
    );
    let line = |name: &str, estimate: Option<Estimate>, factor: f64, unit: &str| {
        if let Some(estimate) = estimate {
            let half = estimate
                .half_width
                .map_or(String::new(), |half| format!(" ± {}", number(half * factor)));
            say!("  {name:<12}{}{half} {unit}", number(estimate.mean * factor));
        }
    };
    line("success", summary.success_rate, 100.0, "%");
    line("throughput", summary.throughput_per_s, 1.0, "payments/s");
    line("latency", summary.latency_p50_ms, 1.0, "ms (half)");
    line("", summary.latency_p99_ms, 1.0, "ms (99 %)");
    line("fee", summary.fee_ppm, 1.0, "ppm");
    if summary.chain_vb > 0 {
        say!("  {:<12}{} vB, {} sat", "on chain", summary.chain_vb, summary.chain_fee_sat);
    }
    if summary.share(Outcome::Succeeded) < 1.0 {
        let outcomes = summary.outcomes.iter().filter(|(name, _)| *name != "succeeded");
        let outcomes: Vec<String> =
            outcomes.map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
        say!("  {:<12}{}", "failed", outcomes.join(", "));
    }
    say!("  {:<12}{:.0} payments per CPU second", "speed", printed.timing.payments_per_cpu_second);
    if let Some(hash) = &summary.transcript_hash {
        say!("  {:<12}{hash}", "transcript");
    }
}

/// Says whether a scenario could run.
pub fn check(file: &Path) -> Result<ExitCode, Failure> {
    let document = Document::read(file)?;
    let scenario = document.scenario()?;
    for engine in &scenario.engines {
        scenario.check(*engine, &document)?;
    }
    let topology = scenario.build(&document)?;
    Workload::new(&scenario, &topology, document.folder())?;
    say!(
        "{}: {} nodes, {} channels, {} faults; engines: {}",
        scenario.name,
        topology.network.nodes,
        topology.network.channels.len(),
        scenario.faults.len(),
        scenario.engines.iter().map(|engine| engine.name()).collect::<Vec<_>>().join(", ")
    );
    Ok(ExitCode::SUCCESS)
}
