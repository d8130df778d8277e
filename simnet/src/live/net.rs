//! Links in memory, with latency.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use node::environment::{BoxedLink, LinkError, LinkListener, Links};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes a link holds in each direction.
const LINK_BUFFER: usize = 1 << 20;

/// A network: addresses are names, every link takes the same time. Clones share it.
#[derive(Clone)]
pub struct SimNet {
    latency: Duration,
    doors: Arc<Mutex<HashMap<String, mpsc::UnboundedSender<BoxedLink>>>>,
}

impl SimNet {
    /// A network whose links take `latency` one way.
    pub fn new(latency: Duration) -> Self {
        Self { latency, doors: Arc::default() }
    }

    fn link(&self) -> (BoxedLink, BoxedLink) {
        let (ours, our_far_end) = tokio::io::duplex(LINK_BUFFER);
        let (theirs, their_far_end) = tokio::io::duplex(LINK_BUFFER);
        let (our_read, our_write) = tokio::io::split(our_far_end);
        let (their_read, their_write) = tokio::io::split(their_far_end);
        carry(our_read, their_write, self.latency);
        carry(their_read, our_write, self.latency);
        (Box::new(ours), Box::new(theirs))
    }
}

/// Moves bytes from one end to the other, each `latency` after it was written.
#[allow(clippy::disallowed_methods, reason = "a wire is nobody's task: it ends with its ends")]
fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, latency: Duration) {
    let (on_the_wire, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let packet = (Instant::now() + latency, buffer[..count].to_vec());
            if on_the_wire.send(packet).is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    });
}

#[async_trait]
impl Links for SimNet {
    async fn dial(&self, address: &str) -> Result<BoxedLink, LinkError> {
        let unreachable = || LinkError::Unreachable {
            address: address.to_owned(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        let door = self.doors.lock().get(address).cloned().ok_or_else(unreachable)?;
        let (ours, theirs) = self.link();
        door.send(theirs).map_err(|_| unreachable())?;
        Ok(ours)
    }

    async fn listen(&self, address: &str) -> Result<Arc<dyn LinkListener>, LinkError> {
        let (door, links) = mpsc::unbounded_channel();
        self.doors.lock().insert(address.to_owned(), door);
        Ok(Arc::new(SimListener {
            address: address.to_owned(),
            links: tokio::sync::Mutex::new(links),
        }))
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_after_the_latency_and_in_order() {
        let net = SimNet::new(Duration::from_millis(20));
        let listener = net.listen("b:1").await.unwrap();
        let mut a = net.dial("b:1").await.unwrap();
        let mut b = listener.accept().await.unwrap();
        let began = Instant::now();
        a.write_all(b"one").await.unwrap();
        a.write_all(b"two").await.unwrap();
        let mut got = [0; 6];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"onetwo");
        assert_eq!(began.elapsed(), Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_listens_is_unreachable() {
        let net = SimNet::new(Duration::ZERO);
        assert!(matches!(net.dial("x:1").await, Err(LinkError::Unreachable { .. })));
    }
}
