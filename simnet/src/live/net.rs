//! Links in memory: latency, slow hosts, cuts in one or both directions.
//!
//! A link is two pipes without tasks of their own: what is written lies in the pipe with the time
//! of its arrival, and the reader waits for that. Bytes are never lost or reordered inside a
//! link, as with TCP; what is cut waits, and comes through after the cut if the link still stands.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use node::environment::{BoxedLink, LinkError, LinkListener, Links};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::clock::SimClock;
use super::transcript::Transcript;
use crate::topology::Node;

/// How long a dial into a cut takes until it is given up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The links between all hosts. Clones share them.
#[derive(Clone)]
pub struct SimNet {
    shared: Arc<Shared>,
}

struct Shared {
    clock: SimClock,
    transcript: Arc<Transcript>,
    /// One way, by the ends of a channel, the lower first; others take `latency`.
    latencies: HashMap<(Node, Node), Duration>,
    latency: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    doors: HashMap<Node, mpsc::UnboundedSender<BoxedLink>>,
    /// From whom to whom nothing gets through.
    cuts: HashSet<(Node, Node)>,
    /// What each message of a host waits for before it leaves.
    disks: HashMap<Node, Disk>,
    /// Pipes by direction, to wake their readers after a cut.
    pipes: HashMap<(Node, Node), Vec<Weak<Mutex<Pipe>>>>,
}

/// A slow disk: nothing leaves before the sync that covers it, one sync at a time.
struct Disk {
    sync: Duration,
    /// When the last sync that is planned begins.
    begins: Instant,
}

impl Disk {
    /// When what is written now is durable: at the end of the first sync that begins after it.
    fn durable(&mut self, now: Instant) -> Instant {
        let ends = self.begins + self.sync;
        if ends <= now {
            self.begins = now;
        } else if self.begins <= now {
            self.begins = ends;
        }
        self.begins + self.sync
    }
}

impl SimNet {
    /// A network whose links take `latency` one way, except between the pairs in `latencies`,
    /// whose lower number comes first. What is delivered goes into `transcript`.
    pub fn new(
        clock: SimClock,
        transcript: Arc<Transcript>,
        latencies: HashMap<(Node, Node), Duration>,
        latency: Duration,
    ) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { clock, transcript, latencies, latency, state }) }
    }

    /// The links as `host` sees them.
    pub fn of(&self, host: Node) -> Arc<dyn Links> {
        Arc::new(HostLinks { net: self.clone(), host })
    }

    /// Where a host listens.
    pub fn address(host: Node) -> String {
        format!("n{host}:9735")
    }

    /// Lets nothing through from `from` to `to`, or lets all through again.
    pub fn cut(&self, from: Node, to: Node, is_cut: bool) {
        let mut state = self.shared.state.lock();
        if is_cut {
            state.cuts.insert((from, to));
            return;
        }
        state.cuts.remove(&(from, to));
        let pipes = state.pipes.get(&(from, to)).cloned().unwrap_or_default();
        drop(state);
        for pipe in pipes.iter().filter_map(Weak::upgrade) {
            pipe.lock().wake();
        }
    }

    /// Makes what leaves `host` wait for syncs that take `sync` each; none is a fast disk.
    pub fn slow_disk(&self, host: Node, sync: Option<Duration>) {
        let mut state = self.shared.state.lock();
        match sync {
            Some(sync) => {
                let begins = Instant::now().checked_sub(sync).unwrap_or_else(Instant::now);
                state.disks.insert(host, Disk { sync, begins });
            }
            None => drop(state.disks.remove(&host)),
        }
    }

    fn latency(&self, one: Node, other: Node) -> Duration {
        let pair = (one.min(other), one.max(other));
        self.shared.latencies.get(&pair).copied().unwrap_or(self.shared.latency)
    }

    fn is_cut(&self, from: Node, to: Node) -> bool {
        self.shared.state.lock().cuts.contains(&(from, to))
    }

    fn pipe(&self, from: Node, to: Node) -> Arc<Mutex<Pipe>> {
        let pipe = Arc::new(Mutex::new(Pipe::default()));
        let mut state = self.shared.state.lock();
        let pipes = state.pipes.entry((from, to)).or_default();
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.push(Arc::downgrade(&pipe));
        pipe
    }

    fn link(&self, ours: Node, theirs: Node) -> (SimLink, SimLink) {
        let (there, back) = (self.pipe(ours, theirs), self.pipe(theirs, ours));
        let end = |host, peer, inbound: &Arc<_>, outbound: &Arc<_>| SimLink {
            net: self.clone(),
            host,
            peer,
            inbound: Arc::clone(inbound),
            outbound: Arc::clone(outbound),
            arrival: None,
            sent: None,
        };
        (end(ours, theirs, &back, &there), end(theirs, ours, &there, &back))
    }
}

