//! Our node: the real program, driven over gRPC as any client would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use proto::v1 as pb;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::wallet_client::WalletClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status};

use crate::party::{Books, Chan, Invoice, Kind, Opening, Outcome, Party, Secret, Target, Wrong};
use crate::process::{Process, directory, free_address};
use crate::wait::Failure;

/// Seals a seed that guards nothing; at least as long as the program asks for.
const PASSWORD: &str = "worthless coins on regtest";

/// Adds the node's token to each call.
#[derive(Clone)]
struct Token(AsciiMetadataValue);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Door = InterceptedService<Channel, Token>;

/// A node of ours.
pub struct Ours {
    name: String,
    exe: PathBuf,
    dir: PathBuf,
    listen: String,
    rpc: String,
    bitcoind: String,
    cookie: PathBuf,
    process: Process,
    door: Mutex<Option<Door>>,
}

impl Ours {
    /// Makes a seed and a directory for a node below `root`.
    ///
    /// # Errors
    ///
    /// If the program refuses.
    pub fn create(
        exe: &Path,
        root: &Path,
        name: &str,
        bitcoind: &str,
        cookie: &Path,
    ) -> Result<Self, Failure> {
        let dir = directory(root, name)?;
        std::fs::write(dir.join("password"), PASSWORD)?;
        let made = Command::new(exe)
            .arg("--data-dir")
            .arg(&dir)
            .args(["node", "--network", "regtest"])
            .arg("--password-file")
            .arg(dir.join("password"))
            .args(["init", "--words", "12"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{} does not start: {error}", exe.display()))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(format!("tributary node init: {}", said.trim()).into());
        }
        Ok(Self {
            name: name.to_owned(),
            exe: exe.to_owned(),
            listen: free_address()?.to_string(),
            rpc: free_address()?.to_string(),
            bitcoind: bitcoind.to_owned(),
            cookie: cookie.to_owned(),
            process: Process::new(root.join(format!("{name}.log"))),
            door: Mutex::new(None),
            dir,
        })
    }

    async fn try_door(&self) -> Result<Door, Failure> {
        let cert = std::fs::read(self.dir.join("tls.crt"))?;
        let token = std::fs::read_to_string(self.dir.join("admin.token"))?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(cert))
            .domain_name("localhost");
        let endpoint = Channel::from_shared(format!("https://{}", self.rpc))?;
        let channel = endpoint.tls_config(tls)?.connect().await?;
        let token = Token(format!("Bearer {}", token.trim()).parse()?);
        let door = InterceptedService::new(channel, token);
        NodeClient::new(door.clone()).get_info(pb::GetInfoRequest {}).await?;
        Ok(door)
    }

    fn door(&self) -> Result<Door, Failure> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        door.clone().ok_or_else(|| format!("{} does not run", self.name).into())
    }

    fn set_door(&self, door: Option<Door>) {
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = door;
    }

    fn node(&self) -> Result<NodeClient<Door>, Failure> {
        Ok(NodeClient::new(self.door()?))
    }

    fn wallet(&self) -> Result<WalletClient<Door>, Failure> {
        Ok(WalletClient::new(self.door()?))
    }

    fn channels_client(&self) -> Result<ChannelsClient<Door>, Failure> {
        Ok(ChannelsClient::new(self.door()?))
    }

    fn payments(&self) -> Result<PaymentsClient<Door>, Failure> {
        Ok(PaymentsClient::new(self.door()?))
    }

    async fn all_channels(&self) -> Result<Vec<pb::Channel>, Failure> {
        let request = pb::ListChannelsRequest { page_size: Some(1_000), ..Default::default() };
        Ok(self.channels_client()?.list(request).await?.into_inner().channels)
    }

    async fn balance(&self) -> Result<pb::WalletBalance, Failure> {
        Ok(self.wallet()?.get_balance(pb::GetBalanceRequest {}).await?.into_inner())
    }

    async fn lookup(&self, hash: &str) -> Result<pb::Invoice, Failure> {
        let request = pb::LookupInvoiceRequest { payment_hash: hex::decode(hash)? };
        Ok(self.payments()?.lookup_invoice(request).await?.into_inner())
    }
}

