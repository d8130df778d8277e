//! `tributary.v1.Watchtower`: what a tower serves to its clients.
//!
//! No token: each request that concerns a client carries its signature, and anybody may ask to
//! become one.

use std::sync::Arc;

use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use channel_contracts::tower::{Appointment, ChannelTag, Locator, Mode};
use proto::v1;
use proto::v1::watchtower_server::{Watchtower, WatchtowerServer};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::convert::{exact, node_id, txid};
use super::guests::guests;
use super::status::{Reason, Refusal};
use crate::runtime::Tasks;
use crate::tower::server::{
    APPOINTMENTS_AT_ONCE, Account, AddError, SignedAppointment, Tower, TowerError, WatchError,
};

/// Longest request: the most appointments with the longest blobs would be 16 MiB; who has such
/// sends fewer at once.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 4_096;
/// Requests of one connection at once.
const STREAMS_MAX: u32 = 64;
/// How long one request may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

struct Door {
    tower: Arc<Tower>,
}

/// Serves `tower` on `listener` until the stop signal of `tasks`.
pub fn serve(tower: Arc<Tower>, listener: TcpListener, tasks: &Tasks) {
    let service =
        WatchtowerServer::new(Door { tower }).max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .timeout(PATIENCE)
        .add_service(service);
    let incoming = guests(listener, CONNECTIONS_MAX);
    let stop = tasks.stop_signal();
    tasks.spawn("tower door", async move {
        let closing = stop.cancelled_owned();
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, closing).await {
            tracing::error!(%error, "the tower's door is shut");
        }
    });
}

