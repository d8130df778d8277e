//! `tributary.v1.Tower`: the towers that guard this node.

use std::sync::Arc;

use channel_contracts::tower::Mode;
use proto::v1;
use proto::v1::tower_server::Tower;
use tonic::{Request, Response, Status};

use super::convert::{idempotency_key, node_id};
use super::mutation::{once, once_beside};
use super::server::{Door, RpcParts};
use super::status::{Reason, Refusal};
use crate::tower::client::{AddTowerError, GuardView, RemoveTowerError};

/// The service.
pub(super) struct TowerService {
    door: Door,
}

impl TowerService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl Tower for TowerService {
    async fn add_tower(
        &self,
        request: Request<v1::AddTowerRequest>,
    ) -> Result<Response<v1::GuardingTower>, Status> {
        let parts = self.door.parts()?;
        Ok(Response::new(add(&parts, request.into_inner()).await?))
    }

    async fn remove_tower(
        &self,
        request: Request<v1::RemoveTowerRequest>,
    ) -> Result<Response<v1::RemoveTowerResponse>, Status> {
        let parts = self.door.parts()?;
        remove(&parts, request.into_inner()).await?;
        Ok(Response::new(v1::RemoveTowerResponse {}))
    }

    async fn get_towers(
        &self,
        _request: Request<v1::GetTowersRequest>,
    ) -> Result<Response<v1::GetTowersResponse>, Status> {
        let parts = self.door.parts()?;
        let towers = parts.towers.list().iter().map(guarding).collect();
        let outbox_bytes = parts.towers.outbox_bytes();
        Ok(Response::new(v1::GetTowersResponse { towers, outbox_bytes }))
    }
}

async fn add(
    parts: &Arc<RpcParts>,
    request: v1::AddTowerRequest,
) -> Result<v1::GuardingTower, Refusal> {
    let key = idempotency_key("AddTower", &request.idempotency_key)?;
    let tower = node_id("tower_id", &request.tower_id)?;
    let mode = match v1::TowerMode::try_from(request.mode) {
        Ok(v1::TowerMode::Unspecified | v1::TowerMode::Blind) => Mode::Blind,
        Ok(v1::TowerMode::Trusted) => Mode::Trusted,
        Err(unknown) => {
            let problem = format_args!("has the unknown value {}", unknown.0);
            return Err(Refusal::field("mode", problem));
        }
    };
    let (shared, again) = (Arc::clone(parts), Arc::clone(parts));
    let address = request.address.clone();
    let work = async move { Ok(shared.towers.add(tower, &address, mode).await?) };
    let known = async move {
        let towers = again.towers.list();
        towers.into_iter().find(|view| view.record.tower == tower).ok_or_else(|| {
            Refusal::new(Reason::TowerUnknown, "the tower added under this key is removed again")
        })
    };
    Ok(guarding(&once(parts, key, &request, work, known).await?))
}

async fn remove(parts: &Arc<RpcParts>, request: v1::RemoveTowerRequest) -> Result<(), Refusal> {
    let key = idempotency_key("RemoveTower", &request.idempotency_key)?;
    let tower = node_id("tower_id", &request.tower_id)?;
    let shared = Arc::clone(parts);
    let work = move |beside| async move { Ok(shared.towers.remove(&tower, beside).await?) };
    once_beside(parts, key, &request, work, async { Ok(()) }).await
}

fn guarding(view: &GuardView) -> v1::GuardingTower {
    let record = &view.record;
    let mode = if record.trusted { v1::TowerMode::Trusted } else { v1::TowerMode::Blind };
    v1::GuardingTower {
        tower_id: record.tower.serialize().to_vec(),
        address: record.address.clone(),
        mode: mode.into(),
        delivered: record.delivered,
        backlog: view.backlog,
        expires_height: record.expires,
        last_receipt_at_ms: record.last_receipt_ms,
        last_error: view.last_error.clone(),
        refused: record.refused,
        missed: record.missed,
        client_id: view.client.serialize().to_vec(),
        fee_budget_sat: record.fee_budget_sat,
        watched_paths: u32::try_from(view.paths).unwrap_or(u32::MAX),
    }
}

impl From<AddTowerError> for Refusal {
    fn from(error: AddTowerError) -> Self {
        let reason = match &error {
            AddTowerError::Address { .. } => Reason::FieldInvalid,
            AddTowerError::Unreachable { .. } | AddTowerError::Other { .. } => {
                Reason::TowerUnreachable
            }
            AddTowerError::Refused(_) => Reason::TowerRefused,
            AddTowerError::Store(_) => Reason::StoreFailed,
        };
        Self::new(reason, &error).money_may_have_moved(false)
    }
}

impl From<RemoveTowerError> for Refusal {
    fn from(error: RemoveTowerError) -> Self {
        let reason = match &error {
            RemoveTowerError::Unknown(_) => Reason::TowerUnknown,
            RemoveTowerError::Store(_) => Reason::StoreFailed,
        };
        Self::new(reason, &error).money_may_have_moved(false)
    }
}
