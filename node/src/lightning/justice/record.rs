//! How revealed states are stored, and how a secret is found in an update of LDK's.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{ScriptBuf, Txid};
use channel_contracts::justice::{RevocationSecret, RevokedState};
use lightning::io::Cursor;
use lightning::util::ser::{BigSize, Readable};

use super::{Revealed, RevealedState, Revocable};
use crate::lightning::types::ChannelId;
use crate::store::{StoreError, Table};

/// First byte of a stored [`Revealed::State`].
const STATE: u8 = 0;
/// First byte of a stored [`Revealed::Gone`].
const GONE: u8 = 1;
/// LDK's number for the step of an update that carries a secret.
const COMMITMENT_SECRET_STEP: u8 = 3;

/// The secrets in an update of a monitor, each with LDK's index of it.
///
/// LDK gives no other way to them. Layout: version and least version (1 byte each), id of the
/// update and number of steps (8 each), then each step as its number (1), its length (a big size)
/// and a TLV stream; that of a secret has the index under 0 and the secret under 2.
pub(super) fn secrets_in(update: &[u8]) -> Vec<(u64, SecretKey)> {
    let mut secrets = Vec::new();
    let mut steps = Steps { rest: update.get(10..).unwrap_or_default() };
    let Some(count) = steps.take(8).and_then(|bytes| bytes.try_into().ok()) else {
        return secrets;
    };
    for _ in 0..u64::from_be_bytes(count) {
        let Some((number, content)) = steps.next() else { break };
        if number == COMMITMENT_SECRET_STEP {
            secrets.extend(secret_in(content));
        }
    }
    secrets
}

/// The id that the keys of a channel are derived from, and our revocation basepoint, in a monitor.
///
/// LDK gives no other way to them. Layout: version and least version (1 byte each), id of the last
/// update (8), obscure factor (6), our destination script, a mark and what it announces, the
/// counterparty's script, our shutdown script, then both.
pub(super) fn keys_id_in(monitor: &[u8]) -> Option<([u8; 32], PublicKey)> {
    let mut rest = monitor.get(16..)?;
    let reader = &mut rest;
    let _destination = ScriptBuf::read(reader).ok()?;
    let is_absent = u8::read(reader).ok()? == 1;
    if !is_absent {
        ScriptBuf::read(reader).ok()?;
        PublicKey::read(reader).ok()?;
        PublicKey::read(reader).ok()?;
    }
    let _counterparty = ScriptBuf::read(reader).ok()?;
    let _shutdown = ScriptBuf::read(reader).ok()?;
    let keys_id = <[u8; 32]>::read(reader).ok()?;
    Some((keys_id, PublicKey::read(reader).ok()?))
}

struct Steps<'a> {
    rest: &'a [u8],
}

impl<'a> Steps<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn big_size(&mut self) -> Option<usize> {
        let mut cursor = Cursor::new(self.rest);
        let BigSize(size) = Readable::read(&mut cursor).ok()?;
        self.rest = self.rest.get(usize::try_from(cursor.position()).ok()?..)?;
        usize::try_from(size).ok()
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let number = *self.take(1)?.first()?;
        let length = self.big_size()?;
        Some((number, self.take(length)?))
    }
}

fn secret_in(content: &[u8]) -> Option<(u64, SecretKey)> {
    let mut records = Steps { rest: content };
    let (mut index, mut secret) = (None, None);
    while !records.rest.is_empty() {
        match records.next()? {
            (0, bytes) => index = Some(u64::from_be_bytes(bytes.try_into().ok()?)),
            (2, bytes) => secret = Some(SecretKey::from_slice(bytes).ok()?),
            _ => {}
        }
    }
    Some((index?, secret?))
}

pub(super) fn revocable_key(channel: ChannelId, revocable: &Revocable) -> Vec<u8> {
    let mut rest = channel.0.to_vec();
    rest.extend_from_slice(&revocable.state.commitment_txid().to_byte_array());
    Table::Revocable.key(rest)
}

pub(super) fn encode_revocable(revocable: &Revocable) -> Vec<u8> {
    let mut value = revocable.number.to_be_bytes().to_vec();
    value.extend_from_slice(&revocable.state.encode());
    value
}

