//! Several endpoints as one: who is asked, who rests after a failure, who lies.
//!
//! One endpoint is preferred and asked as long as it answers, so that answers come from one
//! best chain. One that fails rests for a growing time; one that answers nonsense is treated
//! the same.

use std::time::Duration;

use bitcoin::Network;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};

use super::rpc::{CallError, Endpoint, RpcError};
use crate::chain::ChainError;

const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

/// How an endpoint does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Its URL.
    pub url: String,
    /// Whether it is the one asked first.
    pub preferred: bool,
    /// Failures since its last good answer.
    pub failures: u32,
    /// The last failure, also of a time before the last good answer.
    pub last_error: Option<String>,
}

/// What a reader of an answer may say instead of a value.
#[derive(Debug, Clone)]
pub(crate) enum Unread {
    /// Not what the call promises: this endpoint is not to be trusted now.
    Bad(String),
    /// This endpoint does not have it; another may.
    NotHere,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
    last_error: Option<String>,
    on_our_network: bool,
}

pub(crate) struct Failover {
    endpoints: Vec<Endpoint>,
    health: Mutex<Vec<Health>>,
    preferred: Mutex<usize>,
    network: Network,
}

impl Failover {
    pub(crate) fn new(endpoints: Vec<Endpoint>, network: Network) -> Self {
        let health = endpoints.iter().map(|_| Health::default()).collect();
        Self { endpoints, health: Mutex::new(health), preferred: Mutex::new(0), network }
    }

    pub(crate) fn health(&self) -> Vec<EndpointHealth> {
        let preferred = *self.preferred.lock();
        let health = self.health.lock();
        self.endpoints
            .iter()
            .zip(health.iter())
            .enumerate()
            .map(|(index, (endpoint, health))| EndpointHealth {
                url: endpoint.url.clone(),
                preferred: index == preferred,
                failures: health.failures,
                last_error: health.last_error.clone(),
            })
            .collect()
    }

    /// Indices of the endpoints to ask, the preferred first; resting ones only if all rest.
    pub(crate) fn order(&self) -> Vec<usize> {
        let count = self.endpoints.len();
        let preferred = *self.preferred.lock();
        let now = Instant::now();
        let health = self.health.lock();
        let all: Vec<usize> = (0..count).map(|i| (preferred + i) % count).collect();
        let awake: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&i| health[i].rests_until.is_none_or(|until| until <= now))
            .collect();
        if awake.is_empty() { all } else { awake }
    }

    /// Asks until one endpoint gives an answer that `read` takes.
    ///
    /// `None` if every endpoint that answered says [`Unread::NotHere`].
    pub(crate) async fn ask<T>(
        &self,
        method: &str,
        params: Value,
        read: impl Fn(Result<Value, RpcError>) -> Result<T, Unread>,
    ) -> Result<Option<T>, ChainError> {
        let mut errors = Vec::new();
        let mut answered = false;
        for index in self.order() {
            match self.ask_one(index, method, &params, &read).await {
                Ok(Some(value)) => {
                    self.prefer(index);
                    return Ok(Some(value));
                }
                Ok(None) => answered = true,
                Err(error) => errors.push(error),
            }
        }
        if answered {
            return Ok(None);
        }
        Err(summarize(errors))
    }

    /// Asks one endpoint; `None` is [`Unread::NotHere`].
    pub(crate) async fn ask_one<T>(
        &self,
        index: usize,
        method: &str,
        params: &Value,
        read: impl Fn(Result<Value, RpcError>) -> Result<T, Unread>,
    ) -> Result<Option<T>, ChainError> {
        self.check_network(index).await?;
        let endpoint = &self.endpoints[index];
        let answer = endpoint
            .call(method, params)
            .await
            .map_err(|error| self.failed(index, chain_error(endpoint, method, error)))?;
        match read(answer) {
            Ok(value) => {
                self.succeeded(index);
                Ok(Some(value))
            }
            Err(Unread::NotHere) => {
                self.succeeded(index);
                Ok(None)
            }
            Err(Unread::Bad(detail)) => {
                let detail = format!("{}: {detail}", endpoint.url);
                Err(self.failed(index, ChainError::BadAnswer { call: method.to_owned(), detail }))
            }
        }
    }

    /// Makes sure that an endpoint is on our network, once after each failure.
    pub(crate) async fn check_network(&self, index: usize) -> Result<(), ChainError> {
        if self.health.lock()[index].on_our_network {
            return Ok(());
        }
        let endpoint = &self.endpoints[index];
        let method = "getblockchaininfo";
        let answer = endpoint
            .call(method, &json!([]))
            .await
            .map_err(|error| self.failed(index, chain_error(endpoint, method, error)))?;
        let found = answer
            .ok()
            .and_then(|info| info["chain"].as_str().map(str::to_owned))
            .unwrap_or_else(|| "an unnamed chain".to_owned());
        if Network::from_core_arg(&found).ok() != Some(self.network) {
            let error = ChainError::WrongNetwork {
                url: endpoint.url.clone(),
                found,
                expected: self.network,
            };
            return Err(self.failed(index, error));
        }
        self.health.lock()[index].on_our_network = true;
        Ok(())
    }

    fn prefer(&self, index: usize) {
        let mut preferred = self.preferred.lock();
        if *preferred != index {
            info!(url = %self.endpoints[index].url, "bitcoind endpoint changed");
            *preferred = index;
        }
    }

    fn succeeded(&self, index: usize) {
        let health = &mut self.health.lock()[index];
        health.failures = 0;
        health.rests_until = None;
    }

    fn failed(&self, index: usize, error: ChainError) -> ChainError {
        let health = &mut self.health.lock()[index];
        let rest = REST_MIN.saturating_mul(1 << health.failures.min(10)).min(REST_MAX);
        if health.failures == 0 {
            warn!(url = %self.endpoints[index].url, %error, "bitcoind endpoint failed");
        }
        health.failures = health.failures.saturating_add(1);
        health.rests_until = Some(Instant::now() + rest);
        health.last_error = Some(error.to_string());
        // Whoever listens there after a restart may be on another chain.
        health.on_our_network = false;
        error
    }
}

fn chain_error(endpoint: &Endpoint, method: &str, error: CallError) -> ChainError {
    let url = &endpoint.url;
    match error {
        CallError::Unavailable(detail) => ChainError::Unreachable(format!("{url}: {detail}")),
        CallError::Unauthorized => ChainError::Unauthorized { url: url.clone() },
        CallError::Garbled(detail) => {
            ChainError::BadAnswer { call: method.to_owned(), detail: format!("{url}: {detail}") }
        }
    }
}

/// One error for all endpoints: the only one, the first that no waiting cures, or a list.
pub(crate) fn summarize(mut errors: Vec<ChainError>) -> ChainError {
    let curable = |e: &ChainError| matches!(e, ChainError::Unreachable(_));
    if errors.len() == 1 || (!errors.is_empty() && !errors.iter().any(curable)) {
        return errors.swap_remove(0);
    }
    let texts: Vec<String> = errors
        .iter()
        .map(|error| match error {
            ChainError::Unreachable(detail) => detail.clone(),
            other => other.to_string(),
        })
        .collect();
    ChainError::Unreachable(texts.join("; "))
}
