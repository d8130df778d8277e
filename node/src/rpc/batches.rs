//! `tributary.v1.Batches`: what leaving would cost, joining, and what became of it.
//!
//! What a wish or a batch looks like to a caller is in `batch_view.rs`; what a hub's
//! operator does is in `hub.rs`, withdrawals and deposits are in `swaps.rs`.

use std::sync::Arc;

use bitcoin::Amount;
use channel_contracts::batch::RegistrationId;
use channel_contracts::tree::{ExitCost, Radix, Shape};
use futures::stream;
use proto::v1;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::batch_view::{exit_cost, hosted, is_final, membership, path};
use super::convert::{exact, idempotency_key, node_id};
use super::hub;
use super::mutation::{once, to_the_end};
use super::page::{self, Answers, List};
use super::server::{Door, RpcParts, stopping};
use super::status::{Reason, Refusal};
use super::swaps;
use crate::batches::{JoinRequest, JoinView};

/// Users of a batch that a quote is reckoned for where the caller names none.
const QUOTE_USERS: u32 = 256;

/// The service.
pub(super) struct BatchesService {
    door: Door,
}

impl BatchesService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl v1::batches_server::Batches for BatchesService {
    async fn estimate_exit(
        &self,
        request: Request<v1::EstimateBatchExitRequest>,
    ) -> Result<Response<v1::BatchExitEstimate>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let users = request.users.unwrap_or(QUOTE_USERS) as usize;
        let shape = Shape::new(users, Radix::for_size(users))
            .map_err(|error| Refusal::field("users", error))?;
        let capacity = Amount::from_sat(request.capacity_sat);
        let exit = exit_cost(&ExitCost::worst(&shape), capacity, parts.batches.urgent_feerate());
        let fee_max_sat = parts.batches.policy().user.fee_max.to_sat();
        Ok(Response::new(v1::BatchExitEstimate { exit: Some(exit), fee_max_sat }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinBatchRequest>,
    ) -> Result<Response<v1::BatchMembership>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("JoinBatch", &request.idempotency_key)?;
        let capacity = Amount::from_sat(request.capacity_sat);
        let join = JoinRequest {
            hub: node_id("hub_node_id", &request.hub_node_id)?,
            capacity,
            inbound: request.inbound_sat.map_or(capacity, Amount::from_sat),
        };
        let shared = Arc::clone(&parts);
        let view = to_the_end(&parts.tasks, async move {
            if let Some(first) = shared.batches.repetition(&join, Some(&key)).await? {
                return Ok(first);
            }
            shared.require_synced()?;
            Ok(shared.batches.join(&join, Some(&key)).await?)
        })
        .await?;
        Ok(Response::new(shown(&parts, &view)))
    }

    type WatchStream = Answers<v1::BatchMembership>;

    async fn watch(
        &self,
        request: Request<v1::WatchBatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let parts = self.door.parts()?;
        let id = registration(&request.into_inner().registration_id)?;
        look_up(&parts, id).await?;
        let changes = parts.batches.changes();
        let unrolls = parts.batches.unrolls();
        let follow = Follow { parts, id, changes, unrolls, shown: None };
        let states = stream::try_unfold(follow, |mut follow| async move {
            Ok(follow.next().await?.map(|membership| (membership, follow)))
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn list(
        &self,
        request: Request<v1::ListBatchesRequest>,
    ) -> Result<Response<v1::ListBatchesResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let from = page::position(List::Memberships, &(), request.page_token.as_deref())?;
        let from = page::own_position(from)?;
        let views = parts.batches.joins().await;
        parts.committer.durable(parts.committer.now()).await.map_err(Refusal::from)?;
        let (views, next) = page::cut(views, from, size, |view| view.registration.0);
        Ok(Response::new(v1::ListBatchesResponse {
            memberships: views.iter().map(|view| shown(&parts, view)).collect(),
            next_page_token: next.map(|next| page::token(List::Memberships, &(), &next)),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetBatchRequest>,
    ) -> Result<Response<v1::BatchMembership>, Status> {
        let parts = self.door.parts()?;
        let id = registration(&request.into_inner().registration_id)?;
        let view = look_up(&parts, id).await?;
        let mut membership = shown(&parts, &view);
        membership.path = parts.batches.path(&view).map(|path_and_ends| path(&path_and_ends));
        Ok(Response::new(membership))
    }

    async fn exit(
        &self,
        request: Request<v1::ExitBatchRequest>,
    ) -> Result<Response<v1::BatchMembership>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("ExitBatch", &request.idempotency_key)?;
        let id = registration(&request.registration_id)?;
        let (shared, again) = (Arc::clone(&parts), Arc::clone(&parts));
        let work = async move { Ok(shared.batches.exit(id).await?) };
        let view =
            once(&parts, key, &request, work, async move { look_up(&again, id).await }).await?;
        Ok(Response::new(shown(&parts, &view)))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseBatchRequest>,
    ) -> Result<Response<v1::BatchMembership>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("ReleaseBatch", &request.idempotency_key)?;
        let id = registration(&request.registration_id)?;
        let (shared, again) = (Arc::clone(&parts), Arc::clone(&parts));
        let work = async move {
            shared.batches.release(id).await?;
            look_up(&shared, id).await
        };
        let view =
            once(&parts, key, &request, work, async move { look_up(&again, id).await }).await?;
        Ok(Response::new(shown(&parts, &view)))
    }

    async fn withdraw(
        &self,
        request: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::Swap>, Status> {
        Ok(Response::new(swaps::withdraw(self.door.parts()?, request.into_inner()).await?))
    }

    async fn deposit(
        &self,
        request: Request<v1::DepositRequest>,
    ) -> Result<Response<v1::Swap>, Status> {
        Ok(Response::new(swaps::deposit(self.door.parts()?, request.into_inner()).await?))
    }

    async fn get_swap(
        &self,
        request: Request<v1::GetSwapRequest>,
    ) -> Result<Response<v1::Swap>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(swaps::get(&parts, &request.into_inner().swap_id).await?))
    }

    type WatchSwapStream = Answers<v1::Swap>;

    async fn watch_swap(
        &self,
        request: Request<v1::WatchSwapRequest>,
    ) -> Result<Response<Self::WatchSwapStream>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(swaps::watch(parts, request.into_inner().swap_id).await?))
    }

