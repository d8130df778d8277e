//! `tributary.v1.Webhooks`: who is told of events over HTTP.

use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use tonic::{Request, Response, Status};

use super::convert::{exact, idempotency_key, known, within};
use super::event_view::read_kind;
use super::mutation::{once, once_answered, once_beside, to_the_end};
use super::page::{self, List};
use super::server::{Door, RpcParts};
use super::status::{Reason, Refusal};
use super::webhook_view::{dead_letter, test_delivery, webhook};
use crate::journal::{EndpointId, EventKind};
use crate::webhooks::{EndpointChange, NewEndpoint, Replay, SigningSecret, WebhookError};

/// Longest time for which a replaced secret signs as well.
const GRACE_SECONDS_MAX: u32 = 30 * 86_400;

/// The service.
pub(super) struct WebhooksService {
    door: Door,
}

impl WebhooksService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl v1::webhooks_server::Webhooks for WebhooksService {
    async fn create(
        &self,
        request: Request<v1::CreateWebhookRequest>,
    ) -> Result<Response<v1::WebhookSecret>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(create(parts, request.into_inner()).await?))
    }

    async fn list(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Result<Response<v1::ListWebhooksResponse>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(list(&parts, &request.into_inner())?))
    }

    async fn get(
        &self,
        request: Request<v1::GetWebhookRequest>,
    ) -> Result<Response<v1::Webhook>, Status> {
        let parts = self.door.parts()?;
        let id = endpoint_id(&request.into_inner().endpoint_id)?;
        Ok(Response::new(webhook(&parts.webhooks.get(id).map_err(Refusal::from)?)))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateWebhookRequest>,
    ) -> Result<Response<v1::Webhook>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(update(&parts, request.into_inner()).await?))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteWebhookRequest>,
    ) -> Result<Response<v1::DeleteWebhookResponse>, Status> {
        let parts = self.door.parts()?;
        delete(&parts, request.into_inner()).await?;
        Ok(Response::new(v1::DeleteWebhookResponse {}))
    }

    async fn rotate_secret(
        &self,
        request: Request<v1::RotateWebhookSecretRequest>,
    ) -> Result<Response<v1::WebhookSecret>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(rotate(parts, &request.into_inner()).await?))
    }

    async fn send_test(
        &self,
        request: Request<v1::SendTestRequest>,
    ) -> Result<Response<v1::TestDelivery>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(send_test(&parts, request.into_inner()).await?))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(list_dead_letters(&parts, &request.into_inner())?))
    }

    async fn replay(
        &self,
        request: Request<v1::ReplayWebhookRequest>,
    ) -> Result<Response<v1::Webhook>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(replay(&parts, request.into_inner()).await?))
    }
}

async fn create(
    parts: Arc<RpcParts>,
    request: v1::CreateWebhookRequest,
) -> Result<v1::WebhookSecret, Refusal> {
    let key = idempotency_key("CreateWebhook", &request.idempotency_key)?;
    let new = NewEndpoint {
        url: request.url,
        description: request.description,
        kinds: kinds(&request.kinds)?,
        after: request.after_sequence,
    };
    let shared = Arc::clone(&parts);
    let made = to_the_end(&parts.tasks, async move {
        let (view, secret) = shared.webhooks.create(new, Some(&key)).await?;
        Ok(with_secret(webhook(&view), &secret))
    });
    made.await
}

fn list(
    parts: &RpcParts,
    request: &v1::ListWebhooksRequest,
) -> Result<v1::ListWebhooksResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let from = page::position(List::Webhooks, &(), request.page_token.as_deref())?;
    let from: Option<[u8; 16]> = page::own_position(from)?;
    let all = parts.webhooks.list();
    let mut rest = all.iter().filter(|view| from.is_none_or(|from| view.id.0 >= from));
    let webhooks = rest.by_ref().take(size).map(webhook).collect();
    let next = rest.next().map(|view| page::token(List::Webhooks, &(), &view.id.0));
    Ok(v1::ListWebhooksResponse { webhooks, next_page_token: next })
}

async fn update(
    parts: &Arc<RpcParts>,
    request: v1::UpdateWebhookRequest,
) -> Result<v1::Webhook, Refusal> {
    let key = idempotency_key("UpdateWebhook", &request.idempotency_key)?;
    let id = endpoint_id(&request.endpoint_id)?;
    let change = EndpointChange {
        url: request.url.clone(),
        description: request.description.clone(),
        kinds: request.filter.as_ref().map(|filter| kinds(&filter.kinds)).transpose()?,
        is_enabled: request.enabled,
    };
    let (shared, again) = (Arc::clone(parts), Arc::clone(parts));
    let work = async move { Ok(webhook(&shared.webhooks.update(id, change).await?)) };
    let known = async move { Ok(webhook(&again.webhooks.get(id)?)) };
    once(parts, key, &request, work, known).await
}

async fn delete(parts: &Arc<RpcParts>, request: v1::DeleteWebhookRequest) -> Result<(), Refusal> {
    let key = idempotency_key("DeleteWebhook", &request.idempotency_key)?;
    let id = endpoint_id(&request.endpoint_id)?;
    let shared = Arc::clone(parts);
    let work = move |beside| async move { Ok(shared.webhooks.delete(id, beside).await?) };
    once_beside(parts, key, &request, work, async { Ok(()) }).await
}

