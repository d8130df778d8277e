//! Ids, peers and lengths of time as people write them.

use std::fmt;
use std::str::FromStr;

/// `N` bytes written as hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// A node's public key.
pub type NodeId = Hex<33>;
/// A payment hash, preimage or transaction id.
pub type Hash = Hex<32>;
/// The id of a webhook endpoint.
pub type EndpointId = Hex<16>;
/// The id of a payout.
pub type PayoutId = Hex<16>;
/// The id of a payment.
pub type PaymentId = Hex<32>;

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text.trim(), &mut bytes).map(|()| Self(bytes)).map_err(|_| {
            let digits = text.trim().len();
            format!("expected {} hex digits ({N} bytes), got {digits} characters", 2 * N)
        })
    }
}

impl<const N: usize> From<Hex<N>> for Vec<u8> {
    fn from(hex: Hex<N>) -> Vec<u8> {
        hex.0.to_vec()
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A peer and, if given, where it listens: `NODE_ID` or `NODE_ID@HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAt {
    /// The node.
    pub node_id: NodeId,
    /// `host:port`.
    pub address: Option<String>,
}

impl FromStr for PeerAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (node_id, address) = match text.split_once('@') {
            Some((node_id, address)) => (node_id, Some(host_port(address)?)),
            None => (text, None),
        };
        Ok(Self { node_id: node_id.parse()?, address })
    }
}

/// Reads `host:port`; the host may be an IPv6 address in brackets. Port 0, for listening,
/// lets the system choose.
pub fn host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no address; write host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    port.parse::<u16>().map_err(|_| wrong())?;
    match host.is_empty() || !bare || host.contains(char::is_whitespace) {
        true => Err(wrong()),
        false => Ok(text.to_owned()),
    }
}

/// Reads a length of time in seconds: `90`, `90s`, `10m`, `2h` or `30d`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time; write for example 90s, 10m, 2h or 30d");
    let start = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(start);
    let seconds_per_unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds_per_unit))
        .ok_or_else(wrong)
}

/// As [`seconds`], for fields of 32 bits.
pub fn seconds_u32(text: &str) -> Result<u32, String> {
    u32::try_from(seconds(text)?).map_err(|_| format!("{text} is more than 136 years"))
}

/// A custom record: `TYPE=HEX`.
pub fn custom_record(text: &str) -> Result<(u64, Vec<u8>), String> {
    let wrong = || format!("{text:?} is no record; write TYPE=HEX, for example 65537=c0ffee");
    let (number, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, hex::decode(value).map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_say_where_it_listens() {
        let id = "02".repeat(33);
        let peer: PeerAt = format!("{id}@127.0.0.1:9735").parse().unwrap();
        assert_eq!(peer.node_id, Hex([2; 33]));
        assert_eq!(peer.address.as_deref(), Some("127.0.0.1:9735"));
        assert_eq!(id.parse::<PeerAt>().unwrap().address, None);
        let error = "02".parse::<PeerAt>().unwrap_err();
        assert!(error.contains("66 hex digits"), "{error}");
    }

    #[test]
    fn an_address_is_host_and_port() {
        for good in ["localhost:0", "[::1]:9735", "hub.example:65535"] {
            assert_eq!(host_port(good), Ok(good.to_owned()));
        }
        for bad in ["localhost", ":1", "::1:9735", "a:-1", "a:65536", "a b:1", ""] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_of_time_have_units() {
        for (text, expected) in [("90", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in ["", "h", "1w", "1.5h", "-1s", "99999999999999999999s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(seconds_u32("60000d").is_err());
    }

    #[test]
    fn records_are_a_type_and_hex() {
        assert_eq!(custom_record("65537=c0ff"), Ok((65_537, vec![0xc0, 0xff])));
        assert_eq!(custom_record("7="), Ok((7, vec![])));
        for bad in ["", "1", "x=00", "1=0", "1=zz"] {
            assert!(custom_record(bad).is_err(), "{bad}");
        }
    }
}
