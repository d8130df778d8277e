//! The door of the open tower protocol: JSON over HTTP, as Core Lightning's watchtower client
//! speaks it.
//!
//! A client there has one kind of appointment: an encrypted penalty transaction. It is stored
//! beside ours, each under a channel of its own, since that protocol knows none; a new one under
//! the same locator replaces the old one.
//!
//! Formats and error codes: `channel-contracts`, `tower::open_protocol`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use channel_contracts::tower::open_protocol::{
    AddAppointmentRequest, AddAppointmentResponse, ApiError, AppointmentStatus, Endpoint,
    ErrorCode, GetAppointmentRequest, GetAppointmentResponse, RegisterRequest, RegisterResponse,
    SubscriptionInfoRequest, SubscriptionInfoResponse, TrackedAppointment, message, signature,
};
use channel_contracts::tower::{ChannelTag, Locator};
use futures::StreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;

use super::guests::guests;
use crate::runtime::Tasks;
use crate::tower::server::{AddError, OpenStatus, Tower, TowerError};

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may last in all.
const LIFE: Duration = Duration::from_secs(300);
/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 512;

/// Serves `tower` on `listener` until the stop signal of `tasks`.
pub fn serve(tower: Arc<Tower>, listener: TcpListener, tasks: &Tasks) {
    let own = tasks.clone();
    tasks.spawn("open tower door", async move {
        let mut guests = pin!(guests(listener, CONNECTIONS_MAX));
        loop {
            let guest = tokio::select! {
                biased;
                () = own.stopped() => return,
                guest = guests.next() => guest,
            };
            let Some(Ok(guest)) = guest else { return };
            let (tower, stop) = (Arc::clone(&tower), own.clone());
            own.spawn_apart("open tower client", async move {
                let service = service_fn(move |request| {
                    let tower = Arc::clone(&tower);
                    async move { Ok::<_, Infallible>(answer(&tower, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(guest), service);
                tokio::select! {
                    biased;
                    () = stop.stopped() => {}
                    _ended = tokio::time::timeout(LIFE, connection) => {}
                }
            });
        }
    });
}

async fn answer(tower: &Tower, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let endpoint = [
        Endpoint::Ping,
        Endpoint::Register,
        Endpoint::AddAppointment,
        Endpoint::GetAppointment,
        Endpoint::GetSubscriptionInfo,
    ]
    .into_iter()
    .find(|endpoint| endpoint.path() == request.uri().path());
    let Some(endpoint) = endpoint else { return plain(StatusCode::NOT_FOUND) };
    if request.method().as_str() != endpoint.method() {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = Limited::new(request.into_body(), endpoint.body_max()).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
    };
    let done = match endpoint {
        Endpoint::Ping => return plain(StatusCode::OK),
        Endpoint::Register => register(tower, &body).await,
        Endpoint::AddAppointment => add(tower, &body).await,
        Endpoint::GetAppointment => get(tower, &body),
        Endpoint::GetSubscriptionInfo => subscription(tower, &body),
    };
    done.unwrap_or_else(|refusal| {
        let status = StatusCode::from_u16(refusal.code().http_status());
        json(status.unwrap_or(StatusCode::BAD_REQUEST), &refusal)
    })
}

async fn register(tower: &Tower, body: &[u8]) -> Result<Response<Full<Bytes>>, ApiError> {
    let RegisterRequest { user_id } = read(body)?;
    let (account, _, _) = tower.register(user_id).await.map_err(refused)?;
    let mut answer = RegisterResponse {
        user_id,
        available_slots: slots(account.slots.saturating_sub(account.used)),
        subscription_start: account.starts,
        subscription_expiry: account.expires,
        subscription_signature: None,
    };
    let receipt = answer.subscription().receipt();
    answer.subscription_signature = Some(tower.sign_open(&receipt));
    Ok(json(StatusCode::OK, &answer))
}

async fn add(tower: &Tower, body: &[u8]) -> Result<Response<Full<Bytes>>, ApiError> {
    let AddAppointmentRequest { appointment, signature } = read(body)?;
    let user = signer(tower, &appointment.message(), &signature)?;
    if appointment.encrypted_blob.is_empty() {
        return Err(ApiError::new(ErrorCode::EmptyField, "encrypted_blob is empty"));
    }
    let locator = appointment.locator;
    let account = tower.add_open(user, &appointment).await.map_err(refused)?;
    let start_block = tower.guard().height();
    let receipt = message::appointment_receipt(&signature, start_block);
    let answer = AddAppointmentResponse {
        locator,
        start_block,
        signature: tower.sign_open(&receipt),
        available_slots: slots(account.slots.saturating_sub(account.used)),
        subscription_expiry: account.expires,
    };
    Ok(json(StatusCode::OK, &answer))
}

fn get(tower: &Tower, body: &[u8]) -> Result<Response<Full<Bytes>>, ApiError> {
    let GetAppointmentRequest { locator, signature } = read(body)?;
    let user = signer(tower, &message::get_appointment(locator), &signature)?;
    let (appointment, status) = match tower.open_status(user, locator).map_err(refused)? {
        OpenStatus::Watched(appointment) => {
            (TrackedAppointment::Watched(appointment), AppointmentStatus::BeingWatched)
        }
        OpenStatus::Responded { dispute_txid, penalty } => {
            let responded = TrackedAppointment::Responded {
                dispute_txid,
                penalty_txid: penalty.compute_txid(),
                penalty_rawtx: bitcoin::consensus::encode::serialize(&penalty),
            };
            (responded, AppointmentStatus::DisputeResponded)
        }
        OpenStatus::Unknown => {
            return Err(ApiError::new(
                ErrorCode::AppointmentNotFound,
                format!("there is no appointment {locator} of this user"),
            ));
        }
    };
    Ok(json(StatusCode::OK, &GetAppointmentResponse { appointment, status }))
}

fn subscription(tower: &Tower, body: &[u8]) -> Result<Response<Full<Bytes>>, ApiError> {
    let SubscriptionInfoRequest { signature } = read(body)?;
    let user = signer(tower, message::SUBSCRIPTION_INFO, &signature)?;
    let unknown = || {
        let text = format!("this tower does not know user {user}; register first");
        ApiError::new(ErrorCode::InvalidSignatureOrSubscription, text)
    };
    let account = tower.ledger().account(&user).ok_or_else(unknown)?;
    let locators: Vec<Locator> =
        tower.ledger().channels_of(&user).into_iter().map(|ChannelTag(tag)| Locator(tag)).collect();
    let answer = SubscriptionInfoResponse {
        available_slots: slots(account.slots.saturating_sub(account.used)),
        subscription_expiry: account.expires,
        locators,
    };
    Ok(json(StatusCode::OK, &answer))
}

/// Who signed `message`; somebody who is registered.
fn signer(tower: &Tower, message: &[u8], text: &str) -> Result<PublicKey, ApiError> {
    let refusal = |why: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::InvalidSignatureOrSubscription, why.to_string())
    };
    let user = signature::recover(tower.secp(), message, text).map_err(|why| refusal(&why))?;
    if tower.ledger().account(&user).is_none() {
        return Err(refusal(&format_args!("user {user} is not registered, or did not sign this")));
    }
    Ok(user)
}

fn refused(error: TowerError) -> ApiError {
    let code = match &error {
        _ if error.wants_subscription() => ErrorCode::InvalidSignatureOrSubscription,
        TowerError::Full { .. } => ErrorCode::RegistrationResourceExhausted,
        TowerError::Add(AddError::Conflict { .. } | AddError::Crowded(_)) => {
            ErrorCode::AppointmentAlreadyTriggered
        }
        TowerError::Store(_) | TowerError::Add(AddError::Store(_)) => ErrorCode::ServiceUnavailable,
        TowerError::Refused { .. } => ErrorCode::AppointmentFieldTooBig,
        _ => ErrorCode::Unexpected,
    };
    ApiError::new(code, error.to_string())
}

/// Reads a body, and says what is wrong with it in the protocol's own words.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let code = match error.classify() {
            serde_json::error::Category::Data if text.contains("missing field") => {
                ErrorCode::MissingField
            }
            serde_json::error::Category::Data if text.contains("invalid type") => {
                ErrorCode::WrongFieldType
            }
            serde_json::error::Category::Data => ErrorCode::WrongFieldFormat,
            _ => ErrorCode::InvalidRequestFormat,
        };
        ApiError::new(code, text)
    })
}

/// The protocol counts slots in 32 bits.
fn slots(slots: u64) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}

fn json(status: StatusCode, answer: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(answer).expect("answers are plain data");
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}
