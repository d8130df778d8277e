//! A real Bitcoin Core node over JSON-RPC, behind the chain's seams.
//!
//! Every block is checked against the hash asked for, its merkle root, its witness commitment
//! and its proof of work before anybody sees it. Nothing here needs bitcoind's wallet or its
//! transaction index. `rpc` is one connection, `failover` makes several endpoints one, `relay`
//! submits transactions and asks for fees.

mod failover;
mod relay;
mod rpc;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub use failover::EndpointHealth;
pub use rpc::RpcAuth;
pub(crate) use rpc::{CallError, Endpoint};

use self::failover::{Failover, Unread, summarize};
use self::rpc::RpcError;
use super::{BlockRef, ChainError, ChainSource, TxStatus};

/// bitcoind knows no such block, transaction or address.
const RPC_NOT_FOUND: i64 = -5;
/// A parameter is out of range, as a height above the tip.
const RPC_INVALID_PARAMETER: i64 = -8;
/// A block is pruned or not downloaded yet.
const RPC_MISC_ERROR: i64 = -1;
/// How long `changed` polls before it returns anyway.
const CHANGED_TIMEOUT: Duration = Duration::from_secs(30);
/// Outputs looked at to learn whether a transaction is confirmed when there is no index.
const OUTPUTS_PROBED: u32 = 4;

/// One bitcoind.
#[derive(Debug, Clone)]
pub struct BitcoindEndpoint {
    /// `http://host:port`.
    pub url: String,
    /// How it knows us.
    pub auth: RpcAuth,
}

/// Which nodes to ask, and how patiently.
#[derive(Debug, Clone)]
pub struct BitcoindConfig {
    /// At least one; the first is preferred.
    pub endpoints: Vec<BitcoindEndpoint>,
    /// The network all of them must be on.
    pub network: Network,
    /// Longest wait for an answer, and for each next piece of a long one [30 s].
    pub timeout: Duration,
    /// Time between two looks at the tip [1 s].
    pub poll: Duration,
}

impl BitcoindConfig {
    /// Returns the usual patience for these endpoints.
    pub fn new(network: Network, endpoints: Vec<BitcoindEndpoint>) -> Self {
        Self { endpoints, network, timeout: Duration::from_secs(30), poll: Duration::from_secs(1) }
    }
}

/// Bitcoin Core as chain source, broadcaster and fee source; clones share connections.
#[derive(Clone)]
pub struct BitcoindChain {
    endpoints: Arc<Failover>,
    network: Network,
    poll: Duration,
}

impl BitcoindChain {
    /// Connects and makes sure that the endpoints are on our network.
    ///
    /// One that cannot be reached now is tried again later, as long as another answers.
    ///
    /// # Errors
    ///
    /// [`ChainError::WrongNetwork`] or [`ChainError::Unauthorized`] if any endpoint is so;
    /// [`ChainError::Unreachable`] if none answers or a URL is unusable.
    pub async fn connect(config: BitcoindConfig) -> Result<Self, ChainError> {
        let endpoints = config
            .endpoints
            .into_iter()
            .map(|endpoint| Endpoint::new(&endpoint.url, endpoint.auth, config.timeout))
            .collect::<Result<Vec<_>, _>>()
            .map_err(ChainError::Unreachable)?;
        if endpoints.is_empty() {
            return Err(ChainError::Unreachable("no url is configured".to_owned()));
        }
        let count = endpoints.len();
        let endpoints = Failover::new(endpoints, config.network);
        let mut errors = Vec::new();
        for index in 0..count {
            match endpoints.check_network(index).await {
                Ok(()) => {}
                Err(error @ ChainError::Unreachable(_)) => errors.push(error),
                // Waiting does not cure a wrong setting: say so at the start.
                Err(error) => return Err(error),
            }
        }
        if errors.len() == count {
            return Err(summarize(errors));
        }
        Ok(Self { endpoints: Arc::new(endpoints), network: config.network, poll: config.poll })
    }

