//! The proof that a name stands for a URI: signatures from its record up to the root of the DNS.
//!
//! The signatures and the keys of the root are those of `dnssec-prover`. What is judged here is
//! what BIP 353 adds: the time, one `bitcoin:` record and no second, and how long it counts.

use std::time::Duration;

use dnssec_prover::rr::{Name, RR};
use dnssec_prover::ser::parse_rr_stream;
use dnssec_prover::validation::{ValidationError, verify_rr_stream};

/// A URI that a name was proven to stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The URI.
    pub uri: String,
    /// Until when it may be used, since the Unix epoch: no record of the proof lives longer.
    pub until: Duration,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The records are not in the form of the DNS.
    #[error("the records of the answer cannot be read")]
    Unreadable,
    /// A signature is missing or wrong.
    #[error("the signatures of the records do not hold")]
    Forged,
    /// Signed in a way that is not known, or that has become weak.
    #[error("the records are signed in a way that this node does not take")]
    Algorithm,
    /// More steps than a proof may have.
    #[error("the proof has too many steps")]
    TooLong,
    /// Signatures of the future.
    #[error("the signatures begin to count in {seconds} s; check this machine's clock")]
    Early {
        /// How far they are away.
        seconds: u64,
    },
    /// Signatures of the past.
    #[error("the signatures counted until {seconds} s ago")]
    Expired {
        /// How long ago.
        seconds: u64,
    },
    /// Records, but none that begins with `bitcoin:`.
    #[error("the records hold no payment instructions")]
    NoInstructions,
    /// More than one: BIP 353 takes neither.
    #[error("there are {count} records with payment instructions, one is allowed")]
    Several {
        /// How many.
        count: usize,
    },
    /// A record that is no text.
    #[error("the payment instructions are not text")]
    NotText,
}

/// Judges `proof`, a series of DNS records, for the record called `record` at the time `now`.
///
/// `ttl_seconds` is what the resolver said of how long its answer lives.
///
/// # Errors
///
/// See [`ProofError`].
///
/// Source: BIP 353, "Resolution"; RFC 9102 for the form.
pub(super) fn judge(
    record: &str,
    proof: &[u8],
    ttl_seconds: u32,
    now: Duration,
) -> Result<Proven, ProofError> {
    let records = parse_rr_stream(proof).map_err(|()| ProofError::Unreadable)?;
    let name = Name::try_from(record).map_err(|()| ProofError::Unreadable)?;
    let verified = verify_rr_stream(&records).map_err(|error| match error {
        ValidationError::UnsupportedAlgorithm => ProofError::Algorithm,
        ValidationError::Invalid => ProofError::Forged,
        ValidationError::ValidationCountLimited => ProofError::TooLong,
    })?;
    let now_seconds = now.as_secs();
    if let Some(seconds) = verified.valid_from.checked_sub(now_seconds).filter(|left| *left > 0) {
        return Err(ProofError::Early { seconds });
    }
    if let Some(seconds) = now_seconds.checked_sub(verified.expires) {
        return Err(ProofError::Expired { seconds });
    }
    // Follows aliases, all of which are among what was verified.
    let mut uris = Vec::new();
    for found in verified.resolve_name(&name) {
        let RR::Txt(text) = found else { continue };
        let bytes = text.data.as_vec();
        if bytes.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"bitcoin:")) {
            uris.push(bytes);
        }
    }
    let count = uris.len();
    let uri = uris.pop().ok_or(ProofError::NoInstructions)?;
    if count > 1 {
        return Err(ProofError::Several { count });
    }
    let uri = String::from_utf8(uri).map_err(|_| ProofError::NotText)?;
    let lives_seconds = u64::from(ttl_seconds.min(verified.max_cache_ttl));
    let until = now_seconds.saturating_add(lives_seconds).min(verified.expires);
    Ok(Proven { uri, until: Duration::from_secs(until) })
}

#[cfg(test)]
#[path = "proof/tests.rs"]
mod tests;
