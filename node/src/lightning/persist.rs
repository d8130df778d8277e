//! LDK's state in our store: monitors as one full write and its updates, the rest by name.
//!
//! A monitor is written in full when it is new, when LDK asks for it (blocks with pending
//! claims), when a splice gave it a new funding output and so let it forget, and when its updates
//! since then weigh as much as itself, so that the bytes written stay within a constant factor of
//! the bytes that changed. Everything else is an appended update. Nothing here syncs: the commit
//! cycle does, see `gate.rs` for why LDK may go on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::OutPoint;
use lightning::chain::BlockLocator;
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chaininterface::{BroadcasterInterface, FeeEstimator};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::io;
use lightning::sign::InMemorySigner;
use lightning::util::logger::Logger;
use lightning::util::persist::{KVStoreSync, MonitorName};
use lightning::util::ser::{Readable, ReadableArgs, Writeable};
use parking_lot::Mutex;

use super::gate::OutputGate;
use super::justice::{JusticeLog, Staged};
use super::signer::NodeKeys;
use super::splice::MonitorWeight;
use super::types::ChannelId;
use crate::store::{Batch, Committer, Pair, StoreError, Table, Ticket};

/// Pairs read per step when a table is loaded.
const LOAD_STEP: usize = 1_000;

/// Why the saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what LDK wrote.
    #[error("{what} on disk cannot be read: {detail}; restore a backup, do not delete it")]
    Unreadable {
        /// Which record.
        what: String,
        /// LDK's word for it.
        detail: String,
    },
}

/// Writes monitors through the commit cycle.
pub struct MonitorPersister {
    committer: Committer,
    gate: Arc<OutputGate>,
    justice: Arc<JusticeLog>,
    /// By monitor name: what the next full write would replace.
    written: Mutex<HashMap<String, Written>>,
    /// Names of monitors marked dead since the start.
    dead: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct Written {
    /// `None` until LDK shows the monitor.
    channel: Option<ChannelId>,
    /// The funding output of the full write.
    funding: Option<OutPoint>,
    full_bytes: usize,
    update_bytes: usize,
    /// Size of the full write that followed the last splice; 0 before the first.
    renewed_bytes: usize,
    /// Ids of the updates on disk since the full write.
    updates: Vec<u64>,
}

impl MonitorPersister {
    /// Makes a persister that writes through `committer` and tells `gate`. What is revealed on the
    /// way goes to `justice`.
    pub fn new(committer: Committer, gate: Arc<OutputGate>, justice: Arc<JusticeLog>) -> Self {
        Self { committer, gate, justice, written: Mutex::default(), dead: Mutex::default() }
    }

    /// `batch` and what is staged are written with it.
    fn write_full(
        &self,
        name: &MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
        mut batch: Batch,
        staged: Staged,
    ) {
        let name = name.to_string();
        let bytes = monitor.encode();
        let funding = funding_of(monitor);
        {
            let mut written = self.written.lock();
            let entry = written.entry(name.clone()).or_default();
            entry.channel = Some(monitor.channel_id().into());
            if entry.funding.replace(funding).is_some_and(|before| before != funding) {
                entry.renewed_bytes = bytes.len();
                let value = (bytes.len() as u64).to_be_bytes().to_vec();
                batch.put(renewed_key(&name), value);
            }
            for id in entry.updates.drain(..) {
                batch.delete(update_key(&name, id));
            }
            entry.full_bytes = bytes.len();
            entry.update_bytes = 0;
        }
        batch.put(Table::Monitor.key(&name), bytes);
        self.enqueue(batch, staged);
    }

    fn enqueue(&self, batch: Batch, staged: Staged) {
        // The flag first: a cycle that takes the write must see it.
        self.gate.monitor_written();
        let _durable_with_the_cycle = self.justice.enqueue(batch, staged);
    }