    async fn list_swaps(
        &self,
        request: Request<v1::ListSwapsRequest>,
    ) -> Result<Response<v1::ListSwapsResponse>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(swaps::list(&parts, request.into_inner()).await?))
    }

    async fn open_hosted(
        &self,
        request: Request<v1::OpenHostedBatchRequest>,
    ) -> Result<Response<v1::HostedBatch>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(hub::open(&parts, request.into_inner()).await?))
    }

    async fn close_hosted(
        &self,
        request: Request<v1::CloseHostedBatchRequest>,
    ) -> Result<Response<v1::HostedBatch>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(hub::close(&parts, request.into_inner()).await?))
    }

    async fn get_policy(
        &self,
        _request: Request<v1::GetBatchPolicyRequest>,
    ) -> Result<Response<v1::BatchPolicy>, Status> {
        Ok(Response::new(hub::policy(&self.door.parts()?.batches.offer())))
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetBatchPolicyRequest>,
    ) -> Result<Response<v1::BatchPolicy>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(hub::set_policy(&parts, request.into_inner()).await?))
    }

    async fn list_hosted(
        &self,
        request: Request<v1::ListHostedBatchesRequest>,
    ) -> Result<Response<v1::ListHostedBatchesResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let from = page::position(List::HostedBatches, &(), request.page_token.as_deref())?;
        let from = page::own_position(from)?;
        let views = parts.batches.batches().await;
        parts.committer.durable(parts.committer.now()).await.map_err(Refusal::from)?;
        let (views, next) = page::cut(views, from, size, |view| view.batch.0);
        Ok(Response::new(v1::ListHostedBatchesResponse {
            batches: views.iter().map(hosted).collect(),
            next_page_token: next.map(|next| page::token(List::HostedBatches, &(), &next)),
        }))
    }
}

/// Follows one wish.
struct Follow {
    parts: Arc<RpcParts>,
    id: RegistrationId,
    changes: watch::Receiver<u64>,
    unrolls: watch::Receiver<u64>,
    /// What was sent last.
    shown: Option<v1::BatchMembership>,
}

impl Follow {
    /// The next state to send; `None` after the final one.
    async fn next(&mut self) -> Result<Option<v1::BatchMembership>, Refusal> {
        if self.shown.as_ref().is_some_and(|membership| is_final(membership.state())) {
            return Ok(None);
        }
        loop {
            self.changes.mark_unchanged();
            self.unrolls.mark_unchanged();
            let membership = shown(&self.parts, &look_up(&self.parts, self.id).await?);
            if self.shown.as_ref() != Some(&membership) {
                self.shown = Some(membership.clone());
                return Ok(Some(membership));
            }
            tokio::select! {
                biased;
                () = self.parts.tasks.stopped() => return Err(stopping()),
                changed = self.changes.changed() => if changed.is_err() { return Ok(None) },
                changed = self.unrolls.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }
}

fn registration(bytes: &[u8]) -> Result<RegistrationId, Refusal> {
    exact(Reason::FieldInvalid, "registration_id", bytes).map(RegistrationId)
}

/// One wish, once what is shown of it is durable.
async fn look_up(parts: &RpcParts, id: RegistrationId) -> Result<JoinView, Refusal> {
    let view = parts.batches.get(id).await.ok_or_else(|| {
        Refusal::new(Reason::BatchUnknown, format_args!("there is no wish {id}"))
            .with("registration_id", id)
    })?;
    parts.committer.durable(parts.committer.now()).await?;
    Ok(view)
}

fn shown(parts: &RpcParts, view: &JoinView) -> v1::BatchMembership {
    membership(view, parts.batches.urgent_feerate())
}
