//! The messages in the body of a gRPC answer, one by one.
//!
//! Source: gRPC over HTTP2, "Length-Prefixed-Message" and "Trailers".

use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

/// A flag and four bytes of length.
const HEAD: usize = 5;

/// Puts a message into its frame.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(HEAD + message.len());
    frame.push(0);
    // Requests are bounded far below 4 GiB.
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// The messages of an answer. Reading one may be given up and begun again.
pub(super) struct Messages {
    body: Body,
    read: Vec<u8>,
}

impl Messages {
    pub(super) fn new(body: Body) -> Self {
        Self { body, read: Vec::new() }
    }

    /// The next message; `None` once the call has ended well.
    ///
    /// # Errors
    ///
    /// The status the call ended with.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return Err(Status::internal("the answer ended without a status"));
            };
            match frame?.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return match Status::from_header_map(&trailers) {
                        Some(status) if status.code() != tonic::Code::Ok => Err(status),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    /// Takes a message that is there as a whole.
    fn take(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let Some((head, rest)) = self.read.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *head;
        if flag != 0 {
            return Err(Status::internal("the answer is compressed, and nobody asked for that"));
        }
        let length = u32::from_be_bytes(length) as usize;
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.read.drain(..HEAD + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::codegen::http::HeaderMap;

    use super::*;

    fn body(chunks: Vec<Vec<u8>>, status: Option<&str>) -> Messages {
        let mut frames: Vec<Result<Frame<Bytes>, Status>> =
            chunks.into_iter().map(|chunk| Ok(Frame::data(chunk.into()))).collect();
        if let Some(status) = status {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            frames.push(Ok(Frame::trailers(trailers)));
        }
        Messages::new(Body::new(StreamBody::new(stream::iter(frames))))
    }

    #[tokio::test]
    async fn messages_are_put_together_however_they_were_cut() {
        let whole = [framed(b"one"), framed(b""), framed(&[7; 300])].concat();
        for size in [1, 4, 5, 6, 7, 300, 1_000] {
            let mut messages = body(whole.chunks(size).map(<[u8]>::to_vec).collect(), Some("0"));
            for expected in [b"one".to_vec(), Vec::new(), vec![7; 300]] {
                assert_eq!(messages.next().await.unwrap(), Some(expected), "cut at {size}");
            }
            assert_eq!(messages.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_status_or_is_broken() {
        let mut refused = body(vec![framed(b"one").to_vec()], Some("5"));
        assert!(refused.next().await.unwrap().is_some());
        assert_eq!(refused.next().await.unwrap_err().code(), tonic::Code::NotFound);
        let mut cut = body(vec![framed(b"one")[..6].to_vec()], None);
        assert_eq!(cut.next().await.unwrap_err().code(), tonic::Code::Internal);
        let mut compressed = body(vec![vec![1, 0, 0, 0, 0]], Some("0"));
        assert!(compressed.next().await.is_err());
    }
}
