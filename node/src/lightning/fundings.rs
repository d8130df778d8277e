//! Which channels' funding outputs are in the chain, asked when it matters.
//!
//! A peer may say, truly or not, that it does not know a channel whose funding transaction never
//! came to be. LDK closes such a channel by force and asks at once for a fee bump: coins of ours
//! would be tied to a commitment that spends nothing. So the funding output is looked up first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bitcoin::OutPoint;
use lightning::events::bump_transaction::BumpTransactionEvent;
use parking_lot::Mutex;

use super::build::ChainMonitor;
use crate::chain::ChainSource;
use crate::runtime::Tasks;

/// Looks funding outputs up in the chain source.
pub(super) struct Fundings {
    chain: Arc<dyn ChainSource>,
    chain_monitor: Arc<ChainMonitor>,
    tasks: Tasks,
    known: Arc<Mutex<HashMap<OutPoint, Known>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is being looked up.
    Asked,
    /// It is, or was, an unspent output of a block.
    Confirmed,
}

impl Fundings {
    /// Looks up in `chain`, on `tasks`; `chain_monitor` offers again what had to wait.
    pub(super) fn new(
        chain: Arc<dyn ChainSource>,
        chain_monitor: Arc<ChainMonitor>,
        tasks: Tasks,
    ) -> Self {
        Self { chain, chain_monitor, tasks, known: Arc::default() }
    }

    /// Whether what `bump` is for has something to spend. If that is not known yet, LDK asks for
    /// the bump again as soon as it is; if it has nothing, with the next block.
    pub(super) fn has_input(&self, bump: &BumpTransactionEvent) -> bool {
        let BumpTransactionEvent::ChannelClose { commitment_tx, channel_id, .. } = bump else {
            // HTLCs of a commitment that is in a block.
            return true;
        };
        let Some(funding) = commitment_tx.input.first().map(|input| input.previous_output) else {
            return false;
        };
        match self.known.lock().entry(funding) {
            Entry::Occupied(known) => return *known.get() == Known::Confirmed,
            Entry::Vacant(unknown) => unknown.insert(Known::Asked),
        };
        let (chain, known) = (Arc::clone(&self.chain), Arc::clone(&self.known));
        let (chain_monitor, channel_id) = (Arc::clone(&self.chain_monitor), *channel_id);
        self.tasks.spawn("funding look-up", async move {
            if let Ok(Some(_)) = chain.unspent_output(funding).await {
                known.lock().insert(funding, Known::Confirmed);
                chain_monitor.rebroadcast_pending_claims();
            } else {
                tracing::info!(%channel_id, %funding, "no fee bump: the funding output is not in the chain");
                known.lock().remove(&funding);
            }
        });
        false
    }
}
