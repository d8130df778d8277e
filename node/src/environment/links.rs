//! Byte streams between nodes as a seam: TCP in production, memory in the simulation.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// How long a dial may take before it is called unreachable.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A byte stream to a peer.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Link for T {}

/// A boxed [`Link`].
pub type BoxedLink = Box<dyn Link>;

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address is not `host:port`, or its name is unknown.
    #[error("cannot resolve {address}: {source}; give host:port")]
    Unresolvable {
        /// What was asked for.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody answered.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// What was asked for.
        address: String,
        /// What the network said.
        source: io::Error,
    },
    /// The local address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another node running there?")]
    CannotListen {
        /// What was asked for.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Dials and accepts links. An address is `host:port`.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// Opens a link to `address`.
    async fn dial(&self, address: &str) -> Result<BoxedLink, LinkError>;
    /// Listens on `address`; port 0 picks a free one.
    async fn listen(&self, address: &str) -> Result<Arc<dyn LinkListener>, LinkError>;
}

/// Accepts links on one address.
#[async_trait]
pub trait LinkListener: Send + Sync + 'static {
    /// The address listened on, with its real port.
    fn address(&self) -> String;
    /// Waits for the next link.
    async fn accept(&self) -> io::Result<BoxedLink>;
}

/// TCP without Nagle's delay: a payment is a handful of small packets.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpLinks;

#[async_trait]
impl Links for TcpLinks {
    async fn dial(&self, address: &str) -> Result<BoxedLink, LinkError> {
        let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address)
            .await
            .map_err(|source| LinkError::Unresolvable { address: address.to_owned(), source })?
            .collect();
        let unreachable = |source| LinkError::Unreachable { address: address.to_owned(), source };
        let stream = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(&resolved[..]))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> Result<Arc<dyn LinkListener>, LinkError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| LinkError::CannotListen { address: address.to_owned(), source })?;
        Ok(Arc::new(TcpLinkListener { listener }))
    }
}

struct TcpLinkListener {
    listener: TcpListener,
}

#[async_trait]
impl LinkListener for TcpLinkListener {
    fn address(&self) -> String {
        self.listener.local_addr().map(|a| a.to_string()).unwrap_or_default()
    }

    async fn accept(&self) -> io::Result<BoxedLink> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
