//! Connections of anybody: as many as there are places, the rest is shown the door.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// Pause after a connection could not be taken: no more files, say.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A connection and its place.
pub(super) struct Guest {
    stream: TcpStream,
    _until_it_leaves: OwnedSemaphorePermit,
}

/// The connections that `listener` takes, `most` at a time.
pub(super) fn guests(listener: TcpListener, most: usize) -> impl Stream<Item = io::Result<Guest>> {
    let places = Arc::new(Semaphore::new(most));
    unfold((listener, places), |(listener, places)| async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Guests that leave make room.
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let _slower_without = stream.set_nodelay(true);
            let guest = Guest { stream, _until_it_leaves: place };
            return Some((Ok(guest), (listener, places)));
        }
    })
}

impl Connected for Guest {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_too_many_is_shown_the_door_until_another_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut taken = Box::pin(guests(listener, 2));
        let first = TcpStream::connect(address).await.unwrap();
        let a = taken.next().await.unwrap().unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let _b = taken.next().await.unwrap().unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        // It is closed while the door waits for the next guest.
        let turned_away = async { third.read(&mut [0; 1]).await.map_or(0, |bytes| bytes) };
        tokio::select! {
            bytes = turned_away => assert_eq!(bytes, 0),
            _ = taken.next() => panic!("there is no place"),
        }
        drop((first, a));
        let _fourth = TcpStream::connect(address).await.unwrap();
        let _c = taken.next().await.unwrap().unwrap();
    }
}
