//! Ports of loopback that stay free while their owner is away.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first port that is tried. Below it are services of the machine.
const FIRST: u32 = 10_000;
/// How many ports are tried: all up to where systems begin to number outgoing connections.
const COUNT: u32 = 22_000;

/// A free port of loopback.
///
/// Port 0 would ask the system for one, but of those it also numbers outgoing connections: a
/// node that stops for a moment may find its port taken by somebody's connection. These are
/// given to who asks for them only, and to each once as long as the process lives.
///
/// # Errors
///
/// If none is free.
pub fn free_port() -> std::io::Result<u16> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin in different places.
    let begin = std::process::id().wrapping_mul(7_919);
    let mut refused = None;
    for _ in 0..COUNT {
        let offset = begin.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("the range ends below 65,536");
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.expect("at least one was tried"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once_and_never_to_outgoing_connections() {
        let held = TcpListener::bind(("127.0.0.1", free_port().unwrap())).unwrap();
        let mut given: Vec<u16> = (0..64).map(|_| free_port().unwrap()).collect();
        assert!(given.iter().all(|port| (10_000..32_000).contains(port)), "{given:?}");
        assert!(!given.contains(&held.local_addr().unwrap().port()));
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 64);
    }
}
