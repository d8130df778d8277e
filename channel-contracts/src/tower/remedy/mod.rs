//! What is in a sealed blob: presigned pairs at several fee levels, or the secret to sign any.
//!
//! Both kinds answer the same questions, so that a tower runs one piece of code: which
//! [pairs](Remedy::pairs) for this feerate, which for the
//! [second stage](Remedy::second_stage_pairs), and is all of it [valid](Remedy::check).
//!
//! **Blind.** Signatures for each output of the commitment, at each level where more than dust
//! is left. The outputs of HTLC-success and HTLC-timeout transactions are *not* covered: their
//! txid is unknown in advance, as the cheater may add inputs. A blind tower can take the fee of
//! a pair for itself, which is why the highest level should be bounded (see
//! [`pair`](crate::justice::pair)).
//!
//! **Trusted.** The [`RevocationSecret`] of the state. Any feerate, second stage included; mind
//! the danger stated there.
//!
//! Bytes: [`remedy::wire`](self::wire).

use bitcoin::secp256k1::{self, Secp256k1, SecretKey, Signing, Verification};
use bitcoin::{FeeRate, ScriptBuf, Transaction, TxOut, Txid};

use super::policy::FeeLevels;
use super::seal::{Mode, OpenError, SealedBlob};
use crate::encoding::DecodeError;
use crate::justice::{
    JusticeError, Penalty, PenaltyPair, RevocationSecret, RevokedState, sign_pair,
};

pub mod wire;

/// Why a remedy cannot be made, opened or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemedyError {
    /// The money could be anybody's, or its script cannot be written down.
    #[error("sweep script {script} is not P2WPKH, P2WSH or P2TR; take an address of the wallet")]
    SweepScript {
        /// The script.
        script: ScriptBuf,
    },
    /// The penalties cannot be taken so.
    #[error(transparent)]
    Justice(#[from] JusticeError),
    /// The blob does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The bytes are not a remedy, or the remedy is too large for a blob.
    #[error(transparent)]
    Bytes(#[from] DecodeError),
}

/// What a tower can do about one revoked state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Presigned pairs.
    Blind(BlindRemedy),
    /// The secret to sign any pair.
    Trusted(TrustedRemedy),
}

/// Presigned pairs for one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlindRemedy {
    state: RevokedState,
    sweep_script: ScriptBuf,
    levels: Vec<FeeLevel>,
}

/// The signatures of one fee level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeeLevel {
    /// What each pair pays, per 1,000 weight units.
    pub feerate: FeeRate,
    /// One for each penalty that leaves more than dust at this feerate, in their order.
    pub signatures: Vec<secp256k1::ecdsa::Signature>,
}

/// The secret of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRemedy {
    state: RevokedState,
    sweep_script: ScriptBuf,
    secret: RevocationSecret,
}

impl Remedy {
    /// Signs every penalty of `state` at every level.
    ///
    /// # Errors
    ///
    /// [`RemedyError::SweepScript`], or [`JusticeError::WrongSecret`].
    pub fn blind<C: Signing>(
        secp: &Secp256k1<C>,
        state: RevokedState,
        sweep_script: ScriptBuf,
        levels: &FeeLevels,
        secret: &SecretKey,
    ) -> Result<Self, RemedyError> {
        check_secret(secp, &state, secret)?;
        check_sweep(&sweep_script)?;
        let penalties = state.expected_penalties();
        let version = state.format().transaction_version();
        let sign = |(penalty, sweep): (&Penalty, TxOut)| {
            let pair = sign_pair(secp, secret, penalty, sweep, version)?;
            Ok(pair.signature().expect("sign_pair puts a signature into the witness"))
        };
        let level = |feerate| {
            let signatures = sweeps(&penalties, &sweep_script, feerate).map(sign);
            Ok(FeeLevel { feerate, signatures: signatures.collect::<Result<_, JusticeError>>()? })
        };
        let levels = levels.feerates().iter().copied().map(level);
        let levels = levels.collect::<Result<_, JusticeError>>()?;
        Ok(Self::Blind(BlindRemedy { state, sweep_script, levels }))
    }

    /// Hands over the secret of `state`. For a tower of one's own household only.
    ///
    /// # Errors
    ///
    /// [`RemedyError::SweepScript`], or [`JusticeError::WrongSecret`].
    pub fn trusted<C: Signing>(
        secp: &Secp256k1<C>,
        state: RevokedState,
        sweep_script: ScriptBuf,
        secret: RevocationSecret,
    ) -> Result<Self, RemedyError> {
        check_secret(secp, &state, secret.expose())?;
        check_sweep(&sweep_script)?;
        Ok(Self::Trusted(TrustedRemedy { state, sweep_script, secret }))
    }

    /// Seals it for whoever sees the commitment.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLong`] if it does not fit into 64 KiB: take fewer fee levels.
    pub fn seal(&self) -> Result<SealedBlob, DecodeError> {
        SealedBlob::seal(self.state().commitment_txid(), self.mode(), &self.encode()?)
    }

    /// Opens a blob with the commitment it was sealed for.
    ///
    /// # Errors
    ///
    /// [`RemedyError::Open`] or [`RemedyError::Bytes`].
    pub fn open(commitment_txid: Txid, blob: &SealedBlob) -> Result<Self, RemedyError> {
        let plaintext = blob.open(commitment_txid)?;
        Ok(Self::decode(commitment_txid, blob.mode(), &plaintext)?)
    }

