//! The life of one channel's leaf, as both sides follow it.
//!
//! ```text
//! proposed ─► signed ─► funded ─► confirmed ─► retired ─► dead
//!     └─────────┴─────────┼─► abandoned │ ▲        │
//!                         │             └─┼─► unrolled ◄┘
//!                         └─► dropped ────┘
//! ```
//!
//! `confirmed` is virtual: the batch transaction is in a block, the leaf is not. A reorg takes
//! a leaf back to `funded`. `unrolled` means that the funding transaction itself is on chain and
//! the channel has become an ordinary one; no deadline of the batch concerns it any more.
//! `dropped` is a user's: the hub says that the batch came to nothing. It could still publish it,
//! so the path is kept, and a root that is confirmed after all makes the leaf live.
//!
//! Source: BATCHES §8, "Life of a leaf".

use bitcoin::absolute;

/// Blocks that must lie on the hub's spend of an ancestor before a leaf is dead (§8.5).
pub const DEATH_DEPTH: u32 = 100;

/// Where a leaf stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum LeafState {
    /// Its path is proposed, not signed.
    Proposed,
    /// Its path is signed, verified and stored.
    Signed,
    /// Commitments of both sides exist on its outpoint.
    Funded,
    /// The batch transaction is in the block at this height.
    Confirmed {
        /// The height of that block.
        at: absolute::Height,
    },
    /// The channel is closed cooperatively; the closing transaction is parked.
    Retired,
    /// The hub has spent an ancestor, deep enough to be final.
    Dead,
    /// The funding transaction is on chain.
    Unrolled,
    /// The batch did not come about.
    Abandoned,
    /// The batch did not come about, as the hub says; its path is kept in case it does.
    Dropped,
}

/// What happens to a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeafEvent {
    /// The signed path is stored.
    PathStored,
    /// Commitments of both sides exist.
    CommitmentsExchanged,
    /// The batch transaction is in the block at this height.
    RootConfirmed(absolute::Height),
    /// That block is gone.
    RootDisconnected,
    /// The channel is closed cooperatively and empty.
    ChannelClosed,
    /// The funding transaction is in a block.
    LeafConfirmed,
    /// The hub's spend of an ancestor has so many confirmations.
    AncestorSpent {
        /// Confirmations: 1 in the block that contains it.
        confirmations: u32,
    },
    /// The attempt or the batch is over before it was confirmed.
    Abandoned,
    /// The hub says that the batch came to nothing.
    Dropped,
}

/// Why an event cannot happen to a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a leaf that is {state:?} cannot meet {event:?}")]
pub struct LeafError {
    /// Where it stands.
    pub state: LeafState,
    /// What was said to happen.
    pub event: LeafEvent,
}

impl LeafState {
    /// Returns where the leaf stands after `event`. A repeated event changes nothing.
    ///
    /// # Errors
    ///
    /// [`LeafError`] if the event cannot happen here.
    pub fn after(self, event: LeafEvent) -> Result<Self, LeafError> {
        Ok(match (self, event) {
            (Self::Proposed | Self::Signed, LeafEvent::PathStored) => Self::Signed,
            (Self::Signed | Self::Funded, LeafEvent::CommitmentsExchanged) => Self::Funded,
            // A user whose path is stored sees the root before the last message of its channel,
            // never before its path is stored (§4.4).
            (
                Self::Funded | Self::Dropped | Self::Confirmed { .. },
                LeafEvent::RootConfirmed(at),
            ) => Self::Confirmed { at },
            (Self::Confirmed { .. } | Self::Funded, LeafEvent::RootDisconnected) => Self::Funded,
            (Self::Confirmed { .. } | Self::Retired, LeafEvent::ChannelClosed) => Self::Retired,
            (Self::Confirmed { .. } | Self::Retired | Self::Unrolled, LeafEvent::LeafConfirmed) => {
                Self::Unrolled
            }
            (
                Self::Confirmed { .. } | Self::Retired | Self::Dead,
                LeafEvent::AncestorSpent { confirmations },
            ) => {
                if confirmations >= DEATH_DEPTH {
                    Self::Dead
                } else {
                    self
                }
            }
            (
                Self::Proposed | Self::Signed | Self::Funded | Self::Dropped | Self::Abandoned,
                LeafEvent::Abandoned,
            ) => Self::Abandoned,
            (Self::Funded | Self::Dropped, LeafEvent::Dropped) => Self::Dropped,
            (state, event) => return Err(LeafError { state, event }),
        })
    }

