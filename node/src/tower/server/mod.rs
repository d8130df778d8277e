//! A tower: appointments in, penalties out.
//!
//! - `ledger.rs`: accounts, channels, appointments, durable (`books.rs`: the first two); `page.rs` and `blob.rs`: how they are
//!   stored; `index.rs`: the table of locators.
//! - `guard.rs`: the eye on mempool and blocks. `breach.rs`: one breach; `record.rs`: how it is
//!   stored.
//! - `purse.rs`: what the tower adds to the fees of its household.
//! - `watches.rs`: paths of batches, published for those who sleep.
//! - `open.rs`: clients of the open tower protocol.
//! - here: what clients may ask for, each request with its signature.
//!
//! A tower knows of a client a key, and of a channel a tag; of a state nothing before its breach.

mod blob;
mod books;
mod breach;
mod guard;
mod index;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod open;
mod page;
mod purse;
mod record;
mod watches;

pub use blob::StoredBlob;
pub use books::Account;
pub use guard::{BreachView, Guard, GuardParts};
pub use index::LocatorIndex;
pub use ledger::{AddError, Added, Entry, Ledger, Stored, slots_of};
pub use open::OpenStatus;
pub use purse::Purse;
pub use watches::{Household, WatchError, Watches};

use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{OutPoint, absolute};
use channel_contracts::tower::policy::Standing;
use channel_contracts::tower::{
    Appointment, AppointmentReceipt, BatchWatch, BatchWatchError, ChannelTag, Locator, Mode,
    Refusal, RegistrationReceipt, TowerPolicy, receipt::message_hash,
};

use crate::store::{Committer, StoreError};

/// Domain of a client's question about an appointment.
pub const GET_DOMAIN: &str = "tributary/tower/get/1";
/// Domain of a client's word that a channel is closed.
pub const REMOVE_DOMAIN: &str = "tributary/tower/remove/1";
/// Domain of a client's question about its subscription.
pub const SUBSCRIPTION_DOMAIN: &str = "tributary/tower/subscription/1";
/// Domain of a client's wish that a path be watched, and of the tower's word for it.
pub const WATCH_DOMAIN: &str = "tributary/tower/watch/1";
/// Domain of a client's word that a path need not be watched any more.
pub const UNWATCH_DOMAIN: &str = "tributary/tower/unwatch/1";
/// Appointments of one request.
pub const APPOINTMENTS_AT_ONCE: usize = 256;

/// Why a tower refuses. Nothing of the request was done.
#[derive(Debug, thiserror::Error)]
pub enum TowerError {
    /// The signature is not the client's.
    #[error("the request is not signed by client {0}; sign it with the key you registered")]
    Signature(PublicKey),
    /// The tower's policy.
    #[error("appointment {index}: {refusal}")]
    Refused {
        /// Which of the request.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
    /// Too many in one request.
    #[error("{count} appointments in one request, at most {APPOINTMENTS_AT_ONCE} are taken")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// No more clients are taken.
    #[error("this tower has {max} clients and takes no more; choose another one")]
    Full {
        /// The most it takes.
        max: usize,
    },
    /// The ledger.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The path of a batch.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TowerError {
    /// Whether a subscription would help.
    pub fn wants_subscription(&self) -> bool {
        let over =
            |refusal: &Refusal| matches!(refusal, Refusal::Expired { .. } | Refusal::Quota { .. });
        match self {
            Self::Add(
                AddError::Unknown(_) | AddError::Expired { .. } | AddError::NoSlots { .. },
            ) => true,
            Self::Refused { refusal, .. } => over(refusal),
            _ => false,
        }
    }
}

/// What a tower is made of.
pub struct TowerParts {
    /// Its identity.
    pub secret: SecretKey,
    /// What it takes and gives.
    pub policy: TowerPolicy,
    /// The most clients it has.
    pub clients_max: usize,
    /// The way to the store.
    pub committer: Committer,
    /// Its appointments.
    pub ledger: Arc<Ledger>,
    /// Its eye.
    pub guard: Arc<Guard>,
    /// The paths it watches.
    pub watches: Arc<Watches>,
}

/// A tower, as its doors see it.
pub struct Tower {
    parts: TowerParts,
    secp: Secp256k1<All>,
    key: PublicKey,
}

/// An appointment and its client's signature.
#[derive(Debug, Clone)]
pub struct SignedAppointment {
    /// It.
    pub appointment: Appointment,
    /// Over [`Appointment::message_hash`].
    pub signature: Signature,
}

impl Tower {
    /// Puts a tower together.
    pub fn new(parts: TowerParts) -> Self {
        let secp = Secp256k1::new();
        let key = parts.secret.public_key(&secp);
        Self { parts, secp, key }
    }

