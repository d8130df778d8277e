//! Tributary against programs of others, as processes on a real bitcoind. README.md says how to
//! run it and what came out.

mod bitcoind;
mod http;
mod ldk;
mod lnd;
mod ours;
mod party;
mod process;
mod report;
mod scenarios;
mod wait;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::party::Kind;
use crate::report::Report;
use crate::wait::Failure;
use crate::world::Programs;

/// Runs Tributary against other implementations of Lightning.
#[derive(Debug, Parser)]
struct Args {
    /// Our program
    #[arg(long, value_name = "FILE")]
    tributary: PathBuf,
    /// bitcoind
    #[arg(long, value_name = "FILE")]
    bitcoind: PathBuf,
    /// LND
    #[arg(long, value_name = "FILE", required_unless_present = "no_lnd")]
    lnd: Option<PathBuf>,
    /// Why there is no LND: its scenarios are skipped
    #[arg(long, value_name = "WHY", conflicts_with = "lnd")]
    no_lnd: Option<String>,
    /// The child that embeds ldk-node
    #[arg(long, value_name = "FILE", required_unless_present = "no_ldk")]
    ldk: Option<PathBuf>,
    /// Why there is no ldk-node: its scenarios are skipped
    #[arg(long, value_name = "WHY", conflicts_with = "ldk")]
    no_ldk: Option<String>,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write the tables into this README
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Keep data directories and logs also if all is well
    #[arg(long)]
    keep: bool,
}

/// A part of the run, with a chain and nodes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Everything with LND but force-closes
    Lnd,
    /// Everything with ldk-node but force-closes
    Ldk,
    /// Force-closes with LND
    LndForced,
    /// Force-closes with ldk-node
    LdkForced,
    /// From LND to ldk-node through us
    Mixed,
    /// Payments per second between nodes of one kind
    Speed,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // An interrupted run drops its worlds, and with them every process.
    let ended = tokio::select! {
        biased;
        () = interrupted() => Err("interrupted".into()),
        ended = run(&args) => ended,
    };
    match ended {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("{failed} scenarios failed");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("interop: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or the polite signal of whoever started this.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn run(args: &Args) -> Result<usize, Failure> {
    let given = [("tributary", &args.tributary), ("bitcoind", &args.bitcoind)];
    let strangers = [("lnd", args.lnd.as_ref()), ("ldk", args.ldk.as_ref())];
    let strangers = strangers.into_iter().filter_map(|(what, file)| Some((what, file?)));
    for (what, file) in given.into_iter().chain(strangers) {
        if !file.is_file() {
            return Err(format!("{what}: {} is not there", file.display()).into());
        }
    }
    let programs = Programs {
        tributary: args.tributary.clone(),
        bitcoind: args.bitcoind.clone(),
        lnd: args.lnd.clone(),
        ldk: args.ldk.clone(),
    };
    let mut dir = tempfile::Builder::new().prefix("interop-").tempdir()?;
    let one = async |part| run_part(part, args, &programs, dir.path()).await;
    // These mostly wait for blocks and may do so together; the others measure, each alone.
    let (lnd_forced, ldk_forced, mixed) =
        tokio::join!(one(Part::LndForced), one(Part::LdkForced), one(Part::Mixed));
    let (lnd, ldk, speed) = (one(Part::Lnd).await, one(Part::Ldk).await, one(Part::Speed).await);
    let mut report = Report::default();
    for part in [lnd, ldk, lnd_forced, ldk_forced, mixed, speed] {
        report.append(part);
    }
    println!("\n{}", report.tables()?);
    if let Some(readme) = &args.write {
        report.write(readme)?;
    }
    let failed = report.failed();
    if failed > 0 || args.keep {
        dir.disable_cleanup(true);
        eprintln!("logs and data are kept in {}", dir.path().display());
    }
    Ok(failed)
}

/// Runs a part if it is asked for; what breaks it is in its report.
async fn run_part(part: Part, args: &Args, programs: &Programs, dir: &Path) -> Report {
    let mut report = Report::default();
    let asked_for = args.only.is_empty() || args.only.contains(&part);
    if asked_for && let Err(error) = try_part(part, args, programs, dir, &mut report).await {
        report.broken(&format!("{part:?}"), &error.to_string());
    }
    report
}

async fn try_part(
    part: Part,
    args: &Args,
    programs: &Programs,
    dir: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let there = |kind: Kind| match kind {
        Kind::Ours => true,
        Kind::Lnd => programs.lnd.is_some(),
        Kind::Ldk => programs.ldk.is_some(),
    };
    let missing = |kind: Kind| {
        let why = if kind == Kind::Lnd { &args.no_lnd } else { &args.no_ldk };
        why.clone().unwrap_or_default()
    };
    let stranger = match part {
        Part::Lnd | Part::LndForced => Kind::Lnd,
        Part::Ldk | Part::LdkForced => Kind::Ldk,
        Part::Mixed => {
            for kind in [Kind::Lnd, Kind::Ldk] {
                if !there(kind) {
                    report.skip("LND and ldk-node", &missing(kind));
                    return Ok(());
                }
            }
            report.begin("LND and ldk-node");
            return scenarios::between_strangers(programs, dir, report).await;
        }
        Part::Speed => {
            println!("\n== payments per second");
            for kind in [Kind::Ours, Kind::Lnd, Kind::Ldk] {
                if there(kind) {
                    scenarios::speed(programs, kind, dir, report).await?;
                } else {
                    report.skip(&format!("{kind} to {kind}"), &missing(kind));
                }
            }
            return Ok(());
        }
    };
    let name = match part {
        Part::Lnd | Part::Ldk => stranger.to_string(),
        _ => format!("{stranger}, force-closes"),
    };
    if !there(stranger) {
        report.skip(&name, &missing(stranger));
        return Ok(());
    }
    report.begin(&stranger.to_string());
    let dir = dir.join(stranger.to_string());
    match part {
        Part::LndForced | Part::LdkForced => {
            scenarios::forced(programs, stranger, &dir, report).await
        }
        _ => scenarios::with_stranger(programs, stranger, &dir, report).await,
    }
}
