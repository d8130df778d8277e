//! The encoding of the batch protocol's messages: TLV streams of BOLT 1.
//!
//! Record types ascend, each at most once; an unknown odd record is skipped, an unknown even one
//! refuses the message; every record listed here must be there and be used up to its last byte.
//! A message is at most 65,533 bytes, as long as a Lightning message of two bytes of type can
//! be.
//!
//! | record | field |
//! |---|---|
//! | 0 | batch id, 32 bytes; in `register`, `accepted` and `declined` the registration |
//! | 2 | attempt, 1 byte; in `accepted` the batch id; none in `roll`, `rolling` and `stay` |
//! | 4 and up | what the message says, in the order of its struct |
//!
//! Those of swaps, and `closed`, are in `wire/swap.rs`.
//!
//! Source: BOLT 1, "Type-Length-Value Format" and "Lightning Message Format".

mod swap;

use std::collections::BTreeMap;

use super::ids::{ATTEMPTS_MAX, Attempt, BatchId, RegistrationId};
use super::message::{
    Accepted, DeclineReason, Declined, DropReason, Dropped, Message, Nonces, Partial, Propose,
    Refuse, RefuseReason, Register, Release, Roll, Rolling, Sign, Signed, Stay, StayReason, Stored,
};
use crate::encoding::{DecodeError, Reader, push_big_size, push_output, within};
use crate::musig::{
    AggregatedNonce, NONCE_LEN, PARTIAL_SIGNATURE_LEN, PartialSignature, PublicNonce,
    SchnorrSignature, TreeSecret,
};
use crate::tree::shape::{BATCH_SIZE_MAX, LEVELS_MAX};
use crate::tree::{Path, Proposal, Radix, UserSlot};

/// Longest encoding of a message, without its type, in bytes.
pub const MESSAGE_LEN_MAX: usize = 65_533;

/// Longest text of an invoice, in bytes. One of this protocol has some 300.
pub const INVOICE_LEN_MAX: usize = 1_500;

/// Lightning message types, all odd and in the custom range.
pub mod kind {
    /// `register`, user to hub.
    pub const REGISTER: u16 = 45_001;
    /// `accepted`, hub to user.
    pub const ACCEPTED: u16 = 45_003;
    /// `declined`, hub to user.
    pub const DECLINED: u16 = 45_005;
    /// `propose`, hub to user.
    pub const PROPOSE: u16 = 45_007;
    /// `refuse`, user to hub.
    pub const REFUSE: u16 = 45_009;
    /// `nonces`, user to hub.
    pub const NONCES: u16 = 45_011;
    /// `sign`, hub to user.
    pub const SIGN: u16 = 45_013;
    /// `partial`, user to hub.
    pub const PARTIAL: u16 = 45_015;
    /// `signed`, hub to user.
    pub const SIGNED: u16 = 45_017;
    /// `stored`, user to hub.
    pub const STORED: u16 = 45_019;
    /// `dropped`, hub to user.
    pub const DROPPED: u16 = 45_021;
    /// `release`, user to hub.
    pub const RELEASE: u16 = 45_023;
    /// `roll`, user to hub.
    pub const ROLL: u16 = 45_025;
    /// `rolling`, hub to user.
    pub const ROLLING: u16 = 45_027;
    /// `stay`, hub to user.
    pub const STAY: u16 = 45_029;

    /// `closed`, either way.
    pub const CLOSED: u16 = 45_031;
    /// `withdraw`, user to hub.
    pub const WITHDRAW: u16 = 45_033;
    /// `withdrawing`, hub to user.
    pub const WITHDRAWING: u16 = 45_035;
    /// `deposit`, user to hub.
    pub const DEPOSIT: u16 = 45_037;
    /// `depositing`, hub to user.
    pub const DEPOSITING: u16 = 45_039;
    /// `deposited`, user to hub.
    pub const DEPOSITED: u16 = 45_041;
    /// `refused`, hub to user.
    pub const REFUSED: u16 = 45_043;
    /// `reveal`, user to hub.
    pub const REVEAL: u16 = 45_045;
    /// `hand_over`, either way.
    pub const HAND_OVER: u16 = 45_047;

    /// All of them.
    pub const ALL: [u16; 24] = [
        REGISTER,
        ACCEPTED,
        DECLINED,
        PROPOSE,
        REFUSE,
        NONCES,
        SIGN,
        PARTIAL,
        SIGNED,
        STORED,
        DROPPED,
        RELEASE,
        ROLL,
        ROLLING,
        STAY,
        CLOSED,
        WITHDRAW,
        WITHDRAWING,
        DEPOSIT,
        DEPOSITING,
        DEPOSITED,
        REFUSED,
        REVEAL,
        HAND_OVER,
    ];
}