    /// Its identity.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// What it takes and gives.
    pub fn policy(&self) -> &TowerPolicy {
        &self.parts.policy
    }

    /// Its appointments.
    pub fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    /// The paths it watches.
    pub fn watches(&self) -> &Watches {
        &self.parts.watches
    }

    /// Its eye.
    pub fn guard(&self) -> &Guard {
        &self.parts.guard
    }

    /// Gives `client` a subscription, or prolongs it. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`TowerError::Full`] or [`TowerError::Store`].
    pub async fn register(
        &self,
        client: PublicKey,
    ) -> Result<(Account, RegistrationReceipt, Signature), TowerError> {
        let TowerParts { policy, ledger, committer, clients_max, .. } = &self.parts;
        let known = ledger.account(&client);
        let is_full = known.is_none() && ledger.counts().0 >= *clients_max;
        if is_full && !ledger.forget_one_unused() {
            return Err(TowerError::Full { max: *clients_max });
        }
        // Registering again brings more time, and slots up to what one client may have.
        let slots = known.map_or(0, |account| account.slots);
        let more = policy.appointments_max.saturating_sub(slots);
        let best = self.parts.guard.height();
        let (account, ticket) = ledger.register(client, more, best, policy.registration_blocks);
        committer.durable(ticket).await?;
        let receipt = RegistrationReceipt {
            tower: self.key,
            client,
            appointments_max: account.slots,
            expiry: height(account.expires),
            fee_budget: self.parts.watches.budget_of(&client),
        };
        let signature = receipt.sign(&self.secp, &self.parts.secret);
        Ok((account, receipt, signature))
    }

    /// Takes appointments, all or none, and signs for each once they are durable.
    ///
    /// # Errors
    ///
    /// See [`TowerError`].
    pub async fn add(
        &self,
        client: PublicKey,
        signed: Vec<SignedAppointment>,
    ) -> Result<Vec<(AppointmentReceipt, Signature)>, TowerError> {
        if signed.len() > APPOINTMENTS_AT_ONCE {
            return Err(TowerError::TooMany { count: signed.len() });
        }
        let TowerParts { policy, ledger, committer, guard, secret, .. } = &self.parts;
        let best = guard.height();
        let account = ledger.account(&client).ok_or(AddError::Unknown(client))?;
        let standing = Standing { kept: 0, expiry: height(account.expires), height: height(best) };
        let mut appointments = Vec::with_capacity(signed.len());
        for (index, SignedAppointment { appointment, signature }) in signed.into_iter().enumerate()
        {
            let message = appointment.message_hash(&self.key);
            self.secp
                .verify_ecdsa(&message, &signature, &client)
                .map_err(|_| TowerError::Signature(client))?;
            // The ledger counts; it knows which of them are repetitions.
            policy
                .admit(&appointment, &standing)
                .map_err(|refusal| TowerError::Refused { index, refusal })?;
            appointments.push(appointment);
        }
        let entry = |appointment: &Appointment| Entry {
            channel: appointment.channel,
            sequence: appointment.sequence,
            locator: appointment.locator,
            blob: StoredBlob::Sealed(appointment.blob.clone()).encode(),
        };
        let entries: Vec<Entry> = appointments.iter().map(entry).collect();
        let added = ledger.add(client, &entries, best)?;
        committer.durable(added.ticket).await?;
        guard.added(appointments.iter().map(|appointment| appointment.locator));
        let receipts = appointments.iter().map(|appointment| {
            let receipt = AppointmentReceipt::of(appointment, self.key, client, height(best));
            (receipt, receipt.sign(&self.secp, secret))
        });
        Ok(receipts.collect())
    }

