//! Who hears LDK, and services that are put together from others.

use std::sync::Arc;

use crate::batches::Batches;
use crate::channels::Channels;
use crate::config::Config;
use crate::environment::Environment;
use crate::lightning::{EventHandler, Lightning, LightningEvent, PeerBook};
use crate::onchain::OnChain;
use crate::payments::Payments;
use crate::requests::{Names, Requests};
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

/// What asks for payments, over those who pay and are paid.
pub(super) fn payment_requests(
    config: &Config,
    environment: &Environment,
    lightning: &Arc<Lightning>,
    payments: &Arc<Payments>,
    onchain: &Arc<OnChain>,
) -> Arc<Requests> {
    let (links, clock) = (Arc::clone(&environment.links), Arc::clone(&environment.clock));
    Arc::new(Requests::new(
        Arc::clone(lightning),
        Arc::clone(payments),
        Arc::clone(onchain),
        Names::new(config.dns.resolver.clone(), links, Arc::clone(&clock)),
        clock,
        config.network,
    ))
}
