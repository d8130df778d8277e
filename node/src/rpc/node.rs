//! `tributary.v1.Node`: what the node is, how it stands, whom it talks to.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::BlockHash;
use parking_lot::Mutex;
use proto::v1;
use tonic::{Request, Response, Status};

use super::convert::{block_hash_bytes, idempotency_key, network, node_id};
use super::mutation::{once, once_beside};
use super::server::{Door, RpcParts};
use super::status::{Reason, Refusal};
use super::{doctor, page};
use crate::chain::follower::SyncState;
use crate::channels::{ChannelState, ChannelView};
use crate::lightning::types::NodeId;
use crate::observe::doctor::{Check, Severity};

/// The service.
pub(super) struct NodeService {
    door: Door,
    /// The time of the block last asked about: a block is fetched once.
    block_time: Mutex<Option<(BlockHash, u64)>>,
}

impl NodeService {
    pub(super) fn new(door: Door) -> Self {
        Self { door, block_time: Mutex::new(None) }
    }

    /// The time in the header of block `hash`; 0 if the source does not say.
    async fn block_time_seconds(&self, parts: &RpcParts, hash: BlockHash) -> u64 {
        let known = *self.block_time.lock();
        if let Some((_, time)) = known.filter(|(known, _)| *known == hash) {
            return time;
        }
        match parts.chain.block(hash).await {
            Ok(block) => {
                let time = u64::from(block.header.time);
                *self.block_time.lock() = Some((hash, time));
                time
            }
            Err(error) => {
                tracing::debug!(%error, "the best block's time is not known");
                0
            }
        }
    }
}

#[tonic::async_trait]
impl v1::node_server::Node for NodeService {
    async fn get_info(
        &self,
        _request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::NodeInfo>, Status> {
        let parts = self.door.parts()?;
        let all = parts.channels.list(|_, _| true, None, usize::MAX - 1).await;
        let channels = all.map_err(Refusal::from)?.channels;
        let sync = parts.sync.borrow().clone();
        let time = match sync.synced {
            Some(block) => self.block_time_seconds(&parts, block.hash).await,
            None => 0,
        };
        let chain = chain_sync(&sync, time, parts.facts.chain_backend);
        Ok(Response::new(info(&parts, chain, &channels)))
    }

    async fn get_diagnosis(
        &self,
        _request: Request<v1::GetDiagnosisRequest>,
    ) -> Result<Response<v1::GetDiagnosisResponse>, Status> {
        let parts = self.door.parts()?;
        let mut checks = parts.observer.diagnose().await;
        checks.extend(doctor::all(&parts.observer.parts().config, parts.clock.now()));
        let checks = checks.into_iter().map(check).collect();
        Ok(Response::new(v1::GetDiagnosisResponse { checks }))
    }

    async fn connect_peer(
        &self,
        request: Request<v1::ConnectPeerRequest>,
    ) -> Result<Response<v1::Peer>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("ConnectPeer", &request.idempotency_key)?;
        let id = node_id("node_id", &request.node_id)?;
        if request.address.trim().is_empty() {
            let refusal = Refusal::new(Reason::AddressInvalid, "address is empty");
            return Err(refusal.remedy("give host:port").into());
        }
        let shared = Arc::clone(&parts);
        let address = request.address.trim().to_owned();
        let keep = request.keep;
        let work = async move {
            shared.lightning.connect(id, &address).await?;
            let remembered = shared.peers.remember(id, &address, keep);
            shared.committer.durable(remembered).await?;
            Ok(())
        };
        once(&parts, key, &request, work, async { Ok(()) }).await?;
        Ok(Response::new(peer(&parts, id)))
    }

    async fn disconnect_peer(
        &self,
        request: Request<v1::DisconnectPeerRequest>,
    ) -> Result<Response<v1::DisconnectPeerResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("DisconnectPeer", &request.idempotency_key)?;
        let id = node_id("node_id", &request.node_id)?;
        let shared = Arc::clone(&parts);
        let work = move |beside| async move {
            if !all_peers(&shared).contains(&id) {
                let message = format_args!("node {id} is no peer of this node");
                return Err(Refusal::new(Reason::PeerUnknown, message).with("node_id", id));
            }
            let forgotten = shared.peers.forget(id, beside);
            shared.lightning.disconnect(id);
            shared.committer.durable(forgotten).await?;
            Ok(())
        };
        once_beside(&parts, key, &request, work, async { Ok(()) }).await?;
        Ok(Response::new(v1::DisconnectPeerResponse {}))
    }

    async fn list_peers(
        &self,
        request: Request<v1::ListPeersRequest>,
    ) -> Result<Response<v1::ListPeersResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let token = request.page_token.as_deref();
        let after = page::own_position::<33>(page::position(page::List::Peers, &(), token)?)?;
        let mut ids = all_peers(&parts)
            .into_iter()
            .filter(|id| after.is_none_or(|after| id.serialize() > after));
        let on_page: Vec<NodeId> = ids.by_ref().take(size).collect();
        let next_page_token = match (ids.next(), on_page.last()) {
            (Some(_), Some(last)) => Some(page::token(page::List::Peers, &(), &last.serialize())),
            _ => None,
        };
        let peers = on_page.into_iter().map(|id| peer(&parts, id)).collect();
        Ok(Response::new(v1::ListPeersResponse { peers, next_page_token }))
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("Stop", &request.idempotency_key)?;
        // A repetition after the next start must not stop that one too.
        let first = once(&parts, key, &request, async { Ok(true) }, async { Ok(false) }).await?;
        if first {
            tracing::info!("a caller asks the node to stop");
            parts.stop.cancel();
        }
        Ok(Response::new(v1::StopResponse {}))
    }
}

