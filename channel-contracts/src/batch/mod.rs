//! How a batch forms, lives and ends: messages, deadlines, and one machine for each role.
//!
//! - [`message`] and [`wire`]: what both sides say, and its bytes.
//! - [`deadlines`]: heights by which something must have happened.
//! - [`leaf`]: the life of one channel's leaf.
//! - [`hub`]: the machine that gathers users, gets a tree signed, funds it and settles it.
//! - [`user`]: the machine of one channel in one batch.
//!
//! # The seam
//!
//! A machine decides *what may happen next and who is at fault*; it never holds a secret, draws
//! a number, aggregates a key or builds a transaction. Wherever the ceremony needs one of these,
//! an effect asks the shell ("propose", "take these nonces", "check these partials"), which runs
//! [`tree`](crate::tree) and [`musig`](crate::musig) and brings the result back as an input
//! ("the partial of this peer is wrong at level 2").
//!
//! So machine state can be logged, journaled and replayed: it has no secret in it, and a replay
//! cannot bring a nonce back. Sessions, whose nonces must die with the process, live in the
//! shell's memory under (batch, attempt) and nowhere else. And the machine is small enough to be
//! driven through every order of messages in a test, which the cryptography is not.
//!
//! # The shape
//!
//! `decide(&self, input, now)` is pure and returns events and effects, or a rejection that names
//! what was wrong and changes nothing. The shell makes the events durable, `apply`s them, then
//! runs the effects. `unfinished_effects` says what to run again after a restart. Effects are
//! idempotent by batch, attempt and peer.
//!
//! Source: BATCHES §3, §5, §6, §8.
#![doc = ""]
#![doc = include_str!("../../docs/batches.md")]

pub mod deadlines;
pub mod hub;
pub mod ids;
pub mod leaf;
pub mod message;
pub mod user;

pub mod wire;

pub use deadlines::{BlockDelta, DeadlineError, Deadlines, LegExpiries, PendingHtlc};
pub use hub::{HubBatch, HubEffect, HubEvent, HubInput, HubPhase, HubPolicy, HubRejection};
pub use ids::{Attempt, BatchId, Peer, RegistrationId, SwapId, Timestamp};
pub use leaf::{LeafError, LeafEvent, LeafState};
pub use message::{DeclineReason, DropReason, Message, RefuseReason};
pub use user::{UserBatch, UserEffect, UserEvent, UserInput, UserPhase, UserRejection};

/// What a machine answers to an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<Event, Effect> {
    /// What has happened, to be made durable and applied in this order.
    pub events: Vec<Event>,
    /// What is to be done then.
    pub effects: Vec<Effect>,
}

impl<Event, Effect> Decision<Event, Effect> {
    /// Returns the answer to an input that says nothing new.
    pub fn nothing() -> Self {
        Self { events: vec![], effects: vec![] }
    }

    pub(crate) fn new(events: Vec<Event>, effects: Vec<Effect>) -> Self {
        Self { events, effects }
    }

    /// One thing happened, and at most one is to be done.
    pub(crate) fn one(event: Event, effect: Option<Effect>) -> Self {
        Self { events: vec![event], effects: effect.into_iter().collect() }
    }
}