    /// Reads all monitors, each with its updates applied, but for those marked dead: they go to
    /// the archive.
    ///
    /// # Errors
    ///
    /// If one cannot be read: a node must not run with a channel unwatched.
    pub(super) fn load<B, F, L>(
        &self,
        keys: &NodeKeys,
        broadcaster: &B,
        fees: &F,
        logger: &L,
    ) -> Result<Vec<ChannelMonitor<InMemorySigner>>, LoadError>
    where
        B: BroadcasterInterface,
        F: FeeEstimator,
        L: Logger,
    {
        self.bury_dead()?;
        let mut monitors = Vec::new();
        for (key, bytes) in read_table(&self.committer, Table::Monitor)? {
            let name = String::from_utf8_lossy(&key).into_owned();
            let unreadable = |what: &str, detail: &dyn std::fmt::Debug| LoadError::Unreadable {
                what: format!("{what} {name}"),
                detail: format!("{detail:?}"),
            };
            let (_, monitor) = <(BlockLocator, ChannelMonitor<InMemorySigner>)>::read(
                &mut &bytes[..],
                (keys, keys),
            )
            .map_err(|error| unreadable("channel monitor", &error))?;
            let mut written = Written {
                channel: Some(monitor.channel_id().into()),
                funding: Some(funding_of(&monitor)),
                full_bytes: bytes.len(),
                renewed_bytes: self.renewed_bytes(&name)?,
                ..Written::default()
            };
            let (from, to) = update_range(&name);
            for (key, bytes) in read_range(&self.committer, &from, &to)? {
                let update = ChannelMonitorUpdate::read(&mut &bytes[..])
                    .map_err(|error| unreadable("update of channel monitor", &error))?;
                written.update_bytes += key.len() + bytes.len();
                written.updates.push(update.update_id);
                // A full write covers the updates before it.
                if update.update_id > monitor.get_latest_update_id() {
                    monitor
                        .update_monitor(&update, broadcaster, fees, logger)
                        .map_err(|()| unreadable("update of channel monitor", &update.update_id))?;
                }
            }
            self.written.lock().insert(name, written);
            monitors.push(monitor);
        }
        Ok(monitors)
    }

    /// Marks the monitor `name` dead: the next start leaves it out. LDK by itself keeps the
    /// monitor of a channel whose funding output is never spent on chain for ever.
    pub(super) fn mark_dead(&self, name: &MonitorName) -> Ticket {
        let name = name.to_string();
        let mut batch = Batch::default();
        batch.put(Table::DeadMonitor.key(&name), vec![]);
        let channel = self.written.lock().get(&name).and_then(|written| written.channel);
        self.dead.lock().insert(name);
        let staged = channel.map(|channel| self.justice.gone(channel, &mut batch));
        self.justice.enqueue(batch, staged.unwrap_or_default())
    }

    /// Whether the monitor `name` is marked dead: nothing that it claims will ever come.
    pub(super) fn is_dead(&self, name: &MonitorName) -> bool {
        self.dead.lock().contains(&name.to_string())
    }

    /// Archives the monitors that an earlier process marked dead.
    fn bury_dead(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (key, _) in read_table(&self.committer, Table::DeadMonitor)? {
            let name = String::from_utf8_lossy(&key).into_owned();
            if let Some(bytes) = self.committer.get(&Table::Monitor.key(&name))? {
                batch.put(Table::MonitorArchive.key(&name), bytes);
                batch.delete(Table::Monitor.key(&name));
            }
            let (from, to) = update_range(&name);
            for (key, _) in read_range(&self.committer, &from, &to)? {
                batch.delete(key);
            }
            batch.delete(renewed_key(&name));
            batch.delete(Table::DeadMonitor.key(&name));
            tracing::info!(name, "monitor of a dead channel of a batch is archived");
        }
        if !batch.is_empty() {
            let _found_again_after_a_crash = self.committer.enqueue(batch);
        }
        Ok(())
    }

    /// What each channel's monitor weighs.
    pub(super) fn weights(&self) -> HashMap<ChannelId, MonitorWeight> {
        let written = self.written.lock();
        let weigh = |entry: &Written| {
            let weight = MonitorWeight {
                bytes: entry.full_bytes as u64,
                stored_bytes: (entry.full_bytes + entry.update_bytes) as u64,
                renewed_bytes: entry.renewed_bytes as u64,
            };
            Some((entry.channel?, weight))
        };
        written.values().filter_map(weigh).collect()
    }

