//! Strict reading and canonical writing of bytes: integers, BigSize, keys, amounts.
//!
//! One value has one encoding. Whatever is shorter, longer or written in another way is refused
//! with the name of the field, so that two nodes never disagree about what was said and bytes
//! from a peer or a disk never panic. Which fields follow each other is decided by
//! [`tree::path`](crate::tree::path) and [`batch::wire`](crate::batch::wire).
//!
//! Source: BOLT 1, "Fundamental Types" (BigSize); BIP 340 and SEC 1 for keys.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut, Txid, WitnessProgram, WitnessVersion, absolute};

/// Why bytes are not the encoding of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within a field.
    #[error("{field} needs {needed} bytes, {left} are left; the sender cut the message short")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// How many bytes it takes.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes follow the end of {field}; the sender speaks another version")]
    TrailingData {
        /// What was complete.
        field: &'static str,
        /// How many bytes are too many.
        count: usize,
    },
    /// An integer is written with more bytes than it needs.
    #[error("{field} is {value}, written longer than necessary")]
    NonCanonical {
        /// The field being read.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A number is outside its range.
    #[error("{field} is {value}, allowed is {min} to {max}")]
    OutOfRange {
        /// The field being read.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// Bytes of the right length are no point of the curve, no nonce or no scalar.
    #[error("{field} is not a valid value of its kind; the sender is broken")]
    Invalid {
        /// The field being read.
        field: &'static str,
    },
    /// A TLV record that must be understood is unknown.
    #[error("record {kind} of {message} is even and unknown; the sender speaks a newer version")]
    UnknownRecord {
        /// The message.
        message: &'static str,
        /// The type of the record.
        kind: u64,
    },
    /// A TLV record came twice or out of order.
    #[error("record {kind} of {message} follows record {previous}; types must ascend")]
    RecordOrder {
        /// The message.
        message: &'static str,
        /// The type of the record before.
        previous: u64,
        /// The type of the record.
        kind: u64,
    },
    /// A TLV record that every such message has is absent.
    #[error("{message} lacks record {kind}")]
    MissingRecord {
        /// The message.
        message: &'static str,
        /// The type of the record.
        kind: u64,
    },
    /// A message is longer than its kind may be.
    #[error("{field} is {length} bytes, at most {max} are allowed")]
    TooLong {
        /// What is too long.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most allowed.
        max: usize,
    },
}

/// Reads fields one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes all that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Takes `needed` bytes.
    pub(crate) fn take(
        &mut self,
        field: &'static str,
        needed: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let left = self.bytes.len();
        let (head, tail) = self.bytes.split_at_checked(needed).ok_or(DecodeError::Truncated {
            field,
            needed,
            left,
        })?;
        self.bytes = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        Ok(self.take(field, N)?.try_into().expect("take returns as many bytes as asked for"))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Reads a BigSize, refusing one that is longer than necessary.
    pub(crate) fn big_size(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let (value, min) = match self.u8(field)? {
            0xff => (u64::from_be_bytes(self.array(field)?), 0x1_0000_0000),
            0xfe => (u64::from(self.u32(field)?), 0x1_0000),
            0xfd => (u64::from(self.u16(field)?), 0xfd),
            small => (u64::from(small), 0),
        };
        if value < min {
            return Err(DecodeError::NonCanonical { field, value });
        }
        Ok(value)
    }

    /// Reads a number of whole satoshi, at most all there will ever be.
    pub(crate) fn amount(&mut self, field: &'static str) -> Result<Amount, DecodeError> {
        let value = self.big_size(field)?;
        within(field, value, 0, Amount::MAX_MONEY.to_sat())?;
        Ok(Amount::from_sat(value))
    }

    pub(crate) fn height(&mut self, field: &'static str) -> Result<absolute::Height, DecodeError> {
        let value = self.u32(field)?;
        absolute::Height::from_consensus(value).map_err(|_| DecodeError::OutOfRange {
            field,
            value: u64::from(value),
            min: 0,
            max: u64::from(absolute::Height::MAX.to_consensus_u32()),
        })
    }

    pub(crate) fn public_key(&mut self, field: &'static str) -> Result<PublicKey, DecodeError> {
        PublicKey::from_slice(self.take(field, 33)?).map_err(|_| DecodeError::Invalid { field })
    }

    pub(crate) fn x_only_key(
        &mut self,
        field: &'static str,
    ) -> Result<XOnlyPublicKey, DecodeError> {
        XOnlyPublicKey::from_slice(self.take(field, 32)?)
            .map_err(|_| DecodeError::Invalid { field })
    }

    pub(crate) fn txid(&mut self, field: &'static str) -> Result<Txid, DecodeError> {
        Ok(Txid::from_byte_array(self.array(field)?))
    }

    pub(crate) fn outpoint(&mut self, field: &'static str) -> Result<OutPoint, DecodeError> {
        Ok(OutPoint::new(self.txid(field)?, self.u16(field)?.into()))
    }

    /// Reads an output: value, then one byte of witness version, then its 32-byte program.
    pub(crate) fn output(&mut self, field: &'static str) -> Result<TxOut, DecodeError> {
        let value = self.amount(field)?;
        Ok(TxOut { value, script_pubkey: self.script_pubkey(field)? })
    }

    /// Reads a P2WSH (0) or P2TR (1) script.
    pub(crate) fn script_pubkey(&mut self, field: &'static str) -> Result<ScriptBuf, DecodeError> {
        let version = match self.u8(field)? {
            0 => WitnessVersion::V0,
            1 => WitnessVersion::V1,
            value => {
                let value = u64::from(value);
                return Err(DecodeError::OutOfRange { field, value, min: 0, max: 1 });
            }
        };
        let program: [u8; 32] = self.array(field)?;
        let program = WitnessProgram::new(version, &program)
            .expect("32 bytes are a program of versions 0 and 1");
        Ok(ScriptBuf::new_witness_program(&program))
    }

    /// Refuses what is left.
    pub(crate) fn finish(self, field: &'static str) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingData { field, count }),
        }
    }
}

