//! What LDK's handlers need: signatures for our inputs of their transactions.

use bdk_wallet::LocalOutput;
use bitcoin::psbt::Psbt;
use bitcoin::{OutPoint, Transaction, TxOut, Witness};

use super::{Inner, Wallet};
use crate::keys::SignError;

/// Why a PSBT is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignPsbtError {
    /// The PSBT does not know its own inputs.
    #[error("the psbt has {maps} input maps for {inputs} inputs")]
    Shape {
        /// Inputs of the transaction.
        inputs: usize,
        /// Maps of the PSBT.
        maps: usize,
    },
    /// The PSBT lies about a coin of ours; its fee could not be what it seems.
    #[error("the psbt says {outpoint} holds {claimed:?}, the wallet knows {known:?}")]
    WrongCoin {
        /// The coin.
        outpoint: OutPoint,
        /// What the PSBT says.
        claimed: Box<TxOut>,
        /// What the wallet knows.
        known: Box<TxOut>,
    },
    /// BDK cannot describe the coin.
    #[error("cannot describe the coin {outpoint}: {detail}")]
    Describe {
        /// The coin.
        outpoint: OutPoint,
        /// What BDK said.
        detail: String,
    },
    /// No input is ours.
    #[error("no input of the psbt is a coin of this wallet")]
    NothingToSign,
    /// The keys refuse.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Wallet {
    /// Signs our inputs of `psbt` and returns the transaction; inputs of others keep what they
    /// have, finished or not. Every input needs its `witness_utxo`.
    ///
    /// # Errors
    ///
    /// [`SignPsbtError`], also if the PSBT is wrong about the amount of a coin of ours.
    pub fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, SignPsbtError> {
        self.sign(&self.lock(), psbt)
    }

    /// Returns the transaction that made `outpoint`, if the wallet knows it.
    pub fn previous_transaction(&self, outpoint: OutPoint) -> Option<Transaction> {
        let inner = self.lock();
        let transaction = inner.bdk.tx_graph().get_tx(outpoint.txid)?;
        Some(transaction.as_ref().clone())
    }

    pub(super) fn sign(&self, inner: &Inner, mut psbt: Psbt) -> Result<Transaction, SignPsbtError> {
        let inputs = psbt.unsigned_tx.input.len();
        if psbt.inputs.len() != inputs {
            return Err(SignPsbtError::Shape { inputs, maps: psbt.inputs.len() });
        }
        let mut ours = Vec::new();
        for index in 0..inputs {
            let outpoint = psbt.unsigned_tx.input[index].previous_output;
            let Some(coin) = inner.own_output(outpoint) else {
                continue;
            };
            let input = &mut psbt.inputs[index];
            if let Some(claimed) = input.witness_utxo.take_if(|claimed| *claimed != coin.txout) {
                return Err(SignPsbtError::WrongCoin {
                    outpoint,
                    claimed: Box::new(claimed),
                    known: Box::new(coin.txout),
                });
            }
            let described = inner
                .bdk
                .get_psbt_input(coin, input.sighash_type, true)
                .map_err(|error| SignPsbtError::Describe { outpoint, detail: error.to_string() })?;
            input.witness_utxo = described.witness_utxo;
            input.tap_internal_key = described.tap_internal_key;
            input.tap_key_origins = described.tap_key_origins;
            input.tap_merkle_root = described.tap_merkle_root;
            ours.push(index);
        }
        if ours.is_empty() {
            return Err(SignPsbtError::NothingToSign);
        }
        self.params.keys.sign_wallet_inputs(&mut psbt)?;
        for index in ours {
            let input = &mut psbt.inputs[index];
            if let Some(signature) = input.tap_key_sig {
                input.final_script_witness = Some(Witness::p2tr_key_spend(&signature));
            }
        }
        // The fee is the caller's business: LDK's packages pay in the child.
        Ok(psbt.extract_tx_unchecked_fee_rate())
    }
}

impl Inner {
    /// Returns an output of ours, spent or not.
    pub(super) fn own_output(&self, outpoint: OutPoint) -> Option<LocalOutput> {
        if let Some(output) = self.bdk.get_utxo(outpoint) {
            return Some(output);
        }
        self.bdk.list_output().find(|output| output.outpoint == outpoint)
    }
}
