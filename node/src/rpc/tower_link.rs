//! The way to a tower over gRPC.
//!
//! Not encrypted: what matters is sealed, and signed by both sides. Who listens learns how much is
//! sent, and when.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, absolute};
use channel_contracts::tower::{AppointmentReceipt, ChannelTag, RegistrationReceipt};
use proto::v1;
use proto::v1::watchtower_client::WatchtowerClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::convert::outpoint;
use super::status::{Reason, explain};
use crate::tower::client::{LinkFailure, Registration, Terms, TowerLink, TowerLinks};
use crate::tower::server::SignedAppointment;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Finds towers by their address.
pub struct GrpcTowers;

impl TowerLinks for GrpcTowers {
    fn link(&self, tower: PublicKey, address: &str) -> Result<Arc<dyn TowerLink>, String> {
        let url = match address.split_once("://") {
            Some(("http", _)) => address.to_owned(),
            Some((scheme, _)) => return Err(format!("{scheme} is not spoken; use http")),
            None => format!("http://{address}"),
        };
        let endpoint = Endpoint::from_shared(url)
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let client = WatchtowerClient::new(endpoint.connect_lazy());
        Ok(Arc::new(GrpcTower { tower, client }))
    }
}

struct GrpcTower {
    tower: PublicKey,
    client: WatchtowerClient<Channel>,
}

#[async_trait]
impl TowerLink for GrpcTower {
    async fn terms(&self) -> Result<Terms, LinkFailure> {
        let mut client = self.client.clone();
        let terms = client.get_terms(v1::GetTermsRequest {}).await.map_err(failure)?.into_inner();
        Ok(Terms {
            tower: PublicKey::from_slice(&terms.tower_id).map_err(|_| odd("tower_id"))?,
            takes_trusted: terms.takes_trusted,
        })
    }

    async fn register(&self, client: PublicKey) -> Result<Registration, LinkFailure> {
        let request = v1::RegisterRequest { client_id: client.serialize().to_vec() };
        let answer = self.client.clone().register(request).await.map_err(failure)?.into_inner();
        let receipt = RegistrationReceipt {
            tower: self.tower,
            client,
            appointments_max: answer.slots,
            expiry: height(answer.expires_height)?,
            fee_budget: Amount::from_sat(answer.fee_budget_sat),
        };
        Ok(Registration { receipt, signature: signature(&answer.signature)? })
    }

    async fn add(
        &self,
        client: PublicKey,
        appointments: Vec<SignedAppointment>,
    ) -> Result<Vec<(AppointmentReceipt, Signature)>, LinkFailure> {
        let signed = appointments.iter().map(|signed| v1::SignedAppointment {
            appointment: signed.appointment.encode(),
            signature: signed.signature.serialize_compact().to_vec(),
        });
        let request = v1::AddAppointmentsRequest {
            client_id: client.serialize().to_vec(),
            appointments: signed.collect(),
        };
        let answer = self.client.clone().add_appointments(request).await.map_err(failure)?;
        let receipts = answer.into_inner().receipts;
        // The receipt is made here from what was sent: the tower can sign for nothing else.
        let receipts = appointments.iter().zip(&receipts).map(|(signed, receipt)| {
            let appointment = &signed.appointment;
            let height = height(receipt.height)?;
            let made = AppointmentReceipt::of(appointment, self.tower, client, height);
            Ok((made, signature(&receipt.signature)?))
        });
        receipts.collect()
    }

    async fn watch(
        &self,
        client: PublicKey,
        encoded: Vec<u8>,
        word: Signature,
    ) -> Result<Signature, LinkFailure> {
        let request = v1::WatchPathRequest {
            client_id: client.serialize().to_vec(),
            watch: encoded,
            signature: word.serialize_compact().to_vec(),
        };
        let answer = self.client.clone().watch_path(request).await.map_err(failure)?;
        signature(&answer.into_inner().signature)
    }

    async fn unwatch(
        &self,
        client: PublicKey,
        funding: OutPoint,
        signature: Signature,
    ) -> Result<(), LinkFailure> {
        let request = v1::UnwatchPathRequest {
            client_id: client.serialize().to_vec(),
            funding: Some(outpoint(funding)),
            signature: signature.serialize_compact().to_vec(),
        };
        self.client.clone().unwatch_path(request).await.map_err(failure)?;
        Ok(())
    }

    async fn forget(
        &self,
        client: PublicKey,
        channel: ChannelTag,
        signature: Signature,
    ) -> Result<(), LinkFailure> {
        let request = v1::ForgetChannelRequest {
            client_id: client.serialize().to_vec(),
            channel_tag: channel.0.to_vec(),
            signature: signature.serialize_compact().to_vec(),
        };
        self.client.clone().forget_channel(request).await.map_err(failure)?;
        Ok(())
    }
}

fn signature(bytes: &[u8]) -> Result<Signature, LinkFailure> {
    Signature::from_compact(bytes).map_err(|_| odd("signature"))
}

fn height(height: u32) -> Result<absolute::Height, LinkFailure> {
    absolute::Height::from_consensus(height).map_err(|_| odd("height"))
}

fn odd(field: &str) -> LinkFailure {
    LinkFailure::Unreachable(format!("its {field} makes no sense"))
}

fn failure(status: Status) -> LinkFailure {
    let text = status.message().to_owned();
    let explained = explain(&status);
    let is = |reason: Reason| explained.reason.as_deref() == Some(reason.as_str());
    if [Reason::ClientUnknown, Reason::SubscriptionOver, Reason::QuotaExhausted].into_iter().any(is)
    {
        return LinkFailure::Subscription(text);
    }
    if is(Reason::AppointmentConflict) {
        return LinkFailure::Conflict(text);
    }
    // Only what is said of this very appointment is final; anything else may pass.
    let refused = [Reason::AppointmentRefused, Reason::WatchRefused, Reason::FieldInvalid];
    if refused.into_iter().any(is) {
        return LinkFailure::Refused(text);
    }
    LinkFailure::Unreachable(text)
}
