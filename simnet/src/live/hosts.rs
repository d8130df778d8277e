//! The hosts of a network: real nodes that start, stop, lose power and start again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use futures::FutureExt;
use node::chain::embedded::EmbeddedChain;
use node::chain::{ChainSource, TxStatus};
use node::config::{BatchRole, Config};
use node::environment::{Committing, Entropy, Environment};
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::lightning::types::NodeId;
use node::node::Node as RunningNode;
use node::store::{Batch, MemoryDisk, PowerCut, Store, StoreError};
use parking_lot::Mutex;

use super::LiveError;
use super::clock::{HostClock, SimClock};
use super::net::SimNet;
use super::rng::SimEntropy;
use crate::topology::Node;

/// What all hosts share.
#[derive(Clone)]
pub struct Outside {
    /// The chain.
    pub chain: EmbeddedChain,
    /// The links.
    pub net: SimNet,
    /// The time.
    pub clock: SimClock,
    /// What a node's disk takes for a batch.
    pub commit: Duration,
}

impl Outside {
    /// Whether a block of the best chain has a transaction.
    pub fn is_in_block(&self, txid: bitcoin::Txid) -> bool {
        // The embedded chain answers at once.
        let status = self.chain.transaction_status(txid).now_or_never();
        matches!(status, Some(Ok(TxStatus::Confirmed(_))))
    }
}

/// A computer with its disk; the node on it runs or not.
struct Host {
    keys: Arc<Keys>,
    config: Config,
    clock: HostClock,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
    /// One start or stop at a time.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    disk: MemoryDisk,
    node: Option<RunningNode>,
    /// A panic has left it without sense.
    is_dead: bool,
    /// Reasons for which it does not run.
    away: u32,
}

/// All hosts, by number. Clones share them.
#[derive(Clone)]
pub struct Hosts {
    outside: Outside,
    hosts: Arc<Vec<Host>>,
}

impl Hosts {
    /// Makes a host for each configuration, with seeds drawn from `seed`. None of them runs.
    pub fn new(outside: Outside, seed: u64, configs: Vec<Config>) -> Self {
        let host = |(number, config): (u64, Config)| {
            let entropy: Arc<dyn Entropy> = Arc::new(SimEntropy::new(seed, number));
            let phrase = RecoveryPhrase::generate(WordCount::Twelve, &*entropy);
            Host {
                keys: Arc::new(Keys::in_memory(Network::Regtest, &phrase, "")),
                config,
                clock: HostClock::new(outside.clock),
                entropy,
                state: Mutex::new(State {
                    disk: MemoryDisk::new(),
                    node: None,
                    is_dead: false,
                    away: 0,
                }),
                turn: tokio::sync::Mutex::default(),
            }
        };
        let hosts = (0..).zip(configs).map(host).collect();
        Self { outside, hosts: Arc::new(hosts) }
    }

    /// The configuration that all hosts begin with.
    pub fn config(number: Node) -> Config {
        let mut config = Config { network: Network::Regtest, ..Config::default() };
        config.alias = format!("n{number}");
        config.lightning.listen_addresses = vec![SimNet::address(number)];
        config.lightning.minimum_depth = 1;
        config.batch.role = BatchRole::Off;
        // The wallets' purses are large enough; a reserve would stand in the way of the openings.
        config.wallet.anchor_reserve_sat_per_channel = 0;
        config.rpc.listen = String::new();
        config
    }

    /// What they share.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// How many there are.
    pub fn count(&self) -> Node {
        Node::try_from(self.hosts.len()).unwrap_or(Node::MAX)
    }

    /// All numbers.
    pub fn numbers(&self) -> std::ops::Range<Node> {
        0..self.count()
    }

    fn host(&self, number: Node) -> &Host {
        &self.hosts[number as usize]
    }

    /// The identity of a host's node.
    pub fn node_id(&self, number: Node) -> NodeId {
        self.host(number).keys.node_id()
    }

    /// The host's clock.
    pub fn clock(&self, number: Node) -> &HostClock {
        &self.host(number).clock
    }

    /// The host's disk.
    pub fn disk(&self, number: Node) -> MemoryDisk {
        self.host(number).state.lock().disk.clone()
    }

