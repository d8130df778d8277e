//! The bytes of a revoked state: 78 without HTLCs, 66 more with any, 41 to 49 for each.
//!
//! The txid of the commitment is not in them: whoever reads a state knows it, as the key that
//! opened it or the name it is stored under.
//!
//! ```text
//! version 1 (1) │ format (1) │ to_self_delay (2) │ revocation key (33) │ delayed key (33)
//! to_local: 0 (1), or 1 (1) index (BigSize) value (BigSize) │ number of HTLCs (BigSize)
//! if any: broadcaster's key (33), countersignatory's key (33)
//! each, by ascending index: index (BigSize) │ value (BigSize) │ 0 offered, 1 received (1)
//!                           payment hash (32) │ cltv_expiry (4)
//! ```
//!
//! Format is 0 for `option_static_remotekey`, 1 for `option_anchors`, 2 for
//! `zero_fee_commitments`. Integers are big endian.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, Txid, relative};

use super::state::{HTLCS_MAX, RevokedHtlc, RevokedState, RevokedToLocal};
use crate::encoding::{DecodeError, Reader, push_big_size, within};
use crate::script::{CommitmentFormat, HtlcDirection, ToLocal};

/// Version of the encoding of a state.
pub const STATE_VERSION: u8 = 1;

/// Longest encoding of a state, with 966 HTLCs.
pub const STATE_LEN_MAX: usize = 4 + 66 + 1 + 3 + 9 + 3 + 66 + HTLCS_MAX * (3 + 9 + 1 + 32 + 4);

impl RevokedState {
    /// Encodes it, without the txid of its commitment.
    pub fn encode(&self) -> Vec<u8> {
        let terms = &self.to_local_terms;
        let format = match self.format {
            CommitmentFormat::StaticRemoteKey => 0,
            CommitmentFormat::Anchors => 1,
            CommitmentFormat::ZeroFee => 2,
        };
        let mut bytes = vec![STATE_VERSION, format];
        bytes.extend(terms.to_self_delay.value().to_be_bytes());
        bytes.extend(terms.revocation_key.serialize());
        bytes.extend(terms.delayed_key.serialize());
        bytes.push(u8::from(self.to_local.is_some()));
        if let Some(RevokedToLocal { vout, value }) = self.to_local {
            push_big_size(&mut bytes, vout.into());
            push_big_size(&mut bytes, value.to_sat());
        }
        push_big_size(&mut bytes, self.htlcs.len() as u64);
        for key in self.htlc_keys.iter().flatten() {
            bytes.extend(key.serialize());
        }
        for htlc in &self.htlcs {
            push_big_size(&mut bytes, htlc.vout.into());
            push_big_size(&mut bytes, htlc.value.to_sat());
            bytes.push(u8::from(htlc.direction == HtlcDirection::Received));
            bytes.extend(htlc.payment_hash.to_byte_array());
            bytes.extend(htlc.cltv_expiry.to_consensus_u32().to_be_bytes());
        }
        bytes
    }

    /// Decodes the state of the commitment `commitment_txid`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(commitment_txid: Txid, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let state = Self::read(commitment_txid, &mut reader)?;
        reader.finish("revoked state")?;
        Ok(state)
    }

    pub(crate) fn read(
        commitment_txid: Txid,
        reader: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let version = reader.u8("state version")?;
        within("state version", version.into(), STATE_VERSION.into(), STATE_VERSION.into())?;
        let format = match reader.u8("commitment format")? {
            0 => CommitmentFormat::StaticRemoteKey,
            1 => CommitmentFormat::Anchors,
            2 => CommitmentFormat::ZeroFee,
            value => {
                let (field, value) = ("commitment format", value.into());
                return Err(DecodeError::OutOfRange { field, value, min: 0, max: 2 });
            }
        };
        let to_self_delay = relative::Height::from_height(reader.u16("to_self_delay")?);
        let to_local_terms = ToLocal {
            revocation_key: reader.public_key("revocation key")?,
            delayed_key: reader.public_key("delayed key")?,
            to_self_delay,
        };
        let to_local = match reader.u8("to_local")? {
            0 => None,
            present => {
                within("to_local", present.into(), 0, 1)?;
                let (vout, value) = read_output(reader, 0)?;
                Some(RevokedToLocal { vout, value })
            }
        };
        let count = reader.big_size("number of HTLCs")?;
        within("number of HTLCs", count, 0, HTLCS_MAX as u64)?;
        let htlc_keys = match count {
            0 => None,
            _ => Some([reader.public_key("HTLC key")?, reader.public_key("HTLC key")?]),
        };
        let mut htlcs: Vec<RevokedHtlc> = Vec::new();
        for _ in 0..count {
            let least = htlcs.last().map_or(0, |last| u64::from(last.vout) + 1);
            htlcs.push(read_htlc(reader, least)?);
        }
        if to_local.is_some_and(|own| htlcs.iter().any(|htlc| htlc.vout == own.vout)) {
            return Err(DecodeError::Invalid { field: "index of to_local" });
        }
        Ok(Self { commitment_txid, format, to_local_terms, htlc_keys, to_local, htlcs })
    }
}

/// Reads index and value of an output that stands at `least` or behind.
fn read_output(reader: &mut Reader<'_>, least: u64) -> Result<(u16, Amount), DecodeError> {
    let field = "output index";
    let value = reader.big_size(field)?;
    within(field, value, least, u16::MAX.into())?;
    let vout = u16::try_from(value).map_err(|_| DecodeError::Invalid { field })?;
    Ok((vout, reader.amount("output value")?))
}

fn read_htlc(reader: &mut Reader<'_>, least: u64) -> Result<RevokedHtlc, DecodeError> {
    let (vout, value) = read_output(reader, least)?;
    let direction = match reader.u8("HTLC direction")? {
        0 => HtlcDirection::Offered,
        1 => HtlcDirection::Received,
        value => {
            let (field, value) = ("HTLC direction", value.into());
            return Err(DecodeError::OutOfRange { field, value, min: 0, max: 1 });
        }
    };
    let payment_hash = sha256::Hash::from_byte_array(reader.array("payment hash")?);
    let cltv_expiry = reader.height("cltv_expiry")?;
    Ok(RevokedHtlc { vout, value, direction, payment_hash, cltv_expiry })
}
