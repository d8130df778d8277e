//! `doctor`: what is wrong with a node, and what to do. One that answers says so itself; of one
//! that does not, its files and its port tell.

use std::io;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use fs4::fs_std::FileExt;
use node::environment::{Clock, SystemClock};
use node::observe::doctor::{Check, Severity};
use node::rpc::connection::Connection;
use node::rpc::doctor::{admin_token, answers, certificate, data_directory};
use proto::v1::{CheckSeverity, DiagnosisCheck, GetDiagnosisRequest};
use serde::Serialize;

use crate::args::Global;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, styled};
use crate::target::{Surroundings, resolve};

/// What is held while a node runs, in its data directory.
const LOCK_FILE: &str = "store.lock";
/// Room on the disk below which a start fails, bytes.
const FREE_MIN: u64 = 500_000_000;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether the node answered; else it was looked at from outside.
    answered: bool,
    checks: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    severity: &'static str,
    finding: String,
    remedy: String,
}

impl From<Check> for Line {
    fn from(check: Check) -> Self {
        let severity = match check.severity {
            Severity::Ok => "OK",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        };
        let (finding, remedy) = (check.finding, check.remedy);
        Self { name: check.name.to_owned(), severity, finding, remedy }
    }
}

impl From<DiagnosisCheck> for Line {
    fn from(check: DiagnosisCheck) -> Self {
        let severity = match check.severity() {
            CheckSeverity::Ok => "OK",
            CheckSeverity::Warning => "WARNING",
            CheckSeverity::Error | CheckSeverity::Unspecified => "ERROR",
        };
        Self { name: check.name, severity, finding: check.finding, remedy: check.remedy }
    }
}

impl Report {
    /// 0 if all is well, 1 with warnings, 2 with errors.
    fn exit_code(&self) -> u8 {
        let code = |line: &Line| match line.severity {
            "OK" => 0,
            "WARNING" => 1,
            _ => 2,
        };
        self.checks.iter().map(code).max().unwrap_or(0)
    }

    fn text(&self) -> String {
        let width = self.checks.iter().map(|line| line.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        if !self.answered {
            text.push_str("no answer from the node; this is what can be seen from outside\n");
        }
        for line in &self.checks {
            let (colour, word) = match line.severity {
                "OK" => (AnsiColor::Green, "ok     "),
                "WARNING" => (AnsiColor::Yellow, "warning"),
                _ => (AnsiColor::Red, "error  "),
            };
            let word = styled(colour.on_default(), word);
            text.push_str(&format!("{word}  {:width$}  {}\n", line.name, line.finding));
            if !line.remedy.is_empty() {
                let arrow = styled(Style::new().bold(), "->");
                text.push_str(&format!("         {:width$}  {arrow} {}\n", "", line.remedy));
            }
        }
        text
    }
}

/// Examines the node that `global` means.
pub async fn run(global: &Global, out: Output) -> Result<(), CliError> {
    let report = match ask(global).await {
        Ok(checks) => Report { answered: true, checks },
        Err(error) => {
            let checks = outside(global, &error).await?.into_iter().map(Line::from).collect();
            Report { answered: false, checks }
        }
    };
    out.report(&report, Report::text)?;
    match report.exit_code() {
        0 => Ok(()),
        code => Err(CliError::Unwell(code)),
    }
}

async fn ask(global: &Global) -> Result<Vec<Line>, CliError> {
    let client = Client::connect(global).await?;
    let answer = client.node().get_diagnosis(GetDiagnosisRequest {}).await?.into_inner();
    Ok(answer.checks.into_iter().map(Line::from).collect())
}

/// What can be seen of a node that did not answer, with `why` as the reason.
async fn outside(global: &Global, why: &CliError) -> Result<Vec<Check>, CliError> {
    // Words that make no sense are no illness.
    let target = match resolve(global, &Surroundings::of_this_user()) {
        Ok(target) => target,
        Err(usage @ CliError::Usage(_)) => return Err(usage),
        Err(error) => {
            let (finding, remedy) = said(&error);
            let mut checks = vec![Check::error("node", finding, remedy)];
            checks.extend(global.data_dir.as_deref().map(data_directory));
            return Ok(checks);
        }
    };
    let directory = directory(global, &target);
    let (finding, remedy) = said(why);
    let mut checks = vec![match why {
        // The node's own word: it is there.
        CliError::Refused(_) => Check::warning("node", finding, remedy),
        _ => Check::error("node", finding, remedy),
    }];
    checks.push(process(&directory));
    checks.push(port(&target.rpc, why).await);
    checks.push(certificate(&target.tls_cert, &[], SystemClock.now()));
    checks.push(admin_token(&target.token_file));
    checks.push(data_directory(&directory));
    checks.push(room(&directory));
    Ok(checks)
}

/// Where the node keeps its data: where its connection file led.
fn directory(global: &Global, target: &Connection) -> PathBuf {
    let beside = || target.token_file.parent().map(Path::to_owned).unwrap_or_default();
    global.data_dir.clone().unwrap_or_else(beside)
}

fn said(error: &CliError) -> (String, String) {
    match error {
        CliError::Unreachable { message, remedy, .. } => (message.clone(), remedy.clone()),
        CliError::Refused(explanation) => (
            format!(
                "{}: {}",
                explanation.reason.as_deref().unwrap_or("it refuses"),
                explanation.message
            ),
            explanation.remedy.clone().unwrap_or_default(),
        ),
        other => (format!("{other:?}"), String::new()),
    }
}

/// Whether a process holds the data directory.
fn process(directory: &Path) -> Check {
    const NAME: &str = "process";
    let path = directory.join(LOCK_FILE);
    let start = format!("start it: tributary --data-dir {} node", directory.display());
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let finding = format!("no node has run in {}", directory.display());
            return Check::error(NAME, finding, start);
        }
        Err(error) => {
            let finding = format!("{} cannot be opened: {error}", path.display());
            return Check::warning(NAME, finding, "run this as the user who runs the node");
        }
    };
    match FileExt::try_lock_exclusive(&file) {
        Ok(false) => Check::warning(
            NAME,
            format_args!("a process holds {}, and does not answer", path.display()),
            "it may be starting, which takes as long as the chain it missed: look at its log; if \
             it hangs, stop it and start it anew",
        ),
        Err(error) => {
            Check::warning(NAME, format_args!("{}: {error}", path.display()), "look at the disk")
        }
        Ok(true) => {
            // Held for this moment only.
            drop(file);
            Check::error(NAME, format_args!("no process holds {}", path.display()), start)
        }
    }
}