fn key() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

fn invoice(made: pb::Invoice) -> Invoice {
    Invoice { bolt11: made.bolt11, hash: hex::encode(made.payment_hash) }
}

/// The reason and the words of a refusal, without what a status carries for programs.
fn words(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[async_trait]
impl Party for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Ours
    }

    fn address(&self) -> String {
        self.listen.clone()
    }

    async fn spawn(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.exe);
        command
            .arg("--data-dir")
            .arg(&self.dir)
            .args(["--rpc", &self.rpc, "node"])
            .args(["--network", "regtest", "--alias", &self.name])
            .args(["--listen", &self.listen])
            .args(["--bitcoind-url", &self.bitcoind])
            .arg("--bitcoind-cookie")
            .arg(&self.cookie)
            .arg("--password-file")
            .arg(self.dir.join("password"))
            .args(["--log", "info"]);
        self.process.start(command)
    }

    async fn answers(&self) -> Result<bool, Failure> {
        if self.process.has_ended() {
            return Err(format!("{} ended:\n{}", self.name, self.tail(20)).into());
        }
        let door = self.try_door().await.ok();
        let ready = door.is_some();
        self.set_door(door);
        Ok(ready)
    }

    async fn kill(&self) -> Result<(), Failure> {
        self.set_door(None);
        self.process.kill()
    }

    async fn stop(&self) {
        if let Ok(mut node) = self.node() {
            let _ = node.stop(pb::StopRequest { idempotency_key: key() }).await;
            self.process.ended();
        }
        self.set_door(None);
    }

    async fn id(&self) -> Result<String, Failure> {
        let info = self.node()?.get_info(pb::GetInfoRequest {}).await?.into_inner();
        Ok(hex::encode(info.node_id))
    }

    async fn height(&self) -> Result<u32, Failure> {
        let info = self.node()?.get_info(pb::GetInfoRequest {}).await?.into_inner();
        Ok(info.chain.ok_or("no chain in the node's info")?.block_height)
    }

    async fn new_address(&self) -> Result<String, Failure> {
        let request = pb::NewAddressRequest { idempotency_key: key() };
        Ok(self.wallet()?.new_address(request).await?.into_inner().address)
    }

    async fn coins_sat(&self) -> Result<u64, Failure> {
        let balance = self.balance().await?;
        Ok(balance.confirmed_sat + balance.unconfirmed_sat)
    }

    async fn confirmed_sat(&self) -> Result<u64, Failure> {
        Ok(self.balance().await?.confirmed_sat)
    }

    async fn connect(&self, id: &str, address: &str) -> Result<(), Failure> {
        let request = pb::ConnectPeerRequest {
            idempotency_key: key(),
            node_id: hex::decode(id)?,
            address: address.to_owned(),
            keep: false,
        };
        self.node()?.connect_peer(request).await?;
        Ok(())
    }

    async fn disconnect(&self, id: &str) -> Result<(), Failure> {
        let request =
            pb::DisconnectPeerRequest { idempotency_key: key(), node_id: hex::decode(id)? };
        self.node()?.disconnect_peer(request).await?;
        Ok(())
    }

    async fn is_connected(&self, id: &str) -> Result<bool, Failure> {
        let id = hex::decode(id)?;
        let peers = self.node()?.list_peers(pb::ListPeersRequest::default()).await?.into_inner();
        Ok(peers.peers.iter().any(|peer| peer.node_id == id && peer.connected))
    }

    async fn open(&self, id: &str, address: &str, opening: Opening) -> Result<(), Failure> {
        let request = pb::OpenChannelRequest {
            idempotency_key: key(),
            node_id: hex::decode(id)?,
            address: Some(address.to_owned()),
            capacity_sat: opening.capacity_sat,
            push_msat: opening.push_sat * 1_000,
            public: opening.public,
            ..Default::default()
        };
        self.channels_client()?.open(request).await?;
        Ok(())
    }

    async fn channels(&self) -> Result<Vec<Chan>, Failure> {
        use pb::ChannelState as S;
        let open = [S::Opening, S::AwaitingConfirmation, S::Active, S::Inactive];
        let channels = self.all_channels().await?.into_iter();
        let channels = channels.filter(|channel| open.contains(&channel.state()));
        Ok(channels
            .map(|channel| Chan {
                id: hex::encode(&channel.record_id),
                peer: hex::encode(&channel.counterparty_node_id),
                active: channel.state() == S::Active,
                local_msat: channel.holder_balance_msat,
                sendable_msat: channel.spendable_msat,
                funding: channel.funding_outpoint.map(|o| (hex::encode(o.txid), o.output_index)),
            })
            .collect())
    }

    async fn closings(&self) -> Result<usize, Failure> {
        use pb::ChannelState as S;
        let closing = [S::Closing, S::ForceClosing];
        let channels = self.all_channels().await?;
        Ok(channels.iter().filter(|channel| closing.contains(&channel.state())).count())
    }

    async fn close(&self, channel: &Chan, force: bool) -> Result<(), Failure> {
        let request = pb::CloseChannelRequest {
            idempotency_key: key(),
            record_id: hex::decode(&channel.id)?,
            force,
            ..Default::default()
        };
        self.channels_client()?.close(request).await?;
        Ok(())
    }

    async fn invoice(&self, amount_msat: u64, expiry_seconds: u32) -> Result<Invoice, Failure> {
        let request = pb::CreateInvoiceRequest {
            idempotency_key: key(),
            amount_msat: Some(amount_msat),
            expiry_seconds: Some(expiry_seconds),
            ..Default::default()
        };
        Ok(invoice(self.payments()?.create_invoice(request).await?.into_inner()))
    }

    async fn hold_invoice(&self, hash: &str, amount_msat: u64) -> Result<Invoice, Failure> {
        let request = pb::CreateInvoiceRequest {
            idempotency_key: key(),
            amount_msat: Some(amount_msat),
            payment_hash: Some(hex::decode(hash)?),
            ..Default::default()
        };
        Ok(invoice(self.payments()?.create_invoice(request).await?.into_inner()))
    }

    async fn is_held(&self, hash: &str) -> Result<bool, Failure> {
        Ok(self.lookup(hash).await?.state() == pb::InvoiceState::Held)
    }

    async fn settle(&self, secret: &Secret) -> Result<(), Failure> {
        let preimage = hex::decode(&secret.preimage)?;
        let request = pb::SettleHoldRequest { idempotency_key: key(), preimage };
        self.payments()?.settle_hold(request).await?;
        Ok(())
    }

    async fn cancel(&self, hash: &str) -> Result<(), Failure> {
        let payment_hash = hex::decode(hash)?;
        let request = pb::CancelHoldRequest { idempotency_key: key(), payment_hash };
        self.payments()?.cancel_hold(request).await?;
        Ok(())
    }

    async fn received_msat(&self, hash: &str) -> Result<Option<u64>, Failure> {
        let filter = pb::PaymentFilter {
            direction: Some(pb::PaymentDirection::Inbound.into()),
            states: vec![pb::PaymentState::Succeeded.into()],
            payment_hash: Some(hex::decode(hash)?),
            ..Default::default()
        };
        let request = pb::ListPaymentsRequest { filter: Some(filter), ..Default::default() };
        let found = self.payments()?.list_payments(request).await?.into_inner().payments;
        Ok(found.first().map(|payment| payment.amount_msat))
    }

    async fn pay(&self, target: Target) -> Result<Outcome, Failure> {
        use pb::pay_request::Target as To;
        let (target, amount_msat) = match target {
            Target::Invoice(bolt11) => (To::Bolt11Invoice(bolt11), None),
            Target::Offer(offer) => (To::Offer(offer), None),
            Target::Keysend(id, amount) => {
                let keysend = pb::Keysend { node_id: hex::decode(id)?, custom_records: vec![] };
                (To::Keysend(keysend), Some(amount))
            }
        };
        let request = pb::PayRequest {
            idempotency_key: key(),
            target: Some(target),
            amount_msat,
            wait: pb::PayWait::Wait.into(),
            ..Default::default()
        };
        let payment = match self.payments()?.pay(request).await {
            Ok(payment) => payment.into_inner(),
            Err(status) => {
                use tonic::Code;
                let refusals =
                    [Code::FailedPrecondition, Code::InvalidArgument, Code::AlreadyExists];
                if refusals.contains(&status.code()) {
                    return Ok(Outcome::Failed(words(&status)));
                }
                return Err(words(&status).into());
            }
        };
        if payment.state() == pb::PaymentState::Succeeded {
            return Ok(Outcome::Paid {
                preimage: hex::encode(payment.preimage.unwrap_or_default()),
                fee_msat: payment.fee_msat.unwrap_or_default(),
                // 0 where the node does not say.
                parts: Some(payment.parts as usize).filter(|parts| *parts > 0),
            });
        }
        let failure = payment.failure.unwrap_or_default();
        Ok(Outcome::Failed(format!("{}: {}", failure.reason().as_str_name(), failure.text)))
    }

    async fn pay_wrongly(&self, wrong: &Wrong) -> Result<Option<Outcome>, Failure> {
        // Our API pays invoices and keysends as they are; a smaller amount is refused at its door.
        let Some(bolt11) = &wrong.bolt11 else { return Ok(None) };
        let request = pb::PayRequest {
            idempotency_key: key(),
            target: Some(pb::pay_request::Target::Bolt11Invoice(bolt11.clone())),
            amount_msat: Some(wrong.amount_msat),
            wait: pb::PayWait::Wait.into(),
            ..Default::default()
        };
        match self.payments()?.pay(request).await {
            Ok(payment) => Err(format!("paid too little: {:?}", payment.into_inner()).into()),
            Err(status) => Ok(Some(Outcome::Failed(words(&status)))),
        }
    }

    async fn offer(&self, amount_msat: u64) -> Result<Option<String>, Failure> {
        let request = pb::CreateOfferRequest {
            idempotency_key: key(),
            amount_msat: Some(amount_msat),
            description: Some("interop".to_owned()),
            expiry_seconds: None,
        };
        Ok(Some(self.payments()?.create_offer(request).await?.into_inner().bolt12))
    }

    async fn reaches(&self, id: &str, amount_msat: u64) -> Result<bool, Failure> {
        let request = pb::EstimateRouteRequest {
            target: Some(pb::estimate_route_request::Target::NodeId(hex::decode(id)?)),
            amount_msat: Some(amount_msat),
            ..Default::default()
        };
        Ok(self.payments()?.estimate_route(request).await.is_ok())
    }

    async fn books(&self) -> Result<Books, Failure> {
        use pb::{PaymentDirection as D, PaymentState as S};
        let request = pb::ExportPaymentsRequest::default();
        let mut stream = self.payments()?.export_payments(request).await?.into_inner();
        let mut books = Books::default();
        while let Some(payment) = stream.message().await? {
            match (payment.direction(), payment.state()) {
                (D::Outbound, S::Succeeded) => {
                    books.sent += 1;
                    books.sent_msat += payment.amount_msat;
                }
                (_, S::InFlight | S::Claiming) => books.in_flight += 1,
                (D::Inbound, S::Succeeded) => {
                    books.received += 1;
                    books.received_msat += payment.amount_msat;
                }
                _ => {}
            }
        }
        Ok(books)
    }

    async fn splice_in(&self, _channel: &Chan, _amount_sat: u64) -> Result<Option<()>, Failure> {
        // A splice is ours to answer; the API does not ask for one.
        Ok(None)
    }

    fn tail(&self, lines: usize) -> String {
        self.process.tail(lines)
    }
}
