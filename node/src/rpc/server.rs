//! The gRPC server: TLS, tokens, health, reflection, and the door that opens when the node is up.
//!
//! The server listens from the first moment of a start, so that a client hears `STARTING` and
//! not silence. The composition root opens the [`Door`] with the finished services; the stop
//! signal closes it. Every method asks the door first.
//!
//! Health needs no token: orchestrators ask it, and it says only whether a service is there.
//! Reflection needs one, like everything else: what a node can do is its owner's business.

use std::convert::Infallible;
use std::sync::Arc;

use bitcoin::Network;
use futures::StreamExt;
use proto::v1::batches_server::BatchesServer;
use proto::v1::channels_server::ChannelsServer;
use proto::v1::events_server::EventsServer;
use proto::v1::node_server::NodeServer;
use proto::v1::payments_server::PaymentsServer;
use proto::v1::payouts_server::PayoutsServer;
use proto::v1::tokens_server::TokensServer;
use proto::v1::tower_server::TowerServer;
use proto::v1::wallet_server::WalletServer;
use proto::v1::webhooks_server::WebhooksServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::arrivals::arrivals;
use super::calls::Calls;
use super::gate::{Gate, Guarded};
use super::mutation::UnderWay;
use super::status::{Reason, Refusal};
use super::tls::{TlsError, TlsIdentity};
use crate::batches::Batches;
use crate::chain::ChainSource;
use crate::chain::follower::SyncState;
use crate::channels::Channels;
use crate::environment::{Clock, UnixTime};
use crate::journal::{Idempotency, Journal};
use crate::lightning::{Lightning, PeerBook};
use crate::observe::Observer;
use crate::onchain::OnChain;
use crate::payments::Payments;
use crate::payouts::Payouts;
use crate::requests::Requests;
use crate::runtime::Tasks;
use crate::store::Committer;
use crate::swaps::Swaps;
use crate::tokens::Tokens;
use crate::tower::client::Towers;
use crate::webhooks::Webhooks;

/// How often an idle connection is asked whether it lives.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(20);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Calls under way on one connection.
const STREAMS_MAX: u32 = 1_024;

/// What the handlers call.
pub struct RpcParts {
    /// Keys of mutations under way.
    pub under_way: UnderWay,
    /// Payments, invoices and offers.
    pub payments: Arc<Payments>,
    /// What asks for payments: read, priced, made.
    pub requests: Arc<Requests>,
    /// Channels.
    pub channels: Arc<Channels>,
    /// Channels that batches fund.
    pub batches: Arc<Batches>,
    /// Withdrawals and deposits.
    pub swaps: Arc<Swaps>,
    /// The towers that guard this node.
    pub towers: Arc<Towers>,
    /// Tokens with limits.
    pub tokens: Arc<Tokens>,
    /// The endpoints that are told of events.
    pub webhooks: Arc<Webhooks>,
    /// Many payments from one file.
    pub payouts: Arc<Payouts>,
    /// Peers, decoding, balances of channels.
    pub lightning: Arc<Lightning>,
    /// Addresses of peers.
    pub peers: Arc<PeerBook>,
    /// Coins.
    pub onchain: Arc<OnChain>,
    /// The event log.
    pub journal: Journal,
    /// The way to the store.
    pub committer: Committer,
    /// How far the chain was followed.
    pub sync: watch::Receiver<SyncState>,
    /// Blocks, for the time of the best one.
    pub chain: Arc<dyn ChainSource>,
    /// What was configured.
    pub facts: Facts,
    /// Figures, and what is wrong.
    pub observer: Arc<Observer>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Given when a caller asks the node to stop; whoever holds the node stops it then.
    pub stop: CancellationToken,
    /// Where mutations run, so that a caller who hangs up does not stop one half way.
    pub tasks: Tasks,
}