pub(super) fn decode_revocable(key: &[u8], value: &[u8]) -> Option<(ChannelId, Revocable)> {
    let (channel, txid) = Table::Revocable.rest(key)?.split_first_chunk::<32>()?;
    let txid = Txid::from_slice(txid).ok()?;
    let (number, state) = value.split_first_chunk::<8>()?;
    let state = RevokedState::decode(txid, state).ok()?;
    Some((ChannelId(*channel), Revocable { number: u64::from_be_bytes(*number), state }))
}

pub(super) fn encode_revealed(revealed: &Revealed) -> Vec<u8> {
    match revealed {
        Revealed::State(revealed) => {
            let RevealedState { channel, number, state, secret } = &**revealed;
            let mut value = vec![STATE];
            value.extend_from_slice(&channel.0);
            value.extend_from_slice(&number.to_be_bytes());
            value.extend_from_slice(&state.commitment_txid().to_byte_array());
            value.extend_from_slice(&secret.expose().secret_bytes());
            value.extend_from_slice(&state.encode());
            value
        }
        Revealed::Gone { channel } => {
            let mut value = vec![GONE];
            value.extend_from_slice(&channel.0);
            value
        }
    }
}

pub(super) fn decode_revealed(value: &[u8]) -> Option<Revealed> {
    let (kind, rest) = value.split_first()?;
    let (channel, rest) = rest.split_first_chunk::<32>()?;
    let channel = ChannelId(*channel);
    match *kind {
        STATE => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            let (txid, rest) = rest.split_first_chunk::<32>()?;
            let (secret, rest) = rest.split_first_chunk::<32>()?;
            let state = RevokedState::decode(Txid::from_byte_array(*txid), rest).ok()?;
            let secret = RevocationSecret::new(SecretKey::from_slice(secret).ok()?);
            let number = u64::from_be_bytes(*number);
            Some(Revealed::State(Box::new(RevealedState { channel, number, state, secret })))
        }
        GONE if rest.is_empty() => Some(Revealed::Gone { channel }),
        _ => None,
    }
}

pub(super) fn entry_key(number: u64) -> Vec<u8> {
    Table::Revealed.key(number.to_be_bytes())
}

pub(super) fn number_of(key: &[u8]) -> Result<u64, StoreError> {
    let number = Table::Revealed.rest(key).and_then(|rest| rest.try_into().ok());
    number.map(u64::from_be_bytes).ok_or_else(|| corrupt(Table::Revealed, key))
}

/// Where the next entry's number is kept when no entry is left.
pub(super) fn next_key() -> Vec<u8> {
    Table::RevealedNext.key("")
}

pub(super) fn corrupt(table: Table, key: &[u8]) -> StoreError {
    crate::store::cbor::corrupt(table, &format!("{} cannot be read", hex::encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An update as LDK writes one: a step that does not matter, then a secret.
    fn update(secret: [u8; 32]) -> Vec<u8> {
        let mut bytes = vec![1, 1];
        bytes.extend_from_slice(&7_u64.to_be_bytes());
        bytes.extend_from_slice(&2_u64.to_be_bytes());
        bytes.extend_from_slice(&[5, 4, 0, 2, 0x51, 0x52]);
        bytes.extend_from_slice(&[3, 44, 0, 8]);
        bytes.extend_from_slice(&((1_u64 << 48) - 3).to_be_bytes());
        bytes.extend_from_slice(&[2, 32]);
        bytes.extend_from_slice(&secret);
        bytes
    }

    #[test]
    fn a_secret_is_found_behind_other_steps() {
        let secret = SecretKey::from_slice(&[9; 32]).unwrap();
        assert_eq!(secrets_in(&update([9; 32])), [((1 << 48) - 3, secret)]);
    }

    #[test]
    fn an_update_that_is_cut_off_has_no_secret() {
        let whole = update([9; 32]);
        for end in 0..whole.len() {
            assert_eq!(secrets_in(&whole[..end]), []);
        }
        assert_eq!(secrets_in(&update([0; 32])), [], "no secret is zero");
    }
}
