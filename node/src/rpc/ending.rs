//! A stream of answers that can be ended from outside, with a reason.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};

use super::status::Refusal;

/// The body of an answer, until `end` resolves.
pub(super) struct Ending {
    inner: Body,
    end: BoxFuture<'static, Refusal>,
    ended: bool,
}

impl Ending {
    pub(super) fn new(inner: Body, end: impl Future<Output = Refusal> + Send + 'static) -> Self {
        Self { inner, end: end.boxed(), ended: false }
    }
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(refusal) = self.end.poll_unpin(cx) {
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(refusal)))));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(None) = &frame {
            self.ended = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}

/// A refusal as it ends a stream.
fn trailers(refusal: Refusal) -> http::HeaderMap {
    let mut trailers = http::HeaderMap::new();
    if let Err(error) = Status::from(refusal).add_header(&mut trailers) {
        tracing::error!(%error, "a stream ends without its reason");
    }
    trailers
}
