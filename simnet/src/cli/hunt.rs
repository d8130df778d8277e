//! `simnet hunt`.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use simnet::bench::machine::Stopwatch;
use simnet::hunt::{Child, Failure, Verdict, draw, has_batches, shrink, text};
use simnet::scenario::Scenario;

use super::{Failure as Failed, HuntArguments};

/// Processor time that a run may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Runs to make one failure smaller.
const SHRINK_RUNS: u32 = 60;

/// Runs random scenarios until the time is over; the program fails if one of them did.
pub fn hunt(arguments: &HuntArguments) -> Result<ExitCode, Failed> {
    fs::create_dir_all(&arguments.out)?;
    let child = Child {
        program: std::env::current_exe()?,
        folder: arguments.out.clone(),
        patience: PATIENCE,
    };
    let watch = Stopwatch::start();
    let end = Duration::from_secs_f64((arguments.minutes * 60.0).max(0.0));
    let (mut runs, mut found) = (0_u64, 0_u64);
    let mut last = arguments.seed;
    for seed in (arguments.seed..).filter(|seed| !arguments.batches || has_batches(*seed)) {
        let is_over = watch.wall() >= end || arguments.runs.is_some_and(|most| runs >= most);
        if is_over && runs > 0 {
            break;
        }
        let scenario = draw(seed);
        (runs, last) = (runs + 1, seed);
        if let Verdict::Failed(failure) = child.run(&scenario)? {
            found += 1;
            keep(arguments, &child, &scenario, failure)?;
        }
    }
    // Beside what was found, the last run's file says nothing.
    let _gone = fs::remove_file(arguments.out.join("running.toml"));
    let first = arguments.seed;
    say!(
        "{runs} scenarios, seeds {first} to {last}, in {:.0} s: {found} failed",
        watch.wall().as_secs_f64()
    );
    Ok(if found > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn keep(
    arguments: &HuntArguments,
    child: &Child,
    scenario: &Scenario,
    failure: Failure,
) -> Result<(), Failed> {
    let seed = scenario.seed;
    say!("seed {seed}: {}", failure.text);
    fs::write(arguments.out.join(format!("{seed}.toml")), file(scenario, &failure))?;
    if arguments.no_shrink {
        return Ok(());
    }
    let mut broken = None;
    let run = |candidate: &Scenario| match child.run(candidate) {
        Ok(Verdict::Failed(failure)) => Some(failure),
        Ok(Verdict::Held { .. }) => None,
        Err(error) => {
            broken = Some(error);
            None
        }
    };
    let shrunk = shrink(scenario.clone(), failure, SHRINK_RUNS, run);
    if let Some(error) = broken {
        return Err(error.into());
    }
    let path = arguments.out.join(format!("{seed}-shrunk.toml"));
    fs::write(&path, file(&shrunk.scenario, &shrunk.failure))?;
    say!(
        "  {} faults, {} runs to shrink it: {}",
        shrunk.scenario.faults.len(),
        shrunk.runs,
        path.display()
    );
    Ok(())
}

/// A scenario file with what it shows on top.
fn file(scenario: &Scenario, failure: &Failure) -> String {
    let lines: Vec<String> = failure.text.lines().map(|line| format!("# {line}\n")).collect();
    format!("{}{}", lines.concat(), text(scenario))
}
