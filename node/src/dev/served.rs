//! The private chain for other processes: the part of bitcoind's RPC that a node asks for.
//!
//! `tributary node` speaks to bitcoind only, so the tests that kill node processes, and a
//! newcomer without a bitcoind, point it here. Any credentials are taken; it listens on loopback
//! and serves regtest coins that are worth nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Amount, BlockHash, FeeRate, OutPoint, Transaction, Txid};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::chain::DevChain;
use crate::chain::{BroadcastError, ChainError, TxStatus};
use crate::runtime::Tasks;

/// Longest request: a package of two large transactions in hexadecimal.
const REQUEST_MAX: usize = 4 << 20;
/// Bitcoin Core's code for what it does not know.
const NOT_FOUND: i64 = -5;
/// Bitcoin Core's code for a parameter that makes no sense.
const INVALID_PARAMETER: i64 = -8;
/// Bitcoin Core's code for a transaction it refuses.
const VERIFY_REJECTED: i64 = -26;
/// Bitcoin Core's code for a method it does not have.
const METHOD_NOT_FOUND: i64 = -32601;

type Answer = Result<Value, (i64, String)>;

impl DevChain {
    /// Serves this chain on a free port of loopback until `tasks` stop; returns its address.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub async fn serve(&self, tasks: &Tasks) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let chain = self.clone();
        let runner = tasks.clone();
        tasks.spawn("chain rpc", async move {
            loop {
                let stream = tokio::select! {
                    biased;
                    () = runner.stopped() => break,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            tracing::warn!(%error, "the chain's RPC lost a connection");
                            continue;
                        }
                    },
                };
                let _ = stream.set_nodelay(true);
                let chain = chain.clone();
                let stop = runner.clone();
                runner.spawn("chain rpc connection", async move {
                    let service = service_fn(move |request| {
                        let chain = chain.clone();
                        async move { Ok::<_, Infallible>(respond(&chain, request).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        biased;
                        () = stop.stopped() => {}
                        ended = connection => {
                            if let Err(error) = ended {
                                tracing::debug!(%error, "a connection to the chain's RPC broke");
                            }
                        }
                    }
                });
            }
        });
        Ok(address)
    }

    async fn rpc(&self, method: &str, params: &[Value]) -> Answer {
        let source = self.source();
        match method {
            "getblockchaininfo" => {
                let tip = source.tip().await.map_err(internal)?;
                Ok(json!({
                    "chain": "regtest",
                    "blocks": tip.height,
                    "headers": tip.height,
                    "bestblockhash": tip.hash.to_string(),
                    "initialblockdownload": false,
                }))
            }
            "getbestblockhash" => Ok(json!(source.tip().await.map_err(internal)?.hash.to_string())),
            "getblockcount" => Ok(json!(source.tip().await.map_err(internal)?.height)),
            "getblockhash" => {
                let height = params.first().and_then(Value::as_u64).unwrap_or(u64::MAX);
                let height = u32::try_from(height).unwrap_or(u32::MAX);
                let hash = source.block_hash(height).await.map_err(internal)?;
                hash.map(|hash| json!(hash.to_string()))
                    .ok_or((INVALID_PARAMETER, "Block height out of range".into()))
            }
            "getblockheader" => {
                let hash: BlockHash = parameter(params, 0)?;
                let block = source.block(hash).await.map_err(unknown_block)?;
                let place = source.height_of(hash).await.map_err(internal)?;
                let tip = source.tip().await.map_err(internal)?;
                // As in Core: -1 for a block that is not in the best chain.
                let confirmations =
                    place.map_or(-1, |height| i64::from(tip.height) - i64::from(height) + 1);
                let height = place.or_else(|| {
                    block.bip34_block_height().ok().and_then(|height| u32::try_from(height).ok())
                });
                Ok(json!({
                    "hash": hash.to_string(),
                    "height": height.unwrap_or(0),
                    "confirmations": confirmations,
                    "time": block.header.time,
                    "previousblockhash": block.header.prev_blockhash.to_string(),
                }))
            }
            "getblock" => {
                let hash: BlockHash = parameter(params, 0)?;
                let block = source.block(hash).await.map_err(unknown_block)?;
                Ok(json!(serialize_hex(&*block)))
            }
            "getrawmempool" => {
                let ids = source.mempool().await.map_err(internal)?;
                Ok(json!(ids.iter().map(ToString::to_string).collect::<Vec<_>>()))
            }
            "getmempoolentry" => {
                let txid: Txid = parameter(params, 0)?;
                match source.transaction_status(txid).await.map_err(internal)? {
                    TxStatus::Mempool => Ok(json!({})),
                    _ => Err((NOT_FOUND, "Transaction not in mempool".into())),
                }
            }
            "getrawtransaction" => self.raw_transaction(parameter(params, 0)?).await,
            "gettxout" => {
                let txid: Txid = parameter(params, 0)?;
                let vout = params.get(1).and_then(Value::as_u64).unwrap_or(0);
                let vout = u32::try_from(vout).unwrap_or(u32::MAX);
                let outpoint = OutPoint { txid, vout };
                let output = source.unspent_output(outpoint).await.map_err(internal)?;
                let status = source.transaction_status(txid).await.map_err(internal)?;
                let tip = source.tip().await.map_err(internal)?;
                let (Some(output), TxStatus::Confirmed(block)) = (output, status) else {
                    return Ok(Value::Null);
                };
                Ok(json!({
                    "bestblock": tip.hash.to_string(),
                    "confirmations": tip.height - block.height + 1,
                    "value": output.value.to_btc(),
                    "scriptPubKey": { "hex": output.script_pubkey.to_hex_string() },
                }))
            }
            "sendrawtransaction" => {
                let transaction = raw(params.first())?;
                let txid = transaction.compute_txid();
                self.broadcaster()
                    .submit(&[transaction])
                    .await
                    .map_err(|error| (VERIFY_REJECTED, reason(&error)))?;
                Ok(json!(txid.to_string()))
            }
            "submitpackage" => {
                let package = params.first().and_then(Value::as_array).cloned();
                let package = package
                    .unwrap_or_default()
                    .iter()
                    .map(|hex| raw(Some(hex)))
                    .collect::<Result<Vec<_>, _>>()?;
                let submitted = self.broadcaster().submit(&package).await;
                Ok(match submitted {
                    Ok(()) => json!({ "package_msg": "success", "tx-results": {} }),
                    Err(error) => {
                        let results: serde_json::Map<String, Value> = package
                            .iter()
                            .map(|transaction| {
                                let txid = transaction.compute_txid().to_string();
                                let result = json!({ "txid": txid, "error": reason(&error) });
                                (transaction.compute_wtxid().to_string(), result)
                            })
                            .collect();
                        json!({ "package_msg": "transaction failed", "tx-results": results })
                    }
                })
            }
            "estimatesmartfee" => {
                let target = params.first().and_then(Value::as_u64).unwrap_or(6);
                let target = u16::try_from(target).unwrap_or(u16::MAX);
                let estimate = self.fees().estimate(target).await.map_err(internal)?;
                Ok(match estimate {
                    Some(rate) => json!({ "feerate": per_kvb(rate), "blocks": target }),
                    None => json!({ "errors": ["Insufficient data or no feerate found"] }),
                })
            }
            "getmempoolinfo" => {
                let floor = per_kvb(self.fees().mempool_minimum().await.map_err(internal)?);
                Ok(json!({ "mempoolminfee": floor, "minrelaytxfee": floor }))
            }
            other => Err((METHOD_NOT_FOUND, format!("Method not found: {other}"))),
        }
    }

