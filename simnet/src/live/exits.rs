//! Users who leave their batches at once: path, commitment, claim.
//!
//! Who leaves is drawn as in the model, and as there nobody leaves whose exit costs more than its
//! balance.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use channel_contracts::batch::{LeafState, RegistrationId, UserPhase};
use node::batches::{Batches, ExitError, JoinView};
use node::channels::{ChannelState, Channels};
use node::lightning::types::ChannelRef;
use node::runtime::Tasks;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::hosts::Hosts;
use crate::random::Random;
use crate::topology::Node;

/// Randomness of who leaves: the model's.
const FAULTS: u64 = 1 << 20;
/// How often somebody looks how far an exit is.
const LOOK: Duration = Duration::from_secs(1);

/// Exits of a run. Clones share them.
#[derive(Clone)]
pub struct Exits {
    hosts: Hosts,
    tasks: Tasks,
    counts: Arc<Mutex<ExitCounts>>,
}

/// What became of exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitCounts {
    /// Under way.
    pub under_way: u64,
    /// The money is in the wallet, or on its way there without the batch.
    pub done: u64,
    /// Not begun: it would cost more than there is.
    pub not_worth: u64,
    /// Begun, and the hub took the output first.
    pub late: u64,
}

/// Where a user's exit stands.
enum Step {
    Wait,
    Done,
    Late,
}

impl Exits {
    /// Exits of users of `hosts`.
    pub fn new(hosts: Hosts) -> Self {
        Self { hosts, tasks: Tasks::new(), counts: Arc::default() }
    }

    /// How many there are.
    pub fn counts(&self) -> ExitCounts {
        *self.counts.lock()
    }

    /// Lets a share of `users` leave. `fault` is the place of the fault in the scenario.
    pub fn begin(&self, users: &[Node], share_ppm: u32, seed: u64, fault: usize) {
        let mut random = Random::stream(seed, FAULTS + fault as u64);
        for user in users {
            if random.below(1_000_000) < u64::from(share_ppm) {
                self.counts.lock().under_way += 1;
                let (this, user) = (self.clone(), *user);
                self.tasks.spawn("exit", async move { this.leave(user).await });
            }
        }
    }

    async fn leave(&self, user: Node) {
        let wishes = loop {
            // Who is away leaves when it is back.
            match self.batches(user) {
                Some(service) => break live(&service).await,
                None => sleep(LOOK).await,
            }
        };
        let mut leaving = Vec::new();
        for wish in wishes {
            if self.is_worth(user, &wish) {
                leaving.push(wish.registration);
            } else {
                self.counts.lock().not_worth += 1;
            }
        }
        for registration in leaving {
            let is_late = loop {
                match self.step(user, registration).await {
                    Step::Wait => sleep(LOOK).await,
                    Step::Done => break false,
                    Step::Late => break true,
                }
            };
            let mut counts = self.counts.lock();
            counts.done += u64::from(!is_late);
            counts.late += u64::from(is_late);
        }
        self.counts.lock().under_way -= 1;
    }

    fn batches(&self, user: Node) -> Option<Arc<Batches>> {
        self.hosts.ask(user, |node| Arc::clone(&node.batches))
    }

    /// The model's question: whether what is the user's is above what leaving costs now.
    fn is_worth(&self, user: Node, wish: &JoinView) -> bool {
        let look = |node: &node::node::Node| {
            let channels = node.lightning.channels();
            let own = channels.iter().find(|channel| Some(channel.channel) == wish.channel);
            (own.map_or(0, |channel| channel.local_msat / 1_000), node.batches.urgent_feerate())
        };
        let Some((local_sat, feerate)) = self.hosts.ask(user, look) else { return true };
        wish.exit.as_ref().is_none_or(|exit| exit.is_worth(Amount::from_sat(local_sat), feerate))
    }

    /// Does what is next. A node that starts again may have forgotten what it was not told
    /// durably; so everything is asked for until it is there.
    async fn step(&self, user: Node, registration: RegistrationId) -> Step {
        let services =
            |node: &node::node::Node| (Arc::clone(&node.batches), Arc::clone(&node.channels));
        let Some((batches, channels)) = self.hosts.ask(user, services) else { return Step::Wait };
        let Some(wish) = batches.get(registration).await else { return Step::Wait };
        match wish.state {
            UserPhase::Leaf(LeafState::Confirmed { .. }) => {
                if let Err(ExitError::Unknown(_)) = batches.exit(registration).await {
                    return Step::Late;
                }
                Step::Wait
            }
            UserPhase::Leaf(LeafState::Unrolled) => match wish.channel {
                Some(channel) => close(&channels, channel).await,
                None => Step::Wait,
            },
            // Empty, and the hub's.
            UserPhase::Leaf(LeafState::Retired) => Step::Done,
            UserPhase::Leaf(LeafState::Dead) => Step::Late,
            _ => Step::Wait,
        }
    }
}

/// The wishes of a user whose channels are in batches.
async fn live(service: &Batches) -> Vec<JoinView> {
    let is_live =
        |wish: &JoinView| matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. }));
    service.joins().await.into_iter().filter(is_live).collect()
}

/// Closes a channel whose funding output is on chain alone.
async fn close(channels: &Channels, channel: ChannelRef) -> Step {
    let state = channels.recorded(channel).map(|record| record.state);
    if matches!(state, None | Some(ChannelState::Closed)) {
        return Step::Done;
    }
    // One that is on its way out already refuses.
    let _asked_again_until_it_is_closed = channels.close(channel, true, None, None).await;
    Step::Wait
}
