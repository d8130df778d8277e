//! Submitting transactions to bitcoind, and asking it for feerates.
//!
//! A package goes to every endpoint that is awake, and one that takes it is enough: an
//! endpoint that swallows our exits must not be the only one that heard of them.

use async_trait::async_trait;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, FeeRate, Transaction, Txid};
use futures::future::join_all;
use serde_json::{Value, json};
use tracing::debug;

use super::failover::{Unread, summarize};
use super::rpc::RpcError;
use super::{BitcoindChain, amount, sure};
use crate::chain::{BroadcastError, Broadcaster, ChainError, ChainSource, FeeSource, TxStatus};

/// All outputs exist already: the transaction is confirmed.
const RPC_ALREADY_IN_CHAIN: i64 = -27;
const MISSING_INPUTS: &str = "bad-txns-inputs-missingorspent";
/// Words that say the transaction is here already.
const KNOWN: [&str; 3] =
    ["txn-already-in-mempool", "txn-already-known", "txn-same-nonwitness-data-in-mempool"];

/// What bitcoind says of a package when the reason stands at a member.
const PACKAGE_FAILED: [&str; 2] = ["transaction failed", "unspent-dust"];
/// Refusals of a single transaction that a package may cure.
const CURED_BY_PACKAGE: [&str; 5] = [
    "min relay fee not met",
    "mempool min fee not met",
    "insufficient fee",
    "package-not-validated",
    MISSING_INPUTS,
];

/// A refusal: who, and why in bitcoind's words without its details.
type Refused = (Txid, String);

#[async_trait]
impl Broadcaster for BitcoindChain {
    async fn submit(&self, package: &[Transaction]) -> Result<(), BroadcastError> {
        if package.is_empty() {
            return Ok(());
        }
        let hex: Vec<String> = package.iter().map(serialize_hex).collect();
        let txids: Vec<Txid> = package.iter().map(Transaction::compute_txid).collect();
        // Fees are our own business: no ceiling on bitcoind's side.
        let (method, params) = match &hex[..] {
            [one] => ("sendrawtransaction", json!([one, 0])),
            _ => ("submitpackage", json!([hex, 0])),
        };
        let order = self.endpoints.order();
        let answers = join_all(order.iter().map(|&index| {
            self.endpoints.ask_one(index, method, &params, |answer| match &txids[..] {
                [txid] => Ok(read_single(*txid, answer)),
                _ => read_package(&txids, answer),
            })
        }))
        .await;
        let mut errors = Vec::new();
        let mut refused = None;
        for answer in answers {
            match answer {
                Ok(Some(Ok(()))) => return Ok(()),
                Ok(Some(Err(refusal))) => refused = refused.or(Some(refusal)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        let Some((txid, reason)) = refused else {
            return Err(summarize(errors).into());
        };
        if reason != MISSING_INPUTS {
            return Err(BroadcastError::Rejected { txid, reason });
        }
        // Its inputs may be spent by itself, in a block.
        match self.transaction_status(txid).await {
            Ok(TxStatus::Confirmed(_)) if txids.last() == Some(&txid) => Ok(()),
            _ => Err(BroadcastError::MissingInputs { txid }),
        }
    }
}

fn word(text: &str) -> String {
    text.split(", ").next().unwrap_or(text).to_owned()
}

fn read_single(txid: Txid, answer: Result<Value, RpcError>) -> Result<(), Refused> {
    let Err(error) = answer else {
        return Ok(());
    };
    debug!(%txid, code = error.code, message = %error.message, "bitcoind refused a transaction");
    let reason = word(&error.message);
    if error.code == RPC_ALREADY_IN_CHAIN || KNOWN.contains(&reason.as_str()) {
        return Ok(());
    }
    Err((txid, reason))
}

/// Reads the answer to `submitpackage`: a message for the whole and a result for each.
fn read_package(
    txids: &[Txid],
    answer: Result<Value, RpcError>,
) -> Result<Result<(), Refused>, Unread> {
    let child = txids[txids.len() - 1];
    let result = match answer {
        Ok(result) => result,
        Err(error) => return Ok(Err((child, word(&error.message)))),
    };
    let message =
        result["package_msg"].as_str().ok_or_else(|| Unread::Bad("no package_msg".to_owned()))?;
    if message == "success" {
        return Ok(Ok(()));
    }
    debug!(txid = %child, %message, results = %result["tx-results"], "bitcoind refused a package");
    if !PACKAGE_FAILED.contains(&message) {
        return Ok(Err((child, word(message))));
    }
    let results =
        result["tx-results"].as_object().ok_or_else(|| Unread::Bad("no tx-results".to_owned()))?;
    let result_of =
        |txid: &Txid| results.values().find(|r| r["txid"].as_str() == Some(&txid.to_string()));
    // Where the child was taken its parents exist, whatever is said of them: they may be
    // confirmed and spent.
    if result_of(&child).is_some_and(|r| r["error"].is_null()) {
        return Ok(Ok(()));
    }
    let refusals: Vec<Refused> = txids
        .iter()
        .filter_map(|txid| Some((*txid, word(result_of(txid)?["error"].as_str()?))))
        .filter(|(_, reason)| !KNOWN.contains(&reason.as_str()))
        .collect();
    // A member that fails alone for its fee or for want of its parent says nothing of the
    // package: what is worse counts, else what was said last.
    let worse = refusals.iter().find(|(_, reason)| !CURED_BY_PACKAGE.contains(&reason.as_str()));
    Ok(worse.or(refusals.last()).cloned().map_or(Ok(()), Err))
}

/// BTC per 1,000 virtual bytes as a feerate, rounded up.
fn feerate(per_kvb: Amount) -> FeeRate {
    FeeRate::from_sat_per_kwu(per_kvb.to_sat().div_ceil(4))
}

#[async_trait]
impl FeeSource for BitcoindChain {
    async fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError> {
        let target = target_blocks.clamp(1, 1_008);
        self.ask("estimatesmartfee", json!([target]), |answer| {
            // An error says that estimation is off; no feerate, that there is too little data.
            match answer {
                Ok(estimate) if !estimate["feerate"].is_null() => {
                    amount(&estimate["feerate"]).map(|per_kvb| Some(feerate(per_kvb)))
                }
                _ => Ok(None),
            }
        })
        .await
    }

    async fn mempool_minimum(&self) -> Result<FeeRate, ChainError> {
        self.ask("getmempoolinfo", json!([]), |answer| {
            let info = sure(answer)?;
            let floor = amount(&info["mempoolminfee"])?.max(amount(&info["minrelaytxfee"])?);
            Ok(feerate(floor))
        })
        .await
    }
}
