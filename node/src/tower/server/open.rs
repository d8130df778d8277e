//! Clients of the open tower protocol, beside ours.
//!
//! What they leave is found in the same way, and answered as it is: their penalty is signed as a
//! whole. Each appointment is a channel of its own, named by its locator.

use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Transaction, Txid};
use channel_contracts::tower::open_protocol::{AppointmentBody, signature};
use channel_contracts::tower::{ChannelTag, Locator};

use super::books::Account;
use super::ledger::{AddError, Entry};
use super::{StoredBlob, Tower, TowerError};

/// Where an appointment of the open tower protocol stands.
#[derive(Debug, Clone)]
pub enum OpenStatus {
    /// There is none.
    Unknown,
    /// The breach has not come.
    Watched(AppointmentBody),
    /// The breach is being answered.
    Responded {
        /// The revoked commitment.
        dispute_txid: Txid,
        /// What answers it.
        penalty: Transaction,
    },
}

impl Tower {
    /// What its doors verify signatures with.
    pub fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// Signs `message` as that protocol does.
    pub fn sign_open(&self, message: &[u8]) -> String {
        signature::sign(&self.secp, message, &self.parts.secret)
    }

    /// Takes an appointment; it replaces an earlier one under the same locator. Durable when it
    /// returns.
    ///
    /// # Errors
    ///
    /// See [`TowerError`].
    pub async fn add_open(
        &self,
        user: PublicKey,
        appointment: &AppointmentBody,
    ) -> Result<Account, TowerError> {
        let tag = ChannelTag(appointment.locator.0);
        if self.parts.guard.penalty(&user, tag).is_some() {
            return Err(AddError::Conflict { channel: tag, sequence: 0 }.into());
        }
        let blob = StoredBlob::Open {
            to_self_delay: appointment.to_self_delay,
            blob: appointment.encrypted_blob.clone(),
        };
        let entry =
            Entry { channel: tag, sequence: 0, locator: appointment.locator, blob: blob.encode() };
        let (ledger, best) = (&self.parts.ledger, self.parts.guard.height());
        let added = match ledger.add(user, std::slice::from_ref(&entry), best) {
            Err(AddError::Conflict { .. }) => ledger.replace(user, &entry, best)?,
            added => added?,
        };
        self.parts.committer.durable(added.ticket).await?;
        // Its commitment may be there already.
        self.parts.guard.added(std::iter::once(appointment.locator));
        Ok(added.account)
    }

    /// Where the appointment of `user` under `locator` stands.
    ///
    /// # Errors
    ///
    /// [`TowerError::Store`].
    pub fn open_status(&self, user: PublicKey, locator: Locator) -> Result<OpenStatus, TowerError> {
        if let Some((dispute_txid, penalty)) =
            self.parts.guard.penalty(&user, ChannelTag(locator.0))
        {
            return Ok(OpenStatus::Responded { dispute_txid, penalty });
        }
        for stored in self.parts.ledger.find(&locator)? {
            if stored.client != user {
                continue;
            }
            if let Ok(StoredBlob::Open { to_self_delay, blob }) = StoredBlob::decode(&stored.blob) {
                let encrypted_blob = blob;
                let body = AppointmentBody { locator, encrypted_blob, to_self_delay };
                return Ok(OpenStatus::Watched(body));
            }
        }
        Ok(OpenStatus::Unknown)
    }
}
