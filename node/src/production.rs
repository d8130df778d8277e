//! The real outside world, as a configuration describes it.

use std::sync::Arc;

use crate::chain::ChainError;
use crate::chain::bitcoind::{BitcoindChain, BitcoindConfig, BitcoindEndpoint, RpcAuth};
use crate::chain::embedded::{EmbeddedChain, EmbeddedConfig};
use crate::config::{ChainBackend, Config, SecretError, StoreEngine};
use crate::environment::{Committing, Environment, OsEntropy, SystemClock, TcpLinks};
use crate::store::{self, EngineKind, MemoryDisk, Store, StoreError, StoreOptions};

/// Why the outside world is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A secret of the configuration.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Environment {
    /// Opens the store and connects to the chain.
    ///
    /// # Errors
    ///
    /// See [`EnvironmentError`]. The store is opened first: a second node on one data directory
    /// goes no further.
    pub async fn production(config: &Config) -> Result<Self, EnvironmentError> {
        let store = open_store(config)?;
        let clock = Arc::new(SystemClock);
        let entropy = Arc::new(OsEntropy);
        let links = Arc::new(TcpLinks);
        let committing = Committing::Thread;
        Ok(match config.chain.backend {
            ChainBackend::Bitcoind => {
                let chain = Arc::new(BitcoindChain::connect(bitcoind(config)?).await?);
                Self {
                    clock,
                    entropy,
                    chain: chain.clone(),
                    broadcaster: chain.clone(),
                    fees: chain,
                    store,
                    links,
                    committing,
                }
            }
            ChainBackend::Embedded => {
                let chain = EmbeddedChain::new(EmbeddedConfig::default(), clock.clone());
                let chain = Arc::new(chain);
                Self {
                    clock,
                    entropy,
                    chain: chain.clone(),
                    broadcaster: chain.clone(),
                    fees: chain,
                    store,
                    links,
                    committing,
                }
            }
        })
    }
}

/// Opens the store that `config` names.
///
/// # Errors
///
/// That of the store.
pub fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let engine = match config.store.engine {
        StoreEngine::Sled => EngineKind::Sled,
        StoreEngine::Fjall => EngineKind::Fjall,
        StoreEngine::Memory => return Ok(Arc::new(MemoryDisk::new().open())),
    };
    store::open(&config.data_dir(), engine, &StoreOptions::default())
}

fn bitcoind(config: &Config) -> Result<BitcoindConfig, SecretError> {
    let auth = match config.bitcoind_cookie_file() {
        Some(cookie) => RpcAuth::Cookie(cookie),
        None => RpcAuth::UserPassword {
            user: config.chain.bitcoind.user.clone(),
            password: match &config.chain.bitcoind.password {
                Some(reference) => reference.resolve()?,
                None => zeroize::Zeroizing::default(),
            },
        },
    };
    let endpoints = config
        .bitcoind_urls()
        .into_iter()
        .map(|url| BitcoindEndpoint { url, auth: auth.clone() })
        .collect();
    Ok(BitcoindConfig::new(config.network, endpoints))
}
