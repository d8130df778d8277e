//! The vocabulary that services share with the LDK room, free of LDK's own types.

use std::fmt;
use std::str::FromStr;

use lightning::ln::channelmanager as ldk;
use lightning::types::payment as ldk_payment;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node's public key, its identity on the network.
pub type NodeId = bitcoin::secp256k1::PublicKey;

/// Text that is not the hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {bytes} bytes in hexadecimal")]
pub struct ParseIdError {
    text: String,
    bytes: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads an id from bytes of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| ParseIdError {
                    text: hex::encode(bytes),
                    bytes: $len,
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map(|()| Self(bytes))
                    .map_err(|_| ParseIdError { text: text.to_owned(), bytes: $len })
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() {
                    s.collect_str(self)
                } else {
                    s.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                use serde::de::Error;
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(D::Error::custom)
                } else {
                    serde_bytes::deserialize(d).map(Self)
                }
            }
        }
    };
}

id! {
    /// The id of a payment: ours when we pay, derived from the hash when we are paid.
    PaymentId, 32
}
id! {
    /// SHA-256 of a payment's preimage.
    PaymentHash, 32
}
id! {
    /// The secret that proves and claims a payment.
    Preimage, 32
}
id! {
    /// LDK's id of a channel. Changes once, when the funding transaction is known.
    ChannelId, 32
}
id! {
    /// Our own id of a channel, the same from the request to open it to its end.
    ChannelRef, 16
}

impl ChannelRef {
    /// As LDK carries it, `user_channel_id`.
    pub(crate) fn to_user(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    pub(crate) fn from_user(id: u128) -> Self {
        Self(id.to_be_bytes())
    }
}

impl PaymentHash {
    /// The id under which a received payment is recorded.
    ///
    /// A hash identifies what we receive, since we hand each hash out once; what we send has an
    /// id of its own, so that paying one's own invoice twice stays two payments.
    pub fn inbound_id(self) -> PaymentId {
        let mut tagged = *b"inbound payment id \0\0\0\0\0\0\0\0\0\0\0\0\0";
        for (byte, hash) in tagged.iter_mut().zip(self.0) {
            *byte ^= hash;
        }
        PaymentId(tagged)
    }
}

impl Preimage {
    /// The hash this preimage opens.
    pub fn hash(self) -> PaymentHash {
        use bitcoin::hashes::{Hash, sha256};
        PaymentHash(sha256::Hash::hash(&self.0).to_byte_array())
    }
}

macro_rules! same_bytes {
    ($($ours:ty = $ldk:ty),* $(,)?) => {$(
        impl From<$ldk> for $ours {
            fn from(id: $ldk) -> Self {
                Self(id.0)
            }
        }
        impl From<$ours> for $ldk {
            fn from(id: $ours) -> Self {
                Self(id.0)
            }
        }
    )*};
}

same_bytes! {
    PaymentId = ldk::PaymentId,
    PaymentHash = ldk_payment::PaymentHash,
    Preimage = ldk_payment::PaymentPreimage,
    ChannelId = lightning::ln::types::ChannelId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text_json_and_cbor() {
        let id = PaymentHash([7; 32]);
        assert_eq!(id.to_string().parse::<PaymentHash>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<PaymentHash>(&json).unwrap(), id);
        let mut cbor = Vec::new();
        ciborium::into_writer(&id, &mut cbor).unwrap();
        assert_eq!(cbor.len(), 34, "a byte string with its two-byte head");
        assert_eq!(ciborium::from_reader::<PaymentHash, _>(&cbor[..]).unwrap(), id);
        assert!("07".parse::<PaymentHash>().is_err());
    }

    #[test]
    fn sent_and_received_payments_of_one_hash_have_two_ids() {
        let hash = PaymentHash([9; 32]);
        assert_ne!(hash.inbound_id().0, hash.0);
        assert_ne!(hash.inbound_id(), PaymentHash([8; 32]).inbound_id());
    }
}