    /// Returns what the tower is trusted with.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Blind(_) => Mode::Blind,
            Self::Trusted(_) => Mode::Trusted,
        }
    }

    /// Returns the state it punishes.
    pub fn state(&self) -> &RevokedState {
        match self {
            Self::Blind(blind) => &blind.state,
            Self::Trusted(trusted) => &trusted.state,
        }
    }

    /// Returns the script that the victim is paid to.
    pub fn sweep_script(&self) -> &ScriptBuf {
        match self {
            Self::Blind(blind) => &blind.sweep_script,
            Self::Trusted(trusted) => &trusted.sweep_script,
        }
    }

    /// Returns the feerate at which [`Self::pairs`] answers when asked for `feerate`.
    ///
    /// Trusted: that one. Blind: the lowest level that is not below it, else the highest; the
    /// difference can be paid by a [`FeeRider`](crate::justice::FeeRider).
    pub fn feerate(&self, feerate: FeeRate) -> FeeRate {
        match self {
            Self::Blind(blind) => blind.level(feerate).map_or(feerate, |level| level.feerate),
            Self::Trusted(_) => feerate,
        }
    }

    /// Returns signed pairs for every output of `commitment` that is worth taking at
    /// [`Self::feerate`], `to_local` first. An output that would leave dust is left out: ask
    /// again for less.
    ///
    /// # Errors
    ///
    /// [`JusticeError`] if the transaction is not the commitment of the state, or not as the
    /// state says. Presigned pairs are not verified here but by [`Self::check`].
    pub fn pairs<C: Signing>(
        &self,
        secp: &Secp256k1<C>,
        commitment: &Transaction,
        feerate: FeeRate,
    ) -> Result<Vec<PenaltyPair>, JusticeError> {
        let penalties = self.state().penalties(commitment)?;
        match self {
            Self::Blind(blind) => {
                Ok(blind.level(feerate).map_or(vec![], |level| blind.assemble(&penalties, level)))
            }
            Self::Trusted(trusted) => trusted.sign(secp, &penalties, feerate),
        }
    }

    /// Returns signed pairs for the outputs of `spender`, by which the cheater moved HTLCs of the
    /// commitment on. Always none in blind mode.
    ///
    /// # Errors
    ///
    /// None but what [`sign_pair`] refuses; the secret was checked when the remedy was made, not
    /// when it was opened.
    pub fn second_stage_pairs<C: Signing>(
        &self,
        secp: &Secp256k1<C>,
        spender: &Transaction,
        feerate: FeeRate,
    ) -> Result<Vec<PenaltyPair>, JusticeError> {
        match self {
            Self::Blind(_) => Ok(vec![]),
            Self::Trusted(trusted) => {
                trusted.sign(secp, &trusted.state.second_stage(spender), feerate)
            }
        }
    }

    /// Checks that all of it is valid for `commitment`: outputs, and every signature or the
    /// secret.
    ///
    /// # Errors
    ///
    /// [`JusticeError`] naming the first thing that is wrong.
    pub fn check<C: Signing + Verification>(
        &self,
        secp: &Secp256k1<C>,
        commitment: &Transaction,
    ) -> Result<(), JusticeError> {
        let penalties = self.state().penalties(commitment)?;
        match self {
            Self::Blind(blind) => blind.verify(secp, &penalties),
            Self::Trusted(trusted) => check_secret(secp, &trusted.state, trusted.secret.expose()),
        }
    }
}

impl BlindRemedy {
    /// Returns the fee levels, lowest first.
    pub fn levels(&self) -> &[FeeLevel] {
        &self.levels
    }

    fn level(&self, feerate: FeeRate) -> Option<&FeeLevel> {
        self.levels.iter().find(|level| level.feerate >= feerate).or(self.levels.last())
    }

    fn assemble(&self, penalties: &[Penalty], level: &FeeLevel) -> Vec<PenaltyPair> {
        let version = self.state.format().transaction_version();
        sweeps(penalties, &self.sweep_script, level.feerate)
            .zip(&level.signatures)
            .map(|((penalty, sweep), signature)| {
                PenaltyPair::assemble(penalty, sweep, version, *signature)
            })
            .collect()
    }

    fn verify<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        penalties: &[Penalty],
    ) -> Result<(), JusticeError> {
        for level in &self.levels {
            let pairs = self.assemble(penalties, level);
            let worth = sweeps(penalties, &self.sweep_script, level.feerate);
            for (pair, (penalty, _)) in pairs.iter().zip(worth) {
                pair.verify(secp, penalty)?;
            }
        }
        Ok(())
    }
}

impl TrustedRemedy {
    fn sign<C: Signing>(
        &self,
        secp: &Secp256k1<C>,
        penalties: &[Penalty],
        feerate: FeeRate,
    ) -> Result<Vec<PenaltyPair>, JusticeError> {
        let version = self.state.format().transaction_version();
        sweeps(penalties, &self.sweep_script, feerate)
            .map(|(penalty, sweep)| sign_pair(secp, self.secret.expose(), penalty, sweep, version))
            .collect()
    }
}

/// The penalties that leave more than dust at `feerate`, each with its output.
fn sweeps<'a>(
    penalties: &'a [Penalty],
    sweep_script: &'a ScriptBuf,
    feerate: FeeRate,
) -> impl Iterator<Item = (&'a Penalty, TxOut)> {
    let sweep = move |penalty: &'a Penalty| {
        Some((penalty, penalty.sweep_output(sweep_script, feerate).ok()?))
    };
    penalties.iter().filter_map(sweep)
}

fn check_secret<C: Signing>(
    secp: &Secp256k1<C>,
    state: &RevokedState,
    secret: &SecretKey,
) -> Result<(), JusticeError> {
    JusticeError::check_secret(state.revocation_key(), secret.public_key(secp))
}

/// Refuses a script that is not the wallet's usual, above all one that anybody can spend.
fn check_sweep(script: &ScriptBuf) -> Result<(), RemedyError> {
    if script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr() {
        return Ok(());
    }
    Err(RemedyError::SweepScript { script: script.clone() })
}
