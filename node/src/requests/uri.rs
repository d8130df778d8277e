//! `bitcoin:` URIs, read and written. Pure text: nothing here knows a network or a channel.
//!
//! Source: BIP 321, which replaces BIP 21. Keys and scheme are read in either case; a required
//! key that is not known refuses the whole; what is asked for once must stand once.

use std::fmt;

/// All bitcoin there will ever be, satoshi.
const AMOUNT_SAT_MAX: u64 = 21_000_000 * 100_000_000;
/// Digits behind the point of an amount in bitcoin.
const DECIMALS: usize = 8;
/// Longest URI read, bytes: more than any QR code or DNS record holds.
const LEN_MAX: usize = 16_384;

/// What a `bitcoin:` URI says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uri {
    /// What is asked for, satoshi.
    pub amount_sat: Option<u64>,
    /// Who asks.
    pub label: Option<String>,
    /// What for.
    pub message: Option<String>,
    /// The ways to pay, in the order in which they stand.
    pub ways: Vec<UriWay>,
}

/// One way to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriWay {
    /// Where it stands.
    pub key: UriKey,
    /// Its text, not judged any further than that it fits its key.
    pub text: String,
}

/// Where a way to pay stands in a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UriKey {
    /// The body: an address of any kind and network.
    Body,
    /// `bc=`: a segwit address of mainnet.
    Mainnet,
    /// `tb=`: a segwit address of a test network.
    Testnet,
    /// `bcrt=`: a segwit address of regtest.
    Regtest,
    /// `lightning=`: a BOLT 11 invoice.
    Lightning,
    /// `lno=`: a BOLT 12 offer.
    Offer,
    /// `sp=`: a silent payment address (BIP 352).
    SilentPayment,
    /// `pay=`: a private payment address (BIP 351).
    PrivatePayment,
}

impl UriKey {
    /// The keys of the query.
    const QUERY: [(&'static str, Self); 7] = [
        ("bc", Self::Mainnet),
        ("tb", Self::Testnet),
        ("bcrt", Self::Regtest),
        ("lightning", Self::Lightning),
        ("lno", Self::Offer),
        ("sp", Self::SilentPayment),
        ("pay", Self::PrivatePayment),
    ];

    /// Its name; empty for the body.
    pub fn name(self) -> &'static str {
        Self::QUERY.iter().find(|(_, key)| *key == self).map_or("", |(name, _)| name)
    }
}

