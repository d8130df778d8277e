//! Channels whose peers published a revoked state: noted once, for the record outlives the claims.

use super::record::{ChannelRecord, ChannelState};
use super::service::Channels;
use crate::journal::{ChannelEvent, DomainEvent, SecurityEvent};
use crate::lightning::{ClaimKind, CloseKind};

impl Channels {
    /// Notes the breaches that the chain shows. Called with each block, and every few seconds.
    pub fn note_breaches(&self) {
        for record in self.ended_on_chain() {
            let (Some(txid), Some(id)) = (self.parts.endings.of(&record), record.channel_id) else {
                continue;
            };
            let claims = self.parts.lightning.claimable(id);
            let channel = record.channel;
            if claims.is_empty() {
                self.settled.lock().insert(channel);
            } else if claims.iter().any(|claim| claim.kind == ClaimKind::Penalty) {
                tracing::warn!(%channel, peer = %record.peer, %txid, "the peer published a revoked state");
                self.append(ChannelEvent::Breached { channel, txid });
            }
        }
    }

    /// Channels whose claims may still show a breach.
    fn ended_on_chain(&self) -> Vec<ChannelRecord> {
        let settled = self.settled.lock();
        let may_be = |record: &ChannelRecord| {
            record.state == ChannelState::Closed
                && record.close_kind != Some(CloseKind::NeverOpened)
                && !record.breached
                && !settled.contains(&record.channel)
        };
        let records = self.records.lock();
        let ended = records.values().filter(|latest| may_be(&latest.borrow().0));
        ended.map(|latest| latest.borrow().0.clone()).collect()
    }
}

/// What `event` is for whoever guards the node.
pub(super) fn security(event: &ChannelEvent, record: &ChannelRecord) -> Option<DomainEvent> {
    let ChannelEvent::Breached { channel, txid } = *event else { return None };
    Some(DomainEvent::Security(SecurityEvent::Breach { channel, peer: record.peer, txid }))
}
