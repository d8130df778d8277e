//! The connection to a node: TLS with its own certificate, token on every call.

use std::path::Path;
use std::time::Duration;

use node::environment::{Entropy, OsEntropy};
use node::rpc::auth::AdminToken;
use node::rpc::connection::Connection;
use proto::v1::batches_client::BatchesClient;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::events_client::EventsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::payouts_client::PayoutsClient;
use proto::v1::tokens_client::TokensClient;
use proto::v1::tower_client::TowerClient;
use proto::v1::wallet_client::WalletClient;
use proto::v1::webhooks_client::WebhooksClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::args::{Global, MutationArgs};
use crate::error::{CliError, Money};
use crate::target::{Surroundings, resolve};

/// How long to wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel that carries the token.
type Guarded = InterceptedService<Channel, Bearer>;

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connected node.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
}

impl Client {
    /// Finds the node and connects to it.
    pub async fn connect(global: &Global) -> Result<Self, CliError> {
        let target = resolve(global, &Surroundings::of_this_user())?;
        let files = global.client_cert.as_deref().zip(global.client_key.as_deref());
        Self::presenting(&target, files).await
    }

    /// Connects to the node at `target`, with a certificate and its key if it asks for one.
    async fn presenting(
        target: &Connection,
        own: Option<(&Path, &Path)>,
    ) -> Result<Self, CliError> {
        let unreachable = |message: String, remedy: &str| CliError::Unreachable {
            message,
            remedy: remedy.to_owned(),
            money: Money::NotInvolved,
        };
        let cert = std::fs::read(&target.tls_cert).map_err(|error| {
            unreachable(
                format!("cannot read the certificate {}: {error}", target.tls_cert.display()),
                "start the node, which makes it, or give --tls-cert",
            )
        })?;
        let token = AdminToken::read_any(&target.token_file)
            .map_err(|error| unreachable(error.to_string(), "or give --token-file"))?;
        let mut header: MetadataValue<Ascii> =
            format!("Bearer {}", *token).parse().expect("hex and base64url are legal headers");
        header.set_sensitive(true);

        let bad_address = |error: &dyn std::fmt::Display| {
            CliError::Usage(format!("{:?} is no address: {error}", target.rpc))
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(cert))
            .domain_name(host(&target.rpc));
        let tls = match own {
            Some((cert, key)) => {
                let read = |path: &Path| {
                    std::fs::read(path).map_err(|error| {
                        CliError::Usage(format!("cannot read {}: {error}", path.display()))
                    })
                };
                tls.identity(Identity::from_pem(read(cert)?, read(key)?))
            }
            None => tls,
        };
        let channel = Endpoint::from_shared(format!("https://{}", target.rpc))
            .map_err(|error| bad_address(&error))?
            .tls_config(tls)
            .map_err(|error| bad_address(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|error| {
                unreachable(
                    format!("no node answers at {}: {}", target.rpc, causes(&error)),
                    "check that the node runs (`tributary node`) and that --node, --data-dir or --rpc mean it",
                )
            })?;
        Ok(Self { channel, bearer: Bearer(header) })
    }

    fn guarded(&self) -> Guarded {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    /// The service `Node`.
    pub fn node(&self) -> NodeClient<Guarded> {
        NodeClient::new(self.guarded())
    }

    /// The service `Channels`.
    pub fn channels(&self) -> ChannelsClient<Guarded> {
        ChannelsClient::new(self.guarded())
    }

    /// The service `Batches`.
    pub fn batches(&self) -> BatchesClient<Guarded> {
        BatchesClient::new(self.guarded())
    }

    /// The service `Payments`.
    pub fn payments(&self) -> PaymentsClient<Guarded> {
        PaymentsClient::new(self.guarded())
    }

    /// The service `Tower`.
    pub fn tower(&self) -> TowerClient<Guarded> {
        TowerClient::new(self.guarded())
    }

    /// The service `Tokens`.
    pub fn tokens(&self) -> TokensClient<Guarded> {
        TokensClient::new(self.guarded())
    }

    /// The service `Wallet`.
    pub fn wallet(&self) -> WalletClient<Guarded> {
        WalletClient::new(self.guarded())
    }

    /// The service `Webhooks`.
    pub fn webhooks(&self) -> WebhooksClient<Guarded> {
        WebhooksClient::new(self.guarded())
    }

    /// The service `Payouts`.
    pub fn payouts(&self) -> PayoutsClient<Guarded> {
        PayoutsClient::new(self.guarded())
    }

    /// The service `Events`.
    pub fn events(&self) -> EventsClient<Guarded> {
        EventsClient::new(self.guarded())
    }
}

impl MutationArgs {
    /// Returns the key given, or a fresh one.
    pub fn key(&self) -> String {
        match &self.idempotency_key {
            Some(key) => key.clone(),
            None => {
                let entropy: &dyn Entropy = &OsEntropy;
                hex::encode(entropy.bytes::<16>())
            }
        }
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// An error with its causes: the outermost alone says "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use node::rpc::auth::TOKEN_FILE;
    use node::rpc::tls::{TlsFiles, TlsIdentity};

    use super::*;

    #[test]
    fn the_host_is_what_the_certificate_names() {
        assert_eq!(host("localhost:1"), "localhost");
        assert_eq!(host("[::1]:9736"), "::1");
        assert_eq!(host("127.0.0.1:9736"), "127.0.0.1");
    }

    #[tokio::test]
    async fn a_silent_node_is_unreachable() {
        let directory = tempfile::tempdir().unwrap();
        let mut target = Connection {
            // Port 1 of the loopback: nobody listens there.
            rpc: "127.0.0.1:1".to_owned(),
            tls_cert: directory.path().join("tls.cert"),
            token_file: PathBuf::from("nowhere"),
        };
        let mut messages = Vec::new();
        for step in 0..3 {
            match step {
                0 => {}
                1 => {
                    let files = TlsFiles::within(directory.path());
                    TlsIdentity::load_or_create(&files, &[], &node::environment::SystemClock)
                        .unwrap();
                }
                _ => {
                    target.token_file = directory.path().join(TOKEN_FILE);
                    AdminToken::load_or_create(&target.token_file, &OsEntropy).unwrap();
                }
            }
            let error = Client::presenting(&target, None).await.err().unwrap();
            assert_eq!(error.exit_code(), 3);
            messages.push(format!("{error:?}"));
        }
        assert!(messages[0].contains("certificate"), "{}", messages[0]);
        assert!(messages[1].contains("token"), "{}", messages[1]);
        assert!(messages[2].contains("refused"), "{}", messages[2]);
    }

    #[test]
    fn keys_are_fresh_unless_given() {
        let none = MutationArgs { idempotency_key: None };
        assert_ne!(none.key(), none.key());
        assert_eq!(none.key().len(), 32);
        let given = MutationArgs { idempotency_key: Some("k".to_owned()) };
        assert_eq!(given.key(), "k");
    }
}
