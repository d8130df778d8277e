//! How a user leaves a batch: its path goes onto the chain, its channel stays open.

use bitcoin::OutPoint;
use channel_contracts::batch::{LeafState, UserInput, UserPhase};

use super::service::{Batches, Input};
use crate::store::StoreError;

/// Why a user does not leave. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub enum ExitError {
    /// There is no such channel.
    #[error("{funding} funds no channel of a batch that this node joined as a user")]
    Unknown {
        /// The funding outpoint.
        funding: OutPoint,
    },
    /// There is nothing to leave: not yet, or no longer.
    #[error("the channel is {phase:?}; only one of a confirmed batch can leave it")]
    NotConfirmed {
        /// Where it stands.
        phase: UserPhase,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Batches {
    /// Brings the path to the channel funded by `funding` onto the chain, one transaction a
    /// block. Returns once that is durable; a repetition changes nothing. Nothing is closed: the
    /// channel goes on as an ordinary one. What becomes of it is shown by
    /// [`Unroller::unrolls`](crate::unroll::Unroller::unrolls).
    ///
    /// # Errors
    ///
    /// See [`ExitError`].
    pub async fn exit(&self, funding: OutPoint) -> Result<(), ExitError> {
        let mut state = self.state.lock().await;
        let mut lives = state.user.iter();
        let (id, life) = lives
            .find(|(_, life)| life.funding() == Some(funding))
            .ok_or(ExitError::Unknown { funding })?;
        let (id, phase) = (*id, life.machine.phase());
        if !matches!(phase, UserPhase::Leaf(LeafState::Confirmed { .. })) {
            return Err(ExitError::NotConfirmed { phase });
        }
        Ok(self.turn(&mut state, vec![Input::User(id, UserInput::UnrollRequested)]).await?)
    }
}