impl RpcParts {
    /// The records of mutations that other services do not keep themselves.
    pub(super) fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.committer.clone())
    }

    /// Height of the best block that every part of the node has processed.
    pub(super) fn height(&self) -> u32 {
        self.sync.borrow().synced.map_or(0, |block| block.height)
    }

    /// Refuses new risk while the chain's tip is not processed, or cannot be trusted.
    pub(super) fn require_synced(&self) -> Result<(), Refusal> {
        not_synced(&self.sync.borrow()).map_or(Ok(()), Err)
    }
}

/// The refusal of new risk, unless the chain's tip is processed.
fn not_synced(sync: &SyncState) -> Option<Refusal> {
    if sync.is_current() {
        return None;
    }
    let height = sync.synced.map_or(0, |block| block.height);
    let tip = sync.tip.map_or(0, |block| block.height);
    let message = match (&sync.last_error, sync.stalled_since) {
        (Some(error), _) => format!("the chain source fails: {error}"),
        (None, Some(_)) => format!("no block has come for too long; the tip is at {tip}"),
        (None, None) => format!("the chain is processed to height {height}, its tip is at {tip}"),
    };
    let refusal = Refusal::new(Reason::ChainNotSynced, message)
        .with("block_height", height)
        .with("tip_height", tip)
        .money_may_have_moved(false);
    Some(refusal)
}

/// What a node was configured as.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its name.
    pub alias: String,
    /// Its network.
    pub network: Network,
    /// The chain source: `bitcoind` or `embedded`.
    pub chain_backend: &'static str,
    /// Where peers reach it, with real ports.
    pub listen_addresses: Vec<String>,
    /// What it tells the network.
    pub announced_addresses: Vec<String>,
    /// When it started.
    pub started: UnixTime,
}

enum Opening {
    Starting,
    Open(Arc<RpcParts>),
    Stopping,
}

/// What stands between callers and services. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    opening: Arc<watch::Sender<Opening>>,
    calls: Arc<Calls>,
}

impl Default for Door {
    fn default() -> Self {
        Self::new()
    }
}

impl Door {
    /// A door that is closed: callers hear `STARTING`.
    pub fn new() -> Self {
        Self { opening: Arc::new(watch::Sender::new(Opening::Starting)), calls: Arc::default() }
    }

    /// What measures the calls that come by it.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Lets callers in. A door that was closed for a stop stays closed.
    pub fn open(&self, parts: RpcParts) {
        self.opening.send_if_modified(|opening| match opening {
            Opening::Stopping => false,
            Opening::Starting | Opening::Open(_) => {
                *opening = Opening::Open(Arc::new(parts));
                true
            }
        });
    }

    /// Lets nobody in any more: callers hear `STOPPING`.
    pub fn close(&self) {
        self.opening.send_replace(Opening::Stopping);
    }

    /// The services, once the node is up and until it stops.
    pub(super) fn parts(&self) -> Result<Arc<RpcParts>, Refusal> {
        match &*self.opening.borrow() {
            Opening::Open(parts) => Ok(Arc::clone(parts)),
            Opening::Starting => {
                Err(Refusal::new(Reason::Starting, "the node is starting")
                    .money_may_have_moved(false))
            }
            Opening::Stopping => Err(stopping()),
        }
    }

    async fn opened(&self) {
        let mut opening = self.opening.subscribe();
        let _closed = opening.wait_for(|now| matches!(now, Opening::Open(_))).await;
    }
}

/// Refuses because the node stops.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Reason::Stopping, "the node is stopping").money_may_have_moved(false)
}

