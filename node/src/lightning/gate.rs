//! The output gate: nothing LDK says leaves before the state that made it say so is durable.
//!
//! LDK runs on in memory and its persister answers "completed" at once. In exchange this room
//! owes one rule, kept here and nowhere else: peer messages and broadcasts are taken before a
//! batch is sealed and released after it is durable. Whatever LDK had done when an output was
//! taken is therefore in that batch or an earlier one.
//!
//! The manager and the monitors are written of one moment: [`SealingWriter`] seals the batch at
//! the first byte the manager writes, when LDK holds its consistency lock and no monitor update
//! can be under way. So a manager older than a monitor never reaches the disk.
//!
//! Events need more than that lock, since LDK does not hold it while they are handled: one that
//! is handled between the seal and the manager's list of events would be gone from this batch's
//! manager while its record waits for the next batch. [`OutputGate::between_cycles`] excludes
//! the two from each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use lightning::chain::chaininterface::{BroadcasterInterface, TransactionType};
use lightning::io;
use lightning::ln::msgs::{BaseMessageHandler, MessageSendEvent};
use lightning::util::ser::{Writeable, Writer};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::build::ChannelManager;
use super::connections::Reading;
use super::htlcs::HtlcProbe;
use super::ticks::Answers;
use super::withheld::Withheld;
use crate::chain::broadcast::BroadcastQueue;
use crate::store::{Batch, Deltas, Gate};
use crate::wallet::{Purpose, Wallet};

/// Holds LDK's outputs until their cause is durable.
pub struct OutputGate {
    guarded: OnceLock<Guarded>,
    broadcasts: BroadcastQueue,
    wallet: Arc<Wallet>,
    /// What waits for a leaf of a batch to be on chain.
    pub(super) withheld: Withheld,
    held: Mutex<Held>,
    /// Packages LDK asked for since the last cycle.
    asked: Mutex<Vec<Vec<Transaction>>>,
    /// Held while LDK's events are handled, and while the manager is encoded.
    handling: Mutex<()>,
    /// Whether a monitor was written since the manager was last encoded.
    monitor_written: AtomicBool,
    /// What the links are reading.
    pub(super) reading: Arc<Reading>,
    /// What peers owe in answer to what was collected.
    pub(super) answers: Answers,
    /// Follows HTLCs for figures.
    pub(super) htlcs: HtlcProbe,
    /// Wakes whoever lets the peer handler send.
    pub(super) released: Arc<Notify>,
}

struct Guarded {
    /// Weak, since the manager holds the gate as its broadcaster.
    manager: Weak<ChannelManager>,
    /// The manager on disk; used by the commit cycle alone.
    written: Mutex<Deltas>,
}

#[derive(Default)]
struct Held {
    /// Taken from LDK, waiting for the batch under way.
    messages: Vec<MessageSendEvent>,
    packages: Vec<Vec<Transaction>>,
    /// Durable, waiting for the peer handler.
    ready: VecDeque<MessageSendEvent>,
}

impl OutputGate {
    /// Makes a gate in front of `broadcasts`. `wallet` hears of every transaction that is not
    /// `withheld`.
    pub(super) fn new(broadcasts: BroadcastQueue, wallet: Arc<Wallet>, withheld: Withheld) -> Self {
        Self {
            guarded: OnceLock::new(),
            broadcasts,
            wallet,
            withheld,
            held: Mutex::default(),
            asked: Mutex::default(),
            handling: Mutex::new(()),
            monitor_written: AtomicBool::new(false),
            reading: Arc::default(),
            answers: Answers::default(),
            htlcs: HtlcProbe::default(),
            released: Arc::new(Notify::new()),
        }
    }

    /// Puts `manager` behind the gate, `written` being what the disk has of it. Called once, when
    /// its monitors are under watch; until then nothing of LDK is taken or sealed.
    pub(super) fn guard(&self, manager: &Arc<ChannelManager>, written: Deltas) {
        let guarded = Guarded { manager: Arc::downgrade(manager), written: Mutex::new(written) };
        assert!(self.guarded.set(guarded).is_ok(), "a gate guards one manager");
    }

