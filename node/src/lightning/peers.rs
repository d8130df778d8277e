//! The peers to keep: their addresses on disk, and a dialler that brings them back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::room::Lightning;
use super::types::NodeId;
use crate::runtime::Tasks;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

/// How often missing peers are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// The first wait after a failed dial; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest wait between two dials of one peer.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// `host:port`, the newest first.
    addresses: Vec<String>,
    /// Whether to dial it whenever it is missing, also without a channel.
    keep: bool,
}

/// Who our peers are and where they live.
pub struct PeerBook {
    committer: Committer,
    known: Mutex<HashMap<NodeId, Known>>,
}

impl PeerBook {
    /// Reads the book from the store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(committer: Committer) -> Result<Self, StoreError> {
        let mut known = HashMap::new();
        for (key, value) in committer.scan_all(Table::Peer, [])? {
            let corrupt = |detail: String| StoreError::Corrupt(format!("peer record: {detail}"));
            let id = NodeId::from_slice(Table::Peer.rest(&key).unwrap_or_default())
                .map_err(|error| corrupt(error.to_string()))?;
            let record =
                ciborium::from_reader(&value[..]).map_err(|error| corrupt(error.to_string()))?;
            known.insert(id, record);
        }
        Ok(Self { committer, known: Mutex::new(known) })
    }

    /// Remembers where `peer` lives. `keep`: dial it whenever it is missing.
    pub fn remember(&self, peer: NodeId, address: &str, keep: bool) -> Ticket {
        let mut known = self.known.lock();
        let entry = known.entry(peer).or_insert(Known { addresses: Vec::new(), keep: false });
        entry.addresses.retain(|other| other != address);
        entry.addresses.insert(0, address.to_owned());
        entry.addresses.truncate(4);
        entry.keep |= keep;
        let mut value = Vec::new();
        ciborium::into_writer(entry, &mut value).expect("writing to memory cannot fail");
        let mut batch = Batch::default();
        batch.put(Table::Peer.key(peer.serialize()), value);
        self.committer.enqueue(batch)
    }

    /// Forgets `peer`: it is dialled no more unless a channel needs it. Writes into `batch`.
    pub fn forget(&self, peer: NodeId, mut batch: Batch) -> Ticket {
        self.known.lock().remove(&peer);
        batch.delete(Table::Peer.key(peer.serialize()));
        self.committer.enqueue(batch)
    }

    /// Where `peer` lives, the newest address first.
    pub fn addresses(&self, peer: &NodeId) -> Vec<String> {
        self.known.lock().get(peer).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Whether `peer` is dialled whenever it is missing.
    pub fn is_kept(&self, peer: &NodeId) -> bool {
        self.known.lock().get(peer).is_some_and(|known| known.keep)
    }

    /// Everybody in the book, in no order.
    pub fn known(&self) -> Vec<NodeId> {
        self.known.lock().keys().copied().collect()
    }

    fn kept(&self) -> Vec<NodeId> {
        self.known.lock().iter().filter(|(_, known)| known.keep).map(|(id, _)| *id).collect()
    }

    /// Keeps dialling what is missing: kept peers, and peers of channels, until the node stops.
    pub async fn keep_connected(self: Arc<Self>, lightning: Arc<Lightning>, tasks: Tasks) {
        let mut waits: HashMap<NodeId, (Instant, Duration)> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                () = tasks.stopped() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let mut wanted = lightning.channel_peers();
            wanted.extend(self.kept());
            for peer in wanted {
                if lightning.is_connected(&peer) {
                    waits.remove(&peer);
                    continue;
                }
                let (due, wait) = *waits.entry(peer).or_insert((Instant::now(), BACK_OFF));
                if Instant::now() < due {
                    continue;
                }
                waits.insert(peer, (Instant::now() + wait, (wait * 2).min(BACK_OFF_MAX)));
                let mut addresses = self.addresses(&peer);
                addresses.extend(lightning.known_addresses(&peer));
                let lightning = Arc::clone(&lightning);
                tasks.spawn("dial", async move {
                    for address in addresses {
                        match lightning.connect(peer, &address).await {
                            Ok(()) => return,
                            Err(error) => tracing::debug!(%peer, %error, "peer is not there"),
                        }
                    }
                });
            }
        }
    }
}
