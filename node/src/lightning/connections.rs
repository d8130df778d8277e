//! Peer connections: LDK's peer handler over [`Link`]s.
//!
//! Each link has a reader, which feeds what arrives to LDK, and a writer, which sends all that
//! has gathered in one write. What has arrived together is one [`Pass`], and no commit cycle
//! begins in the middle of one: a peer's updates, its commitment and its revocation, some hundred
//! kilobytes under load, are answered in one cycle. LDK calls [`LinkDescriptor::send_data`] under its own locks, so it
//! only appends to a buffer.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use lightning::ln::peer_handler::SocketDescriptor;
use parking_lot::{Condvar, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::build::PeerManager;
use crate::environment::BoxedLink;
use crate::runtime::Tasks;
use crate::store::Committer;

/// Bytes a link buffers before LDK is told to wait.
const OUT_BUFFER_MAX: usize = 512 * 1024;
/// Bytes read at once.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes after which a pass ends though there may be more.
const PASS_MAX: usize = 512 * 1024;
/// How long a commit cycle waits at most for passes to end.
const SETTLE_WAIT: Duration = Duration::from_millis(20);

/// LDK's handle to one link.
#[derive(Clone)]
pub struct LinkDescriptor {
    shared: Arc<LinkShared>,
}

struct LinkShared {
    number: u64,
    out: Mutex<Out>,
    /// Wakes the writer.
    writable: Notify,
    /// Wakes a reader that LDK had paused.
    resume: Notify,
    paused: AtomicBool,
    closed: CancellationToken,
}

#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// LDK was refused some bytes and waits to be called.
    refused: bool,
}

impl LinkDescriptor {
    fn new(number: u64) -> Self {
        Self {
            shared: Arc::new(LinkShared {
                number,
                out: Mutex::default(),
                writable: Notify::new(),
                resume: Notify::new(),
                paused: AtomicBool::new(false),
                closed: CancellationToken::new(),
            }),
        }
    }
}

impl SocketDescriptor for LinkDescriptor {
    fn send_data(&mut self, data: &[u8], continue_read: bool) -> usize {
        self.shared.paused.store(!continue_read, Ordering::Release);
        if continue_read {
            self.shared.resume.notify_one();
        }
        if data.is_empty() || self.shared.closed.is_cancelled() {
            return 0;
        }
        let taken = {
            let mut out = self.shared.out.lock();
            let taken = data.len().min(OUT_BUFFER_MAX.saturating_sub(out.bytes.len()));
            out.bytes.extend_from_slice(&data[..taken]);
            out.refused = taken < data.len();
            taken
        };
        self.shared.writable.notify_one();
        taken
    }

    fn disconnect_socket(&mut self) {
        self.shared.closed.cancel();
    }
}

impl PartialEq for LinkDescriptor {
    fn eq(&self, other: &Self) -> bool {
        self.shared.number == other.shared.number
    }
}
impl Eq for LinkDescriptor {}
impl Hash for LinkDescriptor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shared.number.hash(state);
    }
}

/// Who opened a link.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled this node.
    Outbound(PublicKey),
}

/// The passes of all readers.
#[derive(Default)]
pub struct Reading {
    passes: Mutex<Passes>,
    /// Wakes the commit cycle.
    settled: Condvar,
    /// Wakes the driver.
    ended: Notify,
}

#[derive(Default)]
struct Passes {
    begun: u64,
    under_way: BTreeSet<u64>,
}

/// What one reader takes in one go.
struct Pass<'a> {
    reading: &'a Reading,
    number: u64,
}

impl Reading {
    fn begin(&self) -> Pass<'_> {
        let mut passes = self.passes.lock();
        passes.begun += 1;
        let number = passes.begun;
        passes.under_way.insert(number);
        Pass { reading: self, number }
    }

    /// Waits for the end of a pass.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Waits for the end of the passes that have begun, for a moment at most.
    pub fn settle(&self) {
        let until = (Instant::now() + SETTLE_WAIT).into_std();
        let mut passes = self.passes.lock();
        let begun = passes.begun;
        while passes.under_way.first().is_some_and(|oldest| *oldest <= begun)
            && !self.settled.wait_until(&mut passes, until).timed_out()
        {}
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.reading.passes.lock().under_way.remove(&self.number);
        self.reading.settled.notify_one();
        self.reading.ended.notify_one();
    }
}

