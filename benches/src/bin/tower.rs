//! What a watchtower keeps, how fast, and how soon it answers.
//!
//! ```sh
//! cargo run --release -p benches --bin tower -- --appointments 1000000
//! ```
//!
//! Clients hand appointments to a tower through its gRPC door on the loopback, signed and in order,
//! and check the receipts. An appointment is what a blind tower gets for a state without HTLCs at
//! three feerates, to the byte; all but one hold noise instead of signatures, which the tower could
//! not tell. The tower is started again over all of them, looks up blocks, and answers one breach.
//!
//! Of many millions most are there before the clients come: put into the tower's ledger as it
//! would put them itself, without anybody's signature.

use std::sync::Arc;
use std::time::Duration;

use benches::Failure;
use benches::breach::{Breach, appointment, filler};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Network, Txid, hashes::Hash};
use channel_contracts::tower::{Appointment, Locator};
use clap::Parser;
use futures::stream::{self, StreamExt, TryStreamExt};
use node::config::{Config, TowerConfig};
use node::dev::DevChain;
use node::environment::OsEntropy;
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::node::tower::TowerProcess;
use node::rpc::tower_link::GrpcTowers;
use node::store::{EngineKind, StoreOptions};
use node::tower::client::{TowerLink, TowerLinks};
use node::tower::server::{Entry, SignedAppointment, StoredBlob};
use serde::Serialize;
use simnet::bench::machine::peak_rss_bytes;
use tokio::time::Instant;

/// Appointments in one request, as a node sends them.
const AT_ONCE: u64 = 64;
/// Clients at once.
const CLIENTS: u64 = 8;
/// Appointments made before the clock runs again.
const CHUNK: u64 = 65_536;
/// Transactions of a block.
const BLOCK: usize = 5_000;
/// Blocks looked up.
const BLOCKS: u32 = 101;

/// Measures a watchtower.
#[derive(Parser)]
struct Args {
    /// Appointments to store.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    appointments: u64,
    /// How many of them clients sign and hand over at the end; the others are there before
    #[arg(long, default_value_t = 1_000_000)]
    by_clients: u64,
    /// The store's engine.
    #[arg(long, default_value = "fjall", value_parser = ["fjall", "sled"])]
    engine: String,
    /// Print one JSON document (the only form there is).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    appointments: u64,
    by_clients: u64,
    engine: String,
    /// Taken, durable and signed for, over gRPC.
    durable_per_second: f64,
    /// Of the store's files, after a start that found them.
    disk_bytes_per_appointment: f64,
    /// Of the table of locators.
    memory_bytes_per_appointment: f64,
    /// A block of 5,000 transactions that nobody asked for, the median of 101.
    block_lookup_ms: f64,
    /// From nothing to a tower that answers.
    start_seconds: f64,
    /// From the block with the commitment to the penalty in the mempool.
    breach_to_broadcast_ms: f64,
    /// The same from the commitment in the mempool, which is looked at every 500 ms.
    mempool_breach_to_broadcast_ms: f64,
    peak_rss_bytes: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let dir = tempfile::tempdir()?;
    let private = DevChain::embedded();
    let chain = private.as_embedded().ok_or("the chain is embedded")?;
    let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
    let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
    let start = async || {
        let engine = match args.engine.as_str() {
            "sled" => EngineKind::Sled,
            _ => EngineKind::Fjall,
        };
        let store = node::store::open(dir.path(), engine, &StoreOptions::default())?;
        let environment = private.environment(store);
        let tower = TowerConfig {
            listen: "127.0.0.1:0".into(),
            appointments_max: u64::MAX / 2,
            ..TowerConfig::default()
        };
        let config = Config { tower, ..Config::default() };
        Ok::<_, Failure>(TowerProcess::start(&config, &keys, environment).await?)
    };

    let tower = start().await?;
    let by_clients = args.by_clients.min(args.appointments);
    let before = args.appointments - by_clients;
    prepare(&tower, before).await?;
    let taken = fill(&tower, before, args.appointments).await?;
    let secp = Secp256k1::new();
    let [in_block, in_mempool] = [1, 2].map(|number| Breach::new(&secp, chain, number));
    let (in_block, in_mempool) = (in_block?, in_mempool?);
    let client = client(0);
    let link = GrpcTowers.link(tower.tower.key(), &tower.address)?;
    for (number, breach) in [(1, &in_block), (2, &in_mempool)] {
        let signed =
            breach.appointment(&secp, tower.tower.key(), &client, u64::MAX - 3 + number)?;
        link.add(client.public_key(&secp), vec![signed]).await?;
    }
    tower.stop().await;

