//! The whole suite for one engine: trace, cut, check, and cut again during recovery.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use node::store::EngineKind;

use super::checker::{Expected, Failure, Worker};
use super::disk::{Disk, Event, Model, Survivors, Tree};
use super::tracer::{self, Recording};
use super::workload::{Numbers, Run};

/// How much to try.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Seed of the batches and of what survives.
    pub seed: u64,
    /// Batches before and after the store is closed and opened once.
    pub batches: (u64, u64),
    /// Images of the first run to check, at most.
    pub images: usize,
    /// Images that are run on, and cut a second time.
    pub seconds: usize,
    /// Images of each second run to check, at most.
    pub second_images: usize,
    /// How directories survive.
    pub model: Model,
}

/// One image that failed.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What failed.
    pub failure: Failure,
    /// Where it was cut: run, event, survivors, seed.
    pub cut: String,
    /// What was seen.
    pub detail: String,
}

/// What came of one engine and model.
#[derive(Debug)]
pub struct Verdict {
    /// The engine.
    pub engine: EngineKind,
    /// The model of directories.
    pub model: Model,
    /// Changes and syncs recorded in the first run.
    pub events: usize,
    /// The recorded system calls.
    pub calls: BTreeMap<&'static str, u64>,
    /// Images checked.
    pub images: usize,
    /// The images that failed.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} under {:?}: {} images from {} events, {} failures",
            self.engine,
            self.model,
            self.images,
            self.events,
            self.findings.len()
        )?;
        writeln!(f, "  calls: {:?}", self.calls)?;
        let mut kinds: BTreeMap<Failure, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            kinds.entry(finding.failure).or_default().push(finding);
        }
        for (kind, findings) in kinds {
            writeln!(f, "  {kind:?}: {}", findings.len())?;
            for finding in findings.iter().take(6) {
                writeln!(f, "    {}: {}", finding.cut, finding.detail)?;
            }
        }
        Ok(())
    }
}

/// Runs the suite. `child` is the program `power_cut_child`, `scratch` an empty directory.
///
/// # Errors
///
/// If the machine cannot do it (no ptrace, no room); what the engine does wrong is a finding.
pub fn run(engine: EngineKind, plan: Plan, child: &Path, scratch: &Path) -> io::Result<Verdict> {
    let suite = Suite {
        engine,
        plan,
        child: child.to_owned(),
        scratch: scratch.to_owned(),
        next_dir: AtomicUsize::new(0),
    };
    let first = suite.record(&Tree::default(), plan.batches)?;
    let mut verdict = Verdict {
        engine,
        model: plan.model,
        events: first.events.len(),
        calls: first.calls.iter().map(|(k, v)| (*k, *v)).collect(),
        images: 0,
        findings: Vec::new(),
    };
    let nothing = Expected { seed: plan.seed, acked: 0, begun: 0 };
    suite.cut_and_check("first", &first, nothing, plan.images, &mut verdict)?;
    // What recovery itself writes is cut as well.
    let mut numbers = Numbers::new(plan.seed ^ 0x5eed);
    for round in 0..plan.seconds {
        let cut = numbers.below(first.events.len() as u64) as usize;
        let survivors = [Survivors::Sectors, Survivors::MostSectors, Survivors::All][round % 3];
        let (disk, expected) = replay(&first, cut, nothing);
        let base = disk.after_cut(plan.model, survivors, numbers.draw());
        let name = format!("after {cut} {survivors:?}");
        match suite.record(&base, (3, 2)) {
            Ok(second) => {
                suite.cut_and_check(&name, &second, expected, plan.second_images, &mut verdict)?
            }
            // Opening the image failed; that cut is counted where images are checked.
            Err(error) => verdict.findings.push(Finding {
                failure: Failure::DoesNotOpen,
                cut: name,
                detail: error.to_string(),
            }),
        }
    }
    Ok(verdict)
}

struct Suite {
    engine: EngineKind,
    plan: Plan,
    child: PathBuf,
    scratch: PathBuf,
    next_dir: AtomicUsize,
}

struct Job {
    dir: PathBuf,
    cut: String,
    expected: Expected,
}

