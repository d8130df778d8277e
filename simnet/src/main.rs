//! `simnet`: runs scenarios.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simnet::scenario::Scenario;

/// Simulated networks of real Tributary nodes on virtual time.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs one scenario file and prints its report as JSON.
    Run {
        /// The scenario.
        file: PathBuf,
        /// Another seed than the file's.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let Verb::Run { file, seed } = Cli::parse().verb;
    let report = Scenario::load(&file).and_then(|mut scenario| {
        scenario.seed = seed.unwrap_or(scenario.seed);
        scenario.run()
    });
    match report {
        Ok(report) => {
            println!("{}", serde_json::to_string_pretty(&report).expect("a report is plain data"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("simnet: {error}");
            ExitCode::FAILURE
        }
    }
}
