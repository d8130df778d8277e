//! What a text that asks for a payment offers: every way to pay in it, and which of them this
//! node could take.
//!
//! Pure: a text, a network and the time in, an answer out. Names are looked up before, what
//! channels can carry is asked after.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network};

use super::names::{NameError, PersonName};
use super::uri::{Uri, UriError, UriKey, UriWay};
use crate::lightning::{DecodeError, Decoded, DecodedKind, decode};

/// The networks that the interface has a name for.
const NETWORKS: [Network; 4] =
    [Network::Bitcoin, Network::Testnet4, Network::Signet, Network::Regtest];

/// What a text offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What kind of text it is.
    pub source: Source,
    /// The name it was found under, and until when that counts.
    pub name: Option<Named>,
    /// What is asked for, satoshi, if the text says so beside its ways.
    pub amount_sat: Option<u64>,
    /// Who asks.
    pub label: Option<String>,
    /// What for.
    pub message: Option<String>,
    /// The ways to pay, in the order in which they stand.
    pub ways: Vec<Way>,
}

/// A name that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// It.
    pub name: PersonName,
    /// Until when its answer may be used, since the Unix epoch.
    pub until: Duration,
}

/// What kind of text a payment request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A BOLT 11 invoice.
    Invoice,
    /// A BOLT 12 offer.
    Offer,
    /// A Bitcoin address.
    Address,
    /// A `bitcoin:` URI.
    Uri,
}

/// One way to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Which one.
    pub kind: WayKind,
    /// Its text: invoice, offer or address, normalised if it could be read.
    pub text: String,
    /// What the invoice or offer says.
    pub lightning: Option<Decoded>,
    /// Why this node cannot take it, whatever its channels and coins are.
    pub problem: Option<Problem>,
}

/// Which way a payment takes. The first is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WayKind {
    /// A BOLT 11 invoice: the recipient need not answer first.
    Bolt11,
    /// A BOLT 12 offer: its issuer is asked for an invoice first.
    Bolt12,
    /// A transaction: slow, and its fee does not depend on the amount.
    OnChain,
    /// A way that this node does not know.
    Unknown,
}

/// Why a way cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is of another network.
    #[error("it is for {theirs}, this node is on {ours}")]
    OtherNetwork {
        /// Its networks, in words.
        theirs: String,
        /// Ours.
        ours: Network,
    },
    /// Its time is over.
    #[error("it expired {seconds} s ago")]
    Expired {
        /// How long ago.
        seconds: u64,
    },
    /// Nobody taught this node.
    #[error("this node does not pay to {0}")]
    Unsupported(&'static str),
}

