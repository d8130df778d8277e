//! What a client leaves with a tower: seals, remedies in both modes, sizes, receipts, and bytes
//! that are none of it.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, CompressedPublicKey, FeeRate, ScriptBuf, Txid, WScriptHash, absolute};
use channel_contracts::DecodeError;
use channel_contracts::justice::{
    JusticeError, PenaltyKind, RevocationSecret, RevokedState, combine,
};
use channel_contracts::script::anchor::pay_to_anchor;
use channel_contracts::script::{CommitmentFormat, HtlcDirection};
use channel_contracts::tower::policy::Standing;
use channel_contracts::tower::receipt::ReceiptError;
use channel_contracts::tower::remedy::wire::SIZE_CLASSES;
use channel_contracts::tower::seal::{BLOB_LEN_MAX, BLOB_OVERHEAD};
use channel_contracts::tower::{
    Appointment, AppointmentReceipt, ChannelTag, FeeLevels, Locator, Mode, OpenError, PolicyError,
    Refusal, RegistrationReceipt, Remedy, RemedyError, SealedBlob, TowerPolicy,
};
use common::breach::{Breach, FORMATS, htlc, htlcs, rider, sign_coin, stranger, sweep_script};

fn blind(breach: &Breach, levels: &FeeLevels) -> Remedy {
    let (secp, state) = (Secp256k1::new(), breach.state.clone());
    Remedy::blind(&secp, state, sweep_script(), levels, &breach.secret).unwrap()
}

fn trusted(breach: &Breach) -> Remedy {
    let secret = RevocationSecret::new(breach.secret);
    Remedy::trusted(&Secp256k1::new(), breach.state.clone(), sweep_script(), secret).unwrap()
}

fn appointment(remedy: &Remedy) -> Appointment {
    Appointment {
        channel: ChannelTag([7; 16]),
        sequence: 1_000,
        locator: Locator::of(remedy.state().commitment_txid()),
        blob: remedy.seal().unwrap(),
    }
}

fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap()
}

fn sat_per_kwu(feerate: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(feerate)
}

#[test]
fn a_tower_that_sees_the_breach_takes_everything() {
    let secp = Secp256k1::new();
    for format in FORMATS {
        let breach = Breach::new(format);
        for remedy in [blind(&breach, &FeeLevels::default()), trusted(&breach)] {
            let appointment = Appointment::decode(&appointment(&remedy).encode()).unwrap();
            let txid = breach.transaction().compute_txid();
            assert_eq!(appointment.locator, Locator::of(txid));
            let opened = Remedy::open(txid, &appointment.blob).unwrap();
            assert_eq!(opened, remedy);
            opened.check(&secp, breach.transaction()).unwrap();
            for feerate in [1_000, 8_000] {
                let feerate = sat_per_kwu(feerate);
                let pairs = opened.pairs(&secp, breach.transaction(), feerate).unwrap();
                assert_eq!(pairs.len(), if feerate == sat_per_kwu(1_000) { 5 } else { 3 });
                let mut transaction = combine(&pairs, Some(rider())).unwrap();
                sign_coin(&mut transaction, pairs.len());
                assert_eq!(breach.run(&transaction, &[]), Ok(()), "{format:?} {feerate}");
                let alone = combine(&pairs, None).unwrap();
                assert_eq!(breach.run(&alone, &[]), Ok(()));
                let fees: Amount = pairs.iter().map(|pair| pair.fee().unwrap()).sum();
                assert!(fees >= feerate.fee_wu(alone.weight()).unwrap());
            }
        }
    }
}

