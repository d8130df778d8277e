//! Channels of batches, and what a hub's operator does.

use std::sync::Arc;

use proto::v1::batches_client::BatchesClient;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::{self as pb};

use super::payments::whole;
use crate::callers::{Call, NOT_BACK, duplicates};
use crate::process::wait_until;
use crate::world::{ALICE, HUB, World};

const CAPACITY_SAT: u64 = 400_000;
/// What alice gets in a channel, to withdraw from.
const BALANCE_MSAT: u64 = 200_000_000;
/// How long a batch gathers that nobody is to join.
const LONG_MS: u64 = 600_000;

async fn policy(world: &World) -> pb::BatchPolicy {
    let mut hub = BatchesClient::new(world.door(HUB).await);
    hub.get_policy(pb::GetBatchPolicyRequest {}).await.unwrap().into_inner()
}

/// The offer counts until the node stops. The answer says what the offer is with the change in it.
pub async fn set_policy(world: &Arc<World>) {
    let fee_sat = 1 + u64::from(world.bytes::<1>()[0]);
    let request = pb::SetBatchPolicyRequest {
        idempotency_key: world.name("policy"),
        fee_sat: Some(fee_sat),
        ..pb::SetBatchPolicyRequest::default()
    };
    let before = policy(world).await;
    let call = Call::new(HUB, "Batches/SetPolicy", &request);
    let answer: pb::BatchPolicy = duplicates(world, call, whole).await.remove(0);
    assert_eq!(answer, pb::BatchPolicy { fee_sat, ..before });
    let now = policy(world).await;
    assert!([answer, before].contains(&now), "{now:?}");
    let mut hub = BatchesClient::new(world.door(HUB).await);
    let free = pb::SetBatchPolicyRequest {
        idempotency_key: world.name("free"),
        fee_sat: Some(0),
        ..pb::SetBatchPolicyRequest::default()
    };
    hub.set_policy(free).await.unwrap();
}

async fn hosted(world: &World) -> Vec<pb::HostedBatch> {
    let mut hub = BatchesClient::new(world.door(HUB).await);
    let request = pb::ListHostedBatchesRequest { page_size: Some(1_000), page_token: None };
    hub.list_hosted(request).await.unwrap().into_inner().batches
}

/// No batch gathers any more.
async fn none_gathers(world: &World) {
    let mut hub = BatchesClient::new(world.door(HUB).await);
    for batch in hosted(world).await {
        if batch.state() == pb::HostedBatchState::Gathering {
            let request = pb::CloseHostedBatchRequest {
                idempotency_key: world.name("none-gathers"),
                batch_id: batch.batch_id,
            };
            hub.close_hosted(request).await.unwrap();
        }
    }
}

fn opening(world: &World) -> pb::OpenHostedBatchRequest {
    pb::OpenHostedBatchRequest {
        idempotency_key: world.name("open-hosted"),
        gathering_ms: Some(LONG_MS),
    }
}

/// It gathers longer than this test takes, and ends with a restart: then it is listed no more, or
/// as failed. What was answered before that stays the answer.
pub async fn open_hosted(world: &Arc<World>) {
    none_gathers(world).await;
    let before = hosted(world).await;
    let request = opening(world);
    let call = Call::new(HUB, "Batches/OpenHosted", &request);
    let opened: pb::HostedBatch = duplicates(world, call, whole).await.remove(0);
    let listed = hosted(world).await;
    let is_new = |batch: &&pb::HostedBatch| before.iter().all(|old| old.batch_id != batch.batch_id);
    let new: Vec<&pb::HostedBatch> = listed.iter().filter(is_new).collect();
    let gathers = |batch: &&&pb::HostedBatch| batch.state() == pb::HostedBatchState::Gathering;
    let gathering: Vec<&&pb::HostedBatch> = new.iter().filter(gathers).collect();
    assert!(gathering.len() <= 1, "one more batch: {gathering:?}");
    assert!(gathering.iter().all(|batch| batch.batch_id == opened.batch_id), "{gathering:?}");
    none_gathers(world).await;
}