    /// The appointments of `client` under `locator`.
    ///
    /// # Errors
    ///
    /// [`TowerError::Signature`] or [`TowerError::Store`].
    pub fn get(
        &self,
        client: PublicKey,
        locator: Locator,
        signature: &Signature,
    ) -> Result<Vec<Stored>, TowerError> {
        self.check(GET_DOMAIN, &locator.0, client, signature)?;
        let mut own = self.parts.ledger.find(&locator)?;
        own.retain(|stored| stored.client == client);
        Ok(own)
    }

    /// Forgets a closed channel. Durable when it returns; one that is not known is forgotten.
    ///
    /// # Errors
    ///
    /// [`TowerError::Signature`] or [`TowerError::Store`].
    pub async fn remove_channel(
        &self,
        client: PublicKey,
        channel: ChannelTag,
        signature: &Signature,
    ) -> Result<bool, TowerError> {
        self.check(REMOVE_DOMAIN, &channel.0, client, signature)?;
        let (known, ticket) = self.parts.ledger.remove_channel(&client, channel);
        self.parts.committer.durable(ticket).await?;
        Ok(known)
    }

    /// Watches the path of a batch for `client`, and signs for it once that is durable.
    ///
    /// # Errors
    ///
    /// [`TowerError::Signature`], [`TowerError::Watch`], or [`AddError::Unknown`].
    pub async fn watch_path(
        &self,
        client: PublicKey,
        encoded: &[u8],
        signature: &Signature,
    ) -> Result<Signature, TowerError> {
        self.check(WATCH_DOMAIN, encoded, client, signature)?;
        let TowerParts { ledger, guard, watches, secret, .. } = &self.parts;
        let best = guard.height();
        let account = ledger.account(&client).ok_or(AddError::Unknown(client))?;
        if best >= account.expires {
            return Err(AddError::Expired { expires: account.expires, best }.into());
        }
        let watch = BatchWatch::decode(encoded)
            .map_err(|error| WatchError::from(BatchWatchError::from(error)))?;
        watches.add(client, &watch, best).await?;
        Ok(self.secp.sign_ecdsa(&watch_hash(&self.key, &client, encoded), secret))
    }

    /// Watches the path to `funding` no more. Durable when it returns; one that is not watched is
    /// fine.
    ///
    /// # Errors
    ///
    /// [`TowerError::Signature`] or [`TowerError::Store`].
    pub async fn unwatch_path(
        &self,
        client: PublicKey,
        funding: OutPoint,
        signature: &Signature,
    ) -> Result<bool, TowerError> {
        self.check(UNWATCH_DOMAIN, &serialize(&funding), client, signature)?;
        let (known, ticket) = self.parts.watches.remove(client, funding);
        self.parts.committer.durable(ticket).await?;
        Ok(known)
    }

    /// The subscription of `client`.
    ///
    /// # Errors
    ///
    /// [`TowerError::Signature`], or [`AddError::Unknown`].
    pub fn subscription(
        &self,
        client: PublicKey,
        signature: &Signature,
    ) -> Result<Account, TowerError> {
        self.check(SUBSCRIPTION_DOMAIN, &[], client, signature)?;
        Ok(self.parts.ledger.account(&client).ok_or(AddError::Unknown(client))?)
    }

    /// Whether it takes remedies with secrets.
    pub fn takes(&self, mode: Mode) -> bool {
        mode == Mode::Blind || self.parts.policy.trusted
    }

    fn check(
        &self,
        domain: &str,
        what: &[u8],
        client: PublicKey,
        signature: &Signature,
    ) -> Result<(), TowerError> {
        let message = request_hash(domain, &self.key, what);
        self.secp
            .verify_ecdsa(&message, signature, &client)
            .map_err(|_| TowerError::Signature(client))
    }
}

/// What a client signs to ask the tower `tower` about `what`.
pub fn request_hash(domain: &str, tower: &PublicKey, what: &[u8]) -> bitcoin::secp256k1::Message {
    message_hash(domain, &[&tower.serialize()[..], what].concat())
}

/// What a tower signs when it has taken the watch `encoded` of `client`.
pub fn watch_hash(
    tower: &PublicKey,
    client: &PublicKey,
    encoded: &[u8],
) -> bitcoin::secp256k1::Message {
    request_hash(WATCH_DOMAIN, tower, &[&client.serialize()[..], encoded].concat())
}

/// A height of the chain; those beyond 500,000,000 do not exist.
fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap_or(absolute::Height::MAX)
}
