//! The node and its peers, tokens and towers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::rpc::status::explain;
use proto::v1::node_client::NodeClient;
use proto::v1::tokens_client::TokensClient;
use proto::v1::tower_client::TowerClient;
use proto::v1::watchtower_client::WatchtowerClient;
use proto::v1::{self as pb};
use tonic::Request;
use tonic::transport::Endpoint;

use super::payments::whole;
use crate::callers::{Call, duplicates, revive};
use crate::process::wait_until;
use crate::world::{ALICE, HUB, World};

async fn tokens(world: &World) -> Vec<pb::Token> {
    let mut alice = TokensClient::new(world.door(ALICE).await);
    let request = pb::ListTokensRequest { page_size: Some(1_000), page_token: None };
    alice.list_tokens(request).await.unwrap().into_inner().tokens
}

fn token_of(world: &World) -> pb::BakeTokenRequest {
    let restrictions = pb::TokenRestrictions {
        role: pb::TokenRole::Payer.into(),
        budget_msat: Some(5_000),
        ..pb::TokenRestrictions::default()
    };
    pb::BakeTokenRequest {
        idempotency_key: world.name("token"),
        name: "till".into(),
        restrictions: Some(restrictions),
    }
}

/// Whether a token opens the node: why not.
async fn refused(world: &World, text: &str) -> Option<String> {
    let cert = std::fs::read(world.nodes[ALICE].read().await.dir.join("tls.crt")).unwrap();
    let address = format!("https://{}", world.nodes[ALICE].read().await.rpc);
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(cert))
        .domain_name("localhost");
    let channel = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect_lazy();
    let mut request = Request::new(pb::GetInfoRequest {});
    request.metadata_mut().insert("authorization", format!("Bearer {text}").parse().unwrap());
    let answer = NodeClient::new(channel).get_info(request).await;
    answer.err().map(|status| explain(&status).reason.unwrap_or_else(|| status.to_string()))
}

pub async fn bake_token(world: &Arc<World>) {
    let before = tokens(world).await.len();
    let request = token_of(world);
    let call = Call::new(ALICE, "Tokens/BakeToken", &request);
    let baked: pb::BakeTokenResponse = duplicates(world, call, whole).await.remove(0);
    let listed = tokens(world).await;
    assert_eq!(listed.len(), before + 1, "one more token");
    assert!(listed.contains(&baked.token.unwrap()), "it is listed as it was answered");
    assert_eq!(refused(world, &baked.text).await, None, "it opens");
}

pub async fn revoke_token(world: &Arc<World>) {
    let mut alice = TokensClient::new(world.door(ALICE).await);
    let baked = alice.bake_token(token_of(world)).await.unwrap().into_inner();
    let id = baked.token.unwrap().token_id;
    let before = tokens(world).await.len();
    let request = pb::RevokeTokenRequest {
        idempotency_key: world.name("revoke"),
        which: Some(pb::revoke_token_request::Which::TokenId(id)),
    };
    let call = Call::new(ALICE, "Tokens/RevokeToken", &request);
    // Also when: the first call says.
    let revoked: pb::Token = duplicates(world, call, whole).await.remove(0);
    assert!(revoked.revoked_unix_ms.is_some());
    let listed = tokens(world).await;
    assert_eq!(listed.len(), before, "no more tokens");
    assert!(listed.contains(&revoked), "it is listed as it was answered");
    assert_eq!(refused(world, &baked.text).await.as_deref(), Some("TOKEN_REVOKED"));
}

async fn towers(world: &World) -> Vec<pb::GuardingTower> {
    let mut alice = TowerClient::new(world.door(ALICE).await);
    alice.get_towers(pb::GetTowersRequest {}).await.unwrap().into_inner().towers
}

/// The key of bob's tower, as it says itself.
async fn tower_id(world: &World) -> Vec<u8> {
    let endpoint = Endpoint::from_shared(format!("http://{}", world.tower)).unwrap();
    let mut tower = WatchtowerClient::new(endpoint.connect_lazy());
    tower.get_terms(pb::GetTermsRequest {}).await.unwrap().into_inner().tower_id
}

async fn tower_of(world: &World) -> pb::AddTowerRequest {
    pb::AddTowerRequest {
        idempotency_key: world.name("tower"),
        tower_id: tower_id(world).await,
        address: world.tower.clone(),
        mode: pb::TowerMode::Blind.into(),
    }
}

async fn without_tower(world: &World) {
    let mut alice = TowerClient::new(world.door(ALICE).await);
    for tower in towers(world).await {
        let request = pb::RemoveTowerRequest {
            idempotency_key: world.name("remove"),
            tower_id: tower.tower_id,
        };
        alice.remove_tower(request).await.unwrap();
    }
}

