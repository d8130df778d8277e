//! `simnet`: runs scenarios, compares results, measures engines.

mod cli;
#[cfg(feature = "live")]
mod interpose;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "live")]
    interpose::install();
    let result = match cli::Cli::parse().verb {
        cli::Verb::Run(arguments) => cli::run::run(&arguments),
        cli::Verb::Check { file } => cli::run::check(&file),
        cli::Verb::Compare(arguments) => cli::compare::compare(&arguments),
        cli::Verb::Divergence(arguments) => cli::compare::divergence(&arguments),
        cli::Verb::Bench(arguments) => cli::bench::bench(&arguments),
        #[cfg(feature = "live")]
        cli::Verb::Hunt(arguments) => cli::hunt::hunt(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("simnet: {error}");
            ExitCode::FAILURE
        }
    }
}