/// Refuses a `value` outside `min..=max`.
pub(crate) fn within(
    field: &'static str,
    value: u64,
    min: u64,
    max: u64,
) -> Result<(), DecodeError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(DecodeError::OutOfRange { field, value, min, max })
}

/// Appends `value` in as few bytes as BigSize allows.
pub(crate) fn push_big_size(bytes: &mut Vec<u8>, value: u64) {
    match (u8::try_from(value), u16::try_from(value), u32::try_from(value)) {
        (Ok(small), ..) if small < 0xfd => bytes.push(small),
        (_, Ok(value), _) => {
            bytes.push(0xfd);
            bytes.extend(value.to_be_bytes());
        }
        (_, _, Ok(value)) => {
            bytes.push(0xfe);
            bytes.extend(value.to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend(value.to_be_bytes());
        }
    }
}

/// Tells whether a script can be encoded: P2WSH or P2TR.
pub(crate) fn is_encodable(script_pubkey: &ScriptBuf) -> bool {
    script_pubkey.is_p2wsh() || script_pubkey.is_p2tr()
}

/// Appends a script for which [`is_encodable`] holds.
pub(crate) fn push_script_pubkey(bytes: &mut Vec<u8>, script_pubkey: &ScriptBuf) {
    assert!(is_encodable(script_pubkey), "outputs of a tree are P2WSH or P2TR");
    bytes.push(u8::from(script_pubkey.is_p2tr()));
    bytes.extend(&script_pubkey.as_bytes()[2..]);
}

/// Appends an output whose script is encodable.
pub(crate) fn push_output(bytes: &mut Vec<u8>, output: &TxOut) {
    push_big_size(bytes, output.value.to_sat());
    push_script_pubkey(bytes, &output.script_pubkey);
}

/// Appends an outpoint: the txid as transactions carry it, then the index in two bytes.
///
/// A transaction of standard weight has fewer than 65,536 outputs.
pub(crate) fn push_outpoint(bytes: &mut Vec<u8>, outpoint: OutPoint) {
    let vout = u16::try_from(outpoint.vout).expect("the builder of a tree checked the index");
    bytes.extend(outpoint.txid.to_byte_array());
    bytes.extend(vout.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_size_follows_the_examples_of_bolt_1() {
        let examples: [(u64, &str); 6] = [
            (0, "00"),
            (252, "fc"),
            (253, "fd00fd"),
            (65_536, "fe00010000"),
            (4_294_967_295, "feffffffff"),
            (4_294_967_296, "ff0000000100000000"),
        ];
        for (value, encoded) in examples {
            let mut bytes = vec![];
            push_big_size(&mut bytes, value);
            assert_eq!(hex::encode(&bytes), encoded);
            assert_eq!(Reader::new(&bytes).big_size("value"), Ok(value));
        }
        for longer in ["fd00fc", "fe0000ffff", "ff00000000ffffffff"] {
            let bytes = hex::decode(longer).unwrap();
            assert!(matches!(
                Reader::new(&bytes).big_size("value"),
                Err(DecodeError::NonCanonical { .. })
            ));
        }
    }

    #[test]
    fn an_amount_beyond_all_bitcoin_is_refused() {
        let mut bytes = vec![];
        push_big_size(&mut bytes, Amount::MAX_MONEY.to_sat() + 1);
        assert!(matches!(
            Reader::new(&bytes).amount("value"),
            Err(DecodeError::OutOfRange { field: "value", .. })
        ));
    }

    #[test]
    fn what_is_left_is_refused() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u8("first"), Ok(1));
        assert_eq!(
            reader.clone().u32("second"),
            Err(DecodeError::Truncated { field: "second", needed: 4, left: 2 })
        );
        assert_eq!(
            reader.finish("thing"),
            Err(DecodeError::TrailingData { field: "thing", count: 2 })
        );
    }
}
