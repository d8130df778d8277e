//! Spends of a swap's output: by preimage, by time, by both keys.
//!
//! Each takes a transaction of the caller's and returns the witness of one input, since a swap
//! rides with others in a batch transaction or a sweep. A preimage or a time that does not fit
//! is refused before anything is signed.
//!
//! Source: BATCHES §7.

use bitcoin::{Transaction, TxOut, Witness};

use crate::musig::{AggregateError, AggregateSecret, SchnorrSignature, TreeSecret};
use crate::script::batch_node::{key_path_message, script_path_message};
use crate::script::swap::SwapOutput;
use crate::script::{Preimage, batch_node};

/// Why a swap's output is not spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SwapSpendError {
    /// The preimage is another's.
    #[error("preimage does not hash to {expected}")]
    WrongPreimage {
        /// The hash of the swap.
        expected: bitcoin::hashes::sha256::Hash,
    },
    /// The secret is not that of the leaf.
    #[error("the secret is not that of the leaf's key")]
    WrongSecret,
    /// Locktime or sequence do not satisfy the refund leaf.
    #[error("locktime or sequence are too early for the refund")]
    TooEarly,
    /// The secrets do not make the key of the output.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
}

/// One input of a transaction that spends a swap's output.
#[derive(Debug, Clone, Copy)]
pub struct SwapSpend<'a> {
    /// The output.
    pub output: &'a SwapOutput,
    /// The transaction.
    pub transaction: &'a Transaction,
    /// Which of its inputs.
    pub input: usize,
    /// What all its inputs spend, in order.
    pub spent: &'a [TxOut],
}

impl SwapSpend<'_> {
    /// Claims with the preimage and the claimer's secret.
    ///
    /// # Errors
    ///
    /// [`SwapSpendError::WrongPreimage`] or [`SwapSpendError::WrongSecret`].
    ///
    /// # Panics
    ///
    /// Unless `spent` has one output for each input of the transaction.
    pub fn claim(
        &self,
        preimage: &Preimage,
        claimer: &TreeSecret,
    ) -> Result<Witness, SwapSpendError> {
        let contract = self.output.contract();
        if preimage.hash() != contract.hash {
            return Err(SwapSpendError::WrongPreimage { expected: contract.hash });
        }
        if claimer.public_key() != contract.claimer {
            return Err(SwapSpendError::WrongSecret);
        }
        let signature = self.sign_leaf(contract.claim_leaf(), claimer);
        Ok(self.output.claim_witness(&signature, preimage))
    }

    /// Takes the output back with the refunder's secret.
    ///
    /// # Errors
    ///
    /// [`SwapSpendError::TooEarly`] unless locktime and sequence satisfy the leaf;
    /// [`SwapSpendError::WrongSecret`].
    ///
    /// # Panics
    ///
    /// Unless `spent` has one output for each input of the transaction.
    pub fn refund(&self, refunder: &TreeSecret) -> Result<Witness, SwapSpendError> {
        let contract = self.output.contract();
        if refunder.public_key() != contract.refunder {
            return Err(SwapSpendError::WrongSecret);
        }
        let sequence = self.transaction.input[self.input].sequence;
        let is_due = match contract.refund_time {
            super::RefundTime::Height(_) => {
                let lock_time = self.output.refund_lock_time();
                lock_time.is_implied_by(self.transaction.lock_time)
                    && sequence.enables_absolute_lock_time()
            }
            super::RefundTime::Blocks(blocks) => {
                let lock = bitcoin::relative::LockTime::from(blocks);
                // BIP 68 counts from version 2 on.
                self.transaction.version.0 >= 2
                    && sequence
                        .to_relative_lock_time()
                        .is_some_and(|actual| lock.is_implied_by(actual))
            }
        };
        if !is_due {
            return Err(SwapSpendError::TooEarly);
        }
        let signature = self.sign_leaf(contract.refund_leaf(), refunder);
        Ok(self.output.refund_witness(&signature))
    }

    /// Spends by key path with both sides' secrets, one of them handed over.
    ///
    /// # Errors
    ///
    /// [`SwapSpendError::Aggregate`] unless they are the contract's.
    ///
    /// # Panics
    ///
    /// Unless `spent` has one output for each input of the transaction.
    pub fn by_key(&self, secrets: [&TreeSecret; 2]) -> Result<Witness, SwapSpendError> {
        let root = self.output.contract().merkle_root();
        let secret = AggregateSecret::new(&secrets, root, self.output.output_key())?;
        let message = key_path_message(self.transaction, self.input, self.spent);
        Ok(self.output.key_witness(&secret.sign(&message)))
    }

    fn sign_leaf(&self, leaf: bitcoin::TapLeafHash, secret: &TreeSecret) -> SchnorrSignature {
        let message = script_path_message(self.transaction, self.input, self.spent, leaf);
        secret.sign(&message)
    }
}

/// Returns the weight of the witness that claims: count, signature, preimage, script, control.
pub fn claim_witness_weight() -> bitcoin::Weight {
    bitcoin::Weight::from_wu(1 + 65 + 33 + (1 + 73) + (1 + 65))
}

/// Returns the weight of the key-path witness.
pub fn key_witness_weight() -> bitcoin::Weight {
    batch_node::KEY_PATH_WITNESS_WEIGHT
}