    /// Asks something of a node, if it runs.
    ///
    /// A node in which LDK has panicked, as it does on proof that its disk forgot something, is as
    /// good as dead: it does not run any more for anybody who asks.
    pub fn ask<T>(&self, number: Node, question: impl FnOnce(&RunningNode) -> T) -> Option<T> {
        let mut state = self.host(number).state.lock();
        if state.is_dead {
            return None;
        }
        let node = state.node.as_ref()?;
        let answer = catch_unwind(AssertUnwindSafe(|| question(node)));
        state.is_dead = answer.is_err();
        answer.ok()
    }

    /// Whether a node runs.
    pub fn runs(&self, number: Node) -> bool {
        self.ask(number, |_| ()).is_some()
    }

    /// Whether every node that runs has followed the chain to its tip.
    pub fn are_synced(&self) -> bool {
        let tip = Some(self.outside.chain.best());
        let is_synced = |node: &RunningNode| node.sync.borrow().synced == tip;
        self.numbers().all(|number| self.ask(number, is_synced).unwrap_or(true))
    }

    /// Starts a node from its disk, unless it runs.
    ///
    /// # Errors
    ///
    /// [`LiveError::Start`].
    pub async fn start(&self, number: Node) -> Result<(), LiveError> {
        if self.runs(number) {
            return Ok(());
        }
        let host = self.host(number);
        let Outside { chain, net, .. } = &self.outside;
        let environment = Environment {
            clock: Arc::new(host.clock.clone()),
            entropy: Arc::clone(&host.entropy),
            chain: Arc::new(chain.clone()),
            broadcaster: Arc::new(chain.clone()),
            fees: Arc::new(chain.clone()),
            store: Arc::new(self.disk(number).open()),
            links: net.of(number),
            committing: Committing::Inline { takes: self.outside.commit },
        };
        let start = RunningNode::start(host.config.clone(), Arc::clone(&host.keys), environment);
        let node = start
            .await
            .map_err(|source| LiveError::Start { host: number, source: Box::new(source) })?;
        let mut state = host.state.lock();
        (state.node, state.is_dead) = (Some(node), false);
        Ok(())
    }

    /// Stops a node in good order, if it runs.
    pub async fn stop(&self, number: Node) {
        let node = self.host(number).state.lock().node.take();
        if let Some(node) = node {
            node.stop().await;
        }
    }

    /// Cuts the power of a host: of batches that were not synced the oldest `kept` survive, and
    /// nothing more leaves the node.
    pub async fn cut_power(&self, number: Node, kept: usize) {
        // A node that is just starting comes up first.
        let _turn = self.host(number).turn.lock().await;
        self.disk(number).cut_power(PowerCut { kept, torn_writes: 0 });
        self.stop(number).await;
    }

    /// Adds a reason to be away; takes effect with [`Hosts::settle`] or a power cut.
    pub fn leave(&self, number: Node) {
        self.host(number).state.lock().away += 1;
    }

    /// Takes a reason to be away back; takes effect with [`Hosts::settle`].
    pub fn come_back(&self, number: Node) {
        let mut state = self.host(number).state.lock();
        state.away = state.away.saturating_sub(1);
    }

    /// Starts or stops a node, as the reasons to be away say.
    ///
    /// # Errors
    ///
    /// [`LiveError::Start`].
    pub async fn settle(&self, number: Node) -> Result<(), LiveError> {
        let host = self.host(number);
        let _turn = host.turn.lock().await;
        let is_away = host.state.lock().away > 0;
        if is_away {
            self.stop(number).await;
            return Ok(());
        }
        self.start(number).await
    }

    /// A copy of a host's disk as it is now.
    ///
    /// # Errors
    ///
    /// If the disk does not let itself be read or written.
    pub fn copy_disk(&self, number: Node) -> Result<MemoryDisk, StoreError> {
        let copy = MemoryDisk::new();
        let store = copy.open();
        let mut batch = Batch { term: store.term(), ..Batch::default() };
        let mut put = |key: &[u8], value: &[u8]| {
            batch.put(key.to_vec(), value.to_vec());
            Ok(())
        };
        match self.ask(number, |node| Arc::clone(node.committer.store())) {
            Some(running) => running.snapshot(&mut put)?,
            None => self.disk(number).open().snapshot(&mut put)?,
        }
        store.commit(&batch)?;
        Ok(copy)
    }

    /// Puts another disk into a host whose node does not run.
    pub fn replace_disk(&self, number: Node, disk: MemoryDisk) {
        self.host(number).state.lock().disk = disk;
    }
}