impl Message {
    /// Returns its Lightning message type.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Register(_) => kind::REGISTER,
            Self::Accepted(_) => kind::ACCEPTED,
            Self::Declined(_) => kind::DECLINED,
            Self::Propose(_) => kind::PROPOSE,
            Self::Refuse(_) => kind::REFUSE,
            Self::Nonces(_) => kind::NONCES,
            Self::Sign(_) => kind::SIGN,
            Self::Partial(_) => kind::PARTIAL,
            Self::Signed(_) => kind::SIGNED,
            Self::Stored(_) => kind::STORED,
            Self::Dropped(_) => kind::DROPPED,
            Self::Release(_) => kind::RELEASE,
            Self::Roll(_) => kind::ROLL,
            Self::Rolling(_) => kind::ROLLING,
            Self::Stay(_) => kind::STAY,
            Self::Closed(_) => kind::CLOSED,
            Self::Withdraw(_) => kind::WITHDRAW,
            Self::Withdrawing(_) => kind::WITHDRAWING,
            Self::Deposit(_) => kind::DEPOSIT,
            Self::Depositing(_) => kind::DEPOSITING,
            Self::Deposited(_) => kind::DEPOSITED,
            Self::Refused(_) => kind::REFUSED,
            Self::Reveal(_) => kind::REVEAL,
            Self::HandOver(_) => kind::HAND_OVER,
        }
    }

    /// Encodes it, without its type.
    ///
    /// # Panics
    ///
    /// If a proposal holds an output that no tree is built with.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Register(message) => {
                writer.record(0, &message.registration.0);
                writer.record(4, &big_size(message.capacity.to_sat()));
                writer.record(6, &big_size(message.inbound.to_sat()));
                writer.record(8, &concat(message.tree_keys.iter().map(|key| key.serialize())));
            }
            Self::Accepted(message) => {
                writer.record(0, &message.registration.0);
                writer.record(2, &message.batch.0);
                writer.record(4, &big_size(message.fee.to_sat()));
                writer.record(6, &message.expiry.to_consensus_u32().to_be_bytes());
                writer.record(8, &message.closes_in_ms.to_be_bytes());
            }
            Self::Declined(message) => {
                writer.record(0, &message.registration.0);
                writer.record(4, &[message.reason.code()]);
            }
            Self::Propose(message) => {
                let proposal = &message.proposal;
                writer.head(message.batch, message.attempt);
                writer.record(4, &output(&message.root_output));
                writer.record(6, &proposal.hub_key.serialize());
                writer.record(8, &concat(proposal.user_keys.iter().map(|key| key.serialize())));
                writer.record(10, &[proposal.radix.get()]);
                writer.record(12, &proposal.slot.0.to_be_bytes());
                writer.record(14, &proposal.path.encode());
                writer.record(16, proposal.leaf_txid.as_ref());
            }
            Self::Refuse(message) => {
                writer.head(message.batch, message.attempt);
                writer.record(4, &[message.reason.code()]);
            }
            Self::Nonces(message) => {
                writer.head(message.batch, message.attempt);
                writer.record(4, &concat(message.nonces.iter().map(PublicNonce::serialize)));
            }
            Self::Sign(message) => {
                writer.head(message.batch, message.attempt);
                let aggregated = message.aggregated.iter().map(AggregatedNonce::serialize);
                writer.record(4, &concat(aggregated));
            }
            Self::Partial(message) => {
                writer.head(message.batch, message.attempt);
                writer.record(4, &concat(message.partials.iter().map(PartialSignature::serialize)));
            }
            Self::Signed(message) => {
                writer.head(message.batch, message.attempt);
                writer.record(4, &concat(message.signatures.iter().map(|signature| signature.0)));
            }
            Self::Stored(message) => writer.head(message.batch, message.attempt),
            Self::Dropped(message) => {
                writer.head(message.batch, message.attempt);
                writer.record(4, &[message.reason.code()]);
            }
            Self::Release(message) => {
                writer.head(message.batch, message.attempt);
                writer.record(4, &message.secret.to_bytes());
            }
            Self::Roll(message) => {
                writer.record(0, &message.batch.0);
                writer.record(4, &message.successor.0);
                writer.record(6, message.invoice.as_bytes());
            }
            Self::Rolling(message) => {
                writer.record(0, &message.batch.0);
                writer.record(4, message.invoice.as_bytes());
            }
            Self::Stay(message) => {
                writer.record(0, &message.batch.0);
                writer.record(4, &[message.reason.code()]);
                writer.record(6, &message.payment_hash);
            }
            Self::Closed(message) => swap::write_closed(&mut writer, message),
            Self::Withdraw(message) => swap::write_withdraw(&mut writer, message),
            Self::Withdrawing(message) => swap::write_withdrawing(&mut writer, message),
            Self::Deposit(message) => swap::write_deposit(&mut writer, message),
            Self::Depositing(message) => swap::write_depositing(&mut writer, message),
            Self::Deposited(message) => swap::write_deposited(&mut writer, message),
            Self::Refused(message) => swap::write_refused(&mut writer, message),
            Self::Reveal(message) => swap::write_reveal(&mut writer, message),
            Self::HandOver(message) => swap::write_hand_over(&mut writer, message),
        }
        writer.bytes
    }

    /// Decodes the message of a Lightning message type, or `None` if the type is not ours.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field or record that is not as it must be.
    pub fn decode(kind: u16, bytes: &[u8]) -> Option<Result<Self, DecodeError>> {
        Some(match kind {
            kind::REGISTER => register(bytes).map(Box::new).map(Self::Register),
            kind::ACCEPTED => accepted(bytes).map(Self::Accepted),
            kind::DECLINED => declined(bytes).map(Self::Declined),
            kind::PROPOSE => propose(bytes).map(Box::new).map(Self::Propose),
            kind::REFUSE => refuse(bytes).map(Self::Refuse),
            kind::NONCES => nonces(bytes).map(Self::Nonces),
            kind::SIGN => sign(bytes).map(Self::Sign),
            kind::PARTIAL => partial(bytes).map(Self::Partial),
            kind::SIGNED => signed(bytes).map(Self::Signed),
            kind::STORED => stored(bytes).map(Self::Stored),
            kind::DROPPED => dropped(bytes).map(Self::Dropped),
            kind::RELEASE => release(bytes).map(Self::Release),
            kind::ROLL => roll(bytes).map(Self::Roll),
            kind::ROLLING => rolling(bytes).map(Self::Rolling),
            kind::STAY => stay(bytes).map(Self::Stay),
            kind::CLOSED => swap::closed(bytes).map(Self::Closed),
            kind::WITHDRAW => swap::withdraw(bytes).map(Self::Withdraw),
            kind::WITHDRAWING => swap::withdrawing(bytes).map(Self::Withdrawing),
            kind::DEPOSIT => swap::deposit(bytes).map(Self::Deposit),
            kind::DEPOSITING => swap::depositing(bytes).map(Self::Depositing),
            kind::DEPOSITED => swap::deposited(bytes).map(Self::Deposited),
            kind::REFUSED => swap::refused(bytes).map(Self::Refused),
            kind::REVEAL => swap::reveal(bytes).map(Self::Reveal),
            kind::HAND_OVER => swap::hand_over(bytes).map(Self::HandOver),
            _ => return None,
        })
    }
}

