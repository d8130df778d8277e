//! What a client leaves with a watchtower, and what both sign for it.
//!
//! - [`locator`]: [`Locator`], by which a tower recognises a breach, and [`ChannelTag`].
//! - [`seal`]: [`SealedBlob`], which only the breach itself opens.
//! - [`remedy`]: [`Remedy`], what is in it: presigned pairs, or the secret to sign any.
//! - [`appointment`]: [`Appointment`], one sealed remedy under its locator.
//! - [`policy`]: [`TowerPolicy`], what a tower takes and spends.
//! - [`receipt`]: what tower and client sign.
//! - [`batch_watch`]: [`BatchWatch`], the duty to publish a batch path before its deadline.
//! - [`open_protocol`]: the formats of the open tower protocol, for towers and clients of others.
//!
//! Two modes. A **blind** tower holds signatures made in advance; until a breach it learns
//! nothing of the channel, and never anything it could take more than fees with. A **trusted**
//! tower, one's own, holds the revocation secret of each state: it bumps without limit and also
//! takes what a cheater moved on to the second stage.
//!
//! Queues, storage, connections and the chain stay outside.
//!
//! Read first: [`justice`](crate::justice); DESIGN §6. What follows is `docs/watchtower.md`.
#![doc = ""]
#![doc = include_str!("../../docs/watchtower.md")]

pub mod appointment;
pub mod batch_watch;
pub mod locator;
pub mod open_protocol;
pub mod policy;
pub mod receipt;
pub mod remedy;
pub mod seal;

pub use appointment::Appointment;
pub use batch_watch::{BatchWatch, BatchWatchError, WatchKey};
pub use locator::{ChannelTag, Locator};
pub use policy::{FeeLevels, PolicyError, Refusal, TowerPolicy};
pub use receipt::{AppointmentReceipt, RegistrationReceipt};
pub use remedy::{BlindRemedy, FeeLevel, Remedy, RemedyError, TrustedRemedy};
pub use seal::{Mode, OpenError, SealedBlob};