    /// Returns how each endpoint does.
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.endpoints.health()
    }

    /// Asks for something that every endpoint can answer.
    async fn ask<T>(
        &self,
        method: &str,
        params: Value,
        read: impl Fn(Result<Value, RpcError>) -> Result<T, Unread>,
    ) -> Result<T, ChainError> {
        let answer = self.endpoints.ask(method, params, read).await?;
        answer.ok_or_else(|| ChainError::BadAnswer {
            call: method.to_owned(),
            detail: "no endpoint has it".to_owned(),
        })
    }
}

/// Takes a value out of an answer.
fn field<T: DeserializeOwned>(value: &Value, name: &str) -> Result<T, Unread> {
    serde_json::from_value(value[name].clone()).map_err(|e| Unread::Bad(format!("{name}: {e}")))
}

/// Takes a whole answer.
fn whole<T: DeserializeOwned>(value: Value) -> Result<T, Unread> {
    serde_json::from_value(value).map_err(|e| Unread::Bad(e.to_string()))
}

/// An answer that bitcoind has no reason to refuse.
fn sure(answer: Result<Value, RpcError>) -> Result<Value, Unread> {
    answer.map_err(|e| Unread::Bad(format!("error {}: {}", e.code, e.message)))
}

/// An answer that is `None` if bitcoind says so with `code`.
fn unless(answer: Result<Value, RpcError>, code: i64) -> Result<Option<Value>, Unread> {
    match answer {
        Err(error) if error.code == code => Ok(None),
        other => sure(other).map(Some),
    }
}

/// Reads an amount in BTC, which bitcoind writes as a decimal with eight places.
fn amount(value: &Value) -> Result<Amount, Unread> {
    // The one float: JSON has no other number, and eight places survive the way exactly.
    let btc = value.as_f64().ok_or_else(|| Unread::Bad(format!("{value} is no amount")))?;
    Amount::from_btc(btc).map_err(|e| Unread::Bad(format!("{value}: {e}")))
}

/// Decodes a block and checks that it is the one with `hash`, whole and unaltered.
fn read_block(hash: BlockHash, hex: &str) -> Result<Block, String> {
    let block: Block = deserialize_hex(hex).map_err(|e| format!("block {hash}: {e}"))?;
    if block.block_hash() != hash {
        return Err(format!("block {} instead of {hash}", block.block_hash()));
    }
    if !block.check_merkle_root() {
        return Err(format!("block {hash} with a wrong merkle root"));
    }
    if !block.check_witness_commitment() {
        return Err(format!("block {hash} with a wrong witness commitment"));
    }
    if block.header.validate_pow(block.header.target()).is_err() {
        return Err(format!("block {hash} without its proof of work"));
    }
    Ok(block)
}

#[async_trait]
impl ChainSource for BitcoindChain {
    fn network(&self) -> Network {
        self.network
    }

    fn endpoints(&self) -> Vec<EndpointHealth> {
        self.health()
    }

    async fn tip(&self) -> Result<BlockRef, ChainError> {
        self.ask("getblockchaininfo", json!([]), |answer| {
            let info = sure(answer)?;
            Ok(BlockRef { height: field(&info, "blocks")?, hash: field(&info, "bestblockhash")? })
        })
        .await
    }

