//! How long a node takes from its start to its first answer, and what memory it needs.
//!
//! ```sh
//! cargo build --release -p node --bin tributary
//! cargo run --release -p benches --bin start -- --channels 100
//! ```
//!
//! The node is a process of its own with a sealed seed, killed and started again `--starts` times;
//! ready is when a client that keeps trying gets its first answer.

use std::time::Duration;

use benches::Failure;
use benches::process::{self, NodeProcess};
use bitcoin::Amount;
use clap::Parser;
use node::dev::DevChain;
use node::keys::SealCost;
use node::runtime::Tasks;
use serde::Serialize;
use tokio::time::Instant;

const CAPACITY_SAT: u64 = 100_000;
const COIN: Amount = Amount::from_sat(110_000);
/// Kept by the wallet to bump force-closes.
const RESERVE: Amount = Amount::from_sat(50_000_000);
/// What is resident is read when nothing has happened for this long.
const IDLE: Duration = Duration::from_secs(3);

/// Measures the start of a node with channels.
#[derive(Parser)]
struct Args {
    /// Channels of the node, all with one peer.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    channels: u16,
    /// How often it is killed and started.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    starts: u16,
    /// Print one JSON document (the only form there is).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    channels: u16,
    starts: u16,
    ready_ms_median: f64,
    ready_ms_max: f64,
    /// Resident memory of the idle node after a start.
    idle_rss_bytes: u64,
    /// The most it ever had resident, the unlocking of its seed included.
    peak_rss_bytes: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let exe = process::tributary()?;
    let dir = tempfile::tempdir()?;
    let tasks = Tasks::new();
    let chain = DevChain::embedded();
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await?);
    let make = |name, cost| NodeProcess::create(&exe, dir.path(), name, &chain_rpc, cost);
    // The node that is measured pays the full price for its password.
    let mut node = make("alice", SealCost::default())?;
    let peer = make("bob", SealCost::insecure_for_tests())?;
    process::fund(&chain, &peer, RESERVE, 1).await?;
    process::fund(&chain, &peer, COIN, usize::from(args.channels)).await?;
    process::fund(&chain, &node, RESERVE, 1).await?;
    // The peer opens: what is measured are channels, not coins.
    process::open(&chain, &peer, &node, CAPACITY_SAT, usize::from(args.channels), false).await?;

    let mut times = Vec::new();
    for _ in 0..args.starts {
        node.kill()?;
        let began = Instant::now();
        node.start()?;
        node.door().await?;
        times.push(began.elapsed());
    }
    let door = node.door().await?;
    let channels = node.channels(&door).await?.len();
    if channels != usize::from(args.channels) {
        return Err(format!("{channels} channels after the start").into());
    }
    tokio::time::sleep(IDLE).await;
    let memory = node.memory()?;
    times.sort_unstable();
    let figures = Figures {
        channels: args.channels,
        starts: args.starts,
        ready_ms_median: benches::percentile_ms(&times, 50),
        ready_ms_max: benches::percentile_ms(&times, 100),
        idle_rss_bytes: memory.resident,
        peak_rss_bytes: memory.peak,
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    tasks.stop().await;
    Ok(())
}
