//! What a watchtower costs its clients' payments: none, one that answers, one that is gone.
//!
//! One line of nodes pays without a pause between the three. The payer and the payee hand every
//! revoked state to one blind tower in the process of the benchmark; then that stops, and comes back
//! when the load is over.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use clap::Args as ClapArgs;
use node::config::{Config, TowerConfig};
use node::environment::OsEntropy;
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::node::tower::TowerProcess;
use node::store::{EngineKind, StoreOptions};
use proto::v1 as pb;
use proto::v1::tower_client::TowerClient;
use serde::Serialize;
use tokio::time::Instant;

use crate::Failure;
use crate::line::{Line, Until};

/// A block every so often, in all rounds alike.
const BLOCK_PERIOD: Duration = Duration::from_secs(10);
/// How long the tower may take to get what it missed.
const CATCH_UP: Duration = Duration::from_secs(1_800);

/// Measures payments beside a watchtower.
#[derive(ClapArgs)]
pub struct Args {
    /// Payments under way at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Each payment, in millisatoshi.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    amount_msat: u64,
    /// How long each of the three is measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How often the three follow each other.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

#[derive(Serialize)]
struct Figures {
    seconds: u64,
    rounds: u32,
    /// Payments per second, the median of the rounds.
    without_tower: f64,
    with_tower: f64,
    with_tower_gone: f64,
    ratio_with: f64,
    ratio_gone: f64,
    /// Revoked states handed over, and refused.
    delivered: u64,
    refused: u64,
    /// Handed over per second, once the tower was back.
    catch_up_per_second: f64,
    conserved: bool,
}

/// Measures and prints one JSON document.
///
/// # Errors
///
/// If a node or the tower does not do its part.
pub async fn measure(args: &Args) -> Result<(), Failure> {
    let line = Line::start(2, args.amount_msat).await?;
    // A channel that is renewed on the way waits for blocks.
    line.mine_every(BLOCK_PERIOD);
    let dir = tempfile::tempdir()?;
    let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
    let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
    let start = async |listen: &str| {
        let store = node::store::open(dir.path(), EngineKind::Fjall, &StoreOptions::default())?;
        let environment = line.chain().environment(store);
        let tower = TowerConfig { listen: listen.to_owned(), ..TowerConfig::default() };
        let config = Config { tower, ..Config::default() };
        Ok::<_, Failure>(TowerProcess::start(&config, &keys, environment).await?)
    };
    let first = start("127.0.0.1:0").await?;
    let (tower_id, address) = (first.tower.key().serialize().to_vec(), first.address.clone());
    first.stop().await;

    let mut rates: [Vec<f64>; 3] = Default::default();
    let (mut delivered, mut refused, mut catch_up) = (0, 0, Vec::new());
    for round in 0..args.rounds {
        rates[0].push(rate(&line, args).await?);
        let tower = start(&address).await?;
        for (number, door) in line.doors().iter().enumerate() {
            let request = pb::AddTowerRequest {
                idempotency_key: format!("add-{round}-{number}"),
                tower_id: tower_id.clone(),
                address: address.clone(),
                mode: pb::TowerMode::Blind.into(),
            };
            TowerClient::new(door.clone()).add_tower(request).await?;
        }
        rates[1].push(rate(&line, args).await?);
        tower.stop().await;
        rates[2].push(rate(&line, args).await?);
        let tower = start(&address).await?;
        let (began, mut waited) = (Instant::now(), 0);
        for (number, door) in line.doors().iter().enumerate() {
            let mut towers = TowerClient::new(door.clone());
            let mut most = 0;
            loop {
                let list = towers.get_towers(pb::GetTowersRequest {}).await?.into_inner();
                let view = list.towers.first().ok_or("the tower is not in the list")?;
                most = most.max(view.backlog);
                if view.backlog == 0 {
                    delivered += view.delivered;
                    refused += view.refused;
                    break;
                }
                if began.elapsed() > CATCH_UP {
                    return Err(format!("{} states still wait", view.backlog).into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            waited += most;
            let request = pb::RemoveTowerRequest {
                idempotency_key: format!("remove-{round}-{number}"),
                tower_id: tower_id.clone(),
            };
            towers.remove_tower(request).await?;
        }
        catch_up.push(waited as f64 / began.elapsed().as_secs_f64());
        tower.stop().await;
    }
    let conserved = line.conserved().await?;
    line.stop().await;
    let [without_tower, with_tower, with_tower_gone] = rates.map(median);
    let figures = Figures {
        seconds: args.seconds,
        rounds: args.rounds,
        without_tower,
        with_tower,
        with_tower_gone,
        ratio_with: with_tower / without_tower,
        ratio_gone: with_tower_gone / without_tower,
        delivered,
        refused,
        catch_up_per_second: median(catch_up),
        conserved,
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

async fn rate(line: &Line, args: &Args) -> Result<f64, Failure> {
    let until = Until::Elapsed(Duration::from_secs(args.seconds));
    Ok(line.measure(args.in_flight, until).await?.payments_per_second)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
