//! Who comes in at a door: connections with TLS.
//!
//! Each is bounded from its first byte on: how many there are, how long the handshake takes, how
//! long the first request takes to begin, and how long nothing is taken of what is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::stall::Stalling;
use crate::runtime::Tasks;

/// How long a TLS handshake may take, and a request's head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other side may take nothing of what is written.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection with TLS.
pub(super) struct Arrival {
    stream: Stalling<TlsStream<TcpStream>>,
    info: TcpConnectInfo,
    is_h2: bool,
    /// Its place among the connections there may be.
    _held: OwnedSemaphorePermit,
}

impl Arrival {
    /// Whether TLS has agreed on HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        self.is_h2
    }
}

/// Takes connections on `listener`, at most `max` at a time, until the stop signal of `tasks`.
/// Further ones wait in the listener's own queue.
pub(super) fn arrivals(
    name: &'static str,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    max: usize,
    tasks: &Tasks,
) -> mpsc::Receiver<Arrival> {
    let (arrived, arrivals) = mpsc::channel(1);
    let room = Arc::new(Semaphore::new(max));
    let runner = tasks.clone();
    tasks.spawn(name, async move {
        loop {
            let accepted = tokio::select! {
                biased;
                () = runner.stopped() => return,
                accepted = accept(&listener, &room) => accepted,
            };
            let Some((stream, held)) = accepted else { continue };
            let (acceptor, arrived, stop) = (acceptor.clone(), arrived.clone(), runner.clone());
            runner.spawn_apart("handshake", async move {
                let shaken = tokio::select! {
                    biased;
                    () = stop.stopped() => return,
                    shaken = handshake(&acceptor, stream, held) => shaken,
                };
                if let Some(arrival) = shaken {
                    // Nobody hears once the door is closed.
                    let _ = arrived.send(arrival).await;
                }
            });
        }
    });
    arrivals
}

/// Takes a connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let held = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, held)),
        Err(error) => {
            tracing::debug!(%error, "a connection was lost before it was taken");
            // Without file descriptors every call fails at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    held: OwnedSemaphorePermit,
) -> Option<Arrival> {
    let _ = stream.set_nodelay(true);
    let info = stream.connect_info();
    let stream = match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS with a client");
            return None;
        }
        Err(_) => {
            tracing::debug!("a client was too slow for TLS");
            return None;
        }
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = Stalling::new(stream, HEAD_TIMEOUT, STALL_TIMEOUT);
    Some(Arrival { stream, info, is_h2, _held: held })
}

impl Connected for Arrival {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Arrival {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Arrival {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
