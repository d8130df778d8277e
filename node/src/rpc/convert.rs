//! Small conversions that every service shares: ids, keys, networks, outputs.
//!
//! Ids are bytes of an exact length; a wrong length names the field and what was expected.
//! Transaction ids and block hashes go over the wire as explorers print them.

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, OutPoint, Txid};
use proto::v1;

use super::status::{Reason, Refusal};
use crate::journal::IdempotencyKey;
use crate::lightning::types::{ChannelRef, NodeId, PaymentHash, PaymentId, Preimage};

/// Longest idempotency key, in bytes.
const KEY_LEN_MAX: usize = 64;

/// Reads bytes of exactly `N`.
pub(super) fn exact<const N: usize>(
    reason: Reason,
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| {
        let message = format_args!("{field} has {} bytes, expected {N}", bytes.len());
        Refusal::new(reason, message)
            .with("field", field)
            .with("length_bytes", bytes.len())
            .with("expected_bytes", N)
    })
}

/// Reads a node's public key.
pub(super) fn node_id(field: &'static str, bytes: &[u8]) -> Result<NodeId, Refusal> {
    let bytes: [u8; 33] = exact(Reason::NodeIdInvalid, field, bytes)?;
    NodeId::from_slice(&bytes).map_err(|_| {
        let message = format_args!("{field} is not a point on the curve");
        Refusal::new(Reason::NodeIdInvalid, message).with("field", field)
    })
}

/// Reads the id of a channel's record.
pub(super) fn channel_ref(field: &'static str, bytes: &[u8]) -> Result<ChannelRef, Refusal> {
    exact(Reason::FieldInvalid, field, bytes).map(ChannelRef)
}

/// Reads the id of a payment.
pub(super) fn payment_id(field: &'static str, bytes: &[u8]) -> Result<PaymentId, Refusal> {
    exact(Reason::FieldInvalid, field, bytes).map(PaymentId)
}

/// Reads a payment hash.
pub(super) fn payment_hash(field: &'static str, bytes: &[u8]) -> Result<PaymentHash, Refusal> {
    exact(Reason::HashInvalid, field, bytes).map(PaymentHash)
}

/// Reads a preimage.
pub(super) fn preimage(field: &'static str, bytes: &[u8]) -> Result<Preimage, Refusal> {
    exact(Reason::PreimageInvalid, field, bytes).map(Preimage)
}

/// Reads a transaction id.
pub(super) fn txid(field: &'static str, bytes: &[u8]) -> Result<Txid, Refusal> {
    let mut bytes: [u8; 32] = exact(Reason::FieldInvalid, field, bytes)?;
    bytes.reverse();
    Ok(Txid::from_byte_array(bytes))
}

/// Writes a transaction id.
pub(super) fn txid_bytes(txid: Txid) -> Vec<u8> {
    let mut bytes = txid.to_byte_array();
    bytes.reverse();
    bytes.to_vec()
}

/// Writes a block hash.
pub(super) fn block_hash_bytes(hash: BlockHash) -> Vec<u8> {
    let mut bytes = hash.to_byte_array();
    bytes.reverse();
    bytes.to_vec()
}

/// Writes an output's place.
pub(super) fn outpoint(outpoint: OutPoint) -> v1::Outpoint {
    v1::Outpoint { txid: txid_bytes(outpoint.txid), output_index: outpoint.vout }
}

/// Writes a network; those without a name in the interface are unspecified.
pub(super) fn network(network: Network) -> v1::Network {
    match network {
        Network::Bitcoin => v1::Network::Mainnet,
        Network::Testnet4 => v1::Network::Testnet4,
        Network::Signet => v1::Network::Signet,
        Network::Regtest => v1::Network::Regtest,
        _ => v1::Network::Unspecified,
    }
}

/// Reads the key that every mutation takes.
pub(super) fn idempotency_key(method: &'static str, key: &str) -> Result<IdempotencyKey, Refusal> {
    if key.is_empty() {
        let message = "idempotency_key is missing";
        return Err(Refusal::new(Reason::IdempotencyKeyMissing, message));
    }
    if key.len() > KEY_LEN_MAX || !key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let message = format_args!(
            "idempotency_key has {} bytes, expected 1 to {KEY_LEN_MAX} of printable ASCII",
            key.len()
        );
        let refusal = Refusal::new(Reason::IdempotencyKeyInvalid, message);
        return Err(refusal.with("length_bytes", key.len()));
    }
    Ok(IdempotencyKey::new(method, key)?.expect("the key is not empty"))
}

