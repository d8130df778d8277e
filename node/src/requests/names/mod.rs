//! Names of people in the DNS: `₿user@domain`, as BIP 353 has them.
//!
//! A name stands for a `bitcoin:` URI in a TXT record. Nobody is trusted for it: the resolver is
//! asked for every signature from the record up to the root of the DNS, and what it gives counts
//! only if the signatures hold, by keys that this program carries (`proof.rs`). So the resolver can
//! refuse to answer, and knows who asks for whom; it cannot lie.
//!
//! Nothing is remembered: each look-up asks anew, so that no answer is older than its record says.

mod proof;
mod resolver;

use std::fmt;
use std::str::FromStr;

pub use proof::{ProofError, Proven};
pub use resolver::{NameError, Names};

/// Longest name of a host in the DNS, in characters, its last dot included.
const DNS_NAME_MAX: usize = 255;
/// Longest part between two dots.
const LABEL_MAX: usize = 63;
/// What stands between user and domain in the DNS.
const BETWEEN: &str = ".user._bitcoin-payment.";

/// A name, such as `₿matt@mattcorallo.com`. It is written in lower case, as the DNS compares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PersonName {
    user: String,
    domain: String,
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PersonNameError {
    /// Not two parts around an at sign, or a part is no name in the DNS.
    #[error("{text:?} is no name such as ₿user@domain: {why}")]
    Malformed {
        /// The text.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl PersonName {
    /// Whether a text is meant as a name: it has an at sign, or begins with ₿.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with('₿') || text.contains('@')
    }

    /// Where its record is in the DNS.
    pub(super) fn record(&self) -> String {
        format!("{}{BETWEEN}{}.", self.user, self.domain)
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "₿{}@{}", self.user, self.domain)
    }
}

impl FromStr for PersonName {
    type Err = PersonNameError;

    fn from_str(text: &str) -> Result<Self, PersonNameError> {
        let text = text.trim();
        let wrong = |why| PersonNameError::Malformed { text: text.chars().take(80).collect(), why };
        let plain = text.strip_prefix('₿').unwrap_or(text);
        if !plain.is_ascii() {
            // Letters of other scripts may look like Latin ones, and pay somebody else.
            return Err(wrong("write names in other scripts as punycode, which begins with xn--"));
        }
        let (user, domain) = plain.split_once('@').ok_or_else(|| wrong("the @ is missing"))?;
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        if domain.contains(':') {
            return Err(wrong("a peer's address has a port, a name has none"));
        }
        let is_label = |label: &str| {
            (1..=LABEL_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !user.split('.').all(is_label) {
            return Err(wrong("the part before @ is letters, digits, dots, - and _"));
        }
        if !domain.split('.').all(is_label) || !domain.contains('.') {
            return Err(wrong("the part behind @ is a domain"));
        }
        let name = Self { user: user.to_ascii_lowercase(), domain: domain.to_ascii_lowercase() };
        if name.record().len() > DNS_NAME_MAX {
            return Err(wrong("it is longer than the DNS holds"));
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_with_and_without_their_sign() {
        for text in ["₿Matt@MattCorallo.com", "matt@mattcorallo.com", " matt@mattcorallo.com. "] {
            let name: PersonName = text.parse().unwrap();
            assert_eq!(name.to_string(), "₿matt@mattcorallo.com", "{text}");
            assert_eq!(name.record(), "matt.user._bitcoin-payment.mattcorallo.com.");
        }
        let name: PersonName = "a_b.c@xn--bcher-kva.example".parse().unwrap();
        assert_eq!(name.record(), "a_b.c.user._bitcoin-payment.xn--bcher-kva.example.");
    }

    #[test]
    fn what_is_no_name_says_why() {
        for (text, why) in [
            ("matt", "@ is missing"),
            ("₿", "@ is missing"),
            ("@a.b", "before @"),
            ("a@", "behind @"),
            ("a@localhost", "behind @"),
            ("a@b..c", "behind @"),
            ("a@b.c@d", "behind @"),
            ("a b@c.d", "before @"),
            ("a+b@c.d", "before @"),
            (".a@c.d", "before @"),
            // Cyrillic, and looks like Latin.
            ("₿mаtt@mattcorallo.com", "punycode"),
            ("02aa@127.0.0.1:9735", "port"),
        ] {
            let error = text.parse::<PersonName>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("{}@{}.example", "a".repeat(63), "b.".repeat(90) + "c");
        assert!(long.parse::<PersonName>().unwrap_err().to_string().contains("longer"));
        let label = format!("{}@b.c", "a".repeat(64));
        assert!(label.parse::<PersonName>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_names_are_read_again(text in "\\PC*") {
            if let Ok(name) = text.parse::<PersonName>() {
                prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
        }

        #[test]
        fn likely_names_are_read_again(text in "₿?[a-zA-Z0-9._-]{1,12}@[a-zA-Z0-9._-]{1,20}") {
            if let Ok(name) = text.parse::<PersonName>() {
                prop_assert!(name.record().len() <= DNS_NAME_MAX);
                prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
        }
    }
}
