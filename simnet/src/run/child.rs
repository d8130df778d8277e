//! One of several live runs, in a process of its own.
//!
//! tokio counts the runtimes of a process and draws from that number whom a change wakes first,
//! so that only the first live run of a process is the same every time.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{Done, RunError};
use crate::report::Summary;
use crate::report::files::Timing;
use crate::scenario::{Document, Variant};

/// What the program prints of a run.
#[derive(Deserialize)]
struct Printed {
    #[serde(flatten)]
    summary: Summary,
    timing: Timing,
}

/// Runs a variant of `document` on the live engine by `program`, which may take `memory` bytes.
///
/// An interrupt reaches it as it does us, and it ends as partial.
///
/// # Errors
///
/// [`RunError::Child`] with what it said, if it gave no result.
pub(super) fn run(
    program: &Path,
    document: &Document,
    variant: &Variant,
    folder: Option<&Path>,
    memory: u64,
) -> Result<Done, RunError> {
    let mut command = Command::new(program);
    command.args(["run", "--engine", "live", "--quiet", "--json"]).arg(document.path());
    command.args(["--memory-limit", &memory.div_ceil(1_000_000).to_string()]);
    if let Some(seed) = variant.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for setting in &variant.settings {
        command.args(["--set", &format!("{}={}", setting.key, setting.value)]);
    }
    if let Some(folder) = folder {
        command.arg("--out").arg(folder);
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| RunError::Child(error.to_string()))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let Ok(Printed { summary, timing }) = serde_json::from_slice(&output.stdout) else {
        let said = complaints.trim().trim_start_matches("simnet: ");
        let said = if said.is_empty() { "it ended without a word" } else { said };
        return Err(RunError::Child(said.to_owned()));
    };
    // A task that panicked while the run went on.
    eprint!("{complaints}");
    Ok(Done { summary, timing })
}
