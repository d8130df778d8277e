//! How long a batch takes to form, what it takes on chain, and what a hub needs for its channels.
//!
//! ```sh
//! cargo build --release -p node --bin tributary
//! cargo run --release -p benches --bin batches -- --users 256
//! ```
//!
//! The hub is a process of its own with its store on disk; the wallets are real nodes too, all in
//! this process, with stores in memory. Peers' links are TCP on loopback.

use std::sync::Arc;
use std::time::Duration;

use benches::Failure;
use benches::process::{self, Door, NodeProcess};
use bitcoin::Amount;
use channel_contracts::batch::{LeafState, UserPhase};
use channel_contracts::tree::cost::ORDINARY_CHANNEL_VB;
use clap::Parser;
use futures::stream::{self, StreamExt, TryStreamExt};
use node::batches::JoinRequest;
use node::dev::{Cluster, DevChain, NodeOptions};
use node::keys::SealCost;
use node::lightning::types::NodeId;
use node::runtime::Tasks;
use node::store::MemoryDisk;
use proto::v1 as pb;
use proto::v1::batches_client::BatchesClient;
use serde::Serialize;
use tokio::time::Instant;

const CAPACITY: Amount = Amount::from_sat(100_000);
const COIN: Amount = Amount::from_sat(30_000_000);
/// Confirmations before the channels are used.
const DEPTH: u32 = 3;
/// Wallets that are started or join at a time.
const AT_ONCE: usize = 16;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// What is resident is read when nothing has happened for this long.
const IDLE: Duration = Duration::from_secs(5);

/// Measures one batch.
#[derive(Parser)]
struct Args {
    /// Wallets that join it.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    users: u16,
    /// Print one JSON document (the only form there is).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    users: u16,
    /// From the first wish to the batch transaction in the mempool.
    form_ms: u64,
    onchain_vbytes: u64,
    onchain_vbytes_per_channel: f64,
    ordinary_vbytes: u64,
    /// Resident memory of the hub with its peers connected, before the batch.
    hub_before_bytes: u64,
    /// The same with its channels, idle.
    hub_after_bytes: u64,
    hub_kb_per_channel: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let users = usize::from(args.users);
    let exe = process::tributary()?;
    let dir = tempfile::tempdir()?;
    let tasks = Tasks::new();
    let chain = DevChain::embedded();
    let chain_rpc = format!("http://{}", chain.serve(&tasks).await?);
    let config = format!("[batch]\nrole = \"hub\"\nusers_max = {users}\ngathering_ms = 60000\n");
    let cost = SealCost::insecure_for_tests();
    let hub = NodeProcess::configured(&exe, dir.path(), "hub", &chain_rpc, cost, &config)?;
    process::fund(&chain, &hub, COIN, 4).await?;
    let door = hub.door().await?;
    let hub_id = NodeId::from_slice(&hub.node_id().await?)?;

    let mut net = Cluster::new(chain, dir.path());
    let names: Vec<String> = (1..=users).map(|number| format!("user{number}")).collect();
    for name in &names {
        let configure = Arc::new(|_: &mut node::config::Config| {});
        let options = NodeOptions { disk: Some(MemoryDisk::new()), configure };
        net.add(name, options).await?;
        let user = net.node(name);
        let _kept = user.peers.remember(hub_id, &hub.address, true);
        user.lightning.connect(hub_id, &hub.address).await?;
    }
    tokio::time::sleep(IDLE).await;
    let before = hub.memory()?.resident;

    let began = Instant::now();
    let join = JoinRequest { hub: hub_id, capacity: CAPACITY, inbound: CAPACITY };
    stream::iter(&names)
        .map(|name| net.node(name).batches.join(&join, None))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let mut transaction = None;
    until("the batch transaction", async || {
        if let Some(txid) = batch_txid(&door).await? {
            transaction = net.chain.source().mempool_transaction(txid).await?;
        }
        Ok(transaction.is_some())
    })
    .await?;
    let form_ms = u64::try_from(began.elapsed().as_millis())?;
    net.mine(DEPTH).await?;
    until("channels that can be used", async || {
        for name in &names {
            let wishes = net.node(name).batches.joins().await;
            let confirmed = wishes
                .iter()
                .any(|wish| matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. })));
            if !confirmed || !net.node(name).lightning.channels().iter().any(|c| c.usable) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    tokio::time::sleep(IDLE).await;
    let after = hub.memory()?.resident;
    let onchain_vbytes = transaction.map_or(0, |transaction| transaction.vsize() as u64);
    let figures = Figures {
        users: args.users,
        form_ms,
        onchain_vbytes,
        onchain_vbytes_per_channel: onchain_vbytes as f64 / users as f64,
        ordinary_vbytes: ORDINARY_CHANNEL_VB * users as u64,
        hub_before_bytes: before,
        hub_after_bytes: after,
        hub_kb_per_channel: after.saturating_sub(before) as f64 / 1_000.0 / users as f64,
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    net.shut_down().await;
    tasks.stop().await;
    Ok(())
}

/// The batch transaction, once the hub has handed it over.
async fn batch_txid(door: &Door) -> Result<Option<bitcoin::Txid>, Failure> {
    let request = pb::ListHostedBatchesRequest::default();
    let batches = BatchesClient::new(door.clone()).list_hosted(request).await?.into_inner().batches;
    let confirming = pb::HostedBatchState::Confirming;
    let batch = batches.into_iter().find(|batch| batch.state() == confirming);
    let txid = batch.and_then(|batch| batch.txid).map(hex_of);
    Ok(txid.map(|txid| txid.parse()).transpose()?)
}

fn hex_of(bytes: Vec<u8>) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

async fn until(
    what: &str,
    mut done: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    while !done().await? {
        if Instant::now() > end {
            return Err(format!("{what} did not come").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
