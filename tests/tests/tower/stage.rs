//! Nodes on disks that can be copied, a channel, and a tower beside them.

use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, Network};
use channel_contracts::tower::Mode;
use node::config::{Config, TowerConfig};
use node::dev::{Cluster, free_port};
use node::environment::OsEntropy;
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::node::tower::TowerProcess;
use node::store::MemoryDisk;
use tests::e2e::{Disks, start_on_disks, until};

/// The one who sleeps.
pub const VICTIM: &str = "ada";
/// The one who boots from an old disk.
pub const CHEATER: &str = "bob";
pub const CAPACITY_SAT: u64 = 500_000;
pub const PUSH_SAT: u64 = 100_000;
/// What each has beside the channel.
pub const COINS_SAT: u64 = 900_000;

/// A tower, its seed and its disk.
pub struct Raised {
    process: Option<TowerProcess>,
    keys: Arc<Keys>,
    disk: MemoryDisk,
    /// Whose paths it pays for, and the most that one may cost.
    household: (Vec<PublicKey>, u64),
    /// Where it is, once it was started: it comes back there.
    address: String,
}

impl Raised {
    pub async fn new(net: &Cluster) -> Self {
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
        let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
        let household = (Vec::new(), 0);
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let disk = MemoryDisk::new();
        let mut tower = Self { process: None, keys, disk, household, address };
        tower.start(net).await;
        tower
    }

    pub async fn start(&mut self, net: &Cluster) {
        let config = Config {
            tower: TowerConfig {
                listen: self.address.clone(),
                open_listen: "127.0.0.1:0".into(),
                takes_trusted: true,
                household: self.household.0.clone(),
                fee_budget_sat: self.household.1,
                mempool_poll_ms: 50,
                ..TowerConfig::default()
            },
            ..Config::default()
        };
        let environment = net.chain.environment(Arc::new(self.disk.open()));
        let process = TowerProcess::start(&config, &self.keys, environment).await.unwrap();
        self.process = Some(process);
    }

    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }

    pub fn process(&self) -> &TowerProcess {
        self.process.as_ref().unwrap()
    }

    /// Where it keeps what it has.
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    pub fn key(&self) -> PublicKey {
        self.keys.tower_secrets().identity().public_key(&Secp256k1::new())
    }

    /// Lets it guard `name` from now on.
    pub async fn guards(&self, net: &Cluster, name: &str, mode: Mode) {
        net.node(name).towers.add(self.key(), &self.address, mode).await.unwrap();
    }

    /// Lets it spend `budget_sat` on each path of those whom it guards, from `coins` coins.
    pub async fn pays_for(&mut self, net: &Cluster, names: &[&str], budget_sat: u64, coins: u32) {
        let client = |name: &&str| {
            let towers = net.node(name).towers.list();
            towers.iter().find(|tower| tower.record.tower == self.key()).unwrap().client
        };
        self.household = (names.iter().map(client).collect(), budget_sat);
        self.stop().await;
        self.start(net).await;
        let wallet = &self.process().wallet;
        let (address, ticket) = wallet.new_address();
        self.process().committer.durable(ticket).await.unwrap();
        let coin = (address.script_pubkey(), Amount::from_sat(COINS_SAT));
        net.chain.pay(&vec![coin; coins as usize]).await.unwrap();
        net.mine(1).await.unwrap();
        until("the tower's coins", async || {
            wallet.balance().confirmed.to_sat() == COINS_SAT * u64::from(coins)
        })
        .await;
    }

    /// Waits until it has seen the tip.
    pub async fn synced(&self, net: &Cluster) {
        until("the tip at the tower", async || {
            let tip = net.chain.tip().await.unwrap();
            self.process().sync.borrow().synced == Some(tip)
        })
        .await;
    }
}

/// Victim and cheater with coins, on disks in memory.
pub async fn start(net: &mut Cluster) -> Disks {
    let disks = start_on_disks(net, &[VICTIM, CHEATER], |_| {}).await;
    net.fund(&[VICTIM, CHEATER], Amount::from_sat(COINS_SAT), 3).await.unwrap();
    disks
}

/// Connects both, for good.
pub async fn connected(net: &Cluster) {
    let (there, here) = (net.get(CHEATER).unwrap().address(), net.node(VICTIM));
    let id = net.node(CHEATER).lightning.node_id();
    let address = there.split_once('@').map_or(there.as_str(), |(_, address)| address);
    until("a connection", async || {
        let _or_soon = here.lightning.connect(id, address).await;
        here.lightning.is_connected(&id)
            && net.node(CHEATER).lightning.is_connected(&here.lightning.node_id())
    })
    .await;
}

/// Waits until every tower of `name` has everything.
pub async fn delivered(net: &Cluster, name: &str) {
    until("everything at the tower", async || {
        let towers = net.node(name).towers.list();
        towers.iter().all(|tower| tower.backlog == 0)
    })
    .await;
    let towers = net.node(name).towers.list();
    assert!(towers.iter().all(|tower| tower.record.refused == 0), "{towers:?}");
}
