//! Assembly: which LDK parts make up this node's Lightning, and in what order they come to life.
//!
//! [`Loaded`] is the room after reading its state and before the chain has caught up: LDK wants
//! its manager and each monitor brought to the tip one by one, before the monitors are put under
//! watch. [`Loaded::start`] does that last step.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use bitcoin::Network;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BlockLocator, Filter, WatchedOutput, chainmonitor};
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::ln::channelmanager::{self, ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{self, IgnoringMessageHandler, MessageHandler};
use lightning::onion_message::messenger::{self, DefaultMessageRouter};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::{InMemorySigner, NodeSigner};
use lightning::util::persist::{
    KVStoreSync, NETWORK_GRAPH_PERSISTENCE_KEY, NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
    NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE, OUTPUT_SWEEPER_PERSISTENCE_KEY,
    OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE, OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
    SCORER_PERSISTENCE_KEY, SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
    SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::ReadableArgs;
use lightning::util::sweep::OutputSweeperSync;
use lightning::util::wallet_utils::WalletSync;
use parking_lot::Mutex;

use super::batch_messages::BatchMessages;
use super::chain::{LdkFees, MonitorListener};
use super::coins::WalletCoins;
use super::connections::LinkDescriptor;
use super::gate::OutputGate;
use super::gossip::{ChainUtxos, NodeGossip};
use super::inputs::Inputs;
use super::justice::JusticeLog;
use super::logger::TracingLogger;
use super::messages::GatedManager;
use super::pathfinding::{FastRouter, JournalingScorer};
use super::persist::{LdkObjects, LoadError, MonitorPersister};
use super::signer::NodeKeys;
use super::types::PaymentId;
use super::user_config::{ChannelPolicy, user_config};
use super::withheld::Withheld;
use crate::chain::BlockRef;
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::FeeEstimates;
use crate::chain::follower::ChainListener;
use crate::chain::virtual_confirmation::VirtualConfirmations;
use crate::environment::Environment;
use crate::runtime::Tasks;
use crate::store::{Committer, Deltas, Table};
use crate::wallet::Wallet;

pub(super) type Log = Arc<TracingLogger>;
pub(super) type Graph = NetworkGraph<Log>;
pub(super) type Scorer = JournalingScorer<ProbabilisticScorer<Arc<Graph>, Log>>;
pub(super) type Router = FastRouter<Log, Arc<NodeKeys>, Scorer>;
pub(super) type MessageRouter = DefaultMessageRouter<Arc<Graph>, Log, Arc<NodeKeys>>;
pub(super) type ChainMonitor = chainmonitor::ChainMonitor<
    InMemorySigner,
    Arc<NoFilter>,
    Arc<OutputGate>,
    Arc<LdkFees>,
    Log,
    Arc<MonitorPersister>,
    Arc<NodeKeys>,
>;
pub(super) type ChannelManager = channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<OutputGate>,
    Arc<NodeKeys>,
    Arc<NodeKeys>,
    Arc<NodeKeys>,
    Arc<LdkFees>,
    Arc<Router>,
    Arc<MessageRouter>,
    Log,
>;
pub(super) type OnionMessenger = messenger::OnionMessenger<
    Arc<NodeKeys>,
    Arc<NodeKeys>,
    Log,
    Arc<ChannelManager>,
    Arc<MessageRouter>,
    Arc<ChannelManager>,
    Arc<ChannelManager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;
pub(super) type Gossip = NodeGossip<P2PGossipSync<Arc<Graph>, Arc<ChainUtxos>, Log>>;
pub(super) type PeerManager = peer_handler::PeerManager<
    LinkDescriptor,
    Arc<GatedManager>,
    Arc<Gossip>,
    Arc<OnionMessenger>,
    Log,
    Arc<BatchMessages>,
    Arc<NodeKeys>,
    Arc<ChainMonitor>,
>;
pub(super) type Sweeper = OutputSweeperSync<
    Arc<OutputGate>,
    Arc<NodeKeys>,
    Arc<LdkFees>,
    Arc<NoFilter>,
    Arc<LdkObjects>,
    Log,
    Arc<NodeKeys>,
>;
pub(super) type Bumper = BumpTransactionEventHandlerSync<
    Arc<OutputGate>,
    Arc<WalletSync<Arc<WalletCoins>, Log>>,
    Arc<NodeKeys>,
    Log,
>;

/// The chain source gives whole blocks, so nothing needs to be asked for.
pub struct NoFilter;

impl Filter for NoFilter {
    fn register_tx(&self, _: &bitcoin::Txid, _: &bitcoin::Script) {}
    fn register_output(&self, _: WatchedOutput) {}
}

/// What the LDK room is made from.
pub struct Materials {
    /// The seams.
    pub environment: Environment,
    /// The network.
    pub network: Network,
    /// The seed of all Lightning keys.
    pub seed: zeroize::Zeroizing<[u8; 32]>,
    /// The operator's decisions about channels.
    pub policy: ChannelPolicy,
    /// The way to the store.
    pub committer: Committer,
    /// The on-chain wallet.
    pub wallet: Arc<Wallet>,
    /// The way to the mempool.
    pub broadcasts: BroadcastQueue,
    /// Feerates.
    pub fees: FeeEstimates,
    /// What LDK sees of batches.
    pub confirmations: Arc<VirtualConfirmations>,
    /// The tip, for a node that starts its first life.
    pub tip: BlockRef,
    /// Where look-ups of gossip run.
    pub tasks: Tasks,
}

/// The parts of a running LDK room.
pub(super) struct Parts {
    pub environment: Environment,
    pub network: Network,
    pub committer: Committer,
    pub wallet: Arc<Wallet>,
    pub keys: Arc<NodeKeys>,
    pub gate: Arc<OutputGate>,
    pub objects: Arc<LdkObjects>,
    pub graph: Arc<Graph>,
    pub gossip: Arc<Gossip>,
    pub scorer: Arc<RwLock<Scorer>>,
    pub router: Arc<Router>,
    pub chain_monitor: Arc<ChainMonitor>,
    pub persister: Arc<MonitorPersister>,
    pub justice: Arc<JusticeLog>,
    pub manager: Arc<ChannelManager>,
    pub confirmations: Arc<VirtualConfirmations>,
    pub messenger: Arc<OnionMessenger>,
    pub batch_messages: Arc<BatchMessages>,
    pub peers: Arc<PeerManager>,
    pub sweeper: Arc<Sweeper>,
    pub bumper: Bumper,
    /// Whether there is something for a fee bump to spend.
    pub inputs: Inputs,
    /// Payments of which an attempt failed for a reason that passes, until their outcome.
    pub temporary_failures: Mutex<HashSet<PaymentId>>,
    /// Payments of ours that succeeded since LDK's manager last ticked.
    pub settled: AtomicU64,
}

/// The LDK room with its state read, waiting for the chain to catch up.
pub struct Loaded {
    pub(super) parts: Parts,
    monitors: Vec<Arc<MonitorListener>>,
    /// What the disk has of the manager.
    written: Deltas,
}

impl Loaded {
    /// What is revealed to towers.
    pub fn justice(&self) -> Arc<JusticeLog> {
        Arc::clone(&self.parts.justice)
    }

    /// Reads all state from the store, or makes a new node at `materials.tip`.
    ///
    /// # Errors
    ///
    /// If anything on disk cannot be read. Nothing is changed then.
    pub fn read(materials: Materials) -> Result<Self, LoadError> {
        let Materials {
            environment,
            network,
            seed,
            policy,
            committer,
            wallet,
            broadcasts,
            fees,
            confirmations,
            tip,
            tasks,
        } = materials;
        let log: Log = Arc::new(TracingLogger);
        let keys = Arc::new(NodeKeys::new(&seed, environment.clone(), Arc::clone(&wallet)));
        let fees = Arc::new(LdkFees::new(fees));
        let gate = Arc::new(OutputGate::new(
            broadcasts.clone(),
            Arc::clone(&wallet),
            Withheld::load(Arc::clone(&confirmations), committer.clone())?,
        ));
        let objects = Arc::new(LdkObjects::new(committer.clone()));
        let graph = Arc::new(read_graph(&objects, network, &log)?);
        let scorer = Arc::new(RwLock::new(read_scorer(&objects, &graph, &log)?));
        let router = Arc::new(Router::new(
            Arc::clone(&graph),
            Arc::clone(&log),
            Arc::clone(&keys),
            Arc::clone(&scorer),
            ProbabilisticScoringFeeParameters::default(),
        ));
        let message_router =
            Arc::new(DefaultMessageRouter::new(Arc::clone(&graph), Arc::clone(&keys)));

        let justice =
            Arc::new(JusticeLog::open(committer.clone(), Arc::clone(&keys), policy.to_self_delay)?);
        let persister = Arc::new(MonitorPersister::new(
            committer.clone(),
            Arc::clone(&gate),
            Arc::clone(&justice),
        ));
        let monitors = persister.load(&keys, &gate, &fees, &log)?;
        let chain_monitor = Arc::new(ChainMonitor::new(
            None,
            Arc::clone(&gate),
            Arc::clone(&log),
            Arc::clone(&fees),
            Arc::clone(&persister),
            Arc::clone(&keys),
            keys.get_peer_storage_key(),
            // The gate makes deferred monitor writes needless: one batch holds both anyway.
            false,
        ));

        let config = user_config(&policy);
        let (written, saved) =
            Deltas::load(&committer, Table::Manager.key("full"), Table::ManagerDelta)?;
        let manager = match saved {
            Some(bytes) => {
                let args = ChannelManagerReadArgs::new(
                    Arc::clone(&keys),
                    Arc::clone(&keys),
                    Arc::clone(&keys),
                    Arc::clone(&fees),
                    Arc::clone(&chain_monitor),
                    Arc::clone(&gate),
                    Arc::clone(&router),
                    Arc::clone(&message_router),
                    Arc::clone(&log),
                    config,
                    monitors.iter().collect(),
                );
                <(BlockLocator, ChannelManager)>::read(&mut &bytes[..], args)
                    .map_err(|error| unreadable("channel manager", &error))?
                    .1
            }
            None => ChannelManager::new(
                Arc::clone(&fees),
                Arc::clone(&chain_monitor),
                Arc::clone(&gate),
                Arc::clone(&router),
                Arc::clone(&message_router),
                Arc::clone(&log),
                Arc::clone(&keys),
                Arc::clone(&keys),
                Arc::clone(&keys),
                config,
                ChainParameters { network, best_block: BlockLocator::new(tip.hash, tip.height) },
                u32::try_from(environment.clock.now().as_secs()).unwrap_or(u32::MAX),
            ),
        };
        let manager = Arc::new(manager);
        committer.set_gate(Arc::clone(&gate) as Arc<_>);

        let sweeper = Arc::new(read_sweeper(&objects, &gate, &fees, &keys, &log, tip)?);
        let bumper = Bumper::new(
            Arc::clone(&gate),
            Arc::new(WalletSync::new(
                Arc::new(WalletCoins::new(Arc::clone(&wallet))),
                Arc::clone(&log),
            )),
            Arc::clone(&keys),
            Arc::clone(&log),
        );
        let messenger = Arc::new(OnionMessenger::new(
            Arc::clone(&keys),
            Arc::clone(&keys),
            Arc::clone(&log),
            Arc::clone(&manager),
            message_router,
            Arc::clone(&manager),
            Arc::clone(&manager),
            IgnoringMessageHandler {},
            IgnoringMessageHandler {},
        ));
        let utxos =
            Arc::new(ChainUtxos::new(Arc::clone(&environment.chain), network, tasks.clone()));
        let gossip = P2PGossipSync::new(Arc::clone(&graph), Some(utxos), Arc::clone(&log));
        let gossip = Arc::new(Gossip::new(gossip, router.changes()));
        let batch_messages = Arc::new(BatchMessages::new(Arc::clone(&gate.released)));
        let peers = Arc::new(PeerManager::new(
            MessageHandler {
                chan_handler: Arc::new(GatedManager::new(
                    Arc::clone(&manager),
                    Arc::clone(&gate),
                    Arc::clone(&confirmations),
                    Arc::clone(&batch_messages),
                    policy.strangers_max,
                )),
                route_handler: Arc::clone(&gossip),
                onion_message_handler: Arc::clone(&messenger),
                custom_message_handler: Arc::clone(&batch_messages),
                send_only_message_handler: Arc::clone(&chain_monitor),
            },
            u32::try_from(environment.clock.now().as_secs()).unwrap_or(u32::MAX),
            &environment.entropy.bytes(),
            Arc::clone(&log),
            Arc::clone(&keys),
        ));
        let monitors = monitors
            .into_iter()
            .map(|monitor| {
                let broadcaster = Arc::clone(&gate);
                Arc::new(MonitorListener::new(
                    monitor,
                    broadcaster,
                    Arc::clone(&fees),
                    Arc::clone(&log),
                    Arc::clone(&confirmations),
                ))
            })
            .collect();
        let inputs = {
            let (chain, claims) = (Arc::clone(&environment.chain), Arc::clone(&chain_monitor));
            let again = move || claims.rebroadcast_pending_claims();
            Inputs::new(chain, Arc::clone(&wallet), broadcasts, tasks, again)
        };
        let parts = Parts {
            environment,
            network,
            committer,
            wallet,
            keys,
            gate,
            objects,
            graph,
            gossip,
            scorer,
            router,
            chain_monitor,
            persister,
            justice,
            manager,
            confirmations,
            messenger,
            batch_messages,
            peers,
            sweeper,
            bumper,
            inputs,
            temporary_failures: Mutex::default(),
            settled: AtomicU64::new(0),
        };
        Ok(Self { parts, monitors, written })
    }

    /// What has to be brought to the tip before [`Loaded::start`].
    pub fn listeners(&self) -> Vec<Arc<dyn ChainListener>> {
        let mut listeners: Vec<Arc<dyn ChainListener>> =
            self.monitors.iter().map(|monitor| Arc::clone(monitor) as Arc<_>).collect();
        listeners.extend(super::chain::listeners(&self.parts, false));
        listeners
    }

    /// Puts the monitors under watch and the manager behind the gate. The listeners given out
    /// before must be gone.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unreadable`] if two monitors claim one channel.
    pub(super) fn start(self) -> Result<Parts, LoadError> {
        for monitor in self.monitors {
            let monitor: ChannelMonitor<InMemorySigner> = Arc::into_inner(monitor)
                .expect("the follower gave up the start-up listeners")
                .into_monitor();
            let id = monitor.channel_id();
            self.parts.chain_monitor.load_existing_monitor(id, monitor).map_err(|()| {
                unreadable(&format!("channel monitor of {id}"), &"it is there twice")
            })?;
        }
        // Not earlier: whoever takes LDK's messages makes it do what it put off at its start, and
        // updates of monitors that nobody watches yet would be lost.
        self.parts.gate.guard(&self.parts.manager, self.written);
        Ok(self.parts)
    }
}

fn unreadable(what: &str, detail: &dyn std::fmt::Debug) -> LoadError {
    LoadError::Unreadable { what: what.to_owned(), detail: format!("{detail:?}") }
}

fn read_graph(objects: &LdkObjects, network: Network, log: &Log) -> Result<Graph, LoadError> {
    let bytes = objects.read(
        NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
        NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE,
        NETWORK_GRAPH_PERSISTENCE_KEY,
    );
    match bytes {
        Ok(bytes) => match Graph::read(&mut &bytes[..], Arc::clone(log)) {
            Ok(graph) => Ok(graph),
            // Gossip comes back by itself: no reason to refuse to start.
            Err(error) => {
                tracing::warn!(?error, "network graph is unreadable and starts anew");
                Ok(Graph::new(network, Arc::clone(log)))
            }
        },
        Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => {
            Ok(Graph::new(network, Arc::clone(log)))
        }
        Err(error) => Err(LoadError::Store(std::io::Error::other(error).into())),
    }
}

fn read_scorer(objects: &LdkObjects, graph: &Arc<Graph>, log: &Log) -> Result<Scorer, LoadError> {
    let decay = ProbabilisticScoringDecayParameters::default();
    let bytes = objects.read(
        SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
        SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
        SCORER_PERSISTENCE_KEY,
    );
    let fresh = || ProbabilisticScorer::new(decay, Arc::clone(graph), Arc::clone(log));
    let scorer = match bytes {
        Ok(bytes) => {
            let arguments = (decay, Arc::clone(graph), Arc::clone(log));
            ProbabilisticScorer::read(&mut &bytes[..], arguments).unwrap_or_else(|error| {
                tracing::warn!(?error, "channel scores are unreadable and start anew");
                fresh()
            })
        }
        Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => fresh(),
        Err(error) => return Err(LoadError::Store(std::io::Error::other(error).into())),
    };
    Ok(JournalingScorer::new(scorer))
}

fn read_sweeper(
    objects: &Arc<LdkObjects>,
    gate: &Arc<OutputGate>,
    fees: &Arc<LdkFees>,
    keys: &Arc<NodeKeys>,
    log: &Log,
    tip: BlockRef,
) -> Result<Sweeper, LoadError> {
    let bytes = objects.read(
        OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE,
        OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
        OUTPUT_SWEEPER_PERSISTENCE_KEY,
    );
    match bytes {
        Ok(bytes) => {
            let args = (
                Arc::clone(gate),
                Arc::clone(fees),
                None,
                Arc::clone(keys),
                Arc::clone(keys),
                Arc::clone(objects),
                Arc::clone(log),
            );
            <(BlockLocator, Sweeper)>::read(&mut &bytes[..], args)
                .map(|(_, sweeper)| sweeper)
                .map_err(|error| unreadable("output sweeper", &error))
        }
        Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => Ok(Sweeper::new(
            BlockLocator::new(tip.hash, tip.height),
            Arc::clone(gate),
            Arc::clone(fees),
            None,
            Arc::clone(keys),
            Arc::clone(keys),
            Arc::clone(objects),
            Arc::clone(log),
        )),
        Err(error) => Err(LoadError::Store(std::io::Error::other(error).into())),
    }
}