/// What the links of a node share.
#[derive(Clone)]
pub struct Connections {
    /// LDK's peer handler.
    pub peers: Arc<PeerManager>,
    /// Kicked after each pass: a reply may be waiting behind the gate.
    pub committer: Committer,
    /// What is being read.
    pub reading: Arc<Reading>,
    /// Wakes the task that lets the peer handler send.
    pub pump: Arc<Notify>,
    /// Where readers and writers run.
    pub tasks: Tasks,
    /// Numbers links, so that LDK can tell an old link to a peer from its new one. Each node has
    /// its own count: what a simulation does must not depend on the nodes before it.
    pub links: Arc<AtomicU64>,
}

impl Connections {
    /// Hands `link` to LDK. Returns a signal for the end of the link, or `None` if LDK refused
    /// it at once.
    pub fn attach(&self, link: BoxedLink, direction: Direction) -> Option<CancellationToken> {
        let descriptor = LinkDescriptor::new(self.links.fetch_add(1, Ordering::Relaxed));
        let greeting = match direction {
            Direction::Inbound => {
                self.peers.new_inbound_connection(descriptor.clone(), None).ok()?;
                Vec::new()
            }
            Direction::Outbound(node_id) => {
                self.peers.new_outbound_connection(node_id, descriptor.clone(), None).ok()?
            }
        };
        descriptor.shared.out.lock().bytes.extend_from_slice(&greeting);
        descriptor.shared.writable.notify_one();
        let (reader, writer) = tokio::io::split(link);
        let closed = descriptor.shared.closed.clone();
        self.tasks.spawn("link reader", self.clone().read(descriptor.clone(), reader));
        self.tasks.spawn("link writer", self.clone().write(descriptor, writer));
        Some(closed)
    }

    async fn read(self, mut descriptor: LinkDescriptor, mut reader: ReadHalf<BoxedLink>) {
        let shared = Arc::clone(&descriptor.shared);
        let mut buffer = vec![0; READ_BUFFER];
        let told_by_ldk = loop {
            while shared.paused.load(Ordering::Acquire) && !shared.closed.is_cancelled() {
                tokio::select! {
                    biased;
                    () = self.tasks.stopped() => break,
                    () = shared.closed.cancelled() => break,
                    () = shared.resume.notified() => {}
                }
            }
            let read = tokio::select! {
                biased;
                () = self.tasks.stopped() => break false,
                () = shared.closed.cancelled() => break true,
                read = reader.read(&mut buffer) => read,
            };
            let pass = self.reading.begin();
            let (mut read, mut taken) = (Some(read), 0);
            let over = loop {
                match read {
                    Some(Ok(0) | Err(_)) => break Some(shared.closed.is_cancelled()),
                    Some(Ok(count)) => {
                        if self.peers.read_event(&mut descriptor, &buffer[..count]).is_err() {
                            break Some(true);
                        }
                        taken += count;
                    }
                    None => break None,
                }
                if taken >= PASS_MAX || shared.paused.load(Ordering::Acquire) {
                    break None;
                }
                read = reader.read(&mut buffer).now_or_never();
            };
            drop(pass);
            self.committer.kick();
            self.pump.notify_one();
            if let Some(told_by_ldk) = over {
                break told_by_ldk;
            }
            // One busy peer must not starve the others on its worker.
            tokio::task::yield_now().await;
        };
        if !told_by_ldk {
            self.peers.socket_disconnected(&descriptor);
        }
        shared.closed.cancel();
        shared.writable.notify_one();
        self.pump.notify_one();
    }

    async fn write(self, mut descriptor: LinkDescriptor, mut writer: WriteHalf<BoxedLink>) {
        let shared = Arc::clone(&descriptor.shared);
        loop {
            let (bytes, refused) = {
                let mut out = shared.out.lock();
                (std::mem::take(&mut out.bytes), std::mem::take(&mut out.refused))
            };
            if bytes.is_empty() {
                if shared.closed.is_cancelled() {
                    break;
                }
                tokio::select! {
                    biased;
                    // Last words, an error message say, are written before the end.
                    () = shared.closed.cancelled() => {}
                    () = shared.writable.notified() => {}
                }
                continue;
            }
            let written = tokio::select! {
                biased;
                () = self.tasks.stopped() => break,
                written = writer.write_all(&bytes) => written,
            };
            if written.is_err() {
                self.peers.socket_disconnected(&descriptor);
                shared.closed.cancel();
                break;
            }
            if refused && self.peers.write_buffer_space_avail(&mut descriptor).is_err() {
                shared.closed.cancel();
                break;
            }
        }
        let _ = writer.shutdown().await;
    }
}
