//! A tower as a process of its own: store, chain, doors. The same parts run inside a node.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, FeeRate};
use channel_contracts::tower::TowerPolicy;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::cycle::{begin_commits, end};
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::{FEERATE_CEILING, FeeEstimates};
use crate::chain::follower::{ChainListener, Follower, FollowerConfig, SyncState};
use crate::chain::{BlockRef, ChainError};
use crate::config::{Config, TowerConfig};
use crate::environment::Environment;
use crate::keys::Keys;
use crate::rpc::{open_tower, watchtower};
use crate::runtime::Tasks;
use crate::store::{Committer, StoreError, Table};
use crate::tower::server::{
    Guard, GuardParts, Household, Ledger, Purse, Tower, TowerParts, Watches,
};
use crate::unroll::{self, Paths, Reason, UnrollError, Unroller};
use crate::wallet::{LOOKAHEAD_DEFAULT, OpenWalletError, Wallet, WalletParams};

/// How often the tower tidies up.
const TIDY: Duration = Duration::from_secs(1);
/// Blocks for which a client's appointments are kept when its subscription is over.
const GRACE: u32 = 1_008;

/// Why a tower does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartTowerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain source.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] OpenWalletError),
    /// An address of a door.
    #[error(
        "cannot serve clients on {address}: {source}; is another tower running there? Set tower.listen"
    )]
    CannotListen {
        /// It.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A thread.
    #[error("the operating system gives no thread: {0}")]
    Thread(std::io::Error),
    /// It was told to stop while starting.
    #[error("stopped while starting")]
    Stopped,
}

/// What a tower in a node or alone is made from.
pub struct Surroundings<'a> {
    /// What it takes and gives.
    pub config: &'a TowerConfig,
    /// Its identity.
    pub keys: &'a Keys,
    /// Its seams.
    pub environment: &'a Environment,
    /// The way to the store.
    pub committer: Committer,
    /// What answers pay.
    pub fees: FeeEstimates,
    /// The coins that pay for its household.
    pub wallet: Arc<Wallet>,
    /// The way out.
    pub broadcasts: BroadcastQueue,
    /// Where a tower that is new begins.
    pub tip: BlockRef,
}

/// A tower that is put together.
pub struct Assembled {
    /// What its clients meet.
    pub tower: Arc<Tower>,
    /// The eye that must see every block.
    pub guard: Arc<Guard>,
    /// Publishes paths of its household.
    unroller: Arc<Unroller>,
}

/// Reads what a tower has promised, and puts it together. It hears of the chain once its guard is
/// among the follower's listeners.
///
/// # Errors
///
/// If the store cannot be read.
pub fn assemble(around: Surroundings<'_>) -> Result<Assembled, StoreError> {
    let Surroundings { config, keys, environment, committer, fees, wallet, broadcasts, tip } =
        around;
    let ledger = Arc::new(Ledger::open(committer.clone())?);
    let household = Household {
        clients: config.household.iter().copied().collect(),
        budget: Amount::from_sat(config.fee_budget_sat),
    };
    let chain = Arc::clone(&environment.chain);
    let watches = Arc::new(Watches::open(committer.clone(), chain, household)?);
    let sat_per_vb = config.feerate_max_sat_per_vb;
    let feerate_max = FeeRate::from_sat_per_vb(sat_per_vb).unwrap_or(FEERATE_CEILING);
    let unroller = Arc::new(Unroller::open(unroll::Parts {
        committer: committer.clone(),
        table: Table::TowerUnroll,
        paths: Arc::clone(&watches) as Arc<dyn Paths>,
        wallet: Arc::clone(&wallet),
        fees: fees.clone(),
        chain: Arc::clone(&environment.chain),
        broadcasts,
        feerate_max,
    })?);
    let guard = Arc::new(Guard::open(GuardParts {
        ledger: Arc::clone(&ledger),
        watches: Arc::clone(&watches),
        purse: Purse::new(wallet, committer.clone()),
        committer: committer.clone(),
        chain: Arc::clone(&environment.chain),
        broadcaster: Arc::clone(&environment.broadcaster),
        fees,
        feerate_max,
        mempool_every: Duration::from_millis(config.mempool_poll_ms),
        tip,
    })?);
    let tower = Arc::new(Tower::new(TowerParts {
        secret: keys.tower_secrets().identity(),
        policy: policy(config),
        clients_max: config.clients_max,
        committer,
        ledger,
        guard: Arc::clone(&guard),
        watches,
    }));
    Ok(Assembled { tower, guard, unroller })
}

