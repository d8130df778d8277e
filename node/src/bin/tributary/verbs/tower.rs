//! `tower add`, `list`, `remove`.

use proto::v1::{AddTowerRequest, GetTowersRequest, RemoveTowerRequest, TowerMode};

use super::money;
use crate::args::tower::{TowerAddArgs, TowerRemoveArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, tower};

pub async fn add(client: &Client, out: Output, args: TowerAddArgs) -> Result<(), CliError> {
    let Some(address) = args.tower.address else {
        return Err(CliError::Usage("say where the tower is: KEY@HOST:PORT".to_owned()));
    };
    let mode = if args.trusted { TowerMode::Trusted } else { TowerMode::Blind };
    let key = args.mutation.key();
    let request = AddTowerRequest {
        idempotency_key: key.clone(),
        tower_id: args.tower.node_id.0.to_vec(),
        address,
        mode: mode.into(),
    };
    let added = money(client.tower().add_tower(request).await, &key)?;
    out.answer(&added, |added| tower::list(std::slice::from_ref(added), 0))
}

pub async fn list(client: &Client, out: Output) -> Result<(), CliError> {
    let towers = client.tower().get_towers(GetTowersRequest {}).await?.into_inner();
    out.answer(&towers, |towers| tower::list(&towers.towers, towers.outbox_bytes))
}

pub async fn remove(client: &Client, out: Output, args: TowerRemoveArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let tower_id = args.tower.0.to_vec();
    let request = RemoveTowerRequest { idempotency_key: key.clone(), tower_id };
    let removed = money(client.tower().remove_tower(request).await, &key)?;
    out.answer(&removed, |_| "forgotten; what it has, it keeps until the subscription ends".into())
}
