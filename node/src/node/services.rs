//! Who hears LDK.

use std::sync::Arc;

use crate::batches::Batches;
use crate::channels::Channels;
use crate::lightning::{EventHandler, Lightning, LightningEvent, PeerBook};
use crate::payments::Payments;
use crate::runtime::Tasks;
use crate::swaps::Swaps;

/// The services, in the order in which they hear.
pub(super) struct Services {
    pub payments: Arc<Payments>,
    pub channels: Arc<Channels>,
    pub batches: Arc<Batches>,
    pub swaps: Arc<Swaps>,
    pub peers: Arc<PeerBook>,
    pub lightning: Arc<Lightning>,
    pub tasks: Tasks,
}

impl EventHandler for Services {
    fn handle(&self, event: LightningEvent) {
        self.payments.handle(&event);
        self.channels.handle(&event);
        self.batches.handle(&event);
        self.swaps.handle(&event);
        if let LightningEvent::ConnectionNeeded { peer, mut addresses } = event {
            addresses.extend(self.peers.addresses(&peer));
            let lightning = Arc::clone(&self.lightning);
            self.tasks.spawn("connect on demand", async move {
                for address in addresses {
                    if lightning.connect(peer, &address).await.is_ok() {
                        return;
                    }
                }
                tracing::debug!(%peer, "a node needed for an onion message is not reachable");
            });
        }
    }
}
