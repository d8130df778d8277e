//! The open tower protocol against bytes that others published: the penalty blob of rust-teos,
//! signatures of Core Lightning's and LDK's tests, the JSON of the HTTP interface.
#![allow(clippy::unwrap_used)]

use std::str::FromStr;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Transaction, Txid};
use channel_contracts::tower::Locator;
use channel_contracts::tower::open_protocol::body::ENCRYPTED_BLOB_MAX;
use channel_contracts::tower::open_protocol::message::{self, SUBSCRIPTION_INFO};
use channel_contracts::tower::open_protocol::{
    AddAppointmentRequest, AddAppointmentResponse, ApiError, AppointmentBody, AppointmentStatus,
    Endpoint, ErrorCode, GetAppointmentRequest, GetAppointmentResponse, OpenPenaltyError,
    RegisterRequest, RegisterResponse, SignatureError, SubscriptionInfoRequest,
    SubscriptionInfoResponse, TrackedAppointment, decrypt, encrypt, recover, sign, verify,
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

// The vector of rust-teos, `teos-common/src/cryptography.rs`.
const PENALTY: &str = "010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff54038e830a1b4d696e656420627920416e74506f6f6c373432c2005b005e7a0ae3fabe6d6d7841cd582ead8ea5dd8e3de1173cae6fcd2a53c7362ebb7fb6f815604fe07cbe0200000000000000ac0e060005f90000ffffffff04d9476026000000001976a91411dbe48cc6b617f9c6adaf4d9ed5f625b1c7cb5988ac0000000000000000266a24aa21a9ed7248c6efddd8d99bfddd7f499f0b915bffa8253003cc934df1ff14a81301e2340000000000000000266a24b9e11b6d7054937e13f39529d6ad7e685e9dd4efa426f247d5f5a5bed58cdddb2d0fa60100000000000000002b6a2952534b424c4f434b3a054a68aa5368740e8b3e3c67bce45619c2cfd07d4d4f0936a5612d2d0034fa0a0120000000000000000000000000000000000000000000000000000000000000000000000000";
const DISPUTE_TXID: &str = "d6ac4a5e61657c4c604dcde855a1db74ec6b3e54f32695d72c5e11c7761ea1b4";
const BLOB: &str = "f64d730654738fdbcd9e65068be17bc1abb44e74f8977985cce48e77209cf97292c862e4eb7190aedc6c53ceddda6871a3988d1d9608e2d0dd7a1f59769e410618a7029001479ac3b9d699b11a08b0ccb04e56bfee88461d9cd3207623a4a543996dd3805323c93cd62069636305aaf159e9cca1063ad1f097c16fb3c2ebbcf09be96512c5d7c195c684569cbe8b7979870b04cada9806b7610569c66021afcc63f46dd4af75716950c4de094334cdf7d9e532820afe29d2621dd79920c7e0ecc10853517dd84ca9d699f712c229e86954c227cba1d0fc87c8d48ac05e2de8a6bc980afdfafcd7064e411c8d76065c06cc7f233e869eaff5bd8ccb5d8f0090d91a8f017355cc115863356ecf06cdda9b309096ea766d033dbd4f70a789a5b03138cfc7e2900a79bb465abf07a7ac45c41b4b30c008d4b299aad9d001cf45acd07e47cdd63c3b13d4b0788b041735225b5db1a43a2142311f695478168e31deb260702976fd70d0724ded84a7c3f89b";
/// Its first half, in the order of transactions.
const LOCATOR: &str = "b4a11e76c7115e2cd79526f3543e6bec";

// Vectors of Core Lightning's tests, which LDK's tests repeat: message, signature, key.
const SIGNED: [(&str, &str, &str); 3] = [
    (
        "is this compatible?",
        "rbgfioj114mh48d8egqx8o9qxqw4fmhe8jbeeabdioxnjk8z3t1ma1hu1fiswpakgucwwzwo6ofycffbsqusqdimugbh41n1g698hr9t",
        "02b80cabdf82638aac86948e4c06e82064f547768dcef977677b9ea931ea75bab5",
    ),
    (
        "hi",
        "rnrphcjswusbacjnmmmrynh9pqip7sy5cx695h6mfu64iac6qmcmsd8xnsyczwmpqp9shqkth3h4jmkgyqu5z47jfn1q7gpxtaqpx4xg",
        "02de60d194e1ca5947b59fe8e2efd6aadeabfb67f2e89e13ae1a799c1e08e4a43b",
    ),
    (
        "hi",
        "ry8bbsopmduhxy3dr5d9ekfeabdpimfx95kagdem7914wtca79jwamtbw4rxh69hg7n6x9ty8cqk33knbxaqftgxsfsaeprxkn1k48p3",
        "022b8ece90ee891cbcdac0c1cc6af46b73c47212d8defbce80265ac81a6b794931",
    ),
];
/// LDK's, with the secret key 1.
const BY_ONE: &str = "d9tibmnic9t5y41hg7hkakdcra94akas9ku3rmmj4ag9mritc8ok4p5qzefs78c9pqfhpuftqqzhydbdwfg7u6w6wdxcqpqn4sj4e73e";

const USER: &str = "020dea894c967319407265764aba31bdef75d463f96800f34dd6df61380d82dfc0";

fn user() -> PublicKey {
    PublicKey::from_str(USER).unwrap()
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn locator() -> Locator {
    Locator::of(Txid::from_str(DISPUTE_TXID).unwrap())
}

#[test]
fn the_blob_is_that_of_the_published_vector() {
    let txid = Txid::from_str(DISPUTE_TXID).unwrap();
    let penalty: Transaction = deserialize_hex(PENALTY).unwrap();
    let blob = hex::decode(BLOB).unwrap();
    assert_eq!(encrypt(txid, &penalty), blob);
    assert_eq!(decrypt(txid, &blob), Ok(penalty));
}

#[test]
fn a_wrong_or_changed_blob_is_refused() {
    let txid = Txid::from_str(DISPUTE_TXID).unwrap();
    let mut blob = hex::decode(BLOB).unwrap();
    let length = blob.len();
    blob[100] ^= 1;
    assert_eq!(decrypt(txid, &blob), Err(OpenPenaltyError::WrongKey { txid, length }));
    assert_eq!(decrypt(txid, &[]), Err(OpenPenaltyError::WrongKey { txid, length: 0 }));
}

#[test]
fn a_locator_is_the_first_half_as_transactions_carry_the_txid() {
    assert_eq!(locator().to_string(), LOCATOR);
}

#[test]
fn signatures_of_other_nodes_are_recovered() {
    let secp = Secp256k1::new();
    for (text, signature, key) in SIGNED {
        let key = PublicKey::from_str(key).unwrap();
        assert_eq!(recover(&secp, text.as_bytes(), signature), Ok(key));
        assert!(verify(&secp, text.as_bytes(), signature, &key));
        assert!(!verify(&secp, b"another", signature, &key));
        assert!(!verify(&secp, text.as_bytes(), signature, &user()));
    }
    let mut one = [0; 32];
    one[31] = 1;
    let one = SecretKey::from_slice(&one).unwrap();
    assert_eq!(sign(&secp, b"test message", &one), BY_ONE);
}

#[test]
fn what_is_no_signature_is_refused() {
    let secp = Secp256k1::new();
    let refused = |text: &str| recover(&secp, b"hi", text).unwrap_err();
    let good = SIGNED[1].1;
    assert_eq!(refused(""), SignatureError::Length { length: 0 });
    assert_eq!(refused(&good[1..]), SignatureError::Length { length: 103 });
    assert_eq!(refused(&format!("{good}y")), SignatureError::Length { length: 105 });
    assert_eq!(refused(&good.replacen('c', "l", 1)), SignatureError::Character { position: 5 });
    assert_eq!(refused(&good.to_uppercase()), SignatureError::Character { position: 0 });
    // Recovery id beyond 3, and r beyond the order of the group.
    assert_eq!(refused(&format!("yy{}", &good[2..])), SignatureError::Invalid);
    assert_eq!(refused(&format!("d{}", "9".repeat(103))), SignatureError::Invalid);
}

#[test]
fn the_bytes_signed_are_those_of_the_protocol() {
    let appointment = message::add_appointment(locator(), &[0xcd; 4], 144);
    assert_eq!(hex::encode(appointment), format!("{LOCATOR}cdcdcdcd00000090"));
    assert_eq!(
        message::get_appointment(locator()),
        format!("get appointment {LOCATOR}").into_bytes()
    );
    assert_eq!(SUBSCRIPTION_INFO, b"get subscription info");
    assert_eq!(message::appointment_receipt("rbg", 700_000), b"rbg\x00\x0a\xae\x60");
    let response = register_response();
    let receipt = hex::encode(response.subscription().receipt());
    assert_eq!(receipt, format!("{USER}0000271000001000000020d0"));
}

fn register_response() -> RegisterResponse {
    RegisterResponse {
        user_id: user(),
        available_slots: 10_000,
        subscription_start: 4_096,
        subscription_expiry: 8_400,
        subscription_signature: Some(BY_ONE.into()),
    }
}

fn appointment() -> AppointmentBody {
    AppointmentBody { locator: locator(), encrypted_blob: vec![0xcd; 4], to_self_delay: 144 }
}

/// Written as `expected`, and read back.
fn assert_json<T>(value: &T, expected: Value)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_value(value).unwrap(), expected);
    let text = serde_json::to_string(&expected).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
}