#[test]
fn only_a_trusted_tower_takes_the_second_stage() {
    let secp = Secp256k1::new();
    for format in FORMATS {
        let breach = Breach::new(format);
        let moved = breach.second_stage(&breach.built.htlcs[3], None);
        let feerate = sat_per_kwu(2_000);
        let blind = blind(&breach, &FeeLevels::default());
        assert_eq!(blind.second_stage_pairs(&secp, &moved, feerate), Ok(vec![]));
        let pairs = trusted(&breach).second_stage_pairs(&secp, &moved, feerate).unwrap();
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].kind, PenaltyKind::SecondStage);
        let transaction = combine(&pairs, None).unwrap();
        assert_eq!(breach.run(&transaction, &[moved]), Ok(()), "{format:?}");
    }
}

#[test]
fn a_blind_tower_takes_the_next_level_above_or_the_highest() {
    let secp = Secp256k1::new();
    let breach = Breach::new(CommitmentFormat::Anchors);
    let remedy = blind(&breach, &FeeLevels::default());
    // Asked, answered, and how many outputs are worth it.
    let table = [(1, 1_000, 5), (1_000, 1_000, 5), (1_001, 8_000, 3), (64_000, 64_000, 3)];
    for (asked, answered, count) in table.into_iter().chain([(90_000, 64_000, 3)]) {
        assert_eq!(remedy.feerate(sat_per_kwu(asked)), sat_per_kwu(answered));
        let pairs = remedy.pairs(&secp, breach.transaction(), sat_per_kwu(asked)).unwrap();
        assert_eq!(pairs.len(), count, "{asked}");
        let same = trusted(&breach).pairs(&secp, breach.transaction(), sat_per_kwu(answered));
        assert_eq!(same.unwrap(), pairs, "what the secret would sign");
    }
    assert_eq!(trusted(&breach).feerate(sat_per_kwu(1_234)), sat_per_kwu(1_234));
}

#[test]
fn a_wrong_signature_or_secret_is_found() {
    let secp = Secp256k1::new();
    let breach = Breach::new(CommitmentFormat::ZeroFee);
    let txid = breach.transaction().compute_txid();
    let state = || breach.state.clone();
    let expected = Box::new(breach.state.revocation_key());
    let actual = Box::new(stranger().public_key(&secp));
    let wrong = Err(RemedyError::Justice(JusticeError::WrongSecret { expected, actual }));
    let levels = FeeLevels::default();
    assert_eq!(Remedy::blind(&secp, state(), sweep_script(), &levels, &stranger()), wrong);
    let secret = RevocationSecret::new(stranger());
    assert_eq!(Remedy::trusted(&secp, state(), sweep_script(), secret), wrong);

    // The last signature of the last level, just before the padding.
    let mut bytes = blind(&breach, &levels).encode().unwrap().to_vec();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 1;
    let tampered = Remedy::decode(txid, Mode::Blind, &bytes).unwrap();
    let refused = tampered.check(&secp, breach.transaction());
    assert!(matches!(refused, Err(JusticeError::WrongSignature { .. })), "{refused:?}");

    let mut bytes = trusted(&breach).encode().unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let tampered = Remedy::decode(txid, Mode::Trusted, &bytes).unwrap();
    let refused = tampered.check(&secp, breach.transaction());
    assert!(matches!(refused, Err(JusticeError::WrongSecret { .. })), "{refused:?}");
    assert!(tampered.pairs(&secp, breach.transaction(), sat_per_kwu(1_000)).is_err());
}

#[test]
fn money_goes_to_scripts_of_a_wallet_only() {
    let (secp, levels) = (Secp256k1::new(), FeeLevels::default());
    let breach = Breach::new(CommitmentFormat::Anchors);
    let key = CompressedPublicKey(stranger().public_key(&secp));
    let good = [
        sweep_script(),
        ScriptBuf::new_p2wpkh(&key.wpubkey_hash()),
        ScriptBuf::new_p2wsh(&WScriptHash::all_zeros()),
    ];
    for script in good {
        let state = breach.state.clone();
        let remedy = Remedy::blind(&secp, state, script.clone(), &levels, &breach.secret).unwrap();
        let txid = remedy.state().commitment_txid();
        let opened = Remedy::open(txid, &remedy.seal().unwrap()).unwrap();
        assert_eq!(opened.sweep_script(), &script);
        assert_eq!(opened, remedy);
    }
    for script in [pay_to_anchor(), ScriptBuf::new(), ScriptBuf::new_op_return([])] {
        let state = breach.state.clone();
        let refused = Remedy::blind(&secp, state, script.clone(), &levels, &breach.secret);
        assert_eq!(refused, Err(RemedyError::SweepScript { script }));
    }
}