/// What the tower has is counted by itself; which one it is stays.
pub async fn add_tower(world: &Arc<World>) {
    without_tower(world).await;
    let request = tower_of(world).await;
    let call = Call::new(ALICE, "Tower/AddTower", &request);
    let same = |answer: &[pb::GuardingTower]| {
        let tower = whole(answer);
        (tower.tower_id, tower.address, tower.mode, tower.client_id, tower.expires_height)
    };
    let tower = duplicates(world, call, same).await.remove(0);
    let listed = towers(world).await;
    assert_eq!(listed.len(), 1, "one tower: {listed:?}");
    assert_eq!(same(&listed), same(&[tower]));
}

pub async fn remove_tower(world: &Arc<World>) {
    without_tower(world).await;
    let mut alice = TowerClient::new(world.door(ALICE).await);
    let added = alice.add_tower(tower_of(world).await).await.unwrap().into_inner();
    let request =
        pb::RemoveTowerRequest { idempotency_key: world.name("remove"), tower_id: added.tower_id };
    let call = Call::new(ALICE, "Tower/RemoveTower", &request);
    let _empty: Vec<pb::RemoveTowerResponse> = duplicates(world, call, whole).await;
    assert_eq!(towers(world).await, [], "it is forgotten");
}

async fn peers(world: &World) -> Vec<pb::Peer> {
    let mut alice = NodeClient::new(world.door(ALICE).await);
    let request = pb::ListPeersRequest { page_size: Some(1_000), page_token: None };
    alice.list_peers(request).await.unwrap().into_inner().peers
}

async fn hub_of(world: &World) -> pb::ConnectPeerRequest {
    pb::ConnectPeerRequest {
        idempotency_key: world.name("connect"),
        node_id: world.id(HUB).await,
        address: world.address(HUB).await,
        keep: true,
    }
}

async fn knows_hub(world: &World) -> bool {
    let hub = world.id(HUB).await;
    peers(world).await.iter().any(|peer| peer.node_id == hub)
}

/// Whether a peer that is kept is connected just now is not compared.
pub async fn connect_peer(world: &Arc<World>) {
    let mut alice = NodeClient::new(world.door(ALICE).await);
    if knows_hub(world).await {
        let request = pb::DisconnectPeerRequest {
            idempotency_key: world.name("disconnect"),
            node_id: world.id(HUB).await,
        };
        alice.disconnect_peer(request).await.unwrap();
    }
    let before = peers(world).await.len();
    let request = hub_of(world).await;
    let call = Call::new(ALICE, "Node/ConnectPeer", &request);
    let same = |answer: &[pb::Peer]| {
        let peer = whole(answer);
        (peer.node_id, peer.address, peer.keep)
    };
    let peer = duplicates(world, call, same).await.remove(0);
    assert!(peer.keep);
    wait_until("a connection that is kept", || async {
        let all = peers(world).await;
        all.iter().any(|one| one.node_id == peer.node_id && one.keep && one.connected)
    })
    .await;
    assert!(peers(world).await.len() <= before + 1, "one more peer");
}

/// The hub has no channel with alice in the first round: nothing is left of it.
pub async fn disconnect_peer(world: &Arc<World>) {
    let mut alice = NodeClient::new(world.door(ALICE).await);
    alice.connect_peer(hub_of(world).await).await.unwrap();
    let hub = world.id(HUB).await;
    let shares_channel =
        world.channels(ALICE).await.iter().any(|channel| channel.counterparty_node_id == hub);
    let request = pb::DisconnectPeerRequest {
        idempotency_key: world.name("disconnect"),
        node_id: hub.clone(),
    };
    let call = Call::new(ALICE, "Node/DisconnectPeer", &request);
    let _empty: Vec<pb::DisconnectPeerResponse> = duplicates(world, call, whole).await;
    let left = peers(world).await.into_iter().find(|peer| peer.node_id == hub);
    match left {
        None => {}
        Some(peer) => assert!(shares_channel && !peer.keep, "it is forgotten: {peer:?}"),
    }
}

/// The process ends, by itself or by the kill, and is started again; callers who come after that
/// do not end the next one. The kill may come between the record of the call and the end: then the
/// log says nothing of a stop.
pub async fn stop(world: &Arc<World>) {
    let log = world.newest_event(HUB).await;
    let request = pb::StopRequest { idempotency_key: world.name("stop") };
    let call = Call::new(HUB, "Node/Stop", &request).ends_the_node();
    let _empty: Vec<pb::StopResponse> = duplicates(world, call.clone(), whole).await;
    // The end may come after the answers.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        revive(world, &call).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(world.door(HUB).await);
    let events = world.events(HUB, pb::EventKind::Node, log).await;
    let count = |kind: pb::NodeEventKind| {
        let is_it = |event: &&pb::Event| matches!(&event.kind, Some(pb::event::Kind::Node(event)) if event.kind() == kind);
        events.iter().filter(is_it).count()
    };
    let stops = count(pb::NodeEventKind::Stopping);
    assert!(stops <= 1, "it was stopped {stops} times");
    assert!(count(pb::NodeEventKind::Started) >= 1);
}
