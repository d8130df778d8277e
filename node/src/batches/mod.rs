//! Channel batches: a hub and its users form one, and each follows its part to the end.
//!
//! What may happen, and who is at fault, is decided by the machines of
//! [`channel_contracts::batch`]. This is their shell: it hears messages, LDK, blocks and the
//! clock, makes what was decided durable, and does what was asked.
//!
//! - `service.rs`: the one loop. `requests.rs`: what callers ask for. `view.rs`: what they see.
//!   `operator.rs`: what a hub's operator does by hand.
//! - `arrivals.rs`: who hears what peers say. `exit.rs`: how a user leaves. `closed.rs`: how a side
//!   learns that its channel is closed.
//! - `rollover/`: how a balance moves into a newer batch.
//! - `hub.rs`, `user.rs`: a machine of each role with its signing session (`round.rs`).
//! - `settlement/`: how a batch ends.
//! - `spread.rs`: when a batch expires, so that not too many do at once.
//! - `forwarding.rs`: when a hub forwards nothing more into a batch.
//! - `faults.rs`: who broke off, and how long it must wait.
//! - `record.rs`: what the store has of them.
//! - `policy.rs`: what a hub offers and a user accepts, from the configuration.
//!
//! Until a batch is funded nothing of it survives a restart on either side: nonces die with the
//! process, and LDK drops channels without funding. From the signed tree on, a hub's batch and a
//! user's path are durable before anybody is told.
//!
//! Source: BATCHES §3 to §5 and §8.

mod arrivals;
mod closed;
mod exit;
mod faults;
mod forwarding;
mod hub;
mod operator;
mod path_file;
mod phases;
mod policy;
mod record;
mod requests;
mod rollover;
mod round;
mod service;
mod settlement;
mod spread;
mod user;
mod view;

use std::sync::Arc;

use channel_contracts::batch::{Message, Peer, Timestamp};

pub use exit::ExitError;
pub use operator::{OfferChange, OperatorError};
pub use path_file::{PathFile, PathFileError, PathReport};
pub use phases::{PHASES, PhaseProbe, phase_name};
pub use policy::{BatchPolicy, BatchRole};
pub use requests::{JoinError, JoinRequest};
pub use service::Batches;
pub use settlement::{ReleaseError, SettlementView};
pub use view::{BatchView, JoinState, JoinView, LiveLeaf};

use crate::chain::ChainSource;
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::FeeEstimates;
use crate::chain::virtual_confirmation::VirtualConfirmations;
use crate::channels::Channels;
use crate::environment::{Clock, Entropy};
use crate::journal::Journal;
use crate::keys::BatchSecrets;
use crate::lightning::Lightning;
use crate::payments::Payments;
use crate::store::Committer;
use crate::swaps::Swaps;
use crate::unroll::Unroller;
use crate::wallet::Wallet;

/// What the service works with.
pub struct Parts {
    /// The store.
    pub committer: Committer,
    /// Durable events.
    pub journal: Journal,
    /// LDK.
    pub lightning: Arc<Lightning>,
    /// Records of channels.
    pub channels: Arc<Channels>,
    /// What moves balances.
    pub payments: Arc<Payments>,
    /// The hub's coins.
    pub wallet: Arc<Wallet>,
    /// Feerates.
    pub fees: FeeEstimates,
    /// What LDK sees of batches.
    pub confirmations: Arc<VirtualConfirmations>,
    /// The chain.
    pub chain: Arc<dyn ChainSource>,
    /// The way out for batch transactions.
    pub broadcasts: BroadcastQueue,
    /// The way onto the chain for paths.
    pub unroller: Arc<Unroller>,
    /// Withdrawals and deposits, whose messages come with those of batches.
    pub swaps: Arc<Swaps>,
    /// Nonces and names.
    pub entropy: Arc<dyn Entropy>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Keys of trees.
    pub secrets: BatchSecrets,
    /// What this node offers and accepts.
    pub policy: BatchPolicy,
}

impl Parts {
    fn now(&self) -> Timestamp {
        Timestamp(crate::journal::millis(self.clock.now()))
    }

    fn send(&self, peer: Peer, message: &Message) {
        self.lightning.batch_messages().send(peer.0, message);
    }
}