impl Suite {
    fn fresh_dir(&self) -> io::Result<PathBuf> {
        let number = self.next_dir.fetch_add(1, Ordering::Relaxed);
        let dir = self.scratch.join(number.to_string());
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Runs the workload on `base` under the tracer.
    fn record(&self, base: &Tree, batches: (u64, u64)) -> io::Result<Recording> {
        let dir = self.fresh_dir()?;
        base.write(&dir)?;
        let marks = dir.with_extension("marks");
        std::fs::write(&marks, [])?;
        let marks = marks.canonicalize()?;
        let run = Run { seed: self.plan.seed, first: batches.0, second: batches.1 };
        let recording = tracer::record(
            Command::new(&self.child)
                .arg("work")
                .arg(&dir)
                .args([self.engine.name().to_owned(), run.seed.to_string()])
                .args([run.first.to_string(), run.second.to_string()])
                .arg(&marks),
            &dir,
            &marks,
        )?;
        if let Some(why) = recording.disagreement(&dir)? {
            return Err(io::Error::other(format!("the record is not complete: {why}")));
        }
        std::fs::remove_dir_all(&dir)?;
        std::fs::remove_file(&marks)?;
        Ok(recording)
    }

    /// Checks images of `recording`, spread evenly, in two workers.
    fn cut_and_check(
        &self,
        name: &str,
        recording: &Recording,
        before: Expected,
        images: usize,
        verdict: &mut Verdict,
    ) -> io::Result<()> {
        let findings = Mutex::new(Vec::new());
        let (sender, jobs) = sync_channel::<Job>(2);
        let jobs = Arc::new(Mutex::new(jobs));
        let checked = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..2).map(|_| scope.spawn(|| self.work(&jobs, &findings))).collect();
            let made = self.make_images(name, recording, before, images, |job| {
                sender.send(job).map_err(io::Error::other)
            });
            drop(sender);
            for worker in workers {
                worker.join().map_err(|_| io::Error::other("a worker panicked"))??;
            }
            made
        })?;
        verdict.images += checked;
        verdict.findings.extend(findings.into_inner().map_err(io::Error::other)?);
        Ok(())
    }

    fn make_images(
        &self,
        name: &str,
        recording: &Recording,
        before: Expected,
        images: usize,
        mut send: impl FnMut(Job) -> io::Result<()>,
    ) -> io::Result<usize> {
        let kinds = Survivors::ALL.len();
        // Where nothing is pending all survivors are alike, so this is an upper bound.
        let all = (recording.events.len() + 1) * kinds;
        let stride = all.div_ceil(images.max(1)).max(1);
        let mut disk = Disk::new(&recording.base);
        let mut expected = before;
        let mut made = 0;
        // A fixed stride would meet the same kind of survivors again and again.
        let mut numbers = Numbers::new(self.plan.seed ^ 0xc075);
        let mut next = 0;
        for cut in 0..=recording.events.len() {
            if cut > 0 {
                let event = &recording.events[cut - 1];
                disk.step(event);
                advance(&mut expected, event);
            }
            for (index, survivors) in Survivors::ALL.into_iter().enumerate() {
                let at = cut * kinds + index;
                if at < next || (index > 0 && !disk.is_pending()) {
                    continue;
                }
                next = at + 1 + numbers.below(2 * stride as u64 - 1) as usize;
                let seed = numbers.draw();
                let dir = self.fresh_dir()?;
                disk.after_cut(self.plan.model, survivors, seed).write(&dir)?;
                made += 1;
                send(Job { dir, cut: format!("{name}, cut at {cut}, {survivors:?}"), expected })?;
            }
        }
        Ok(made)
    }

    fn work(&self, jobs: &Mutex<Receiver<Job>>, findings: &Mutex<Vec<Finding>>) -> io::Result<()> {
        let mut worker = Worker::start(&self.child)?;
        loop {
            let job = jobs.lock().map_err(|_| io::Error::other("lock"))?.recv();
            let Ok(job) = job else { return Ok(()) };
            let verdict = worker.check(&job.dir, self.engine, job.expected)?;
            if let Err((failure, detail)) = verdict
                && let Ok(mut findings) = findings.lock()
            {
                findings.push(Finding { failure, cut: job.cut, detail });
            }
            std::fs::remove_dir_all(&job.dir)?;
        }
    }
}

fn replay(recording: &Recording, cut: usize, mut expected: Expected) -> (Disk, Expected) {
    let mut disk = Disk::new(&recording.base);
    for event in &recording.events[..cut] {
        disk.step(event);
        advance(&mut expected, event);
    }
    (disk, expected)
}

/// Follows what the workload had begun and been promised.
fn advance(expected: &mut Expected, event: &Event) {
    match event {
        Event::Begin(number) => expected.begun = *number,
        Event::Ack(number) => {
            expected.acked = *number;
            expected.begun = expected.begun.max(*number);
        }
        _ => {}
    }
}
