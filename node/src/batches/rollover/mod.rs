//! Rollover: a user's balance moves from its channel in one batch to that in a newer one.
//!
//! No payment in a circle does it, since LDK picks the channel; so two payments of one hop share
//! one hash. The user makes an invoice (leg 2) and shows it to the hub; the hub makes an invoice
//! of the same hash (leg 1), which it can only hold. The user pays leg 1 over the old channel;
//! the hub holds that and pays leg 2 over the new one, and the preimage it learns takes leg 1. If
//! leg 2 fails, leg 1 goes back. Neither side can lose: what the hub gives, it is owed already
//! and claims with what it is told for it.
//!
//! Both legs are ordinary payments of the payments service, with its records and its answers to
//! crashes. What is added here says which belong together, and is durable before either is begun:
//!
//! - `plan.rs`: what is next, decided without looking at anything; `place.rs`: what the new place
//!   costs.
//! - `user.rs`: joins the newer batch, moves the balance until nothing is left, closes the old
//!   channel. `hub.rs`: the two legs.
//! - `record.rs`: what the store has of it.
//!
//! Source: BATCHES §6.

mod hub;
mod place;
mod plan;
mod record;
mod user;

use std::collections::BTreeMap;

use channel_contracts::batch::{BatchId, Message, RegistrationId};

pub(super) use record::load;
use record::{Leg, Rollover};

use super::service::{Batches, State};
use crate::lightning::types::{NodeId, PaymentHash};
use crate::store::StoreError;

/// What is on the move, of both roles.
#[derive(Default)]
pub(super) struct Rollovers {
    /// By the wish that is left.
    user: BTreeMap<RegistrationId, Rollover>,
    /// By hash.
    hub: BTreeMap<PaymentHash, Leg>,
    /// What users have paid a hub for their places, msat.
    paid: BTreeMap<BatchId, BTreeMap<NodeId, u64>>,
    /// What peers said since the last step.
    heard: Vec<(NodeId, Message)>,
}

impl Rollovers {
    /// Whether anything is on the move.
    pub fn is_idle(&self) -> bool {
        self.user.is_empty() && self.hub.is_empty() && self.heard.is_empty()
    }

    /// Takes a message that is about a rollover.
    pub fn hear(&mut self, from: NodeId, message: Message) {
        self.heard.push((from, message));
    }
}

impl Batches {
    /// Does what is next for everything that is on the move.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(super) async fn roll_over(&self, state: &mut State) -> Result<(), StoreError> {
        for (from, message) in std::mem::take(&mut state.rollovers.heard) {
            match message {
                Message::Roll(roll) => self.answer_roll(state, from, &roll).await?,
                Message::Rolling(rolling) => self.hear_rolling(state, from, &rolling)?,
                Message::Stay(stay) => self.hear_stay(state, from, &stay)?,
                _ => {}
            }
        }
        let hashes: Vec<PaymentHash> = state.rollovers.hub.keys().copied().collect();
        for hash in hashes {
            self.go_on_with_leg(state, hash).await?;
        }
        let wishes: Vec<RegistrationId> = state.rollovers.user.keys().copied().collect();
        for wish in wishes {
            self.go_on_with_rollover(state, wish).await?;
        }
        Ok(())
    }
}