    async fn raw_transaction(&self, txid: Txid) -> Answer {
        let source = self.source();
        let unknown = || (NOT_FOUND, "No such mempool or blockchain transaction".to_owned());
        match source.transaction_status(txid).await.map_err(internal)? {
            TxStatus::Mempool => {
                let transaction = source.mempool_transaction(txid).await.map_err(internal)?;
                let transaction = transaction.ok_or_else(unknown)?;
                Ok(json!({ "txid": txid.to_string(), "hex": serialize_hex(&transaction) }))
            }
            TxStatus::Confirmed(place) => {
                let block = source.block(place.hash).await.map_err(internal)?;
                let found = block.txdata.iter().find(|t| t.compute_txid() == txid);
                let transaction = found.ok_or_else(unknown)?;
                Ok(json!({
                    "txid": txid.to_string(),
                    "hex": serialize_hex(transaction),
                    "blockhash": place.hash.to_string(),
                }))
            }
            TxStatus::Unknown => Err(unknown()),
        }
    }
}

async fn respond(chain: &DevChain, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), REQUEST_MAX).collect().await;
    let call: Value = match &body.map(|body| body.to_bytes()) {
        Ok(bytes) => serde_json::from_slice(bytes).unwrap_or(Value::Null),
        Err(_) => Value::Null,
    };
    let params = call["params"].as_array().cloned().unwrap_or_default();
    let answer = chain.rpc(call["method"].as_str().unwrap_or_default(), &params).await;
    let answer = match answer {
        Ok(result) => json!({ "result": result, "error": null, "id": call["id"] }),
        Err((code, message)) => json!({
            "result": null,
            "error": { "code": code, "message": message },
            "id": call["id"],
        }),
    };
    Response::new(Full::new(Bytes::from(answer.to_string())))
}

fn parameter<T: FromStr>(params: &[Value], index: usize) -> Result<T, (i64, String)> {
    params
        .get(index)
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| (INVALID_PARAMETER, format!("parameter {index} cannot be read")))
}

fn raw(hex: Option<&Value>) -> Result<Transaction, (i64, String)> {
    hex.and_then(Value::as_str)
        .and_then(|hex| deserialize_hex(hex).ok())
        .ok_or_else(|| (-22, "TX decode failed".to_owned()))
}

fn internal(error: ChainError) -> (i64, String) {
    (-1, error.to_string())
}

fn unknown_block(_: ChainError) -> (i64, String) {
    (NOT_FOUND, "Block not found".to_owned())
}

fn reason(error: &BroadcastError) -> String {
    match error {
        BroadcastError::Rejected { reason, .. } => reason.clone(),
        BroadcastError::MissingInputs { .. } => "bad-txns-inputs-missingorspent".to_owned(),
        BroadcastError::Chain(error) => error.to_string(),
    }
}

/// BTC per 1,000 virtual bytes, as Bitcoin Core writes feerates.
fn per_kvb(rate: FeeRate) -> f64 {
    Amount::from_sat(rate.to_sat_per_kwu() * 4).to_btc()
}
