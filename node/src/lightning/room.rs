//! The running LDK room: its tasks, its peers, and the door services use.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::batch_messages::BatchMessages;
use super::build::{Loaded, Parts};
use super::connections::{Connections, Direction};
use super::driver::{self, EventHandler};
use super::htlcs::HtlcProbe;
use super::persist::LoadError;
use super::types::NodeId;
use crate::chain::follower::ChainListener;
use crate::environment::{LinkError, LinkListener, Links};
use crate::runtime::Tasks;

/// How long a dialled peer may take to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another link to the same peer has to be ready, when ours is closed.
const OTHER_LINK_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the router looks whether the public network has changed.
const ROUTER_TICK: Duration = Duration::from_secs(5);

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its identity.
    pub node_id: NodeId,
    /// Whether it dialled us.
    pub inbound: bool,
}

/// Why a peer could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The link could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The link was made, but who answered is not this peer, or does not speak Lightning.
    #[error("{address} answered but is not node {node_id}, or is on another network; check both")]
    Handshake {
        /// Who was expected.
        node_id: NodeId,
        /// Where.
        address: String,
    },
    /// A node cannot be its own peer.
    #[error("{0} is this node itself")]
    Myself(NodeId),
}

/// LDK as this node runs it.
pub struct Lightning {
    pub(super) parts: Arc<Parts>,
    connections: Connections,
    links: Arc<dyn Links>,
    tasks: Tasks,
}

impl Lightning {
    /// Puts the monitors under watch. Events wait until [`Lightning::drive`].
    ///
    /// # Errors
    ///
    /// That of the loaded state.
    pub fn start(loaded: Loaded, tasks: Tasks) -> Result<Arc<Self>, LoadError> {
        let parts = Arc::new(loaded.start()?);
        let connections = Connections {
            peers: Arc::clone(&parts.peers),
            committer: parts.committer.clone(),
            reading: Arc::clone(&parts.gate.reading),
            pump: Arc::clone(&parts.gate.released),
            tasks: tasks.clone(),
            links: Arc::default(),
        };
        let links = Arc::clone(&parts.environment.links);
        Ok(Arc::new(Self { parts, connections, links, tasks }))
    }

    /// Gives `handler` what LDK repeats from before the start, then runs the room's tasks.
    /// `forward_delay` is waited before each pass over forwards and receives: privacy against
    /// latency.
    pub fn drive(self: &Arc<Self>, handler: Arc<dyn EventHandler>, forward_delay: Duration) {
        self.parts.gate.between_cycles(|| driver::process_events(&self.parts, &*handler));
        let parts = Arc::clone(&self.parts);
        self.tasks
            .spawn("ldk driver", driver::run(parts, handler, forward_delay, self.tasks.clone()));
        self.tasks.spawn("peer pump", Arc::clone(self).pump());
        self.tasks.spawn("router refresh", Arc::clone(self).keep_router_fresh());
    }