/// One direction of a link.
#[derive(Default)]
struct Pipe {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes of the first packet that were read.
    read: usize,
    /// When the reader hears that there is no more.
    ended: Option<Instant>,
    reader_is_gone: bool,
    reader: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One end of a link.
struct SimLink {
    net: SimNet,
    host: Node,
    peer: Node,
    inbound: Arc<Mutex<Pipe>>,
    outbound: Arc<Mutex<Pipe>>,
    /// Wakes the reader when the next packet arrives.
    arrival: Option<Pin<Box<Sleep>>>,
    /// When the last packet arrives there: none overtakes another.
    sent: Option<Instant>,
}

impl SimLink {
    /// When what is sent now arrives.
    fn arrives(&mut self) -> Instant {
        let now = Instant::now();
        let durable = match self.net.shared.state.lock().disks.get_mut(&self.host) {
            Some(disk) => disk.durable(now),
            None => now,
        };
        let arrives = durable + self.net.latency(self.host, self.peer);
        let arrives = self.sent.map_or(arrives, |sent| sent.max(arrives));
        self.sent = Some(arrives);
        arrives
    }

    fn end(&mut self) {
        let ended = self.arrives();
        let mut pipe = self.outbound.lock();
        pipe.ended.get_or_insert(ended);
        pipe.wake();
    }
}

impl AsyncRead for SimLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let is_cut = this.net.is_cut(this.peer, this.host);
        let now = Instant::now();
        let next = {
            let mut pipe = this.inbound.lock();
            let next = pipe.packets.front().map(|packet| packet.0).or(pipe.ended);
            match next {
                Some(at) if at <= now && !is_cut => {
                    take(&mut pipe, buffer, &this.net.shared, this.peer, this.host);
                    return Poll::Ready(Ok(()));
                }
                next => {
                    pipe.reader = Some(context.waker().clone());
                    next.filter(|_| !is_cut)
                }
            }
        };
        if let Some(at) = next {
            let arrival = this.arrival.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if arrival.deadline() != at {
                arrival.as_mut().reset(at);
            }
            if arrival.as_mut().poll(context).is_ready() {
                // The timer's tick is coarser than the clock: look again.
                context.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

/// Moves what fits of the first packet; a whole packet that begins to be read was delivered.
fn take(pipe: &mut Pipe, buffer: &mut ReadBuf<'_>, shared: &Shared, from: Node, to: Node) {
    let Some((_, packet)) = pipe.packets.front() else { return };
    if pipe.read == 0 {
        let at_us = u64::try_from(shared.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.transcript.message(at_us, from, to, packet);
    }
    let left = &packet[pipe.read..];
    let count = left.len().min(buffer.remaining());
    buffer.put_slice(&left[..count]);
    pipe.read += count;
    if pipe.read == packet.len() {
        pipe.read = 0;
        pipe.packets.pop_front();
    }
}

impl AsyncWrite for SimLink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let arrives = self.arrives();
        let mut pipe = self.outbound.lock();
        if pipe.reader_is_gone || pipe.ended.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        pipe.packets.push_back((arrives, bytes.to_vec()));
        pipe.wake();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.end();
        let mut pipe = self.inbound.lock();
        pipe.reader_is_gone = true;
        pipe.packets.clear();
    }
}

struct HostLinks {
    net: SimNet,
    host: Node,
}

fn host_of(address: &str) -> Option<Node> {
    address.strip_prefix('n')?.strip_suffix(":9735")?.parse().ok()
}

#[async_trait]
impl Links for HostLinks {
    async fn dial(&self, address: &str) -> Result<BoxedLink, LinkError> {
        let unreachable = |kind: io::ErrorKind| LinkError::Unreachable {
            address: address.to_owned(),
            source: kind.into(),
        };
        let refused = || unreachable(io::ErrorKind::ConnectionRefused);
        let peer = host_of(address).ok_or_else(refused)?;
        if self.net.is_cut(self.host, peer) || self.net.is_cut(peer, self.host) {
            sleep(DIAL_TIMEOUT).await;
            return Err(unreachable(io::ErrorKind::TimedOut));
        }
        let door = self.net.shared.state.lock().doors.get(&peer).cloned().ok_or_else(refused)?;
        let (ours, theirs) = self.net.link(self.host, peer);
        door.send(Box::new(theirs)).map_err(|_| refused())?;
        Ok(Box::new(ours))
    }

    async fn listen(&self, address: &str) -> Result<Arc<dyn LinkListener>, LinkError> {
        let (door, links) = mpsc::unbounded_channel();
        self.net.shared.state.lock().doors.insert(self.host, door);
        let links = tokio::sync::Mutex::new(links);
        Ok(Arc::new(SimListener { address: address.to_owned(), links }))
    }
}

struct SimListener {
    address: String,
    links: tokio::sync::Mutex<mpsc::UnboundedReceiver<BoxedLink>>,
}

#[async_trait]
impl LinkListener for SimListener {
    fn address(&self) -> String {
        self.address.clone()
    }

    async fn accept(&self) -> io::Result<BoxedLink> {
        self.links.lock().await.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const LATENCY: Duration = Duration::from_millis(20);

    async fn pair() -> (SimNet, BoxedLink, BoxedLink) {
        let clock = SimClock::start();
        let net = SimNet::new(clock, Arc::default(), HashMap::new(), LATENCY);
        let listener = net.of(1).listen(&SimNet::address(1)).await.unwrap();
        let one = net.of(0).dial(&SimNet::address(1)).await.unwrap();
        let other = listener.accept().await.unwrap();
        (net, one, other)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_after_the_latency_and_in_order() {
        let (net, mut one, mut other) = pair().await;
        let began = Instant::now();
        one.write_all(b"one").await.unwrap();
        one.write_all(b"two").await.unwrap();
        let mut got = [0; 6];
        other.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"onetwo");
        assert_eq!(began.elapsed(), LATENCY);
        assert_eq!(net.shared.transcript.messages(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_heard_after_what_was_said() {
        let (_net, mut one, mut other) = pair().await;
        one.write_all(b"bye").await.unwrap();
        drop(one);
        let mut got = Vec::new();
        other.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        assert!(other.write_all(b"x").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_cut_in_one_direction_comes_after_the_cut() {
        let (net, mut one, mut other) = pair().await;
        net.cut(0, 1, true);
        one.write_all(b"x").await.unwrap();
        other.write_all(b"y").await.unwrap();
        let mut got = [0];
        one.read_exact(&mut got).await.unwrap();
        let patience = Duration::from_secs(60);
        assert!(timeout(patience, other.read_exact(&mut got)).await.is_err());
        assert!(net.of(0).dial(&SimNet::address(1)).await.is_err());
        net.cut(0, 1, false);
        other.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"x");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_holds_back_what_leaves_its_host() {
        let (net, mut one, mut other) = pair().await;
        net.slow_disk(0, Some(Duration::from_millis(100)));
        let began = Instant::now();
        let mut got = [0];
        one.write_all(b"x").await.unwrap();
        other.write_all(b"y").await.unwrap();
        one.read_exact(&mut got).await.unwrap();
        assert_eq!(began.elapsed(), LATENCY);
        other.read_exact(&mut got).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(100) + LATENCY);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_listens_is_unreachable() {
        let (net, _one, _other) = pair().await;
        for address in ["n7:9735", "x:1"] {
            let dialled = net.of(0).dial(address).await;
            assert!(matches!(dialled, Err(LinkError::Unreachable { .. })), "{address}");
        }
    }
}
