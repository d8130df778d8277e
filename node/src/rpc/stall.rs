//! A connection that is given up when its other side does not begin, or takes nothing for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// As many bytes as no request is shorter than: the preface of HTTP/2, which has no other bound.
///
/// Source: RFC 9113, section 3.4.
const BEGINNING: usize = 24;

/// Reads and writes `inner`; a write that waits longer than `patience` fails, and so does a read
/// before the first request has begun.
pub(super) struct Stalling<S> {
    inner: S,
    patience: Duration,
    /// When the write that waits has waited too long.
    too_long: Option<Pin<Box<Sleep>>>,
    /// How much is missing of the beginning, and when it comes too late.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Stalling<S> {
    /// Gives the other side so long to begin, and such patience afterwards.
    pub(super) fn new(inner: S, begin: Duration, patience: Duration) -> Self {
        let beginning = Some((BEGINNING, Box::pin(tokio::time::sleep(begin))));
        Self { inner, patience, too_long: None, beginning }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.too_long = None;
            return written;
        }
        let until = Instant::now() + self.patience;
        let sleep = self.too_long.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        let Some((missing, too_late)) = &mut self.beginning else {
            return read;
        };
        *missing = missing.saturating_sub(count);
        if *missing == 0 {
            self.beginning = None;
            return read;
        }
        match too_late.as_mut().poll(cx) {
            Poll::Ready(()) if read.is_pending() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_is_slow_is_not() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Stalling::new(near, Duration::from_secs(10), Duration::from_secs(60));
        let reading = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(59)).await;
                far.read_exact(&mut [0; 4]).await.unwrap();
            }
            far
        };
        let (written, _far) = tokio::join!(near.write_all(&[7; 20]), reading);
        written.unwrap();
        let error = near.write_all(&[7; 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_begin_in_time_is_given_up() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Stalling::new(near, Duration::from_secs(10), Duration::from_secs(60));
        far.write_all(&[7; BEGINNING - 1]).await.unwrap();
        let error = near.read_exact(&mut [0; BEGINNING]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Stalling::new(near, Duration::from_secs(10), Duration::from_secs(60));
        far.write_all(&[7; BEGINNING]).await.unwrap();
        near.read_exact(&mut [0; BEGINNING]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        far.write_all(&[7; 4]).await.unwrap();
        near.read_exact(&mut [0; 4]).await.unwrap();
    }
}
