//! The encoding of what is said about swaps and about closed channels.
//!
//! Record 0 is the swap id, or in `closed` the transaction as it is broadcast; 4 and up what the
//! message says, in the order of its struct.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{OutPoint, relative};

use super::{Records, Writer, big_size};
use crate::batch::SwapId;
use crate::batch::message::{
    Closed, Deposit, Deposited, Depositing, HandOver, Refused, Reveal, SwapRefusal, Withdraw,
    Withdrawing,
};
use crate::encoding::{DecodeError, push_outpoint, within};
use crate::script::Preimage;

/// Most payments in millisatoshi: all there will ever be.
const MSAT_MAX: u64 = 21_000_000 * 100_000_000 * 1_000;

pub(super) fn write_closed(writer: &mut Writer, message: &Closed) {
    writer.record(0, &serialize(&message.transaction));
}

pub(super) fn closed(bytes: &[u8]) -> Result<Closed, DecodeError> {
    let records = Records::parse("closed", bytes, &[0])?;
    let transaction = deserialize(records.get(0)?);
    let transaction = transaction.map_err(|_| DecodeError::Invalid { field: "transaction" })?;
    Ok(Closed { transaction })
}

pub(super) fn write_withdraw(writer: &mut Writer, message: &Withdraw) {
    writer.record(0, &message.swap.0);
    writer.record(4, &outpoint(message.channel));
    writer.record(6, &big_size(message.amount.to_sat()));
    writer.record(8, &message.claimer.serialize());
    writer.record(10, message.hash.as_ref());
}

pub(super) fn withdraw(bytes: &[u8]) -> Result<Withdraw, DecodeError> {
    let records = Records::parse("withdraw", bytes, &[0, 4, 6, 8, 10])?;
    Ok(Withdraw {
        swap: records.swap()?,
        channel: records.one(4, |reader| reader.outpoint("channel"))?,
        amount: records.one(6, |reader| reader.amount("amount"))?,
        claimer: records.one(8, |reader| reader.public_key("claimer"))?,
        hash: records.hash(10)?,
    })
}

pub(super) fn write_withdrawing(writer: &mut Writer, message: &Withdrawing) {
    writer.record(0, &message.swap.0);
    writer.record(4, &message.refunder.serialize());
    writer.record(6, &message.refund.to_consensus_u32().to_be_bytes());
    writer.record(8, &message.payment_expiry.to_consensus_u32().to_be_bytes());
    writer.record(10, message.invoice.as_bytes());
}

pub(super) fn withdrawing(bytes: &[u8]) -> Result<Withdrawing, DecodeError> {
    let records = Records::parse("withdrawing", bytes, &[0, 4, 6, 8, 10])?;
    Ok(Withdrawing {
        swap: records.swap()?,
        refunder: records.one(4, |reader| reader.public_key("refunder"))?,
        refund: records.one(6, |reader| reader.height("refund"))?,
        payment_expiry: records.one(8, |reader| reader.height("payment expiry"))?,
        invoice: records.invoice(10)?,
    })
}

pub(super) fn write_deposit(writer: &mut Writer, message: &Deposit) {
    writer.record(0, &message.swap.0);
    writer.record(4, &outpoint(message.channel));
    writer.record(6, &big_size(message.amount.to_sat()));
    writer.record(8, &message.refunder.serialize());
    writer.record(10, message.hash.as_ref());
}

pub(super) fn deposit(bytes: &[u8]) -> Result<Deposit, DecodeError> {
    let records = Records::parse("deposit", bytes, &[0, 4, 6, 8, 10])?;
    Ok(Deposit {
        swap: records.swap()?,
        channel: records.one(4, |reader| reader.outpoint("channel"))?,
        amount: records.one(6, |reader| reader.amount("amount"))?,
        refunder: records.one(8, |reader| reader.public_key("refunder"))?,
        hash: records.hash(10)?,
    })
}

pub(super) fn write_depositing(writer: &mut Writer, message: &Depositing) {
    writer.record(0, &message.swap.0);
    writer.record(4, &message.claimer.serialize());
    writer.record(6, &message.refund.value().to_be_bytes());
    writer.record(8, &big_size(message.payment_msat));
}

pub(super) fn depositing(bytes: &[u8]) -> Result<Depositing, DecodeError> {
    let records = Records::parse("depositing", bytes, &[0, 4, 6, 8])?;
    let refund = records.one(6, |reader| reader.u16("refund"))?;
    let payment_msat = records.one(8, |reader| reader.big_size("payment"))?;
    within("payment", payment_msat, 1, MSAT_MAX)?;
    Ok(Depositing {
        swap: records.swap()?,
        claimer: records.one(4, |reader| reader.public_key("claimer"))?,
        refund: relative::Height::from_height(refund),
        payment_msat,
    })
}

pub(super) fn write_deposited(writer: &mut Writer, message: &Deposited) {
    writer.record(0, &message.swap.0);
    writer.record(4, message.invoice.as_bytes());
}

pub(super) fn deposited(bytes: &[u8]) -> Result<Deposited, DecodeError> {
    let records = Records::parse("deposited", bytes, &[0, 4])?;
    Ok(Deposited { swap: records.swap()?, invoice: records.invoice(4)? })
}

pub(super) fn write_refused(writer: &mut Writer, message: &Refused) {
    writer.record(0, &message.swap.0);
    writer.record(4, &[message.reason.code()]);
}

pub(super) fn refused(bytes: &[u8]) -> Result<Refused, DecodeError> {
    let records = Records::parse("refused", bytes, &[0, 4])?;
    Ok(Refused { swap: records.swap()?, reason: records.reason(SwapRefusal::from_code)? })
}

pub(super) fn write_reveal(writer: &mut Writer, message: &Reveal) {
    writer.record(0, &message.swap.0);
    writer.record(4, &message.preimage.0);
}

pub(super) fn reveal(bytes: &[u8]) -> Result<Reveal, DecodeError> {
    let records = Records::parse("reveal", bytes, &[0, 4])?;
    let preimage = records.one(4, |reader| reader.array("preimage").map(Preimage))?;
    Ok(Reveal { swap: records.swap()?, preimage })
}

pub(super) fn write_hand_over(writer: &mut Writer, message: &HandOver) {
    writer.record(0, &message.swap.0);
    writer.record(4, &message.secret.to_bytes());
}

pub(super) fn hand_over(bytes: &[u8]) -> Result<HandOver, DecodeError> {
    let records = Records::parse("hand_over", bytes, &[0, 4])?;
    Ok(HandOver { swap: records.swap()?, secret: records.secret(4)? })
}

impl Records<'_> {
    fn swap(&self) -> Result<SwapId, DecodeError> {
        self.one(0, |reader| reader.array("swap").map(SwapId))
    }

    fn hash(&self, kind: u64) -> Result<sha256::Hash, DecodeError> {
        self.one(kind, |reader| reader.array("hash").map(sha256::Hash::from_byte_array))
    }
}

fn outpoint(outpoint: OutPoint) -> Vec<u8> {
    let mut bytes = vec![];
    push_outpoint(&mut bytes, outpoint);
    bytes
}