    /// The manager, and the disk's copy of it.
    fn guarded(&self) -> Option<(Arc<ChannelManager>, &Mutex<Deltas>)> {
        let guarded = self.guarded.get()?;
        Some((guarded.manager.upgrade()?, &guarded.written))
    }

    /// Notes that a monitor write is pending: the manager must go with it.
    pub(super) fn monitor_written(&self) {
        self.monitor_written.store(true, Ordering::Release);
    }

    /// Runs `handle`, which takes events from the manager, while no batch is sealed: an event
    /// leaves the manager on disk in no earlier batch than that of its records. Nor does a cycle
    /// begin: what the events lead to leaves in one.
    pub(super) fn between_cycles(&self, handle: impl FnOnce()) {
        let _no_seal = self.handling.lock();
        handle();
    }

    /// Coins that `package` spends are taken from here on, and change of it counts.
    fn tell_wallet(&self, package: &[Transaction]) {
        for transaction in package {
            let _durable_before_it_leaves = self.wallet.apply_unconfirmed(transaction);
        }
    }

    /// Returns the messages that may be sent now.
    pub(super) fn take_ready(&self) -> Vec<MessageSendEvent> {
        self.held.lock().ready.drain(..).collect()
    }

    /// Lets an answer leave that depends on nothing that must be durable.
    pub(super) fn answer(&self, message: MessageSendEvent) {
        self.held.lock().ready.push_back(message);
        self.released.notify_one();
    }

    /// Tells LDK that `peer` has gone, and drops what was meant for that connection.
    ///
    /// A message of an old connection on a new one would break the protocol; LDK makes it anew
    /// after `channel_reestablish`.
    pub(super) fn peer_disconnected(&self, manager: &ChannelManager, peer: PublicKey) {
        // One lock over both, or a cycle could take messages between them.
        let mut held = self.held.lock();
        manager.peer_disconnected(peer);
        self.answers.disconnected(peer);
        held.messages.retain(|message| receiver(message) != Some(peer));
        held.ready.retain(|message| receiver(message) != Some(peer));
    }
}

impl Gate for OutputGate {
    fn settle(&self) {
        self.reading.settle();
    }

    fn collect(&self) -> bool {
        let Some((manager, _)) = self.guarded() else {
            return false;
        };
        drop(self.handling.lock());
        let mut held = self.held.lock();
        let messages = manager.get_and_clear_pending_msg_events();
        self.answers.asked(&messages);
        self.htlcs.leaving(&messages);
        held.messages.extend(messages);
        held.packages.append(&mut self.asked.lock());
        !held.messages.is_empty() || !held.packages.is_empty()
    }

    fn seal(&self, seal: &mut dyn FnMut() -> Batch) -> Batch {
        let Some((manager, written)) = self.guarded() else {
            return seal();
        };
        let mut batch = Batch::default();
        let dirty = manager.get_and_clear_needs_persistence();
        if !self.monitor_written.swap(false, Ordering::AcqRel) && !dirty {
            batch = seal();
            if !self.monitor_written.swap(false, Ordering::AcqRel) {
                return batch;
            }
            // A monitor update slipped in between: its manager follows in the same batch.
        }
        let _no_events = self.handling.lock();
        let mut written = written.lock();
        let mut writer = SealingWriter { seal, sealed: None, bytes: written.buffer() };
        manager.write(&mut writer).expect("writing to memory cannot fail");
        let SealingWriter { sealed, bytes, .. } = writer;
        batch.append(sealed.expect("a manager writes at least one byte"));
        written.replace(bytes, &mut batch);
        batch
    }

    fn release(&self) {
        let packages = {
            let mut held = self.held.lock();
            let messages = std::mem::take(&mut held.messages);
            held.ready.extend(messages);
            std::mem::take(&mut held.packages)
        };
        for package in packages {
            if let Some(package) = self.withheld.pass(package) {
                self.broadcasts.push(package);
            }
        }
        for package in self.withheld.take_due() {
            self.tell_wallet(&package);
            self.broadcasts.push(package);
        }
        self.released.notify_one();
    }
}