/// Who answers where the node should.
async fn port(address: &str, why: &CliError) -> Check {
    const NAME: &str = "port";
    match answers(address).await {
        Err(error) => Check::error(
            NAME,
            format_args!("nobody takes connections at {address}: {error}"),
            "if the node runs, it listens elsewhere: compare rpc.listen with --rpc",
        ),
        Ok(_) if matches!(why, CliError::Refused(_)) => {
            Check::ok(NAME, format_args!("the node answers at {address}"))
        }
        Ok(_) => Check::error(
            NAME,
            format_args!("something takes connections at {address}, and is not this node"),
            "another program has the port, or another node with another certificate: see \
             `ss -ltnp`, and set rpc.listen to a free port",
        ),
    }
}

fn room(directory: &Path) -> Check {
    const NAME: &str = "disk_space";
    match fs4::available_space(directory) {
        Ok(free) if free < FREE_MIN => Check::error(
            NAME,
            format_args!("{} MB free", free / 1_000_000),
            "make room: a node does not start on a full disk",
        ),
        Ok(free) => Check::ok(NAME, format_args!("{} MB free", free / 1_000_000)),
        Err(error) => Check::warning(
            NAME,
            format_args!("free space is not known: {error}"),
            "check that the directory is there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_exit_code_and_each_remedy_is_shown() {
        let report = |checks: Vec<Check>| Report {
            answered: true,
            checks: checks.into_iter().map(Line::from).collect(),
        };
        assert_eq!(report(vec![]).exit_code(), 0);
        let fine = Check::ok("clock", "in time");
        let bad = Check::warning("towers", "none", "add one");
        let worse = Check::error("disk", "full", "make room");
        assert_eq!(report(vec![fine.clone(), bad.clone()]).exit_code(), 1);
        let all = report(vec![fine, bad, worse]);
        assert_eq!(all.exit_code(), 2);
        let text = anstream::adapter::strip_str(&all.text()).to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "ok       clock   in time");
        assert_eq!(lines[2], "-> add one");
        assert!(lines[3].starts_with("error    disk"), "{text}");
    }

    #[tokio::test]
    async fn what_is_there_of_a_node_that_is_not_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(process(dir.path()).finding.contains("no node has run"));
        let path = dir.path().join(LOCK_FILE);
        let held = std::fs::File::create(&path).unwrap();
        assert!(process(dir.path()).finding.contains("no process holds"));
        assert!(FileExt::try_lock_exclusive(&held).unwrap());
        let found = process(dir.path());
        assert_eq!(found.severity, Severity::Warning, "{found:?}");
        let lost = CliError::Failed("lost".into());
        let nobody = port("127.0.0.1:1", &lost).await;
        assert!(nobody.finding.contains("nobody takes connections"), "{nobody:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = port(&address, &lost).await;
        assert!(other.finding.contains("is not this node"), "{other:?}");
    }
}