/// Lets a tower look at the chain and clients in, until the stop signal of `tasks`. Returns where
/// its doors are, with real ports: its own, and that of the open protocol.
///
/// # Errors
///
/// [`StartTowerError::CannotListen`].
pub async fn open_doors(
    config: &TowerConfig,
    assembled: &Assembled,
    sync: &watch::Receiver<SyncState>,
    tasks: &Tasks,
) -> Result<(String, String), StartTowerError> {
    let Assembled { tower, guard, unroller } = assembled;
    tasks.spawn("tower guard", Arc::clone(guard).run(tasks.clone()));
    tasks.spawn("tower housekeeping", keep_house(Arc::clone(tower), tasks.clone()));
    tasks.spawn("tower unroller", Arc::clone(unroller).run(sync.clone(), tasks.clone()));
    let (watching, publishing) = (Arc::clone(tower), Arc::clone(unroller));
    tasks.spawn("tower paths", publish(watching, publishing, sync.clone(), tasks.clone()));
    let mut own = String::new();
    if let Some((listener, address)) = bind(&config.listen).await? {
        watchtower::serve(Arc::clone(tower), listener, tasks);
        own = address;
    }
    let mut open = String::new();
    if let Some((listener, address)) = bind(&config.open_listen).await? {
        open_tower::serve(Arc::clone(tower), listener, tasks);
        open = address;
    }
    Ok((own, open))
}

/// The tower in a node, if its configuration asks for one.
///
/// # Errors
///
/// If the store cannot be read.
pub(super) fn embedded(around: Surroundings<'_>) -> Result<Option<Assembled>, StoreError> {
    if around.config.listen.is_empty() && around.config.open_listen.is_empty() {
        return Ok(None);
    }
    assemble(around).map(Some)
}

/// A running tower.
pub struct TowerProcess {
    /// The tower.
    pub tower: Arc<Tower>,
    /// The coins that pay for its household.
    pub wallet: Arc<Wallet>,
    /// The way to the store.
    pub committer: Committer,
    /// How far the chain was followed.
    pub sync: watch::Receiver<SyncState>,
    /// Where clients reach it; empty if it serves none.
    pub address: String,
    /// Where clients of the open tower protocol reach it; empty if it serves none.
    pub open_address: String,
    tasks: Tasks,
}

impl TowerProcess {
    /// Starts a tower.
    ///
    /// # Errors
    ///
    /// See [`StartTowerError`].
    pub async fn start(
        config: &Config,
        keys: &Arc<Keys>,
        environment: Environment,
    ) -> Result<Self, StartTowerError> {
        let tasks = Tasks::new();
        let committer = begin_commits(&environment, &tasks).map_err(StartTowerError::Thread)?;
        let started = Self::assemble(config, keys, environment, committer.clone(), &tasks).await;
        if started.is_err() {
            end(&tasks, &committer).await;
        }
        started
    }