#[test]
fn sizes_are_as_documented() {
    let levels = FeeLevels::default();
    assert_eq!(levels.feerates().len(), 3);
    for format in FORMATS {
        let plain = Breach::with(format, vec![], 300_000_000);
        let remedy = blind(&plain, &levels);
        assert_eq!(remedy.encode().unwrap().len(), 320);
        assert_eq!(remedy.seal().unwrap().len(), 350);
        let length = appointment(&remedy).encode().len();
        assert_eq!(length, 386);
        assert!(length <= 400, "a state without HTLCs, locator and overhead included");
        assert_eq!(plain.state.encode().len(), 78);
        assert_eq!(trusted(&plain).encode().unwrap().len(), 78 + 33 + 32);
        assert_eq!(appointment(&trusted(&plain)).encode().len(), 209);
    }
    let many = |count: usize| {
        let all: Vec<_> = (0..count).map(|_| htlc(HtlcDirection::Offered, 900)).collect();
        let mut breach = Breach::with(CommitmentFormat::ZeroFee, all, 100_000_000);
        breach.commitment.dust_limit = Amount::ZERO;
        breach
    };
    let state = |count| many(count).state.encode().len();
    assert_eq!(state(1) - state(0), 66 + 41);
    assert_eq!(state(101) - state(1), 100 * 41);
    // 483 HTLCs fill a blob at one level; more levels are refused, not cut.
    let large = |count: usize| {
        let all: Vec<_> = (0..count).map(|_| htlc(HtlcDirection::Offered, 1_500)).collect();
        Breach::with(CommitmentFormat::Anchors, all, 100_000_000)
    };
    let one = FeeLevels::new(vec![sat_per_kwu(1_000)]).unwrap();
    let sealed = blind(&large(483), &one).seal().unwrap();
    assert!(sealed.len() <= BLOB_LEN_MAX, "{}", sealed.len());
    let two = FeeLevels::new([500, 1_000].map(sat_per_kwu).to_vec()).unwrap();
    assert!(matches!(blind(&large(483), &two).seal(), Err(DecodeError::TooLong { .. })));
    assert!(trusted(&large(483)).seal().unwrap().len() < 22_000);
}

#[test]
fn the_length_of_a_blind_blob_tells_little() {
    let mut lengths = vec![];
    for count in [0, 1, 2, 3, 5, 10, 20, 40] {
        let all: Vec<_> = (0..count).map(|n| htlc(HtlcDirection::Offered, 10_000 + n)).collect();
        let breach = Breach::with(CommitmentFormat::Anchors, all, 100_000_000);
        let blob = blind(&breach, &FeeLevels::default()).seal().unwrap();
        assert!(SIZE_CLASSES.contains(&(blob.len() - BLOB_OVERHEAD)), "{count}");
        lengths.push(blob.len() - BLOB_OVERHEAD);
    }
    // 10,000 sat are dust at the highest level, so each HTLC has two signatures: 41 + 128.
    assert_eq!(lengths, [320, 640, 1_280, 1_280, 1_280, 2_560, 5_120, 10_240]);
    assert!(SIZE_CLASSES.windows(2).all(|two| two[0] < two[1]));
    assert_eq!(SIZE_CLASSES[8] + BLOB_OVERHEAD, BLOB_LEN_MAX);
}

