//! Aggregated keys by a second implementation of BIP 327, which its published vectors check.
//!
//! The vectors give keys in any order, and some twice; this crate sorts them and refuses the
//! second. So they cannot be put to it directly.
#![allow(clippy::unwrap_used)]

use std::str::FromStr;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1};
use bitcoin::{TapNodeHash, TapTweakHash};
use channel_contracts::musig::{AggregateKey, TreeSecret};

/// BIP 327, `key_agg_vectors.json`: keys, then which of them make which key.
const KEYS: [&str; 3] = [
    "02F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9",
    "03DFF1D77F2A671C5F36183726DB2341BE58FEAE1DA2DECED843240F7B502BA659",
    "023590A94E768F8E1815C2F24B4D80A8E3149316C3518CE7B7AD338368D038CA66",
];
const AGGREGATED: [(&[usize], &str); 4] = [
    (&[0, 1, 2], "90539EEDE565F5D054F32CC0C220126889ED1E5D193BAF15AEF344FE59D4610C"),
    (&[2, 1, 0], "6204DE8B083426DC6EAF9502D27024D53FC826BF7D2012148A0575435DF54B2B"),
    (&[0, 0, 0], "B436E3BAD62B8CD409969A224731C193D051162D8C5AE8B109306127DA3AA935"),
    (&[0, 0, 1, 1], "69BC22BFA5D106306E48A20679DE1D7389386124D07571D0D872686028C26A3E"),
];

fn tagged(tag: &str, message: &[u8]) -> Scalar {
    let tag = sha256::Hash::hash(tag.as_bytes());
    let mut engine = sha256::Hash::engine();
    for part in [tag.as_byte_array(), tag.as_byte_array(), message] {
        engine.input(part);
    }
    Scalar::from_be_bytes(sha256::Hash::from_engine(engine).to_byte_array()).unwrap()
}

/// KeyAgg, with plain arithmetic of points.
fn key_agg(keys: &[PublicKey]) -> PublicKey {
    let secp = Secp256k1::new();
    let list: Vec<u8> = keys.iter().flat_map(PublicKey::serialize).collect();
    let list = tagged("KeyAgg list", &list).to_be_bytes();
    let second = keys.iter().find(|key| **key != keys[0]);
    let weighted: Vec<PublicKey> = keys
        .iter()
        .map(|key| {
            if Some(key) == second {
                return *key;
            }
            let message = [&list[..], &key.serialize()].concat();
            key.mul_tweak(&secp, &tagged("KeyAgg coefficient", &message)).unwrap()
        })
        .collect();
    PublicKey::combine_keys(&weighted.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn the_second_implementation_makes_the_published_keys() {
    let keys: Vec<PublicKey> = KEYS.iter().map(|key| PublicKey::from_str(key).unwrap()).collect();
    for (indices, expected) in AGGREGATED {
        let chosen: Vec<PublicKey> = indices.iter().map(|index| keys[*index]).collect();
        let (key, _parity) = key_agg(&chosen).x_only_public_key();
        assert_eq!(key.to_string().to_uppercase(), expected, "{indices:?}");
    }
}

#[test]
fn ours_are_the_keys_of_the_second_implementation_in_sorted_order() {
    let secp = Secp256k1::new();
    let vectors: Vec<PublicKey> =
        KEYS.iter().map(|key| PublicKey::from_str(key).unwrap()).collect();
    let own = |count: u8| -> Vec<PublicKey> {
        let secrets = (1..=count).map(|byte| TreeSecret::from_bytes([byte; 32]).unwrap());
        secrets.map(|secret| secret.public_key()).collect()
    };
    for keys in [vectors, own(1), own(2), own(3), own(7), own(64)] {
        let mut sorted = keys.clone();
        sorted.sort_by_key(PublicKey::serialize);
        let (internal, _parity) = key_agg(&sorted).x_only_public_key();
        let root = TapNodeHash::from_byte_array([9; 32]);
        let tweak = TapTweakHash::from_key_and_tweak(internal, Some(root)).to_scalar();
        let (output, _parity) = internal.add_tweak(&secp, &tweak).unwrap();
        let ours = AggregateKey::new(&keys, root).unwrap();
        assert_eq!(ours.internal_key(), internal, "{} keys", keys.len());
        assert_eq!(ours.output_key().to_x_only_public_key(), output, "{} keys", keys.len());
    }
}