    async fn assemble(
        config: &Config,
        keys: &Arc<Keys>,
        environment: Environment,
        committer: Committer,
        tasks: &Tasks,
    ) -> Result<Self, StartTowerError> {
        let fees = FeeEstimates::new(Arc::clone(&environment.fees));
        if let Err(error) = fees.refresh().await {
            tracing::warn!(%error, "no feerates yet; cautious ones stand in");
        }
        let tip = environment.chain.tip().await?;
        let wallet = Arc::new(Wallet::open(WalletParams {
            keys: Arc::clone(keys),
            committer: committer.clone(),
            book: Arc::new(committer.clone()),
            clock: Arc::clone(&environment.clock),
            entropy: Arc::clone(&environment.entropy),
            anchor_reserve_per_channel: Amount::ZERO,
            birthday: Some(tip),
            lookahead: LOOKAHEAD_DEFAULT,
        })?);
        wallet.look_back(&*environment.chain).await;
        let broadcasts = BroadcastQueue::default();
        let assembled = assemble(Surroundings {
            config: &config.tower,
            keys,
            environment: &environment,
            committer: committer.clone(),
            fees: fees.clone(),
            wallet: Arc::clone(&wallet),
            broadcasts: broadcasts.clone(),
            tip,
        })?;
        let mut follower = Follower::new(
            Arc::clone(&environment.chain),
            Arc::clone(&environment.clock),
            FollowerConfig::default(),
        );
        let mut listeners: Vec<Arc<dyn ChainListener>> =
            vec![Arc::clone(&assembled.guard) as _, Arc::clone(&wallet) as _];
        let caught_up = follower.catch_up(&listeners, &tasks.stop_signal()).await;
        caught_up.ok_or(StartTowerError::Stopped)?;
        listeners.push(Arc::new(broadcasts.clone()));
        let sync = follower.subscribe();
        tasks.spawn("follower", follower.run(listeners, tasks.stop_signal()));
        tasks.spawn(
            "broadcasts",
            broadcasts.run(Arc::clone(&environment.broadcaster), tasks.stop_signal()),
        );
        tasks.spawn("fees", fees.run(sync.clone(), tasks.stop_signal()));
        let (address, open_address) = open_doors(&config.tower, &assembled, &sync, tasks).await?;
        let tower = assembled.tower;
        tracing::info!(tower = %tower.key(), address, open_address, "tower started");
        let tasks = tasks.clone();
        Ok(Self { tower, wallet, committer, sync, address, open_address, tasks })
    }

    /// Stops it: what was answered is durable.
    pub async fn stop(self) {
        end(&self.tasks, &self.committer).await;
    }
}

fn policy(config: &TowerConfig) -> TowerPolicy {
    TowerPolicy {
        trusted: config.takes_trusted,
        appointments_max: config.appointments_max,
        registration_blocks: config.registration_blocks,
        ..TowerPolicy::default()
    }
}

async fn bind(address: &str) -> Result<Option<(TcpListener, String)>, StartTowerError> {
    if address.is_empty() {
        return Ok(None);
    }
    let failed = |source| StartTowerError::CannotListen { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?.to_string();
    Ok(Some((listener, real)))
}

/// Has paths published whose time has come.
async fn publish(
    tower: Arc<Tower>,
    unroller: Arc<Unroller>,
    mut sync: watch::Receiver<SyncState>,
    tasks: Tasks,
) {
    loop {
        let best = sync.borrow_and_update().synced.map_or(0, |block| block.height);
        for funding in tower.watches().due(best) {
            match unroller.want(funding, Reason::Deadline).await {
                Ok(()) => {}
                Err(UnrollError::Store(error)) => {
                    return tracing::error!(%error, "tower publishes no paths any more");
                }
                Err(error) => tracing::error!(%error, "tower cannot publish a path"),
            }
        }
        tokio::select! {
            biased;
            () = tasks.stopped() => return,
            changed = sync.changed() => if changed.is_err() { return },
        }
    }
}

/// Voids what is over, and tidies up, a little at a time.
async fn keep_house(tower: Arc<Tower>, tasks: Tasks) {
    let mut expired_at = 0;
    loop {
        tokio::select! {
            biased;
            () = tasks.stopped() => return,
            () = tokio::time::sleep(TIDY) => {}
        }
        let best = tower.guard().height();
        if best != expired_at {
            let _voided_again_after_a_crash = tower.ledger().expire(best, GRACE);
            expired_at = best;
        }
        if let Err(error) = tower.ledger().tidy() {
            return tracing::error!(%error, "tower cannot tidy up");
        }
    }
}
