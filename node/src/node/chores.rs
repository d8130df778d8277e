//! What a node does now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::synced_height;
use crate::chain::follower::SyncState;
use crate::channels::Channels;
use crate::config::Config;
use crate::journal::{Idempotency, Journal};
use crate::lightning::Lightning;
use crate::payments::Payments;
use crate::runtime::Tasks;

/// How often slow housekeeping of services runs.
const TICK: Duration = Duration::from_secs(5);
/// How often old idempotency records are looked for.
const PRUNE: Duration = Duration::from_secs(3_600);
/// How often the node tells announced peers who it is.
const ANNOUNCE: Duration = Duration::from_secs(3_600);

/// Does the slow work of services, until the stop signal.
pub(super) async fn housekeeping(
    payments: Arc<Payments>,
    channels: Arc<Channels>,
    idempotency: Idempotency,
    journal: Journal,
    mut sync: watch::Receiver<SyncState>,
    tasks: Tasks,
) {
    let mut tick = tokio::time::interval(TICK);
    let mut prune = tokio::time::interval(PRUNE);
    loop {
        tokio::select! {
            biased;
            () = tasks.stopped() => break,
            changed = sync.changed() => {
                if changed.is_err() {
                    break;
                }
                let height = synced_height(&sync.borrow_and_update());
                payments.block_connected(height);
                channels.note_breaches();
            }
            _ = tick.tick() => channels.tick(),
            _ = prune.tick() => {
                if let Err(error) = idempotency.prune(journal.now()) {
                    tracing::warn!(%error, "old idempotency records stay for now");
                }
            }
        }
    }
}

/// Tells announced peers who this node is, until the stop signal.
pub(super) async fn announce(lightning: Arc<Lightning>, config: Config, tasks: Tasks) {
    let addresses: Vec<std::net::SocketAddr> = config
        .lightning
        .announce_addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let mut timer = tokio::time::interval(ANNOUNCE);
    loop {
        tokio::select! {
            biased;
            () = tasks.stopped() => break,
            _ = timer.tick() => lightning.announce(&config.alias, &addresses),
        }
    }
}
