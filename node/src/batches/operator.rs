//! What a hub's operator does by hand: opens and closes a batch, and changes what the next offers.

use channel_contracts::batch::hub::HubInput;
use channel_contracts::batch::{BatchId, HubPhase};

use super::service::{Batches, Input};
use super::view::{BatchView, batch_view};
use crate::config::{BatchConfig, InvalidConfig};
use crate::store::StoreError;

/// What is changed of a hub's offer; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferChange {
    /// Most users of a batch.
    pub users_max: Option<usize>,
    /// Milliseconds for which a batch gathers users.
    pub gathering_ms: Option<u64>,
    /// Smallest channel, satoshi.
    pub capacity_min_sat: Option<u64>,
    /// Largest channel, satoshi.
    pub capacity_max_sat: Option<u64>,
    /// What a place costs, satoshi.
    pub fee_sat: Option<u64>,
    /// Blocks from a batch's beginning to its expiry.
    pub life_blocks: Option<u32>,
}

/// Why an operator's wish is refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// It is no hub.
    #[error("this node is no hub of batches; set batch.role to \"hub\" or \"both\"")]
    NotHub,
    /// The chain is not followed yet.
    #[error("the chain is not followed yet; wait a moment")]
    NotSynced,
    /// Another batch gathers users.
    #[error("batch {0} gathers users already; close it first")]
    Gathering(BatchId),
    /// There is no such batch.
    #[error("there is no batch {0}")]
    Unknown(BatchId),
    /// It does not gather users.
    #[error("batch {batch} does not gather users: it is {phase:?}")]
    NotGathering {
        /// Which.
        batch: BatchId,
        /// Where it stands.
        phase: HubPhase,
    },
    /// A value is out of its range.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Batches {
    /// Opens a batch for users to register with, for `gathering_ms` or as long as the offer says.
    /// Without this the first user opens one.
    ///
    /// # Errors
    ///
    /// See [`OperatorError`].
    pub async fn open_by_hand(
        &self,
        gathering_ms: Option<u64>,
    ) -> Result<BatchView, OperatorError> {
        if !self.parts.policy.role.is_hub() {
            return Err(OperatorError::NotHub);
        }
        let mut offer = self.offer.lock().clone();
        offer.gathering_ms = gathering_ms.unwrap_or(offer.gathering_ms);
        offer.validate()?;
        let mut state = self.state.lock().await;
        if state.best == 0 {
            return Err(OperatorError::NotSynced);
        }
        if let Some(open) = state.gathers() {
            return Err(OperatorError::Gathering(open));
        }
        let id = self.open_batch(&mut state, gathering_ms);
        self.parts.committer.durable(self.parts.committer.now()).await?;
        self.changed();
        self.wake();
        state.hub.get(&id).map(batch_view).ok_or(OperatorError::Unknown(id))
    }

    /// The batch that gathers users, if one does.
    pub async fn gathering_batch(&self) -> Option<BatchView> {
        let state = self.state.lock().await;
        state.gathers().and_then(|id| state.hub.get(&id)).map(batch_view)
    }

    /// Waits for no more users: `batch` forms with those it has. One without users ends.
    ///
    /// # Errors
    ///
    /// See [`OperatorError`].
    pub async fn close_by_hand(&self, batch: BatchId) -> Result<BatchView, OperatorError> {
        let mut state = self.state.lock().await;
        let phase = state.hub.get(&batch).map(|life| life.machine.phase());
        match phase.ok_or(OperatorError::Unknown(batch))? {
            HubPhase::Gathering { .. } => {}
            phase => return Err(OperatorError::NotGathering { batch, phase }),
        }
        self.turn(&mut state, vec![Input::Hub(batch, HubInput::Close)]).await?;
        self.wake();
        state.hub.get(&batch).map(batch_view).ok_or(OperatorError::Unknown(batch))
    }

    /// What the next batch offers.
    pub fn offer(&self) -> BatchConfig {
        self.offer.lock().clone()
    }

    /// Changes what the next batch offers, until the node stops; the configuration says what it
    /// begins with.
    ///
    /// # Errors
    ///
    /// See [`OperatorError`].
    pub fn change_offer(&self, change: &OfferChange) -> Result<BatchConfig, OperatorError> {
        if !self.parts.policy.role.is_hub() {
            return Err(OperatorError::NotHub);
        }
        let mut offer = self.offer.lock();
        let mut next = offer.clone();
        next.users_max = change.users_max.unwrap_or(next.users_max);
        next.gathering_ms = change.gathering_ms.unwrap_or(next.gathering_ms);
        next.capacity_min_sat = change.capacity_min_sat.unwrap_or(next.capacity_min_sat);
        next.capacity_max_sat = change.capacity_max_sat.unwrap_or(next.capacity_max_sat);
        next.fee_sat = change.fee_sat.unwrap_or(next.fee_sat);
        next.life_blocks = change.life_blocks.unwrap_or(next.life_blocks);
        next.validate()?;
        tracing::info!(?change, "offer of the next batch is changed");
        *offer = next.clone();
        Ok(next)
    }
}
