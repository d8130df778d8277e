//! `simnet`: runs scenarios, compares results, measures engines.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let result = match cli::Cli::parse().verb {
        cli::Verb::Run(arguments) => cli::run::run(&arguments),
        cli::Verb::Check { file } => cli::run::check(&file),
        cli::Verb::Compare(arguments) => cli::compare::compare(&arguments),
        cli::Verb::Divergence(arguments) => cli::compare::divergence(&arguments),
        cli::Verb::Bench(arguments) => cli::bench::bench(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("simnet: {error}");
            ExitCode::FAILURE
        }
    }
}
