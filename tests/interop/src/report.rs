//! What came out: one line for each scenario as it ends, and the tables of README.md.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::wait::Failure;

/// No scenario takes this long, even on a busy machine.
const CASE_PATIENCE: Duration = Duration::from_secs(1_200);
const BEGIN: &str = "<!-- tables: written by `just interop --write` -->";
const END: &str = "<!-- end of tables -->";

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should; with a figure, if there is one.
    Passed(String),
    /// Not run, because the peer's program does not have it; says what is missing there.
    NotSpoken(String),
    /// Otherwise than it should, by the peer's program; says what it does there.
    Upstream(String),
    /// Otherwise than it should.
    Failed(String),
}

/// It passed, and there is nothing to add.
pub const PASSED: Verdict = Verdict::Passed(String::new());

/// Results of a run.
#[derive(Debug, Default)]
pub struct Report {
    peers: Vec<String>,
    scenarios: Vec<String>,
    results: BTreeMap<(String, String), Verdict>,
    speeds: Vec<Speed>,
    skipped: Vec<String>,
    broken: Vec<String>,
    peer: String,
}

/// Payments per second between two programs.
#[derive(Debug, Clone)]
pub struct Speed {
    /// Who pays whom.
    pub pair: String,
    /// Payments that succeeded.
    pub payments: usize,
    /// In how long.
    pub took: Duration,
    /// How long each took.
    pub each: Vec<Duration>,
}

impl Speed {
    /// Payments per second.
    pub fn per_second(&self) -> u64 {
        let micros = self.took.as_micros().max(1);
        u64::try_from(self.payments as u128 * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    /// The time below which `percent` of the payments stay, in milliseconds.
    pub fn percentile_ms(&self, percent: usize) -> u128 {
        let mut each = self.each.clone();
        each.sort_unstable();
        let at = (each.len() * percent / 100).min(each.len().saturating_sub(1));
        each.get(at).map(Duration::as_millis).unwrap_or_default()
    }
}

impl Report {
    /// What follows concerns the peer `peer`.
    pub fn begin(&mut self, peer: &str) {
        println!("\n== {peer}");
        peer.clone_into(&mut self.peer);
        if !self.peers.iter().any(|known| known == peer) {
            self.peers.push(peer.to_owned());
        }
    }

    /// A part could not be run to its end.
    pub fn broken(&mut self, part: &str, why: &str) {
        println!("FAILED      {part}: {why}");
        self.broken.push(format!("{part}: {}", one_line(why)));
    }

    /// Adds the results of another part.
    pub fn append(&mut self, other: Self) {
        for peer in other.peers {
            if !self.peers.contains(&peer) {
                self.peers.push(peer);
            }
        }
        for scenario in other.scenarios {
            if !self.scenarios.contains(&scenario) {
                self.scenarios.push(scenario);
            }
        }
        self.results.extend(other.results);
        self.speeds.extend(other.speeds);
        self.skipped.extend(other.skipped);
        self.broken.extend(other.broken);
    }

    /// A peer cannot be had here.
    pub fn skip(&mut self, peer: &str, why: &str) {
        println!("\n== {peer}: skipped: {why}");
        self.skipped.push(format!("{peer}: {why}"));
    }

    /// Runs a scenario, says how it ended, and returns whether it did not fail.
    pub async fn case(
        &mut self,
        name: &str,
        scenario: impl Future<Output = Result<Verdict, Failure>>,
    ) -> bool {
        let began = Instant::now();
        let verdict = match timeout(CASE_PATIENCE, scenario).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(failure)) => Verdict::Failed(failure.to_string()),
            Err(_) => Verdict::Failed(format!("did not end within {} s", CASE_PATIENCE.as_secs())),
        };
        let seconds = began.elapsed().as_secs_f32();
        let peer = &self.peer;
        match &verdict {
            Verdict::Passed(note) => {
                println!("passed      {seconds:>6.1} s  {peer}: {name}  {note}")
            }
            Verdict::NotSpoken(why) => {
                println!("not spoken  {seconds:>6.1} s  {peer}: {name}: {why}")
            }
            Verdict::Upstream(why) => {
                println!("upstream    {seconds:>6.1} s  {peer}: {name}: {why}")
            }
            Verdict::Failed(why) => println!("FAILED      {seconds:>6.1} s  {peer}: {name}: {why}"),
        }
        if !self.scenarios.iter().any(|known| known == name) {
            self.scenarios.push(name.to_owned());
        }
        let good = !matches!(verdict, Verdict::Failed(_));
        self.results.insert((name.to_owned(), self.peer.clone()), verdict);
        good
    }