    let began = Instant::now();
    let tower = start().await?;
    GrpcTowers.link(tower.tower.key(), &tower.address)?.terms().await?;
    let start_seconds = began.elapsed().as_secs_f64();
    let ledger = tower.tower.ledger();
    let stored = ledger.len();
    if stored != args.appointments + 2 {
        return Err(format!("{stored} appointments after the start").into());
    }
    let disk = tower.committer.store().disk_bytes();
    let block_lookup_ms = look_up(&tower);
    let breach_to_broadcast_ms = in_block.answered_in_block(chain).await?;
    let mempool_breach_to_broadcast_ms = in_mempool.answered_in_mempool(chain).await?;
    let figures = Figures {
        appointments: args.appointments,
        engine: args.engine.clone(),
        by_clients,
        durable_per_second: by_clients as f64 / taken.as_secs_f64(),
        disk_bytes_per_appointment: disk as f64 / stored as f64,
        memory_bytes_per_appointment: ledger.index_bytes() as f64 / stored as f64,
        block_lookup_ms,
        start_seconds,
        breach_to_broadcast_ms,
        mempool_breach_to_broadcast_ms,
        peak_rss_bytes: peak_rss_bytes(),
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    tower.stop().await;
    Ok(())
}

/// Puts appointments 0 to `count` into the ledger.
async fn prepare(tower: &TowerProcess, count: u64) -> Result<(), Failure> {
    let client = client(u8::try_from(CLIENTS)?).public_key(&Secp256k1::new());
    if count > 0 {
        let link = GrpcTowers.link(tower.tower.key(), &tower.address)?;
        link.register(client).await?;
    }
    let height = tower.tower.guard().height();
    for chunk in (0..count).step_by(usize::try_from(AT_ONCE)?) {
        let entries: Vec<Entry> = (chunk..(chunk + AT_ONCE).min(count))
            .map(|number| {
                let Appointment { channel, sequence, locator, blob } = appointment(number);
                let blob = StoredBlob::Sealed(blob).encode();
                Entry { channel, sequence, locator, blob }
            })
            .collect();
        let added = tower.tower.ledger().add(client, &entries, height)?;
        if chunk % CHUNK == 0 {
            tower.committer.durable(added.ticket).await?;
            eprint!("\r{chunk} of {count} are there before the clients come");
        }
    }
    tower.committer.durable(tower.committer.now()).await?;
    eprintln!();
    Ok(())
}

/// Hands over appointments `from` to `to` and returns the time that took, their making left out.
async fn fill(tower: &TowerProcess, from: u64, to: u64) -> Result<Duration, Failure> {
    let secp = Secp256k1::new();
    let key = tower.tower.key();
    let mut links: Vec<(SecretKey, Arc<dyn TowerLink>)> = Vec::new();
    for number in 0..CLIENTS {
        let link = GrpcTowers.link(key, &tower.address)?;
        let client = client(u8::try_from(number)?);
        link.register(client.public_key(&secp)).await?;
        links.push((client, link));
    }
    let mut taken = Duration::ZERO;
    for chunk in (from..to).step_by(usize::try_from(CHUNK)?) {
        let end = (chunk + CHUNK).min(to);
        let requests: Vec<(usize, Vec<SignedAppointment>)> = (chunk..end)
            .step_by(usize::try_from(AT_ONCE)?)
            .map(|first| {
                let owner = usize::try_from(first / AT_ONCE % CLIENTS).unwrap_or_default();
                let signed = (first..(first + AT_ONCE).min(end))
                    .map(|number| filler(&secp, key, &links[owner].0, number));
                (owner, signed.collect())
            })
            .collect();
        let began = Instant::now();
        // Each client sends in order; all of them at once.
        let mut of_client: Vec<Vec<Vec<SignedAppointment>>> = vec![Vec::new(); links.len()];
        for (owner, request) in requests {
            of_client[owner].push(request);
        }
        stream::iter(links.iter().zip(of_client))
            .map(|((client, link), requests)| {
                let secp = &secp;
                async move {
                    for request in requests {
                        let sent = request.clone();
                        let receipts = link.add(client.public_key(secp), request).await?;
                        for ((receipt, signature), signed) in receipts.iter().zip(&sent) {
                            receipt.verify(secp, signature, &signed.appointment)?;
                        }
                    }
                    Ok::<_, Failure>(())
                }
            })
            .buffer_unordered(links.len())
            .try_collect::<()>()
            .await?;
        taken += began.elapsed();
        let done = end - from;
        eprint!(
            "\r{done} of {} appointments, {:.0}/s",
            to - from,
            done as f64 / taken.as_secs_f64()
        );
    }
    eprintln!();
    Ok(taken)
}

/// The median time to look up a block, ms.
fn look_up(tower: &TowerProcess) -> f64 {
    let mut times: Vec<Duration> = (0..BLOCKS)
        .map(|block| {
            let txids: Vec<Txid> = (0..BLOCK)
                .map(|tx| {
                    let mut bytes = [0; 32];
                    bytes[..4].copy_from_slice(&block.to_be_bytes());
                    bytes[4..12].copy_from_slice(&tx.to_be_bytes());
                    Txid::from_byte_array(
                        bitcoin::hashes::sha256::Hash::hash(&bytes).to_byte_array(),
                    )
                })
                .collect();
            let began = Instant::now();
            let hits = tower.tower.ledger().hits(txids.iter().map(|txid| Locator::of(*txid)));
            let time = began.elapsed();
            assert!(hits.is_empty(), "nobody asked for these");
            time
        })
        .collect();
    times.sort_unstable();
    benches::percentile_ms(&times, 50)
}

fn client(number: u8) -> SecretKey {
    SecretKey::from_slice(&[number + 1; 32]).expect("small numbers are keys")
}
