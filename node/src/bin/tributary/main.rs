//! `tributary`: the node, the development network, and a thin client of the gRPC API.
//!
//! Read `args.rs` for the words it understands. Each verb is one function in `verbs/`; all
//! of them go through the same door as any other client: address, certificate, token.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types))]

mod amount;
mod args;
mod client;
mod dev;
mod error;
mod node;
mod output;
mod parse;
mod qr;
mod target;
mod tower;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use args::tower::{TowerArgs, TowerVerb};
use args::{Cli, Verb};
use error::CliError;

fn main() -> ExitCode {
    // Wrong words end here: clap explains them and exits with 2.
    let cli = Cli::parse();
    let json = cli.global.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(json),
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    // A client waits for one answer; only the nodes need more threads.
    let mut builder = match cli.verb {
        Verb::Node(_) | Verb::Dev(_) | Verb::Tower(TowerArgs { verb: None, .. }) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        match cli.verb {
            Verb::Node(args) => node::run(args, cli.global).await,
            Verb::Dev(args) => dev::run(args, cli.global).await,
            Verb::Tower(args) => match &args.verb {
                None => tower::run(args, cli.global).await,
                Some(TowerVerb::Init(words)) => tower::make(words, &args.settings, &cli.global),
                Some(_) => verbs::run(Verb::Tower(args), &cli.global).await,
            },
            verb => verbs::run(verb, &cli.global).await,
        }
    })
}
