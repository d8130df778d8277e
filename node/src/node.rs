//! The composition root: every service and task of a node, in the order they come to life.
//!
//! The order matters for money. State is read before the chain is followed, the chain is caught
//! up before channels are watched, LDK repeats its events before interrupted work is resumed,
//! and peers and callers are let in last.

#![allow(clippy::result_large_err, reason = "a node's start fails once, at most")]

mod beginning;
mod chores;
mod cycle;
mod doors;
mod news;
mod observing;
mod policies;
mod services;
pub mod tower;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Txid};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::batches::{self, BatchPolicy, Batches};
use crate::chain::ChainError;
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::FeeEstimates;
use crate::chain::follower::{ChainListener, Follower, FollowerConfig, SyncState};
use crate::chain::virtual_confirmation::VirtualConfirmations;
use crate::channels::{ChannelParts, Channels, Endings};
use crate::config::{ChainBackend, Config};
use crate::environment::{Environment, LinkError};
use crate::journal::{DomainEvent, Idempotency, Journal, JournalError, NodeEvent};
use crate::keys::Keys;
use crate::lightning::types::NodeId;
use crate::lightning::{Lightning, LoadError, Loaded, Materials, PeerBook};
use crate::observe::{self, Observer};
use crate::onchain::OnChain;
use crate::payments::Payments;
use crate::payouts::{self, PayoutPolicy, Payouts};
use crate::requests::Requests;
use crate::rpc::auth::TokenError;
use crate::rpc::connection::ConnectionError;
use crate::rpc::tls::TlsError;
use crate::rpc::tower_link::GrpcTowers;
use crate::rpc::{self, Door, EventTexts, Facts, RpcParts, ServeError, UnderWay};
use crate::runtime::Tasks;
use crate::store::{Batch, Committer, StoreError, Table};
use crate::swaps::{self, SwapPolicy, SwapWatch, Swaps};
use crate::tokens::{TokenParts, Tokens};
use crate::tower::client::{self as guards, Towers};
use crate::unroll::{self, OwnPaths, Unroller};
use crate::wallet::{LOOKAHEAD_DEFAULT, OpenWalletError, Wallet, WalletParams};
use crate::webhooks::{self, WebhookPolicy, Webhooks};
use beginning::{birthday, claim_store};
use chores::{announce, housekeeping};
use cycle::{begin_commits, end};
use doors::serve_rpc;
use news::{JournalBook, tell_of_chain, tell_of_start};
use policies::{exit_feerate_max, payment_defaults, policy, renewal, stall_after};
use services::{Services, payment_requests};

/// Why a node does not start. Nothing was broadcast, paid or answered.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory belongs to another node.
    #[error(
        "data directory belongs to node {found_node} on {found_network}, the seed and configuration are of node {node} on {network}; use the right --data-dir or seed"
    )]
    OtherNode {
        /// The node that wrote it.
        found_node: String,
        /// Its network.
        found_network: String,
        /// The node of the seed.
        node: NodeId,
        /// The configured network.
        network: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] OpenWalletError),
    /// LDK's state.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The chain source.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A listening address.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The API's address.
    #[error(
        "cannot serve the API on {address}: {source}; is another node running there? Set {key}"
    )]
    CannotListen {
        /// It.
        address: String,
        /// Why.
        source: std::io::Error,
        /// The setting it is from.
        key: &'static str,
    },
    /// The API's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API's token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The API's server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The page of figures.
    #[error(transparent)]
    Metrics(#[from] rpc::metrics::MetricsError),
    /// The file by which clients find the node.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The tower in it.
    #[error(transparent)]
    Tower(#[from] tower::StartTowerError),
    /// A thread.
    #[error("the operating system gives no thread: {0}")]
    Thread(std::io::Error),
    /// It was told to stop while starting.
    #[error("stopped while starting")]
    Stopped,
}

/// A running node.
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// Its seams.
    pub environment: Environment,
    /// The way to the store.
    pub committer: Committer,
    /// Durable events.
    pub journal: Journal,
    /// Coins.
    pub wallet: Arc<Wallet>,
    /// Sending them.
    pub onchain: Arc<OnChain>,
    /// LDK.
    pub lightning: Arc<Lightning>,
    /// Addresses of peers.
    pub peers: Arc<PeerBook>,
    /// The batches it takes part in, and what LDK sees of them.
    pub confirmations: Arc<VirtualConfirmations>,
    /// The channels service.
    pub channels: Arc<Channels>,
    /// Brings leaves of batches onto the chain.
    pub unroller: Arc<Unroller>,
    /// The batch service.
    pub batches: Arc<Batches>,
    /// Withdrawals and deposits.
    pub swaps: Arc<Swaps>,
    /// The towers that guard it.
    pub towers: Arc<Towers>,
    /// Tokens with limits.
    pub tokens: Arc<Tokens>,
    /// The payments service.
    pub payments: Arc<Payments>,
    /// What asks for payments.
    pub requests: Arc<Requests>,
    /// The endpoints that are told of events.
    pub webhooks: Arc<Webhooks>,
    /// Many payments from one file.
    pub payouts: Arc<Payouts>,
    /// Figures, and what is wrong.
    pub observer: Arc<Observer>,
    /// How far the chain was followed.
    pub sync: watch::Receiver<SyncState>,
    /// Where peers can reach it, with real ports.
    pub listening: Vec<String>,
    /// Where callers reach it, with its real port; empty if it serves none.
    pub rpc_address: String,
    /// Where figures are read, with its real port; empty if it serves none.
    pub metrics_address: String,
    /// Where callers without gRPC reach it; empty if it has no such door.
    pub rest_address: String,
    /// Background work.
    pub tasks: Tasks,
    asked_to_stop: CancellationToken,
}

