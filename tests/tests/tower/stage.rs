//! Nodes on disks that can be copied, a channel, and a tower beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, Network};
use channel_contracts::tower::Mode;
use node::config::{Config, TowerConfig};
use node::dev::{Cluster, NodeOptions};
use node::environment::{Committing, Environment, OsEntropy, SystemClock, TcpLinks};
use node::keys::{Keys, RecoveryPhrase, WordCount};
use node::node::tower::TowerProcess;
use node::store::MemoryDisk;
use tests::e2e::{Image, until};

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
    keys: Keys,
    disk: MemoryDisk,
    /// Where it is, once it was started: it comes back there.
    address: String,
}

impl Raised {
    pub async fn new(net: &Cluster) -> Self {
        let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
        let keys = Keys::in_memory(Network::Regtest, &phrase, "");
        let (disk, address) = (MemoryDisk::new(), "127.0.0.1:0".to_owned());
        let mut tower = Self { process: None, keys, disk, address };
        tower.start(net).await;
        tower
    }

    pub async fn start(&mut self, net: &Cluster) {
        let config = Config {
            tower: TowerConfig {
                listen: self.address.clone(),
                takes_trusted: true,
                mempool_poll_ms: 50,
                ..TowerConfig::default()
            },
            ..Config::default()
        };
        let environment = Environment {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            chain: net.chain.source(),
            broadcaster: net.chain.broadcaster(),
            fees: net.chain.fees(),
            store: Arc::new(self.disk.open()),
            links: Arc::new(TcpLinks),
            committing: Committing::Thread,
        };
        let process = TowerProcess::start(&config, &self.keys, environment).await.unwrap();
        self.address.clone_from(&process.address);
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

    pub fn key(&self) -> PublicKey {
        self.keys.tower_secrets().identity().public_key(&Secp256k1::new())
    }

    /// Lets it guard `name` from now on.
    pub async fn guards(&self, net: &Cluster, name: &str, mode: Mode) {
        net.node(name).towers.add(self.key(), &self.address, mode).await.unwrap();
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

/// The disks of the nodes, by name.
pub type Disks = BTreeMap<&'static str, MemoryDisk>;

/// Victim and cheater with coins, on disks in memory.
pub async fn start(net: &mut Cluster) -> Disks {
    let mut disks = Disks::new();
    for name in [VICTIM, CHEATER] {
        let disk = MemoryDisk::new();
        let options = NodeOptions { disk: Some(disk.clone()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
        disks.insert(name, disk);
    }
    net.fund(&[VICTIM, CHEATER], Amount::from_sat(COINS_SAT), 3).await.unwrap();
    disks
}

/// Stops `name` and copies its disk.
pub async fn copy(net: &mut Cluster, disks: &Disks, name: &str) -> Image {
    net.stop(name).await.unwrap();
    Image::of(&disks[name])
}

/// Starts `name`, which is stopped, and waits until it has followed the chain.
pub async fn wake(net: &mut Cluster, name: &str) {
    net.start(name).await.unwrap();
    net.synced().await.unwrap();
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

/// The fees of all transactions so far, satoshi.
pub async fn fees_sat(net: &Cluster) -> u64 {
    net.on_chain().await.unwrap().fees.to_sat()
}
