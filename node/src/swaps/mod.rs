//! Withdrawals and deposits: a payment over a channel of a batch against an output on chain.
//!
//! The machines of [`channel_contracts::swap`] decide; this room shows them what there is to see
//! (the payment's record, what blocks say of the output, what the other side said), writes down
//! what they decide, and does what their phase asks for. Whatever a phase asks for can be done
//! again, so a restart needs no other way than the next look.
//!
//! - `service.rs`: the one loop. `requests.rs`: what callers ask for. `view.rs`: what they see.
//! - `withdrawal/`, `deposit/`: the two sides of each.
//! - `watch.rs`: outputs on chain. `spend.rs`: the transactions that spend them. `carrier.rs`: the
//!   one that pays all withdrawals which wait.
//! - `record.rs`: what the store has.
//!
//! Source: BATCHES §7.

mod carrier;
mod deposit;
mod policy;
mod record;
mod requests;
mod service;
mod spend;
mod view;
mod watch;
mod withdrawal;

use std::sync::Arc;

use bitcoin::Network;
use channel_contracts::batch::Message;

pub use crate::journal::{SwapKind, SwapState};
pub use policy::SwapPolicy;
pub use requests::{DepositRequest, SwapError, WithdrawRequest};
pub use service::Swaps;
pub use view::{SwapRole, SwapView};
pub use watch::SwapWatch;

use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::FeeEstimates;
use crate::chain::virtual_confirmation::VirtualConfirmations;
use crate::channels::Channels;
use crate::environment::{Clock, Entropy};
use crate::journal::Journal;
use crate::keys::BatchSecrets;
use crate::lightning::Lightning;
use crate::lightning::types::NodeId;
use crate::payments::Payments;
use crate::store::Committer;
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
    /// The Lightning half.
    pub payments: Arc<Payments>,
    /// Coins.
    pub wallet: Arc<Wallet>,
    /// Feerates.
    pub fees: FeeEstimates,
    /// The deadlines of channels of batches.
    pub confirmations: Arc<VirtualConfirmations>,
    /// What blocks say of outputs.
    pub watch: Arc<SwapWatch>,
    /// The way out.
    pub broadcasts: BroadcastQueue,
    /// Names.
    pub entropy: Arc<dyn Entropy>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Keys and preimages.
    pub secrets: BatchSecrets,
    /// The network.
    pub network: Network,
    /// What this node offers.
    pub policy: SwapPolicy,
}

impl Parts {
    fn send(&self, peer: NodeId, message: &Message) {
        self.lightning.batch_messages().send(peer, message);
    }
}
