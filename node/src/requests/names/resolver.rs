//! Asks a resolver for a name and for everything that proves the answer.
//!
//! DNS over TCP: one question after the other on one connection, each with its length before it
//! (RFC 1035, section 4.2.2). `dnssec-prover` says what to ask next.

use std::sync::Arc;
use std::time::Duration;

use dnssec_prover::query::{ProofBuilder, ProofBuildingError, QueryBuf};
use dnssec_prover::rr::{Name, TXT_TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::proof::{ProofError, Proven, judge};
use super::{PersonName, PersonNameError};
use crate::environment::{BoxedLink, Clock, LinkError, Links};

/// How long a look-up may take, from the dial to the last answer.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest proof taken, bytes. Real ones have some 3,000 to 6,000.
const PROOF_LEN_MAX: usize = 256 * 1_024;

/// Why a name was not resolved. Nothing was paid.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum NameError {
    #[error("names are not looked up: no resolver is configured")]
    Off,
    #[error(transparent)]
    Malformed(#[from] PersonNameError),
    #[error("the resolver {resolver} cannot be asked: {source}")]
    Unreachable { resolver: String, source: LinkError },
    #[error("the resolver {resolver} did not answer: {detail}")]
    Silent { resolver: String, detail: String },
    #[error("there is no payment name {name}")]
    Unknown { name: PersonName },
    #[error(
        "{name} cannot be trusted: its domain is not signed (DNSSEC), or the resolver does not validate"
    )]
    Unsigned { name: PersonName },
    #[error("{name} cannot be trusted: {source}")]
    Unproven { name: PersonName, source: ProofError },
}

/// Looks names up, if a resolver is configured.
pub struct Names {
    resolver: String,
    links: Arc<dyn Links>,
    clock: Arc<dyn Clock>,
}

impl Names {
    /// Asks the resolver at `resolver`, `host:port`; empty: nobody.
    pub fn new(resolver: String, links: Arc<dyn Links>, clock: Arc<dyn Clock>) -> Self {
        Self { resolver, links, clock }
    }

    /// Finds what `name` stands for, and proves it.
    ///
    /// # Errors
    ///
    /// See [`NameError`].
    pub async fn resolve(&self, name: &PersonName) -> Result<Proven, NameError> {
        if self.resolver.is_empty() {
            return Err(NameError::Off);
        }
        let record = name.record();
        let asked = tokio::time::timeout(LOOK_UP_TIMEOUT, self.ask(name, &record)).await;
        let (proof, ttl_seconds) = asked.unwrap_or_else(|_| {
            Err(self.silent(format!("nothing within {} s", LOOK_UP_TIMEOUT.as_secs())))
        })?;
        judge(&record, &proof, ttl_seconds, self.clock.now())
            .map_err(|source| NameError::Unproven { name: name.clone(), source })
    }

    async fn ask(&self, name: &PersonName, record: &str) -> Result<(Vec<u8>, u32), NameError> {
        let question = Name::try_from(record).map_err(|()| {
            let why = "it is no name in the DNS";
            PersonNameError::Malformed { text: record.to_owned(), why }
        })?;
        let mut link = self
            .links
            .dial(&self.resolver)
            .await
            .map_err(|source| NameError::Unreachable { resolver: self.resolver.clone(), source })?;
        let (mut builder, first) = ProofBuilder::new(&question, TXT_TYPE);
        self.send(&mut link, &first).await?;
        let mut received = 0;
        while builder.awaiting_responses() {
            let answer = self.receive(&mut link).await?;
            received += answer.len();
            if received > PROOF_LEN_MAX {
                return Err(self.silent(format!("more than {PROOF_LEN_MAX} bytes came")));
            }
            let more = builder.process_response(&answer).map_err(|error| match error {
                ProofBuildingError::NoSuchName => NameError::Unknown { name: name.clone() },
                ProofBuildingError::Unauthenticated => NameError::Unsigned { name: name.clone() },
                other => self.silent(other.to_string()),
            })?;
            for question in more {
                self.send(&mut link, &question).await?;
            }
        }
        builder
            .finish_proof()
            .map_err(|()| NameError::Unproven { name: name.clone(), source: ProofError::TooLong })
    }

    async fn send(&self, link: &mut BoxedLink, question: &QueryBuf) -> Result<(), NameError> {
        let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(question);
        link.write_all(&message).await.map_err(|error| self.silent(error.to_string()))
    }

    async fn receive(&self, link: &mut BoxedLink) -> Result<QueryBuf, NameError> {
        let lost = |error: std::io::Error| self.silent(error.to_string());
        let length = link.read_u16().await.map_err(lost)?;
        let mut answer = QueryBuf::new_zeroed(length);
        link.read_exact(&mut answer).await.map_err(lost)?;
        Ok(answer)
    }

    fn silent(&self, detail: String) -> NameError {
        NameError::Silent { resolver: self.resolver.clone(), detail }
    }
}

#[cfg(test)]
#[path = "resolver/tests.rs"]
mod tests;
