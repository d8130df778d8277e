//! How values are written in the file: networks, peers, and settings that may be empty.

use std::fmt;
use std::str::FromStr;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

/// The networks a node runs on, by the name used in files and flags.
const NETWORKS: [(&str, Network); 4] = [
    ("mainnet", Network::Bitcoin),
    ("testnet4", Network::Testnet4),
    ("signet", Network::Signet),
    ("regtest", Network::Regtest),
];

/// Returns the network called `name`: `mainnet`, `testnet4`, `signet` or `regtest`.
pub fn network_from_name(name: &str) -> Option<Network> {
    NETWORKS.iter().find(|(known, _)| *known == name).map(|(_, network)| *network)
}

/// Returns the name of `network` in files and flags.
pub fn network_name(network: Network) -> &'static str {
    NETWORKS.iter().find(|(_, known)| *known == network).map_or("testnet3", |(name, _)| name)
}

/// `network = "signet"`.
pub(super) mod network {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::*;

    pub fn serialize<S: Serializer>(network: &Network, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(network_name(*network))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Network, D::Error> {
        let name = String::deserialize(from)?;
        network_from_name(&name).ok_or_else(|| {
            de::Error::custom(format!(
                "unknown network {name:?}, expected mainnet, testnet4, signet or regtest"
            ))
        })
    }
}

/// An optional value whose absence is written `""`, so that the default file shows every key.
pub(super) mod empty_is_none {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::*;

    pub fn serialize<T: fmt::Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_str(""),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(de::Error::custom)
    }
}

/// A peer and where to find it: `id@host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    /// The peer's identity.
    pub node_id: PublicKey,
    /// `host:port`.
    pub address: String,
}

/// Why a text is not a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerAddressError {
    /// The form is wrong.
    #[error("{text:?} is not id@host:port")]
    Form {
        /// The text.
        text: String,
    },
    /// The identity is not a public key.
    #[error("{id:?} is not a node id: 66 hexadecimal digits of a compressed public key")]
    NodeId {
        /// The text before the `@`.
        id: String,
    },
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || PeerAddressError::Form { text: text.into() };
        let (id, address) = text.split_once('@').ok_or_else(form)?;
        if !is_host_and_port(address) {
            return Err(form());
        }
        let node_id = PublicKey::from_str(id)
            .ok()
            .filter(|_| id.len() == 66)
            .ok_or_else(|| PeerAddressError::NodeId { id: id.into() })?;
        Ok(Self { node_id, address: address.to_owned() })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node_id, self.address)
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(peer: PeerAddress) -> Self {
        peer.to_string()
    }
}

/// Whether `text` is `host:port`; an IPv6 host stands in brackets.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty() && !host.contains([':', '[', ']', '/', '@', ' ']);
    (bracketed || plain) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    #[test]
    fn peers_read_back_as_written() {
        for address in ["127.0.0.1:9735", "[::1]:9735", "hub.example:1"] {
            let text = format!("{ID}@{address}");
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
        }
        for text in [
            ID.to_owned(),
            format!("{ID}@host"),
            format!("{ID}@host:99999"),
            format!("{ID}@::1:9735"),
            format!("{ID}@:9735"),
            "02ab@host:9735".to_owned(),
            format!("04{ID}@host:1"),
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn network_names_are_one_to_one() {
        for (name, network) in NETWORKS {
            assert_eq!(network_from_name(name), Some(network));
            assert_eq!(network_name(network), name);
        }
        assert_eq!(network_from_name("bitcoin"), None);
    }
}
