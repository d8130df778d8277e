//! The bytes of a remedy, before they are sealed.
//!
//! ```text
//! state (justice::encoding) │ sweep: 0 P2WPKH (1) hash (20), 1 P2WSH or 2 P2TR (1) program (32)
//! blind:   levels (1) │ each: feerate (BigSize) │ signatures (64 each) │ zeros up to a size class
//! trusted: revocation secret (32)
//! ```
//!
//! How many signatures a level has is not written: each penalty that leaves more than dust at
//! its feerate has one. A blind remedy is padded to the next of [`SIZE_CLASSES`], so that its
//! length tells the number of HTLCs only roughly. At three levels the first class holds a state
//! without HTLCs; each HTLC costs 41 to 49 bytes, and 64 for each level at which it is worth taking.

use bitcoin::secp256k1::{SecretKey, ecdsa};
use bitcoin::{FeeRate, ScriptBuf, Txid, WitnessProgram, WitnessVersion};
use zeroize::Zeroizing;

use super::{BlindRemedy, FeeLevel, Remedy, TrustedRemedy, sweeps};
use crate::encoding::{DecodeError, Reader, push_big_size, within};
use crate::justice::{RevocationSecret, RevokedState};
use crate::tower::policy::{FEE_LEVELS_MAX, FEERATE_MAX, FEERATE_MIN, FeeLevels};
use crate::tower::seal::{BLOB_LEN_MAX, BLOB_OVERHEAD, Mode};

/// Lengths that the plaintext of a blind remedy may have, in bytes.
pub const SIZE_CLASSES: [usize; 9] =
    [320, 640, 1_280, 2_560, 5_120, 10_240, 20_480, 40_960, BLOB_LEN_MAX - BLOB_OVERHEAD];

impl Remedy {
    /// Encodes it, padded if it is blind.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLong`] if it exceeds the last size class: take fewer fee levels.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
        let mut bytes = Zeroizing::new(self.state().encode());
        push_sweep(&mut bytes, self.sweep_script());
        match self {
            Self::Blind(blind) => {
                let levels = u8::try_from(blind.levels.len()).expect("at most 8 fee levels");
                bytes.push(levels);
                for level in &blind.levels {
                    push_big_size(&mut bytes, level.feerate.to_sat_per_kwu());
                    for signature in &level.signatures {
                        bytes.extend(signature.serialize_compact());
                    }
                }
                let class = size_class(bytes.len())?;
                bytes.resize(class, 0);
            }
            Self::Trusted(trusted) => bytes.extend(trusted.secret.expose().secret_bytes()),
        }
        Ok(bytes)
    }

    /// Decodes what was sealed in `mode` for `commitment_txid`.
    ///
    /// Signatures are not verified; see [`Remedy::check`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(commitment_txid: Txid, mode: Mode, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let state = RevokedState::read(commitment_txid, &mut reader)?;
        let sweep_script = read_sweep(&mut reader)?;
        if mode == Mode::Trusted {
            let secret = Zeroizing::new(reader.array::<32>("revocation secret")?);
            reader.finish("trusted remedy")?;
            let secret = SecretKey::from_slice(&*secret)
                .map_err(|_| DecodeError::Invalid { field: "revocation secret" })?;
            let secret = RevocationSecret::new(secret);
            return Ok(Self::Trusted(TrustedRemedy { state, sweep_script, secret }));
        }
        let levels = read_levels(&mut reader, &state, &sweep_script)?;
        let padding = reader.rest();
        let length = bytes.len() - padding.len();
        if size_class(length)? != bytes.len() || padding.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Invalid { field: "padding" });
        }
        Ok(Self::Blind(BlindRemedy { state, sweep_script, levels }))
    }
}

/// The class that holds `length` bytes.
fn size_class(length: usize) -> Result<usize, DecodeError> {
    let max = SIZE_CLASSES[SIZE_CLASSES.len() - 1];
    SIZE_CLASSES.into_iter().find(|class| length <= *class).ok_or(DecodeError::TooLong {
        field: "blind remedy",
        length,
        max,
    })
}

fn read_levels(
    reader: &mut Reader<'_>,
    state: &RevokedState,
    sweep_script: &ScriptBuf,
) -> Result<Vec<FeeLevel>, DecodeError> {
    let penalties = state.expected_penalties();
    let count = reader.u8("fee levels")?;
    within("fee levels", count.into(), 1, FEE_LEVELS_MAX as u64)?;
    let mut levels: Vec<FeeLevel> = Vec::new();
    for _ in 0..count {
        let least = levels.last().map_or(FEERATE_MIN, |last| last.feerate);
        let least = least.to_sat_per_kwu() + u64::from(!levels.is_empty());
        let feerate = reader.big_size("feerate")?;
        within("feerate", feerate, least, FEERATE_MAX.to_sat_per_kwu())?;
        let feerate = FeeRate::from_sat_per_kwu(feerate);
        let signatures = sweeps(&penalties, sweep_script, feerate).map(|_| {
            ecdsa::Signature::from_compact(reader.take("signature", 64)?)
                .map_err(|_| DecodeError::Invalid { field: "signature" })
        });
        let signatures = signatures.collect::<Result<_, _>>()?;
        levels.push(FeeLevel { feerate, signatures });
    }
    debug_assert!(FeeLevels::new(levels.iter().map(|level| level.feerate).collect()).is_ok());
    Ok(levels)
}

/// Appends a script that [`Remedy::blind`] and [`Remedy::trusted`] accepted.
fn push_sweep(bytes: &mut Vec<u8>, script: &ScriptBuf) {
    let kind = match (script.is_p2wpkh(), script.is_p2wsh()) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 2,
    };
    bytes.push(kind);
    bytes.extend(&script.as_bytes()[2..]);
}

fn read_sweep(reader: &mut Reader<'_>) -> Result<ScriptBuf, DecodeError> {
    let field = "sweep script";
    let (version, length) = match reader.u8(field)? {
        0 => (WitnessVersion::V0, 20),
        1 => (WitnessVersion::V0, 32),
        2 => (WitnessVersion::V1, 32),
        value => {
            let value = u64::from(value);
            return Err(DecodeError::OutOfRange { field, value, min: 0, max: 2 });
        }
    };
    let program = WitnessProgram::new(version, reader.take(field, length)?)
        .map_err(|_| DecodeError::Invalid { field })?;
    Ok(ScriptBuf::new_witness_program(&program))
}