/// Nobody has registered, so that the batch ends with it. A restart that comes first ends it too.
pub async fn close_hosted(world: &Arc<World>) {
    none_gathers(world).await;
    let mut hub = BatchesClient::new(world.door(HUB).await);
    let opened = hub.open_hosted(opening(world)).await.unwrap().into_inner();
    let before = hosted(world).await.len();
    let request = pb::CloseHostedBatchRequest {
        idempotency_key: world.name("close-hosted"),
        batch_id: opened.batch_id.clone(),
    };
    let call = Call::new(HUB, "Batches/CloseHosted", &request).or_lost("BATCH_UNKNOWN");
    let closed: Vec<pb::HostedBatch> = duplicates(world, call, whole).await;
    assert!(closed.iter().all(|batch| batch.state() == pb::HostedBatchState::Failed));
    let listed = hosted(world).await;
    assert!(listed.len() <= before, "no more batches");
    let left = listed.iter().find(|batch| batch.batch_id == opened.batch_id);
    assert!(left.is_none_or(|batch| batch.state() == pb::HostedBatchState::Failed), "{left:?}");
}

async fn wishes(world: &World) -> Vec<pb::BatchMembership> {
    let mut alice = BatchesClient::new(world.door(ALICE).await);
    let request = pb::ListBatchesRequest { page_size: Some(1_000), page_token: None };
    alice.list(request).await.unwrap().into_inner().memberships
}

async fn wish(world: &World, id: &[u8]) -> pb::BatchMembership {
    let mut alice = BatchesClient::new(world.door(ALICE).await);
    let request = pb::GetBatchRequest { registration_id: id.to_vec() };
    alice.get(request).await.unwrap().into_inner()
}

/// Connects alice and the hub, for good.
async fn connected(world: &World) {
    let mut alice = NodeClient::new(world.door(ALICE).await);
    let request = pb::ConnectPeerRequest {
        idempotency_key: world.name("connect"),
        node_id: world.id(HUB).await,
        address: world.address(HUB).await,
        keep: true,
    };
    alice.connect_peer(request).await.unwrap();
    let hub = world.id(HUB).await;
    wait_until("a connection to the hub", || async {
        let mut alice = NodeClient::new(world.door(ALICE).await);
        let request = pb::ListPeersRequest { page_size: Some(1_000), page_token: None };
        let peers = alice.list_peers(request).await.unwrap().into_inner().peers;
        peers.iter().any(|peer| peer.node_id == hub && peer.connected)
    })
    .await;
}

async fn joining(world: &World) -> pb::JoinBatchRequest {
    pb::JoinBatchRequest {
        idempotency_key: world.name("join"),
        hub_node_id: world.id(HUB).await,
        capacity_sat: CAPACITY_SAT,
        inbound_sat: None,
    }
}

/// Mines until a wish has a channel that can be used, or came to nothing.
async fn formed(world: &World, id: &[u8]) -> pb::BatchMembership {
    wait_until("a channel of a batch", || async {
        world.mine_what_waits().await;
        let wish = wish(world, id).await;
        let is_active = match &wish.channel_record_id {
            Some(record_id) => {
                world.channel(ALICE, record_id).await.state() == pb::ChannelState::Active
            }
            None => false,
        };
        match wish.state() {
            pb::MembershipState::Confirmed => is_active,
            state => state == pb::MembershipState::Over,
        }
    })
    .await;
    wish(world, id).await
}

/// A channel of a batch between alice and the hub that is used; `balance_msat` is at least what
/// alice has there.
async fn batch_channel(world: &World, balance_msat: u64) -> pb::BatchMembership {
    none_gathers(world).await;
    connected(world).await;
    for wish in wishes(world).await {
        let is_confirmed = wish.state() == pb::MembershipState::Confirmed && wish.unroll.is_none();
        if let Some(record_id) = wish.channel_record_id.as_ref().filter(|_| is_confirmed) {
            let channel = world.channel(ALICE, record_id).await;
            let is_active = channel.state() == pb::ChannelState::Active;
            if is_active && (channel.holder_balance_msat >= balance_msat) {
                return wish;
            }
        }
    }
    let mut alice = BatchesClient::new(world.door(ALICE).await);
    let joined = alice.join(joining(world).await).await.unwrap().into_inner();
    let wish = formed(world, &joined.registration_id).await;
    assert_eq!(wish.state(), pb::MembershipState::Confirmed, "{wish:?}");
    if balance_msat > 0 {
        let mut hub = PaymentsClient::new(world.door(HUB).await);
        let target = pb::Keysend { node_id: world.id(ALICE).await, custom_records: Vec::new() };
        let request = pb::PayRequest {
            idempotency_key: world.name("balance"),
            target: Some(pb::pay_request::Target::Keysend(target)),
            amount_msat: Some(BALANCE_MSAT),
            wait: pb::PayWait::Wait.into(),
            ..pb::PayRequest::default()
        };
        let paid = hub.pay(request).await.unwrap().into_inner();
        assert_eq!(paid.state(), pb::PaymentState::Succeeded, "{paid:?}");
    }
    wish
}