#[test]
fn a_blob_opens_with_its_txid_only_and_as_it_was_sealed() {
    let txid = Txid::from_byte_array([3; 32]);
    for mode in [Mode::Blind, Mode::Trusted] {
        let blob = SealedBlob::seal(txid, mode, b"remedy").unwrap();
        assert_eq!(blob.mode(), mode);
        assert_eq!(blob.len(), BLOB_OVERHEAD + 6);
        assert_eq!(*blob.open(txid).unwrap(), b"remedy");
        let other = Txid::from_byte_array([4; 32]);
        let length = blob.len();
        assert_eq!(blob.open(other), Err(OpenError::WrongKey { txid: other, length }));
        let bytes = blob.encode();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[index] ^= 1 << bit;
                // The mode is bound too: the other one does not open.
                let opened = SealedBlob::decode(&bad).ok().and_then(|blob| blob.open(txid).ok());
                assert_eq!(opened, None, "bit {bit} of byte {index}");
            }
        }
    }
}

#[test]
fn no_two_plaintexts_under_one_txid_share_a_nonce() {
    let txid = Txid::from_byte_array([3; 32]);
    let nonce = |mode, plaintext: &[u8]| {
        let bytes = SealedBlob::seal(txid, mode, plaintext).unwrap().encode();
        bytes[2..14].to_vec()
    };
    let mut nonces = vec![nonce(Mode::Trusted, &[0])];
    nonces.extend((0..=255).map(|byte| nonce(Mode::Blind, &[byte])));
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 257);
    assert_eq!(nonce(Mode::Blind, &[1]), nonce(Mode::Blind, &[1]), "no randomness");
    let same = |txid| SealedBlob::seal(txid, Mode::Blind, &[1]).unwrap().encode();
    assert_ne!(same(txid), same(Txid::from_byte_array([4; 32])));
}

/// Computed by another implementation, from the description alone. A change of these bytes is a
/// change of the format and needs a new version.
#[test]
fn the_seal_is_pinned() {
    let blob = SealedBlob::seal(Txid::from_byte_array([3; 32]), Mode::Blind, b"remedy").unwrap();
    assert_eq!(hex::encode(blob.encode()), SEALED);
    let tag = ChannelTag::derive(&[1; 32], &[2; 32]);
    assert_eq!(tag.to_string(), TAG);
    assert_ne!(ChannelTag::derive(&[3; 32], &[2; 32]), tag);
    assert_ne!(ChannelTag::derive(&[1; 32], &[3; 32]), tag);
}

const SEALED: &str = "0100b525b7c36e8d4d3bd7913a10e6675016cd62b98d1e45824d01b745fb38a40892ed19";
const TAG: &str = "5ff2bac329075f6135dae433922b9951";

#[test]
fn a_blob_of_64_kib_is_the_longest() {
    let txid = Txid::from_byte_array([3; 32]);
    let most = vec![0; BLOB_LEN_MAX - BLOB_OVERHEAD];
    let blob = SealedBlob::seal(txid, Mode::Blind, &most).unwrap();
    assert_eq!(SealedBlob::decode(&blob.encode()), Ok(blob.clone()));
    let more = vec![0; most.len() + 1];
    let (field, length, max) = ("sealed blob", BLOB_LEN_MAX + 1, BLOB_LEN_MAX);
    let refused = DecodeError::TooLong { field, length, max };
    assert_eq!(SealedBlob::seal(txid, Mode::Blind, &more), Err(refused));
    let mut bytes = blob.encode();
    bytes.push(0);
    assert_eq!(SealedBlob::decode(&bytes), Err(refused));
    for length in 0..BLOB_OVERHEAD {
        let refused = SealedBlob::decode(&bytes[..length]);
        assert!(matches!(refused, Err(DecodeError::Truncated { .. })), "{length}");
    }
}

