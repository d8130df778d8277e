//! A way to a door that breaks: TCP carried on as it is, and cut anywhere.
//!
//! Where a connection ends, in bytes and in time, is drawn when it begins: in the middle of a
//! handshake, of a record, of a message. Half of them end with a reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes towards the subscriber before the cut, as powers of two.
const BYTES_LOG2: std::ops::Range<f64> = 9.5..18.0;
/// Milliseconds before the cut.
const LIFE_MS: std::ops::Range<u64> = 100..8_000;

/// Opens a way to `door` and returns its address. `cuts` counts the connections that were cut.
pub async fn way(door: &str, seed: u64, cuts: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = door.to_owned();
    let mut rng = StdRng::seed_from_u64(seed);
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (door, cuts, seed) = (door.clone(), Arc::clone(&cuts), rng.random());
            tokio::spawn(async move {
                if carry(near, &door, StdRng::seed_from_u64(seed)).await.is_none() {
                    cuts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    address
}

/// Carries one connection; `None` if it was cut, and not ended by one of its sides.
async fn carry(near: TcpStream, door: &str, mut rng: StdRng) -> Option<()> {
    let Ok(far) = TcpStream::connect(door).await else { return Some(()) };
    if rng.random_bool(0.5) {
        near.set_zero_linger().ok();
    }
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let mut left = rng.random_range(BYTES_LOG2).exp2() as usize;
    let life = Duration::from_millis(rng.random_range(LIFE_MS));
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let there = tokio::io::copy(&mut near_read, &mut far_write);
    let back = async {
        let mut buffer = [0; 4_096];
        while left > 0 {
            let room = left.min(buffer.len());
            match far_read.read(&mut buffer[..room]).await {
                Ok(length) if length > 0 => {
                    if near_write.write_all(&buffer[..length]).await.is_err() {
                        return Some(());
                    }
                    left -= length;
                }
                _ended => return Some(()),
            }
        }
        None
    };
    tokio::select! {
        biased;
        cut = back => cut,
        _ended = there => Some(()),
        () = tokio::time::sleep(life) => None,
    }
}
