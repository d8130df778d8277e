//! Runs scenarios: one, or many at a time, each on a thread of its own; several live ones each in
//! a process of its own.

#[cfg(feature = "live")]
mod child;
mod memory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub use memory::{MemoryError, needed_bytes};

use crate::bench::machine::{Stopwatch, peak_rss_bytes};
use crate::model::engine::{Control, Engine as Model, SEARCH_BYTES};
use crate::report::files::{self, Timing, WriteError};
use crate::report::{Identity, Recorder, Summary};
use crate::scenario::{Document, Engine, Scenario, ScenarioError, Variant};
use crate::topology::Topology;
use crate::workload::{self, Workload};

/// Why runs did not happen.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario is at fault.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// It would not fit.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The results have no place.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The live engine.
    #[cfg(feature = "live")]
    #[error(transparent)]
    Live(#[from] crate::live::LiveError),
    /// A run in a process of its own, by what it said.
    #[cfg(feature = "live")]
    #[error("{0}")]
    Child(String),
    /// The live engine is not in this program.
    #[cfg(not(feature = "live"))]
    #[error("this program was built without the live engine (cargo feature `live`)")]
    NoLive,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Runs at a time.
    pub jobs: usize,
    /// Bytes that all of them together may take; none is what the machine has free.
    pub memory: Option<u64>,
    /// The `simnet` program. It makes each of several live runs in a process of its own; without
    /// it only the first of them repeats.
    pub program: Option<PathBuf>,
}

/// One run, done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Its figures.
    pub summary: Summary,
    /// What it took.
    pub timing: Timing,
}

