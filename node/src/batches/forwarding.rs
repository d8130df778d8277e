//! The height from which a hub forwards nothing more into a batch (BATCHES §5.3).
//!
//! LDK has no word for it, and asking it about every single payment would cost a hub an event for
//! each. So the channel asks for more blocks than any payment has: senders find no route over it,
//! and what comes all the same is refused. Its user rolls over meanwhile, and is paid there. A
//! channel that has left its batch has no deadline: it is forwarded into like any other.

use std::collections::HashSet;

use channel_contracts::batch::{BlockDelta, Deadlines, HubPhase};

use super::hub::HubLife;
use super::service::{Batches, State, height};

/// The `cltv_expiry_delta` that nobody pays.
const CLOSED_DELTA: u16 = u16::MAX;
/// A payment may live so long, as a share of its batch's life: 1,008 of 4,032 blocks, which is what
/// LDK lets a payment of its own take.
const LIFE_SHARE: u32 = 4;

impl Batches {
    /// Stops forwarding into the channels whose batch has too little life left, and begins again
    /// with those that have left theirs.
    pub(super) fn limit_forwarding(&self, state: &State, best: u32) {
        if state.hub.is_empty() {
            return;
        }
        let ending = state.hub.values().filter(|life| is_ending(life, best));
        let ending: HashSet<_> = ending.flat_map(|life| life.channels.values()).collect();
        let lightning = &self.parts.lightning;
        for live in lightning.channels().into_iter().filter(|live| !live.closing) {
            let has_left = live.funding.is_some_and(|at| self.parts.confirmations.is_on_chain(at));
            let is_stopped = live.cltv_expiry_delta == u32::from(CLOSED_DELTA);
            let delta = match (has_left, is_stopped) {
                (false, false) if ending.contains(&live.channel) => CLOSED_DELTA,
                (true, true) => lightning.usual_cltv_expiry_delta(),
                _ => continue,
            };
            let (peer, channel) = (live.peer, live.channel);
            // What fails is tried again with the next block.
            match lightning.update_policy(live.channel_id, peer, None, None, Some(delta)) {
                Ok(()) if has_left => {
                    tracing::info!(%peer, %channel, "forwarded into again: it has left its batch");
                }
                Ok(()) => {
                    tracing::info!(%peer, %channel, "nothing more is forwarded into a batch that ends");
                }
                Err(error) => {
                    tracing::debug!(%channel, %error, "what is forwarded stays as it was")
                }
            }
        }
    }
}

/// Whether a batch has too little life left for one more payment.
fn is_ending(life: &HubLife, best: u32) -> bool {
    let HubPhase::Live { at } = life.machine.phase() else { return false };
    let expiry = life.machine.expiry();
    let Some(signed) = life.signed() else { return false };
    let Ok(deadlines) = Deadlines::new(expiry, signed.tree().shape().levels()) else {
        return false;
    };
    let lived = expiry.to_consensus_u32().saturating_sub(at.to_consensus_u32());
    !deadlines.may_forward(height(best), BlockDelta(lived / LIFE_SHARE))
}