#[test]
fn requests_and_answers_are_the_json_of_the_protocol() {
    let signature = BY_ONE.to_owned();
    let appointment_json =
        json!({ "locator": LOCATOR, "encrypted_blob": "cdcdcdcd", "to_self_delay": 144 });
    assert_json(&RegisterRequest { user_id: user() }, json!({ "user_id": USER }));
    assert_json(
        &register_response(),
        json!({
            "user_id": USER, "available_slots": 10_000, "subscription_start": 4_096,
            "subscription_expiry": 8_400, "subscription_signature": BY_ONE,
        }),
    );
    assert_json(
        &AddAppointmentRequest { appointment: appointment(), signature: signature.clone() },
        json!({ "appointment": appointment_json, "signature": BY_ONE }),
    );
    assert_json(
        &AddAppointmentResponse {
            locator: locator(),
            start_block: 700_000,
            signature: signature.clone(),
            available_slots: 9_999,
            subscription_expiry: 8_400,
        },
        json!({
            "locator": LOCATOR, "start_block": 700_000, "signature": BY_ONE,
            "available_slots": 9_999, "subscription_expiry": 8_400,
        }),
    );
    assert_json(
        &GetAppointmentRequest { locator: locator(), signature: signature.clone() },
        json!({ "locator": LOCATOR, "signature": BY_ONE }),
    );
    assert_json(
        &GetAppointmentResponse {
            appointment: TrackedAppointment::Watched(appointment()),
            status: AppointmentStatus::BeingWatched,
        },
        json!({ "appointment": appointment_json, "status": "being_watched" }),
    );
    let txid = Txid::from_str(DISPUTE_TXID).unwrap();
    assert_json(
        &GetAppointmentResponse {
            appointment: TrackedAppointment::Responded {
                dispute_txid: txid,
                penalty_txid: txid,
                penalty_rawtx: vec![1, 2],
            },
            status: AppointmentStatus::DisputeResponded,
        },
        json!({
            "appointment": {
                "dispute_txid": DISPUTE_TXID, "penalty_txid": DISPUTE_TXID, "penalty_rawtx": "0102",
            },
            "status": "dispute_responded",
        }),
    );
    assert_json(&SubscriptionInfoRequest { signature }, json!({ "signature": BY_ONE }));
    assert_json(
        &SubscriptionInfoResponse {
            available_slots: 9_999,
            subscription_expiry: 8_400,
            locators: vec![locator()],
        },
        json!({ "available_slots": 9_999, "subscription_expiry": 8_400, "locators": [LOCATOR] }),
    );
    assert_json(&AppointmentStatus::NotFound, json!("not_found"));
}

