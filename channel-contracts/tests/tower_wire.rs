//! The bytes of states, remedies, appointments and watches: round trips for anything that can
//! be, refusal of everything that cannot, and no panic on any bytes at all.
//!
//! `REGENERATE=1 cargo test -p channel-contracts --test tower_wire golden` writes the vectors
//! anew; a change of them is a change of the formats and needs new versions.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, Txid, absolute, relative};
use channel_contracts::DecodeError;
use channel_contracts::justice::encoding::STATE_LEN_MAX;
use channel_contracts::justice::state::HTLCS_MAX;
use channel_contracts::justice::{
    RevocationSecret, RevokedHtlc, RevokedKeys, RevokedState, RevokedTerms, RevokedToLocal,
    StateError,
};
use channel_contracts::script::{CommitmentFormat, HtlcDirection};
use channel_contracts::tower::batch_watch::{SEALED_WATCH_LEN_MAX, WATCH_LEN_MAX};
use channel_contracts::tower::{
    Appointment, AppointmentReceipt, BatchWatch, BatchWatchError, ChannelTag, FeeLevels, Locator,
    Mode, RegistrationReceipt, Remedy, SealedBlob, WatchKey,
};
use channel_contracts::tree::{PathError, UserSlot};
use common::batch::{Batch, EXPIRY};
use common::breach::{Breach, FORMATS, sweep_script};
use proptest::prelude::*;
use serde_json::{Value, json};

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn key(byte: u8) -> PublicKey {
    secret(byte).public_key(&Secp256k1::new())
}

fn terms(format: CommitmentFormat, delay: u16) -> RevokedTerms {
    let keys = RevokedKeys {
        revocation: key(1),
        broadcaster_delayed: key(2),
        broadcaster_htlc: key(3),
        countersignatory_htlc: key(4),
    };
    RevokedTerms { format, keys, to_self_delay: relative::Height::from_height(delay) }
}

fn htlc(vout: u16) -> RevokedHtlc {
    RevokedHtlc {
        vout,
        value: Amount::from_sat(10_000),
        direction: HtlcDirection::Offered,
        payment_hash: sha256::Hash::all_zeros(),
        cltv_expiry: absolute::Height::from_consensus(700).unwrap(),
    }
}

fn txid() -> Txid {
    Txid::from_byte_array([6; 32])
}

fn value() -> impl Strategy<Value = Amount> {
    let all = Amount::MAX_MONEY.to_sat();
    prop_oneof![0u64..2_000_000, 0..=all].prop_map(Amount::from_sat)
}

prop_compose! {
    fn state()(
        format in prop::sample::select(common::breach::FORMATS.to_vec()),
        delay in any::<u16>(),
        to_local in prop::option::of(value()),
        vouts in prop::collection::btree_set(any::<u16>(), 0..12),
        parts in prop::collection::vec((value(), any::<bool>(), any::<[u8; 32]>(), 0u32..500_000_000), 12),
    ) -> RevokedState {
        let mut vouts: Vec<u16> = vouts.into_iter().collect();
        // The balance stands anywhere among the HTLCs.
        let own = if vouts.is_empty() { 0 } else { vouts.remove(vouts.len() / 2) };
        let to_local = to_local.map(|value| RevokedToLocal { vout: own, value });
        let htlcs = vouts.iter().rev().zip(parts).map(|(vout, (value, offered, hash, expiry))| {
            let direction = if offered { HtlcDirection::Offered } else { HtlcDirection::Received };
            let payment_hash = sha256::Hash::from_byte_array(hash);
            let cltv_expiry = absolute::Height::from_consensus(expiry).unwrap();
            RevokedHtlc { vout: *vout, value, direction, payment_hash, cltv_expiry }
        });
        RevokedState::new(txid(), &terms(format, delay), to_local, htlcs.collect()).unwrap()
    }
}

prop_compose! {
    fn levels()(feerates in prop::collection::btree_set(25u64..=1_000_000, 1..=4)) -> FeeLevels {
        FeeLevels::new(feerates.into_iter().map(FeeRate::from_sat_per_kwu).collect()).unwrap()
    }
}

