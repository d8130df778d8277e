//! The height from which a hub forwards nothing more into a batch (BATCHES §5.3).
//!
//! LDK has no word for it, and asking it about every single payment would cost a hub an event for
//! each. So the channel asks for more blocks than any payment has: senders find no route over it,
//! and what comes all the same is refused. Its user rolls over meanwhile, and is paid there.

use channel_contracts::batch::{BlockDelta, Deadlines, HubPhase};

use super::service::{Batches, State, height};

/// The `cltv_expiry_delta` that nobody pays.
const CLOSED_DELTA: u16 = u16::MAX;
/// A payment may live so long, as a share of its batch's life: 1,008 of 4,032 blocks, which is what
/// LDK lets a payment of its own take.
const LIFE_SHARE: u32 = 4;

impl Batches {
    /// Stops forwarding into the channels whose batch has too little life left.
    pub(super) fn stop_forwarding(&self, state: &State, best: u32) {
        let mut stopped = self.stopped.lock();
        for life in state.hub.values() {
            let HubPhase::Live { at } = life.machine.phase() else { continue };
            let expiry = life.machine.expiry();
            let Some(signed) = life.signed() else { continue };
            let Ok(deadlines) = Deadlines::new(expiry, signed.tree().shape().levels()) else {
                continue;
            };
            let lived = expiry.to_consensus_u32().saturating_sub(at.to_consensus_u32());
            if deadlines.may_forward(height(best), BlockDelta(lived / LIFE_SHARE)) {
                continue;
            }
            for channel in life.channels.values() {
                if stopped.contains(channel) {
                    continue;
                }
                // One that is not usable now is looked at again with the next block.
                let live = self.parts.channels.get(*channel).and_then(|view| {
                    Some((view.record.peer, view.live.filter(|live| !live.closing)?))
                });
                let Some((peer, live)) = live else { continue };
                let delta = Some(CLOSED_DELTA);
                match self.parts.lightning.update_policy(live.channel_id, peer, None, None, delta) {
                    Ok(()) => {
                        tracing::info!(%peer, %channel, "nothing more is forwarded into a batch that ends");
                        stopped.insert(*channel);
                    }
                    Err(error) => tracing::debug!(%channel, %error, "not told to stop forwarding"),
                }
            }
        }
    }
}