#[test]
fn largest_requests_fit_into_the_limits_of_towers() {
    let length = |value: Value| value.to_string().len();
    let signature = "d".repeat(104);
    let register = json!(RegisterRequest { user_id: user() });
    assert!(length(register) <= Endpoint::Register.body_max());
    let get = GetAppointmentRequest { locator: locator(), signature: signature.clone() };
    assert!(length(json!(get)) <= Endpoint::GetAppointment.body_max());
    let info = SubscriptionInfoRequest { signature: signature.clone() };
    assert!(length(json!(info)) <= Endpoint::GetSubscriptionInfo.body_max());
    let add = |bytes: usize| {
        let appointment = AppointmentBody {
            encrypted_blob: vec![0; bytes],
            to_self_delay: u32::MAX,
            ..appointment()
        };
        length(json!(AddAppointmentRequest { appointment, signature: signature.clone() }))
    };
    assert!(add(ENCRYPTED_BLOB_MAX) <= Endpoint::AddAppointment.body_max());
    assert!(add(ENCRYPTED_BLOB_MAX + 1) > Endpoint::AddAppointment.body_max());
    assert_eq!(Endpoint::AddAppointment.body_max(), 2_048);
    let paths = [Endpoint::Register, Endpoint::AddAppointment, Endpoint::GetAppointment]
        .map(Endpoint::path);
    assert_eq!(paths, ["/register", "/add_appointment", "/get_appointment"]);
    assert_eq!(Endpoint::GetSubscriptionInfo.path(), "/get_subscription_info");
    assert_eq!((Endpoint::Ping.method(), Endpoint::Ping.path()), ("GET", "/ping"));
    assert_eq!((Endpoint::Register.method(), Endpoint::Ping.body_max()), ("POST", 0));
    assert_eq!(AppointmentBody { encrypted_blob: vec![0; 2_049], ..appointment() }.slots(), 2);
}