/// Reads a value of an enumeration; `Unspecified` is none.
pub(super) fn known<E: TryFrom<i32> + Default + PartialEq>(
    field: &'static str,
    value: i32,
) -> Result<E, Refusal> {
    match E::try_from(value) {
        Ok(known) if known != E::default() => Ok(known),
        _ => Err(Refusal::field(field, format_args!("has the unknown value {value}"))),
    }
}

/// Reads a number that must lie in a range.
pub(super) fn within<N: PartialOrd + std::fmt::Display + Copy>(
    reason: Reason,
    field: &'static str,
    value: N,
    range: std::ops::RangeInclusive<N>,
) -> Result<N, Refusal> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = range.into_inner();
    let message = format_args!("{field} {value} is out of range, {least} to {most}");
    Err(Refusal::new(reason, message)
        .with("field", field)
        .with("given", value)
        .with("least", least)
        .with("most", most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Reason {
        result.unwrap_err().reason()
    }

    #[test]
    fn ids_of_a_wrong_length_name_field_length_and_expectation() {
        assert_eq!(channel_ref("record_id", &[7; 16]).unwrap(), ChannelRef([7; 16]));
        assert_eq!(payment_id("payment_id", &[7; 32]).unwrap(), PaymentId([7; 32]));
        for length in [0, 15, 17, 32] {
            let refusal = channel_ref("record_id", &vec![0; length]).unwrap_err();
            assert_eq!(refusal.reason(), Reason::FieldInvalid);
            let text = refusal.to_string();
            assert!(text.contains("record_id") && text.contains("expected 16"), "{text}");
            assert!(text.contains(&format!("has {length} bytes")), "{text}");
        }
        assert_eq!(reason(payment_hash("payment_hash", &[0; 31])), Reason::HashInvalid);
        assert_eq!(reason(preimage("preimage", &[0; 33])), Reason::PreimageInvalid);
        assert_eq!(reason(node_id("node_id", &[2; 32])), Reason::NodeIdInvalid);
        assert_eq!(reason(node_id("node_id", &[9; 33])), Reason::NodeIdInvalid);
    }

    #[test]
    fn transaction_ids_read_as_explorers_print_them() {
        let text = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b";
        let id: Txid = text.parse().unwrap();
        assert_eq!(hex::encode(txid_bytes(id)), text);
        assert_eq!(txid("txid", &hex::decode(text).unwrap()).unwrap(), id);
        let genesis = bitcoin::constants::genesis_block(Network::Bitcoin).block_hash();
        assert_eq!(hex::encode(block_hash_bytes(genesis)), genesis.to_string());
        let written = outpoint(OutPoint { txid: id, vout: 3 });
        assert_eq!((hex::encode(written.txid), written.output_index), (text.to_owned(), 3));
    }

    #[test]
    fn a_key_is_one_to_64_printable_characters() {
        assert!(idempotency_key("Pay", "a").is_ok());
        assert!(idempotency_key("Pay", &"x".repeat(64)).is_ok());
        assert_eq!(reason(idempotency_key("Pay", "")), Reason::IdempotencyKeyMissing);
        for bad in ["x".repeat(65), "tab\t".into(), "é".into(), "nul\0".into()] {
            assert_eq!(reason(idempotency_key("Pay", &bad)), Reason::IdempotencyKeyInvalid);
        }
    }

    #[test]
    fn enumerations_and_ranges_refuse_what_they_do_not_know() {
        assert_eq!(known("states", 3), Ok(v1::ChannelState::Active));
        assert_eq!(reason(known::<v1::ChannelState>("states", 0)), Reason::FieldInvalid);
        assert_eq!(reason(known::<v1::ChannelState>("states", 99)), Reason::FieldInvalid);
        let range = within(Reason::FeerateOutOfRange, "feerate_sat_per_vb", 10_001, 1..=10_000);
        let text = range.unwrap_err().to_string();
        assert!(text.contains("10001") && text.contains("1 to 10000"), "{text}");
    }
}
