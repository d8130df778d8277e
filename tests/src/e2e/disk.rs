//! Nodes on disks in memory, and what a disk had at one time: a cheater boots from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use node::config::Config;
use node::dev::{Cluster, NodeOptions};
use node::store::{Batch, MemoryDisk, Pair, Store};

/// Above every key of a store.
const LAST_KEY: [u8; 64] = [0xff; 64];

/// A copy of all that is on a disk.
#[derive(Debug, Clone)]
pub struct Image(Vec<Pair>);

impl Image {
    /// Copies `disk`, of which no node runs.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn of(disk: &MemoryDisk) -> Self {
        let pairs = disk.open().scan(&[], &LAST_KEY, usize::MAX);
        Self(pairs.expect("the disk can be read"))
    }

    /// Makes `disk`, of which no node runs, what it was when it was copied.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn put_back(&self, disk: &MemoryDisk) {
        let now = Self::of(disk);
        let store = disk.open();
        let mut writes = Batch { term: store.term(), ..Batch::default() };
        for (key, _) in now.0 {
            writes.delete(key);
        }
        for (key, value) in &self.0 {
            writes.put(key.clone(), value.clone());
        }
        store.commit(&writes).expect("the disk can be written");
    }
}

/// The disks of the nodes, by name.
pub type Disks = BTreeMap<&'static str, MemoryDisk>;

/// Starts `names` on disks in memory.
///
/// # Panics
///
/// If one does not start.
pub async fn start_on_disks(
    net: &mut Cluster,
    names: &[&'static str],
    configure: impl Fn(&mut Config) + Send + Sync + Copy + 'static,
) -> Disks {
    let mut disks = Disks::new();
    for name in names {
        let disk = MemoryDisk::new();
        let options = NodeOptions { disk: Some(disk.clone()), configure: Arc::new(configure) };
        net.add(name, options).await.expect("the node starts");
        disks.insert(name, disk);
    }
    disks
}

/// Stops `name` and copies its disk.
///
/// # Panics
///
/// If it does not run.
pub async fn copy(net: &mut Cluster, disks: &Disks, name: &str) -> Image {
    net.stop(name).await.expect("the node stops");
    Image::of(&disks[name])
}

/// Starts `name`, which is stopped, and waits until it has followed the chain.
///
/// # Panics
///
/// If it does not start.
pub async fn wake(net: &mut Cluster, name: &str) {
    net.start(name).await.expect("the node starts");
    net.synced().await.expect("every node follows the chain");
}