impl Node {
    /// Starts a node: from the store in `environment`, with the keys of its seed.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(
        config: Config,
        keys: Arc<Keys>,
        environment: Environment,
    ) -> Result<Self, StartError> {
        let tasks = Tasks::new();
        let committer = begin_commits(&environment, &tasks).map_err(StartError::Thread)?;
        let started =
            Self::assemble(config, &keys, environment, committer.clone(), tasks.clone()).await;
        if started.is_err() {
            end(&tasks, &committer).await;
        }
        started
    }

    async fn assemble(
        config: Config,
        keys: &Arc<Keys>,
        environment: Environment,
        committer: Committer,
        tasks: Tasks,
    ) -> Result<Self, StartError> {
        claim_store(&committer, keys.node_id(), config.network)?;
        let door = Door::new();
        let journal = Journal::open(committer.clone(), Arc::clone(&environment.clock))?;
        let tokens = Arc::new(Tokens::open(TokenParts {
            secret: keys.token_secret(),
            committer: committer.clone(),
            journal: journal.clone(),
            clock: Arc::clone(&environment.clock),
            entropy: Arc::clone(&environment.entropy),
        })?);
        let (rpc_address, rest_address) =
            serve_rpc(&config, &environment, &door, &tokens, &tasks).await?;
        let asked_to_stop = CancellationToken::new();
        let tip = environment.chain.tip().await?;
        let wallet = Arc::new(Wallet::open(WalletParams {
            keys: Arc::clone(keys),
            committer: committer.clone(),
            book: Arc::new(JournalBook(journal.clone())),
            clock: Arc::clone(&environment.clock),
            entropy: Arc::clone(&environment.entropy),
            anchor_reserve_per_channel: Amount::from_sat(
                config.wallet.anchor_reserve_sat_per_channel,
            ),
            birthday: birthday(&config, &environment, tip).await?,
            lookahead: LOOKAHEAD_DEFAULT,
        })?);
        wallet.look_back(&*environment.chain).await;
        let fees = FeeEstimates::new(Arc::clone(&environment.fees));
        if let Err(error) = fees.refresh().await {
            tracing::warn!(%error, "no feerates yet; cautious ones stand in");
        }
        let broadcasts = BroadcastQueue::default();
        let confirmations = Arc::new(VirtualConfirmations::load(committer.clone())?);
        let mut follower = Follower::new(
            Arc::clone(&environment.chain),
            Arc::clone(&environment.clock),
            FollowerConfig { stall_after: stall_after(&config), ..FollowerConfig::default() },
        );

        let loaded = Loaded::read(Materials {
            environment: environment.clone(),
            network: config.network,
            seed: keys.lightning_seed(),
            policy: policy(&config),
            committer: committer.clone(),
            wallet: Arc::clone(&wallet),
            broadcasts: broadcasts.clone(),
            fees: fees.clone(),
            confirmations: Arc::clone(&confirmations),
            tip,
            tasks: tasks.clone(),
        })?;
        let swap_watch = Arc::new(SwapWatch::load(committer.clone())?);
        let endings = Arc::new(Endings::load(committer.clone())?);
        let readers: [Arc<dyn ChainListener>; 3] =
            [wallet.clone(), swap_watch.clone(), endings.clone()];
        let mut starting = loaded.listeners();
        starting.extend(readers.clone());
        let tower = tower::embedded(tower::Surroundings {
            config: &config.tower,
            keys,
            environment: &environment,
            committer: committer.clone(),
            fees: fees.clone(),
            wallet: Arc::clone(&wallet),
            broadcasts: broadcasts.clone(),
            tip,
        })?;
        let guard = tower.as_ref().map(|tower| Arc::clone(&tower.guard) as Arc<dyn ChainListener>);
        starting.extend(guard.clone());
        let caught_up = follower.catch_up(&starting, &tasks.stop_signal()).await;
        confirmations.caught_up(caught_up.ok_or(StartError::Stopped)?);
        drop(starting);

        let towers = Arc::new(Towers::open(guards::Parts {
            log: loaded.justice(),
            committer: committer.clone(),
            journal: journal.clone(),
            links: Arc::new(GrpcTowers),
            secrets: keys.tower_secrets(),
            wallet: Arc::clone(&wallet),
            clock: Arc::clone(&environment.clock),
            bytes_max: config.tower.outbox_max_mib.saturating_mul(1 << 20),
            tasks: tasks.clone(),
        })?);
        let lightning = Lightning::start(loaded, tasks.clone())?;
        towers.start();
        let peers = Arc::new(PeerBook::open(committer.clone())?);
        let payments = Arc::new(Payments::open(
            journal.clone(),
            committer.clone(),
            Arc::clone(&lightning),
            Arc::clone(&environment.entropy),
            payment_defaults(&config),
            config.network,
            Arc::clone(tokens.ledger()),
        )?);
        let channels = Arc::new(Channels::open(ChannelParts {
            journal: journal.clone(),
            committer: committer.clone(),
            lightning: Arc::clone(&lightning),
            wallet: Arc::clone(&wallet),
            fees: fees.clone(),
            peers: Arc::clone(&peers),
            entropy: Arc::clone(&environment.entropy),
            broadcasts: broadcasts.clone(),
            renewal: renewal(&config),
            ledger: Arc::clone(tokens.ledger()),
            endings,
        })?);
        let onchain = Arc::new(OnChain::new(
            Arc::clone(&wallet),
            committer.clone(),
            broadcasts.clone(),
            fees.clone(),
            Arc::clone(&environment.clock),
        ));
        let unroller = Arc::new(Unroller::open(unroll::Parts {
            committer: committer.clone(),
            table: Table::Unroll,
            paths: Arc::new(OwnPaths {
                lightning: Arc::clone(&lightning),
                channels: Arc::clone(&channels),
                confirmations: Arc::clone(&confirmations),
            }),
            wallet: Arc::clone(&wallet),
            fees: fees.clone(),
            chain: Arc::clone(&environment.chain),
            broadcasts: broadcasts.clone(),
            feerate_max: exit_feerate_max(&config),
        })?);
        let swaps = Arc::new(Swaps::open(swaps::Parts {
            committer: committer.clone(),
            journal: journal.clone(),
            lightning: Arc::clone(&lightning),
            channels: Arc::clone(&channels),
            payments: Arc::clone(&payments),
            wallet: Arc::clone(&wallet),
            fees: fees.clone(),
            confirmations: Arc::clone(&confirmations),
            watch: Arc::clone(&swap_watch),
            broadcasts: broadcasts.clone(),
            entropy: Arc::clone(&environment.entropy),
            clock: Arc::clone(&environment.clock),
            secrets: keys.batch_secrets(),
            network: config.network,
            policy: SwapPolicy::new(&config.batch),
        })?);
        let batches = Arc::new(Batches::open(batches::Parts {
            committer: committer.clone(),
            journal: journal.clone(),
            payments: Arc::clone(&payments),
            lightning: Arc::clone(&lightning),
            channels: Arc::clone(&channels),
            wallet: Arc::clone(&wallet),
            fees: fees.clone(),
            confirmations: Arc::clone(&confirmations),
            chain: Arc::clone(&environment.chain),
            broadcasts: broadcasts.clone(),
            unroller: Arc::clone(&unroller),
            swaps: Arc::clone(&swaps),
            entropy: Arc::clone(&environment.entropy),
            clock: Arc::clone(&environment.clock),
            secrets: keys.batch_secrets(),
            policy: BatchPolicy::new(&config.batch),
        })?);
        let services = Arc::new(Services {
            payments: Arc::clone(&payments),
            channels: Arc::clone(&channels),
            batches: Arc::clone(&batches),
            swaps: Arc::clone(&swaps),
            peers: Arc::clone(&peers),
            lightning: Arc::clone(&lightning),
            tasks: tasks.clone(),
        });
        let forward_delay = Duration::from_millis(config.lightning.forward_delay_ms);
        lightning.drive(services, forward_delay);
        tasks.spawn("payment attempts", Arc::clone(&payments).make_attempts(tasks.clone()));
        payments.resume();
        channels.resume();
        let fundings = channels.fundings();
        onchain.resume(&fundings);
        let mut known: HashSet<Txid> = fundings.iter().map(|funding| funding.txid).collect();
        known.extend(batches.transactions().await);
        known.extend(swaps.transactions().await);
        onchain.free_forgotten(&known);

        let sync = follower.subscribe();
        let mut listeners = lightning.listeners();
        listeners.extend(readers);
        listeners.extend(guard);
        if let Some(tower) = &tower {
            tower::open_doors(&config.tower, tower, &sync, &tasks).await?;
        }
        listeners.push(Arc::new(broadcasts.clone()));
        let seen = (fees.clone(), broadcasts.clone(), follower.failures());
        tasks.spawn("unroller", Arc::clone(&unroller).run(sync.clone(), tasks.clone()));
        tasks.spawn("batches", Arc::clone(&batches).run(sync.clone(), tasks.clone()));
        tasks.spawn("guarded paths", Arc::clone(&towers).guard_paths(Arc::clone(&batches)));
        tasks.spawn("swaps", Arc::clone(&swaps).run(sync.clone(), tasks.clone()));
        tell_of_chain(&journal, &wallet, &sync, &tasks);
        tasks.spawn("follower", follower.run(listeners, tasks.stop_signal()));
        tasks.spawn(
            "broadcasts",
            broadcasts.run(Arc::clone(&environment.broadcaster), tasks.stop_signal()),
        );
        tasks.spawn("fees", fees.run(sync.clone(), tasks.stop_signal()));
        for peer in &config.lightning.peers {
            let _kept = peers.remember(peer.node_id, &peer.address, true);
        }
        tasks.spawn(
            "peers",
            Arc::clone(&peers).keep_connected(Arc::clone(&lightning), tasks.clone()),
        );
        let mut listening = Vec::new();
        for address in &config.lightning.listen_addresses {
            let listener = environment.links.listen(address).await?;
            listening.push(listener.address());
            lightning.accept(listener);
        }
        tasks.spawn(
            "services",
            housekeeping(
                Arc::clone(&payments),
                Arc::clone(&channels),
                Idempotency::new(committer.clone()),
                journal.clone(),
                sync.clone(),
                tasks.clone(),
            ),
        );
        if !config.lightning.announce_addresses.is_empty() {
            tasks
                .spawn("announce", announce(Arc::clone(&lightning), config.clone(), tasks.clone()));
        }
        let told = tell_of_start(&journal, synced_height(&sync.borrow()));
        committer.durable(told).await?;
        let webhooks = Arc::new(Webhooks::open(webhooks::Parts {
            committer: committer.clone(),
            journal: journal.clone(),
            writer: Arc::new(EventTexts::new(Arc::clone(&payments), Arc::clone(&channels))),
            secrets: keys.webhook_secrets(),
            entropy: Arc::clone(&environment.entropy),
            clock: Arc::clone(&environment.clock),
            policy: WebhookPolicy::new(&config.webhook),
            tasks: tasks.clone(),
        })?);
        webhooks.start();
        let payouts = Arc::new(Payouts::open(payouts::Parts {
            committer: committer.clone(),
            journal: journal.clone(),
            payments: Arc::clone(&payments),
            lightning: Arc::clone(&lightning),
            onchain: Arc::clone(&onchain),
            ledger: Arc::clone(tokens.ledger()),
            entropy: Arc::clone(&environment.entropy),
            clock: Arc::clone(&environment.clock),
            sync: sync.clone(),
            network: config.network,
            policy: PayoutPolicy::new(&config.payouts),
            tasks: tasks.clone(),
        })?);
        payouts.start();
        let requests = payment_requests(&config, &environment, &lightning, &payments, &onchain);
        let started = environment.clock.now();
        let observer = observing::start(
            observe::Parts {
                config: config.clone(),
                committer: committer.clone(),
                journal: journal.clone(),
                wallet: Arc::clone(&wallet),
                fees: seen.0,
                broadcasts: seen.1,
                lightning: Arc::clone(&lightning),
                channels: Arc::clone(&channels),
                payments: Arc::clone(&payments),
                batches: Arc::clone(&batches),
                swaps: Arc::clone(&swaps),
                towers: Arc::clone(&towers),
                tower: tower.map(|assembled| assembled.tower),
                webhooks: Arc::clone(&webhooks),
                sync: sync.clone(),
                chain: Arc::clone(&environment.chain),
                chain_failures: seen.2,
                clock: Arc::clone(&environment.clock),
                entropy: Arc::clone(&environment.entropy),
                started,
                spans: observing::spans(&config, &lightning, &environment, &tasks),
            },
            &door,
            &tasks,
        );
        let metrics_address = rpc::metrics::serve(&config.metrics, &observer, &tasks).await?;
        door.open(RpcParts {
            under_way: UnderWay::default(),
            payments: Arc::clone(&payments),
            requests: Arc::clone(&requests),
            channels: Arc::clone(&channels),
            batches: Arc::clone(&batches),
            swaps: Arc::clone(&swaps),
            towers: Arc::clone(&towers),
            tokens: Arc::clone(&tokens),
            webhooks: Arc::clone(&webhooks),
            payouts: Arc::clone(&payouts),
            lightning: Arc::clone(&lightning),
            peers: Arc::clone(&peers),
            onchain: Arc::clone(&onchain),
            journal: journal.clone(),
            committer: committer.clone(),
            sync: sync.clone(),
            chain: Arc::clone(&environment.chain),
            facts: Facts {
                alias: config.alias.clone(),
                network: config.network,
                chain_backend: match config.chain.backend {
                    ChainBackend::Bitcoind => "bitcoind",
                    ChainBackend::Embedded => "embedded",
                },
                listen_addresses: listening.clone(),
                announced_addresses: config.lightning.announce_addresses.clone(),
                started,
            },
            observer: Arc::clone(&observer),
            clock: Arc::clone(&environment.clock),
            stop: asked_to_stop.clone(),
            tasks: tasks.clone(),
        });
        tracing::info!(node_id = %lightning.node_id(), ?listening, "node started");
        Ok(Self {
            config,
            environment,
            committer,
            journal,
            wallet,
            onchain,
            lightning,
            peers,
            confirmations,
            channels,
            unroller,
            batches,
            swaps,
            towers,
            tokens,
            payments,
            requests,
            webhooks,
            payouts,
            observer,
            sync,
            listening,
            rpc_address,
            metrics_address,
            rest_address,
            tasks,
            asked_to_stop,
        })
    }

    /// Waits until a caller of the API asks the node to stop.
    pub async fn stop_requested(&self) {
        self.asked_to_stop.cancelled().await;
    }

    /// Stops the node: peers first, then tasks, then the last batch is written.
    pub async fn stop(self) {
        let stopping = DomainEvent::Node(NodeEvent::Stopping);
        let _last = self.journal.append(&[stopping], Batch::default());
        end(&self.tasks, &self.committer).await;
        tracing::info!("node stopped");
    }
}

/// The height that every part of the node has seen; 0 before the first look.
fn synced_height(state: &SyncState) -> u32 {
    state.synced.map_or(0, |block| block.height)
}
