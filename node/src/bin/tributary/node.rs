//! `tributary node`: starts a node from its configuration, or makes its seed.

use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::Network;
use node::config::{Config, LogFormat, SecretRef, StoreEngine};
use node::environment::{Environment, OsEntropy};
use node::keys::{Keys, NewSeed, RecoveryPhrase, SealCost, WordCount};
use node::node::Node;
use node::runtime::telemetry;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::args::run::{InitArgs, NetworkArg, NodeArgs, NodeSettings, NodeVerb};
use crate::error::CliError;

/// The configuration file looked for in the data directory.
const CONFIG_FILE: &str = "config.toml";
/// The shortest password a new seed is sealed with.
const PASSWORD_MIN: usize = 8;

/// Runs a node until it is stopped, or makes its seed (`init`).
pub async fn run(args: NodeArgs, global: Global) -> Result<(), CliError> {
    let config = configuration(&args.settings, &global)?;
    match args.verb {
        Some(NodeVerb::Init(words)) => init(&config, &args.settings, &words, global.json),
        None => serve(config, &args.settings).await,
    }
}

/// The file, then what the command line puts over it.
pub fn configuration(settings: &NodeSettings, global: &Global) -> Result<Config, CliError> {
    let implied = global.data_dir.as_ref().map(|dir| dir.join(CONFIG_FILE));
    let file: Option<PathBuf> =
        settings.config.clone().or_else(|| implied.filter(|file| file.is_file()));
    let mut config = Config::load(file.as_deref()).map_err(failed)?;
    if let Some(network) = settings.network {
        config.network = match network {
            NetworkArg::Mainnet => Network::Bitcoin,
            NetworkArg::Testnet4 => Network::Testnet4,
            NetworkArg::Signet => Network::Signet,
            NetworkArg::Regtest => Network::Regtest,
        };
    }
    if let Some(dir) = &global.data_dir {
        config.data_dir.clone_from(dir);
    }
    if let Some(alias) = &settings.alias {
        config.alias.clone_from(alias);
    }
    if !settings.listen.is_empty() {
        config.lightning.listen_addresses.clone_from(&settings.listen);
    }
    if !settings.bitcoind_url.is_empty() {
        config.chain.bitcoind.urls.clone_from(&settings.bitcoind_url);
    }
    if let Some(cookie) = &settings.bitcoind_cookie {
        config.chain.bitcoind.cookie_file.clone_from(cookie);
    }
    if let Some(name) = &settings.store {
        let engines = [StoreEngine::Fjall, StoreEngine::Sled, StoreEngine::Memory];
        let engine = engines.into_iter().find(|engine| engine.name() == name);
        config.store.engine = engine.ok_or_else(|| {
            CliError::Usage(format!("store engine {name:?} does not exist: fjall, sled or memory"))
        })?;
    }
    if let Some(log) = &settings.log {
        config.log.clone_from(log);
    }
    if let Some(rpc) = &global.rpc {
        config.rpc.listen.clone_from(rpc);
    }
    config.validate().map_err(failed)?;
    Ok(config)
}

pub fn init(
    config: &Config,
    settings: &NodeSettings,
    args: &InitArgs,
    json: bool,
) -> Result<(), CliError> {
    let InitArgs { mnemonic_file, words } = args;
    let dir = config.data_dir();
    if Keys::exist_in(&dir) {
        return Err(CliError::Failed(format!(
            "{} has a seed already; a seed is never overwritten. Choose another --data-dir",
            dir.display()
        )));
    }
    let entropy = OsEntropy;
    let phrase = match mnemonic_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
                CliError::Failed(format!("cannot read {}: {error}", file.display()))
            })?;
            RecoveryPhrase::parse(&text).map_err(failed)?
        }
        None if words == "12" => RecoveryPhrase::generate(WordCount::Twelve, &entropy),
        None => RecoveryPhrase::generate(WordCount::TwentyFour, &entropy),
    };
    let password = new_password(config, settings)?;
    let keys = Keys::create(
        &dir,
        config.network,
        &NewSeed {
            phrase: &phrase,
            passphrase: "",
            password: &password,
            cost: SealCost::default(),
        },
        &entropy,
    )
    .map_err(failed)?;
    let made = mnemonic_file.is_none();
    let shown: Vec<&str> = phrase.words().collect();
    if json {
        let mut answer = serde_json::json!({
            "node_id": keys.node_id().to_string(),
            "data_dir": dir.display().to_string(),
        });
        if made {
            answer["words"] = serde_json::json!(shown);
        }
        println!("{answer:#}");
        return Ok(());
    }
    println!("node id   {}", keys.node_id());
    println!("data      {}", dir.display());
    if made {
        println!();
        println!("These words are the node's money. They are shown once; write them down:");
        println!();
        for (row, words) in shown.chunks(4).enumerate() {
            let numbered: Vec<String> = (row * 4 + 1..)
                .zip(words)
                .map(|(number, word)| format!("{number:>2}. {word:<10}"))
                .collect();
            println!("  {}", numbered.join(" "));
        }
    }
    Ok(())
}

fn new_password(config: &Config, settings: &NodeSettings) -> Result<Zeroizing<String>, CliError> {
    if let Some(password) = referenced_password(config, settings)? {
        return long_enough(password);
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
            CliError::Failed(format!("cannot ask for a password: {error}; give --password-file"))
        })
    };
    let first = long_enough(ask("Password that seals the seed: ")?)?;
    if *first != *ask("Once more: ")? {
        return Err(CliError::Failed("the two passwords differ; nothing was made".into()));
    }
    Ok(first)
}

fn long_enough(password: Zeroizing<String>) -> Result<Zeroizing<String>, CliError> {
    if password.chars().count() < PASSWORD_MIN {
        return Err(CliError::Failed(format!(
            "the password has fewer than {PASSWORD_MIN} characters; nothing was made"
        )));
    }
    Ok(password)
}

/// The password by file, else by the configuration's reference.
fn referenced_password(
    config: &Config,
    settings: &NodeSettings,
) -> Result<Option<Zeroizing<String>>, CliError> {
    let reference = match &settings.password_file {
        Some(file) => Some(SecretRef::File(file.clone())),
        None => config.keys.password.clone(),
    };
    reference.map(|reference| reference.resolve().map_err(failed)).transpose()
}

/// Opens the sealed seed.
pub fn unlock(config: &Config, settings: &NodeSettings) -> Result<Keys, CliError> {
    let password = match referenced_password(config, settings)? {
        Some(password) => password,
        None => rpassword::prompt_password("Password: ").map(Zeroizing::new).map_err(|error| {
            CliError::Failed(format!("cannot ask for the password: {error}; give --password-file"))
        })?,
    };
    Keys::unlock(&config.data_dir(), config.network, &password).map_err(failed)
}

async fn serve(config: Config, settings: &NodeSettings) -> Result<(), CliError> {
    telemetry::start(&config.log, log_format(&config));
    let keys = unlock(&config, settings)?;
    let environment = Environment::production(&config).await.map_err(failed)?;
    let node = Node::start(config, Arc::new(keys), environment).await.map_err(failed)?;
    let failure = tokio::select! {
        biased;
        why = node.committer.failed() => Some(why),
        () = asked_to_stop() => None,
        () = node.stop_requested() => None,
    };
    node.stop().await;
    match failure {
        None => Ok(()),
        Some(why) => Err(CliError::Failed(format!("the node cannot go on: {why}"))),
    }
}

/// Ctrl-C, or the polite signal of a service manager.
pub async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

pub fn log_format(config: &Config) -> telemetry::LogFormat {
    match config.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    }
}

pub fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}