fn register(bytes: &[u8]) -> Result<Register, DecodeError> {
    let records = Records::parse("register", bytes, &[0, 4, 6, 8])?;
    Ok(Register {
        registration: RegistrationId(records.one(0, |reader| reader.array("registration"))?),
        capacity: records.one(4, |reader| reader.amount("capacity"))?,
        inbound: records.one(6, |reader| reader.amount("inbound"))?,
        tree_keys: records.one(8, |reader| {
            let mut key = || reader.public_key("tree key");
            Ok([key()?, key()?, key()?])
        })?,
    })
}

fn accepted(bytes: &[u8]) -> Result<Accepted, DecodeError> {
    let records = Records::parse("accepted", bytes, &[0, 2, 4, 6, 8])?;
    Ok(Accepted {
        registration: RegistrationId(records.one(0, |reader| reader.array("registration"))?),
        batch: BatchId(records.one(2, |reader| reader.array("batch"))?),
        fee: records.one(4, |reader| reader.amount("fee"))?,
        expiry: records.one(6, |reader| reader.height("expiry"))?,
        closes_in_ms: records.one(8, |reader| reader.u32("closes_in_ms"))?,
    })
}

fn declined(bytes: &[u8]) -> Result<Declined, DecodeError> {
    let records = Records::parse("declined", bytes, &[0, 4])?;
    Ok(Declined {
        registration: RegistrationId(records.one(0, |reader| reader.array("registration"))?),
        reason: records.reason(DeclineReason::from_code)?,
    })
}