    async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        self.ask("getblockhash", json!([height]), |answer| {
            unless(answer, RPC_INVALID_PARAMETER)?.map(whole).transpose()
        })
        .await
    }

    async fn height_of(&self, hash: BlockHash) -> Result<Option<u32>, ChainError> {
        self.ask("getblockheader", json!([hash]), |answer| {
            let Some(header) = unless(answer, RPC_NOT_FOUND)? else {
                return Ok(None);
            };
            let in_best_chain = field::<i64>(&header, "confirmations")? >= 0;
            let height = field(&header, "height")?;
            Ok(in_best_chain.then_some(height))
        })
        .await
    }

    async fn block(&self, hash: BlockHash) -> Result<Arc<Block>, ChainError> {
        let block = self
            .endpoints
            .ask("getblock", json!([hash, 0]), |answer| {
                let hex = match answer {
                    Err(e) if [RPC_NOT_FOUND, RPC_MISC_ERROR].contains(&e.code) => {
                        return Err(Unread::NotHere);
                    }
                    other => sure(other)?,
                };
                let hex = hex.as_str().ok_or_else(|| Unread::Bad("no hex".to_owned()))?;
                read_block(hash, hex).map_err(Unread::Bad)
            })
            .await?;
        block.map(Arc::new).ok_or(ChainError::UnknownBlock(hash))
    }

    async fn changed(&self, known: BlockHash) {
        let deadline = Instant::now() + CHANGED_TIMEOUT;
        while Instant::now() < deadline {
            let best = self
                .ask("getbestblockhash", json!([]), |answer| whole::<BlockHash>(sure(answer)?))
                .await;
            // On failure the caller looks again, sees it, and backs off.
            if best.map_or(true, |best| best != known) {
                return;
            }
            sleep(self.poll).await;
        }
    }

    async fn transaction_status(&self, txid: Txid) -> Result<TxStatus, ChainError> {
        let mempool_entry = self
            .ask("getmempoolentry", json!([txid]), |answer| unless(answer, RPC_NOT_FOUND))
            .await?;
        if mempool_entry.is_some() {
            return Ok(TxStatus::Mempool);
        }
        // With an index this finds every transaction; without one, none of the chain's.
        let indexed = self
            .ask("getrawtransaction", json!([txid, true]), |answer| {
                let Some(tx) = unless(answer, RPC_NOT_FOUND)? else {
                    return Ok(None);
                };
                let hash: Option<BlockHash> = field(&tx, "blockhash")?;
                Ok(hash)
            })
            .await?;
        if let Some(hash) = indexed
            && let Some(height) = self.height_of(hash).await?
        {
            return Ok(TxStatus::Confirmed(BlockRef { height, hash }));
        }
        for vout in 0..OUTPUTS_PROBED {
            let depth = self
                .ask("gettxout", json!([txid, vout, false]), |answer| {
                    let output = sure(answer)?;
                    if output.is_null() {
                        return Ok(None);
                    }
                    Ok(Some((
                        field(&output, "bestblock")?,
                        field::<u32>(&output, "confirmations")?,
                    )))
                })
                .await?;
            if let Some((best, depth)) = depth
                && let Some(tip) = self.height_of(best).await?
                && let Some(height) = (tip + 1).checked_sub(depth)
                && let Some(hash) = self.block_hash(height).await?
            {
                return Ok(TxStatus::Confirmed(BlockRef { height, hash }));
            }
        }
        Ok(TxStatus::Unknown)
    }

    async fn unspent_output(&self, outpoint: OutPoint) -> Result<Option<TxOut>, ChainError> {
        self.ask("gettxout", json!([outpoint.txid, outpoint.vout, false]), |answer| {
            let output = sure(answer)?;
            if output.is_null() {
                return Ok(None);
            }
            let script: String = field(&output["scriptPubKey"], "hex")?;
            let script_pubkey =
                ScriptBuf::from_hex(&script).map_err(|e| Unread::Bad(e.to_string()))?;
            Ok(Some(TxOut { value: amount(&output["value"])?, script_pubkey }))
        })
        .await
    }

    async fn mempool(&self) -> Result<Vec<Txid>, ChainError> {
        self.ask("getrawmempool", json!([]), |answer| whole(sure(answer)?)).await
    }

    async fn mempool_transaction(&self, txid: Txid) -> Result<Option<Transaction>, ChainError> {
        self.ask("getrawtransaction", json!([txid, true]), |answer| {
            let Some(tx) = unless(answer, RPC_NOT_FOUND)? else {
                return Ok(None);
            };
            // With an index the chain's transactions are found too.
            if !tx["blockhash"].is_null() {
                return Ok(None);
            }
            let hex: String = field(&tx, "hex")?;
            let tx: Transaction = deserialize_hex(&hex).map_err(|e| Unread::Bad(e.to_string()))?;
            if tx.compute_txid() != txid {
                return Err(Unread::Bad(format!("another transaction than {txid}")));
            }
            Ok(Some(tx))
        })
        .await
    }
}
