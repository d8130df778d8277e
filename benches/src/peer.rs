//! The peer's measurement: the program of `benches/peers`, run as a process.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Failure, Figures, Run};

/// Runs `program` with the same parameters and reads its figures.
///
/// # Errors
///
/// If it cannot be started, fails, or prints something else.
pub fn measure(program: &Path, run: &Run) -> Result<Figures, Failure> {
    let output = Command::new(program)
        .args(["--nodes", &run.nodes.to_string()])
        .args(["--in-flight", &run.in_flight.to_string()])
        .args(["--amount-msat", &run.amount_msat.to_string()])
        .args(["--seconds", &run.seconds.to_string()])
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            format!("{} cannot be started ({error}); build it: just build-peers", program.display())
        })?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", program.display(), output.status).into());
    }
    let figures: Figures = serde_json::from_slice(&output.stdout)?;
    Ok(Figures { run: *run, ..figures })
}