fn propose(bytes: &[u8]) -> Result<Propose, DecodeError> {
    let records = Records::parse("propose", bytes, &[0, 2, 4, 6, 8, 10, 12, 14, 16])?;
    let (batch, attempt) = records.head()?;
    Ok(Propose {
        batch,
        attempt,
        root_output: records.one(4, |reader| reader.output("root output"))?,
        proposal: Proposal {
            hub_key: records.one(6, |reader| reader.public_key("hub key"))?,
            user_keys: records
                .list(8, "user key", 33, BATCH_SIZE_MAX, |reader| reader.public_key("user key"))?,
            radix: records.one(10, |reader| {
                let radix = reader.u8("radix")?;
                within("radix", radix.into(), 2, crate::tree::shape::RADIX_MAX.into())?;
                Radix::new(radix).ok_or(DecodeError::Invalid { field: "radix" })
            })?,
            slot: UserSlot(records.one(12, |reader| reader.u16("slot"))?),
            path: records.one(14, |reader| Path::decode(reader.rest()))?,
            leaf_txid: records.one(16, |reader| reader.txid("leaf txid"))?,
        },
    })
}

fn refuse(bytes: &[u8]) -> Result<Refuse, DecodeError> {
    let records = Records::parse("refuse", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    Ok(Refuse { batch, attempt, reason: records.reason(RefuseReason::from_code)? })
}

fn nonces(bytes: &[u8]) -> Result<Nonces, DecodeError> {
    let records = Records::parse("nonces", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    let nonces = records.list(4, "nonce", NONCE_LEN, LEVELS_MAX, |reader| {
        let bytes = reader.array("nonce")?;
        PublicNonce::from_byte_array(&bytes).map_err(|_| DecodeError::Invalid { field: "nonce" })
    })?;
    Ok(Nonces { batch, attempt, nonces })
}

fn sign(bytes: &[u8]) -> Result<Sign, DecodeError> {
    let records = Records::parse("sign", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    let field = "aggregated nonce";
    let aggregated = records.list(4, field, NONCE_LEN, LEVELS_MAX, |reader| {
        let bytes = reader.array(field)?;
        AggregatedNonce::from_byte_array(&bytes).map_err(|_| DecodeError::Invalid { field })
    })?;
    Ok(Sign { batch, attempt, aggregated })
}

fn partial(bytes: &[u8]) -> Result<Partial, DecodeError> {
    let records = Records::parse("partial", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    let field = "partial signature";
    let partials = records.list(4, field, PARTIAL_SIGNATURE_LEN, LEVELS_MAX, |reader| {
        let bytes = reader.array(field)?;
        PartialSignature::from_byte_array(&bytes).map_err(|_| DecodeError::Invalid { field })
    })?;
    Ok(Partial { batch, attempt, partials })
}

fn signed(bytes: &[u8]) -> Result<Signed, DecodeError> {
    let records = Records::parse("signed", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    let signatures = records.list(4, "signature", 64, LEVELS_MAX, |reader| {
        reader.array("signature").map(SchnorrSignature)
    })?;
    Ok(Signed { batch, attempt, signatures })
}

fn stored(bytes: &[u8]) -> Result<Stored, DecodeError> {
    let (batch, attempt) = Records::parse("stored", bytes, &[0, 2])?.head()?;
    Ok(Stored { batch, attempt })
}

fn dropped(bytes: &[u8]) -> Result<Dropped, DecodeError> {
    let records = Records::parse("dropped", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    Ok(Dropped { batch, attempt, reason: records.reason(DropReason::from_code)? })
}

fn release(bytes: &[u8]) -> Result<Release, DecodeError> {
    let records = Records::parse("release", bytes, &[0, 2, 4])?;
    let (batch, attempt) = records.head()?;
    Ok(Release { batch, attempt, secret: records.secret(4)? })
}

fn roll(bytes: &[u8]) -> Result<Roll, DecodeError> {
    let records = Records::parse("roll", bytes, &[0, 4, 6])?;
    Ok(Roll {
        batch: BatchId(records.one(0, |reader| reader.array("batch"))?),
        successor: BatchId(records.one(4, |reader| reader.array("successor"))?),
        invoice: records.invoice(6)?,
    })
}

fn rolling(bytes: &[u8]) -> Result<Rolling, DecodeError> {
    let records = Records::parse("rolling", bytes, &[0, 4])?;
    Ok(Rolling {
        batch: BatchId(records.one(0, |reader| reader.array("batch"))?),
        invoice: records.invoice(4)?,
    })
}

fn stay(bytes: &[u8]) -> Result<Stay, DecodeError> {
    let records = Records::parse("stay", bytes, &[0, 4, 6])?;
    Ok(Stay {
        batch: BatchId(records.one(0, |reader| reader.array("batch"))?),
        reason: records.reason(StayReason::from_code)?,
        payment_hash: records.one(6, |reader| reader.array("payment hash"))?,
    })
}

/// The records of one message, by type.
struct Records<'a> {
    message: &'static str,
    records: BTreeMap<u64, &'a [u8]>,
}

impl<'a> Records<'a> {
    fn parse(message: &'static str, bytes: &'a [u8], known: &[u64]) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_LEN_MAX {
            let (length, max) = (bytes.len(), MESSAGE_LEN_MAX);
            return Err(DecodeError::TooLong { field: message, length, max });
        }
        let mut reader = Reader::new(bytes);
        let mut records = BTreeMap::new();
        let mut last = None;
        while !reader.is_empty() {
            let kind = reader.big_size("record type")?;
            if let Some(previous) = last.filter(|previous| *previous >= kind) {
                return Err(DecodeError::RecordOrder { message, previous, kind });
            }
            last = Some(kind);
            let length = reader.big_size("record length")?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let value = reader.take("record", length)?;
            if known.contains(&kind) {
                records.insert(kind, value);
            } else if kind % 2 == 0 {
                return Err(DecodeError::UnknownRecord { message, kind });
            }
        }
        Ok(Self { message, records })
    }

    fn get(&self, kind: u64) -> Result<&'a [u8], DecodeError> {
        let missing = DecodeError::MissingRecord { message: self.message, kind };
        self.records.get(&kind).copied().ok_or(missing)
    }

    /// Reads a record that holds one value.
    fn one<T>(
        &self,
        kind: u64,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Reader::new(self.get(kind)?);
        let value = read(&mut reader)?;
        reader.finish(self.message)?;
        Ok(value)
    }

    /// Reads a record of 1 to `max` values of `size` bytes each.
    fn list<T>(
        &self,
        kind: u64,
        field: &'static str,
        size: usize,
        max: usize,
        read: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let bytes = self.get(kind)?;
        within(field, bytes.len().div_ceil(size) as u64, 1, max as u64)?;
        let mut reader = Reader::new(bytes);
        let mut values = vec![];
        while !reader.is_empty() {
            values.push(read(&mut reader)?);
        }
        Ok(values)
    }

    fn head(&self) -> Result<(BatchId, Attempt), DecodeError> {
        let batch = BatchId(self.one(0, |reader| reader.array("batch"))?);
        let number = self.one(2, |reader| reader.u8("attempt"))?;
        within("attempt", number.into(), 0, u64::from(ATTEMPTS_MAX) - 1)?;
        let attempt = Attempt::new(number).ok_or(DecodeError::Invalid { field: "attempt" })?;
        Ok((batch, attempt))
    }

    /// Reads a record that is the text of an invoice. What it says is the node's to check.
    fn invoice(&self, kind: u64) -> Result<String, DecodeError> {
        let (field, bytes) = ("invoice", self.get(kind)?);
        within(field, bytes.len() as u64, 1, INVOICE_LEN_MAX as u64)?;
        match bytes.is_ascii() {
            true => String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid { field }),
            false => Err(DecodeError::Invalid { field }),
        }
    }

    fn secret(&self, kind: u64) -> Result<TreeSecret, DecodeError> {
        self.one(kind, |reader| {
            let field = "secret";
            TreeSecret::from_bytes(reader.array(field)?).ok_or(DecodeError::Invalid { field })
        })
    }

    fn reason<T>(&self, from_code: impl Fn(u8) -> Option<T>) -> Result<T, DecodeError> {
        let code = self.one(4, |reader| reader.u8("reason"))?;
        from_code(code).ok_or(DecodeError::Invalid { field: "reason" })
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn record(&mut self, kind: u64, value: &[u8]) {
        push_big_size(&mut self.bytes, kind);
        push_big_size(&mut self.bytes, value.len() as u64);
        self.bytes.extend(value);
    }

    fn head(&mut self, batch: BatchId, attempt: Attempt) {
        self.record(0, &batch.0);
        self.record(2, &[attempt.get()]);
    }
}

fn big_size(value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    push_big_size(&mut bytes, value);
    bytes
}

fn output(output: &bitcoin::TxOut) -> Vec<u8> {
    let mut bytes = vec![];
    push_output(&mut bytes, output);
    bytes
}

fn concat<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    values.flatten().collect()
}
