//! What the store has of a breach.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{FeeRate, OutPoint, Transaction};
use channel_contracts::tower::{ChannelTag, Remedy, SealedBlob};
use serde::{Deserialize, Serialize};

use super::breach::{Answer, Breach, Spend};
use crate::store::cbor::{corrupt, decode, encode};
use crate::store::{Batch, StoreError, Table};

#[derive(Serialize, Deserialize)]
struct Record {
    number: u64,
    client: PublicKey,
    channel: [u8; 16],
    #[serde(with = "serde_bytes")]
    commitment: Vec<u8>,
    confirmed: Option<u32>,
    replaced: Option<u32>,
    answer: StoredAnswer,
    spends: Vec<(OutPoint, Spend)>,
    moved: Vec<(serde_bytes::ByteBuf, u32)>,
    feerate_sat_per_kwu: u64,
}

/// An answer is kept as it came: sealed, with the commitment beside it that opens it.
#[derive(Serialize, Deserialize)]
enum StoredAnswer {
    Remedy(serde_bytes::ByteBuf),
    Penalty(serde_bytes::ByteBuf),
}

/// Writes a breach as it stands.
///
/// # Panics
///
/// If the remedy is too large for a blob; it came in one.
pub(super) fn put(breach: &Breach, writes: &mut Batch) {
    let answer = match &breach.answer {
        Answer::Remedy(remedy) => {
            let blob = remedy.seal().expect("a remedy that came in a blob fits into one");
            StoredAnswer::Remedy(blob.encode().into())
        }
        Answer::Penalty(penalty) => StoredAnswer::Penalty(serialize(&**penalty).into()),
    };
    let moved = breach.moved.iter();
    let record = Record {
        number: breach.number,
        client: breach.client,
        channel: breach.channel.0,
        commitment: serialize(&breach.commitment),
        confirmed: breach.confirmed,
        replaced: breach.replaced,
        answer,
        spends: breach.spends.iter().map(|(outpoint, spend)| (*outpoint, *spend)).collect(),
        moved: moved.map(|(moved, height)| (serialize(moved).into(), *height)).collect(),
        feerate_sat_per_kwu: breach.feerate.to_sat_per_kwu(),
    };
    writes.put(key(breach), encode(&record));
}

/// Forgets a breach.
pub(super) fn delete(breach: &Breach, writes: &mut Batch) {
    writes.delete(key(breach));
}

/// Reads a breach back; its targets are reckoned anew by whoever asks for it.
///
/// # Errors
///
/// [`StoreError::Corrupt`].
pub(super) fn get(value: &[u8]) -> Result<Breach, StoreError> {
    let bad = |detail: &dyn std::fmt::Display| corrupt(Table::TowerBreach, detail);
    let record: Record = decode(Table::TowerBreach, value)?;
    let commitment: Transaction = deserialize(&record.commitment).map_err(|e| bad(&e))?;
    let answer = match record.answer {
        StoredAnswer::Remedy(blob) => {
            let blob = SealedBlob::decode(&blob).map_err(|e| bad(&e))?;
            let remedy = Remedy::open(commitment.compute_txid(), &blob).map_err(|e| bad(&e))?;
            Answer::Remedy(Box::new(remedy))
        }
        StoredAnswer::Penalty(penalty) => {
            Answer::Penalty(Box::new(deserialize(&penalty).map_err(|e| bad(&e))?))
        }
    };
    let mut moved = Vec::with_capacity(record.moved.len());
    for (bytes, height) in record.moved {
        moved.push((deserialize(&bytes).map_err(|e| bad(&e))?, height));
    }
    Ok(Breach {
        number: record.number,
        client: record.client,
        channel: ChannelTag(record.channel),
        commitment,
        confirmed: record.confirmed,
        replaced: record.replaced,
        targets: BTreeSet::new(),
        answer,
        spends: BTreeMap::from_iter(record.spends),
        moved,
        feerate: FeeRate::from_sat_per_kwu(record.feerate_sat_per_kwu),
    })
}

/// By the commitment, then the appointment: two clients may both have an answer to it.
fn key(breach: &Breach) -> Vec<u8> {
    let mut rest = breach.txid().to_byte_array().to_vec();
    rest.extend_from_slice(&breach.number.to_be_bytes());
    Table::TowerBreach.key(rest)
}
