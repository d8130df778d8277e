//! Pairs: one penalty input and one output to the victim, signed for each other alone.
//!
//! `SIGHASH_SINGLE | ANYONECANPAY` commits to the pair's own outpoint, sequence and output, and
//! to the transaction's version and locktime; to no other input or output. So pairs can be put
//! into one transaction in any number and order (input `i` beside output `i`), taken apart again
//! when the cheater was faster with one of them, and anybody can put a coin and change behind
//! them to raise the fee.
//!
//! The price: the fee inside a pair belongs to whoever builds the transaction. A tower or a
//! miner can add an output that takes it. The victim's own output cannot be touched, so what it
//! can lose is the fee it had given up. Whoever sees pairs in the mempool, the cheater too, can
//! also publish them differently combined, to get a heavier and slower transaction accepted in
//! place of ours; that costs more than the fees already offered, and a higher level or a coin
//! behind fewer pairs wins again.
//!
//! All pairs of a transaction agree on three things, since each signature commits to them:
//! - version: 3 where the commitment is (zero-fee formats), because nodes relay only a version 3
//!   child of an unconfirmed version 3 parent, and such a parent has one child; else 2.
//! - locktime 0, as the revocation path has none and pairs of different states must combine.
//! - sequence: replaceable, without a relative lock.
//!
//! Source: BIP 143; BIP 431 (TRUC); BOLT 5, "Revoked Transaction Close Handling".

use std::fmt;

use bitcoin::ecdsa::Signature;
use bitcoin::secp256k1::{self, Message, Secp256k1, SecretKey, Signing, Verification};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness, absolute,
};

use super::JusticeError;
use super::penalty::{Penalty, PenaltyKind};

/// How every pair is signed.
pub const PAIR_SIGHASH: EcdsaSighashType = EcdsaSighashType::SinglePlusAnyoneCanPay;

/// The sequence of every pair's input.
pub const PAIR_SEQUENCE: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;

/// Heaviest version 3 transaction that nodes relay beside an unconfirmed parent: 1,000 vB.
///
/// Source: BIP 431.
pub const TRUC_CHILD_WEIGHT_MAX: Weight = Weight::from_wu(4_000);

/// Heaviest version 3 transaction that nodes relay at all: 10,000 vB.
///
/// Source: BIP 431.
pub const TRUC_WEIGHT_MAX: Weight = Weight::from_wu(40_000);

/// The secret of a revocation key. Prints as `[redacted]` and is erased when dropped.
///
/// **Danger.** Together with the counterparty's per-commitment secret of the same state it
/// reveals the victim's `revocation_basepoint` secret. With that a counterparty can take all
/// HTLCs of its own *current* commitment, the victim's among them. Whoever holds this must not
/// collude with the counterparty.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationSecret(SecretKey);

impl RevocationSecret {
    /// Wraps what [`script::keys::revocation_secret`](crate::script::keys::revocation_secret)
    /// derived.
    pub fn new(secret: SecretKey) -> Self {
        Self(secret)
    }

    /// Returns the key to sign with.
    pub fn expose(&self) -> &SecretKey {
        &self.0
    }
}

impl fmt::Debug for RevocationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevocationSecret([redacted])")
    }
}

impl Drop for RevocationSecret {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

/// One penalty input and the output it pays to, signed for each other alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PenaltyPair {
    /// What is taken.
    pub kind: PenaltyKind,
    /// The output taken, for fees.
    pub spent: TxOut,
    /// The input, with its witness.
    pub input: TxIn,
    /// The victim's output.
    pub output: TxOut,
    /// The version of the transaction.
    pub version: Version,
}

/// Signs a pair that takes `penalty` and pays `sweep` in a transaction of `version`.
///
/// `version` is [`CommitmentFormat::transaction_version`] of the commitment; `sweep` usually
/// comes from [`Penalty::sweep_output`]. The signature is deterministic (RFC 6979).
///
/// [`CommitmentFormat::transaction_version`]: crate::script::CommitmentFormat::transaction_version
///
/// # Errors
///
/// [`JusticeError::WrongSecret`] if `secret` is not that of the penalty's revocation key.
pub fn sign_pair<C: Signing>(
    secp: &Secp256k1<C>,
    secret: &SecretKey,
    penalty: &Penalty,
    sweep: TxOut,
    version: Version,
) -> Result<PenaltyPair, JusticeError> {
    JusticeError::check_secret(penalty.revocation_key(), secret.public_key(secp))?;
    let signature = secp.sign_ecdsa(&message(penalty, &sweep, version), secret);
    Ok(PenaltyPair::assemble(penalty, sweep, version, signature))
}

impl PenaltyPair {
    /// Puts a pair together from a signature made before, without checking it.
    pub fn assemble(
        penalty: &Penalty,
        sweep: TxOut,
        version: Version,
        signature: secp256k1::ecdsa::Signature,
    ) -> Self {
        let signature = Signature { signature, sighash_type: PAIR_SIGHASH };
        let input = TxIn { witness: penalty.witness(&signature), ..unsigned_input(penalty) };
        let (kind, spent) = (penalty.kind, penalty.output.clone());
        Self { kind, spent, input, output: sweep, version }
    }