/// Why a text is no payment request.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum ReadError {
    #[error("the text is empty")]
    Empty,
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{what} is no payment request that this node reads; ask for {instead}")]
    Foreign { what: &'static str, instead: &'static str },
    #[error(
        "{text:?} is neither an invoice, an offer, an address, a bitcoin: URI nor a name such as ₿user@domain"
    )]
    Unknown { text: String },
    #[error("the request mixes networks: {ways}; ask for one that is of one network")]
    MixedNetworks { ways: String },
    #[error(
        "the request asks for {uri_sat} sat and in its {way} for {way_msat} msat; ask for another"
    )]
    AmountsDiffer { uri_sat: u64, way: &'static str, way_msat: u64 },
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Reading {
    /// Reads `text` as a node on `ours` at the time `now`. A name must have been looked up before.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn of(text: &str, ours: Network, now: Duration) -> Result<Self, ReadError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ReadError::Empty);
        }
        if Uri::is_one(text) {
            return Self::of_uri(Uri::read(text)?, ours, now);
        }
        let bare = match text.get(..10) {
            Some(scheme) if scheme.eq_ignore_ascii_case("lightning:") => text[10..].trim(),
            _ => text,
        };
        if let Some(foreign) = foreign(bare) {
            return Err(foreign);
        }
        if bare.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("ln")) {
            let way = Way::lightning(decode(bare, ours)?, ours, now);
            let source = match way.kind {
                WayKind::Bolt12 => Source::Offer,
                _ => Source::Invoice,
            };
            return Ok(Self::alone(source, way));
        }
        match Address::<NetworkUnchecked>::from_str(bare) {
            Ok(address) => Ok(Self::alone(Source::Address, Way::on_chain(&address, ours))),
            Err(_) => Err(ReadError::Unknown { text: bare.chars().take(80).collect() }),
        }
    }

    fn alone(source: Source, way: Way) -> Self {
        let ways = vec![way];
        Self { source, name: None, amount_sat: None, label: None, message: None, ways }
    }

    fn of_uri(uri: Uri, ours: Network, now: Duration) -> Result<Self, ReadError> {
        let ways: Vec<Way> = uri.ways.iter().map(|way| Way::of_uri(way, ours, now)).collect();
        one_network(&uri.ways, &ways)?;
        if let Some(uri_sat) = uri.amount_sat {
            for way in &ways {
                let asked = way.lightning.as_ref().and_then(|decoded| decoded.amount_msat);
                if let Some(way_msat) = asked.filter(|msat| !agree(uri_sat, *msat)) {
                    let way = way.kind.words();
                    return Err(ReadError::AmountsDiffer { uri_sat, way, way_msat });
                }
            }
        }
        Ok(Self {
            source: Source::Uri,
            name: None,
            amount_sat: uri.amount_sat,
            label: uri.label,
            message: uri.message,
            ways,
        })
    }

    /// The ways that this node could take, those to be tried first in front.
    pub fn candidates(&self) -> Vec<&Way> {
        let mut ways: Vec<&Way> = self.ways.iter().filter(|way| way.problem.is_none()).collect();
        ways.sort_by_key(|way| way.kind);
        ways
    }

    /// The way that would be taken, and why, where the channels can send `spendable_msat`; `None`
    /// if no channel is usable. Routes and coins are not asked.
    pub fn choice(&self, spendable_msat: Option<u64>) -> Option<(&Way, String)> {
        let candidates = self.candidates();
        let mut left = Vec::new();
        for way in &candidates {
            let what = way.kind.words();
            if !way.kind.is_lightning() {
                let why = match left.is_empty() {
                    true => format!("the {what} is the only way in it"),
                    false => format!("{}; the {what} is what is left", left.join("; ")),
                };
                return Some((way, why));
            }
            match (spendable_msat, self.asked_msat(way)) {
                (None, _) => left.push(format!("no channel is usable for the {what}")),
                (Some(msat), Some(asked)) if msat < asked => {
                    left.push(format!(
                        "the channels can send {msat} msat of {asked} for the {what}"
                    ));
                }
                _ => {
                    let rank = "channels before coins, an invoice before an offer";
                    return Some((way, format!("the {what} comes first: {rank}")));
                }
            }
        }
        let first = candidates.first()?;
        Some((first, left.join("; ")))
    }

    /// What paying `way` is asked to bring, msat; `None` if the payer chooses.
    pub fn asked_msat(&self, way: &Way) -> Option<u64> {
        let own = way.lightning.as_ref().and_then(|decoded| decoded.amount_msat);
        own.or_else(|| self.amount_sat.map(|sat| sat.saturating_mul(1_000)))
    }

    /// What it is for, in words.
    pub fn about(&self, way: &Way) -> Option<String> {
        let own = way.lightning.as_ref().and_then(|decoded| decoded.description.clone());
        self.message.clone().or(own).filter(|text| !text.is_empty())
    }
}

impl Way {
    fn lightning(decoded: Decoded, ours: Network, now: Duration) -> Self {
        let problem = if !decoded.on_our_network {
            Some(other_network(&decoded.networks, ours))
        } else {
            let expired = decoded.expires.and_then(|expires| now.checked_sub(expires));
            expired.map(|ago| Problem::Expired { seconds: ago.as_secs() })
        };
        let kind = match decoded.kind {
            DecodedKind::Invoice => WayKind::Bolt11,
            DecodedKind::Offer => WayKind::Bolt12,
        };
        Self { kind, text: decoded.text.clone(), lightning: Some(decoded), problem }
    }

    fn on_chain(address: &Address<NetworkUnchecked>, ours: Network) -> Self {
        let problem = match address.is_valid_for_network(ours) {
            true => None,
            false => Some(other_network(&networks_of(address), ours)),
        };
        let text = address.clone().assume_checked().to_string();
        Self { kind: WayKind::OnChain, text, lightning: None, problem }
    }