    /// Tells whether the channel can be used: its batch transaction has `minimum_depth`
    /// confirmations at `best`.
    pub fn is_usable(self, best: absolute::Height, minimum_depth: u32) -> bool {
        match self {
            Self::Confirmed { at } => {
                let depth = best.to_consensus_u32().saturating_sub(at.to_consensus_u32());
                best >= at && depth.saturating_add(1) >= minimum_depth
            }
            _ => false,
        }
    }

    /// Tells whether the user must still watch the batch's deadline.
    pub fn needs_exit_by_deadline(self) -> bool {
        matches!(self, Self::Funded | Self::Dropped | Self::Confirmed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(height: u32) -> absolute::Height {
        absolute::Height::from_consensus(height).unwrap()
    }

    const EVENTS: [LeafEvent; 9] = [
        LeafEvent::PathStored,
        LeafEvent::CommitmentsExchanged,
        LeafEvent::RootConfirmed(absolute::Height::ZERO),
        LeafEvent::RootDisconnected,
        LeafEvent::ChannelClosed,
        LeafEvent::LeafConfirmed,
        LeafEvent::AncestorSpent { confirmations: DEATH_DEPTH },
        LeafEvent::Abandoned,
        LeafEvent::Dropped,
    ];

    #[test]
    fn a_life_runs_from_proposed_to_dead() {
        let mut state = LeafState::Proposed;
        for event in [
            LeafEvent::PathStored,
            LeafEvent::CommitmentsExchanged,
            LeafEvent::RootConfirmed(at(700)),
            LeafEvent::ChannelClosed,
            LeafEvent::AncestorSpent { confirmations: 99 },
        ] {
            state = state.after(event).unwrap();
            // Told twice, nothing changes.
            assert_eq!(state.after(event), Ok(state));
        }
        assert_eq!(state, LeafState::Retired);
        let last = LeafEvent::AncestorSpent { confirmations: 100 };
        assert_eq!(state.after(last), Ok(LeafState::Dead));
    }

    #[test]
    fn unrolled_is_reached_from_confirmed_and_retired_only_and_is_final() {
        for state in [LeafState::Confirmed { at: at(1) }, LeafState::Retired] {
            assert_eq!(state.after(LeafEvent::LeafConfirmed), Ok(LeafState::Unrolled));
        }
        for state in [
            LeafState::Proposed,
            LeafState::Signed,
            LeafState::Funded,
            LeafState::Dropped,
            LeafState::Dead,
        ] {
            assert!(state.after(LeafEvent::LeafConfirmed).is_err());
        }
        for state in [LeafState::Unrolled, LeafState::Dead, LeafState::Abandoned] {
            for event in EVENTS {
                assert!(state.after(event).is_err() || state.after(event) == Ok(state));
            }
        }
    }

    #[test]
    fn nothing_is_confirmed_without_a_stored_path_and_commitments() {
        let confirmed = LeafEvent::RootConfirmed(at(1));
        for state in [LeafState::Proposed, LeafState::Signed, LeafState::Abandoned] {
            assert_eq!(state.after(confirmed), Err(LeafError { state, event: confirmed }));
        }
    }

    #[test]
    fn the_word_of_the_hub_ends_no_leaf_that_the_chain_may_still_confirm() {
        let state = LeafState::Funded.after(LeafEvent::Dropped).unwrap();
        assert_eq!(state, LeafState::Dropped);
        assert_eq!(state.after(LeafEvent::Dropped), Ok(state));
        assert!(state.needs_exit_by_deadline() && !state.is_usable(at(800), 0));
        let confirmed = LeafState::Confirmed { at: at(700) };
        assert_eq!(state.after(LeafEvent::RootConfirmed(at(700))), Ok(confirmed));
        assert_eq!(state.after(LeafEvent::Abandoned), Ok(LeafState::Abandoned));
        for state in [LeafState::Proposed, LeafState::Signed, confirmed, LeafState::Retired] {
            assert!(state.after(LeafEvent::Dropped).is_err());
        }
    }

    #[test]
    fn a_reorg_takes_a_leaf_back_and_a_new_block_gives_it_another_height() {
        let state = LeafState::Confirmed { at: at(700) };
        let back = state.after(LeafEvent::RootDisconnected).unwrap();
        assert_eq!(back, LeafState::Funded);
        assert!(back.needs_exit_by_deadline());
        let again = back.after(LeafEvent::RootConfirmed(at(702))).unwrap();
        assert!(!again.is_usable(at(703), 3) && again.is_usable(at(704), 3));
        assert!(!again.is_usable(at(701), 0));
    }
}