    /// Keeps a measurement.
    pub fn speed(&mut self, speed: Speed) {
        self.speeds.push(speed);
    }

    /// Scenarios that failed.
    pub fn failed(&self) -> usize {
        let failed = |verdict: &&Verdict| matches!(verdict, Verdict::Failed(_));
        self.results.values().filter(failed).count() + self.broken.len()
    }

    /// The tables in Markdown.
    ///
    /// # Errors
    ///
    /// Never: text takes everything.
    pub fn tables(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let mut notes: Vec<&str> = Vec::new();
        writeln!(text, "| scenario | {} |", self.peers.join(" | "))?;
        writeln!(text, "|---|{}", "---|".repeat(self.peers.len()))?;
        for scenario in &self.scenarios {
            write!(text, "| {scenario} |")?;
            for peer in &self.peers {
                let key = (scenario.clone(), peer.clone());
                let cell = match self.results.get(&key) {
                    None => "·".to_owned(),
                    Some(Verdict::Passed(note)) if note.is_empty() => "passed".to_owned(),
                    Some(Verdict::Passed(note)) => format!("passed: {note}"),
                    Some(Verdict::Failed(why)) => format!("**failed**: {}", one_line(why)),
                    Some(verdict @ (Verdict::NotSpoken(why) | Verdict::Upstream(why))) => {
                        let spoken = matches!(verdict, Verdict::Upstream(_));
                        let known = notes.iter().position(|note| note == why);
                        let number = known.unwrap_or(notes.len());
                        if known.is_none() {
                            notes.push(why);
                        }
                        let word = if spoken { "upstream" } else { "not spoken" };
                        format!("{word} ({})", number + 1)
                    }
                };
                write!(text, " {cell} |")?;
            }
            writeln!(text)?;
        }
        if !notes.is_empty() {
            writeln!(text, "\nWhat the peer has not, or does:\n")?;
            for (at, note) in notes.iter().enumerate() {
                writeln!(text, "{}. {note}", at + 1)?;
            }
        }
        for broken in &self.broken {
            writeln!(text, "\n**Failed**: {broken}")?;
        }
        for skipped in &self.skipped {
            writeln!(text, "\nSkipped: {skipped}")?;
        }
        if !self.speeds.is_empty() {
            writeln!(text, "\n| payments, payer to payee | payments/s | p50 ms | p99 ms |")?;
            writeln!(text, "|---|---|---|---|")?;
            for speed in &self.speeds {
                let (half, most) = (speed.percentile_ms(50), speed.percentile_ms(99));
                let rate = speed.per_second();
                writeln!(text, "| {} | {rate} | {half} | {most} |", speed.pair)?;
            }
        }
        Ok(text)
    }

    /// Puts the tables between the markers of `readme`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or has no markers.
    pub fn write(&self, readme: &Path) -> Result<(), Failure> {
        let old = std::fs::read_to_string(readme)?;
        let missing = || format!("{} has no markers for the tables", readme.display());
        let (head, rest) = old.split_once(BEGIN).ok_or_else(missing)?;
        let (_, tail) = rest.split_once(END).ok_or_else(missing)?;
        let new = format!("{head}{BEGIN}\n\n{}\n{END}{tail}", self.tables()?);
        Ok(std::fs::write(readme, new)?)
    }
}

/// A cell of a table has neither lines nor bars.
fn one_line(text: &str) -> String {
    let text = text.lines().next().unwrap_or_default().replace('|', "/");
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_counted_and_shown() {
        let mut report = Report::default();
        report.begin("peer");
        assert!(report.case("good", async { Ok(PASSED) }).await);
        assert!(!report.case("bad", async { Err("a | b\nmore".into()) }).await);
        assert_eq!(report.failed(), 1);
        let tables = report.tables().unwrap();
        assert!(tables.contains("| good | passed |"), "{tables}");
        assert!(tables.contains("| bad | **failed**: a / b |"), "{tables}");
    }

    #[test]
    fn percentiles_are_of_sorted_times() {
        let each = (1..=100).rev().map(Duration::from_millis).collect();
        let speed =
            Speed { pair: String::new(), payments: 100, took: Duration::from_secs(2), each };
        assert_eq!((speed.per_second(), speed.percentile_ms(50)), (50, 51));
        assert_eq!(speed.percentile_ms(99), 100);
    }
}