    /// Shows the router a changed network, away from the payments that ask it for routes.
    async fn keep_router_fresh(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stopped() => break,
                () = tokio::time::sleep(ROUTER_TICK) => {}
            }
            self.parts.router.refresh();
        }
    }

    /// What the follower feeds while the node runs.
    pub fn listeners(&self) -> Vec<Arc<dyn ChainListener>> {
        super::chain::listeners(&self.parts, true)
    }

    /// What follows HTLCs for figures.
    pub fn htlcs(&self) -> &HtlcProbe {
        &self.parts.gate.htlcs
    }

    /// The messages of the batch protocol.
    pub fn batch_messages(&self) -> &Arc<BatchMessages> {
        &self.parts.batch_messages
    }

    /// This node's identity.
    pub fn node_id(&self) -> NodeId {
        self.parts.keys.node_id()
    }

    /// Lets the peer handler encrypt and send whatever was released.
    async fn pump(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stopped() => break,
                () = self.parts.gate.released.notified() => {}
            }
            self.parts.peers.process_events();
        }
        self.parts.peers.disconnect_all_peers();
    }

    /// Accepts links from `listener` until the node stops.
    pub fn accept(self: &Arc<Self>, listener: Arc<dyn LinkListener>) {
        let this = Arc::clone(self);
        self.tasks.spawn("accept", async move {
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = this.tasks.stopped() => break,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok(link) => {
                        let _attached = this.connections.attach(link, Direction::Inbound);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Out of file descriptors, most likely: give others time to close.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }

    /// Connects to `node_id` at `address` (`host:port`); returns at once if it is connected.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn connect(&self, node_id: NodeId, address: &str) -> Result<(), ConnectError> {
        if node_id == self.node_id() {
            return Err(ConnectError::Myself(node_id));
        }
        if self.is_connected(&node_id) {
            return Ok(());
        }
        let handshake = || ConnectError::Handshake { node_id, address: address.to_owned() };
        let link = self.links.dial(address).await?;
        let closed =
            self.connections.attach(link, Direction::Outbound(node_id)).ok_or_else(handshake)?;
        let mut deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let mut ours_is_open = true;
        while Instant::now() < deadline {
            if self.is_connected(&node_id) {
                return Ok(());
            }
            let step = (Instant::now() + Duration::from_millis(5)).min(deadline);
            if !ours_is_open {
                tokio::time::sleep_until(step).await;
            } else if timeout_at(step, closed.cancelled()).await.is_ok() {
                // Of two links that are made at once one is kept, which may not be ready yet.
                ours_is_open = false;
                deadline = deadline.min(Instant::now() + OTHER_LINK_TIMEOUT);
            }
        }
        if self.is_connected(&node_id) { Ok(()) } else { Err(handshake()) }
    }

    /// Ends the connection to `node_id`; channels stay.
    pub fn disconnect(&self, node_id: NodeId) {
        self.parts.peers.disconnect_by_node_id(node_id);
        self.parts.gate.released.notify_one();
    }

    /// Whether `node_id` is connected and has shaken hands.
    pub fn is_connected(&self, node_id: &NodeId) -> bool {
        self.parts.peers.peer_by_node_id(node_id).is_some()
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.parts
            .peers
            .list_peers()
            .into_iter()
            .map(|peer| PeerInfo {
                node_id: peer.counterparty_node_id,
                inbound: peer.is_inbound_connection,
            })
            .collect()
    }

    /// Tells peers of announced channels who we are, where, and by which name.
    pub fn announce(&self, alias: &str, addresses: &[std::net::SocketAddr]) {
        use lightning::ln::msgs::SocketAddress;
        let mut name = [0; 32];
        let length = alias.len().min(32);
        name[..length].copy_from_slice(&alias.as_bytes()[..length]);
        let addresses: Vec<SocketAddress> = addresses.iter().map(|a| (*a).into()).collect();
        self.parts.peers.broadcast_node_announcement([0x3b, 0x82, 0xf6], name, addresses);
        self.parts.gate.released.notify_one();
    }

    /// Addresses gossip knows for `node_id`.
    pub fn known_addresses(&self, node_id: &NodeId) -> Vec<String> {
        let graph = self.parts.graph.read_only();
        let id = lightning::routing::gossip::NodeId::from_pubkey(node_id);
        graph
            .node(&id)
            .and_then(|node| node.announcement_info.as_ref())
            .map(|info| info.addresses().iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    /// How many directions of announced channels the network graph has the terms of.
    pub fn known_directions(&self) -> usize {
        let graph = self.parts.graph.read_only();
        let channels = graph.channels().unordered_iter();
        let terms = channels.flat_map(|(_, channel)| [&channel.one_to_two, &channel.two_to_one]);
        terms.flatten().count()
    }

    /// The nodes we share a channel with.
    pub fn channel_peers(&self) -> HashSet<NodeId> {
        self.parts
            .manager
            .list_channels()
            .into_iter()
            .map(|channel| channel.counterparty.node_id)
            .collect()
    }
}
