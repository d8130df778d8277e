//! Who broke off while a batch formed, and how long it must wait.

use std::collections::HashMap;

use channel_contracts::batch::hub::HubPolicy;
use channel_contracts::batch::{HubEvent, Peer, Timestamp};

/// Faults of peers, in memory.
#[derive(Default)]
pub(super) struct Faults(HashMap<Peer, Fault>);

/// How often a peer broke off in a row, and until when it must wait.
#[derive(Debug, Clone, Copy, Default)]
struct Fault {
    count: u32,
    until: Option<Timestamp>,
}

impl Faults {
    /// Until when `peer` must wait.
    pub fn banned_until(&self, peer: Peer) -> Option<Timestamp> {
        self.0.get(&peer)?.until
    }

    /// Counts who broke off, and forgets it of who came through.
    pub fn learn(&mut self, event: &HubEvent, now: Timestamp) {
        match event {
            HubEvent::MemberLeftOut { peer, reason, .. } if reason.is_fault() => {
                let fault = self.0.entry(*peer).or_default();
                fault.count += 1;
                fault.until = Some(now.plus_ms(HubPolicy::back_off_ms(fault.count)));
            }
            HubEvent::Retired { peer } => {
                self.0.remove(peer);
            }
            _ => {}
        }
    }
}
