//! `tributary dev`: three nodes and a chain in one process, a burst of payments, and a table.
//!
//! The nodes are the real thing on a private chain: own seed, own store on disk, TCP between
//! them, their API on a port of their own. With `--once` it ends after the demonstration;
//! otherwise it stays, mines, and other shells can say `tributary --node alice pay …`.

mod batch;
mod burst;
mod life;
mod report;

use std::time::Duration;

use bitcoin::Amount;
use node::dev::{Cluster, DevChain, NodeOptions};
use node::rpc::connection::Connection;
use node::rpc::dev_registry::DevRegistry;
use node::runtime::telemetry;

use crate::args::{DevArgs, Global};
use crate::error::CliError;
use report::{ChannelReport, NodeReport, OnChainReport, Report};

/// The nodes, in the order of the table.
const NAMES: [&str; 3] = ["alice", "hub", "bob"];
/// What each wallet gets.
const FUNDS: Amount = Amount::from_sat(50_000_000);
/// What each channel holds, sat.
const CAPACITY_SAT: u64 = 10_000_000;
/// How often a block comes while the network stays up.
const BLOCK_TIME: Duration = Duration::from_secs(5);

/// Runs the development network until it is stopped, or once (`--once`).
pub async fn run(args: DevArgs, global: Global) -> Result<(), CliError> {
    telemetry::start("error", telemetry::LogFormat::Text);
    let progress = Progress::new(!global.json);
    let scratch;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => {
            scratch = ScratchDir::new()?;
            scratch.path.clone()
        }
    };
    progress.say("starting the chain");
    let chain = match &args.bitcoind {
        None => DevChain::embedded(),
        Some(exe) => {
            DevChain::bitcoind(exe.as_deref(), &dir.join("bitcoind")).await.map_err(failed)?
        }
    };
    let mut net = Cluster::new(chain, &dir);
    for name in NAMES {
        progress.say(&format!("starting {name}"));
        let options = match name {
            "hub" => batch::hub_options(args.users.into()),
            _ => NodeOptions::default(),
        };
        net.add(name, options).await.map_err(failed)?;
    }
    let outcome = demonstrate(&mut net, &args, &progress).await;
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            net.shut_down().await;
            return Err(error);
        }
    };
    progress.done();
    if global.json {
        if args.once {
            print_json(&report);
        }
    } else {
        report.print();
    }
    let fine = report.conserved && report.payments.failed == 0;
    if !args.once {
        stay(&net, &global).await?;
        if global.json {
            print_json(&report);
        }
    }
    net.shut_down().await;
    if fine {
        Ok(())
    } else {
        Err(CliError::Failed("the demonstration did not come out even; see the report".into()))
    }
}