    fn renewed_bytes(&self, name: &str) -> Result<usize, StoreError> {
        let Some(value) = self.committer.get(&renewed_key(name))? else {
            return Ok(0);
        };
        // Unreadable is unknown: the next splice comes a little early.
        let bytes = value.try_into().map_or(0, u64::from_be_bytes);
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

impl Persist<InMemorySigner> for MonitorPersister {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        let mut batch = Batch::default();
        self.justice.begin(monitor, &mut batch);
        self.write_full(&name, monitor, batch, Staged::default());
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        let Some(update) = update else {
            self.write_full(&name, monitor, Batch::default(), Staged::default());
            return ChannelMonitorUpdateStatus::Completed;
        };
        let text = name.to_string();
        let key = update_key(&text, update.update_id);
        let bytes = update.encode();
        let mut batch = Batch::default();
        let staged = self.justice.update(monitor, update, &bytes, &mut batch);
        let full = {
            let mut written = self.written.lock();
            let entry = written.entry(text).or_default();
            entry.update_bytes += key.len() + bytes.len();
            // After a splice the monitor is small, and what the disk has of it is not.
            let renewed = entry.funding.is_some_and(|funding| funding != funding_of(monitor));
            let full = renewed || entry.update_bytes > entry.full_bytes;
            if !full {
                entry.updates.push(update.update_id);
            }
            full
        };
        if full {
            self.write_full(&name, monitor, batch, staged);
        } else {
            batch.put(key, bytes);
            self.enqueue(batch, staged);
        }
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        let name = name.to_string();
        let mut batch = Batch::default();
        match self.committer.get(&Table::Monitor.key(&name)) {
            Ok(Some(bytes)) => {
                batch.put(Table::MonitorArchive.key(&name), bytes);
                batch.delete(Table::Monitor.key(&name));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, name, "closed channel stays in the store for now");
                return;
            }
        }
        let mut staged = Staged::default();
        if let Some(written) = self.written.lock().remove(&name) {
            for id in written.updates {
                batch.delete(update_key(&name, id));
            }
            if let Some(channel) = written.channel {
                staged = self.justice.gone(channel, &mut batch);
            }
        }
        batch.delete(renewed_key(&name));
        self.enqueue(batch, staged);
    }
}

fn funding_of(monitor: &ChannelMonitor<InMemorySigner>) -> OutPoint {
    monitor.get_funding_txo().into_bitcoin_outpoint()
}

/// Where the size of a monitor after its last splice is kept.
fn renewed_key(name: &str) -> Vec<u8> {
    LdkObjects::key("tributary", "renewed_monitor_bytes", name)
}

fn update_key(name: &str, update_id: u64) -> Vec<u8> {
    let mut rest = name.as_bytes().to_vec();
    rest.push(b'/');
    rest.extend_from_slice(&update_id.to_be_bytes());
    Table::MonitorUpdate.key(rest)
}

fn update_range(name: &str) -> (Vec<u8>, Vec<u8>) {
    (Table::MonitorUpdate.key(format!("{name}/")), Table::MonitorUpdate.key(format!("{name}0")))
}

fn read_table(committer: &Committer, table: Table) -> Result<Vec<Pair>, StoreError> {
    let (from, to) = table.range();
    let pairs = read_range(committer, &from, &to)?;
    Ok(pairs
        .into_iter()
        .filter_map(|(key, value)| Some((table.rest(&key)?.to_vec(), value)))
        .collect())
}

fn read_range(committer: &Committer, from: &[u8], to: &[u8]) -> Result<Vec<Pair>, StoreError> {
    let mut all = Vec::new();
    committer.scan_steps(from, to, LOAD_STEP, |pairs| {
        all.extend(pairs);
        Ok(())
    })?;
    Ok(all)
}

fn failed(error: StoreError) -> io::Error {
    io::Error::new(io::ErrorKind::Other, error)
}

/// LDK's smaller objects (sweeper, scorer, graph) in the store.
pub struct LdkObjects {
    committer: Committer,
}

impl LdkObjects {
    /// Reads and writes through `committer`.
    pub fn new(committer: Committer) -> Self {
        Self { committer }
    }

    fn key(primary: &str, secondary: &str, key: &str) -> Vec<u8> {
        Table::Ldk.key(format!("{primary}/{secondary}/{key}"))
    }
}

impl KVStoreSync for LdkObjects {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        self.committer
            .get(&Self::key(primary, secondary, key))
            .map_err(failed)?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.put(Self::key(primary, secondary, key), value);
        let _durable_with_the_cycle = self.committer.enqueue(batch);
        Ok(())
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        _lazy: bool,
    ) -> Result<(), io::Error> {
        let mut batch = Batch::default();
        batch.delete(Self::key(primary, secondary, key));
        let _durable_with_the_cycle = self.committer.enqueue(batch);
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let prefix = Self::key(primary, secondary, "");
        let mut to = prefix.clone();
        *to.last_mut().expect("a key ends in its separator") += 1;
        let pairs = read_range(&self.committer, &prefix, &to).map_err(failed)?;
        Ok(pairs
            .into_iter()
            .map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned())
            .collect())
    }
}