    fn of_uri(way: &UriWay, ours: Network, now: Duration) -> Self {
        let unreadable = |kind, error: String| Self {
            kind,
            text: way.text.clone(),
            lightning: None,
            problem: Some(Problem::Unreadable(error)),
        };
        let unsupported = |what| Self {
            kind: WayKind::Unknown,
            text: way.text.clone(),
            lightning: None,
            problem: Some(Problem::Unsupported(what)),
        };
        match way.key {
            UriKey::Body | UriKey::Mainnet | UriKey::Testnet | UriKey::Regtest => {
                match Address::<NetworkUnchecked>::from_str(&way.text) {
                    Ok(address) => Self::on_chain(&address, ours),
                    Err(error) => unreadable(WayKind::OnChain, error.to_string()),
                }
            }
            UriKey::Lightning | UriKey::Offer => {
                let kind = match way.key {
                    UriKey::Offer => WayKind::Bolt12,
                    _ => WayKind::Bolt11,
                };
                match decode(&way.text, ours) {
                    // An offer may stand under `lightning=` as well: some wallets write it there.
                    Ok(decoded) => Self::lightning(decoded, ours, now),
                    Err(error) => unreadable(kind, error.to_string()),
                }
            }
            UriKey::SilentPayment => unsupported("silent payment addresses (BIP 352)"),
            UriKey::PrivatePayment => unsupported("private payment addresses (BIP 351)"),
        }
    }

    /// When it expires, since the Unix epoch.
    pub fn expires(&self) -> Option<Duration> {
        self.lightning.as_ref().and_then(|decoded| decoded.expires)
    }
}

impl WayKind {
    /// Returns it in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Bolt11 => "BOLT 11 invoice",
            Self::Bolt12 => "BOLT 12 offer",
            Self::OnChain => "Bitcoin address",
            Self::Unknown => "way that is not known",
        }
    }

    /// Whether it goes over channels.
    pub const fn is_lightning(self) -> bool {
        matches!(self, Self::Bolt11 | Self::Bolt12)
    }
}

/// Whether an amount in whole satoshi is that in millisatoshi, up or down.
fn agree(sat: u64, msat: u64) -> bool {
    sat == msat / 1_000 || sat == msat.div_ceil(1_000)
}

fn networks_of(address: &Address<NetworkUnchecked>) -> Vec<Network> {
    NETWORKS.into_iter().filter(|network| address.is_valid_for_network(*network)).collect()
}

fn other_network(theirs: &[Network], ours: Network) -> Problem {
    Problem::OtherNetwork { theirs: in_words(theirs), ours }
}

fn in_words(networks: &[Network]) -> String {
    if networks.is_empty() {
        return "a network that is not known".to_owned();
    }
    let names: Vec<String> = networks.iter().map(ToString::to_string).collect();
    names.join(" or ")
}

/// Refuses a URI whose ways cannot all be of one network. Those under a network's own key may be
/// of another than the rest: that is what the keys are for.
fn one_network(keys: &[UriWay], ways: &[Way]) -> Result<(), ReadError> {
    let mut common = NETWORKS.to_vec();
    let mut told = Vec::new();
    for (key, way) in keys.iter().zip(ways) {
        let networks = match (key.key, &way.lightning) {
            (UriKey::Body, _) => match Address::<NetworkUnchecked>::from_str(&way.text) {
                Ok(address) => networks_of(&address),
                Err(_) => continue,
            },
            (_, Some(decoded)) => decoded.networks.clone(),
            _ => continue,
        };
        told.push(format!("{} for {}", way.kind.words(), in_words(&networks)));
        common.retain(|network| networks.contains(network));
    }
    match common.is_empty() && told.len() > 1 {
        true => Err(ReadError::MixedNetworks { ways: told.join(", ") }),
        false => Ok(()),
    }
}

/// Texts that ask for a payment in a way that this node does not have.
fn foreign(text: &str) -> Option<ReadError> {
    let starts = |start: &str| {
        text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
    };
    let refuse = |what, instead| Some(ReadError::Foreign { what, instead });
    if starts("lnurl1") || starts("lnurlp:") || starts("keyauth:") {
        return refuse("an LNURL", "an invoice, an offer, or a name such as ₿user@domain");
    }
    if starts("lnr1") {
        return refuse("a BOLT 12 invoice request", "an offer, which begins with lno1");
    }
    if starts("lni1") {
        return refuse("a BOLT 12 invoice", "its offer, which begins with lno1");
    }
    if starts("sp1") || starts("tsp1") {
        return refuse("a silent payment address", "a Bitcoin address");
    }
    None
}

#[cfg(test)]
#[path = "reading/tests.rs"]
mod tests;