/// The wish goes on by itself, and may come to nothing by the kill: its id and what it asks for
/// stay.
pub async fn join(world: &Arc<World>) {
    none_gathers(world).await;
    connected(world).await;
    let before = wishes(world).await.len();
    let request = joining(world).await;
    let call = Call::new(ALICE, "Batches/Join", &request).not_yet(NOT_BACK);
    let same = |answer: &[pb::BatchMembership]| {
        let wish = whole(answer);
        (wish.registration_id, wish.hub_node_id, wish.capacity_sat)
    };
    let joined = duplicates(world, call, same).await.remove(0);
    assert_eq!(wishes(world).await.len(), before + 1, "one more wish");
    let wish = formed(world, &joined.registration_id).await;
    assert_eq!(wishes(world).await.len(), before + 1, "one more wish");
    let hub = world.id(HUB).await;
    let channels = world.channels(ALICE).await;
    let theirs = channels.iter().filter(|channel| {
        channel.counterparty_node_id == hub
            && Some(&channel.record_id) == wish.channel_record_id.as_ref()
    });
    assert_eq!(theirs.count(), usize::from(wish.channel_record_id.is_some()), "one channel");
}

/// The node hands the key of a closed and empty channel over by itself; this repeats it.
pub async fn release(world: &Arc<World>) {
    let joined = batch_channel(world, 0).await;
    let record_id = joined.channel_record_id.clone().unwrap();
    let mut alice = ChannelsClient::new(world.door(ALICE).await);
    let request = pb::CloseChannelRequest {
        idempotency_key: world.name("close"),
        record_id,
        ..pb::CloseChannelRequest::default()
    };
    alice.close(request).await.unwrap();
    let id = joined.registration_id;
    wait_until("a retired channel", || async {
        wish(world, &id).await.state() == pb::MembershipState::Retired
    })
    .await;
    let before = wishes(world).await.len();
    let request = pb::ReleaseBatchRequest {
        idempotency_key: world.name("release"),
        registration_id: id.clone(),
    };
    let call = Call::new(ALICE, "Batches/Release", &request);
    // Whether the hub has taken it back meanwhile is not compared.
    let same = |answer: &[pb::BatchMembership]| {
        let wish = whole(answer);
        (wish.registration_id, wish.batch_id, wish.capacity_sat)
    };
    duplicates(world, call, same).await;
    assert_eq!(wishes(world).await.len(), before, "no more wishes");
    let states = [pb::MembershipState::Retired, pb::MembershipState::Dead];
    assert!(states.contains(&wish(world, &id).await.state()));
}

async fn swaps(world: &World, who: usize) -> Vec<pb::Swap> {
    let mut client = BatchesClient::new(world.door(who).await);
    let request = pb::ListSwapsRequest { page_size: Some(1_000), page_token: None };
    client.list_swaps(request).await.unwrap().into_inner().swaps
}