/// Why a `bitcoin:` URI cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum UriError {
    #[error("a bitcoin: URI begins with bitcoin:")]
    Scheme,
    #[error("the URI has {bytes} bytes, at most {LEN_MAX} are read")]
    TooLong { bytes: usize },
    #[error("{text:?} in the URI is not percent-encoded UTF-8; copy it whole")]
    Encoding { text: String },
    #[error(
        "the URI asks for {key:?}, which this node does not know, as required; use another request"
    )]
    RequiredKey { key: String },
    #[error("the URI has {key} twice; it may stand once")]
    Repeated { key: String },
    #[error("amount {text:?} in the URI is not an amount of bitcoin such as 0.0015, {why}")]
    Amount { text: String, why: &'static str },
    #[error("{key}= in the URI holds {text:?}, which is no address of that kind")]
    WrongKey { key: &'static str, text: String },
    #[error("{key}= in the URI is empty")]
    Empty { key: String },
    #[error("the URI names no way to pay")]
    NoWay,
}

impl Uri {
    /// Whether `text` begins with `bitcoin:`, in either case.
    pub fn is_one(text: &str) -> bool {
        strip_scheme(text).is_some()
    }

    /// Reads a URI.
    ///
    /// # Errors
    ///
    /// See [`UriError`].
    pub fn read(text: &str) -> Result<Self, UriError> {
        let text = text.trim();
        if text.len() > LEN_MAX {
            return Err(UriError::TooLong { bytes: text.len() });
        }
        let rest = strip_scheme(text).ok_or(UriError::Scheme)?;
        let (body, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        let body = decoded(body)?;
        if !body.is_empty() {
            uri.ways.push(UriWay { key: UriKey::Body, text: body });
        }
        let mut once: Vec<String> = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            // Decoded before it is judged: `%72eq-` is required all the same.
            let key = decoded(key)?.to_ascii_lowercase();
            let required = key.strip_prefix("req-");
            // What may stand once may not stand a second time as a required one either.
            let plain = required.unwrap_or(&key).to_owned();
            if ["amount", "label", "message", "pop"].contains(&&*plain) {
                if once.contains(&plain) {
                    return Err(UriError::Repeated { key: plain });
                }
                once.push(plain);
            }
            if required.is_some() {
                return Err(UriError::RequiredKey { key });
            }
            uri.take(&key, value)?;
        }
        if uri.ways.is_empty() {
            return Err(UriError::NoWay);
        }
        Ok(uri)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), UriError> {
        let text = decoded(value)?;
        match key {
            "amount" => self.amount_sat = Some(amount_sat(&text)?),
            "label" => self.label = Some(text),
            "message" => self.message = Some(text),
            _ => {
                let known = UriKey::QUERY.iter().find(|(name, _)| *name == key);
                let Some((name, way)) = known else {
                    // BIP 321: a key that is not known and not required means nothing.
                    return Ok(());
                };
                if text.is_empty() {
                    return Err(UriError::Empty { key: key.to_owned() });
                }
                let segwit = matches!(way, UriKey::Mainnet | UriKey::Testnet | UriKey::Regtest);
                let begins = text
                    .get(..name.len() + 1)
                    .is_some_and(|start| start.eq_ignore_ascii_case(&format!("{name}1")));
                if segwit && !begins {
                    return Err(UriError::WrongKey { key: name, text });
                }
                self.ways.push(UriWay { key: *way, text });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Uri {
    /// Writes it so that [`Uri::read`] reads the same. Only the first way may stand in the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bitcoin:")?;
        let mut separator = '?';
        let mut parameter = |f: &mut fmt::Formatter<'_>, key: &str, value: &str| {
            write!(f, "{separator}{key}={}", Encoded(value))?;
            separator = '&';
            Ok(())
        };
        let (body, query): (Vec<_>, Vec<_>) =
            self.ways.iter().partition(|way| way.key == UriKey::Body);
        for way in body {
            write!(f, "{}", Encoded(&way.text))?;
        }
        if let Some(amount_sat) = self.amount_sat {
            parameter(f, "amount", &bitcoins(amount_sat))?;
        }
        if let Some(label) = &self.label {
            parameter(f, "label", label)?;
        }
        if let Some(message) = &self.message {
            parameter(f, "message", message)?;
        }
        for way in query {
            parameter(f, way.key.name(), &way.text)?;
        }
        Ok(())
    }
}

/// Percent-encodes what is not unreserved.
///
/// Source: RFC 3986, section 2.3.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

fn strip_scheme(text: &str) -> Option<&str> {
    let text = text.trim();
    text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("bitcoin:"))?;
    Some(&text[8..])
}

/// Undoes percent-encoding. A plus sign is a plus sign.
fn decoded(text: &str) -> Result<String, UriError> {
    let wrong = || UriError::Encoding { text: text.chars().take(80).collect() };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Reads an amount in bitcoin, exactly.
fn amount_sat(text: &str) -> Result<u64, UriError> {
    let wrong = |why| UriError::Amount { text: text.chars().take(40).collect(), why };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
        return Err(wrong("with digits and one point"));
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > DECIMALS {
        return Err(wrong("with at most 8 digits behind the point"));
    }
    let digits = format!("{}{fraction:0<DECIMALS$}", whole.trim_start_matches('0'));
    let sat = digits.parse::<u64>().ok().filter(|sat| *sat <= AMOUNT_SAT_MAX);
    match sat {
        None => Err(wrong("and no more than there is")),
        Some(0) => Err(wrong("and more than nothing; leave it out to let the payer choose")),
        Some(sat) => Ok(sat),
    }
}

/// Writes an amount in bitcoin.
fn bitcoins(sat: u64) -> String {
    let (whole, fraction) = (sat / 100_000_000, sat % 100_000_000);
    let text = format!("{whole}.{fraction:0DECIMALS$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