fn check(check: Check) -> v1::DiagnosisCheck {
    let severity = match check.severity {
        Severity::Ok => v1::CheckSeverity::Ok,
        Severity::Warning => v1::CheckSeverity::Warning,
        Severity::Error => v1::CheckSeverity::Error,
    };
    v1::DiagnosisCheck {
        name: check.name.to_owned(),
        severity: severity.into(),
        finding: check.finding,
        remedy: check.remedy,
    }
}

fn chain_sync(sync: &SyncState, time_seconds: u64, backend: &str) -> v1::ChainSync {
    let height = sync.synced.map_or(0, |block| block.height);
    v1::ChainSync {
        block_height: height,
        block_hash: sync.synced.map(|block| block_hash_bytes(block.hash)).unwrap_or_default(),
        block_time_unix_seconds: time_seconds,
        tip_height: sync.tip.map_or(height, |block| block.height),
        synced: sync.synced.is_some() && sync.synced == sync.tip,
        blocks_behind: sync.behind,
        stalled: sync.stalled_since.is_some(),
        stalled_since_unix_ms: sync.stalled_since.map(crate::journal::millis),
        last_error: sync.last_error.clone(),
        backend: backend.to_owned(),
    }
}

fn info(parts: &RpcParts, chain: v1::ChainSync, channels: &[ChannelView]) -> v1::NodeInfo {
    let facts = &parts.facts;
    let uptime = parts.clock.now().saturating_sub(facts.started);
    let stats = parts.committer.stats();
    v1::NodeInfo {
        node_id: parts.lightning.node_id().serialize().to_vec(),
        alias: facts.alias.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: network(facts.network).into(),
        chain: Some(chain),
        channels: Some(count(channels)),
        peers_connected: u32::try_from(parts.lightning.peers().len()).unwrap_or(u32::MAX),
        store_engine: parts.committer.store().engine().to_owned(),
        uptime_seconds: uptime.as_secs(),
        listen_addresses: facts.listen_addresses.clone(),
        announced_addresses: facts.announced_addresses.clone(),
        anchor_reserve: Some(super::wallet::anchor_reserve(parts.onchain.wallet())),
        newest_event_sequence: parts.journal.last_durable(),
        store: Some(v1::StoreActivity {
            commits: stats.batches,
            writes: stats.ops,
            bytes: stats.bytes,
        }),
    }
}

fn count(channels: &[ChannelView]) -> v1::ChannelCounts {
    let mut counts = v1::ChannelCounts::default();
    for view in channels {
        let count = match view.record.state {
            ChannelState::Opening | ChannelState::AwaitingConfirmation => &mut counts.pending,
            ChannelState::Active if view.live.as_ref().is_some_and(|live| live.usable) => {
                &mut counts.active
            }
            ChannelState::Active if view.live.as_ref().is_some_and(|live| live.closing) => {
                &mut counts.closing
            }
            ChannelState::Active => &mut counts.inactive,
            ChannelState::Closing | ChannelState::ForceClosing => &mut counts.closing,
            ChannelState::Closed => &mut counts.closed,
        };
        *count += 1;
    }
    counts
}

/// Everybody who is connected, kept, or shares a channel, by node id.
fn all_peers(parts: &RpcParts) -> BTreeSet<NodeId> {
    let connected = parts.lightning.peers().into_iter().map(|peer| peer.node_id);
    let mut ids: BTreeSet<NodeId> = connected.collect();
    ids.extend(parts.peers.known());
    ids.extend(parts.lightning.channel_peers());
    ids
}

fn peer(parts: &RpcParts, id: NodeId) -> v1::Peer {
    let connected = parts.lightning.peers().into_iter().find(|peer| peer.node_id == id);
    let channels = parts.lightning.channels();
    let shared = channels.iter().filter(|channel| channel.peer == id).count();
    v1::Peer {
        node_id: id.serialize().to_vec(),
        address: parts.peers.addresses(&id).into_iter().next(),
        connected: connected.is_some(),
        inbound: connected.is_some_and(|peer| peer.inbound),
        keep: parts.peers.is_kept(&id),
        channel_count: u32::try_from(shared).unwrap_or(u32::MAX),
        // Not recorded yet.
        connected_since_unix_ms: None,
        last_error: None,
    }
}
