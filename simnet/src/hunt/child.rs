//! Runs a scenario in a process of its own.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Failure, text};
use crate::bench::machine::{Stopwatch, cpu_time_of};
use crate::scenario::Scenario;

/// How often somebody looks whether a child has ended.
const LOOK: Duration = Duration::from_millis(20);
/// A run that has used no processor time for so long, by the clock on the wall, waits for what
/// never comes: virtual time needs no waiting.
const IDLE: Duration = Duration::from_secs(60);

/// What LDK says when it learns that its state is an old one, and what whoever meets its locks
/// afterwards says.
const CONSEQUENCES: [&str; 2] = ["We have fallen behind", "PoisonError"];

/// How scenarios are run.
#[derive(Debug, Clone)]
pub struct Child {
    /// The program.
    pub program: PathBuf,
    /// Where scenario files go.
    pub folder: PathBuf,
    /// A run that takes longer hangs: processor time, so that a busy machine is no failure.
    pub patience: Duration,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All rules held; its transcript hash.
    Held {
        /// See the summary of a run.
        transcript_hash: String,
    },
    /// One did not, or the run ended otherwise than it should.
    Failed(Failure),
}

impl Child {
    /// Runs `scenario` and tells what came of it.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or the program does not start.
    pub fn run(&self, scenario: &Scenario) -> io::Result<Verdict> {
        let file = self.folder.join("running.toml");
        std::fs::write(&file, text(scenario))?;
        self.run_file(&file)
    }

    /// Runs the scenario in `file` and tells what came of it.
    ///
    /// # Errors
    ///
    /// If the program does not start.
    pub fn run_file(&self, file: &Path) -> io::Result<Verdict> {
        let mut child = Command::new(&self.program)
            .args(["run", "--engine", "live", "--quiet", "--json"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Read beside the wait: a full pipe would stop the child.
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = String::new();
                if let Some(mut pipe) = pipe {
                    let _what_came = pipe.read_to_string(&mut text);
                }
                text
            })
        };
        let said = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
        let complained =
            read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
        let watch = Stopwatch::start();
        let (mut used, mut idle_since) = (Duration::ZERO, Duration::ZERO);
        let ended = loop {
            if let Some(status) = child.try_wait()? {
                break Ok(status.success());
            }
            let now = watch.wall();
            let cpu = cpu_time_of(child.id()).unwrap_or(now);
            if cpu > used {
                (used, idle_since) = (cpu, now);
            }
            let hangs = [
                (cpu > self.patience, "it runs and runs"),
                (now - idle_since > IDLE, "it waits for what never comes"),
            ];
            if let Some((_, how)) = hangs.into_iter().find(|(hangs, _)| *hangs) {
                child.kill()?;
                child.wait()?;
                break Err(how);
            }
            std::thread::sleep(LOOK);
        };
        let said = said.join().unwrap_or_default();
        let complained = complained.join().unwrap_or_default();
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let forgets = ["lost_sync", "old_snapshot"].iter().any(|fault| text.contains(fault));
        Ok(verdict(ended, &said, &complained, forgets))
    }
}

/// `ended`: whether the run succeeded, or how it hung. `forgets`: a disk of the scenario does.
fn verdict(ended: Result<bool, &str>, said: &str, complained: &str, forgets: bool) -> Verdict {
    let failed = |text: String| Verdict::Failed(Failure { text });
    // A task that panics ends alone: only the message tells.
    let panics = complained.split("panicked at").skip(1);
    // LDK panics on proof that its state is an old one: right, if a disk forgot.
    let mut strange =
        panics.filter(|text| !forgets || !CONSEQUENCES.iter().any(|c| text.contains(c)));
    if let Some(panic) = strange.next() {
        let lines: Vec<&str> = panic.lines().take(2).map(str::trim).collect();
        return failed(format!("panicked at {}", lines.join(" ")));
    }
    match ended {
        Err(how) => failed(how.to_owned()),
        Ok(false) => {
            let last = complained.lines().rfind(|line| !line.trim().is_empty());
            failed(last.unwrap_or("it ended without a word").to_owned())
        }
        Ok(true) => {
            let summary: Option<serde_json::Value> = serde_json::from_str(said).ok();
            let hash = summary.as_ref().and_then(|summary| summary["transcript_hash"].as_str());
            match hash {
                Some(hash) => Verdict::Held { transcript_hash: hash.to_owned() },
                None => failed("it gave no transcript hash".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_task_is_a_failure_though_the_run_goes_on() {
        let panic = "thread 'x' panicked at a.rs:1:2:\nattempt to add\nnote: run with";
        let said = "{\"transcript_hash\":\"ab\"}";
        let Verdict::Failed(failure) = verdict(Ok(true), said, panic, true) else {
            panic!("it held");
        };
        assert!(failure.text.contains("attempt to add"), "{}", failure.text);
        let held = Verdict::Held { transcript_hash: "ab".to_owned() };
        assert_eq!(verdict(Ok(true), said, "", false), held);
        assert!(matches!(verdict(Err("it waits"), "", "", false), Verdict::Failed(_)));
        assert!(matches!(verdict(Ok(true), "{}", "", false), Verdict::Failed(_)));
        let behind = "thread 'x' panicked at b.rs:3:4:\nWe have fallen behind - we have";
        assert_eq!(verdict(Ok(true), said, behind, true), held);
        assert!(matches!(verdict(Ok(true), said, behind, false), Verdict::Failed(_)));
    }
}
