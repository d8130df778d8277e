//! `tributary tower`: runs a tower, or makes its seed.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use node::config::{Config, StoreEngine};
use node::environment::Environment;
use node::node::tower::TowerProcess;
use node::runtime::telemetry;

use crate::args::Global;
use crate::args::run::{InitArgs, NodeSettings};
use crate::args::tower::TowerArgs;
use crate::error::CliError;
use crate::node::{asked_to_stop, configuration, failed, init, log_format, unlock};

/// Where a tower serves if nothing else is said.
const LISTEN: &str = "127.0.0.1:9738";

/// Makes the seed of a tower.
pub fn make(args: &InitArgs, settings: &NodeSettings, global: &Global) -> Result<(), CliError> {
    init(&configuration(settings, global)?, settings, args, global.json)
}

/// Runs a tower until it is stopped.
pub async fn run(args: TowerArgs, global: Global) -> Result<(), CliError> {
    let mut config = configuration(&args.settings, &global)?;
    if let Some(address) = args.serve {
        config.tower.listen = address;
    }
    if let Some(address) = args.serve_open {
        config.tower.open_listen = address;
    }
    config.tower.takes_trusted |= args.take_trusted;
    for client in args.household {
        let client = PublicKey::from_slice(&client.0).map_err(failed)?;
        config.tower.household.push(client);
    }
    if let Some(budget) = args.fee_budget_sat {
        config.tower.fee_budget_sat = budget;
    }
    if config.tower.listen.is_empty() {
        config.tower.listen = LISTEN.to_owned();
    }
    config.validate().map_err(failed)?;
    telemetry::start(&config.log, log_format(&config));
    let keys = Arc::new(unlock(&config, &args.settings)?);
    let environment = Environment::production(&config).await.map_err(failed)?;
    let tower = TowerProcess::start(&config, &keys, environment).await.map_err(failed)?;
    say(&tower, &config, global.json).await?;
    let failure = tokio::select! {
        biased;
        why = tower.committer.failed() => Some(why),
        () = asked_to_stop() => None,
    };
    tower.stop().await;
    match failure {
        None => Ok(()),
        Some(why) => Err(CliError::Failed(format!("the tower cannot go on: {why}"))),
    }
}

/// Says how clients find the tower.
async fn say(tower: &TowerProcess, config: &Config, json: bool) -> Result<(), CliError> {
    let key = tower.tower.key();
    let coins = match config.tower.fee_budget_sat {
        0 => None,
        _ => {
            let (address, ticket) = tower.wallet.new_address();
            tower.committer.durable(ticket).await.map_err(failed)?;
            Some((tower.wallet.balance().confirmed, address))
        }
    };
    if json {
        let answer = serde_json::json!({
            "tower": format!("{key}@{}", tower.address),
            "open_tower": tower.open_address,
            "appointments": tower.tower.ledger().len(),
            "watched_paths": tower.tower.watches().len(),
            "wallet_sat": coins.as_ref().map(|(balance, _)| balance.to_sat()),
            "deposit_address": coins.map(|(_, address)| address.to_string()),
        });
        println!("{answer}");
        return Ok(());
    }
    println!("tower        {key}@{}", tower.address);
    if !tower.open_address.is_empty() {
        println!("open door    {key}@{} (HTTP)", tower.open_address);
    }
    println!("appointments {}", tower.tower.ledger().len());
    if let Some((balance, address)) = coins {
        println!("paths        {}", tower.tower.watches().len());
        println!("wallet       {} sat confirmed; deposit to {address}", balance.to_sat());
    }
    if config.store.engine == StoreEngine::Memory {
        println!("store        in memory: everything is lost when the tower stops");
    }
    Ok(())
}
