//! What a token can be restricted to. Several restrictions of one kind all hold.
//!
//! Kinds and bodies are in tokens that people hold: add, never change.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::roles::Role;
use crate::lightning::types::NodeId;

/// The package of a service that is named without one.
const PACKAGE: &str = "tributary.v1.";

/// One restriction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restriction {
    /// The methods of a role, as the node's version knows it.
    Role(Role),
    /// These methods.
    Methods(Vec<MethodPattern>),
    /// Most that one call may cost, msat, fees included.
    PerCall(u64),
    /// Most that all calls together may cost. The nonce tells two budgets of one size apart.
    Budget {
        /// It, msat, fees included.
        msat: u64,
        /// Chosen at random when the budget is set.
        nonce: [u8; 8],
    },
    /// Only payments to these nodes.
    Payees(Vec<NodeId>),
    /// Not from this time on, in seconds since the Unix epoch.
    Expires(u64),
    /// Only calls from these addresses.
    Sources(Vec<Cidr>),
}

/// Why bytes or words are no restriction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestrictionError {
    /// A kind from a later version: who does not understand a restriction may not ignore it.
    #[error("restriction of kind {kind} is not known to this version; upgrade tributary")]
    UnknownKind {
        /// Its number.
        kind: u8,
    },
    /// A body that does not fit its kind.
    #[error("restriction of kind {kind} cannot be read")]
    Malformed {
        /// Its number.
        kind: u8,
    },
    /// Not `Service/Method` or `Service/*`.
    #[error("{0:?} names no method; write Service/Method or Service/*")]
    Method(String),
    /// Not an address, or one with a prefix.
    #[error("{0:?} is no range of addresses; write for example 10.0.0.0/8 or ::1")]
    Cidr(String),
    /// No such role.
    #[error("{0:?} is no role; there are admin, operator, payer, receiver, read-only and auditor")]
    Role(String),
}

impl Restriction {
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Role(role) => (1, role.name().as_bytes().to_vec()),
            Self::Methods(patterns) => (2, words(patterns)),
            Self::PerCall(msat) => (3, msat.to_be_bytes().to_vec()),
            Self::Budget { msat, nonce } => (4, [msat.to_be_bytes(), *nonce].concat()),
            Self::Payees(payees) => (5, payees.iter().flat_map(NodeId::serialize).collect()),
            Self::Expires(seconds) => (6, seconds.to_be_bytes().to_vec()),
            Self::Sources(ranges) => (7, words(ranges)),
        }
    }

    pub(super) fn decode(kind: u8, body: &[u8]) -> Result<Self, RestrictionError> {
        let malformed = || RestrictionError::Malformed { kind };
        let text = || std::str::from_utf8(body).map_err(|_| malformed());
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| malformed())?;
            Ok::<_, RestrictionError>(u64::from_be_bytes(bytes))
        };
        let read = match kind {
            1 => Self::Role(text()?.parse()?),
            2 => Self::Methods(text()?.split(' ').map(str::parse).collect::<Result<_, _>>()?),
            3 => Self::PerCall(number(body)?),
            4 => {
                let (msat, nonce) = body.split_at_checked(8).ok_or_else(malformed)?;
                let nonce = nonce.try_into().map_err(|_| malformed())?;
                Self::Budget { msat: number(msat)?, nonce }
            }
            5 => {
                let keys = body.chunks(33).map(NodeId::from_slice);
                let payees: Vec<_> = keys.collect::<Result<_, _>>().map_err(|_| malformed())?;
                Self::Payees(payees)
            }
            6 => Self::Expires(number(body)?),
            7 => Self::Sources(text()?.split(' ').map(str::parse).collect::<Result<_, _>>()?),
            kind => return Err(RestrictionError::UnknownKind { kind }),
        };
        // What is under the HMAC is written anew from what was read.
        if read.encode().1 != body {
            return Err(malformed());
        }
        Ok(read)
    }

    /// Whether it bounds what is spent: a token that has it may call only what can be counted.
    pub fn bounds_spending(&self) -> bool {
        matches!(self, Self::PerCall(_) | Self::Budget { .. } | Self::Payees(_))
    }
}

/// Things as they print, with a space between two.
fn words<T: fmt::Display>(things: &[T]) -> Vec<u8> {
    let words: Vec<String> = things.iter().map(T::to_string).collect();
    words.join(" ").into_bytes()
}

/// One method, or all of a service: `tributary.v1.Payments/Pay`, `tributary.v1.Payments/*`.
///
/// A service without a package is one of `tributary.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MethodPattern {
    service: String,
    /// `None` for all.
    method: Option<String>,
}

impl MethodPattern {
    /// Whether it means `method`, a full name such as `tributary.v1.Payments/Pay`.
    pub fn matches(&self, method: &str) -> bool {
        method.split_once('/').is_some_and(|(service, name)| {
            service == self.service && self.method.as_deref().is_none_or(|own| own == name)
        })
    }
}

impl FromStr for MethodPattern {
    type Err = RestrictionError;

    fn from_str(text: &str) -> Result<Self, RestrictionError> {
        let wrong = || RestrictionError::Method(text.to_owned());
        let is_name = |name: &str, dots: bool| {
            !name.is_empty()
                && name.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || byte == b'_' || dots && byte == b'.'
                })
        };
        let (service, method) = text.split_once('/').ok_or_else(wrong)?;
        if !is_name(service, true) || !(method == "*" || is_name(method, false)) {
            return Err(wrong());
        }
        let service = match service.contains('.') {
            true => service.to_owned(),
            false => format!("{PACKAGE}{service}"),
        };
        Ok(Self { service, method: (method != "*").then(|| method.to_owned()) })
    }
}

impl fmt::Display for MethodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.method.as_deref().unwrap_or("*"))
    }
}

/// A range of addresses: one, and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether `address` is in the range. An IPv4 address that came over IPv6 is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = RestrictionError;

    fn from_str(text: &str) -> Result<Self, RestrictionError> {
        let wrong = || RestrictionError::Cidr(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse::<u8>().map_err(|_| wrong()))?;
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}
