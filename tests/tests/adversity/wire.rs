//! A wire between a user and the hub that goes dead after a number of pieces it has carried: what
//! one side hands to it at once, a message or a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a wire carried, and when it goes dead.
#[derive(Debug, Clone, Copy)]
struct Carried {
    pieces: u64,
    dead_after: Option<u64>,
    /// Counts repairs: connections of before end.
    repairs: u64,
}

impl Carried {
    fn is_dead(&self) -> bool {
        self.dead_after.is_some_and(|most| self.pieces >= most)
    }
}

/// A listener whose connections lead to the hub.
pub struct Wire {
    /// Where it listens.
    pub address: String,
    carried: Arc<watch::Sender<Carried>>,
    /// Connections that it carries.
    links: Arc<AtomicUsize>,
}

impl Wire {
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let carried = Carried { pieces: 0, dead_after: None, repairs: 0 };
        let carried = Arc::new(watch::Sender::new(carried));
        let state = Arc::clone(&carried);
        let links = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&links);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&target).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                let (there, count) = (Arc::clone(&state), Arc::clone(&counted));
                tokio::spawn(async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    carry(near_in, far_out, there).await;
                    count.fetch_sub(1, Ordering::Relaxed);
                });
                tokio::spawn(carry(far_in, near_out, Arc::clone(&state)));
            }
        });
        Self { address, carried, links }
    }

    /// Whether both sides are connected by it, not past it.
    pub fn is_between(&self) -> bool {
        self.links.load(Ordering::Relaxed) > 0
    }

    /// Lets `pieces` pass from here on. Then it is silent: neither side is told.
    pub fn goes_dead_after(&self, pieces: u64) {
        self.carried.send_modify(|c| (c.pieces, c.dead_after) = (0, Some(pieces)));
    }

    pub fn is_dead(&self) -> bool {
        self.carried.borrow().is_dead()
    }

    /// Ends the connections that went dead, and carries new ones for good.
    pub fn repair(&self) {
        self.carried.send_modify(|c| {
            c.dead_after = None;
            c.repairs += 1;
        });
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    carried: Arc<watch::Sender<Carried>>,
) {
    let repairs = carried.borrow().repairs;
    let mut repaired = carried.subscribe();
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read.unwrap_or(0),
            _ = repaired.wait_for(|c| c.repairs != repairs) => return,
        };
        if read == 0 {
            return;
        }
        if carried.borrow().is_dead() {
            let _repaired = repaired.wait_for(|c| c.repairs != repairs).await;
            return;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
        carried.send_modify(|c| c.pieces += 1);
    }
}