/// Mines until a swap is at its end on both sides, and says how.
async fn swapped(world: &World, id: &[u8]) -> pb::Swap {
    let ends = [pb::SwapState::Done, pb::SwapState::Refunded, pb::SwapState::Failed];
    let mut end = None;
    for _ in 0..200 {
        let (ours, theirs) = (swaps(world, ALICE).await, swaps(world, HUB).await);
        end = ours.into_iter().find(|swap| swap.swap_id == id && ends.contains(&swap.state()));
        let open = theirs.iter().any(|swap| swap.swap_id == id && !ends.contains(&swap.state()));
        if end.is_some() && !open {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        world.mine(1).await;
    }
    end.expect("a swap ends")
}

/// What alice has in the channel once nothing is under way in it.
async fn balance_msat(world: &World, record_id: &[u8]) -> u64 {
    wait_until("a quiet channel", || async {
        let channel = world.channel(ALICE, record_id).await;
        channel.htlcs_offered == 0 && channel.htlcs_received == 0
    })
    .await;
    world.channel(ALICE, record_id).await.holder_balance_msat
}

/// A swap is on its way: what it is about stays. Both sides agree on what became of it, and the
/// channel carries its payment once.
async fn swap_once(world: &World, call: Call, record_id: &[u8], sign: i64) {
    let (ours, theirs) = (swaps(world, ALICE).await.len(), swaps(world, HUB).await.len());
    let before = balance_msat(world, record_id).await;
    let same = |answer: &[pb::Swap]| {
        let swap = whole(answer);
        let about = (swap.swap_id, swap.kind, swap.amount_sat, swap.payment_hash);
        (about, swap.created_unix_ms)
    };
    let begun = duplicates(world, call, same).await.remove(0);
    let end = swapped(world, &begun.swap_id).await;
    assert_eq!(swaps(world, ALICE).await.len(), ours + 1, "one more swap");
    let hosted = swaps(world, HUB).await.len();
    assert!(hosted <= theirs + 1, "one more swap at the hub");
    let moved = balance_msat(world, record_id).await as i64 - before as i64;
    if end.state() == pb::SwapState::Done {
        assert_eq!(hosted, theirs + 1, "one more swap at the hub");
        assert_eq!(moved, sign * end.payment_msat() as i64, "paid once: {end:?}");
    } else {
        assert_eq!(moved, 0, "nothing was paid: {end:?}");
    }
}

pub async fn withdraw(world: &Arc<World>) {
    let wish = batch_channel(world, BALANCE_MSAT / 2).await;
    let record_id = wish.channel_record_id.unwrap();
    let request = pb::WithdrawRequest {
        idempotency_key: world.name("withdraw"),
        amount_sat: 40_000,
        address: None,
        max_fee_sat: None,
        channel_record_id: Some(record_id.clone()),
    };
    let call = Call::new(ALICE, "Batches/Withdraw", &request).not_yet(NOT_BACK);
    swap_once(world, call, &record_id, -1).await;
}

pub async fn deposit(world: &Arc<World>) {
    let wish = batch_channel(world, 0).await;
    let record_id = wish.channel_record_id.unwrap();
    let request = pb::DepositRequest {
        idempotency_key: world.name("deposit"),
        amount_sat: 30_000,
        max_fee_sat: None,
        feerate_sat_per_vb: None,
        channel_record_id: Some(record_id.clone()),
    };
    let call = Call::new(ALICE, "Batches/Deposit", &request).not_yet(NOT_BACK);
    swap_once(world, call, &record_id, 1).await;
}

/// How far the path came is not compared. At the end it is on chain, and the channel is the same.
pub async fn exit(world: &Arc<World>) {
    let joined = batch_channel(world, 0).await;
    let (id, record_id) = (joined.registration_id, joined.channel_record_id.unwrap());
    let before = (wishes(world).await.len(), world.channels(ALICE).await.len());
    let request =
        pb::ExitBatchRequest { idempotency_key: world.name("exit"), registration_id: id.clone() };
    let call = Call::new(ALICE, "Batches/Exit", &request);
    let same = |answer: &[pb::BatchMembership]| {
        let wish = whole(answer);
        let reason = wish.unroll.map(|unroll| unroll.reason());
        (wish.registration_id, wish.batch_id, wish.channel_record_id, reason)
    };
    let leaving = duplicates(world, call, same).await.remove(0);
    assert_eq!(leaving.unroll.unwrap().reason(), pb::UnrollReason::Requested);
    wait_until("the path on chain", || async {
        world.mine_what_waits().await;
        wish(world, &id).await.state() == pb::MembershipState::Unrolled
    })
    .await;
    let after = (wishes(world).await.len(), world.channels(ALICE).await.len());
    assert_eq!(after, before, "no more wishes and channels");
    let channel = world.channel(ALICE, &record_id).await;
    assert!(channel.closing.is_none(), "the channel goes on: {channel:?}");
}