/// Serves `tributary.v1` on `listener` until the stop signal of `tasks`; then the door closes,
/// calls under way are answered, streams end, and the task ends. Returns the same services for
/// another door.
///
/// # Errors
///
/// If TLS or the descriptors of the interface cannot be set up; nothing is served then.
pub async fn serve(
    door: Door,
    listener: TcpListener,
    tls: &TlsIdentity,
    gate: &Arc<Gate>,
    connections_max: usize,
    tasks: &Tasks,
) -> Result<Routes, ServeError> {
    gate.count_in(door.calls());
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, tonic_health::ServingStatus::NotServing).await;
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(health_service)
        .add_service(Guarded::new(descriptors().build_v1()?, gate))
        .add_service(Guarded::new(descriptors().build_v1alpha()?, gate))
        .add_service(Guarded::new(
            NodeServer::new(super::node::NodeService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            ChannelsServer::new(super::channels::ChannelsService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            BatchesServer::new(super::batches::BatchesService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            PaymentsServer::new(super::payments::PaymentsService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            WalletServer::new(super::wallet::WalletService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            TowerServer::new(super::tower::TowerService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            TokensServer::new(super::tokens::TokensService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            WebhooksServer::new(super::webhooks::WebhooksService::new(door.clone())),
            gate,
        ))
        .add_service(Guarded::new(
            PayoutsServer::new(super::payouts::PayoutsService::new(door.clone()))
                .max_decoding_message_size(super::payouts::MESSAGE_BYTES_MAX),
            gate,
        ))
        .add_service(Guarded::new(
            EventsServer::new(super::events::EventsService::new(door.clone())),
            gate,
        ));
    let routes = routes.into_axum_router().fallback(super::unreached::nowhere);
    let routes = Routes::from(routes);
    let acceptor = TlsAcceptor::from(tls.rustls_config(&[b"h2"])?);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .add_routes(routes.clone());
    let arriving = arrivals("rpc door", listener, acceptor, connections_max, tasks);
    let incoming = ReceiverStream::new(arriving).map(Ok::<_, Infallible>);
    let stop = tasks.stop_signal();
    let at_the_door = door.clone();
    tasks.spawn("rpc server", async move {
        let closing = async {
            stop.cancelled().await;
            at_the_door.close();
        };
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, closing).await {
            tracing::error!(%error, "the gRPC server ended");
        }
    });
    let stop = tasks.stop_signal();
    tasks.spawn("rpc health", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = door.opened() => {
                set_health(&health, tonic_health::ServingStatus::Serving).await;
                stop.cancelled().await;
            }
        }
        set_health(&health, tonic_health::ServingStatus::NotServing).await;
    });
    Ok(routes)
}

/// Why the server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The interface's own description.
    #[error("cannot describe the gRPC interface: {0}; report this")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Sets the whole server (the empty name) and each service.
async fn set_health(health: &HealthReporter, status: tonic_health::ServingStatus) {
    for service in [
        "",
        "tributary.v1.Node",
        "tributary.v1.Channels",
        "tributary.v1.Batches",
        "tributary.v1.Payments",
        "tributary.v1.Wallet",
        "tributary.v1.Tower",
        "tributary.v1.Tokens",
        "tributary.v1.Events",
        "tributary.v1.Webhooks",
        "tributary.v1.Payouts",
    ] {
        health.set_service_status(service, status).await;
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "server/tests/whole.rs"]
mod whole;
#[cfg(test)]
#[path = "server/tests/batches.rs"]
mod whole_batches;
#[cfg(test)]
#[path = "server/tests/doctor.rs"]
mod whole_doctor;
#[cfg(test)]
#[path = "server/tests/events.rs"]
mod whole_events;
#[cfg(test)]
#[path = "server/tests/figures.rs"]
mod whole_figures;
#[cfg(test)]
#[path = "server/tests/payouts.rs"]
mod whole_payouts;
#[cfg(test)]
#[path = "server/tests/requests.rs"]
mod whole_requests;
#[cfg(test)]
#[path = "server/tests/swaps.rs"]
mod whole_swaps;
#[cfg(test)]
#[path = "server/tests/tokens.rs"]
mod whole_tokens;
#[cfg(test)]
#[path = "server/tests/traces.rs"]
mod whole_traces;
#[cfg(test)]
#[path = "server/tests/webhooks.rs"]
mod whole_webhooks;