fn print_json(report: &Report) {
    println!("{}", serde_json::to_string_pretty(report).expect("a report is plain data"));
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

async fn demonstrate(
    net: &mut Cluster,
    args: &DevArgs,
    progress: &Progress,
) -> Result<Report, CliError> {
    progress.say("funding wallets");
    net.fund(&NAMES, FUNDS, 2).await.map_err(failed)?;
    progress.say("opening alice–hub");
    net.open_channel("alice", "hub", CAPACITY_SAT, 0).await.map_err(failed)?;
    progress.say("opening hub–bob");
    net.open_channel("hub", "bob", CAPACITY_SAT, 0).await.map_err(failed)?;
    let payments =
        burst::run(net, "alice", "bob", args.payments, args.concurrency, progress).await?;
    let users = usize::from(args.users);
    let batch = if users > 0 {
        net.fund(&["hub"], batch::hub_funds(users), 1).await.map_err(failed)?;
        Some(batch::run(net, users, progress).await?)
    } else {
        None
    };
    progress.say("counting every satoshi");
    let audit = settled_audit(net).await?;
    let chain = net.on_chain().await.map_err(failed)?;
    let nodes = NAMES
        .iter()
        .map(|name| {
            let dev = net.get(name).map_err(failed)?;
            let node = dev.node();
            let balance = node.wallet.balance();
            let channels = node.lightning.channels();
            Ok(NodeReport {
                name: (*name).to_owned(),
                node_id: node.lightning.node_id().to_string(),
                rpc: node.rpc_address.clone(),
                wallet_sat: (balance.confirmed + balance.unconfirmed).to_sat(),
                channels: channels.len(),
                channel_balance_msat: channels.iter().map(|channel| channel.local_msat).sum(),
            })
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    let name_of = |id: &str| {
        nodes.iter().find(|node| node.node_id == id).map_or_else(String::new, |n| n.name.clone())
    };
    let channels = NAMES
        .iter()
        .flat_map(|name| {
            let channels = net.node(name).lightning.channels();
            channels.into_iter().filter(|channel| channel.outbound).map(|channel| ChannelReport {
                from: (*name).to_owned(),
                to: name_of(&channel.peer.to_string()),
                capacity_sat: channel.capacity_sat,
                local_msat: channel.local_msat,
                remote_msat: channel.remote_msat,
                kind: channel.kind.to_owned(),
            })
        })
        .collect();
    Ok(Report {
        chain: net.chain.name().to_owned(),
        nodes,
        channels,
        payments,
        batch,
        onchain: OnChainReport { transactions: chain.transactions, vbytes: chain.vbytes },
        conserved: audit.conserved(),
    })
}

/// Counts once nothing is in flight: the last payment's removal takes one more round trip.
async fn settled_audit(net: &Cluster) -> Result<node::dev::Audit, CliError> {
    let quiet = || {
        net.nodes().filter_map(|dev| dev.running()).all(|node| {
            node.lightning
                .channels()
                .iter()
                .all(|channel| channel.inbound_htlcs == 0 && channel.outbound_htlcs == 0)
        })
    };
    net.wait("payments to settle", Duration::from_secs(10), quiet).await.map_err(failed)?;
    net.audit().await.map_err(failed)
}

/// Stays until Ctrl-C, mining, with every node reachable by name.
async fn stay(net: &Cluster, global: &Global) -> Result<(), CliError> {
    let registry = DevRegistry::of_this_user();
    for dev in net.nodes() {
        let connection = Connection {
            rpc: dev.node().rpc_address.clone(),
            rest: Some(dev.node().rest_address.clone()),
            tls_cert: dev.config().tls_cert_file(),
            token_file: dev.config().token_file(),
        };
        registry.write(&dev.name, &connection).map_err(failed)?;
    }
    if !global.json {
        println!();
        println!(
            "The network stays up; a block comes every {} s. In another shell:",
            BLOCK_TIME.as_secs()
        );
        println!("  tributary --node bob invoice 250sat --description tea");
        println!("  tributary --node alice pay lnbcrt…");
        println!("Ctrl-C ends it.");
    }
    let mut block = tokio::time::interval(BLOCK_TIME);
    loop {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break,
            _ = block.tick() => net.mine(1).await.map_err(failed)?,
        }
    }
    for dev in net.nodes() {
        registry.remove(&dev.name).map_err(failed)?;
    }
    Ok(())
}

/// Says what is going on, for people only.
pub struct Progress {
    bar: Option<indicatif::ProgressBar>,
}

impl Progress {
    fn new(shown: bool) -> Self {
        let bar = shown.then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar }
    }

    /// Names the step under way.
    pub fn say(&self, step: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(step.to_owned());
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A directory that goes with the process.
struct ScratchDir {
    path: std::path::PathBuf,
}

impl ScratchDir {
    fn new() -> Result<Self, CliError> {
        let path = std::env::temp_dir().join(format!("tributary-dev-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| {
            CliError::Failed(format!("cannot make {}: {error}", path.display()))
        })?;
        Ok(Self { path })
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // Nothing of value: keys of a private chain that is gone too.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
