//! Opens a store on a disk image and compares it with the workload; runs in a child.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use node::store::EngineKind;

use super::workload::{self, State};

/// What a store must show after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Seed of the batches.
    pub seed: u64,
    /// The last batch whose commit returned before the cut.
    pub acked: u64,
    /// The last batch whose commit began before the cut.
    pub begun: u64,
}

/// How a store failed after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// It does not open.
    DoesNotOpen,
    /// A thread of the engine panicked, or the process died.
    Panics,
    /// It did not answer in time.
    Hangs,
    /// An acknowledged batch is missing.
    LosesAcknowledged,
    /// The state is none that the batches lead to: a batch is there in part, or data is wrong.
    WrongState,
    /// It opens, but takes no write, or loses it.
    NotWritable,
}

/// Checks the image in `dir`.
///
/// # Errors
///
/// The kind of the failure and what was seen.
pub fn check(dir: &Path, engine: EngineKind, expected: Expected) -> Result<u64, (Failure, String)> {
    let Expected { seed, acked, begun } = expected;
    let store = workload::open(dir, engine).map_err(|e| (Failure::DoesNotOpen, e.to_string()))?;
    let pairs =
        workload::read(&*store).map_err(|e| (Failure::DoesNotOpen, format!("read: {e}")))?;
    let last = workload::last_batch(&pairs);
    if last < acked {
        return Err((
            Failure::LosesAcknowledged,
            format!("last batch is {last}, acknowledged was {acked}"),
        ));
    }
    if last > begun {
        return Err((Failure::WrongState, format!("last batch is {last}, begun was {begun}")));
    }
    let mut state = State::new();
    for number in 1..=last {
        workload::apply(&mut state, seed, number);
    }
    compare(&state, &pairs).map_err(|why| {
        let why = format!("at {last}, {acked} acknowledged, {begun} begun: {why}");
        (Failure::WrongState, why)
    })?;

    let broken = |why: String| (Failure::NotWritable, why);
    for number in last + 1..=last + 2 {
        workload::commit(&*store, seed, number).map_err(|e| broken(e.to_string()))?;
        workload::apply(&mut state, seed, number);
    }
    drop(store);
    let store = workload::open(dir, engine).map_err(|e| broken(format!("reopen: {e}")))?;
    let pairs = workload::read(&*store).map_err(|e| broken(format!("reread: {e}")))?;
    compare(&state, &pairs).map_err(|why| broken(format!("after reopen: {why}")))?;
    Ok(last)
}

fn compare(state: &State, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), String> {
    if state.len() != pairs.len() {
        return Err(format!("{} keys, not {}", pairs.len(), state.len()));
    }
    for ((key, value), (found_key, found)) in state.iter().zip(pairs) {
        if key != found_key {
            return Err(format!(
                "key {:?} where {:?} belongs",
                String::from_utf8_lossy(found_key),
                String::from_utf8_lossy(key)
            ));
        }
        if value != found {
            return Err(format!(
                "value of {:?} has {} bytes, not the {} written",
                String::from_utf8_lossy(key),
                found.len(),
                value.len()
            ));
        }
    }
    Ok(())
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// The child's loop: one request per line on standard input, one answer per line on output.
pub fn serve() {
    std::panic::set_hook(Box::new(|info| {
        PANICKED.store(true, Ordering::SeqCst);
        eprintln!("{info}");
    }));
    let stdin = std::io::stdin();
    for line in stdin.lock().lines() {
        let Ok(line) = line else { return };
        let answer = answer(&line);
        println!("{answer}");
    }
}

fn answer(request: &str) -> String {
    let mut words = request.split('\t');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(seed), Some(acked), Some(begun)) = (number(), number(), number()) else {
        return "bad request".to_owned();
    };
    let (Some(engine), Some(dir)) = (words.next(), words.next()) else {
        return "bad request".to_owned();
    };
    let Ok(engine) = engine.parse() else {
        return "bad request".to_owned();
    };
    let expected = Expected { seed, acked, begun };
    let result = std::panic::catch_unwind(|| check(Path::new(dir), engine, expected));
    let result = match result {
        Ok(result) => result,
        Err(_) => Err((Failure::Panics, "panic on the calling thread".to_owned())),
    };
    let result = match result {
        _ if PANICKED.load(Ordering::SeqCst) => Err((
            Failure::Panics,
            match result {
                Ok(_) => "panic, answers all right".to_owned(),
                Err((kind, why)) => format!("panic, then {kind:?}: {why}"),
            },
        )),
        result => result,
    };
    match result {
        Ok(last) => format!("ok\t{last}"),
        Err((kind, why)) => format!("{kind:?}\t{}", why.replace(['\n', '\t'], " ")),
    }
}

/// A checker in its own process, replaced after each failure.
pub struct Worker {
    child: Child,
    answers: Receiver<String>,
    program: std::path::PathBuf,
}

impl Worker {
    /// Starts `program` (the binary `power_cut_child`).
    ///
    /// # Errors
    ///
    /// If the process does not start.
    pub fn start(program: &Path) -> std::io::Result<Self> {
        let mut child = Command::new(program)
            .arg("check")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().expect("stdout was piped");
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, answers, program: program.to_owned() })
    }

    /// Checks the image in `dir`; see [`check`].
    ///
    /// # Errors
    ///
    /// The outer one if the child cannot be started, the inner one is the verdict.
    pub fn check(
        &mut self,
        dir: &Path,
        engine: EngineKind,
        expected: Expected,
    ) -> std::io::Result<Result<u64, (Failure, String)>> {
        let Expected { seed, acked, begun } = expected;
        let request = format!("{seed}\t{acked}\t{begun}\t{engine}\t{}\n", dir.display());
        let stdin = self.child.stdin.as_mut().expect("stdin was piped");
        let answer = match stdin.write_all(request.as_bytes()) {
            Ok(()) => self.answers.recv_timeout(PATIENCE),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let verdict = match answer {
            Err(RecvTimeoutError::Timeout) => {
                Err((Failure::Hangs, format!("no answer in {PATIENCE:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err((Failure::Panics, "the process died".to_owned()))
            }
            Ok(line) => {
                let (word, rest) = line.split_once('\t').unwrap_or((&line, ""));
                match ALL.iter().find(|kind| format!("{kind:?}") == word) {
                    Some(kind) => Err((*kind, rest.to_owned())),
                    None => Ok(rest.parse().map_err(|_| std::io::Error::other(line.clone()))?),
                }
            }
        };
        if verdict.is_err() {
            // A store that failed may have left threads behind.
            let next = Worker::start(&self.program)?;
            drop(std::mem::replace(self, next));
        }
        Ok(verdict)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a store may take for one check.
const PATIENCE: Duration = Duration::from_secs(30);

const ALL: [Failure; 6] = [
    Failure::DoesNotOpen,
    Failure::Panics,
    Failure::Hangs,
    Failure::LosesAcknowledged,
    Failure::WrongState,
    Failure::NotWritable,
];
