//! The faucet: coins mined at start that development and tests pay out.
//!
//! They lie on the script `OP_TRUE`, so there is no key to keep; no wallet watches it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bitcoin::{
    Amount, Block, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute, opcodes, transaction,
};

use super::State;
use super::accept::Mode;
use super::policy::fee_ceil;
use super::rules::COINBASE_MATURITY;

/// Inputs of one payment at most.
const MAX_INPUTS: usize = 500;
/// Change below this goes to the miner.
const MIN_CHANGE: Amount = Amount::from_sat(1_000);

/// Why the faucet does not pay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FundError {
    /// It has too little.
    #[error("the faucet has {available} to spend and {needed} is needed; mine on or premine more")]
    Dry {
        /// What it can spend now.
        available: Amount,
        /// What was asked for, with the fee.
        needed: Amount,
    },
    /// The payment is refused.
    #[error("the faucet's payment was refused: {0}; ask for another amount or script")]
    Refused(String),
}

/// What the faucet owns in the best chain.
pub(super) struct Faucet {
    script: ScriptBuf,
    witness_script: ScriptBuf,
    coins: BTreeMap<OutPoint, Amount>,
    /// Its own payments, also unconfirmed ones.
    payments: HashSet<Txid>,
}

impl Faucet {
    pub(super) fn new() -> Self {
        let witness_script = ScriptBuf::builder().push_opcode(opcodes::OP_TRUE).into_script();
        Self {
            script: witness_script.to_p2wsh(),
            witness_script,
            coins: BTreeMap::new(),
            payments: HashSet::new(),
        }
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    /// Says whether `txid` is a payment of the faucet.
    pub(super) fn paid(&self, txid: &Txid) -> bool {
        self.payments.contains(txid)
    }

    /// Follows a block onto or off the best chain.
    pub(super) fn observe(&mut self, block: &Block, connected: bool) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            for (vout, output) in tx.output.iter().enumerate() {
                if output.script_pubkey == self.script {
                    let outpoint = OutPoint::new(txid, vout as u32);
                    // Spent ones stay listed, for they may come back; the ledger knows better.
                    if connected {
                        self.coins.insert(outpoint, output.value);
                    } else {
                        self.coins.remove(&outpoint);
                    }
                }
            }
        }
    }
}

impl State {
    /// Pays from confirmed coins first, then from own unconfirmed change.
    pub(super) fn fund(
        &mut self,
        payments: &[(ScriptBuf, Amount)],
    ) -> Result<Vec<OutPoint>, FundError> {
        let outputs: Vec<TxOut> = payments
            .iter()
            .map(|(script, value)| TxOut { value: *value, script_pubkey: script.clone() })
            .collect();
        let wanted = outputs
            .iter()
            .try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value))
            .ok_or_else(|| FundError::Refused("bad-txns-txouttotal-toolarge".to_owned()))?;
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: Vec::new(),
            output: outputs,
        };
        tx.output.push(TxOut { value: Amount::ZERO, script_pubkey: self.faucet.script.clone() });
        let rate = self.feerates.min_relay.max(self.feerates.mempool_minimum);
        let mut available = Amount::ZERO;
        let mut needed = wanted;
        for (outpoint, value) in self.spendable() {
            tx.input.push(TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[self.faucet.witness_script.as_bytes()]),
            });
            available += value;
            needed = wanted + fee_ceil(rate, tx.vsize() as u64);
            if available >= needed || tx.input.len() == MAX_INPUTS {
                break;
            }
        }
        let Some(change) = available.checked_sub(needed) else {
            return Err(FundError::Dry { available, needed });
        };
        if change < MIN_CHANGE || tx.input.is_empty() {
            tx.output.pop();
        } else if let Some(last) = tx.output.last_mut() {
            last.value = change;
        }
        let tx = Arc::new(tx);
        let txid = tx.compute_txid();
        // Exempt: many payments between two blocks make long chains of change.
        self.pool()
            .accept_single(&tx, Mode::Exempt)
            .map_err(|refusal| FundError::Refused(refusal.reason.into_owned()))?;
        self.faucet.payments.insert(txid);
        Ok((0..payments.len() as u32).map(|vout| OutPoint::new(txid, vout)).collect())
    }

    /// Lists coins that can be spent now, confirmed ones first, in a fixed order.
    fn spendable(&self) -> Vec<(OutPoint, Amount)> {
        let height = self.ledger.height() + 1;
        let unspent = |outpoint: &OutPoint| self.mempool.spender(outpoint).is_none();
        let confirmed = self.faucet.coins.iter().filter(|(outpoint, _)| {
            self.ledger
                .coin(outpoint)
                .is_some_and(|coin| !coin.coinbase || height >= coin.height + COINBASE_MATURITY)
                && unspent(outpoint)
        });
        let mut coins: Vec<(OutPoint, Amount)> = confirmed.map(|(o, v)| (*o, *v)).collect();
        for txid in self.mempool.txids() {
            if !self.faucet.paid(&txid) {
                continue;
            }
            let outputs = self.mempool.get(&txid).map(|entry| &entry.tx.output[..]);
            for (vout, output) in outputs.unwrap_or_default().iter().enumerate() {
                let outpoint = OutPoint::new(txid, vout as u32);
                if output.script_pubkey == self.faucet.script && unspent(&outpoint) {
                    coins.push((outpoint, output.value));
                }
            }
        }
        coins
    }
}
