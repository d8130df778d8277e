//! When a user hands its tree key over: by itself once its channel is retired and empty, or
//! because a caller asks for it; never in another state.

use bitcoin::Amount;
use channel_contracts::batch::user::{UserInput, UserRejection};
use channel_contracts::batch::{LeafState, RegistrationId, UserPhase};

use crate::batches::Parts;
use crate::batches::service::{Batches, Input, State};
use crate::batches::user::UserLife;
use crate::store::StoreError;

/// What a closing transaction has no output for: LDK leaves out whatever is not above its dust
/// limit.
const CLOSING_DUST_SAT: u64 = 354;

/// Why a key is not handed over. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// There is no such wish.
    #[error("this node joined no batch as {registration}")]
    Unknown {
        /// What was named.
        registration: RegistrationId,
    },
    /// The key still guards something.
    #[error(
        "the channel is {phase:?}, its closing transaction pays {closing_balance} and it has {htlcs} HTLCs; only the key of a channel that both sides closed empty is handed over"
    )]
    NotReleasable {
        /// Where the channel stands.
        phase: UserPhase,
        /// What the closing transaction pays to this node; all of the channel where that is not
        /// known.
        closing_balance: Amount,
        /// HTLCs that are still watched.
        htlcs: usize,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a closed channel still gives its user.
struct Figures {
    closing_balance: Amount,
    htlcs: usize,
}

impl Batches {
    /// Hands the tree key of a retired, empty channel to the hub, who can take its capital back
    /// at once. The node does so by itself; this repeats it, and says why it does not.
    ///
    /// # Errors
    ///
    /// See [`ReleaseError`].
    pub async fn release(&self, registration: RegistrationId) -> Result<(), ReleaseError> {
        let mut state = self.state.lock().await;
        let life = state.user.get(&registration).ok_or(ReleaseError::Unknown { registration })?;
        let Figures { closing_balance, htlcs } = figures(&self.parts, life);
        let input = UserInput::ReleaseRequested { closing_balance, htlcs };
        // The machine has the last word; asked first, since a turn only logs what it refuses.
        if let Err(UserRejection::NotReleasable { .. }) =
            life.machine.decide(input.clone(), self.parts.now())
        {
            let phase = life.machine.phase();
            return Err(ReleaseError::NotReleasable { phase, closing_balance, htlcs });
        }
        Ok(self.turn(&mut state, vec![Input::User(registration, input)]).await?)
    }

    /// The keys that are to be handed over by themselves.
    pub(in crate::batches) fn due_releases(&self, state: &State) -> Vec<Input> {
        let retired = state.user.iter().filter(|(_, life)| {
            life.machine.phase() == UserPhase::Leaf(LeafState::Retired) && !life.machine.released()
        });
        let due = retired.filter_map(|(id, life)| {
            let Figures { closing_balance, htlcs } = figures(&self.parts, life);
            let is_empty = closing_balance == Amount::ZERO && htlcs == 0;
            let input = UserInput::ReleaseRequested { closing_balance, htlcs };
            is_empty.then_some(Input::User(*id, input))
        });
        due.collect()
    }
}

fn figures(parts: &Parts, life: &UserLife) -> Figures {
    let record = life.channel.and_then(|channel| parts.channels.recorded(channel));
    let balance_msat = record.as_ref().and_then(|record| record.final_balance_msat);
    let channel_id = record.and_then(|record| record.channel_id);
    Figures {
        closing_balance: balance_msat.map_or(life.machine.request().capacity, closing_balance),
        htlcs: channel_id.map_or(0, |id| parts.lightning.watched_htlcs(id)),
    }
}

/// What a closing transaction pays to a side with `balance_msat`.
///
/// Nothing if that is dust: both sides have signed that it goes to the fee, and no key brings it
/// back. Above it a started satoshi counts, so that nothing is rounded away.
fn closing_balance(balance_msat: u64) -> Amount {
    match balance_msat / 1_000 {
        0..=CLOSING_DUST_SAT => Amount::ZERO,
        _ => Amount::from_sat(balance_msat.div_ceil(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_closing_transaction_cannot_pay_counts_as_nothing() {
        let table = [
            (0, 0),
            (1, 0),
            (354_000, 0),
            (354_999, 0),
            (355_000, 355),
            (355_001, 356),
            (1_000_000, 1_000),
            (u64::MAX, u64::MAX / 1_000 + 1),
        ];
        for (balance_msat, sat) in table {
            assert_eq!(closing_balance(balance_msat), Amount::from_sat(sat), "{balance_msat}");
        }
    }
}
