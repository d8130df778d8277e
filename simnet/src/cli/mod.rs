//! The command line: words here, deeds in the files beside.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use simnet::scenario::Engine;

/// Prints a line. A reader that has gone, as `head` does, is no failure.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::print_line(format_args!($($text)*)) };
}

pub mod bench;
pub mod compare;
#[cfg(feature = "live")]
pub mod hunt;
pub mod run;

/// Simulated payment channel networks: real nodes on virtual time, and a fast model.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs a scenario, or a sweep over its settings.
    Run(RunArguments),
    /// Says whether a scenario could run, and why not.
    Check {
        /// The scenario.
        file: PathBuf,
    },
    /// Compares two results: runs are paired by seed.
    Compare(PairArguments),
    /// Holds the results of two engines for one scenario against each other.
    Divergence(PairArguments),
    /// Measures how fast an engine is.
    Bench(BenchArguments),
    /// Looks for scenarios with faults that break a rule, on the live engine.
    #[cfg(feature = "live")]
    Hunt(HuntArguments),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The scenario.
    pub file: PathBuf,
    /// Which engine; without it the model, if the scenario is made for it. With `both` results go
    /// into `live` and `model` of the folder, and their divergence is printed.
    #[arg(long, value_enum)]
    pub engine: Option<EngineArgument>,
    /// Another seed than the file's.
    #[arg(long, conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// So many seeds, from the file's on, each a run of its own.
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Another value for a key, or several: `--set key=v1,v2`. Repeat it for every combination.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Runs at a time; without it one for each core.
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Folder for results: figures, series, and a page with plots.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Most memory that runs may take, in MB; without it nine tenths of what is free.
    #[arg(long, value_name = "MB")]
    pub memory_limit: Option<u64>,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
    /// Shows no progress.
    #[arg(long)]
    pub quiet: bool,
}

/// Arguments of `compare` and `divergence`.
#[derive(Debug, Args)]
pub struct PairArguments {
    /// The first result: a folder that `run --out` wrote, or its summary.json or runs.json.
    pub first: PathBuf,
    /// The second result.
    pub second: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `hunt`.
#[cfg(feature = "live")]
#[derive(Debug, Args)]
pub struct HuntArguments {
    /// How long, by the clock on the wall.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// At most so many scenarios, whatever time is left.
    #[arg(long)]
    pub runs: Option<u64>,
    /// The first scenario's seed; the others follow.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only scenarios with batches: every fourth seed.
    #[arg(long)]
    pub batches: bool,
    /// Keeps scenarios that fail as they are; without it each is made smaller, which takes up to
    /// 60 runs.
    #[arg(long)]
    pub no_shrink: bool,
    /// Folder for scenarios that fail, and for what is left of them when they are shrunk.
    #[arg(long, value_name = "FOLDER", default_value = "hunt")]
    pub out: PathBuf,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// Which engine.
    #[arg(long, value_enum, default_value = "both")]
    pub engine: EngineArgument,
    /// A compressed gossip store, for the model; without it a network is generated. The live
    /// engine always generates hubs with users.
    #[arg(long)]
    pub snapshot: Option<PathBuf>,
    /// Nodes of a generated network; without it 1,000 live, 10,000 in the model.
    #[arg(long)]
    pub nodes: Option<u32>,
    /// Payments; without it 5,000 live, 50,000 in the model.
    #[arg(long)]
    pub payments: Option<u64>,
    /// Each, in millisatoshi.
    #[arg(long, default_value_t = 10_000_000)]
    pub amount_msat: u64,
    /// Payments that begin in a second of virtual time; without it 2,000 live, 100 in the model.
    #[arg(long)]
    pub per_second: Option<f64>,
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// An engine, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArgument {
    /// Real nodes on virtual time.
    Live,
    /// The discrete-event model.
    Model,
    /// One after the other.
    Both,
}

impl EngineArgument {
    /// The engines it names.
    pub fn engines(self) -> &'static [Engine] {
        match self {
            Self::Live => &[Engine::Live],
            Self::Model => &[Engine::Model],
            Self::Both => &[Engine::Live, Engine::Model],
        }
    }
}

fn print_line(text: fmt::Arguments<'_>) {
    let _gone = writeln!(std::io::stdout(), "{text}");
}

/// Why something did not work.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