    /// Checks that the pair takes `penalty` in a transaction that the chain will accept.
    ///
    /// # Errors
    ///
    /// [`JusticeError::OtherOutput`], or [`JusticeError::WrongSignature`] if signature or
    /// witness are not by the penalty's revocation key over this very pair.
    pub fn verify<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        penalty: &Penalty,
    ) -> Result<(), JusticeError> {
        let (expected, actual) = (penalty.outpoint, self.outpoint());
        if actual != expected {
            return Err(JusticeError::OtherOutput { expected, actual });
        }
        let key = penalty.revocation_key();
        let wrong = JusticeError::WrongSignature { outpoint: actual, key };
        let signature = self.signature().ok_or(wrong.clone())?;
        let whole = Self::assemble(penalty, self.output.clone(), self.version, signature);
        let message = message(penalty, &self.output, self.version);
        if whole != *self || secp.verify_ecdsa(&message, &signature, &key).is_err() {
            return Err(wrong);
        }
        Ok(())
    }

    /// Returns the output it takes.
    pub fn outpoint(&self) -> OutPoint {
        self.input.previous_output
    }

    /// Returns the signature in its witness, or `None` if there is none.
    pub fn signature(&self) -> Option<secp256k1::ecdsa::Signature> {
        Some(Signature::from_slice(self.input.witness.iter().next()?).ok()?.signature)
    }

    /// Returns the fee it pays, or `None` if it pays more out than it takes.
    pub fn fee(&self) -> Option<Amount> {
        self.spent.value.checked_sub(self.output.value)
    }

    /// Returns the weight it adds to a transaction: input, witness and output.
    pub fn weight(&self) -> Weight {
        let input = self.input.segwit_weight();
        input + self.output.weight()
    }
}

/// What the builder of a transaction puts behind the pairs to raise the fee.
///
/// The wallet signs its inputs afterwards, over the whole transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeeRider {
    /// Coins of the wallet, or the commitment's pay-to-anchor output.
    pub inputs: Vec<TxIn>,
    /// Change.
    pub outputs: Vec<TxOut>,
}

/// Why pairs do not go into one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CombineError {
    /// There is none.
    #[error("no penalty is left to combine; the breach is over")]
    Nothing,
    /// Signatures commit to different versions.
    #[error("pairs are signed for versions {first} and {other}; build two transactions")]
    MixedVersions {
        /// The version of the first pair.
        first: Version,
        /// Another one.
        other: Version,
    },
    /// Two pairs take the same output.
    #[error("two pairs take {outpoint}; choose one fee level of each penalty")]
    SameOutput {
        /// The output.
        outpoint: OutPoint,
    },
}

/// Puts pairs into one transaction, `rider` behind them.
///
/// # Errors
///
/// [`CombineError`] if there is no pair, versions differ, or two pairs take the same output.
pub fn combine(
    pairs: &[PenaltyPair],
    rider: Option<FeeRider>,
) -> Result<Transaction, CombineError> {
    let version = pairs.first().ok_or(CombineError::Nothing)?.version;
    if let Some(pair) = pairs.iter().find(|pair| pair.version != version) {
        return Err(CombineError::MixedVersions { first: version, other: pair.version });
    }
    let mut outpoints: Vec<_> = pairs.iter().map(PenaltyPair::outpoint).collect();
    outpoints.sort_unstable();
    if let Some(same) = outpoints.windows(2).find(|two| two[0] == two[1]) {
        return Err(CombineError::SameOutput { outpoint: same[0] });
    }
    let rider = rider.unwrap_or_default();
    let inputs = pairs.iter().map(|pair| pair.input.clone()).chain(rider.inputs);
    let outputs = pairs.iter().map(|pair| pair.output.clone()).chain(rider.outputs);
    Ok(Transaction {
        version,
        lock_time: absolute::LockTime::ZERO,
        input: inputs.collect(),
        output: outputs.collect(),
    })
}

/// Splits pairs, in their order, into transactions of at most `max` weight each.
///
/// A pair that is heavier by itself gets a transaction of its own. Leave room in `max` for what
/// a [`FeeRider`] adds.
pub fn group_by_weight(pairs: &[PenaltyPair], max: Weight) -> Vec<Vec<PenaltyPair>> {
    // Version, locktime, marker, and both counts at their longest for standard weights: 58.
    let empty = Weight::from_wu(4 * (4 + 4 + 3 + 3) + 2);
    let mut groups: Vec<Vec<PenaltyPair>> = Vec::new();
    let mut weight = max;
    for pair in pairs {
        let grown = weight.checked_add(pair.weight()).filter(|grown| *grown <= max);
        match (grown, groups.last_mut()) {
            (Some(grown), Some(group)) => {
                group.push(pair.clone());
                weight = grown;
            }
            _ => {
                groups.push(vec![pair.clone()]);
                weight = empty + pair.weight();
            }
        }
    }
    groups
}

fn unsigned_input(penalty: &Penalty) -> TxIn {
    TxIn {
        previous_output: penalty.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: PAIR_SEQUENCE,
        witness: Witness::new(),
    }
}

/// What the signature of a pair signs. The same wherever the pair stands.
fn message(penalty: &Penalty, sweep: &TxOut, version: Version) -> Message {
    let transaction = Transaction {
        version,
        lock_time: absolute::LockTime::ZERO,
        input: vec![unsigned_input(penalty)],
        output: vec![sweep.clone()],
    };
    let sighash = SighashCache::new(&transaction)
        .p2wsh_signature_hash(0, &penalty.witness_script(), penalty.output.value, PAIR_SIGHASH)
        .expect("the transaction has one input and one output");
    Message::from(sighash)
}