fn blind(state: RevokedState, levels: &FeeLevels) -> Remedy {
    Remedy::blind(&Secp256k1::new(), state, sweep_script(), levels, &secret(1)).unwrap()
}

fn trusted(state: RevokedState) -> Remedy {
    let secret = RevocationSecret::new(secret(1));
    Remedy::trusted(&Secp256k1::new(), state, sweep_script(), secret).unwrap()
}

/// Every prefix is refused, those of long bytes in steps, and so is one byte more.
fn assert_exact<T: std::fmt::Debug + PartialEq>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    for length in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
        assert!(decode(&bytes[..length]).is_err(), "cut to {length} of {}", bytes.len());
    }
    let longer = [bytes, &[0]].concat();
    assert!(decode(&longer).is_err(), "one byte too many");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_state_is_read_as_it_was_written(state in state()) {
        let bytes = state.encode();
        prop_assert!(bytes.len() <= STATE_LEN_MAX);
        prop_assert_eq!(RevokedState::decode(txid(), &bytes), Ok(state));
        assert_exact(&bytes, |bytes| RevokedState::decode(txid(), bytes));
    }

    #[test]
    fn a_changed_state_is_another_state_or_none(
        state in state(), index in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let mut bytes = state.encode();
        let index = index.index(bytes.len());
        bytes[index] ^= flip;
        if let Ok(other) = RevokedState::decode(txid(), &bytes) {
            prop_assert_ne!(&other, &state);
            prop_assert_eq!(other.encode(), bytes, "one state, one encoding");
        }
    }

    #[test]
    fn a_remedy_is_opened_as_it_was_sealed(state in state(), levels in levels()) {
        for remedy in [blind(state.clone(), &levels), trusted(state.clone())] {
            let blob = SealedBlob::decode(&remedy.seal().unwrap().encode()).unwrap();
            prop_assert_eq!(blob.mode(), remedy.mode());
            prop_assert_eq!(Remedy::open(txid(), &blob).unwrap(), remedy.clone());
            let bytes = remedy.encode().unwrap();
            assert_exact(&bytes, |bytes| Remedy::decode(txid(), remedy.mode(), bytes));
        }
    }

    #[test]
    fn a_changed_blob_does_not_open(
        state in state(), index in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        for remedy in [blind(state.clone(), &FeeLevels::default()), trusted(state.clone())] {
            let mut bytes = remedy.seal().unwrap().encode();
            let index = index.index(bytes.len());
            bytes[index] ^= flip;
            let opened = SealedBlob::decode(&bytes).map(|blob| blob.open(txid()));
            prop_assert!(!matches!(opened, Ok(Ok(_))));
        }
    }

    #[test]
    fn an_appointment_is_read_as_it_was_written(
        channel in any::<[u8; 16]>(), sequence in any::<u64>(), locator in any::<[u8; 16]>(),
        plaintext in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let blob = SealedBlob::seal(txid(), Mode::Blind, &plaintext).unwrap();
        let (channel, locator) = (ChannelTag(channel), Locator(locator));
        let appointment = Appointment { channel, sequence, locator, blob };
        let bytes = appointment.encode();
        prop_assert_eq!(Appointment::decode(&bytes), Ok(appointment));
        let fixed = bytes.len() - plaintext.len();
        for length in 0..fixed {
            prop_assert!(Appointment::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = RevokedState::decode(txid(), &bytes);
        let _ = SealedBlob::decode(&bytes).map(|blob| blob.open(txid()));
        let _ = Appointment::decode(&bytes);
        let _ = BatchWatch::decode(&bytes);
        let _ = BatchWatch::open(&WatchKey::new([1; 32]), &bytes);
        for mode in [Mode::Blind, Mode::Trusted] {
            let _ = Remedy::decode(txid(), mode, &bytes);
        }
    }

    /// What an author of blobs could send: valid up to a point.
    #[test]
    fn no_changed_remedy_makes_a_reader_panic(
        state in state(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for remedy in [blind(state.clone(), &FeeLevels::default()), trusted(state.clone())] {
            let mut bytes = remedy.encode().unwrap().to_vec();
            for (index, byte) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            let blob = SealedBlob::seal(txid(), remedy.mode(), &bytes).unwrap();
            if let Ok(opened) = Remedy::open(txid(), &blob) {
                prop_assert_eq!(opened.seal().unwrap(), blob, "one remedy, one encoding");
            }
        }
    }
}

#[test]
fn states_that_cannot_be_are_refused() {
    let terms = terms(CommitmentFormat::Anchors, 144);
    let new = |to_local, htlcs| RevokedState::new(txid(), &terms, to_local, htlcs);
    let to_local = Some(RevokedToLocal { vout: 3, value: Amount::from_sat(1) });
    assert!(new(to_local, vec![htlc(5), htlc(1)]).is_ok());
    assert_eq!(new(to_local, vec![htlc(3)]), Err(StateError::SameOutput { vout: 3 }));
    assert_eq!(new(None, vec![htlc(5), htlc(5)]), Err(StateError::SameOutput { vout: 5 }));
    let many = |count: usize| (0..count as u16).map(htlc).collect::<Vec<_>>();
    assert!(new(None, many(HTLCS_MAX)).is_ok());
    let count = HTLCS_MAX + 1;
    assert_eq!(new(None, many(count)), Err(StateError::TooManyHtlcs { count }));
    let value = Amount::MAX_MONEY + Amount::ONE_SAT;
    let absurd = vec![RevokedHtlc { value, ..htlc(9) }];
    assert_eq!(new(None, absurd), Err(StateError::ValueTooLarge { vout: 9, value }));
}

#[test]
fn bytes_of_states_that_cannot_be_are_refused() {
    let state = RevokedState::new(
        txid(),
        &terms(CommitmentFormat::Anchors, 144),
        Some(RevokedToLocal { vout: 1, value: Amount::from_sat(1) }),
        vec![htlc(2), htlc(4)],
    );
    let good = state.unwrap().encode();
    // Version, format, delay, two keys, to_local (1, index, value), count, two keys.
    let (to_local, count, first) = (70, 73, 74 + 66);
    let each = (good.len() - first) / 2;
    let refused = |index: usize, byte: u8| {
        let mut bad = good.clone();
        assert_ne!(bad[index], byte);
        bad[index] = byte;
        RevokedState::decode(txid(), &bad).unwrap_err()
    };
    let range = |field, value, min, max| DecodeError::OutOfRange { field, value, min, max };
    assert_eq!(refused(0, 2), range("state version", 2, 1, 1));
    assert_eq!(refused(1, 3), range("commitment format", 3, 0, 2));
    assert_eq!(refused(4, 9), DecodeError::Invalid { field: "revocation key" });
    assert_eq!(refused(to_local, 2), range("to_local", 2, 0, 1));
    assert_eq!(refused(to_local + 1, 4), DecodeError::Invalid { field: "index of to_local" });
    assert!(matches!(refused(count, 1), DecodeError::TrailingData { .. }));
    assert!(matches!(refused(count, 3), DecodeError::Truncated { .. }));
    assert_eq!(refused(first + each, 2), range("output index", 2, 3, 65_535));
    assert_eq!(refused(first + 4, 2), range("HTLC direction", 2, 0, 1));
    let mut many = good.clone();
    many.splice(count..=count, [0xfd, 0x03, 0xc7]);
    let refused = RevokedState::decode(txid(), &many);
    assert_eq!(refused, Err(range("number of HTLCs", 967, 0, 966)));
}

fn watch() -> BatchWatch {
    let path = Batch::new(5, 4).sign().path(UserSlot(2)).unwrap();
    let guard_height = absolute::Height::from_consensus(EXPIRY - 54).unwrap();
    BatchWatch { path, guard_height, budget: Amount::from_sat(25_000) }
}

#[test]
fn a_watch_is_read_as_it_was_written_open_and_sealed() {
    let (watch, key) = (watch(), WatchKey::new([1; 32]));
    let bytes = watch.encode();
    assert!(bytes.len() <= WATCH_LEN_MAX);
    assert_eq!(BatchWatch::decode(&bytes), Ok(watch.clone()));
    assert_exact(&bytes, BatchWatch::decode);
    let sealed = watch.seal(&key);
    assert!(sealed.len() <= SEALED_WATCH_LEN_MAX);
    assert_eq!(sealed.len(), bytes.len() + 1 + 12 + 16);
    assert_eq!(BatchWatch::open(&key, &sealed), Ok(watch.clone()));
    assert_eq!(sealed, watch.seal(&key), "no randomness");
    let length = sealed.len();
    let other = BatchWatch::open(&WatchKey::new([2; 32]), &sealed);
    assert_eq!(other, Err(BatchWatchError::WrongKey { length }));
    for index in 0..length {
        let mut bad = sealed.clone();
        bad[index] ^= 1;
        assert!(BatchWatch::open(&key, &bad).is_err(), "byte {index}");
    }
    assert_eq!(format!("{key:?}"), "WatchKey([redacted])");
}

#[test]
fn a_watch_that_could_not_help_is_refused() {
    let good = watch();
    let verified = good.verify().unwrap();
    assert_eq!(verified.root, good.path.path.root);
    let expiry = good.path.path.leaf.expiry;
    let late = BatchWatch { guard_height: expiry, ..good.clone() };
    let refused = BatchWatchError::TooLate { guard_height: expiry, expiry };
    assert_eq!(late.verify().unwrap_err(), refused);
    let mut unsigned = good;
    unsigned.path.signatures[0].0[7] ^= 1;
    let refused = BatchWatchError::Path(PathError::WrongSignature { level: 0 });
    assert_eq!(unsigned.verify().unwrap_err(), refused);
}

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tower.json");

fn vector(format: CommitmentFormat) -> Value {
    let (secp, breach) = (Secp256k1::new(), Breach::new(format));
    let (state, levels) = (breach.state.clone(), FeeLevels::default());
    let secret = RevocationSecret::new(breach.secret);
    let blind =
        Remedy::blind(&secp, state.clone(), sweep_script(), &levels, &breach.secret).unwrap();
    let trusted = Remedy::trusted(&secp, state.clone(), sweep_script(), secret).unwrap();
    let txid = state.commitment_txid();
    let (channel, locator) = (ChannelTag::derive(&[1; 32], &[2; 32]), Locator::of(txid));
    let blob = trusted.seal().unwrap();
    let appointment = Appointment { channel, sequence: 300, locator, blob };
    let height = absolute::Height::from_consensus(800_000).unwrap();
    let (tower, client) = (key(8), key(9));
    let receipt = AppointmentReceipt::of(&appointment, tower, client, height);
    let registration = RegistrationReceipt {
        tower,
        client,
        appointments_max: 100_000,
        expiry: height,
        fee_budget: Amount::from_sat(25_000),
    };
    json!({
        "format": format!("{format:?}"),
        "commitment_txid": txid.to_string(),
        "sweep_script": sweep_script().to_hex_string(),
        "revocation_secret": hex::encode(breach.secret.secret_bytes()),
        "state": hex::encode(state.encode()),
        "blind_remedy": hex::encode(&*blind.encode().unwrap()),
        "blind_blob": hex::encode(blind.seal().unwrap().encode()),
        "trusted_remedy": hex::encode(&*trusted.encode().unwrap()),
        "tower": tower.to_string(),
        "client": client.to_string(),
        "appointment": hex::encode(appointment.encode()),
        "appointment_message": hex::encode(&appointment.message_hash(&tower)[..]),
        "receipt": hex::encode(receipt.encode()),
        "receipt_message": hex::encode(&receipt.message_hash()[..]),
        "registration": hex::encode(registration.encode()),
        "registration_message": hex::encode(&registration.message_hash()[..]),
    })
}

#[test]
fn golden_vectors_are_reproduced() {
    let mut vectors: Vec<Value> = FORMATS.into_iter().map(vector).collect();
    vectors.push(json!({
        "watch": hex::encode(watch().encode()),
        "watch_key": hex::encode([1; 32]),
        "sealed_watch": hex::encode(watch().seal(&WatchKey::new([1; 32]))),
    }));
    let text = format!("{}\n", serde_json::to_string_pretty(&vectors).unwrap());
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(VECTORS, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(VECTORS).unwrap(), text);
}
