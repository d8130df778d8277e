//! How a user leaves a batch: its path goes onto the chain, its channel stays open.

use channel_contracts::batch::{LeafState, RegistrationId, UserInput, UserPhase};

use super::service::{Batches, Input, State};
use super::view::{JoinView, join_view};
use crate::store::StoreError;

/// Why a user does not leave. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub enum ExitError {
    /// There is no such wish.
    #[error("there is no wish {0}")]
    Unknown(RegistrationId),
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
    /// Brings the path to the channel of a wish onto the chain, one transaction a block. Returns
    /// once that is durable; a repetition changes nothing. Nothing is closed: the channel goes on
    /// as an ordinary one. What becomes of it is in [`JoinView::unroll`].
    ///
    /// # Errors
    ///
    /// See [`ExitError`].
    pub async fn exit(&self, registration: RegistrationId) -> Result<JoinView, ExitError> {
        let mut state = self.state.lock().await;
        let phase = |state: &State| state.user.get(&registration).map(|life| life.machine.phase());
        match phase(&state).ok_or(ExitError::Unknown(registration))? {
            UserPhase::Leaf(LeafState::Confirmed { .. }) => {
                let asked = Input::User(registration, UserInput::UnrollRequested);
                self.turn(&mut state, vec![asked]).await?;
            }
            // It has left already.
            UserPhase::Leaf(LeafState::Unrolled) => {}
            phase => return Err(ExitError::NotConfirmed { phase }),
        }
        let view = state.user.get(&registration).map(|life| join_view(&self.parts, life));
        view.ok_or(ExitError::Unknown(registration))
    }
}