async fn rotate(
    parts: Arc<RpcParts>,
    request: &v1::RotateWebhookSecretRequest,
) -> Result<v1::WebhookSecret, Refusal> {
    let key = idempotency_key("RotateWebhookSecret", &request.idempotency_key)?;
    let id = endpoint_id(&request.endpoint_id)?;
    let range = 0..=GRACE_SECONDS_MAX;
    let check = |seconds| within(Reason::FieldInvalid, "grace_seconds", seconds, range);
    let grace = request.grace_seconds.map(check).transpose()?;
    let grace = grace.map(|seconds| Duration::from_secs(seconds.into()));
    let shared = Arc::clone(&parts);
    let rotated = to_the_end(&parts.tasks, async move {
        let (view, secret) = shared.webhooks.rotate(id, grace, Some(&key)).await?;
        Ok(with_secret(webhook(&view), &secret))
    });
    rotated.await
}

async fn send_test(
    parts: &Arc<RpcParts>,
    request: v1::SendTestRequest,
) -> Result<v1::TestDelivery, Refusal> {
    let key = idempotency_key("SendTestWebhook", &request.idempotency_key)?;
    let id = endpoint_id(&request.endpoint_id)?;
    let shared = Arc::clone(parts);
    let work = async move { Ok(test_delivery(&shared.webhooks.test(id).await?)) };
    once_answered(parts, key, &request, work).await
}

fn list_dead_letters(
    parts: &RpcParts,
    request: &v1::ListDeadLettersRequest,
) -> Result<v1::ListDeadLettersResponse, Refusal> {
    let id = endpoint_id(&request.endpoint_id)?;
    let size = page::size(request.page_size)?;
    let from = page::position(List::DeadLetters, &id, request.page_token.as_deref())?;
    let after = page::own_position(from)?.map_or(0, u64::from_be_bytes);
    // One more tells whether there is a next page.
    let mut letters = parts.webhooks.dead_letters(id, after, size + 1)?;
    let is_more = letters.len() > size;
    letters.truncate(size);
    let last = letters.last().filter(|_| is_more).map(|letter| letter.sequence.to_be_bytes());
    Ok(v1::ListDeadLettersResponse {
        dead_letters: letters.iter().map(dead_letter).collect(),
        next_page_token: last.map(|last| page::token(List::DeadLetters, &id, &last)),
    })
}

async fn replay(
    parts: &Arc<RpcParts>,
    request: v1::ReplayWebhookRequest,
) -> Result<v1::Webhook, Refusal> {
    use v1::replay_webhook_request::What;
    let key = idempotency_key("ReplayWebhook", &request.idempotency_key)?;
    let id = endpoint_id(&request.endpoint_id)?;
    let what = match request.what {
        Some(What::AfterSequence(after)) => Replay::After(after),
        Some(What::DeadLetters(true)) => Replay::DeadLetters,
        Some(What::DeadLetters(false)) | None => {
            return Err(Refusal::field("what", "names nothing to replay"));
        }
    };
    let (shared, again) = (Arc::clone(parts), Arc::clone(parts));
    let work =
        move |beside| async move { Ok(webhook(&shared.webhooks.replay(id, what, beside).await?)) };
    let known = async move { Ok(webhook(&again.webhooks.get(id)?)) };
    once_beside(parts, key, &request, work, known).await
}

fn endpoint_id(bytes: &[u8]) -> Result<EndpointId, Refusal> {
    exact(Reason::FieldInvalid, "endpoint_id", bytes).map(EndpointId)
}

fn kinds(kinds: &[i32]) -> Result<Vec<EventKind>, Refusal> {
    let read = |value: &i32| {
        let kind: v1::EventKind = known("kinds", *value)?;
        read_kind(kind).ok_or_else(|| Refusal::field("kinds", "has an unknown value"))
    };
    let mut kinds: Vec<EventKind> = kinds.iter().map(read).collect::<Result<_, _>>()?;
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

fn with_secret(webhook: v1::Webhook, secret: &SigningSecret) -> v1::WebhookSecret {
    v1::WebhookSecret { webhook: Some(webhook), secret: secret.reveal().to_string() }
}

impl From<WebhookError> for Refusal {
    fn from(error: WebhookError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match error {
            WebhookError::Unknown(id) => refuse(Reason::WebhookUnknown).with("endpoint_id", id),
            WebhookError::Url(_) => refuse(Reason::WebhookUrlRefused),
            WebhookError::Full { max } => refuse(Reason::WebhooksFull).with("endpoints_max", max),
            WebhookError::Description { bytes } => refuse(Reason::FieldInvalid)
                .with("field", "description")
                .with("length_bytes", bytes),
            WebhookError::Ahead { after, newest } => refuse(Reason::EventsAhead)
                .with("after_sequence", after)
                .with("newest_sequence", newest),
            WebhookError::Journal(error) => Self::from(error).money_may_have_moved(false),
            WebhookError::Idempotency(error) => Self::from(error).money_may_have_moved(false),
            WebhookError::Store(error) => {
                Self::new(Reason::StoreFailed, error).money_may_have_moved(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_once_each() {
        let payment = i32::from(v1::EventKind::Payment);
        let swap = i32::from(v1::EventKind::Swap);
        let read = kinds(&[swap, payment, swap]).unwrap();
        assert_eq!(read, [EventKind::Payment, EventKind::Swap]);
        for unknown in [0, 99] {
            assert_eq!(kinds(&[unknown]).unwrap_err().reason(), Reason::FieldInvalid);
        }
    }

    #[test]
    fn an_unknown_endpoint_is_named() {
        let refusal = Refusal::from(WebhookError::Unknown(EndpointId([0xab; 16])));
        assert_eq!(refusal.reason(), Reason::WebhookUnknown);
        let read = super::super::status::explain(&refusal.into());
        assert_eq!(read.metadata["endpoint_id"], "ab".repeat(16));
        assert_eq!(read.money_may_have_moved, Some(false));
    }
}