#[tonic::async_trait]
impl Watchtower for Door {
    async fn get_terms(
        &self,
        _request: Request<v1::GetTermsRequest>,
    ) -> Result<Response<v1::TowerTerms>, Status> {
        let policy = self.tower.policy();
        let feerates = policy.fee_levels.feerates().iter();
        Ok(Response::new(v1::TowerTerms {
            tower_id: self.tower.key().serialize().to_vec(),
            appointments_max: policy.appointments_max,
            blob_bytes_max: u32::try_from(policy.blob_bytes_max).unwrap_or(u32::MAX),
            registration_blocks: policy.registration_blocks,
            feerates_sat_per_kwu: feerates.map(|feerate| feerate.to_sat_per_kwu()).collect(),
            takes_trusted: self.tower.takes(Mode::Trusted),
            height: self.tower.guard().height(),
        }))
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::Subscription>, Status> {
        let client = node_id("client_id", &request.into_inner().client_id)?;
        let (account, _, signature) = self.tower.register(client).await.map_err(Refusal::from)?;
        let subscription = self.subscription(client, &account);
        let signature = signature.serialize_compact().to_vec();
        Ok(Response::new(v1::Subscription { signature, ..subscription }))
    }

    async fn add_appointments(
        &self,
        request: Request<v1::AddAppointmentsRequest>,
    ) -> Result<Response<v1::AddAppointmentsResponse>, Status> {
        let request = request.into_inner();
        let client = node_id("client_id", &request.client_id)?;
        let count = request.appointments.len();
        if count > APPOINTMENTS_AT_ONCE {
            return Err(Refusal::from(TowerError::TooMany { count }).into());
        }
        let signed: Vec<SignedAppointment> =
            request.appointments.iter().map(signed_appointment).collect::<Result<_, _>>()?;
        let receipts = self.tower.add(client, signed).await.map_err(Refusal::from)?;
        let receipts = receipts.iter().map(|(receipt, signature)| v1::SignedReceipt {
            height: receipt.height.to_consensus_u32(),
            signature: signature.serialize_compact().to_vec(),
        });
        Ok(Response::new(v1::AddAppointmentsResponse { receipts: receipts.collect() }))
    }

    async fn get_appointments(
        &self,
        request: Request<v1::GetAppointmentsRequest>,
    ) -> Result<Response<v1::GetAppointmentsResponse>, Status> {
        let request = request.into_inner();
        let client = node_id("client_id", &request.client_id)?;
        let locator = Locator(exact(Reason::FieldInvalid, "locator", &request.locator)?);
        let signature = signature_of(&request.signature)?;
        let stored = self.tower.get(client, locator, &signature).map_err(Refusal::from)?;
        let appointments = stored.into_iter().map(|stored| v1::StoredAppointment {
            channel_tag: stored.channel.0.to_vec(),
            sequence: stored.sequence,
            // Without the byte that says by which protocol it came.
            blob: stored.blob.get(1..).unwrap_or_default().to_vec(),
        });
        Ok(Response::new(v1::GetAppointmentsResponse { appointments: appointments.collect() }))
    }

    async fn forget_channel(
        &self,
        request: Request<v1::ForgetChannelRequest>,
    ) -> Result<Response<v1::ForgetChannelResponse>, Status> {
        let request = request.into_inner();
        let client = node_id("client_id", &request.client_id)?;
        let tag = ChannelTag(exact(Reason::FieldInvalid, "channel_tag", &request.channel_tag)?);
        let signature = signature_of(&request.signature)?;
        let was_known = self.tower.remove_channel(client, tag, &signature).await;
        let was_known = was_known.map_err(Refusal::from)?;
        Ok(Response::new(v1::ForgetChannelResponse { was_known }))
    }

    async fn watch_path(
        &self,
        request: Request<v1::WatchPathRequest>,
    ) -> Result<Response<v1::WatchPathResponse>, Status> {
        let request = request.into_inner();
        let client = node_id("client_id", &request.client_id)?;
        let signature = signature_of(&request.signature)?;
        let word = self.tower.watch_path(client, &request.watch, &signature).await;
        let signature = word.map_err(Refusal::from)?.serialize_compact().to_vec();
        Ok(Response::new(v1::WatchPathResponse { signature }))
    }

    async fn unwatch_path(
        &self,
        request: Request<v1::UnwatchPathRequest>,
    ) -> Result<Response<v1::UnwatchPathResponse>, Status> {
        let request = request.into_inner();
        let client = node_id("client_id", &request.client_id)?;
        let funding = request.funding.ok_or_else(|| Refusal::field("funding", "is missing"))?;
        let vout = funding.output_index;
        let funding = OutPoint { txid: txid("funding.txid", &funding.txid)?, vout };
        let signature = signature_of(&request.signature)?;
        let was_known = self.tower.unwatch_path(client, funding, &signature).await;
        let was_known = was_known.map_err(Refusal::from)?;
        Ok(Response::new(v1::UnwatchPathResponse { was_known }))
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Result<Response<v1::Subscription>, Status> {
        let request = request.into_inner();
        let client = node_id("client_id", &request.client_id)?;
        let signature = signature_of(&request.signature)?;
        let account = self.tower.subscription(client, &signature).map_err(Refusal::from)?;
        Ok(Response::new(self.subscription(client, &account)))
    }
}

impl Door {
    fn subscription(&self, client: PublicKey, account: &Account) -> v1::Subscription {
        v1::Subscription {
            tower_id: self.tower.key().serialize().to_vec(),
            client_id: client.serialize().to_vec(),
            slots: account.slots,
            used: account.used,
            expires_height: account.expires,
            fee_budget_sat: self.tower.watches().budget_of(&client).to_sat(),
            signature: vec![],
        }
    }
}

fn signed_appointment(signed: &v1::SignedAppointment) -> Result<SignedAppointment, Refusal> {
    let appointment = Appointment::decode(&signed.appointment)
        .map_err(|error| Refusal::field("appointment", format_args!("is none: {error}")))?;
    Ok(SignedAppointment { appointment, signature: signature_of(&signed.signature)? })
}

fn signature_of(bytes: &[u8]) -> Result<Signature, Refusal> {
    let bytes: [u8; 64] = exact(Reason::FieldInvalid, "signature", bytes)?;
    Signature::from_compact(&bytes)
        .map_err(|_| Refusal::field("signature", "is no ECDSA signature"))
}

impl From<TowerError> for Refusal {
    fn from(error: TowerError) -> Self {
        let reason = match &error {
            TowerError::Signature(_) => Reason::SignatureInvalid,
            TowerError::TooMany { .. } => Reason::FieldInvalid,
            TowerError::Full { .. } => Reason::TowerFull,
            TowerError::Add(AddError::Unknown(_)) => Reason::ClientUnknown,
            TowerError::Add(AddError::Expired { .. }) => Reason::SubscriptionOver,
            TowerError::Add(AddError::NoSlots { .. }) => Reason::QuotaExhausted,
            TowerError::Add(AddError::Conflict { .. } | AddError::Crowded(_)) => {
                Reason::AppointmentConflict
            }
            TowerError::Add(AddError::Store(_)) | TowerError::Store(_) => Reason::StoreFailed,
            TowerError::Watch(WatchError::Chain(_)) => Reason::ChainAway,
            TowerError::Watch(WatchError::Store(_)) => Reason::StoreFailed,
            TowerError::Watch(_) => Reason::WatchRefused,
            TowerError::Refused { .. } if error.wants_subscription() => Reason::SubscriptionOver,
            TowerError::Refused { .. } => Reason::AppointmentRefused,
        };
        Self::new(reason, &error)
    }
}