#[test]
fn what_a_blind_remedy_has_behind_its_levels_is_zeros_of_its_class() {
    let breach = Breach::with(CommitmentFormat::Anchors, vec![], 300_000_000);
    let txid = breach.transaction().compute_txid();
    let good = blind(&breach, &FeeLevels::default()).encode().unwrap().to_vec();
    let decode = |bytes: &[u8]| Remedy::decode(txid, Mode::Blind, bytes);
    assert!(decode(&good).is_ok());
    let refused = Err(DecodeError::Invalid { field: "padding" });
    let mut bad = good.clone();
    *bad.last_mut().unwrap() = 1;
    assert_eq!(decode(&bad), refused);
    assert_eq!(decode(&good[..319]), refused);
    let mut bad = good.clone();
    bad.resize(640, 0);
    assert_eq!(decode(&bad), refused);
    assert!(Remedy::decode(txid, Mode::Trusted, &good).is_err());
}

#[test]
fn fee_levels_ascend_within_bounds() {
    let levels =
        |feerates: &[u64]| FeeLevels::new(feerates.iter().copied().map(sat_per_kwu).collect());
    assert!(levels(&[25, 1_000_000]).is_ok());
    assert_eq!(levels(&[]), Err(PolicyError::LevelCount { count: 0 }));
    assert_eq!(levels(&[100; 9]), Err(PolicyError::LevelCount { count: 9 }));
    for feerate in [24, 1_000_001] {
        let feerate_of = sat_per_kwu(feerate);
        assert_eq!(levels(&[feerate]), Err(PolicyError::Feerate { feerate: feerate_of }));
    }
    let (feerate, previous) = (sat_per_kwu(500), sat_per_kwu(500));
    assert_eq!(levels(&[500, 500]), Err(PolicyError::LevelOrder { feerate, previous }));
    let around = |estimate, percents| FeeLevels::around(sat_per_kwu(estimate), percents);
    assert_eq!(around(2_000, &[50, 400]), levels(&[1_000, 8_000]));
    assert_eq!(around(30, &[10, 50, 200]), levels(&[25, 60]));
    assert_eq!(around(u64::MAX, &[100, 800]), levels(&[1_000_000]));
    assert!(around(1_000, &[200, 100]).is_err());
}

#[test]
fn a_tower_takes_what_its_policy_allows() {
    let breach = Breach::new(CommitmentFormat::Anchors);
    let (blind, trusted) = (blind(&breach, &FeeLevels::default()), trusted(&breach));
    let policy = TowerPolicy { appointments_max: 10, ..TowerPolicy::default() };
    policy.check().unwrap();
    let standing = Standing { kept: 9, expiry: height(100), height: height(100) };
    let appointed = appointment(&blind);
    assert_eq!(policy.admit(&appointed, &standing), Ok(()));
    let refused = policy.admit(&appointment(&trusted), &standing);
    assert_eq!(refused, Err(Refusal::NotTrusted));
    let open = TowerPolicy { trusted: true, ..policy.clone() };
    assert_eq!(open.admit(&appointment(&trusted), &standing), Ok(()));
    let full = Standing { kept: 10, ..standing };
    assert_eq!(policy.admit(&appointed, &full), Err(Refusal::Quota { kept: 10, max: 10 }));
    let late = Standing { height: height(101), ..standing };
    let expired = Refusal::Expired { expiry: height(100), height: height(101) };
    assert_eq!(policy.admit(&appointed, &late), Err(expired));
    let (bytes, max) = (appointed.blob.len(), appointed.blob.len() - 1);
    let small = TowerPolicy { blob_bytes_max: max, ..policy.clone() };
    assert_eq!(small.admit(&appointed, &standing), Err(Refusal::BlobTooLong { bytes, max }));

    let nothing = TowerPolicy { appointments_max: 0, ..policy.clone() };
    assert_eq!(nothing.check(), Err(PolicyError::Zero { name: "appointments_max" }));
    let nothing = TowerPolicy { registration_blocks: 0, ..policy.clone() };
    assert_eq!(nothing.check(), Err(PolicyError::Zero { name: "registration_blocks" }));
    for bytes in [0, BLOB_LEN_MAX + 1] {
        let policy = TowerPolicy { blob_bytes_max: bytes, ..policy.clone() };
        assert_eq!(policy.check(), Err(PolicyError::BlobBytes { bytes }));
    }
}

