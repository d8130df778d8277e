//! The way to a tower.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use channel_contracts::tower::{AppointmentReceipt, ChannelTag, Mode, RegistrationReceipt};

use crate::tower::server::{AddError, SignedAppointment, Tower, TowerError, WatchError};

/// What a tower takes and gives.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Its key.
    pub tower: PublicKey,
    /// Whether it takes remedies with secrets.
    pub takes_trusted: bool,
}

/// A subscription, signed for.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What the tower promises.
    pub receipt: RegistrationReceipt,
    /// Its word for it.
    pub signature: Signature,
}

/// Why a tower did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkFailure {
    /// It cannot be reached, or does not answer in time: worth another try.
    #[error("tower cannot be reached: {0}")]
    Unreachable(String),
    /// The subscription is over or full, or the client is not known: register, then try again.
    #[error("tower wants a subscription: {0}")]
    Subscription(String),
    /// It has another appointment of this client in that place.
    #[error("tower has another one: {0}")]
    Conflict(String),
    /// It will not take this, now or later.
    #[error("tower refuses: {0}")]
    Refused(String),
}

/// A tower, as a client sees it.
#[async_trait]
pub trait TowerLink: Send + Sync {
    /// What it takes and gives.
    async fn terms(&self) -> Result<Terms, LinkFailure>;
    /// Subscribes `client`, or prolongs its subscription.
    async fn register(&self, client: PublicKey) -> Result<Registration, LinkFailure>;
    /// Hands over appointments: all are taken, or none.
    async fn add(
        &self,
        client: PublicKey,
        appointments: Vec<SignedAppointment>,
    ) -> Result<Vec<(AppointmentReceipt, Signature)>, LinkFailure>;
    /// Asks to have a path published when its time comes. Returns the tower's word for it.
    async fn watch(
        &self,
        client: PublicKey,
        encoded: Vec<u8>,
        signature: Signature,
    ) -> Result<Signature, LinkFailure>;
    /// Says that the path to `funding` need not be published.
    async fn unwatch(
        &self,
        client: PublicKey,
        funding: OutPoint,
        signature: Signature,
    ) -> Result<(), LinkFailure>;
    /// Says that a channel is closed.
    async fn forget(
        &self,
        client: PublicKey,
        channel: ChannelTag,
        signature: Signature,
    ) -> Result<(), LinkFailure>;
}

/// Finds the way to towers.
pub trait TowerLinks: Send + Sync + 'static {
    /// The way to the tower with key `tower` at `address`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the address.
    fn link(&self, tower: PublicKey, address: &str) -> Result<Arc<dyn TowerLink>, String>;
}

/// A tower in this very process.
#[async_trait]
impl TowerLink for Tower {
    async fn terms(&self) -> Result<Terms, LinkFailure> {
        Ok(Terms { tower: self.key(), takes_trusted: self.takes(Mode::Trusted) })
    }

    async fn register(&self, client: PublicKey) -> Result<Registration, LinkFailure> {
        let (_, receipt, signature) = Tower::register(self, client).await?;
        Ok(Registration { receipt, signature })
    }

    async fn add(
        &self,
        client: PublicKey,
        appointments: Vec<SignedAppointment>,
    ) -> Result<Vec<(AppointmentReceipt, Signature)>, LinkFailure> {
        Ok(Tower::add(self, client, appointments).await?)
    }

    async fn watch(
        &self,
        client: PublicKey,
        encoded: Vec<u8>,
        signature: Signature,
    ) -> Result<Signature, LinkFailure> {
        Ok(self.watch_path(client, &encoded, &signature).await?)
    }

    async fn unwatch(
        &self,
        client: PublicKey,
        funding: OutPoint,
        signature: Signature,
    ) -> Result<(), LinkFailure> {
        self.unwatch_path(client, funding, &signature).await?;
        Ok(())
    }

    async fn forget(
        &self,
        client: PublicKey,
        channel: ChannelTag,
        signature: Signature,
    ) -> Result<(), LinkFailure> {
        self.remove_channel(client, channel, &signature).await?;
        Ok(())
    }
}

impl From<TowerError> for LinkFailure {
    fn from(error: TowerError) -> Self {
        if error.wants_subscription() {
            return Self::Subscription(error.to_string());
        }
        match error {
            TowerError::Store(error) => Self::Unreachable(error.to_string()),
            // Of a path, only what can never become right is final.
            TowerError::Watch(WatchError::Chain(_) | WatchError::Store(_)) => {
                Self::Unreachable(error.to_string())
            }
            error @ TowerError::Add(AddError::Conflict { .. }) => Self::Conflict(error.to_string()),
            error => Self::Refused(error.to_string()),
        }
    }
}