impl BroadcasterInterface for OutputGate {
    fn broadcast_transactions(&self, transactions: &[(&Transaction, TransactionType)]) {
        let package: Vec<Transaction> =
            transactions.iter().map(|(transaction, _)| (*transaction).clone()).collect();
        for (transaction, kind) in transactions {
            self.wallet.note_purpose(transaction, purpose(kind));
        }
        if !self.withheld.waits(&package) {
            self.tell_wallet(&package);
        }
        self.asked.lock().push(package);
    }
}

/// Why LDK made a transaction, if that is for the wallet to know.
fn purpose(kind: &TransactionType) -> Option<Purpose> {
    match kind {
        TransactionType::CooperativeClose { .. } => Some(Purpose::Close),
        TransactionType::AnchorBump { .. } => Some(Purpose::Anchor),
        TransactionType::Claim { .. } | TransactionType::Sweep { .. } => Some(Purpose::Sweep),
        TransactionType::InteractiveFunding { .. } => Some(Purpose::Funding),
        // A commitment pays the wallet nothing; the wallet made the funding itself.
        TransactionType::UnilateralClose { .. } | TransactionType::Funding { .. } => None,
    }
}

/// Seals the batch at the first byte written, inside LDK's consistency lock.
struct SealingWriter<'a> {
    seal: &'a mut dyn FnMut() -> Batch,
    sealed: Option<Batch>,
    bytes: Vec<u8>,
}

impl Writer for SealingWriter<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), io::Error> {
        if self.sealed.is_none() {
            self.sealed = Some((self.seal)());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// The peer a message is for; `None` for a broadcast to all.
fn receiver(message: &MessageSendEvent) -> Option<PublicKey> {
    use MessageSendEvent as M;
    match message {
        M::SendPeerStorage { node_id, .. }
        | M::SendPeerStorageRetrieval { node_id, .. }
        | M::SendAcceptChannel { node_id, .. }
        | M::SendAcceptChannelV2 { node_id, .. }
        | M::SendOpenChannel { node_id, .. }
        | M::SendOpenChannelV2 { node_id, .. }
        | M::SendFundingCreated { node_id, .. }
        | M::SendFundingSigned { node_id, .. }
        | M::SendStfu { node_id, .. }
        | M::SendSpliceInit { node_id, .. }
        | M::SendSpliceAck { node_id, .. }
        | M::SendSpliceLocked { node_id, .. }
        | M::SendTxAddInput { node_id, .. }
        | M::SendTxAddOutput { node_id, .. }
        | M::SendTxRemoveInput { node_id, .. }
        | M::SendTxRemoveOutput { node_id, .. }
        | M::SendTxComplete { node_id, .. }
        | M::SendTxSignatures { node_id, .. }
        | M::SendTxInitRbf { node_id, .. }
        | M::SendTxAckRbf { node_id, .. }
        | M::SendTxAbort { node_id, .. }
        | M::SendChannelReady { node_id, .. }
        | M::SendAnnouncementSignatures { node_id, .. }
        | M::UpdateHTLCs { node_id, .. }
        | M::SendRevokeAndACK { node_id, .. }
        | M::SendClosingSigned { node_id, .. }
        | M::SendShutdown { node_id, .. }
        | M::SendChannelReestablish { node_id, .. }
        | M::SendChannelAnnouncement { node_id, .. }
        | M::SendChannelUpdate { node_id, .. }
        | M::HandleError { node_id, .. }
        | M::SendChannelRangeQuery { node_id, .. }
        | M::SendShortIdsQuery { node_id, .. }
        | M::SendReplyChannelRange { node_id, .. }
        | M::SendGossipTimestampFilter { node_id, .. } => Some(*node_id),
        M::BroadcastChannelAnnouncement { .. }
        | M::BroadcastChannelUpdate { .. }
        | M::BroadcastNodeAnnouncement { .. } => None,
    }
}