#[test]
fn receipts_are_signed_for_one_tower_one_client_and_one_blob() {
    let secp = Secp256k1::new();
    let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let (tower_secret, client) = (key(1), key(2).public_key(&secp));
    let tower = tower_secret.public_key(&secp);
    let breach = Breach::new(CommitmentFormat::Anchors);
    let appointed = appointment(&blind(&breach, &FeeLevels::default()));

    let receipt = AppointmentReceipt::of(&appointed, tower, client, height(600));
    let signature = receipt.sign(&secp, &tower_secret);
    assert_eq!(receipt.verify(&secp, &signature, &appointed), Ok(()));
    let wrong = Err(ReceiptError::WrongSignature { tower });
    for changed in [
        AppointmentReceipt { client: tower, ..receipt },
        AppointmentReceipt { height: height(601), ..receipt },
    ] {
        assert_eq!(changed.verify(&secp, &signature, &appointed), wrong);
    }
    assert_eq!(receipt.verify(&secp, &receipt.sign(&secp, &key(3)), &appointed), wrong);
    let other = Appointment { sequence: 1_001, ..appointed.clone() };
    let (locator, sequence) = (appointed.locator, 1_000);
    assert_eq!(
        receipt.verify(&secp, &signature, &other),
        Err(ReceiptError::OtherAppointment { expected: locator, actual: locator, sequence })
    );
    let mut other = appointed.clone();
    other.blob = SealedBlob::seal(Txid::all_zeros(), Mode::Blind, &[]).unwrap();
    assert!(receipt.verify(&secp, &signature, &other).is_err());
    assert_ne!(appointed.message_hash(&tower), appointed.message_hash(&client));

    let registration = RegistrationReceipt {
        tower,
        client,
        appointments_max: 1_000,
        expiry: height(900),
        fee_budget: Amount::from_sat(5_000),
    };
    let signature = registration.sign(&secp, &tower_secret);
    assert_eq!(registration.verify(&secp, &signature), Ok(()));
    let more = RegistrationReceipt { appointments_max: 1_001, ..registration };
    assert_eq!(more.verify(&secp, &signature), wrong);
    assert_eq!(registration.encode().len(), 33 + 33 + 3 + 4 + 3);
    assert_ne!(registration.message_hash(), receipt.message_hash());
}

#[test]
fn a_trusted_remedy_never_shows_its_secret() {
    let breach = Breach::with(CommitmentFormat::Anchors, htlcs(), 300_000_000);
    let shown = format!("{:?}", trusted(&breach));
    assert!(shown.contains("RevocationSecret([redacted])"));
    assert!(!shown.contains(&hex::encode(breach.secret.secret_bytes())));
}

#[test]
fn a_state_is_read_with_the_txid_it_was_left_under() {
    let breach = Breach::new(CommitmentFormat::Anchors);
    let remedy = blind(&breach, &FeeLevels::default());
    let other = Txid::from_byte_array([9; 32]);
    let blob = SealedBlob::seal(other, Mode::Blind, &remedy.encode().unwrap()).unwrap();
    // Sealed for another transaction: it opens, but nothing in it is valid there.
    let opened = Remedy::open(other, &blob).unwrap();
    let refused = opened.check(&Secp256k1::new(), breach.transaction());
    assert!(matches!(refused, Err(JusticeError::OtherTransaction { .. })));
    let state = RevokedState::decode(other, &breach.state.encode()).unwrap();
    assert_eq!(state.commitment_txid(), other);
}
