//! Nodes on a private chain: started, funded, connected, restarted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Network};
use tokio::time::Instant;

use super::chain::{DevChain, DevChainError};
use super::ports::free_port;
use crate::channels::{ChannelState, ChannelView, OpenError, OpenRequest};
use crate::config::{BatchRole, ChainBackend, Config};
use crate::environment::{Entropy, Environment, OsEntropy};
use crate::keys::{Keys, RecoveryPhrase, WordCount};
use crate::lightning::types::ChannelRef;
use crate::node::{Node, StartError};
use crate::production::open_store;
use crate::store::{MemoryDisk, PowerCut, Store, StoreError};

/// How long the nodes may take to see what the chain has.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(10);

/// Why a private network does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A node.
    #[error("node {name} does not start: {source}")]
    Start {
        /// Which.
        name: String,
        /// Why.
        source: Box<StartError>,
    },
    /// The chain.
    #[error(transparent)]
    Chain(#[from] DevChainError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A channel.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A directory.
    #[error("cannot use directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No port is free.
    #[error("no port of loopback is free: {0}")]
    Port(#[source] std::io::Error),
    /// Something took too long.
    #[error("{what} did not happen within {seconds} s")]
    Timeout {
        /// What.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// There is no node of that name.
    #[error("there is no node {0:?} in this network")]
    UnknownNode(String),
}

/// What may differ from node to node.
#[derive(Clone)]
pub struct NodeOptions {
    /// Changes to the configuration.
    pub configure: Arc<dyn Fn(&mut Config) + Send + Sync>,
    /// A disk in memory that can fail, instead of a directory.
    pub disk: Option<MemoryDisk>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { configure: Arc::new(|_| {}), disk: None }
    }
}

/// A node of a private network.
pub struct DevNode {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// What survives a restart beside the directory: its seed.
    keys: Arc<Keys>,
    config: Config,
    disk: Option<MemoryDisk>,
    node: Option<Node>,
}

impl DevNode {
    /// The running node.
    ///
    /// # Panics
    ///
    /// If it is stopped.
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("the node runs")
    }

    /// The running node, if it runs.
    pub fn running(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where peers reach it.
    pub fn address(&self) -> String {
        self.node().listening.first().cloned().unwrap_or_default()
    }
}

/// A chain and the nodes on it.
pub struct Cluster {
    /// The chain.
    pub chain: DevChain,
    dir: PathBuf,
    nodes: BTreeMap<String, DevNode>,
}

impl Cluster {
    /// A network without nodes yet, with its files under `dir`.
    pub fn new(chain: DevChain, dir: &Path) -> Self {
        Self { chain, dir: dir.to_owned(), nodes: BTreeMap::new() }
    }

    /// Starts a new node.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub async fn add(
        &mut self,
        name: &str,
        options: NodeOptions,
    ) -> Result<&DevNode, ClusterError> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)
            .map_err(|source| ClusterError::Directory { path: dir.clone(), source })?;
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy as &dyn Entropy);
        let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
        let mut config = Config { network: Network::Regtest, ..Config::default() };
        config.data_dir.clone_from(&dir);
        config.alias = name.to_owned();
        // A restarted node is found at the address its peers remember.
        let port = free_port().map_err(ClusterError::Port)?;
        config.lightning.listen_addresses = vec![format!("127.0.0.1:{port}")];
        config.rpc.listen = "127.0.0.1:0".into();
        config.rest.listen = "127.0.0.1:0".into();
        config.batch.role = BatchRole::Both;
        config.batch.gathering_ms = 1_000;
        if self.chain.as_embedded().is_some() {
            config.chain.backend = ChainBackend::Embedded;
        }
        (options.configure)(&mut config);
        let node =
            DevNode { name: name.to_owned(), dir, keys, config, disk: options.disk, node: None };
        self.nodes.insert(name.to_owned(), node);
        self.start(name).await?;
        self.get(name)
    }

    /// Starts a stopped node from its directory.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub async fn start(&mut self, name: &str) -> Result<(), ClusterError> {
        let chain = self.chain.clone();
        let dev = self.get_mut(name)?;
        let environment = environment(dev, &chain)?;
        let node =
            Node::start(dev.config.clone(), Arc::clone(&dev.keys), environment).await.map_err(
                |source| ClusterError::Start { name: name.to_owned(), source: source.into() },
            )?;
        dev.node = Some(node);
        Ok(())
    }

    /// Stops a node in good order.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub async fn stop(&mut self, name: &str) -> Result<(), ClusterError> {
        if let Some(node) = self.get_mut(name)?.node.take() {
            node.stop().await;
        }
        Ok(())
    }

    /// Cuts the power of a node on a [`MemoryDisk`]: what was not durable is gone, and nothing
    /// more leaves the node.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub async fn crash(&mut self, name: &str) -> Result<(), ClusterError> {
        if let Some(disk) = &self.get(name)?.disk {
            disk.cut_power(PowerCut::default());
        }
        self.stop(name).await
    }

    /// Stops all nodes and the chain.
    pub async fn shut_down(mut self) {
        for node in self.nodes.values_mut() {
            if let Some(node) = node.node.take() {
                node.stop().await;
            }
        }
        self.chain.stop().await;
    }

    /// The node called `name`.
    ///
    /// # Errors
    ///
    /// If there is no such node.
    pub fn get(&self, name: &str) -> Result<&DevNode, ClusterError> {
        self.nodes.get(name).ok_or_else(|| ClusterError::UnknownNode(name.to_owned()))
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut DevNode, ClusterError> {
        self.nodes.get_mut(name).ok_or_else(|| ClusterError::UnknownNode(name.to_owned()))
    }

    /// The running node called `name`.
    ///
    /// # Panics
    ///
    /// If there is none: a mistake of the caller's.
    pub fn node(&self, name: &str) -> &Node {
        self.get(name).expect("the caller added this node").node()
    }

    /// All nodes by name, stopped ones too.
    pub fn nodes(&self) -> impl Iterator<Item = &DevNode> {
        self.nodes.values()
    }

    /// Pays `amount` to each named node's wallet in `coins` coins, confirmed and seen.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub async fn fund(
        &self,
        names: &[&str],
        amount: Amount,
        coins: u32,
    ) -> Result<(), ClusterError> {
        let mut payments = Vec::new();
        for name in names {
            for _ in 0..coins.max(1) {
                let (address, ticket) = self.node(name).wallet.new_address();
                self.node(name).committer.durable(ticket).await?;
                payments.push((address.script_pubkey(), amount / u64::from(coins.max(1))));
            }
        }
        self.chain.pay(&payments).await?;
        self.mine(1).await
    }

    /// Mines `blocks` one at a time and waits until every running node has followed each, so
    /// that everybody can react to every block.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub async fn mine(&self, blocks: u32) -> Result<(), ClusterError> {
        for _ in 0..blocks {
            self.chain.mine(1).await?;
            self.synced().await?;
        }
        Ok(())
    }

    /// Waits until every running node has followed the chain to its tip.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Timeout`].
    pub async fn synced(&self) -> Result<(), ClusterError> {
        let tip = self.chain.tip().await?;
        self.wait("chain sync", SYNC_TIMEOUT, || {
            self.nodes
                .values()
                .filter_map(|dev| dev.node.as_ref())
                .all(|node| node.sync.borrow().synced == Some(tip))
        })
        .await
    }

    /// Opens a channel, mines until it is usable on both sides, and returns its id at `from`.
    ///
    /// # Errors
    ///
    /// See [`ClusterError`].
    pub async fn open_channel(
        &self,
        from: &str,
        to: &str,
        capacity_sat: u64,
        push_msat: u64,
    ) -> Result<ChannelRef, ClusterError> {
        let peer = self.node(to).lightning.node_id();
        let view = self
            .node(from)
            .channels
            .request_open(
                OpenRequest {
                    peer,
                    address: Some(self.get(to)?.address()),
                    capacity_sat,
                    push_msat,
                    announced: false,
                    feerate_sat_per_vb: None,
                    zero_reserve: false,
                    fees: None,
                },
                None,
            )
            .await?;
        let channel = view.record.channel;
        self.wait_channel(from, channel, "funding", |view| {
            view.record.state != ChannelState::Opening
        })
        .await?;
        self.in_mempool(view.record.peer, from, channel).await?;
        let depth = self
            .node(to)
            .config
            .lightning
            .minimum_depth
            .max(self.node(from).config.lightning.minimum_depth);
        self.mine(depth).await?;
        self.wait_channel(from, channel, "channel usable", |view| {
            // The other side's terms too: invoices need them for their route hints.
            view.live.as_ref().is_some_and(|live| live.usable && live.counterparty_fees.is_some())
        })
        .await?;
        let here = self.node(from).lightning.node_id();
        self.wait("channel usable on the other side", SYNC_TIMEOUT, || {
            let channels = self.node(to).lightning.channels();
            let funding = self.node(from).channels.get(channel).and_then(|v| v.record.funding);
            channels
                .iter()
                .filter(|c| c.peer == here && c.usable && c.funding == funding)
                .any(|c| c.counterparty_fees.is_some())
        })
        .await?;
        Ok(channel)
    }

    /// Waits until the funding transaction has been broadcast, so that the next block has it.
    async fn in_mempool(
        &self,
        _peer: crate::lightning::types::NodeId,
        from: &str,
        channel: ChannelRef,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now() + SYNC_TIMEOUT;
        loop {
            let funding = self.node(from).channels.get(channel).and_then(|v| v.record.funding);
            if let Some(funding) = funding
                && self.chain.knows(funding.txid).await?
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(timeout("broadcast of the funding transaction", SYNC_TIMEOUT));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until `done` says so of a channel of `name` and what it saw is durable, so that
    /// the journal tells the same.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Timeout`]; [`ClusterError::Store`] if the store fails.
    pub async fn wait_channel(
        &self,
        name: &str,
        channel: ChannelRef,
        what: &str,
        done: impl Fn(&ChannelView) -> bool,
    ) -> Result<(), ClusterError> {
        let node = self.node(name);
        self.wait(what, SYNC_TIMEOUT, || node.channels.get(channel).is_some_and(|v| done(&v)))
            .await?;
        node.channels.look_up(channel).await?;
        Ok(())
    }

    /// Waits until `done` holds.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Timeout`].
    pub async fn wait(
        &self,
        what: &str,
        at_most: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now() + at_most;
        while !done() {
            if Instant::now() > deadline {
                return Err(timeout(what, at_most));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

fn timeout(what: &str, at_most: Duration) -> ClusterError {
    ClusterError::Timeout { what: what.to_owned(), seconds: at_most.as_secs() }
}

/// The seams of a node on `chain`, with its own store.
fn environment(dev: &DevNode, chain: &DevChain) -> Result<Environment, ClusterError> {
    let store: Arc<dyn Store> = match &dev.disk {
        Some(disk) => Arc::new(disk.open()),
        None => open_store(&dev.config)?,
    };
    Ok(chain.environment(store))
}
