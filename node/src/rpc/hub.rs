//! What a hub's operator does by hand, of `tributary.v1.Batches`.

use std::sync::Arc;

use channel_contracts::batch::BatchId;
use proto::v1;

use super::batch_view::hosted;
use super::convert::{exact, idempotency_key};
use super::mutation::once_answered;
use super::server::RpcParts;
use super::status::{Reason, Refusal};
use crate::batches::OfferChange;
use crate::config::BatchConfig;

pub(super) async fn open(
    parts: &Arc<RpcParts>,
    request: v1::OpenHostedBatchRequest,
) -> Result<v1::HostedBatch, Refusal> {
    let key = idempotency_key("OpenHosted", &request.idempotency_key)?;
    let shared = Arc::clone(parts);
    let gathering_ms = request.gathering_ms;
    let work = async move { Ok(hosted(&shared.batches.open_by_hand(gathering_ms).await?)) };
    once_answered(parts, key, &request, work).await
}

pub(super) async fn close(
    parts: &Arc<RpcParts>,
    request: v1::CloseHostedBatchRequest,
) -> Result<v1::HostedBatch, Refusal> {
    let key = idempotency_key("CloseHosted", &request.idempotency_key)?;
    let id = exact(Reason::FieldInvalid, "batch_id", &request.batch_id).map(BatchId)?;
    let shared = Arc::clone(parts);
    let work = async move { Ok(hosted(&shared.batches.close_by_hand(id).await?)) };
    once_answered(parts, key, &request, work).await
}

pub(super) async fn set_policy(
    parts: &Arc<RpcParts>,
    request: v1::SetBatchPolicyRequest,
) -> Result<v1::BatchPolicy, Refusal> {
    let key = idempotency_key("SetPolicy", &request.idempotency_key)?;
    let change = OfferChange {
        users_max: request.users_max.map(|users| users as usize),
        gathering_ms: request.gathering_ms,
        capacity_min_sat: request.capacity_min_sat,
        capacity_max_sat: request.capacity_max_sat,
        fee_sat: request.fee_sat,
        life_blocks: request.life_blocks,
    };
    let shared = Arc::clone(parts);
    let work = async move { Ok(policy(&shared.batches.change_offer(&change)?)) };
    once_answered(parts, key, &request, work).await
}

/// Writes an offer.
pub(super) fn policy(offer: &BatchConfig) -> v1::BatchPolicy {
    v1::BatchPolicy {
        users_max: u32::try_from(offer.users_max).unwrap_or(u32::MAX),
        gathering_ms: offer.gathering_ms,
        capacity_min_sat: offer.capacity_min_sat,
        capacity_max_sat: offer.capacity_max_sat,
        fee_sat: offer.fee_sat,
        life_blocks: offer.life_blocks,
    }
}
