//! The signing session of one path, from a user's side.
//!
//! ```text
//! UserNonces ──aggregated nonces──► UserSigned ──final signatures──► SignedPath
//!  (secret nonces live here)
//! ```
//!
//! It begins with an [`AgreedPath`], which only a full check of the proposal yields, so a user
//! cannot sign what it has not computed. Signing consumes the nonces: a hub that asks twice gets
//! the same partial signatures again from the caller's record, never second ones. The final
//! signatures are verified before the path counts as signed.
//!
//! Source: BATCHES §3.4 and §3.5; BIP 327, "Signing".

use secp256k1_musig::musig::{AggregatedNonce, PartialSignature, PublicNonce, Session};

use super::SchnorrSignature;
use super::key::TreeSecret;
use super::nonce::{NonceSeed, OneTimeNonce};
use crate::tree::{AgreedPath, PathError, SignedPath, VerifiedPath};

/// Why the session does not take what the hub sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserSessionError {
    /// The secret is not that of the key the user agreed with.
    #[error("the secret is not that of the tree key registered for this attempt")]
    ForeignSecret,
    /// The hub sent more or fewer values than the path has levels.
    #[error("hub sent {actual} values, the path has {levels} levels")]
    Count {
        /// How many came.
        actual: usize,
        /// How many it takes.
        levels: usize,
    },
    /// The signed path is wrong.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A session whose nonces have not signed yet.
#[derive(Debug)]
pub struct UserNonces {
    agreed: AgreedPath,
    secret: TreeSecret,
    own: Vec<OneTimeNonce>,
}

/// A session that has signed and waits for the final signatures.
#[derive(Debug, Clone)]
pub struct UserSigned {
    agreed: AgreedPath,
    partials: Vec<PartialSignature>,
}

impl UserNonces {
    /// Begins the session of `agreed` from a fresh `seed`, and returns the nonces to be sent,
    /// one for each level from the root down.
    ///
    /// # Errors
    ///
    /// [`UserSessionError::ForeignSecret`] unless `secret` is that of `agreed`'s own key.
    pub fn begin(
        agreed: AgreedPath,
        secret: TreeSecret,
        seed: NonceSeed,
    ) -> Result<(Self, Vec<PublicNonce>), UserSessionError> {
        if secret.public_key() != agreed.own_key {
            return Err(UserSessionError::ForeignSecret);
        }
        let nonces = (0u32..).zip(&agreed.levels);
        let (own, public) = nonces
            .map(|(place, level)| {
                OneTimeNonce::new(&seed, place, &secret, &level.key, &level.message)
            })
            .unzip();
        Ok((Self { agreed, secret, own }, public))
    }

    /// Signs every transaction of the path and consumes the nonces.
    ///
    /// # Errors
    ///
    /// [`UserSessionError::Count`] unless there is one aggregated nonce for each level. The
    /// nonces are consumed then too: the attempt is over.
    pub fn sign(self, aggregated: &[AggregatedNonce]) -> Result<UserSigned, UserSessionError> {
        let levels = self.agreed.levels.len();
        if aggregated.len() != levels {
            return Err(UserSessionError::Count { actual: aggregated.len(), levels });
        }
        let Self { agreed, secret, own } = self;
        let partials = own
            .into_iter()
            .zip(&agreed.levels)
            .zip(aggregated)
            .map(|((nonce, level), aggregated)| {
                let session = Session::new(level.key.cache(), *aggregated, &level.message);
                nonce.sign(&secret, &level.key, &session)
            })
            .collect();
        Ok(UserSigned { agreed, partials })
    }
}

impl UserSigned {
    /// Returns the partial signatures to be sent, one for each level from the root down.
    pub fn partials(&self) -> &[PartialSignature] {
        &self.partials
    }

    /// Returns what was signed.
    pub fn agreed(&self) -> &AgreedPath {
        &self.agreed
    }

    /// Verifies the final signatures and completes the path.
    ///
    /// # Errors
    ///
    /// [`UserSessionError`] names the first level whose signature is wrong; the session stays
    /// as it is, since nothing in it is secret or spent.
    pub fn complete(
        &self,
        signatures: Vec<SchnorrSignature>,
    ) -> Result<(SignedPath, VerifiedPath), UserSessionError> {
        let levels = self.agreed.levels.len();
        if signatures.len() != levels {
            return Err(UserSessionError::Count { actual: signatures.len(), levels });
        }
        let path = SignedPath { path: self.agreed.path.clone(), signatures };
        let verified = path.verify(&self.agreed.ends)?;
        Ok((path, verified))
    }
}
