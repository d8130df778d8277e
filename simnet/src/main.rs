//! `simnet`: runs scenarios, compares results, measures engines.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use simnet::bench::{self, Options};

/// Simulated payment channel networks: real nodes on virtual time, and a fast model.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measures the speed of an engine.
    Bench {
        /// Which.
        #[arg(long, value_enum, default_value = "model")]
        engine: EngineArgument,
        /// A compressed gossip store; without it a network is generated.
        #[arg(long)]
        snapshot: Option<PathBuf>,
        /// Nodes of a generated network.
        #[arg(long, default_value_t = 10_000)]
        nodes: u32,
        /// Payments.
        #[arg(long, default_value_t = 50_000)]
        payments: u64,
        /// Each, in millisatoshi.
        #[arg(long, default_value_t = 10_000_000)]
        amount_msat: u64,
        /// Payments that begin in a second of virtual time.
        #[arg(long, default_value_t = 100.0)]
        per_second: f64,
        /// Decides everything.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum EngineArgument {
    Live,
    Model,
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Bench { snapshot, nodes, payments, amount_msat, per_second, seed, .. } => {
            let o = Options { snapshot, nodes, payments, amount_msat, per_second, seed };
            println!("{}", serde_json::to_string_pretty(&bench::measure_model(&o).unwrap()).unwrap());
        }
    }
    ExitCode::SUCCESS
}