#[test]
fn json_that_is_no_request_is_refused() {
    let bad = [
        json!({ "locator": &LOCATOR[2..], "signature": "" }),
        json!({ "locator": format!("{LOCATOR}00"), "signature": "" }),
        json!({ "locator": &LOCATOR[1..], "signature": "" }),
        json!({ "locator": LOCATOR.replace('a', "z"), "signature": "" }),
        json!({ "locator": 1, "signature": "" }),
        json!({ "locator": LOCATOR }),
        json!([]),
    ];
    for value in bad {
        assert!(serde_json::from_value::<GetAppointmentRequest>(value).is_err());
    }
    for key in ["", "02", &USER[2..], &format!("05{}", &USER[2..])] {
        assert!(serde_json::from_value::<RegisterRequest>(json!({ "user_id": key })).is_err());
    }
}

#[test]
fn refusals_have_the_numbers_of_the_protocol() {
    let refusal = ApiError::new(ErrorCode::AppointmentNotFound, "not here");
    assert_json(&refusal, json!({ "error": "not here", "error_code": 36 }));
    assert_eq!(refusal.code(), ErrorCode::AppointmentNotFound);
    let numbers = ErrorCode::ALL.map(ErrorCode::code);
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 32, 33, 34, 35, 36, 65, 255]);
    for code in ErrorCode::ALL {
        assert_eq!(ApiError::new(code, "").code(), code);
    }
    let unknown = ApiError { error: String::new(), error_code: 99 };
    assert_eq!(unknown.code(), ErrorCode::Unexpected);
    let statuses = [
        ErrorCode::InvalidSignatureOrSubscription,
        ErrorCode::AppointmentNotFound,
        ErrorCode::ServiceUnavailable,
        ErrorCode::RegistrationResourceExhausted,
    ]
    .map(ErrorCode::http_status);
    assert_eq!(statuses, [401, 404, 503, 400]);
}

proptest! {
    #[test]
    fn a_signature_names_its_key_and_message(
        message in prop::collection::vec(any::<u8>(), 0..200), byte in 1u8..255,
    ) {
        let (secp, key) = (Secp256k1::new(), secret(byte));
        let signature = sign(&secp, &message, &key);
        prop_assert_eq!(recover(&secp, &message, &signature), Ok(key.public_key(&secp)));
        let longer = [&message[..], &[0]].concat();
        prop_assert!(!verify(&secp, &longer, &signature, &key.public_key(&secp)));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,120}", tail in "[a-z0-9]{104}") {
        let secp = Secp256k1::new();
        let _ = recover(&secp, b"hi", &text);
        let _ = recover(&secp, b"hi", &tail);
        let _ = serde_json::from_str::<GetAppointmentResponse>(&text);
    }
}
