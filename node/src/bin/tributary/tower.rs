//! `tributary tower`: runs a tower, or makes its seed.

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
    if config.tower.listen.is_empty() {
        config.tower.listen = LISTEN.to_owned();
    }
    config.validate().map_err(failed)?;
    telemetry::start(&config.log, log_format(&config));
    let keys = unlock(&config, &args.settings)?;
    let environment = Environment::production(&config).await.map_err(failed)?;
    let tower = TowerProcess::start(&config, &keys, environment).await.map_err(failed)?;
    say(&tower, &config, global.json);
    let failure = tokio::select! {
        biased;
        why = tower.committer.failed() => Some(why),
        () = asked_to_stop() => None,
    };
    tower.stop().await;
    match failure {
        None => Ok(()),
        Some(why) => Err(CliError::Failed(format!("the store failed: {why}"))),
    }
}

/// Says how clients find the tower.
fn say(tower: &TowerProcess, config: &Config, json: bool) {
    let key = tower.tower.key();
    if json {
        let answer = serde_json::json!({
            "tower": format!("{key}@{}", tower.address),
            "open_tower": tower.open_address,
            "appointments": tower.tower.ledger().len(),
        });
        println!("{answer}");
        return;
    }
    println!("tower        {key}@{}", tower.address);
    if !tower.open_address.is_empty() {
        println!("open door    {key}@{} (HTTP)", tower.open_address);
    }
    println!("appointments {}", tower.tower.ledger().len());
    if config.store.engine == StoreEngine::Memory {
        println!("store        in memory: everything is lost when the tower stops");
    }
}