/// Runs every variant of `document` on `engine`.
///
/// With `folder`, results go there: of one run right into it, of several into `run-1` and so on
/// with tables of all beside them. Checks come first: if one variant is impossible or all would
/// not fit into memory, nothing runs. Once `control` says stop, what runs ends as partial and
/// the rest is left out.
///
/// # Errors
///
/// [`RunError`].
pub fn run(
    engine: Engine,
    document: &Document,
    variants: &[Variant],
    limits: Limits,
    folder: Option<&Path>,
    control: &Arc<Control>,
) -> Result<Vec<Done>, RunError> {
    let jobs = limits.jobs.clamp(1, variants.len().max(1));
    let mut needed = 0;
    let mut checked: Vec<&[_]> = Vec::new();
    for variant in variants {
        // Seeds change no size and nothing that is checked.
        if !checked.contains(&variant.settings.as_slice()) {
            needed = needed.max(check(engine, document, variant)?);
            checked.push(&variant.settings);
        }
    }
    memory::check(needed.saturating_mul(jobs as u64), jobs, limits.memory)?;
    let is_child = engine == Engine::Live && variants.len() > 1;
    let program = limits.program.as_deref().filter(|_| is_child);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<Done, RunError>>>> =
        Mutex::new((0..variants.len()).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(variant) = variants.get(place) else { break };
                    if control.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("run-{}", place + 1);
                    let folder = folder.map(|folder| {
                        if variants.len() > 1 { folder.join(name) } else { folder.to_owned() }
                    });
                    let folder = folder.as_deref();
                    let result = match program {
                        Some(program) => {
                            run_child(program, document, variant, folder, needed, control)
                        }
                        None => run_one(engine, document, variant, folder, control),
                    };
                    if result.is_err() {
                        control.stop.store(true, Ordering::Relaxed);
                    }
                    results.lock().expect("no run panics while it holds this")[place] =
                        Some(result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no run panics while it holds this");
    let done = results.into_iter().flatten().collect::<Result<Vec<Done>, RunError>>()?;
    if let Some(folder) = folder.filter(|_| variants.len() > 1) {
        let summaries: Vec<Summary> = done.iter().map(|done| done.summary.clone()).collect();
        files::write_runs(folder, &summaries)?;
    }
    Ok(done)
}

/// About how many payments all variants have, where that can be said.
///
/// # Errors
///
/// [`ScenarioError`] if a variant is no scenario.
pub fn expected_payments(
    document: &Document,
    variants: &[Variant],
) -> Result<Option<u64>, ScenarioError> {
    let mut sum = Some(0_u64);
    for variant in variants {
        let (document, scenario) = vary(document, variant)?;
        let expected = workload::expected(&scenario, document.folder());
        sum = sum.zip(expected).map(|(sum, expected)| sum.saturating_add(expected));
    }
    Ok(sum)
}

fn vary(document: &Document, variant: &Variant) -> Result<(Document, Scenario), ScenarioError> {
    let document = document.with(&variant.settings)?;
    let mut scenario = document.scenario()?;
    scenario.seed = variant.seed.unwrap_or(scenario.seed);
    Ok((document, scenario))
}

/// Checks a variant and returns what it would take, in bytes.
fn check(engine: Engine, document: &Document, variant: &Variant) -> Result<u64, RunError> {
    let (document, scenario) = vary(document, variant)?;
    scenario.check(engine, &document)?;
    // What is to be generated is counted before it is made.
    let before = memory::generated_bytes(&scenario);
    memory::check(before, 1, None)?;
    let topology = scenario.build(&document)?;
    Workload::new(&scenario, &topology, document.folder()).map_err(ScenarioError::from)?;
    Ok(needed_bytes(engine, &scenario, &topology, document.folder()))
}

fn run_one(
    engine: Engine,
    document: &Document,
    variant: &Variant,
    folder: Option<&Path>,
    control: &Control,
) -> Result<Done, RunError> {
    let (document, scenario) = vary(document, variant)?;
    let watch = Stopwatch::start();
    let topology = scenario.build(&document)?;
    let workload =
        Workload::new(&scenario, &topology, document.folder()).map_err(ScenarioError::from)?;
    let ran = match engine {
        Engine::Model => {
            let model = Model::new(&scenario, &topology, SEARCH_BYTES);
            Ran { recorder: model.run(workload, control), cpu_s: None, transcript_hash: None }
        }
        Engine::Live => run_live(&scenario, &topology, workload, control)?,
    };
    let settings: BTreeMap<String, String> = variant
        .settings
        .iter()
        .map(|setting| (setting.key.clone(), setting.value.to_string()))
        .collect();
    let identity = Identity::new(&scenario.name, engine, scenario.seed, settings);
    let mut summary = Summary::new(identity, &ran.recorder, &scenario.measure);
    summary.transcript_hash = ran.transcript_hash;
    let cpu_s = ran.cpu_s.unwrap_or_else(|| watch.cpu().as_secs_f64());
    let timing = Timing {
        wall_s: watch.wall().as_secs_f64(),
        cpu_s,
        payments_per_cpu_second: ran.recorder.payments.len() as f64 / cpu_s.max(1e-3),
        peak_rss_bytes: peak_rss_bytes(),
    };
    if let Some(folder) = folder {
        files::write_run(folder, &summary, &ran.recorder, &timing)?;
    }
    Ok(Done { summary, timing })
}

#[cfg(feature = "live")]
fn run_child(
    program: &Path,
    document: &Document,
    variant: &Variant,
    folder: Option<&Path>,
    memory: u64,
    control: &Control,
) -> Result<Done, RunError> {
    let done = child::run(program, document, variant, folder, memory)?;
    control.begun.fetch_add(done.summary.payments, Ordering::Relaxed);
    if done.summary.partial {
        control.stop.store(true, Ordering::Relaxed);
    }
    Ok(done)
}

#[cfg(not(feature = "live"))]
fn run_child(
    _: &Path,
    _: &Document,
    _: &Variant,
    _: Option<&Path>,
    _: u64,
    _: &Control,
) -> Result<Done, RunError> {
    Err(RunError::NoLive)
}

/// What an engine gives back.
struct Ran {
    recorder: Recorder,
    /// Where the engine has a thread of its own.
    cpu_s: Option<f64>,
    transcript_hash: Option<String>,
}

#[cfg(feature = "live")]
fn run_live(
    scenario: &Scenario,
    topology: &Topology,
    workload: Workload,
    control: &Control,
) -> Result<Ran, RunError> {
    let run = crate::live::run(scenario, topology, workload, control)?;
    Ok(Ran {
        recorder: run.recorder,
        cpu_s: Some(run.cpu_seconds),
        transcript_hash: Some(run.transcript_hash),
    })
}

#[cfg(not(feature = "live"))]
fn run_live(_: &Scenario, _: &Topology, _: Workload, _: &Control) -> Result<Ran, RunError> {
    Err(RunError::NoLive)
}

#[cfg(test)]
mod tests;
